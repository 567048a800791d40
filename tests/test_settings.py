"""What users' edits break in config.py and model_config.py is one line: file, line, reason."""

import os
import subprocess
import sys

import pytest

from tests.helpers import REPOSITORY


def run_edited(folder, file, edit):
    """The program with `edit` (bytes) put behind the last line of `file`; its complaint without the folder's name."""
    for name in ("main.py", "config.py", "model_config.py"):
        (folder / name).write_bytes((REPOSITORY / name).read_bytes())
    with open(folder / file, "ab") as target:
        target.write(edit + b"\n")
    answer = subprocess.run(
        [sys.executable, folder / "main.py", "0"], capture_output=True, encoding="utf-8", stdin=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "PYTHONIOENCODING": "utf-8"},     # for the rooms
    )
    assert answer.returncode == 2, answer.stderr
    last = len((REPOSITORY / file).read_text(encoding="utf-8").splitlines())
    place = f"{folder / file}, line "
    assert answer.stderr.startswith(place) and len(answer.stderr.splitlines()) == 1, answer.stderr
    line, _, reason = answer.stderr.removeprefix(place).partition(": ")
    return int(line) - last, reason.strip()


@pytest.mark.parametrize("file", ["config.py", "model_config.py"])
@pytest.mark.parametrize(("edit", "line", "words"), [
    (rb'A = "C:\Users\me\x.pt"', 1, 'write the path with /, or with an r before it: r"C:\\Users\\me"'),
    ("A = (1，2)".encode(), 1, "invalid character '，' (U+FF0C)"),
    ("# a comment\n\nA = '中文'".encode("gbk"), 3, "save the file as UTF-8"),
    (b"A = 1\nB = 'a\0b'", 2, "null bytes; save the file as UTF-8"),
    (b"A = nothing", 1, "NameError: name 'nothing' is not defined"),
    (b"  A = 1", 1, "unexpected indent"),
    (b"import no_such_module", 1, "ModuleNotFoundError: No module named 'no_such_module'"),
    (b"from os import nothing", 1, "ImportError: cannot import name 'nothing' from 'os'"),
    (b"A = 1 + None", 1, "TypeError: unsupported operand"),
    (b"A = float('a')", 1, "ValueError: could not convert string to float: 'a'"),
    (b"A = {}[3]", 1, "KeyError: 3"),
    (b"assert False", 1, "AssertionError"),
    (rb'A = "D:\eyes"', 1, "path with /, or with an r before it"),
    (b"import sys; sys.exit(3)", 1, "SystemExit: 3"),
    (b"raise ValueError('a\\nb')", 1, "ValueError: a b"),
], ids=str)
def test_what_python_says_of_a_config_module_is_one_line_with_its_place(tmp_path, file, edit, line, words):
    found, reason = run_edited(tmp_path, file, edit)
    assert found == line
    assert words in reason


@pytest.mark.parametrize(("file", "edit", "words"), [
    ("config.py", b"PATHS = 'D:/eyes'", "PATHS is 'D:/eyes'; it must be Paths(a folder)."),
    ("config.py", b"VIEWS = {'bscan': (50, 450, 550, 1200)}", "it must be a dict of name: View(...)."),
    ("config.py", b"EXCLUDED_IMAGES = ('0000-1270R_2.jpg')", "with a comma after each"),
    ("config.py", b"CHECKPOINTS = 'a.pt'", "it must be a dict of name: path or None, with"),
    ("config.py", b"CHECKPOINTS = {'Model-Image-Bfore': None}", "with the names Model-Image-Before, "),
    ("config.py", rb"CHECKPOINTS = {'Model-CSV': 'D:\new'}", "CHECKPOINTS is {'Model-CSV': 'D:\\new'}; it must"),
    ("model_config.py", b"IMAGE_MODELS = IMAGE_MODELS[0]", "it must be a list of ImageConfig(...)."),
    ("model_config.py", b"CSV_MODEL = [CSVConfig()]", "it must be CSVConfig(...)."),
    ("model_config.py", b"PREDICT_BATCH_SIZE = 0", "PREDICT_BATCH_SIZE is 0; it must be a whole number, 1 or more."),
])
def test_a_setting_of_another_kind_is_one_line_with_its_place(tmp_path, file, edit, words):
    line, reason = run_edited(tmp_path, file, edit)
    assert line == 1
    assert words in reason


@pytest.mark.parametrize(("file", "name"), [
    ("config.py", "View"), ("config.py", "Paths"), ("model_config.py", "ImageConfig"), ("model_config.py", "CSVConfig"),
])
def test_a_class_that_became_something_else_is_named(tmp_path, file, name):
    _, reason = run_edited(tmp_path, file, f"{name} = 3".encode())
    assert reason == f"{name} is 3; it must be the class that this file came with."


def test_a_setting_that_is_gone_is_named(tmp_path):
    for name in ("main.py", "config.py", "model_config.py"):
        (tmp_path / name).write_bytes((REPOSITORY / name).read_bytes())
    with open(tmp_path / "model_config.py", "a", encoding="utf-8") as file:
        file.write("del IMAGE_MODELS\n")
    answer = subprocess.run([sys.executable, tmp_path / "main.py"], capture_output=True, encoding="utf-8",
                            input="q\n", env=os.environ | {"PYTHONPATH": str(REPOSITORY)})
    file = tmp_path / "model_config.py"
    assert answer.stderr == f"{file}: IMAGE_MODELS is not there; it must be a list of ImageConfig(...).\n"
