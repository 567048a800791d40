"""Write a file whole or not at all. Every file that the program makes goes through here."""

import json
import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from processing.errors import PipelineError

if TYPE_CHECKING:
    import pandas as pd  # takes long to load, and is not needed here

TIME_STAMP = "%Y%m%d%H%M"       # names of run and result folders


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; on a clean exit it is synced and becomes `path`.

    When the body or a later step fails, the old file stays as it was and the temporary one is removed.

    Raises:
        PipelineError: the system refused (disk full, no permission, file open elsewhere).
    """
    path = Path(path)
    temporary = path.with_name(f".{uuid4().hex}.tmp{path.suffix}")      # known before it is there: a signal may fall
    try:                                                                # between its making and the next line
        with _report_refusal(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
            yield temporary
            _sync(temporary)
            os.replace(temporary, path)
            _sync_folder(path.parent)
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Write `data` (bytes-like) to `path`, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 with line feeds, whole or not at all."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: object) -> None:
    """Write `value` as readable JSON."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_csv(path: Path, table: "pd.DataFrame") -> None:
    """Write a DataFrame without its index; the same rows give the same bytes on every system."""
    write_text(path, table.to_csv(index=False, lineterminator="\n"))


def stat_files(root: Path, names: Sequence[str]) -> list[os.stat_result | None]:
    """os.stat_result of each file below `root`, None where there is none. Path would take longer than the system."""
    return [_stat(f"{root}{os.sep}{name}") for name in names]


def _stat(file):
    try:
        state = os.stat(file)
    except (OSError, ValueError):       # ValueError: no possible path
        return None
    return state if stat.S_ISREG(state.st_mode) else None


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on `path`; the system frees it when the process ends, however it ends.

    Raises:
        PipelineError: another process holds it.
    """
    with _report_refusal(path):
        file = open(path, "ab")     # noqa: SIM115 - held open for as long as the lock is
    with file:
        try:
            _lock(file)
        except OSError as error:
            raise PipelineError(f"{Path(path).parent} is in use by another process; wait for it or stop it.") from error
        yield


def _lock(file):
    if os.name == "nt":
        import msvcrt

        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def make_timed_folder(parent: Path) -> Path:
    """Make `parent`/<YYYYmmddHHMM>, or the same with -2, -3, ... behind it; never a folder that is there already."""
    names = _timed_names(parent)
    while True:
        folder = next(names)
        with suppress(FileExistsError), _report_refusal(folder):
            folder.mkdir(parents=True)
            return folder


@dataclass
class Folder:
    """A folder that will be renamed."""

    path: Path


@contextmanager
def new_timed_folder(parent: Path) -> Iterator[Folder]:
    """Give a hidden folder to fill; on a clean exit it becomes `parent`/<YYYYmmddHHMM>, else it is removed.

    Yields:
        Folder: its `path` is the hidden folder, and after the exit the final one.
    """
    folder = Folder(Path(parent) / f".{uuid4().hex}.tmp")
    try:
        with _report_refusal(parent):
            parent.mkdir(parents=True, exist_ok=True)
            folder.path.mkdir()
        yield folder
        with _report_refusal(parent):
            folder.path = _rename_to_free(folder.path, _timed_names(parent))
            _sync_folder(parent)
    except BaseException:
        shutil.rmtree(folder.path, ignore_errors=True)
        raise


def _rename_to_free(folder, names):
    for name in names:
        try:
            return folder.rename(name)      # refused where a folder with something in it is there already
        except OSError as error:
            if not name.exists():
                raise error


def _timed_names(parent):
    """`parent`/<YYYYmmddHHMM>, then with -2, -3, ... behind it."""
    stamp = datetime.now().strftime(TIME_STAMP)
    for number in count(1):
        yield Path(parent) / (stamp if number == 1 else f"{stamp}-{number}")


@contextmanager
def _report_refusal(path):
    """Say an OSError as a PipelineError that names `path`."""
    try:
        yield
    except FileExistsError:
        raise
    except OSError as error:
        raise PipelineError(f"{path} could not be written: {error.strerror or error}.") from error


def _sync(path, mode=os.O_RDWR):
    handle = os.open(path, mode)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync_folder(folder):
    """Sync a folder where the system can (Windows and some network disks cannot); the file is in place already."""
    with suppress(OSError):
        _sync(folder, os.O_RDONLY)
