import errno
import json
import os
from concurrent.futures import ThreadPoolExecutor
from unittest import mock

import pytest

from processing import files
from processing.errors import PipelineError
from processing.files import (
    make_timed_folder,
    new_timed_folder,
    read_if_there,
    replace_file,
    stat_files,
    try_to_write,
    write_bytes,
    write_json,
)


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_new_file_gets_the_users_permissions(tmp_path):
    (tmp_path / "plain").touch()
    write_bytes(tmp_path / "written", b"x")
    assert (tmp_path / "written").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("step", ["open", "fsync", "replace"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES])
def test_a_failed_write_leaves_the_old_file_and_says_why(tmp_path, monkeypatch, step, code):
    file = tmp_path / "table.csv"
    write_bytes(file, b"old")

    def fail(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(files.os, step, fail)
    monkeypatch.setattr(files.time, "sleep", lambda _: None)
    with pytest.raises(PipelineError, match=f"table.csv could not be written: {os.strerror(code)}"):
        write_bytes(file, b"new")
    assert file.read_bytes() == b"old"
    assert names_in(tmp_path) == ["table.csv"]


def test_an_interrupt_while_writing_leaves_the_old_file(tmp_path):
    file = tmp_path / "model.pt"
    write_bytes(file, b"old")
    with pytest.raises(KeyboardInterrupt), replace_file(file) as temporary:
        temporary.write_bytes(b"half")
        raise KeyboardInterrupt
    assert file.read_bytes() == b"old"
    assert names_in(tmp_path) == ["model.pt"]


def test_a_path_that_is_not_utf8_is_read_back_from_json_as_it_was(tmp_path):
    path = os.fsdecode(b"/home/\xd6\xd0/data")
    write_json(tmp_path / "a.json", {"init_from": path})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"init_from": path}


def test_a_folder_where_the_file_should_be_is_reported(tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(PipelineError, match="taken could not be written"):
        write_bytes(tmp_path / "taken", b"x")
    assert names_in(tmp_path) == ["taken"]


def test_folders_made_at_once_never_coincide(tmp_path):
    with ThreadPoolExecutor(20) as pool:
        folders = list(pool.map(lambda _: make_timed_folder(tmp_path / "runs"), range(20)))
    assert len(set(folders)) == 20
    assert all(folder.is_dir() for folder in folders)


def test_filled_folders_made_at_once_never_coincide(tmp_path):
    def fill(number):
        with new_timed_folder(tmp_path / "results") as folder:
            (folder.path / "file").write_text(str(number))
        return folder.path

    with ThreadPoolExecutor(20) as pool:
        folders = list(pool.map(fill, range(20)))
    assert [int((folder / "file").read_text()) for folder in folders] == list(range(20))
    assert len(names_in(tmp_path / "results")) == 20


def test_a_folder_that_fails_to_be_filled_leaves_nothing(tmp_path):
    with pytest.raises(PipelineError), new_timed_folder(tmp_path / "results") as folder:
        (folder.path / "first").write_text("done")
        raise PipelineError("the second cannot be written")
    assert names_in(tmp_path / "results") == []


# ---- Refused for a moment

@pytest.mark.parametrize("name", ["replace", "rename", "open", "mkdir"])
def test_what_is_refused_for_a_moment_is_tried_again(tmp_path, monkeypatch, name):
    """As a virus scanner or a sync client does it on Windows."""
    really, refusals = getattr(os, name), [errno.EACCES, errno.EBUSY, errno.EPERM]

    def refuse_first(*arguments):
        if refusals:
            code = refusals.pop()
            raise OSError(code, os.strerror(code))
        return really(*arguments)

    monkeypatch.setattr(files.os, name, refuse_first)
    monkeypatch.setattr(files.time, "sleep", lambda _: None)
    write_bytes(tmp_path / "crop.jpg", b"x")
    with new_timed_folder(tmp_path / "result") as folder:
        write_bytes(folder.path / "submission.csv", b"y")
    assert make_timed_folder(tmp_path / "runs").is_dir()
    assert not refusals
    assert (tmp_path / "crop.jpg").read_bytes() == b"x" and (folder.path / "submission.csv").read_bytes() == b"y"


def test_what_stays_refused_is_waited_for_once_only(monkeypatch):
    waits, calls = [], []

    def refuse():
        calls.append(1)
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(files.time, "sleep", waits.append)
    patience = files.Patience()
    for _ in range(10):
        with pytest.raises(PermissionError):
            patience.insist(refuse)
    assert len(calls) == 10 + len(waits)
    assert 1 < sum(waits) < 2
    assert patience.insist(len, "abc") == 3


def test_a_temporary_file_that_is_held_for_a_moment_is_removed(tmp_path, monkeypatch):
    real, refusals = os.unlink, [errno.EACCES, errno.EBUSY]

    def refuse_first(*arguments, **options):
        if refusals:
            raise OSError(code := refusals.pop(), os.strerror(code))
        return real(*arguments, **options)

    monkeypatch.setattr(files.os, "unlink", refuse_first)
    monkeypatch.setattr(files.time, "sleep", lambda _: None)
    with pytest.raises(ZeroDivisionError), replace_file(tmp_path / "crop.jpg"):
        raise ZeroDivisionError
    assert names_in(tmp_path) == []


def test_a_full_disk_is_not_tried_again(tmp_path, monkeypatch):
    calls = []

    def fail(*_):
        calls.append(1)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "replace", fail)
    with pytest.raises(PipelineError, match="could not be written"):
        write_bytes(tmp_path / "table.csv", b"x")
    assert len(calls) == 1


