"""What lies in downloaded folders and zip files, as entries with a size and a way to read them.

Reads folders, zip files and single CSV files; writes nothing. Refuses archives that are broken, encrypted or bombs,
and links or names that lead out of what was given.
"""

import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, NamedTuple

from processing.errors import PipelineError
from processing.files import insist
from processing.formats import ARCHIVE, START_BYTES, UNFINISHED_SUFFIXES, explain_unread, identify_content, read_start
from processing.pasted import show
from processing.source import SUFFIXES, find_files

MAX_RATIO = 100             # times its compressed size; more is a bomb (JPEGs hardly shrink, tables 5 to 20 times)
SMALL_BYTES = 1 << 20       # what unpacks to no more than this is harmless at any ratio
_CHUNK_BYTES = 1 << 20
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_UTF8_NAME = 0x800          # flags of a member
_ENCRYPTED = 0x1
_UNICODE_PATH = 0x7075      # an extra field: the name in UTF-8
_END_RECORD, _LOCATOR_64 = struct.Struct("<4s4H2LH"), struct.Struct("<4sLQL")
_MAX_END_BYTES = _LOCATOR_64.size + _END_RECORD.size + (1 << 16)    # with the longest comment
_CORRECT = "it is damaged or changed; download it again"
_SPLIT = "Put all parts into one folder, unpack them with 7-Zip or WinRAR and give the folder that comes of it."
# What zipfile and zlib raise on broken archives, as found by damaging some at random
_ZIP_FAULTS = (zipfile.BadZipFile, zlib.error, struct.error, NotImplementedError, EOFError, ValueError, OSError)


class Entry(NamedTuple):
    """One file: on the disk, or a member of a zip file."""

    parts: tuple[str, ...]  # names of the source, of the folders below it and of the file
    size: int               # bytes
    path: Path              # the file, or the zip file that holds it
    archive: zipfile.ZipFile | None = None
    member: zipfile.ZipInfo | None = None

    def __str__(self):
        return str(self.path) if self.member is None else f"{self.path}: {_decode_name(self.member)}"

    def read_chunks(self) -> Iterator[bytes]:
        """Yield the content in pieces of bytes.

        Raises:
            PipelineError: it cannot be read, fails its checksum, or is not of the size that it claims.
        """
        left = self.size
        try:
            with insist(self._open) as file:
                while chunk := file.read(_CHUNK_BYTES):
                    left -= len(chunk)
                    yield chunk
        except OSError as error:
            raise PipelineError(f"{self} cannot be read: {error.strerror or error}.") from error
        except _ZIP_FAULTS as error:
            raise PipelineError(f"{self} cannot be read ({error}): {_CORRECT}.") from error
        if left:
            raise PipelineError(f"{self} has {self.size - left} bytes instead of {self.size}: {_CORRECT}.")

    def read_start(self) -> bytes:
        """The first bytes, by which its kind may be told; none where it cannot be read."""
        if self.archive is None:
            return read_start(self.path)
        with suppress(*_ZIP_FAULTS), self._open() as file:
            return file.read(START_BYTES)
        return b""

    def _open(self) -> IO[bytes]:
        return self.archive.open(self.member) if self.archive and self.member else open(self.path, "rb")


class _End(NamedTuple):
    """What a zip file's end says."""

    parts: int              # of a split archive; else 1
    is_cut: bool            # whether bytes are missing that ought to stand before it


def make_entry(path: Path, parts: tuple[str, ...] = ()) -> Entry:
    """The entry of a file on the disk; without `parts`, its name alone. OSError where it is not there."""
    return Entry(parts or (path.name,), path.stat().st_size, path)


def same_content(first: Entry, second: Entry) -> bool:
    """Whether two entries hold the same bytes; reads them only where they are of one size."""
    if first.size != second.size:
        return False
    is_one_file = not (first.archive or second.archive) and first.path.samefile(second.path)
    return is_one_file or all(a == b for a, b in zip(first.read_chunks(), second.read_chunks(), strict=True))


