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
from pathlib import Path
from typing import NamedTuple

from processing.errors import PipelineError
from processing.source import find_files

MAX_RATIO = 100             # times its compressed size; more is a bomb (JPEGs hardly shrink, tables 5 to 20 times)
SMALL_BYTES = 1 << 20       # what unpacks to no more than this is harmless at any ratio
_CHUNK_BYTES = 1 << 20
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_UTF8_NAME = 0x800          # flags of a member
_ENCRYPTED = 0x1
_CORRECT = "it is damaged or changed; download it again"
# What zipfile and zlib raise on broken archives, as found by damaging some at random
_ZIP_FAULTS = (zipfile.BadZipFile, zlib.error, struct.error, NotImplementedError, EOFError, ValueError, OSError)


class Entry(NamedTuple):
    """One file: on the disk, or a member of a zip file."""

    parts: tuple            # names of the source, of the folders below it and of the file
    size: int               # bytes
    path: Path              # the file, or the zip file that holds it
    archive: zipfile.ZipFile | None = None
    member: zipfile.ZipInfo | None = None

    def __str__(self):
        return str(self.path) if self.member is None else f"{self.path}: {_name_of(self.member)}"

    def read_chunks(self):
        """Yield the content in pieces of bytes.

        Raises:
            PipelineError: it cannot be read, fails its checksum, or is not of the size that it claims.
        """
        left = self.size
        try:
            with self.archive.open(self.member) if self.archive else open(self.path, "rb") as file:
                while chunk := file.read(_CHUNK_BYTES):
                    left -= len(chunk)
                    yield chunk
        except OSError as error:
            raise PipelineError(f"{self} cannot be read: {error.strerror or error}.") from error
        except _ZIP_FAULTS as error:
            raise PipelineError(f"{self} cannot be read ({error}): {_CORRECT}.") from error
        if left:
            raise PipelineError(f"{self} has {self.size - left} bytes instead of {self.size}: {_CORRECT}.")


def file_entry(path, parts=()):
    """The entry of a file on the disk; without `parts`, its name alone."""
    return Entry(tuple(parts) or (path.name,), path.stat().st_size, path)


def same_content(first, second):
    """Whether two entries hold the same bytes; reads them only where they are of one size."""
    if first.size != second.size:
        return False
    if not (first.archive or second.archive) and first.path.samefile(second.path):
        return True
    return all(a == b for a, b in zip(first.read_chunks(), second.read_chunks(), strict=True))


def find_entries(sources, stack):
    """Every file in `sources` but hidden ones, zip files opened. Folders keep their order, names are sorted.

    Args:
        sources: folders, zip files and CSV files.
        stack: contextlib.ExitStack that closes the zip files; entries can be read until then.

    Yields:
        Entry.

    Raises:
        PipelineError: a source that is none of these, or that must not be trusted.
    """
    for source in sources:
        path = Path(os.path.realpath(Path(source).expanduser()))
        if path.is_dir():
            yield from _folder_entries(path, stack)
        elif path.is_file() and path.suffix.lower() == ".zip":
            yield from _zip_entries(path, (path.stem,), stack)
        elif path.is_file() and path.suffix.lower() == ".csv":
            yield file_entry(path)
        elif path.exists():
            raise PipelineError(f"{path} is no folder, zip file or CSV file. Unpack it and give the folder.")
        else:
            raise PipelineError(f"{path} is not there. Give the downloaded folder, zip files or CSV files.")


def _folder_entries(folder, stack):
    for file in find_files(folder):
        real = Path(os.path.realpath(file))        # Path.resolve raises on a loop of links
        if not real.is_relative_to(folder):
            raise PipelineError(f"{file} is a link that leads out of {folder}, to {real}. Remove the link.")
        if not real.is_file():
            raise PipelineError(f"{file} is no plain file, or a link that leads nowhere. Remove it.")
        parts = (folder.name, *file.relative_to(folder).parts)
        if file.suffix.lower() == ".zip":
            yield from _zip_entries(real, (*parts[:-1], file.stem), stack)
        else:
            yield file_entry(real, parts)


def _zip_entries(path, above, stack):
    """The members of a zip file whose folders are thought to lie below the names `above`."""
    try:
        archive = stack.enter_context(zipfile.ZipFile(path))
    except _ZIP_FAULTS as error:
        raise PipelineError(f"{path} cannot be opened as a zip file ({error}): {_CORRECT}.") from error
    _refuse_bomb(path, archive.infolist())
    for member in archive.infolist():
        name = _name_of(member)
        reason = _reason_against(name, member)
        if reason:
            raise PipelineError(f"{path}: {name!r} {reason}. Nothing was imported.")
        parts = [part for part in _split(name) if part not in ("", ".")]
        if name.endswith(("/", "\\")) or any(part.startswith((".", "__MACOSX")) for part in parts):
            continue
        if name.lower().endswith(".zip"):
            raise PipelineError(f"{path}: {name!r} is a zip file inside a zip file. Unpack {path.name} first.")
        yield Entry((*above, *parts), member.file_size, path, archive, member)


def _refuse_bomb(path, members):
    """The archive as a whole is measured by its size on the disk, as members may share their compressed bytes."""
    sizes = [(member.file_size, member.compress_size, _name_of(member)) for member in members]
    sizes.append((sum(member.file_size for member in members), path.stat().st_size, "the whole of it"))
    for size, compressed, name in sizes:
        if size > SMALL_BYTES and size > MAX_RATIO * compressed:
            raise PipelineError(
                f"{path}: {name!r} would unpack {compressed:,} bytes to {size:,}, more than {MAX_RATIO} times. "
                "No scans do that: do not trust this file."
            )


def _name_of(member):
    """The member's name, with / or \\ between folders.

    Chinese Windows writes names as GBK without saying so, which zipfile takes for cp437.
    """
    name = member.orig_filename
    if member.flag_bits & _UTF8_NAME:
        return name
    try:
        return name.encode("cp437").decode("gb18030")
    except UnicodeError:
        return name


def _reason_against(name, member):
    """Why a member must not be unpacked, or None."""
    kind = stat.S_IFMT(member.external_attr >> 16)
    if name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", name):
        return "is an absolute name and leads out of the archive"
    # Windows strips blanks and dots from the end of a name: ".. " is ".." there
    if any(re.fullmatch(r"[ .]*\.\.[ .]*", part) for part in _split(name)):
        return "leads out of the archive by '..'"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a device"
    if member.flag_bits & _ENCRYPTED:
        return "is encrypted; unpack the archive with its password and give the folder"
    if member.compress_type not in _METHODS:
        return "is compressed in an unusual way; unpack the archive and give the folder"
    return None


def _split(name):
    return re.split(r"[/\\]", name)
