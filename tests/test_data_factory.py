import os
import re

import cv2
import numpy as np
import pandas as pd
import pytest

from config import VIEWS, Paths, View
from processing import columns as c
from processing.bscans import read_bscan
from processing.crop_record import GEOMETRY_COLUMNS
from processing.crops import _write_number
from processing.data_factory import _preview_sources, processing_data
from processing.errors import PipelineError
from processing.geometry import read_geometry
from processing.images import crop_image, cut_view, encode_jpeg, read_image
from processing.screens import explain_oddity
from tests.helpers import make_screen, put_screen
from tests.lines import draw_screen

BSCAN, FUNDUS = VIEWS["bscan"], VIEWS["fundus"]

INFO = "patient ID,gender,age,diagnosis,anti-VEGF,preVA\n7R,Male,60,DME,Avastin,0.5\n"


@pytest.fixture(autouse=True)
def _undrawn(request, monkeypatch):
    """The preview is drawn for the tests that look at it."""
    if "preview" not in request.node.name:
        monkeypatch.setattr("processing.data_factory.draw_crop_preview", lambda *_: None)


@pytest.fixture
def source(paths):
    """Two test images of one final eye, of different width."""
    folder = paths.source / "final" / "Test_Set"
    put_screen(folder / "7R" / "Pre Injection OCT Images" / "眼 (1).jpg", seed=1)
    put_screen(folder / "7R" / "Post Injection OCT Images" / "127. (16).PNG", seed=2, width=1008)
    (folder / "test_info.csv").write_text(INFO)
    return folder


def crops(paths, view=BSCAN):
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in paths.view_folder(view).rglob("*.jpg")}


def with_box(*edges):
    """The views with another box of the B-scan."""
    return VIEWS | {"bscan": View(*edges)}


def decode(file):
    return cv2.imdecode(np.fromfile(file, np.uint8), cv2.IMREAD_UNCHANGED)


def tables(paths):
    """All but the records of crops and of where scans lie, which hold times."""
    records = paths.crop_record, paths.geometry_table
    return {path.name: path.read_bytes() for path in paths.processed.rglob("*.csv") if path not in records}


def test_it_writes_crops_tables_and_the_preview(paths, source):
    made = processing_data(paths)
    assert made == (2, 0, 2, 4, 0, 0, 0)
    images = pd.read_csv(paths.image_table)
    assert images.columns.tolist() == c.IMAGE_COLUMNS
    assert set(crops(paths)) == set(crops(paths, FUNDUS)) == {"7R_1_0_1_眼 (1).jpg", "7R_1_1_1_127. (16).jpg"}
    for row in images.to_dict("records"):
        crop = cv2.imdecode(np.fromfile(paths.root / row[c.PROCESSED], np.uint8), cv2.IMREAD_COLOR)
        screen = cv2.imdecode(np.fromfile(paths.root / row[c.SOURCE], np.uint8), cv2.IMREAD_COLOR)
        cut = screen[50:450, 550:1200]
        assert crop.shape == (400, 650, 3)
        assert np.abs(crop[:, : cut.shape[1]].astype(int) - cut).mean() < 3
        assert crop[:, cut.shape[1] + 8:].max(initial=0) < 10
    preview = cv2.imdecode(np.fromfile(paths.crop_preview, np.uint8), cv2.IMREAD_COLOR)
    assert preview.shape[0] > 500
    assert preview.std() > 20


def test_each_view_has_its_own_folder_channels_and_box_and_a_grey_crop_its_old_bytes(paths, source):
    put_screen(source / "7R" / "Pre Injection OCT Images" / "small.png", seed=4, height=200, width=560)
    processing_data(paths)
    for row in pd.read_csv(paths.image_table).to_dict("records"):
        screen, name = read_image(paths.root / row[c.SOURCE]), os.path.basename(row[c.PROCESSED])
        assert (paths.root / row[c.PROCESSED]).read_bytes() == encode_jpeg(crop_image(screen, BSCAN))
        assert decode(paths.root / row[c.PROCESSED]).shape == (400, 650)
        fundus = decode(paths.view_folder(FUNDUS) / "test" / name)
        assert fundus.shape == (496, 496, 3)
        assert np.abs(fundus[:screen.shape[0]].astype(int) - screen[:496, :496]).mean() < 3
        assert fundus[screen.shape[0] + 8:].max(initial=0) < 10