# ---- Locks

def test_only_a_lock_that_is_held_says_so(tmp_path):
    with files.hold_lock(tmp_path / ".lock"), pytest.raises(PipelineError, match="in use by another process"), \
            files.hold_lock(tmp_path / ".lock"):
        pass


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_disk_that_cannot_lock_is_said_once_and_work_goes_on(tmp_path, monkeypatch, capsys, code):
    def refuse(_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(files, "_lock", refuse)
    files._say_no_locks.cache_clear()
    done = []
    for number in range(3):
        with files.hold_lock(tmp_path / ".lock"):
            done.append(number)
    assert done == [0, 1, 2]
    assert capsys.readouterr().out.count("This disk cannot lock files") == 1


# ---- Refused is not absent

def test_what_cannot_be_read_is_not_taken_for_absent(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"1")
    (tmp_path / "folder").mkdir()
    assert read_if_there(tmp_path / "file") == b"1"
    assert read_if_there(tmp_path / "none") is read_if_there(tmp_path / "file" / "none") is None
    with pytest.raises(PipelineError, match="folder cannot be read: "):
        read_if_there(tmp_path / "folder")
    names = ["file", "none", "folder", "file/none", "x" * 5000, "a\0b"]
    assert [state is not None for state in stat_files(tmp_path, names)] == [True] + 5 * [False]
    refusal = OSError(errno.EACCES, os.strerror(errno.EACCES))
    monkeypatch.setattr(os, "stat", mock.Mock(side_effect=refusal))
    with pytest.raises(PipelineError, match="file cannot be read: Permission denied"):
        stat_files(tmp_path, ["file"])


@pytest.mark.parametrize("error", [PipelineError("disk full"), ValueError("odd numbers"), MemoryError()])
def test_what_is_for_looking_at_ends_nothing_when_it_cannot_be_written(tmp_path, capsys, error):
    def fail():
        raise error

    picture = tmp_path / "picture.png"
    assert not try_to_write(picture, fail)
    shown = capsys.readouterr().out
    assert str(picture) in shown and (str(error) or "MemoryError") in shown
    assert try_to_write(picture, picture.touch) and picture.is_file()
    with pytest.raises(KeyboardInterrupt):
        try_to_write(picture, mock.Mock(side_effect=KeyboardInterrupt))
    behind = ImportError("initialization failed")       # Ctrl-C while matplotlib was loaded
    behind.__cause__ = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        try_to_write(picture, mock.Mock(side_effect=behind))
