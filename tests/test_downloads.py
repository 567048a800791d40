"""What a zip file is, and how its names are written, whoever made it."""

import errno
import os
import struct
import zipfile
import zlib
from contextlib import ExitStack

import pytest

from processing.downloads import find_entries
from processing.errors import PipelineError

NAME = "训练集/2L/Pre Injection OCT Images/35 (13).jpg"
WINDOWS, UNIX = 0, 3


def put_zip(file, *members, comment=b""):
    """A zip file of (name as bytes, its flags, which system, extra field); content: the name."""
    with zipfile.ZipFile(file, "w") as archive:
        for number, (raw, _, system, extra) in enumerate(members):
            member = zipfile.ZipInfo(f"{number}" * len(raw))        # zipfile writes ASCII or UTF-8 only
            member.create_system, member.extra = system, extra
            archive.writestr(member, raw)
        archive.comment = comment
    data = file.read_bytes()
    for number, (raw, flags, _, _) in enumerate(members):
        for head, place in ((b"PK\x03\x04", 30), (b"PK\x01\x02", 46)):
            start = data.index(f"{number}".encode() * len(raw)) - place
            assert data[start:].startswith(head)
            at = start + (6 if place == 30 else 8)
            data = b"".join([data[:at], struct.pack("<H", flags), data[at + 2:start + place], raw,
                             data[start + place + len(raw):]])
    file.write_bytes(data)
    return file


def unicode_path(name, raw):
    field = b"\x01" + struct.pack("<L", zlib.crc32(raw)) + name.encode()
    return struct.pack("<2H", 0x7075, len(field)) + field


def names(*sources):
    with ExitStack() as stack:
        return ["/".join(entry.parts[1:]) for entry in find_entries(sources, stack)]


def refusal(*sources):
    with pytest.raises(PipelineError) as error, ExitStack() as stack:
        list(find_entries(sources, stack))
    return str(error.value)


# ---- Names

@pytest.mark.parametrize(
    ("raw", "flags", "system", "extra"),
    [
        (NAME.encode(), 0x800, UNIX, b""),
        (NAME.encode(), 0, UNIX, b""),                      # Info-ZIP, macOS
        (NAME.encode(), 0, WINDOWS, b""),
        (NAME.encode("gb18030"), 0, WINDOWS, b""),          # Windows in Chinese
        (NAME.encode("gb18030"), 0, UNIX, b""),
        (b"????/" + b"x" * 30, 0, WINDOWS, unicode_path(NAME, b"????/" + b"x" * 30)),
        (NAME.encode("gb18030"), 0, WINDOWS, unicode_path("another.jpg", b"another")),      # of a name since changed
    ],
)
def test_names_are_read_whoever_wrote_them(tmp_path, raw, flags, system, extra):
    assert names(put_zip(tmp_path / "a.zip", (raw, flags, system, extra))) == [NAME]


def test_an_archive_of_several_makers_is_read_name_by_name(tmp_path):
    raws = NAME.encode(), NAME.encode("gb18030"), b"\xff\xff\xfe.jpg"
    file = put_zip(tmp_path / "a.zip", *((raw, 0, WINDOWS, b"") for raw in raws))
    assert names(file) == [NAME, NAME, "\xa0\xa0■.jpg"]


def test_a_unicode_path_that_leads_outside_is_refused(tmp_path):
    file = put_zip(tmp_path / "a.zip", (b"a/b.jpg", 0, UNIX, unicode_path("../b.jpg", b"a/b.jpg")))
    assert "leads out of the archive" in refusal(file)


def test_folders_that_were_unpacked_without_their_encoding_are_read_too(tmp_path):
    folder = os.fsencode(tmp_path / "a") + b"/" + "训练集".encode("gb18030")
    try:
        os.makedirs(folder)
    except OSError:
        pytest.skip("the file system knows no such names")
    with open(folder + b"/35.jpg", "w"):
        pass
    assert names(tmp_path / "a") == ["训练集/35.jpg"]


# ---- Why a zip file cannot be opened

def put_whole(tmp_path):
    return put_zip(tmp_path / "Train Set.zip", (b"a" * 300, 0, UNIX, b""), (b"b" * 300, 0, UNIX, b""))