def test_where_each_scan_lies_is_read_from_its_screen(paths, source):
    screens = [file for file in sorted(source.rglob("*.*")) if file.suffix.lower() in (".jpg", ".png")]
    for number, file in enumerate(screens):
        file.write_bytes(encode_jpeg(draw_screen([3, number]).screen))
    processing_data(paths)
    table = pd.read_csv(paths.geometry_table)
    images = pd.read_csv(paths.image_table)
    assert table[c.SOURCE].tolist() == sorted(images[c.SOURCE]) and list(table) == GEOMETRY_COLUMNS
    for row in table.to_dict("records"):
        found = read_geometry(read_image(paths.root / row[c.SOURCE]))
        scan = read_bscan(paths.root / row[c.SOURCE])
        for name, value in {**found._asdict(), **scan._asdict(), "bscan_columns": scan.pixels.shape[1]}.items():
            if isinstance(value, str):
                assert row[name] == value or (value == "" and np.isnan(row[name]))
            elif name != "pixels":
                up = 0.01 if name.endswith("_off") else 0.0051
                assert row[name] == pytest.approx(value, abs=up, nan_ok=True)
                assert not name.endswith("_off") or not row[name] < value       # it is a bound
    lines = re.findall(r",(\d+),(\d+),(?:agrees|differs)?,", paths.geometry_table.read_text())     # no 3.0
    assert len(lines) == table["line"].notna().sum() >= 1
    before, stamp = paths.geometry_table.read_bytes(), paths.geometry_table.stat().st_mtime_ns
    processing_data(paths)
    assert paths.geometry_table.stat().st_mtime_ns == stamp         # nothing was read again
    paths.geometry_table.unlink()
    assert processing_data(paths).crops == 0
    assert paths.geometry_table.read_bytes() == before
    changed = screens[0]
    changed.write_bytes(encode_jpeg(np.full((596, 1264, 3), 90, np.uint8)))
    processing_data(paths)
    after = pd.read_csv(paths.geometry_table).set_index(c.SOURCE)
    assert after.loc[paths.relative(changed), "pattern"] == "unknown" and len(after) == 2


def test_a_third_view_is_one_entry(paths, source, monkeypatch):
    processing_data(paths)
    before = crops(paths) | crops(paths, FUNDUS)
    monkeypatch.setitem(VIEWS, "caption", View(496, 596, 0, 300, channels=3, folder="caption"))
    assert processing_data(paths).crops == 2
    assert crops(paths) | crops(paths, FUNDUS) == before
    files = sorted(paths.view_folder(VIEWS["caption"]).rglob("*.jpg"))
    assert [file.name for file in files] == sorted(crops(paths))
    assert {decode(file).shape for file in files} == {(100, 300, 3)}


def test_a_screen_is_decoded_once_for_all_views(paths, source, monkeypatch):
    opened = []
    monkeypatch.setattr("processing.crops.read_image", lambda file: opened.append(file) or read_image(file))
    assert processing_data(paths).crops == 4
    assert len(opened) == 2


def test_colours_where_a_view_is_grey_are_turned_grey_counted_and_said(paths, source, capsys):
    file = source / "7R" / "Post Injection OCT Images" / "0.png"
    screen = put_screen(file, seed=5, grey=False)
    mixed = source / "7R" / "Post Injection OCT Images" / "1.png"
    cv2.imwrite(str(mixed.parent.parent.parent / "1.png"), np.hstack([screen[:, :496], make_screen(596, 768)]))
    (mixed.parent.parent.parent / "1.png").rename(mixed)        # coloured in the fundus picture alone
    for _ in range(2):          # the second run decodes nothing
        assert processing_data(paths).coloured == 1
        assert "1 images have colours where the device makes none; their crops were turned grey (ITU-R BT.601). " \
               f"The first is {paths.relative(file)}." in capsys.readouterr().out
    crop = decode(paths.view_folder(BSCAN) / "test" / "7R_1_1_1_0.jpg")
    luma = screen[50:450, 550:1200] @ [0.114, 0.587, 0.299]
    assert crop.shape == (400, 650)
    assert np.abs(crop - luma).mean() < 3
    fundus = decode(paths.view_folder(FUNDUS) / "test" / "7R_1_1_1_0.jpg").astype(int)
    assert np.abs(fundus[..., 0] - fundus[..., 2]).mean() > 20


