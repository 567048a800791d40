"""What a file is that the program does not read, by its name and its first bytes, and what to do about it.

Reads the first bytes of files; writes nothing.
"""

import os
import re
import stat
from pathlib import Path
from typing import NamedTuple

SCAN, TABLE, ARCHIVE = "scan", "table", "archive"
START_BYTES = 512

JPEG_OTHERWISE = "a JPEG file under another name; rename it to .jpg"
PNG_OTHERWISE = "a PNG file under another name; rename it to .png"
OTHER_SCAN = "scans are read as JPEG and PNG only; save it as one of these"
OTHER_TABLE = "tables are read as CSV only; save it as CSV under the name of its table"
OTHER_ARCHIVE = "archives of this kind are not opened; unpack it and import the folder"
ZIP_OTHERWISE = "a zip file under another name; rename it to .zip"
SPLIT = "it is part of a split archive; put all parts into one folder, unpack the first one and import what comes of it"
UNFINISHED = "its download is not finished; wait for its end or download it again"

UNFINISHED_SUFFIXES = (".part", ".partial", ".crdownload", ".download", ".downloading", ".opdownload", ".filepart",
                       ".aria2", ".td", ".xltd", ".!ut", ".!qb")
_PART = re.compile(r"\.(?:[zra]\d{2,3}|\d{3}|part\d+\.rar)$")      # .z01 .r00 .a01 .001 .part2.rar
_JPEG_SUFFIXES = (".jfif", ".jpe", ".jif", ".jpg_large", ".pjpeg")
_SUFFIXES = {
    SCAN: (".bmp", ".dib", ".tif", ".tiff", ".gif", ".webp", ".avif", ".heic", ".heif", ".jp2", ".j2k", ".jxl", ".dcm",
           ".dicom", ".e2e", ".vol", ".fda", ".fds", ".oct", ".img"),
    TABLE: (".xlsx", ".xls", ".xlsm", ".xlsb", ".ods", ".numbers", ".et", ".tsv", ".tab", ".dbf", ".sav", ".dta",
            ".parquet", ".mdb", ".accdb"),
    ARCHIVE: (".rar", ".7z", ".tar", ".gz", ".tgz", ".bz2", ".tbz", ".tbz2", ".xz", ".txz", ".zst", ".zipx", ".lz4",
              ".lzh", ".arj", ".cab", ".iso"),
}
_REASONS = {SCAN: OTHER_SCAN, TABLE: OTHER_TABLE, ARCHIVE: OTHER_ARCHIVE}
JPEG, PNG, ZIP, OFFICE = "a JPEG file", "a PNG file", "a zip file", "an Office document"
# How a file begins -> what it is, and of which kind
_CONTENTS = [(re.compile(pattern, re.DOTALL | re.IGNORECASE), what, kind) for pattern, what, kind in (
    (rb"\xff\xd8\xff", JPEG, SCAN),
    (rb"\x89PNG\r\n\x1a\n", PNG, SCAN),
    (rb"BM.{4}\0{4}", "a BMP image", SCAN),
    (rb"II\*\0|MM\0\*", "a TIFF image", SCAN),
    (rb"GIF8[79]a", "a GIF image", SCAN),
    (rb"RIFF.{4}WEBP", "a WebP image", SCAN),
    (rb".{4}ftyp(?:hei|hev|mif|avi)", "a HEIF image", SCAN),
    (rb"\0{3}\x0cjP  |\xff\x4f\xff\x51", "a JPEG 2000 image", SCAN),
    (rb".{128}DICM", "a DICOM file", SCAN),
    (rb"PK\x03\x04.{26}(?:\[Content_Types\]|_rels/|docProps/|xl/|mimetype)|\xd0\xcf\x11\xe0", OFFICE, TABLE),
    (rb"PK\x03\x04|PK\x05\x06", ZIP, ARCHIVE),
    (rb"PK\x07\x08|PK00PK", "the first part of a split zip file", ARCHIVE),
    (rb"Rar!\x1a\x07", "a RAR archive", ARCHIVE),
    (rb"7z\xbc\xaf\x27\x1c", "a 7z archive", ARCHIVE),
    (rb"\x1f\x8b", "a gzip archive", ARCHIVE),
    (rb"BZh[1-9]", "a bzip2 archive", ARCHIVE),
    (rb"\xfd7zXZ\0", "an xz archive", ARCHIVE),
    (rb"\x28\xb5\x2f\xfd", "a Zstandard archive", ARCHIVE),
    (rb".{257}ustar", "a tar archive", ARCHIVE),
    (rb"(?:\xef\xbb\xbf)?\s*<(?:!doctype html|html|head)", "a web page", None),
    (rb"%PDF-", "a PDF file", None),
)]


class Unread(NamedTuple):
    """A file that looks like data and is not read."""

    kind: str       # SCAN, TABLE or ARCHIVE
    reason: str     # what it is, and what to do


def identify_content(start: bytes) -> tuple[str, str | None] | None:
    """Tell what a file is by how it begins.

    Args:
        start: its first START_BYTES.

    Returns:
        What it is, as "a TIFF image", and SCAN, TABLE, ARCHIVE or None; None where nothing is known of it.
    """
    return next(((what, kind) for pattern, what, kind in _CONTENTS if pattern.match(start)), None)


def explain_unread(name: str, start: bytes) -> Unread | None:
    """Say of a file that is neither a JPEG, PNG, CSV nor zip file by name whether it looks like data all the same.

    Args:
        name: of the file.
        start: its first START_BYTES.

    Returns:
        Unread, or None for notes and the like.
    """
    name = name.lower()
    if name.endswith(UNFINISHED_SUFFIXES):
        return Unread(_guess_kind(os.path.splitext(name)[0]), UNFINISHED)
    if _PART.search(name):
        return Unread(ARCHIVE, SPLIT)
    what, kind = identify_content(start) or (None, None)
    if what == JPEG or name.endswith(_JPEG_SUFFIXES):
        return Unread(SCAN, JPEG_OTHERWISE)
    if what == PNG:
        return Unread(SCAN, PNG_OTHERWISE)
    by_name = next((kind for kind, suffixes in _SUFFIXES.items() if name.endswith(suffixes)), None)
    if by_name is None and what == ZIP:
        return Unread(ARCHIVE, ZIP_OTHERWISE)
    if by_name is None and what == OFFICE:      # a letter, for all that is known
        return None
    kind = by_name or kind
    return Unread(kind, _REASONS[kind]) if kind else None


def _guess_kind(name):
    if name.endswith((".jpg", ".jpeg", ".png", *_JPEG_SUFFIXES, *_SUFFIXES[SCAN])):
        return SCAN
    return TABLE if name.endswith((".csv", *_SUFFIXES[TABLE])) else ARCHIVE


def read_start(file: Path) -> bytes:
    """The first START_BYTES of a file; none of what is no plain file or cannot be read."""
    try:
        if not stat.S_ISREG(os.stat(file).st_mode):     # a pipe would never end
            return b""
        with open(file, "rb") as opened:
            return opened.read(START_BYTES)
    except OSError:
        return b""