def test_the_last_part_of_a_split_archive_is_named_as_such(tmp_path):
    """It opens, as its directory is whole; its members lie in the parts before."""
    file = put_whole(tmp_path)
    data = bytearray(file.read_bytes())
    struct.pack_into("<2H", data, data.rindex(b"PK\x05\x06") + 4, 4, 4)
    file.write_bytes(data)
    assert "is the last of the 5 parts of a split archive. Put all parts into one folder" in refusal(file)


def test_the_last_part_of_a_large_split_archive_is_named_as_such(tmp_path):
    file = put_whole(tmp_path)
    data = file.read_bytes()
    end = data.rindex(b"PK\x05\x06")
    file.write_bytes(data[:end] + struct.pack("<4sLQL", b"PK\x06\x07", 2, 0, 3) + data[end:])
    assert "is the last of the 3 parts" in refusal(file)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda data: data[:500], "its end is missing: its download is not finished"),
        (lambda data: b"PK\x07\x08" + data[:500], "the first part of a split zip file. Put all parts"),
        (lambda data: data[100:], "its beginning is missing: it is the last part of a split archive"),
        (lambda _: b"", "nothing in it yet"),
        (lambda _: bytes(70_000), "nothing in it yet"),
        (lambda _: b"7z\xbc\xaf\x27\x1c" + bytes(30), "it is a 7z archive. Unpack it and give the folder"),
        (lambda _: b"Rar!\x1a\x07\x01" + bytes(30), "it is a RAR archive. Unpack"),
        (lambda _: b"\x1f\x8b\x08" + bytes(30), "it is a gzip archive. Unpack"),
        (lambda _: b"\n <!DOCTYPE html><title>Log in", "it is a web page, perhaps one that asks to log in"),
        (lambda _: b"\xff\xd8\xff\xe0" + bytes(30), "it is a JPEG file. Rename it"),
        (lambda data: data.replace(b"PK\x01\x02", b"PK\x01\x03"), "it is damaged or changed; download it again"),
    ],
)
def test_a_zip_file_that_cannot_be_opened_is_told_the_true_cause(tmp_path, change, reason):
    file = put_whole(tmp_path)
    file.write_bytes(change(file.read_bytes()))
    said = refusal(file)
    assert said.startswith(f"{file} cannot be opened as a zip file: ")
    assert reason in said
    assert ("damaged" in said) == ("damaged" in reason)


def test_a_download_beside_it_tells_that_a_zip_file_is_not_whole(tmp_path):
    file = put_whole(tmp_path)
    file.write_bytes(file.read_bytes()[:500])
    (tmp_path / "Train Set.zip.part").touch()
    assert "its download is not finished, as Train Set.zip.part beside it tells" in refusal(file)


def test_a_whole_zip_file_with_a_comment_is_opened(tmp_path):
    assert len(names(put_zip(tmp_path / "a.zip", (b"a.jpg", 0, UNIX, b""), comment=b"c" * 60_000))) == 1


def test_a_zip_file_without_permission_is_not_called_damaged(tmp_path, monkeypatch):
    def refuse(path, *_):
        raise PermissionError(errno.EACCES, "Permission denied", path)

    file = put_whole(tmp_path)
    monkeypatch.setattr("processing.files.time.sleep", lambda _: None)
    monkeypatch.setattr("builtins.open", refuse)
    assert refusal(file) == f"{file} cannot be read: Permission denied."


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("Train Set.zip.003", "it is part of a split archive"),
        ("Train Set.zip.crdownload", "its download is not finished"),
        ("tables.xlsx", "save it as CSV"),
        ("Train Set.rar", "unpack it and import the folder"),
        ("35.jpg", "give the folder that holds it"),
        ("notes.txt", "give what was downloaded"),
    ],
)
def test_a_single_file_that_is_no_source_is_told_why(tmp_path, name, reason):
    (tmp_path / name).write_bytes(b"x")
    said = refusal(tmp_path / name)
    assert f"{name} is no folder, zip file or CSV file: " in said
    assert reason in said