def test_opencv_has_its_threads_back(paths, source):
    threads = cv2.getNumThreads()
    processing_data(paths)
    assert cv2.getNumThreads() == threads


def test_two_roots_of_the_same_data_give_the_same_bytes(paths, source, tmp_path):
    processing_data(paths)
    other = Paths(tmp_path / "other place")
    paths.source.rename(tmp_path / "moved")
    other.source.parent.mkdir(parents=True)
    (tmp_path / "moved").rename(other.source)
    processing_data(other)
    assert tables(paths) == tables(other)
    assert {name: data for name, (data, _) in crops(paths).items()} == {
        name: data for name, (data, _) in crops(other).items()
    }


def test_a_second_run_cuts_only_what_is_new_or_changed(paths, source):
    processing_data(paths)
    before = crops(paths)
    fundus = crops(paths, FUNDUS)
    assert processing_data(paths).crops == 0
    assert (crops(paths), crops(paths, FUNDUS)) == (before, fundus)
    put_screen(source / "7R" / "Pre Injection OCT Images" / "眼 (1).jpg", seed=9)
    put_screen(source / "7R" / "Pre Injection OCT Images" / "new.jpg", seed=3)
    assert processing_data(paths).crops == 4
    after = crops(paths)
    assert after["7R_1_1_1_127. (16).jpg"] == before["7R_1_1_1_127. (16).jpg"]
    assert after["7R_1_0_1_眼 (1).jpg"][0] != before["7R_1_0_1_眼 (1).jpg"][0]


def test_a_source_that_changed_without_changing_its_size_is_cut_again(paths, source):
    file = source / "7R" / "Pre Injection OCT Images" / "眼 (1).jpg"
    first, second = (cv2.imencode(".jpg", make_screen(seed=seed))[1].tobytes() for seed in (11, 12))
    size = max(len(first), len(second))
    file.write_bytes(first.ljust(size, b"\0"))
    processing_data(paths)
    before = crops(paths)["7R_1_0_1_眼 (1).jpg"][0]
    file.write_bytes(second.ljust(size, b"\0"))
    assert processing_data(paths).crops == 2
    assert crops(paths)["7R_1_0_1_眼 (1).jpg"][0] != before


def test_a_lost_or_cut_crop_is_made_again(paths, source):
    processing_data(paths)
    before = crops(paths)
    first, second = sorted(paths.view_folder(BSCAN).rglob("*.jpg"))
    first.unlink()
    second.write_bytes(second.read_bytes()[:500])
    assert processing_data(paths).crops == 2
    assert {name: data for name, (data, _) in crops(paths).items()} == {
        name: data for name, (data, _) in before.items()
    }


def test_another_box_of_a_view_cuts_its_crops_and_the_preview_again(paths, source):
    processing_data(paths)
    preview, fundus = paths.crop_preview.read_bytes(), crops(paths, FUNDUS)
    assert processing_data(paths, with_box(0, 100, 500, 700)).crops == 2
    assert {decode(file).shape for file in paths.view_folder(BSCAN).rglob("*.jpg")} == {(100, 200)}
    assert paths.crop_preview.read_bytes() != preview
    assert processing_data(paths, VIEWS | {"fundus": FUNDUS._replace(channels=1)}).crops == 4
    assert {decode(file).shape for file in paths.view_folder(FUNDUS).rglob("*.jpg")} == {(496, 496)}
    assert processing_data(paths).crops == 2
    assert {name: data for name, (data, _) in crops(paths, FUNDUS).items()} == {
        name: data for name, (data, _) in fundus.items()
    }


