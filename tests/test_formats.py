import os

import pytest

from processing.formats import (
    ARCHIVE,
    JPEG_OTHERWISE,
    OTHER_ARCHIVE,
    OTHER_SCAN,
    OTHER_TABLE,
    PNG_OTHERWISE,
    SCAN,
    SPLIT,
    TABLE,
    UNFINISHED,
    ZIP_OTHERWISE,
    explain_unread,
    identify_content,
    read_start,
)

JPEG, PNG, ZIP = b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"PK\x03\x04" + bytes(26)


@pytest.mark.parametrize(
    ("name", "start", "kind", "reason"),
    [
        ("35.jfif", b"", SCAN, JPEG_OTHERWISE),
        ("35 (13)", JPEG, SCAN, JPEG_OTHERWISE),
        ("35.dat", PNG, SCAN, PNG_OTHERWISE),
        ("35.BMP", b"", SCAN, OTHER_SCAN),
        ("35.tif", b"", SCAN, OTHER_SCAN),
        ("35.xyz", b"II*\0", SCAN, OTHER_SCAN),
        ("volume", bytes(128) + b"DICM", SCAN, OTHER_SCAN),
        ("0000-0001L_1000.jpg.part", b"", SCAN, UNFINISHED),
        ("Train Set.zip.crdownload", ZIP, ARCHIVE, UNFINISHED),
        ("Unconfirmed 123.crdownload", b"", ARCHIVE, UNFINISHED),
        ("test_info.csv.aria2", b"", TABLE, UNFINISHED),
        ("Train Set.zip.001", ZIP, ARCHIVE, SPLIT),
        ("Train Set.z01", b"PK\x07\x08", ARCHIVE, SPLIT),
        ("Train Set.part02.rar", b"", ARCHIVE, SPLIT),
        ("Train Set.tar.gz", b"", ARCHIVE, OTHER_ARCHIVE),
        ("download", b"Rar!\x1a\x07\x00", ARCHIVE, OTHER_ARCHIVE),
        ("download", ZIP + b"Train Set/", ARCHIVE, ZIP_OTHERWISE),
        ("tables.xlsx", ZIP + b"[Content_Types].xml", TABLE, OTHER_TABLE),
        ("tables.et", b"", TABLE, OTHER_TABLE),
    ],
)
def test_what_looks_like_data_is_named_with_what_to_do(name, start, kind, reason):
    assert explain_unread(name, start) == (kind, reason)


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("README.txt", b"Scans of"), ("paper.pdf", b"%PDF-1.7"), ("Thumbs.db", b"\xd0\xcf\x11\xe0"),
        ("BM notes", b"BMI of all"), ("letter.docx", ZIP + b"[Content_Types].xml"),
        ("index.html", b"<!DOCTYPE html>"), ("desktop.ini", b""), ("version 1.12", b""),
    ],
)
def test_notes_and_the_like_are_no_data(name, start):
    assert explain_unread(name, start) is None


def test_a_file_is_known_by_how_it_begins_and_a_pipe_is_not_opened(tmp_path):
    (tmp_path / "a").write_bytes(b"GIF89a" + bytes(10_000))
    os.mkfifo(tmp_path / "pipe")
    assert identify_content(read_start(tmp_path / "a")) == ("a GIF image", SCAN)
    assert [read_start(tmp_path / name) for name in ("pipe", "missing", "")] == [b"", b"", b""]