def find_entries(sources: Iterable[Path | str], stack: ExitStack) -> Iterator[Entry]:
    """Every file in `sources` but hidden ones, zip files opened. Folders keep their order, names are sorted.

    Args:
        sources: folders, zip files and CSV files.
        stack: closes the zip files; entries can be read until then.

    Raises:
        PipelineError: a source that is none of these, or that must not be trusted.
        OSError: a file is gone or out of reach.
    """
    for source in sources:
        path = Path(os.path.realpath(os.path.expanduser(source)))      # Path.resolve raises on a loop of links
        if path.is_dir():
            yield from _list_folder(path, stack)
        elif path.is_file() and path.suffix.lower() in (".zip", ".csv"):
            yield from _list_file(path, (path.name,), stack)
        elif path.exists():
            raise PipelineError(f"{path} is no folder, zip file or CSV file: {_explain_source(path)}.")
        else:
            raise PipelineError(f"{show(path)} is not there. Give the downloaded folder, zip files or CSV files.")


def _list_folder(folder, stack):
    for file in find_files(folder):
        real = Path(os.path.realpath(file))
        if not real.is_relative_to(folder):
            raise PipelineError(f"{file} is a link that leads out of {folder}, to {real}. Remove the link.")
        if not real.is_file():
            raise PipelineError(f"{file} is no plain file, or a link that leads nowhere. Remove it.")
        yield from _list_file(real, (folder.name, *file.relative_to(folder).parts), stack)


def _explain_source(path):
    """Why a single file is no source, and what to do."""
    if path.suffix.lower() in SUFFIXES:
        return "give the folder that holds it"
    unread = explain_unread(path.name, read_start(path))
    return unread.reason if unread else "give what was downloaded"


def _list_file(path, parts, stack):
    """The entry of a file or, of a zip file, of each member, as if it had been unpacked into a folder beside it."""
    *above, name = [_decode(os.fsencode(part)) or part for part in parts]
    if not name.lower().endswith(".zip"):
        yield make_entry(path, (*above, name))
        return
    above.append(name[: -len(".zip")])
    archive = _open_zip(path, stack)
    _refuse_bomb(path, archive.infolist())
    for member in archive.infolist():
        name = _decode_name(member)
        words = re.split(r"[/\\]", name)
        _refuse_unsafe(path, member, name, words)
        parts = [word for word in words if word not in ("", ".")]
        if name.endswith(("/", "\\")) or any(part.startswith((".", "__MACOSX")) for part in parts):
            continue
        if name.lower().endswith(".zip"):
            raise PipelineError(f"{path}: {name!r} is a zip file inside a zip file. Unpack {path.name} first.")
        yield Entry((*above, *parts), member.file_size, path, archive, member)


def _open_zip(path, stack):
    try:
        file = stack.enter_context(insist(open, path, "rb"))
    except OSError as error:
        raise PipelineError(f"{path} cannot be read: {error.strerror or error}.") from error
    end = _read_end(file)
    if end and end.parts > 1:
        raise PipelineError(f"{path} is the last of the {end.parts} parts of a split archive. {_SPLIT}")
    try:
        archive = stack.enter_context(zipfile.ZipFile(file))
        if any(member.header_offset < 0 for member in archive.infolist()):
            raise zipfile.BadZipFile("Members without their beginning")
        return archive
    except _ZIP_FAULTS as error:
        reason = _explain_fault(path, file, end, error)
        raise PipelineError(f"{path} cannot be opened as a zip file: {reason}") from error


def _read_end(file):
    """What the end record of a zip file says of the whole; None where there is no such record."""
    length = file.seek(0, os.SEEK_END)
    first = file.seek(max(0, length - _MAX_END_BYTES))
    data = file.read()
    place = data.rfind(b"PK\x05\x06")
    if place < 0 or len(data) < place + _END_RECORD.size:
        return None
    _, disk, _, _, _, size, offset, _ = _END_RECORD.unpack_from(data, place)
    if place >= _LOCATOR_64.size and data[place - _LOCATOR_64.size:].startswith(b"PK\x06\x07"):
        return _End(_LOCATOR_64.unpack_from(data, place - _LOCATOR_64.size)[3], is_cut=False)
    return _End(disk + 1, size + offset > first + place)