def test_a_record_of_an_older_version_is_none_and_everything_is_cut_again(paths, source):
    processing_data(paths)
    table = pd.read_csv(paths.crop_record, dtype=str)
    table.drop(columns="channels").to_csv(paths.crop_record, index=False)
    assert processing_data(paths).crops == 4
    lines = paths.crop_record.read_text(encoding="utf-8").splitlines()
    for damaged in (lines[-1][:50], lines[-1].replace(",596,", ",high,")):
        paths.crop_record.write_text("\n".join([*lines[:-1], damaged]), encoding="utf-8")
        assert processing_data(paths).crops == 1


def test_a_run_that_was_stopped_goes_on(paths, source, monkeypatch):
    def fail(screen, view):
        if screen.shape[1] == 1264:     # the second one
            raise KeyboardInterrupt
        return cut_view(screen, view)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("processing.crops.cut_view", fail)
        processing_data(paths)
    before = crops(paths)
    assert len(before) == 1
    assert processing_data(paths).crops == 2
    assert before.items() <= crops(paths).items()


def test_bad_images_are_skipped_and_named_and_the_rest_goes_on(paths, source, capsys):
    folder = source / "7R" / "Pre Injection OCT Images"
    (folder / "cut.jpg").write_bytes((folder / "眼 (1).jpg").read_bytes()[:4000])
    (folder / "text.jpg").write_text("no image")
    put_screen(folder / "small.jpg", height=40, width=60)
    made = processing_data(paths)
    assert (made.images, made.test, made.problems) == (2, 2, 3)
    problems = pd.read_csv(paths.problems)
    named = {os.path.basename(source): reason for source, reason in problems.to_numpy()}
    assert "damaged" in named["cut.jpg"]
    assert "damaged" in named["text.jpg"]
    assert "60 x 40" in named["small.jpg"]
    said = capsys.readouterr().out
    assert "small.jpg" in said
    assert "problems.csv" in said


def test_strict_stops_at_a_problem_before_any_table_is_written(paths, source):
    processing_data(paths, strict=True)
    before = tables(paths)
    (source / "7R" / "Pre Injection OCT Images" / "text.jpg").write_text("no image")
    with pytest.raises(PipelineError, match="--strict: 1 problems; no table was written"):
        processing_data(paths, strict=True)
    assert {name: data for name, data in tables(paths).items() if name != "problems.csv"} == {
        name: data for name, data in before.items() if name != "problems.csv"
    }
    assert "text.jpg" in paths.problems.read_text(encoding="utf-8")


def test_a_crop_of_a_screen_that_became_unreadable_is_not_used_any_more(paths, source):
    processing_data(paths)
    (source / "7R" / "Pre Injection OCT Images" / "眼 (1).jpg").write_bytes(b"gone bad")
    made = processing_data(paths)
    assert (made.images, made.test, made.problems) == (1, 1, 1)


def test_an_image_that_the_table_does_not_know_is_named(paths, source):
    put_screen(source / "8L" / "Pre Injection OCT Images" / "1.jpg")
    made = processing_data(paths)
    assert (made.images, made.test) == (3, 2)
    assert "8L" in paths.problems.read_text(encoding="utf-8")


def test_an_absent_round_is_left_out_with_a_line(paths, source, capsys):
    processing_data(paths)
    said = capsys.readouterr().out
    assert "preliminary round: no images in" in said
    assert "final round: 0 training and 2 test images" in said


def test_without_any_data_it_says_what_to_put_where(paths):
    with pytest.raises(PipelineError) as caught:
        processing_data(paths)
    assert str(paths.source) in str(caught.value)
    assert "preliminary/Train_set" in str(caught.value)
    assert "python main.py demo" in str(caught.value)


@pytest.mark.parametrize(("value", "up", "written"), [
    (0.6212, True, "0.63"), (0.6262, True, "0.63"), (0.6212, False, "0.62"), (-0.001, False, "0"), (3.0, False, "3"),
    (12345.678, False, "12345.68"), (np.nan, True, "")])
