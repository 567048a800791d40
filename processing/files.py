"""Write a file whole or not at all. Every file that the program makes goes through here."""

import errno
import functools
import json
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from processing.errors import PipelineError
from processing.terminal import raise_stop, say

if TYPE_CHECKING:
    import pandas as pd  # takes long to load, and is not needed here

TIME_STAMP = "%Y%m%d%H%M"       # names of run and result folders
PASSING = {errno.EACCES, errno.EPERM, errno.EBUSY}      # refusals that may be over in a moment
NOT_THERE = {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EINVAL}     # the last two: no possible path
WAITS_S = (0.05, 0.1, 0.2, 0.4, 0.8)
# What a lock that another process holds is refused with; on Windows: msvcrt.locking's
HELD = {errno.EACCES, errno.EDEADLK} if os.name == "nt" else {errno.EAGAIN, errno.EWOULDBLOCK}


@contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; on a clean exit it is synced and becomes `path`.

    When the body or a later step fails, the old file stays as it was and the temporary one is removed.

    Raises:
        PipelineError: the system refused (disk full, no permission, file open elsewhere).
    """
    path = Path(path)
    temporary = path.with_name(f".{uuid4().hex}.tmp{path.suffix}")      # known before it is there: a signal may fall
    try:                                                                # between its making and the next line
        with _report_refusal(path):
            insist(os.makedirs, path.parent, 0o777, True)
            os.close(insist(os.open, temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
            yield temporary
            insist(_sync, temporary)
            insist(os.replace, temporary, path)
            _sync_folder(path.parent)
    finally:
        with suppress(OSError):
            insist(temporary.unlink)


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Write `data` (bytes-like) to `path`, whole or not at all."""
    with replace_file(path) as temporary:
        insist(temporary.write_bytes, data)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 with line feeds, whole or not at all. Of a path that is not UTF-8: \\udc.. as in JSON."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_json(path: Path, value: object) -> None:
    """Write `value` as readable JSON."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_csv(path: Path, table: "pd.DataFrame") -> None:
    """Write a DataFrame without its index; the same rows give the same bytes on every system."""
    write_text(path, table.to_csv(index=False, lineterminator="\n"))


def read_if_there(path: Path) -> bytes | None:
    """The bytes of a file, None where there is none.

    Raises:
        PipelineError: it is there, and the system refused to read it.
    """
    try:
        return insist(path.read_bytes)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise PipelineError(f"{path} cannot be read: {error.strerror or error}.") from error


def describe_file(file: Path) -> list[str]:
    """Its size and time (c.MEASURED_STATE), by which a change is seen; empty where the system does not tell them."""
    try:
        state = file.stat()
    except OSError:
        return ["", ""]
    return [str(state.st_size), str(state.st_mtime_ns)]


def stat_files(root: Path, names: Sequence[str]) -> list[os.stat_result | None]:
    """os.stat_result of each file below `root`, None where there is none. Path would take longer than the system.

    Raises:
        PipelineError: the system does not say whether it is there (no permission, a network disk that is away).
    """
    states: list[os.stat_result | None] = []
    for name in names:
        try:
            state = os.stat(f"{root}{os.sep}{name}")
            states.append(state if stat.S_ISREG(state.st_mode) else None)
        except ValueError:          # no possible path
            states.append(None)
        except OSError as error:
            if error.errno not in NOT_THERE:
                raise PipelineError(f"{root / name} cannot be read: {error.strerror or error}.") from error
            states.append(None)
    return states


def try_to_write(file: Path, write: Callable[[], None]) -> bool:
    """Write what is for looking at: where that fails, whatever the reason, it is said, and work goes on.

    Args:
        file: what is written.
        write: writes it.

    Returns:
        Whether it was written.
    """
    try:
        write()
    except Exception as error:
        raise_stop(error)
        say(f"{file} is not written: {str(error) or type(error).__name__}. It is for looking at only; work goes on.")
        return False
    return True


@contextmanager
def hold_lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on `path`; the system frees it when the process ends, however it ends.

    Where the disk knows no locks, which is said once, nothing is held.

    Raises:
        PipelineError: another process holds it.
    """
    with _report_refusal(path):
        file = open(path, "ab")     # noqa: SIM115 - held open for as long as the lock is
    with file:
        try:
            _lock(file)
        except OSError as error:
            if error.errno in HELD:
                raise PipelineError(f"{Path(path).parent} is in use by another process; wait for it or stop it."
                                    ) from error
            _say_no_locks(error.strerror)
        yield


@functools.cache        # once is enough
def _say_no_locks(reason):
    say(f"This disk cannot lock files ({reason}): see to it yourself that no two trainings use one run folder.")


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
            insist(os.makedirs, folder)
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
            insist(os.makedirs, parent, 0o777, True)
            insist(folder.path.mkdir)
        yield folder
        with _report_refusal(parent):
            folder.path = _rename_to_free(folder.path, _timed_names(parent))
            _sync_folder(parent)
    except BaseException:
        shutil.rmtree(folder.path, ignore_errors=True)
        raise


def _rename_to_free(folder, names):
    for name in names:
        if name.exists():
            continue
        try:
            return insist(folder.rename, name)     # refused where a folder with something in it came meanwhile
        except OSError as error:
            if not name.exists():
                raise error


def insist(work: Callable, *arguments: Any, waits: Sequence[float] = WAITS_S) -> Any:
    """Call `work`; again for a moment where a virus scanner, a sync client or a viewer has the file open.

    Args:
        work: what is refused or done as a whole.
        arguments: its own.
        waits: seconds before each further try.

    Returns:
        What `work` returns.

    Raises:
        OSError: of the last try; at once where it is not one of PASSING.
    """
    for wait in waits:
        try:
            return work(*arguments)
        except OSError as error:
            if error.errno not in PASSING:
                raise
        time.sleep(wait)
    return work(*arguments)


class Patience:
    """Insists until something stays refused; from then on all is tried once only.

    For work on many files: where a disk refuses on principle, not every one of them is waited for.
    """

    def __init__(self) -> None:
        self._waits: Sequence[float] = WAITS_S

    def insist(self, work: Callable, *arguments: Any) -> Any:
        """Call `work` as the function `insist` does."""
        try:
            return insist(work, *arguments, waits=self._waits)
        except OSError as error:
            if error.errno in PASSING:
                self._waits = ()
            raise


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
