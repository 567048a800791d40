import errno
import os
import random
import stat
import struct
import zipfile
import zlib
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import config
from processing import columns as c
from processing import importer
from processing.destinations import locate_entry
from processing.downloads import Entry, find_entries, make_entry, same_content
from processing.errors import PipelineError
from processing.files import replace_file
from processing.importer import UNDONE, Imported, import_data
from processing.source import read_image_rows

TRAIN_EYE, TEST_EYE = "0000-0001L", "0000-1315R"
PRELIMINARY = f"0000-0001/{TRAIN_EYE}_1000.jpg"
FINAL = "2L/Pre Injection OCT Images/35 (13).jpg"


def yes(_text):
    return True


def put(folder, *names, content=None):
    """Write files whose content is their name, or `content`; returns the folder."""
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(name.encode() if content is None else content)
    return folder


def put_zip(file, *names, content=None, method=zipfile.ZIP_DEFLATED):
    """A zip file of the same; a name may be a ZipInfo too."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(file, "w", method) as archive:
        for name in names:
            data = getattr(name, "filename", name).encode("utf-8", "replace") if content is None else content
            archive.writestr(name, data, method)
    return file


def put_clone(paths):
    """The folders and notes that stand in a fresh clone."""
    sets = "preliminary/Train_set", "preliminary/Test_set", "final/Train_Set", "final/Test_Set"
    put(paths.source, *(f"{name}/README.md" for name in sets))
    put(paths.submit, "README.md")


def tree(folder):
    """Every path below `folder` and, of files, the content."""
    return {path.relative_to(folder).as_posix(): path.is_file() and path.read_bytes() for path in folder.rglob("*")}


def placed(paths):
    """The files below data/source and data/submit but the notes, relative to data."""
    data = paths.source.parent
    return sorted(name for name, content in tree(data).items() if content is not False and "README" not in name)


def refuse(paths, *sources, match):
    """Importing is refused before the user is asked, and leaves everything as it was."""
    before, given_before = tree(paths.root), [tree(Path(source).parent) for source in sources]
    with pytest.raises(PipelineError, match=match) as error:
        import_data(paths, sources, confirm=lambda _: pytest.fail("it asked"))
    assert tree(paths.root) == before
    assert [tree(Path(source).parent) for source in sources] == given_before
    return str(error.value)


@pytest.fixture
def downloads(tmp_path):
    return tmp_path / "下载 downloads"


# ---- What goes where

@pytest.mark.parametrize(
    ("name", "target"),
    [
        (f"Training Set/Training Set/{PRELIMINARY}", f"preliminary/Train_set/Training Set/{PRELIMINARY}"),
        (f"Train_set/TrainingSet/{PRELIMINARY}", f"preliminary/Train_set/TrainingSet/{PRELIMINARY}"),
        (f"Train_set/{PRELIMINARY}", f"preliminary/Train_set/{PRELIMINARY}"),
        (f"TrainingSet1/0000-0001/{PRELIMINARY}", f"preliminary/Train_set/TrainingSet1/{PRELIMINARY}"),
        ("test/2L/Pre Injection OCT Images/Pre Injection OCT Images/35 (13).jpg", f"final/Test_Set/{FINAL}"),
        (f"TRAINSET/{TRAIN_EYE}_1 (2).JPG", f"preliminary/Train_set/TRAINSET/0000-0001/{TRAIN_EYE}_1 (2).JPG"),
        (f"PreliminaryValidationSet1/{TEST_EYE}/{TEST_EYE}_2.png",
         f"preliminary/Test_set/PreliminaryValidationSet1/{TEST_EYE}/{TEST_EYE}_2.png"),
        (f"final/Train Set/a/{FINAL}", f"final/Train_Set/{FINAL}"),
        (f"Train Set/old/Validation Set/{FINAL}", f"final/Test_Set/{FINAL}"),
        (f"决赛测试集/{FINAL}", f"final/Test_Set/{FINAL}"),
        ("x/train_anno_stage1.csv", "preliminary/Train_set/train_anno_stage1.csv"),
        ("TRAINING/TEST_INFO.csv", "final/Test_Set/TEST_INFO.csv"),
        ("train_anno_pic.csv", "final/Train_Set/train_anno_pic.csv"),
        ("PreliminaryValidationSet_Info.csv", "preliminary/Test_set/PreliminaryValidationSet_Info.csv"),
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_each_file_goes_where_its_name_and_folders_say(paths, downloads, name, target, zipped):
    put_clone(paths)
    source = put_zip(downloads / "some.zip", name) if zipped else put(downloads / "some", name)
    done = import_data(paths, [source], confirm=yes)
    assert placed(paths) == [f"source/{target}"]
    assert done == Imported(extracted=1) if zipped else Imported(linked=1)
    assert (paths.source / target).read_bytes() == name.encode()


def test_a_real_mixture_is_laid_out_and_read_as_the_right_sets(paths, downloads):
    put_zip(downloads / "Train Set.zip", f"Train Set/{FINAL}", "Train Set/train_anno_case_stage2.csv")
    put_zip(downloads / "Validation Set.zip", "600L/Post Injection OCT Images/127. (16).jpg", "__MACOSX/._600L")
    put(downloads, f"Training Set/Training Set/{PRELIMINARY}", "Training Set/README.txt", "submit_stage1.csv")
    put(downloads, f"PreliminaryValidationSet2/0000-1315/{TEST_EYE}_2001.jpg", "tables/TrainingAnnotation.csv")
    (downloads / "tables").rename(downloads.parent / "tables")
    texts = []
    sources = [downloads, downloads.parent / "tables" / "TrainingAnnotation.csv"]
    done = import_data(paths, sources, confirm=lambda text: texts.append(text) or True)
    assert done == Imported(linked=2, copied=2, extracted=3, skipped=1)
    rows, problems = read_image_rows(paths)
    assert problems == []
    assert {row[c.SOURCE].removeprefix("data/source/"): row[c.DATA_TYPE] for row in rows} == {
        f"final/Train_Set/{FINAL}": "train",
        "final/Test_Set/600L/Post Injection OCT Images/127. (16).jpg": "test",
        f"preliminary/Train_set/Training Set/{PRELIMINARY}": "train",
        f"preliminary/Test_set/PreliminaryValidationSet2/0000-1315/{TEST_EYE}_2001.jpg": "test",
    }
    assert (paths.submit / "submit_stage1.csv").is_file()
    text, = texts
    templates = f"templates (into {paths.submit}): submit_stage1.csv"
    for part in ("final train: 1 images", "tables: ", templates, "2 files (0.0 MB) by link",
                 "2 files (0.0 MB) by copy", "3 files (0.0 MB) unpacked", "no part of the data: 1 files (.txt 1)"):
        assert part in text


def test_set_folders_are_used_in_the_case_that_they_have(paths, downloads):
    put(paths.source, "Final/TRAIN_set/README.md")
    import_data(paths, [put(downloads / "Train Set", FINAL)], confirm=yes)
    assert placed(paths) == [f"source/Final/TRAIN_set/{FINAL}"]


@pytest.mark.parametrize("where", ["sources", "zip", "layout"])
def test_tables_tell_train_or_test_where_no_folder_does(paths, downloads, where):
    train, test = b"patient ID,age\n0000-0001l,60\n7R,1\n", b"patient ID\n0000-1315R\n7R\n"
    names = ("TrainingAnnotation.csv", train), ("test_info_stage1.csv", test)
    images = put(downloads / "all", PRELIMINARY, f"0000-1315/{TEST_EYE}_1000.jpg", "0000-0009/0000-0009L_1000.jpg")
    sources = [images]
    for name, content in names:
        if where == "zip":
            sources.append(put_zip(downloads / f"{name}.zip", name, content=content))
        else:
            put(images if where == "sources" else paths.source / "preliminary", name, content=content)
    texts = []
    done = import_data(paths, sources, confirm=lambda text: texts.append(text) or True)
    assert done.skipped == 1
    assert "neither its folders nor a table tells" in texts[0]
    assert "0000-0009L_1000.jpg" in texts[0]
    assert [row[c.SOURCE].split("/")[3] for row in read_image_rows(paths)[0]] == ["Test_set", "Train_set"]


def test_an_eye_that_tables_of_both_sets_list_is_not_guessed(paths, downloads):
    put(downloads / "all", "TrainingAnnotation.csv", "test_info_stage1.csv", content=b"patient ID\n0000-0001L\n")
    done = import_data(paths, [put(downloads / "all", PRELIMINARY)], confirm=yes)
    assert done == Imported(copied=2, skipped=1)


@pytest.mark.parametrize("where", ["sources", "layout"])
def test_the_table_that_knows_an_eye_decides_and_the_plan_says_so(paths, downloads, where):
    """Of one final and two preliminary eyes, in folders that say the other set; a fourth eye is in no table."""
    eye = put(downloads / "测试", FINAL, PRELIMINARY, "0000-0009/0000-0009L_1000.jpg")
    put(eye, f"TrainingSet1/0000-1315/{TEST_EYE}_2001.jpg")
    tables = eye if where == "sources" else paths.source
    put(tables, "final/train_anno_case.csv", content=b"patient ID\n2L\n")
    put(tables, "preliminary/TrainingAnnotation.csv", content=b"patient ID\n0000-0001L\n")
    put(tables, "preliminary/test_info_stage1.csv", content=b"patient ID\n0000-1315R\n")
    texts = []
    import_data(paths, [eye], confirm=lambda text: texts.append(text) or True)
    assert [row[c.SOURCE].removeprefix("data/source/") for row in read_image_rows(paths)[0]] == [
        f"final/Train_Set/{FINAL}",
        f"preliminary/Test_set/0000-1315/{TEST_EYE}_2001.jpg",
        "preliminary/Test_set/测试/0000-0009/0000-0009L_1000.jpg",
        f"preliminary/Train_set/{PRELIMINARY}",
    ]
    assert "1 final images are test by name, but not by the table that lists their eye: the table decides." in texts[0]
    assert f"The first is {eye / FINAL}" in texts[0]
    assert "1 preliminary images are train by name" in texts[0]
    assert "1 preliminary images are test by name" in texts[0]


def test_an_image_that_lies_in_the_wrong_set_already_stays_and_is_named(paths, downloads, capsys):
    put(paths.source, f"final/Test_Set/{FINAL}", content=FINAL.encode())
    put(paths.source, "final/train_anno_case.csv", content=b"patient ID\n2L\n")
    done = import_data(paths, [put(downloads / "test", FINAL)], confirm=lambda _: pytest.fail("it asked"))
    assert done == Imported(already_there=1)
    said = capsys.readouterr().out
    assert "they are there already; move them. The first is " + str(paths.source / "final/Test_Set" / FINAL) in said


@pytest.mark.parametrize("name", ["latest/contest", "train_test", "my data"])
def test_folders_that_tell_no_set(name):
    item = locate_entry(Entry((*name.split("/"), *PRELIMINARY.split("/")), 0, Path("x")))
    assert item.data_type is None
    assert item.tail == tuple(PRELIMINARY.split("/"))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("0000-0001_1000.jpg", "follow no rule"),
        ("600L/35.jpg", "follow no rule"),
        ("7R_1_1_1_35 (1).jpg", "is a crop"),
        (f"a/{TRAIN_EYE}_1:0.jpg", "characters"),
        (f"a/{TRAIN_EYE}_1\x1b[2J.jpg", "characters"),
        ("TrainingAnnotation (1).csv", "name of no table; rename it"),
        ("more.rar", "unpack it"),
        ("35.jfif", "rename it to .jpg"),
        ("35.bmp", "JPEG and PNG only"),
        (f"a/{TRAIN_EYE}_1000.jpg.part", "download is not finished"),
        ("train.zip.001", "part of a split archive"),
        ("Unconfirmed 1.crdownload", "download is not finished"),
        ("train_anno_case.xlsx", "save it as CSV"),
        ("anything.xlsx", "save it as CSV"),
        ("TrainingAnnotation.csv.txt", "save it as CSV"),
        ("submit_stage1.txt", "save it as CSV"),
    ],
)
def test_what_is_left_out_is_named_with_the_reason(paths, downloads, name, reason):
    texts = []
    source = put(downloads / "train", PRELIMINARY, name)
    done = import_data(paths, [source], confirm=lambda text: texts.append(text) or True)
    assert done == Imported(linked=1, skipped=1)
    assert reason in texts[0]
    assert name.split("/")[-1].replace("\x1b", "?") in texts[0]
    assert "\x1b" not in texts[0]


@pytest.mark.parametrize("zipped", [False, True])
def test_what_lies_under_an_unknown_name_is_known_by_how_it_begins(paths, downloads, zipped):
    contents = {"0000-0001L_1000": b"\xff\xd8\xff\xe0", "scans": b"Rar!\x1a\x07\0", "notes": b"Scans of two eyes"}
    texts = []
    for name, content in contents.items():
        put(downloads / "train", name, content=content)
    source = put(downloads / "train", "TrainingAnnotation.csv", content=b"patient ID\n0000-0001L\n")
    if zipped:
        with zipfile.ZipFile(downloads / "train.zip", "w") as archive:
            for name in (*contents, "TrainingAnnotation.csv"):
                archive.write(source / name, name)
        source = downloads / "train.zip"
    import_data(paths, [source], confirm=lambda text: texts.append(text) or True)
    for part in ("rename it to .jpg", "unpack it and import the folder", "no part of the data"):
        assert f"{part}: 1 files" in texts[0]


def test_the_endings_of_what_is_no_data_are_counted(paths, downloads):
    texts = []
    put(downloads / "train", PRELIMINARY, "a.txt", "b.TXT", "c", "d.\x1b[2J")
    import_data(paths, [downloads / "train"], confirm=lambda text: texts.append(text) or True)
    assert "no part of the data: 4 files (.txt 2, no ending 1, .?[2j 1)" in texts[0]


def test_sources_without_any_file_say_so(paths, downloads):
    downloads.mkdir()
    refuse(paths, downloads, match="There are no files in")


def test_of_many_left_out_for_one_reason_the_first_are_named(paths, downloads):
    texts = []
    put(downloads / "train", PRELIMINARY, *(f"odd {number:03}.jpg" for number in range(50)))
    import_data(paths, [downloads / "train"], confirm=lambda text: texts.append(text) or True)
    assert "odd 019.jpg" in texts[0]
    assert "odd 020.jpg" not in texts[0]
    assert "and 30 more" in texts[0]


@pytest.mark.parametrize("as_gbk", [False, True])
def test_chinese_names_of_zips_in_utf8_and_as_chinese_windows_writes_them(paths, downloads, as_gbk):
    name = f"训练集/训练集/{PRELIMINARY}"
    if as_gbk:          # zipfile writes UTF-8 only: put a name in, and the bytes of the other in its stead
        raw = name.encode("gb18030")
        file = put_zip(downloads / "下载.zip", "x" * len(raw), content=b"1")
        file.write_bytes(file.read_bytes().replace(b"x" * len(raw), raw))
    else:
        file = put_zip(downloads / "下载.zip", name)
    import_data(paths, [file], confirm=yes)
    assert placed(paths) == [f"source/preliminary/Train_set/训练集/{PRELIMINARY}"]


def test_names_that_are_neither_utf8_nor_gbk_do_no_harm(paths, downloads):
    file = put_zip(downloads / "train.zip", f"xxx/{FINAL}")
    file.write_bytes(file.read_bytes().replace(b"xxx", b"\xff\xff\xff"))
    assert import_data(paths, [file], confirm=yes) == Imported(extracted=1)


# ---- By link, by copy, never changing the original

def test_files_are_linked_and_the_originals_stay(paths, downloads):
    source = put(downloads / "train", PRELIMINARY, FINAL)
    before = tree(downloads)
    assert import_data(paths, [source], confirm=yes) == Imported(linked=2)
    assert (paths.source / "final/Train_Set" / FINAL).samefile(source / FINAL)
    assert tree(downloads) == before


def test_tables_and_templates_are_copies_so_that_an_editor_leaves_the_originals_alone(paths, downloads):
    source = put(downloads / "train", FINAL, "train_anno_case.csv", "submit_stage1.csv")
    before = tree(downloads)
    assert import_data(paths, [source], confirm=yes) == Imported(linked=1, copied=2)
    for file in (paths.source / "final/Train_Set/train_anno_case.csv", paths.submit / "submit_stage1.csv"):
        with open(file, "r+b") as opened:       # in place, as many an editor does
            opened.write(b"changed")
    assert tree(downloads) == before


def test_files_are_copied_where_the_system_cannot_link(paths, downloads, monkeypatch):
    def fail(*_):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(importer.os, "link", fail)
    source = put(downloads / "train", FINAL)
    assert import_data(paths, [source], confirm=yes) == Imported(copied=1)
    copy = paths.source / "final/Train_Set" / FINAL
    assert copy.read_bytes() == FINAL.encode()
    assert not copy.samefile(source / FINAL)


def test_it_says_what_it_will_do_and_does_nothing_on_a_no(paths, downloads):
    put_clone(paths)
    before = tree(paths.root)
    source = put(downloads / "train", FINAL, "odd.jpg")
    assert import_data(paths, [source], confirm=lambda _: False) == Imported(skipped=1)
    assert tree(paths.root) == before


def test_sources_without_any_file_of_the_data_are_an_error(paths, downloads):
    with pytest.raises(PipelineError, match="(?s)None of 1 files in .* can be imported.*no part of the data: 1 files"):
        import_data(paths, [put(downloads / "holiday", "notes.txt")], confirm=lambda _: pytest.fail("it asked"))
    assert not paths.source.exists()


def test_a_second_run_adds_only_what_is_new_and_asks_only_then(paths, downloads, capsys):
    source = put(downloads / "Train Set", FINAL, PRELIMINARY)
    import_data(paths, [source], confirm=yes)
    before = tree(paths.root)
    done = import_data(paths, [source], confirm=lambda _: pytest.fail("it asked"))
    assert done == Imported(already_there=2)
    assert "Nothing is new" in capsys.readouterr().out
    assert tree(paths.root) == before
    put(source, "2L/Pre Injection OCT Images/36.jpg")
    assert import_data(paths, [source], confirm=yes) == Imported(linked=1, already_there=2)


def test_what_is_there_already_is_known_in_any_layout_and_by_either_name(paths, downloads):
    there = paths.source / "preliminary/Train_set"
    put(there, f"deep/TrainingSet/{PRELIMINARY}", "TrainingAnnotation.csv", content=b"")
    put(downloads / "train", PRELIMINARY.lower(), "train_anno_stage1.csv", content=b"")
    assert import_data(paths, [downloads / "train"], confirm=yes) == Imported(already_there=2)


def test_one_file_given_twice_is_placed_once(paths, downloads):
    put(downloads, f"Train Set/{FINAL}")
    put_zip(downloads / "Train Set.zip", FINAL, content=f"Train Set/{FINAL}".encode())
    done = import_data(paths, [downloads / "Train Set", downloads / "Train Set.zip"], confirm=yes)
    assert done == Imported(linked=1, already_there=1)
    assert len(placed(paths)) == 1


def test_content_is_compared_by_size_then_byte_by_byte(tmp_path):
    whole = bytes(1 << 20) + b"end"
    contents = {"a": whole, "b": whole, "c": whole[:-3], "d": whole[:-1] + b"D"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    entries = {name: make_entry(tmp_path / name) for name in contents}
    assert [same_content(entries["a"], entries[name]) for name in "abcd"] == [True, True, False, False]


# ---- Refused, nothing half done

@pytest.mark.parametrize(
    "name",
    ["../x.jpg", "train/../../x.jpg", "..\\x.jpg", "a/.. /x.jpg", "/etc/x.jpg", "\\\\host\\x.jpg", "C:\\x.jpg",
     "c:x.jpg", "../", "__MACOSX/../../x"],
)
def test_names_that_lead_outside_are_refused(paths, downloads, name):
    put_clone(paths)
    refuse(paths, put_zip(downloads / "train.zip", PRELIMINARY, name), match="leads out of the archive")


# Nasty folders above, and often a file that would be imported
NASTY_WORDS = ["..", ".. ", ".", "", "/", "\\", "C:", "train", "~", "训练集", "CON", "\0", "\x1b"]
NASTY = st.builds(
    lambda above, file: [*above, *file.split("/")],
    st.lists(st.sampled_from(NASTY_WORDS) | st.text(max_size=3), max_size=4),
    st.sampled_from([FINAL, PRELIMINARY, "TrainingAnnotation.csv", "submit_stage1.csv", "..", "1.jpg\0/../x.jpg"]),
)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(NASTY, min_size=1, max_size=4), st.sampled_from(["/", "\\", ""]))
def test_no_name_of_a_member_is_ever_written_outside(tmp_path_factory, words, separator):
    folder = tmp_path_factory.mktemp("nasty")
    paths = config.Paths(folder / "a" / "root")
    file = folder / "train.zip"
    with zipfile.ZipFile(file, "w") as archive:
        for number, parts in enumerate(words):
            name = separator.join(parts).encode("utf-8", "ignore").decode() or "x"
            archive.writestr(zipfile.ZipInfo(name), bytes([number]))
    try:
        done = import_data(paths, [file], confirm=yes)
    except PipelineError:
        done = Imported()
    inside = [path for path in (*paths.source.rglob("*"), *paths.submit.rglob("*")) if path.is_file()]
    everything = {path for path in folder.rglob("*") if path.is_file()}
    assert everything == {file, *inside}
    assert len(inside) == done.extracted


def test_links_in_zips_are_refused(paths, downloads):
    link = zipfile.ZipInfo("train/" + PRELIMINARY)
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    refuse(paths, put_zip(downloads / "a.zip", link), match="is a link or a device")


def test_encrypted_unusual_and_nested_members_are_refused(paths, downloads):
    file = put_zip(downloads / "a.zip", FINAL)
    data = bytearray(file.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    file.write_bytes(data)
    refuse(paths, file, match="is encrypted; unpack")
    unusual = put_zip(downloads / "b.zip", FINAL, method=zipfile.ZIP_LZMA)
    refuse(paths, unusual, match="unusual way; unpack")
    nested = put_zip(downloads / "c.zip", "x/Train Set.zip")
    refuse(paths, nested, match="zip file inside a zip file. Unpack c.zip first")


def test_links_in_folders_are_refused_where_they_lead_outside_or_nowhere(paths, downloads):
    source = put(downloads / "train", FINAL)
    put(downloads / "elsewhere", "0000-0002L_1000.jpg")
    (source / "inside").symlink_to(source / "2L", target_is_directory=True)
    assert import_data(paths, [source], confirm=yes) == Imported(linked=1)
    for target in (downloads / "elsewhere", downloads / "elsewhere" / "0000-0002L_1000.jpg", downloads / "missing"):
        (source / "outside").symlink_to(target)
        refuse(paths, source, match="outside.* is a link that leads out of")
        (source / "outside").unlink()
    (source / "loop").symlink_to(source / "loop")
    refuse(paths, source, match="leads nowhere")


def test_links_in_the_layout_that_lead_outside_are_refused(paths, downloads):
    put(downloads / "elsewhere", "x")
    (paths.source / "final").mkdir(parents=True)
    (paths.source / "final" / "Train_Set").symlink_to(downloads / "elsewhere", target_is_directory=True)
    refuse(paths, put(downloads / "train", FINAL), match="is a link that leads out of")


@pytest.mark.parametrize("target", ["Train_Set", "../nowhere"])
def test_links_in_the_layout_that_lead_nowhere_or_round_stay_as_they_are(paths, downloads, target):
    link = paths.source / "final" / "Train_Set"
    link.parent.mkdir(parents=True)
    link.symlink_to(link.parent / target, target_is_directory=True)
    with pytest.raises(PipelineError, match=UNDONE):
        import_data(paths, [put(downloads / "train", FINAL)], confirm=yes)
    assert link.is_symlink()
    assert placed(paths) == []


@pytest.mark.parametrize("names", [[PRELIMINARY], [f"0000-{number:04}L_1.jpg" for number in range(12)]])
def test_bombs_are_refused(paths, downloads, names):
    size = 30_000_000 // len(names) // 10
    refuse(paths, put_zip(downloads / "train.zip", *names, content=bytes(size)), match="more than 100 times")


def test_members_that_share_their_bytes_are_measured_as_a_whole(paths, downloads, monkeypatch):
    data = random.Random(0).randbytes(600_000)
    file = put_zip(downloads / "train.zip", PRELIMINARY, content=data)
    with ExitStack() as stack:
        assert [entry.size for entry in find_entries([file], stack)] == [600_000]
    real = zipfile.ZipFile.infolist
    monkeypatch.setattr(zipfile.ZipFile, "infolist", lambda archive: real(archive) * 101)
    refuse(paths, file, match="the whole of it")


def test_small_files_that_shrink_well_are_no_bombs(paths, downloads):
    file = put_zip(downloads / "train.zip", "TrainingAnnotation.csv", content=b"0," * 250_000)
    assert import_data(paths, [file], confirm=yes) == Imported(extracted=1)


def test_more_than_the_free_disk_is_refused_but_links_take_no_room(paths, downloads, monkeypatch):
    monkeypatch.setattr(importer.shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
    refuse(paths, put_zip(downloads / "train.zip", FINAL, content=b"12345678901"), match="11 bytes .*, 10 are free")
    assert import_data(paths, [put(downloads / "train", FINAL)], confirm=yes) == Imported(linked=1)


def test_what_differs_from_the_layout_is_refused_with_both_paths(paths, downloads):
    put(paths.source, f"final/Train_Set/{FINAL}", content=b"old")
    source = put(downloads / "train", FINAL, "3L/Pre Injection OCT Images/1.jpg", content=b"new")
    message = refuse(paths, source, match="content differs")
    assert str(paths.source / "final/Train_Set" / FINAL) in message
    assert str(source / FINAL) in message


@pytest.mark.parametrize(
    "second", [FINAL, FINAL.upper(), FINAL.replace(".jpg", ".png"), "2l/pre injection/35 (13).jpg"]
)
def test_two_sources_of_one_image_with_different_content_are_refused(paths, downloads, second):
    put(downloads / "train", FINAL, content=b"one")
    file = put_zip(downloads / "train.zip", second, content=b"two")
    refuse(paths, downloads / "train", file, match="content differs")


def test_a_table_by_both_names_with_different_content_is_refused(paths, downloads):
    put(downloads / "a", "TrainingAnnotation.csv", content=b"1")
    refuse(paths, put(downloads / "a", "train_anno_stage1.csv", content=b"2"), match="content differs")


def test_a_template_is_not_replaced_by_another(paths, downloads):
    put(paths.submit, "submit_stage1.csv", content=b"1")
    refuse(paths, put(downloads / "a", "submit_stage1.csv", content=b"2"), match="content differs")


def test_sources_that_are_none_are_refused(paths, downloads):
    put(downloads, "a.jpg")
    put(downloads, "broken.zip", content=b"PK\x03\x04")
    refuse(paths, downloads / "a.jpg", match="no folder, zip file or CSV file")
    refuse(paths, downloads / "missing", match="is not there")
    refuse(paths, downloads / "broken.zip", match="cannot be opened as a zip file")
    refuse(paths, "~nobody-of-this-name/train", match="is not there")
    (downloads / "round").symlink_to(downloads / "round")
    refuse(paths, downloads / "round", match="is not there")
    put_clone(paths)
    refuse(paths, paths.root, match="itself. Give the downloaded")


def test_a_file_that_cannot_be_read_is_named(paths, downloads, monkeypatch):
    def fail(*_):
        raise PermissionError(errno.EACCES, "Permission denied", "35.jpg")

    source = put(downloads / "train", FINAL)
    monkeypatch.setattr("processing.downloads.make_entry", fail)
    refuse(paths, source, match="35.jpg: Permission denied. Nothing was imported")


# ---- Failing midway

def fail_at(call, number, error):
    """`call`, that raises `error` at its number-th use."""
    used = Counter()

    def failing(*arguments):
        used["calls"] += 1
        if used["calls"] == number:
            raise error
        return call(*arguments)

    return failing


@pytest.mark.parametrize("number", [1, 2, 4])
@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt(), SystemExit(143)])
def test_failing_midway_leaves_everything_as_it_was(paths, downloads, monkeypatch, capsys, number, zipped, error):
    put_clone(paths)
    put(paths.source, "final/Train_Set/2L/Pre Injection OCT Images/1.jpg")
    names = FINAL, PRELIMINARY, "TrainingAnnotation.csv", "submit_stage1.csv"
    source = put_zip(downloads / "train.zip", *names) if zipped else put(downloads / "train", *names)
    before, originals = tree(paths.root), tree(downloads)
    # A file that cannot be linked is copied: the first copy fails too
    monkeypatch.setattr(importer.os, "link", fail_at(os.link, number, error))
    monkeypatch.setattr(importer, "replace_file", fail_at(replace_file, number if zipped else 1, error))
    with pytest.raises(PipelineError if isinstance(error, OSError) else type(error)) as raised:
        import_data(paths, [source], confirm=yes)
    assert UNDONE in str(raised.value) + capsys.readouterr().out
    assert tree(paths.root) == before
    assert tree(downloads) == originals


def test_a_full_disk_while_unpacking_is_named(paths, downloads, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("processing.files.os.fsync", fail)
    with pytest.raises(PipelineError, match=r"35 \(13\).jpg could not be written: No space") as error:
        import_data(paths, [put_zip(downloads / "train.zip", FINAL)], confirm=yes)
    assert UNDONE in str(error.value)
    assert not paths.source.exists()


@pytest.mark.parametrize("step", ["link", "mkdir", "open", "replace", "unlink"])
def test_what_is_refused_for_a_moment_is_tried_again(paths, downloads, monkeypatch, step):
    """As a virus scanner or a sync client does it on Windows; what is undone too."""
    put(downloads / "train", FINAL, "TrainingAnnotation.csv")
    source = put_zip(downloads / "train.zip", f"train/{PRELIMINARY}").parent
    refusals = []
    real = getattr(os, step)

    def refuse_first(*arguments, **options):
        is_temporary = step == "unlink" and Path(arguments[0]).name.startswith(".")
        if step == "link" or str(paths.root) in str(arguments[0]) and not is_temporary:
            refusals.append(step)
            if len(refusals) < 3:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), arguments[0])
        return real(*arguments, **options)

    monkeypatch.setattr("processing.files.time.sleep", lambda _: None)
    monkeypatch.setattr(os, step, refuse_first)
    if step == "unlink":
        monkeypatch.setattr(importer, "replace_file", fail_at(replace_file, 2, OSError(errno.ENOSPC, "No space left")))
        with pytest.raises(PipelineError, match=UNDONE):
            import_data(paths, [source], confirm=yes)
        assert not paths.source.exists()
    else:
        assert import_data(paths, [source], confirm=yes) == Imported(linked=1, copied=1, extracted=1)
    assert len(refusals) >= 3


@pytest.mark.parametrize("zipped", [False, True])
def test_a_download_that_cannot_be_opened_for_a_moment_is_tried_again(paths, downloads, monkeypatch, zipped):
    name = "TrainingAnnotation.csv"
    source = put_zip(downloads / "train.zip", name) if zipped else put(downloads / "train", name)
    real, refusals = open, [1, 2]

    def refuse_first(path, *arguments, **options):
        if refusals and str(downloads) in str(path):
            refusals.pop()
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return real(path, *arguments, **options)

    monkeypatch.setattr("processing.files.time.sleep", lambda _: None)
    monkeypatch.setattr("builtins.open", refuse_first)
    import_data(paths, [source], confirm=yes)
    assert not refusals
    assert len(placed(paths)) == 1


def test_a_disk_that_never_links_is_waited_for_once(paths, downloads, monkeypatch):
    calls, waits = [], []

    def refuse(*_):
        calls.append(1)
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(importer.os, "link", refuse)
    monkeypatch.setattr("processing.files.time.sleep", waits.append)
    names = [f"2L/Pre Injection OCT Images/{number}.jpg" for number in range(20)]
    assert import_data(paths, [put(downloads / "train", *names)], confirm=yes) == Imported(copied=20)
    assert len(calls) == 20 + len(waits)
    assert sum(waits) < 2


def test_a_file_that_came_into_being_after_the_plan_is_not_replaced_or_removed(paths, downloads):
    target = paths.source / "final/Train_Set" / FINAL
    source = put(downloads / "train", "1L/Pre Injection OCT Images/1.jpg", FINAL)
    with pytest.raises(PipelineError, match="came into being meanwhile"):
        import_data(paths, [source], confirm=lambda _: bool(put(target.parent, target.name)))
    assert placed(paths) == [f"source/final/Train_Set/{FINAL}"]


def test_what_cannot_be_removed_again_is_named(paths, downloads, monkeypatch):
    monkeypatch.setattr(importer.os, "link", fail_at(os.link, 2, KeyboardInterrupt()))
    monkeypatch.setattr(importer, "_remove_path", lambda path, _: path.suffix != ".jpg")
    said = []
    monkeypatch.setattr(importer, "say", said.append)
    with pytest.raises(KeyboardInterrupt):
        import_data(paths, [put(downloads / "train", FINAL, PRELIMINARY)], confirm=yes)
    assert "could not be removed again" in said[0]
    assert "_1000.jpg" in said[0]


def put_lying_zip(file, *, size=None, crc=None):
    """A stored member of 1,000 bytes whose central header claims another size or checksum."""
    put_zip(file, FINAL, content=b"a" * 1000, method=zipfile.ZIP_DEFLATED)
    data = bytearray(file.read_bytes())
    place = data.index(b"PK\x01\x02")
    if size is not None:
        struct.pack_into("<I", data, place + 24, size)
    struct.pack_into("<I", data, place + 16, zlib.crc32(b"a" * 1000) if crc is None else crc)
    file.write_bytes(data)
    return file


@pytest.mark.parametrize("lie", [{"size": 5000}, {"size": 500}, {"crc": 1}])
def test_a_header_that_lies_of_size_or_checksum_is_found_and_undone(paths, downloads, lie):
    source = put(downloads / "first", f"train/1L/{FINAL.split('/', 1)[1]}")
    file = put_lying_zip(downloads / "train.zip", **lie)
    with pytest.raises(PipelineError, match="download it again") as error:
        import_data(paths, [source, file], confirm=yes)
    assert UNDONE in str(error.value)
    assert not paths.source.exists()


def test_damaged_zips_are_refused_in_a_sentence_or_imported_whole(paths, downloads):
    whole = put_zip(downloads / "train.zip", FINAL, PRELIMINARY, "TrainingAnnotation.csv").read_bytes()
    source = random.Random(7)
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(source.randint(1, 4)):
            data[source.randrange(len(data))] = source.randrange(256)
        (downloads / "train.zip").write_bytes(data[: source.choice([len(data), source.randrange(len(data))])])
        before = tree(paths.root)
        try:
            import_data(paths, [downloads / "train.zip"], confirm=yes)
        except PipelineError:
            assert tree(paths.root) == before