def test_bounds_are_rounded_up_and_whole_numbers_have_no_decimals(value, up, written):
    assert _write_number(value, up=up) == written


def test_what_lies_beside_a_narrow_screen_is_black_as_a_rule():
    assert explain_oddity((1008, 596), 54) == "" and explain_oddity((1264, 596), 54) == "54 % of the crop is black"
    assert explain_oddity((1008, 596), 66) == "66 % of the crop is black"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("final/Test_Set/7R/Pre/IMG_1.jpg", "its name follows no rule of the final round: <eye>/Pre Injection OCT"),
        ("preliminary/Train_set/IMG_1.jpg", "its name follows no rule of the preliminary round: <eye>_1"),
        ("Train_set/0000-0001L_1.jpg", "it lies in the folder of no round"),
        ("0000-0001L_1.jpg", "it lies in the folder of no round"),
        ("final/data1/7R/Pre Injection OCT Images/1.jpg", "its folder is of no set"),
        ("final/7R/Pre Injection OCT Images/1.jpg", "its folder is of no set"),
    ],
)
def test_images_of_which_none_is_usable_are_counted_and_named_with_the_reason(paths, capsys, name, reason):
    for number in range(3):
        put_screen(paths.source / name.replace("1.jpg", f"1{number}.jpg"))
    with pytest.raises(PipelineError) as caught:
        processing_data(paths)
    said = str(caught.value)
    assert said.startswith(f"None of 3 images below {paths.source} is usable.")
    assert f"  data/source/{name.replace('1.jpg', '10.jpg')}: {reason}" in said
    assert f"All 3 are listed in {paths.problems}." in said
    assert len(pd.read_csv(paths.problems)) == 3
    if name.startswith("final"):
        assert "final round: none of 3 images in" in capsys.readouterr().out


def test_a_root_whose_own_path_is_not_utf8_works(paths, source, tmp_path):
    root = os.fsencode(tmp_path) + b"/\xd6\xd0"
    try:
        os.rename(paths.root, root)
    except OSError:
        pytest.skip("the file system knows no such names")
    assert processing_data(Paths(os.fsdecode(root))).images == 2


def test_what_looks_like_data_and_is_not_read_is_named_with_what_to_do(paths, source, capsys):
    others = {
        "final/Test_Set/7R/35.jfif": "rename it to .jpg", "final/Test_Set/7R/35.bmp": "JPEG and PNG only",
        "final/Test_Set/35.jpg.part": "not finished", "final/train_anno_case.xlsx": "save it as CSV",
        "final/eyes.csv": "name of no table", "Train Set.zip": "option 7 (import_data)",
        "more.zip.001": "part of a split archive", "final/TrainingAnnotation.csv": "put it below preliminary",
        "submit_stage1.csv": "put it into data/submit", "train_anno_pic.txt": "save it as CSV",
        "7R_1.png": "the folder of no round",
    }
    for name in (*others, "notes.txt", "README.md"):
        (paths.source / name).write_bytes(b"")
    made = processing_data(paths)
    assert (made.images, made.problems) == (2, len(others))
    assert "11 files were left out" in capsys.readouterr().out
    reasons = {name.removeprefix("data/source/"): reason for name, reason in pd.read_csv(paths.problems).to_numpy()}
    assert reasons.keys() == others.keys()
    assert all(text in reasons[name] for name, text in others.items()), reasons


def test_a_table_that_is_missing_because_it_is_a_workbook_is_pointed_at(paths, source):
    (source / "test_info.csv").rename(source / "test_info.xlsx")
    with pytest.raises(PipelineError, match=r"(?s)test_info.csv or .* is missing.*test_info.xlsx: .*save it as CSV"):
        processing_data(paths)
    assert len(pd.read_csv(paths.problems)) == 1