def _explain_fault(path, file, end, error):
    """Why a file is no zip file that can be opened, and what to do, as sentences."""
    file.seek(0)
    start = file.read(START_BYTES)
    what, kind = identify_content(start) or ("", None)
    unfinished = [other for suffix in UNFINISHED_SUFFIXES if (other := path.with_name(path.name + suffix)).exists()]
    if unfinished:
        return f"its download is not finished, as {unfinished[0].name} beside it tells. Wait for its end."
    if not start.strip(b"\0"):
        return "there is nothing in it yet, or no more. Wait for the end of its download, or download it again."
    if what.startswith("the first part"):
        return f"it is {what}. {_SPLIT}"
    if what == "a web page":
        return "it is a web page, perhaps one that asks to log in. Open the link in a browser and download again."
    if what and not start.startswith(b"PK"):
        return f"it is {what}. " + ("Unpack it and give the folder." if kind == ARCHIVE else "Rename it.")
    if end is None and start.startswith(b"PK"):
        return ("its end is missing: its download is not finished or broke off, or it is the first part of a split "
                f"archive. Wait, or download it again. {_SPLIT.replace('Put', 'Of a split archive, put')}")
    if end and end.is_cut:
        return f"its beginning is missing: it is the last part of a split archive, or was changed. {_SPLIT}"
    return f"{error}; {_CORRECT}."


def _decode(raw):
    """A name as text. Few programs say how they wrote it: most take UTF-8, Chinese Windows GB 18030; None: neither."""
    for encoding in ("utf-8", "gb18030"):
        with suppress(UnicodeDecodeError):
            return raw.decode(encoding)
    return None


def _decode_name(member):
    """The member's name, with / or \\ between folders. Where nothing tells how it was written: see _decode."""
    name = member.orig_filename
    if member.flag_bits & _UTF8_NAME:
        return name
    raw = name.encode("cp437")      # as which zipfile takes it
    return _read_unicode_path(member.extra, raw) or _decode(raw) or name


def _read_unicode_path(extra, raw):
    """The name in UTF-8 that Info-ZIP and others add to the extra fields; None where it is not that of `raw`."""
    while len(extra) >= 4:
        kind, size = struct.unpack_from("<2H", extra)
        field, extra = extra[4:4 + size], extra[4 + size:]
        if kind == _UNICODE_PATH and field[:5] == b"\x01" + struct.pack("<L", zlib.crc32(raw)):
            with suppress(UnicodeDecodeError):
                return field[5:].decode("utf-8")
    return None


def _refuse_bomb(path, members):
    """The archive as a whole is measured by its size on the disk, as members may share their compressed bytes."""
    sizes = [(member.file_size, member.compress_size, _decode_name(member)) for member in members]
    sizes.append((sum(member.file_size for member in members), path.stat().st_size, "the whole of it"))
    for size, compressed, name in sizes:
        if size > SMALL_BYTES and size > MAX_RATIO * compressed:
            raise PipelineError(
                f"{path}: {name!r} would unpack {compressed:,} bytes to {size:,}, more than {MAX_RATIO} times. "
                "No scans do that: do not trust this file."
            )


def _refuse_unsafe(path, member, name, words):
    """Refuse a member, whose `name` consists of `words`, that must not or cannot be unpacked."""
    if name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", name):
        reason = "is an absolute name and leads out of the archive"
    # Windows strips blanks and dots from the end of a name: ".. " is ".." there
    elif any(re.fullmatch(r"[ .]*\.\.[ .]*", word) for word in words):
        reason = "leads out of the archive by '..'"
    elif stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        reason = "is a link or a device"
    elif member.flag_bits & _ENCRYPTED:
        reason = "is encrypted; unpack the archive with its password and give the folder"
    elif member.compress_type not in _METHODS:
        reason = "is compressed in an unusual way; unpack the archive and give the folder"
    else:
        return
    raise PipelineError(f"{path}: {name!r} {reason}. Nothing was imported.")
