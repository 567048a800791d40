"""Write a file whole or not at all. Every file that the program makes goes through here."""

import json
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path

from processing.errors import PipelineError


@contextmanager
def replacing(path):
    """Give a temporary path beside `path`; on a clean exit it is synced and becomes `path`.

    When the body or a later step fails, the old file stays as it was and the temporary one is removed.

    Raises:
        PipelineError: the system refused (disk full, no permission, file open elsewhere).
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".", suffix=f".tmp{path.suffix}", dir=path.parent)
        temporary = Path(name)
        os.close(handle)
        yield temporary
        _sync(temporary)
        os.chmod(temporary, 0o666 & ~_UMASK)
        os.replace(temporary, path)
        temporary = None
        _sync_folder(path.parent)
    except OSError as error:
        raise PipelineError(f"{path} could not be written: {error.strerror or error}.") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_bytes(path, data):
    """Write `data` (bytes-like) to `path`, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path, text):
    """Write `text` as UTF-8 with line feeds, whole or not at all."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path, value):
    """Write `value` as readable JSON."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_csv(path, table):
    """Write a DataFrame without its index; the same rows give the same bytes on every system."""
    write_text(path, table.to_csv(index=False, lineterminator="\n"))


def _read_umask():
    """Permission bits that the user takes from new files (temporary files ignore them)."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


_UMASK = _read_umask()


def _sync(path):
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def _sync_folder(folder):
    if os.name == "nt":  # Windows cannot open a folder for syncing
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