@pytest.mark.parametrize("folder", ["Train_Set", "测试", "data1", "训练"])
def test_the_table_that_knows_an_eye_decides_its_set(paths, source, capsys, folder):
    """Whatever the folder says: of the two eyes here the tables know one for test and one for training."""
    (source / "train_anno_case.csv").write_text(
        "patient ID,gender,age,diagnosis,anti-VEGF,preVA,preCST,VA,CST,continue injection\n"
        "9L,Male,60,DME,Avastin,0.32,300,0.5,250,1\n")
    (source / "train_anno_pic.csv").write_text("patient ID,injection,image name,IRF,SRF,PED,HRF\n"
                                               "9L,Pre injection,1,1,0,0,1\n")
    put_screen(source / "9L" / "Pre Injection OCT Images" / "1.jpg", seed=3)
    source.rename(source.with_name(folder))
    made = processing_data(paths)
    assert (made.images, made.train, made.test, made.problems) == (3, 1, 2, 0)
    assert (paths.view_folder(BSCAN) / "train" / "9L_1_0_0_1.jpg").is_file()
    said = capsys.readouterr().out
    wrong = {"Train_Set": "2 final images are test", "训练": "2 final images are test",
             "测试": "1 final images are train"}.get(folder)
    assert ("the table decides" in said) == (wrong is not None)
    assert (wrong or "") + (" by the table that lists their eye, but not by their folder" if wrong else "") in said


def test_an_eye_that_tables_of_both_sets_list_is_of_the_set_of_its_folder(paths, source):
    (source / "train_anno_case.csv").write_text("patient ID\n7R\n")
    assert processing_data(paths).test == 2


def test_a_missing_table_is_asked_for_before_any_crop_is_cut(paths, source):
    (source / "test_info.csv").unlink()
    with pytest.raises(PipelineError, match=r"test_info.csv or test_info_stage2.csv is missing: put it anywhere below"):
        processing_data(paths)
    assert not paths.processed.exists()


def test_a_faulty_table_leaves_what_was_there(paths, source):
    processing_data(paths)
    before = tables(paths) | crops(paths)
    (source / "test_info.csv").write_text(INFO.replace("DME", "unknown"))
    with pytest.raises(PipelineError, match="row 2, diagnosis: 'unknown'"):
        processing_data(paths)
    assert tables(paths) | crops(paths) == before


def test_where_no_image_is_usable_it_says_so(paths, source):
    for file in source.rglob("*Images/*"):
        file.write_bytes(b"no image")
    with pytest.raises(PipelineError, match="None of 2 images could be cropped"):
        processing_data(paths)
    assert len(pd.read_csv(paths.problems)) == 2


def test_the_demonstration_reaches_every_table(demo_root):
    train, test = pd.read_csv(demo_root.train_table), pd.read_csv(demo_root.test_table)
    for table in (train, test):
        assert set(table["final"]) == {0, 1}
        assert set(table["after"]) == {0, 1}
        assert not table.isna().any(axis=None)
    assert not set(train[c.PATIENT]) & set(test[c.PATIENT])
    assert pd.read_csv(demo_root.problems).empty


@pytest.mark.parametrize(
    "box",
    [(450, 50, 550, 1200), (-50, 450, 550, 1200), (50, 50, 550, 1200), (50, 450, -1, 9), (50, 450, 550.0, 1200),
     (0, 100_000, 0, 100_000)],
)
def test_a_box_that_cannot_be_cut_is_refused_before_anything_is_touched(paths, source, box):
    processing_data(paths)
    before = tables(paths) | crops(paths)
    with pytest.raises(PipelineError, match=r"config.VIEWS\['bscan'\] is"):
        processing_data(paths, with_box(*box))
    assert tables(paths) | crops(paths) == before


def test_a_box_outside_every_screen_keeps_the_old_crops(paths, source):
    processing_data(paths)
    before, fundus = crops(paths), crops(paths, FUNDUS)
    with pytest.raises(PipelineError, match="None of 2 images could be cropped"):
        processing_data(paths, with_box(50, 450, 2000, 2100))
    assert (crops(paths), crops(paths, FUNDUS)) == (before, fundus)


def test_a_crop_that_was_damaged_without_changing_its_size_is_cut_again(paths, source):
    processing_data(paths)
    crop = next(paths.view_folder(BSCAN).rglob("*.jpg"))
    good = crop.read_bytes()
    crop.write_bytes(bytes(len(good)))
    assert processing_data(paths).crops == 1
    assert crop.read_bytes() == good


