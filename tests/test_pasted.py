"""Paths as people paste them, wherever the program takes one."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from processing import terminal
from processing.errors import PipelineError
from processing.flags import read_sources
from processing.pasted import IS_POSIX, read_path, read_paths, show, strip_pasted
from tests.helpers import REPOSITORY, run_main

POSIX = pytest.mark.skipif(not IS_POSIX, reason="a backslash stands between folders here")
WAYS = {        # how a path is pasted
    "direction": "\u202a{}", "byte order mark": "\ufeff{}\u200b", "carriage return": "{}\r", "blank": "\u3000{}\xa0",
    "quotes": '"{}"', "curly": "“{}”", "curly single": " ‘{}’ ", "wide": "＂{}＂", "guillemets": "«{}»",
    "corners": "「{}」", "backticks": "`{}`", "mark and quotes": '\u202a"{}"\u202c',
}


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "my eyes 眼 (1)"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_what_was_pasted_around_a_path_is_taken_off(folder, way):
    assert read_path(way.format(folder)) == str(folder)
    assert read_path(way.format(folder / "nowhere")) == str(folder / "nowhere")


def test_a_url_a_mark_within_and_other_spellings_of_a_path_are_read(folder):
    assert read_path(folder.as_uri()) == str(folder)
    assert read_path(f"“{folder.as_uri()}”") == str(folder)
    assert read_path(folder.as_uri().replace("file://", "file://localhost")) == str(folder)
    assert read_path(f"{str(folder)[:-3]}\u200b{str(folder)[-3:]}") == str(folder)
    assert read_path(str(folder).replace("(1)", "（１）")) == str(folder)
    assert read_path("file:///C:/my%20eyes") == "C:/my eyes"
    decomposed = folder / "e\u0301"
    decomposed.mkdir()
    assert Path(read_path(str(folder / "\xe9"))).samefile(decomposed)


@POSIX
@pytest.mark.parametrize("name", ["my eyes", "it's", "a (b) & c", "$HOME"])
def test_a_path_as_a_shell_writes_it_is_read(tmp_path, name):
    (tmp_path / name).mkdir()
    escaped = "".join(sign if sign.isalnum() or sign in "/_-." else f"\\{sign}" for sign in str(tmp_path / name))
    quoted = "'" + str(tmp_path / name).replace("'", "'\\''") + "' "
    assert read_path(escaped) == read_path(quoted) == str(tmp_path / name)


@pytest.mark.parametrize("name", ["'quoted'", "“curly”", "a\u200b", "（１）", "file:", "a c"] + ["a\\ b"] * IS_POSIX)
def test_a_path_that_exists_as_typed_is_taken_as_typed(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    for other in (name, "quoted", "curly", "a", "c", "(1)", "a b"):
        Path(other).mkdir(exist_ok=True)
    assert read_path(name) == name
    assert read_paths(name) == [name]


def test_several_paths_in_a_line_are_told_apart(folder):
    first, second = folder / "a b", folder / "c"
    for path in (first, second):
        path.mkdir()
    pair = [str(first), str(second)]
    for line in (f"'{first}' '{second}'", f'"{first}" "{second}"', f"“{first}” “{second}”\u200b"):
        assert read_paths(line) == pair
    assert read_paths(f"'{first}' '{folder / 'gone'}'") == [str(first), str(folder / "gone")]
    assert read_paths(str(folder / "no such")) == [str(folder / "no such")]
    if IS_POSIX:
        assert read_paths(" ".join(re.sub(r"([ ()])", r"\\\1", path) for path in pair)) == pair


def test_what_is_no_path_at_all_raises_nothing(tmp_path):
    for text in ("", "\0", "a\0b", "~nobody-of-this-name", "x" * 5000, "'", '"a', "\\", "file:", "\u202a", "\udcff"):
        assert "\0" not in read_path(text)
        assert read_paths(text)
    assert strip_pasted("\u202a“”") == ""


def test_marks_are_shown_by_their_numbers():
    assert show("\u202aD:\\my eyes\u3000眼\t") == "\\u202aD:\\my eyes\\u3000眼\\u0009"


# ---- Where the program takes a path

def test_sources_are_read_from_pasted_lines(folder, monkeypatch):
    lines = iter([f"\u202a“{folder}”", f"'{folder}' '{folder}'", folder.as_uri(), "\u200b"])
    monkeypatch.setattr("builtins.input", lambda _: next(lines))
    assert read_sources(terminal.ask_lines("sources")) == [folder] * 4


def test_a_source_that_is_not_there_is_named_with_its_marks(tmp_path):
    answer = run_main("import_data", f"{tmp_path}/ey\u200bes", "--yes", root=tmp_path)
    assert answer.returncode == 1
    assert f"{tmp_path}/ey\\u200bes is not there." in answer.stderr


def test_a_path_that_is_nowhere_is_one_message_with_its_marks(demo_copy):
    """All in one process, as torch is long in loading."""
    options = [["7", "--yes"], ["9"], ["12"], ["2", "--resume"], ["2", "--init-from"], ["5", "--image-all"],
               ["8", "--truth", ".", "--submission"]]
    texts = ["~nobody-of-this-name/a", "x" * 300, "a\u200bb"]
    commands = [[*words, text] for words in options for text in texts]
    script = """if True:
        import contextlib, io, json, main, sys
        for words in json.load(sys.stdin):
            with contextlib.redirect_stderr(io.StringIO()) as error:
                status = main.main(words)
            print(json.dumps([status, error.getvalue()]))"""
    answer = subprocess.run(
        [sys.executable, "-c", script], input=json.dumps(commands), capture_output=True, encoding="utf-8",
        cwd=REPOSITORY, env=os.environ | {"APTOS_ROOT": str(demo_copy.root), "PYTHONIOENCODING": "utf-8"})
    results = [json.loads(line) for line in answer.stdout.splitlines() if line.startswith("[")]
    assert len(results) == len(commands), answer.stderr
    for words, (status, error) in zip(commands, results, strict=True):
        assert (status, len(error.splitlines()), "bug" in error) == (1, 1, False), (words, error)
        assert show(words[-1]) in error, words


@pytest.mark.parametrize("way", ["\u202a{}", "“{}”", "'{}'"])
def test_runs_submissions_and_targets_are_found_as_pasted(trained_copy, way, tmp_path):
    from data.scorer import read_pairs
    from model.export import _choose_targets
    from model.runs import find_path, find_unfinished, resolve_checkpoint

    run = next((trained_copy.ckpt / "Model-CSV").iterdir())
    name = f"Model-CSV/{run.name}"
    for text in (run, name, f"model/ckpt/{name}"):
        assert find_path(trained_copy, way.format(text)) == run
    assert find_unfinished(trained_copy, ["Model-CSV"], way.format(run)) == run
    assert resolve_checkpoint(trained_copy, way.format(run / "Model-CSV.pt")) == run / "Model-CSV.pt"
    targets = _choose_targets([run / "Model-CSV.pt"], way.format(tmp_path / "out"))
    assert targets == [tmp_path / "out" / "Model-CSV.onnx"]
    with pytest.raises(PipelineError, match="Nothing can be scored"):
        read_pairs([way.format(run)], [way.format(run)])


@pytest.mark.parametrize("way", ["\u202a{}", "“{}”", "'{}'"])
def test_the_root_is_found_as_pasted(folder, way):
    answer = subprocess.run(
        [sys.executable, REPOSITORY / "main.py", "0"], capture_output=True, encoding="utf-8",
        env=os.environ | {"APTOS_ROOT": way.format(folder), "PYTHONIOENCODING": "utf-8"}, cwd=folder.parent)
    assert answer.returncode == 1
    assert str(folder / "data") in answer.stderr
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