def test_names_that_no_table_can_hold_are_named_as_problems(paths, source):
    folder = os.fsencode(source / "7R" / "Pre Injection OCT Images")
    for name in (b"\xd6\xd0.jpg", b"x" * 240 + b".jpg"):
        with open(os.path.join(folder, name), "wb"):
            pass
    made = processing_data(paths)
    assert (made.images, made.problems) == (2, 2)
    text = paths.problems.read_text(encoding="utf-8")
    assert "\\xd6\\xd0.jpg" in text
    assert "not UTF-8" in text
    assert "longer than 220 bytes" in text


def test_an_image_with_a_rotation_mark_is_named(paths, source):
    upright = cv2.imencode(".jpg", make_screen(seed=3))[1].tobytes()
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    marked = upright[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + upright[2:]
    (source / "7R" / "Pre Injection OCT Images" / "turned.jpg").write_bytes(marked)
    assert processing_data(paths).images == 2
    assert "rotation mark" in paths.problems.read_text(encoding="utf-8")


def test_the_preview_shows_both_rounds_however_many_sizes_there_are(paths, source):
    images = pd.DataFrame([
        {c.SOURCE: f"{number}.jpg", c.PATIENT: f"{number}L", "final": int(number == 0), "injection": "Pre injection"}
        for number in range(12)
    ])
    screens = pd.DataFrame([(f"{number}.jpg", 1000 + number, 596) for number in range(12)],
                           columns=[c.SOURCE, "screen_width", "screen_height"])
    titles = [title for title, _ in _preview_sources(images, screens, paths)]
    assert len(titles) == 3
    assert sum("final round" in title for title in titles) == 1


def put_image(file, image):
    file.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imencode(".png", image)[1].tofile(file) is None


@pytest.mark.parametrize(("change", "reason"), [
    (lambda screen: screen[:496, 496:], "no screen of the device has 768 x 496 pixels, "),            # the B-scan alone
    (lambda screen: cv2.resize(screen, None, fx=1.25, fy=1.25), "no screen of the device has 1580 x 745 pixels"),
    (lambda screen: cv2.rotate(screen, cv2.ROTATE_90_CLOCKWISE), "no screen of the device has 596 x 1264 pixels, "),
    (lambda screen: np.where(np.arange(1264)[:, None] < 850, screen, 0), "% of the crop is black"),
], ids=["bscan", "screenshot", "rotated", "black"])
def test_a_screen_that_is_not_as_the_device_makes_it_is_cut_counted_and_named(paths, source, capsys, change, reason):
    odd = source / "7R" / "Pre Injection OCT Images" / "a.png"
    put_image(odd, change(make_screen(seed=3)).astype(np.uint8))
    processed = processing_data(paths)
    assert (processed.images, processed.odd, processed.problems) == (3, 1, 1)
    said = capsys.readouterr().out
    name = odd.relative_to(paths.root).as_posix()
    assert f"1 screens are not as the device makes them and were cut all the same, as {name} (" in said
    assert reason in said and str(paths.problems) in said
    (row,) = pd.read_csv(paths.problems).to_dict("records")
    assert row[c.SOURCE] == name and reason in row["problem"]
    capsys.readouterr()
    assert processing_data(paths).odd == 1                     # nothing is cut anew, and it is said again
    assert reason in capsys.readouterr().out
    with pytest.raises(PipelineError, match="--strict: 1 problems"):
        processing_data(paths, strict=True)


def test_a_preview_or_a_list_that_cannot_be_written_ends_nothing(paths, source, capsys):
    (source / "7R" / "Pre Injection OCT Images" / "9.jpg").write_bytes(b"no image")
    for file in (paths.crop_preview, paths.problems):
        file.mkdir(parents=True)        # nothing can be put there
    assert processing_data(paths).test == 2
    shown = capsys.readouterr().out
    assert f"{paths.crop_preview} is not written" in shown and f"{paths.problems} is not written" in shown
    assert len(pd.read_csv(paths.test_table)) == 2
