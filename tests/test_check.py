"""The data check: data without a fault, broken in one place at a time; the real tables; the demonstration."""

import os
import re
import shutil
from collections import Counter

import cv2
import numpy as np
import pandas as pd
import pytest

from config import VIEWS, Paths
from processing import columns as c
from processing.check import check_data
from processing.check.images import LEAST_CONTRAST, check_geometry, measure_contrast
from processing.check.kinds import KINDS, SEVERITIES, Finding
from processing.check.tables import check_tables
from processing.crop_record import GEOMETRY_COLUMNS, GeometryRecord
from processing.data_factory import processing_data
from processing.errors import PipelineError
from processing.images import crop_image, read_image
from tests.helpers import put_screen

BOX = VIEWS["bscan"]
OTHER_BOX = VIEWS | {"bscan": BOX._replace(top=0, bottom=100, left=500, right=700)}
TABLES = {
    "preliminary/Train_set/TrainingAnnotation.csv": (
        "patient ID,gender,age,diagnosis,preVA,anti-VEGF,preCST,preIRF,preSRF,prePED,preHRF,VA,continue injection,CST,"
        "IRF,SRF,PED,HRF\n"
        "0000-0001L,1,60,1,0.4,1,300,0,0,0,0,0.3,1,280,0,0,0,0\n0000-0002R,2,70,6,2.3,0,250,1,1,1,1,2,0,240,1,1,1,1\n"
    ),
    "preliminary/Test_set/PreliminaryValidationSet_Info.csv": (
        "patient ID,gender,age,diagnosis,preVA,anti-VEGF\n0000-0003L,2,60,1,0.4,1\n"
    ),
    "final/Train_Set/train_anno_case.csv": (
        "patient ID,gender,age,diagnosis,anti-VEGF,preVA,preCST,VA,CST,continue injection\n"
        "7R,Male,60,DME,Avastin,0.32,300,0.5,250,1\n"
    ),
    "final/Train_Set/train_anno_pic.csv": (
        "patient ID,injection,image name,IRF,SRF,PED,HRF\n7R,Pre injection,a,1,0,0,1\n7R,Post injection,b,0,0,0,1\n"
    ),
    "final/Test_Set/test_info.csv": "patient ID,gender,age,diagnosis,anti-VEGF,preVA\n8L,Female,50,PCV,Eylea,0.25\n",
}
TEMPLATES = {
    "submit_stage1.csv": "patient ID,preCST,VA,continue injection,CST,IRF,SRF,HRF\n0000-0003L,0,0,0,0,0,0,0\n",
    "submit_stage2_case.csv": "patient ID,VA,continue injection,preCST,CST\n8L,0,0,0,0\n",
    "submit_stage2_pic.csv": (
        "image number,patient ID,injection,image name,IRF,SRF,PED\n"
        "1,8L,Pre injection,a,0,0,0\n2,8L,Post injection,b,0,0,0\n"
    ),
}
IMAGES = [
    *(f"preliminary/Train_set/0000-000{eye}_{visit}000.jpg" for eye in ("1L", "2R") for visit in "12"),
    *(f"preliminary/Test_set/0000-0003L_{visit}000.jpg" for visit in "12"),
    *(f"final/{eye}/{visit} Injection OCT Images/{name}.jpg"
      for eye in ("Train_Set/7R", "Test_Set/8L") for visit, name in (("Pre", "a"), ("Post", "b"))),
]
ANNOTATION, INFO, CASE, PIC, FINAL_INFO = TABLES
FIRST, SECOND = IMAGES[:2]


@pytest.fixture(scope="module")
def clean_root(tmp_path_factory):
    """Data without a fault: two training eyes and a test eye, one and one, each with an image of each visit."""
    from config import Paths

    clean = Paths(tmp_path_factory.mktemp("clean") / "数据 root")
    for seed, name in enumerate(IMAGES):
        put_screen(clean.source / name, seed=seed)
    for folder, texts in ((clean.source, TABLES), (clean.submit, TEMPLATES)):
        folder.mkdir(exist_ok=True)
        for name, text in texts.items():
            (folder / name).write_text(text)
    return clean


@pytest.fixture
def clean(clean_root, paths):
    """The same, of one's own."""
    shutil.copytree(clean_root.root, paths.root)
    return paths


@pytest.fixture(scope="module")
def processed_root(clean_root, tmp_path_factory):
    """The same with option 0 done."""
    from config import Paths

    processed = Paths(tmp_path_factory.mktemp("processed") / "root")
    shutil.copytree(clean_root.root, processed.root)
    processing_data(processed)
    return processed


@pytest.fixture
def processed(processed_root, paths):
    """The same, of one's own; the files' times are copied too, by which crops are known to be current."""
    shutil.copytree(processed_root.root, paths.root)
    return paths


@pytest.fixture
def drawn():
    """For the tests that look at the picture; the others go without."""


@pytest.fixture(autouse=True)
def _undrawn(request, monkeypatch):
    if "drawn" not in request.fixturenames:
        monkeypatch.setattr("processing.check.draw_check", lambda *_: None)


def edit(file, old, new):
    text = file.read_text()
    assert text.count(old) >= 1
    file.write_text(text.replace(old, new, 1))


def only(found, kind):
    """The findings of a kind, which must be there."""
    same = [each for each in found if each.kind == kind]
    assert same, f"{kind} is not among {sorted({each.kind for each in found})}"
    return same


def test_data_without_a_fault_gives_nothing_before_and_after_option_0(clean_root, processed_root, capsys):
    assert check_data(clean_root) == []
    assert "Nothing stops the pipeline; 0 findings" in capsys.readouterr().out
    assert len(pd.read_csv(clean_root.processed / "check.csv")) == 0
    # The screens of these tests show no lines, which option 0 has found out by now
    assert {each.kind for each in check_data(processed_root)} == {"lines-unknown"}


# ---- Cells: what is written where, and where the one finding of that kind must be

CELLS = {
    "category-unknown": (CASE, "DME", "XYZ", (2, "diagnosis", "XYZ")),
    "number-wanted": (ANNOTATION, ",280,", ",thick,", (2, c.CST, "thick")),
    "key-missing": (PIC, "7R,Post", ",Post", (3, c.PATIENT, "")),
    "row-doubled": (ANNOTATION, "0000-0002R", "0000-0001l", (3, c.PATIENT, "0000-0001L")),
    "row-odd": (FINAL_INFO, "Eylea,0.25", "Eylea", (2, "", "")),
    "column-missing": (FINAL_INFO, ",preVA", ",acuity", (None, c.PRE_VA, "")),
    "column-extra": (FINAL_INFO, ",preVA\n8L,Female,50,PCV,Eylea,0.25",
                     ",preVA,note\n8L,Female,50,PCV,Eylea,0.25,good", (None, "note", "")),
    "measure-missing": (ANNOTATION, ",300,", ",nan,", (2, c.PRE_CST, "nan")),
    "answer-missing": (ANNOTATION, "0.3,1,280", "0.3,,280", (2, "continue injection", "")),
    "column-empty": (CASE, "300,0.5", "300,nan", (None, c.VA, "")),
    "age-implausible": (INFO, ",60,", ",160,", (2, "age", "160")),
    "cst-implausible": (ANNOTATION, ",300,", ",6109,", (2, c.PRE_CST, "6109")),
    "va-implausible": (ANNOTATION, ",0.4,", ",-0.1,", (2, c.PRE_VA, "-0.1")),
    "continue-odd": (ANNOTATION, "0.3,1,280", "0.3,6,280", (2, "continue injection", "6")),
    "answer-odd": (PIC, "a,1,0,0,1", "a,1,0,2,1", (2, "PED", "2")),
    "va-nlp": (CASE, "0.32", "NLP", (2, c.PRE_VA, "NLP")),
    "va-float32": (CASE, "0.32", "0.319999993", (2, c.PRE_VA, "0.319999993")),
    "cell-blank": (CASE, "Male", "Male ", (2, "gender", "Male ")),
    "labels-doubled": (PIC, "a,1,0,0,1\n", "a,1,0,0,1\n7R,Pre injection,a,1,0,0,1\n",
                       (3, "", "7R, Pre injection, a")),
    "labels-contradict": (PIC, "a,1,0,0,1\n", "a,1,0,0,1\n7R,Pre injection,a,0,1,0,1\n",
                          (3, "IRF, SRF", "7R, Pre injection, a")),
    "label-without-image": (PIC, "a,1,0,0,1\n", "a,1,0,0,1\n7R,Pre injection,c,0,1,0,1\n",
                            (3, "image name", "7R, Pre injection, c")),
    "eye-without-images": (ANNOTATION, "0000-0002R", "0000-0009R", (3, c.PATIENT, "0000-0009R")),
    "person-in-both": (INFO, "0000-0003L", "0000-0001R", (2, c.PATIENT, "0000-0001R")),
    "eye-in-both": (INFO, "0000-0003L", "0000-0001L", (2, c.PATIENT, "0000-0001L")),
}


@pytest.mark.parametrize("kind", CELLS)
def test_a_fault_in_a_cell_is_found_where_it_stands(clean, kind):
    name, old, new, place = CELLS[kind]
    edit(clean.source / name, old, new)
    each, = only(check_data(clean), kind)
    assert (each.row, each.column, each.value) == place
    assert each.file == f"data/source/{name}"
    assert each.severity == KINDS[kind].severity
    assert each.why and each.action


@pytest.mark.parametrize(("low", "high", "good"), [("99", "1501", "100"), ("31", "6109", "1500")])
def test_the_limits_of_the_thickness_are_100_and_1500(clean, low, high, good):
    edit(clean.source / ANNOTATION, ",300,", f",{low},")
    edit(clean.source / ANNOTATION, ",250,", f",{good},")
    edit(clean.source / CASE, ",300,", f",{high},")
    assert {each.value for each in only(check_data(clean), "cst-implausible")} == {low, high}


def test_contradicting_rows_say_what_each_of_them_says(clean):
    edit(clean.source / PIC, "a,1,0,0,1\n", "a,1,0,0,1\n7R,Pre injection,a,0,0,0,1\n")
    each, = only(check_data(clean), "labels-contradict")
    assert each.why.startswith("IRF is 0, in row 2 1;")
    edit(clean.source / PIC, "a,0,0,0,1\n", "a,1,,0,1\n")       # a gap counts as 0: no contradiction
    assert only(check_data(clean), "labels-doubled")[0].row == 3


def test_all_faults_are_in_one_report_and_the_worst_come_first(clean):
    for name, old, new, _ in [CELLS["category-unknown"], CELLS["number-wanted"], CELLS["cst-implausible"]]:
        edit(clean.source / name, old, new)
    (clean.submit / "submit_stage1.csv").unlink()
    found = check_data(clean)
    assert {each.kind for each in found} == {
        "category-unknown", "number-wanted", "cst-implausible", "template-missing"
    }
    order = [SEVERITIES.index(each.severity) for each in found]
    assert order == sorted(order)


@pytest.mark.parametrize("text", ["", "\n\n", "no table", "a\0b,c\n1,2\n", "\ufffe\ufffe", "patient ID\n\n,\n"])
def test_no_table_at_all_is_a_finding_and_no_traceback(clean, text):
    (clean.source / CASE).write_bytes(text.encode("utf-8") + b"\xff" * bool(text))
    found = check_data(clean)
    assert {each.kind for each in found if each.file == f"data/source/{CASE}"} & {"table-unreadable", "column-missing"}


# ---- Units

def swap(values):
    """logMAR to decimal and back."""
    return [("0" if v == 0 else f"{10 ** -v:.3f}") if v == v else "nan" for v in values]


def acuity_tables(folder, logmar, decimal):
    """Two tables whose acuities are given, all else as in TABLES."""
    files = {"preliminary_info": folder / "info.csv", "final_info": folder / "final.csv"}
    header, row = TABLES[INFO].splitlines()
    lines = [row.replace("0003L", f"{n:04d}L").replace("0.4", str(v)) for n, v in enumerate(logmar)]
    files["preliminary_info"].write_text("\n".join([header, *lines]))
    header, row = TABLES[FINAL_INFO].splitlines()
    lines = [row.replace("8L", f"{n}L").replace("0.25", str(v)) for n, v in enumerate(decimal)]
    files["final_info"].write_text("\n".join([header, *lines]))
    return files


def units(paths, files):
    return {each.file for each in check_tables(paths, files)[1] if each.kind == "unit-doubtful"}


def test_acuity_in_the_other_rounds_unit_is_doubted(paths):
    paths.source.mkdir(parents=True)
    logmar = [0, 0.02, 0.3, 0.4, 0.5, 0.7, 1.0, 1.3, 2.0, 2.3] * 5
    decimal = [1.0, 0.67, 0.5, 0.32, 0.25, 0.17, 0.1, 0.08, 0.05, 0.017] * 5
    assert units(paths, acuity_tables(paths.source, logmar, decimal)) == set()
    assert units(paths, acuity_tables(paths.source, decimal, decimal)) == {"data/source/info.csv"}
    assert units(paths, acuity_tables(paths.source, logmar, logmar)) == {"data/source/final.csv"}
    assert units(paths, acuity_tables(paths.source, decimal[:10], [*decimal, "NLP", "NLP", "NLP"])) == set()


def test_the_real_tables_are_doubted_only_when_their_units_are_swapped(real, paths):
    columns = {"annotation": [c.PRE_VA, c.VA], "preliminary_info": [c.PRE_VA], "case": [c.PRE_VA, c.VA],
               "final_info": [c.PRE_VA]}
    names = dict(zip(("annotation", "preliminary_info", "case", "final_info"), (ANNOTATION, INFO, CASE, FINAL_INFO),
                     strict=True))
    for key, name in names.items():
        file = paths.source / name.rsplit("/", 1)[-1]
        file.parent.mkdir(parents=True, exist_ok=True)
        table = pd.read_csv(real / "tables" / file.name, dtype=str, keep_default_na=False)
        table.to_csv(file, index=False)
        assert units(paths, {key: file}) == set()
        for column in columns[key]:
            values = pd.to_numeric(table[column], errors="coerce")
            decimal = key in ("case", "final_info")
            table[column] = (-np.log10(values)).round(3).astype(str) if decimal else swap(values)
        table.to_csv(file, index=False)
        doubts = [each for each in check_tables(paths, {key: file})[1] if each.kind == "unit-doubtful"]
        assert [each.column for each in doubts] == columns[key], key


# ---- Files, eyes, templates

def test_missing_extra_and_contradicting_tables(clean):
    (clean.source / CASE).unlink()
    shutil.copy(clean.source / PIC, clean.source / "final" / "train_anno_pic_stage2.csv")
    (clean.source / "final" / "test_info_stage2.csv").write_text(TABLES[FINAL_INFO].replace("50", "51"))
    (clean.source / "final" / "notes.txt").write_text("x")
    (clean.source / "final" / "README.md").write_text("x")
    found = check_data(clean)
    assert only(found, "table-missing")[0].value == "train_anno_case.csv or train_anno_case_stage2.csv"
    contradicting, = only(found, "table-contradicts")
    assert "test_info" in contradicting.file
    assert [each.file for each in only(found, "file-unused")] == ["data/source/final/notes.txt"]


def test_what_looks_like_data_and_is_not_read_is_named_with_what_to_do(clean):
    names = {"35.bmp": "JPEG and PNG only", "train_anno_case.xlsx": "save it as CSV", "Train Set.zip": "option 7"}
    for name in (*names, "notes.txt"):
        (clean.source / "final" / name).touch()
    found = check_data(clean)
    unread = {each.file.rsplit("/", 1)[-1]: each for each in only(found, "file-unread")}
    assert unread.keys() == names.keys()
    assert all(text in unread[name].why and unread[name].severity == "warns" for name, text in names.items())
    assert [each.file for each in only(found, "file-unused")] == ["data/source/final/notes.txt"]


def test_images_of_which_none_is_usable_are_counted(paths, capsys):
    for number in range(3):
        put_screen(paths.source / f"final/Train_Set/7R/Pre/{number}.jpg")
    found = check_data(paths)
    assert "none of 3 images there is usable" in only(found, "no-images")[0].why
    assert len(only(found, "name-unknown")) == 3


def test_a_folder_that_contradicts_the_table_is_named(clean):
    folder = clean.source / "final" / "Train_Set" / "7R"
    folder.rename(clean.source / "final" / "Test_Set" / "7R")
    found = check_data(clean)
    assert {(each.file.split("/")[3], each.value, each.action) for each in only(found, "set-misnamed")} == {
        ("Test_Set", "7R", "the table decides")}
    assert {each.kind for each in found} == {"set-misnamed"}


def test_an_absent_set_is_noted_and_its_table_is_not_needed(clean):
    shutil.rmtree(clean.source / "final" / "Test_Set" / "8L")
    edit(clean.source / FINAL_INFO, "PCV", "XYZ")
    found = check_data(clean)
    assert only(found, "set-absent")[0].value == "final round, test images"
    assert only(found, "table-unused")[0].file == f"data/source/{FINAL_INFO}"
    assert not any(each.severity == "stops" for each in found)


def test_a_missing_visit_and_images_without_labels(clean):
    (clean.source / SECOND).unlink()
    put_screen(clean.source / "preliminary/Train_set/0000-0009L_1.jpg", seed=30)
    put_screen(clean.source / "final/Train_Set/7R/Pre Injection OCT Images/c.jpg", seed=31)
    put_screen(clean.source / "final/Train_Set/nobody.jpg", seed=32)
    found = check_data(clean)
    visit, = only(found, "visit-missing")
    assert (visit.row, visit.value) == (2, "0000-0001L") and "after" in visit.why
    assert {each.file.rsplit("/", 1)[-1] for each in only(found, "image-unlabelled")} == {"0000-0009L_1.jpg", "c.jpg"}
    assert only(found, "name-unknown")[0].file.endswith("nobody.jpg")


def test_a_folder_that_cannot_be_listed_stops(clean, monkeypatch):
    def refuse(folder):
        raise PipelineError(f"{folder} could not be listed: Permission denied.")

    monkeypatch.setattr("processing.check.layout.find_files", refuse)
    assert "Permission denied" in only(check_data(clean), "folder-unlistable")[0].value


def test_a_name_that_is_not_utf8_can_be_reported(clean):
    odd = os.fsencode(clean.source / "final") + b"/\xd1\xdb"
    try:
        os.mkdir(odd)
    except OSError:
        pytest.skip("the file system knows no such names")
    (clean.source / CASE).rename(os.fsdecode(odd + b"/train_anno_case.csv"))
    edit(odd_table := next(clean.source.rglob("train_anno_case.csv")), "Male", "Male ")
    odd_table.with_name("more.txt").touch()
    with open(os.fsencode(clean.source / FIRST) + b"\xd1.jpg", "w"):
        pass
    found = check_data(clean)
    assert [each.file for each in only(found, "file-unused")] == ["data/source/final/\\xd1\\xdb/more.txt"]
    assert only(found, "name-unknown")[0].file.endswith("\\xd1.jpg")
    assert only(found, "cell-blank")[0].file == "data/source/final/\\xd1\\xdb/train_anno_case.csv"


def test_excluded_images_are_noted(clean):
    put_screen(clean.source / "preliminary/Train_set/0000-1270R_2.jpg")
    assert only(check_data(clean), "image-excluded")[0].severity == "notes"


def test_templates_that_ask_for_other_eyes_images_and_columns(clean):
    edit(clean.submit / "submit_stage1.csv", "0000-0003L", "0000-0004L")
    edit(clean.submit / "submit_stage2_pic.csv", "injection,b", "injection,c ")
    edit(clean.submit / "submit_stage2_case.csv", "VA,", "Acuity,")
    found = check_data(clean)
    asked, = only(found, "template-eye-unknown")
    assert (asked.file, asked.row, asked.value) == ("data/submit/submit_stage1.csv", 2, "0000-0004L")
    assert only(found, "template-eye-missing")[0].value == "0000-0003L"
    assert only(found, "template-image-unknown")[0].value == "8L, Post injection, c"
    assert only(found, "template-image-missing")[0].file.endswith("/b.jpg")
    assert only(found, "template-column")[0].column == c.VA
    extra, = only(found, "template-extra")
    assert (extra.column, extra.severity) == ("Acuity", "stops")
    assert only(found, "cell-blank")[0].value == "c "
    (clean.submit / "submit_stage2_case.csv").write_text("patient ID\n8L\n")
    assert only(check_data(clean), "template-empty")[0].file == "data/submit/submit_stage2_case.csv"
    (clean.submit / "submit_stage2_case.csv").write_text("patient ID,CST,cst\n8L,0,0\n")
    assert only(check_data(clean), "template-extra")[1].column == "cst"
    edit(clean.submit / "submit_stage1.csv", "patient ID", "who")
    assert only(check_data(clean), "column-missing")[0].file == "data/submit/submit_stage1.csv"


def test_a_template_may_ask_for_whatever_a_model_answers(clean):
    edit(clean.submit / "submit_stage2_pic.csv", "PED\n", "PED,hrf\n")
    for row in ("a,0,0,0", "b,0,0,0"):
        edit(clean.submit / "submit_stage2_pic.csv", row, row + ",0")
    edit(clean.submit / "submit_stage2_case.csv", ",CST\n8L", ",CST,preIRF\n8L,0")
    assert check_data(clean) == []


# ---- Images

def write_screen(file, screen):
    file.write_bytes(cv2.imencode(".png", screen)[1].tobytes())


def test_unreadable_images_are_warned_of_and_stop_when_there_is_no_other(clean):
    for count, name in enumerate(IMAGES):
        (clean.source / name).write_bytes((clean.source / name).read_bytes()[: 3000 * (count % 2)])
        if count == 1:
            found = check_data(clean)
            assert {each.file for each in only(found, "image-unreadable")} == {
                f"data/source/{FIRST}", f"data/source/{SECOND}"
            }
            assert not any(each.severity == "stops" for each in found)
    assert only(check_data(clean), "no-images")[0].severity == "stops"


def test_screens_of_odd_size(clean):
    for name, width, height in zip(IMAGES, (1100, 1008, 2000), (596, 596, 900), strict=False):
        put_screen(clean.source / name, width=width, height=height)
    put_screen(clean.source / IMAGES[3], width=60, height=40)
    found = check_data(clean)
    sizes = {each.value: each.why for each in only(found, "screen-odd")}
    assert set(sizes) == {"1100 x 596", "2000 x 900"}
    assert "no screen of the device has 1100 x 596 pixels, 16 % of the crop is black" in sizes["1100 x 596"]
    assert only(found, "screen-narrow")[0].value == "1008 x 596"
    assert "60 x 40" in only(found, "image-unreadable")[0].why


@pytest.mark.parametrize("kind", ["black", "white", "noise", "dim noise", "narrow noise", "vitreous"])
def test_near_empty_scans(clean, kind):
    shape, rng = (596, 1264), np.random.default_rng(0)
    screen = {
        "black": np.zeros(shape), "white": np.full(shape, 255), "noise": rng.uniform(0, 255, shape),
        "dim noise": np.abs(rng.normal(0, 25, shape)), "narrow noise": rng.uniform(0, 255, shape),
        "vitreous": rng.normal(20, 10, shape) + np.linspace(0, 25, 596)[:, None],
    }[kind].clip(0, 255).astype(np.uint8)
    write_screen(clean.source / FIRST, screen[:, :1008] if kind == "narrow noise" else screen)
    empty, = only(check_data(clean), "image-empty")
    assert empty.file == f"data/source/{FIRST}"


def test_real_and_synthetic_scans_are_far_from_empty(real, demo_root):
    crop = crop_image(read_image(real / "images" / "radial_OS_normal.jpg"), BOX)
    assert measure_contrast(crop) > 3 * LEAST_CONTRAST
    assert measure_contrast((crop * 0.4).astype(np.uint8)) > LEAST_CONTRAST
    files = demo_root.view_folder(BOX).rglob("*.jpg")
    assert min(measure_contrast(read_image(file)) for file in files) > 2 * LEAST_CONTRAST


@pytest.mark.parametrize("done", [False, True])
def test_one_picture_under_two_names_also_after_option_0(clean, done):
    test_image = clean.source / IMAGES[4]
    shutil.copy(clean.source / FIRST, test_image)
    if done:
        processing_data(clean)
        shutil.copy(clean.source / FIRST, clean.source / SECOND)      # one crop is there, this one is not
    found = only(check_data(clean), "image-identical")
    assert len(found) == 1 + done
    assert {each.file for each in found} <= {f"data/source/{name}" for name in (FIRST, SECOND, IMAGES[4])}
    assert any("in training and in test" in each.why for each in found)


# ---- After option 0

def test_crops_that_are_missing_broken_of_another_size_or_old(processed):
    crops = sorted((processed.view_folder(BOX) / "train").iterdir())
    crops[0].unlink()
    crops[1].write_bytes(crops[1].read_bytes()[:500])
    put_screen(crops[2], width=100, height=90)
    shutil.copy(crops[3], crops[3].with_name("more.jpg"))
    put_screen(processed.source / IMAGES[5], seed=77)
    found = check_data(processed)
    for kind, crop in zip(("crop-missing", "crop-unreadable", "crop-size"), crops, strict=False):
        each, = only(found, kind)
        assert (each.file, each.severity) == (processed.relative(crop), "stops")
    assert only(found, "crop-unused")[0].file.endswith("more.jpg")
    assert f"data/source/{IMAGES[5]}" in {each.file for each in only(found, "crop-stale")}
    (processed.source / IMAGES[5]).write_bytes(b"no image")         # option 0 would not cut it
    found = check_data(processed)
    assert f"data/source/{IMAGES[5]}" in {each.file for each in only(found, "image-unreadable")}
    assert f"data/source/{IMAGES[5]}" not in {each.file for each in found if each.kind == "crop-stale"}


def test_crops_of_the_other_view_that_are_missing_broken_or_of_another_size(processed):
    folder = processed.view_folder(VIEWS["fundus"])
    crops = sorted((folder / "train").iterdir())
    crops[0].unlink()
    crops[1].write_bytes(crops[1].read_bytes()[:500])
    put_screen(crops[2], width=100, height=90)
    shutil.copy(crops[3], crops[3].with_name("more.jpg"))
    found = check_data(processed)
    for kind, crop in zip(("crop-missing", "crop-unreadable", "crop-size"), crops, strict=False):
        each, = only(found, kind)
        assert (each.file, each.severity) == (processed.relative(crop), "stops")
    assert only(found, "crop-unused")[0].file == "data/processed/fundus/train/more.jpg"
    assert len([each for each in found if each.kind != "lines-unknown"]) == 4
    shutil.rmtree(folder)
    assert len(only(check_data(processed), "crop-missing")) == len(IMAGES)
    processed.crop_record.unlink()      # as after an older version, which knew one view
    values = [each.value for each in only(check_data(processed), "crop-box")]
    assert sorted(values) == ["not cut"] * len(IMAGES) + ["unknown"] * len(IMAGES)


def test_a_coloured_scan_is_found_before_and_after_option_0(clean):
    put_screen(clean.source / FIRST, seed=5, grey=False)
    assert only(check_data(clean), "bscan-coloured")[0].file == f"data/source/{FIRST}"
    processing_data(clean)
    coloured, = only(check_data(clean), "bscan-coloured")
    assert (coloured.severity, coloured.action) == ("warns", "is turned grey (ITU-R BT.601)")


def test_crops_are_read_instead_of_screens_where_they_are_current(processed, monkeypatch):
    monkeypatch.setattr("processing.check.images.read_image", lambda _: pytest.fail("a screen was opened"))
    check_data(processed)
    with pytest.raises(pytest.fail.Exception):
        check_data(processed, OTHER_BOX)      # another box: no crop is current


def test_crops_of_another_box_are_cut_from_their_screens(processed):
    boxes = only(check_data(processed, OTHER_BOX), "crop-box")
    assert len(boxes) == len(IMAGES)
    assert (boxes[0].severity, boxes[0].value) == ("warns", "50:450,550:1200")
    with pytest.raises(PipelineError, match=r"config.VIEWS\['bscan'\]"):
        check_data(processed, VIEWS | {"bscan": BOX._replace(top=100, bottom=0)})


def test_crops_whose_screens_are_gone_are_still_looked_at(processed):
    shutil.rmtree(processed.source)
    found = check_data(processed)
    assert len(only(found, "source-gone")) == len(IMAGES)
    assert not any(each.severity == "stops" for each in found)


def test_processed_tables_with_holes(processed):
    for file, column in ((processed.train_table, c.CST), (processed.test_table, c.PRE_VA)):
        table = pd.read_csv(file, dtype=str)
        table.loc[1, column] = ""
        table.drop(columns="gender").to_csv(file, index=False)
    processed.image_table.unlink()
    found = check_data(processed)
    assert {(each.file, each.row, each.column) for each in only(found, "processed-number")} == {
        ("data/processed/csv/train.csv", 3, c.CST), ("data/processed/csv/test.csv", 3, c.PRE_VA)
    }
    assert {each.column for each in only(found, "processed-column")} == {"gender"}
    assert only(found, "processed-missing")[0].file == "data/processed/csv/image_data.csv"


@pytest.mark.parametrize(("name", "old", "new", "kinds"), [
    ("csv/crops.csv", "1264", "wide", {"crop-stale"}),                      # a record edited by hand
    ("csv/train.csv", "\n0000", "\nmore,0000", {"processed-broken"}),
    ("csv/image_data.csv", "0000-0001L_1000.jpg", "a\0b.jpg", {"crop-missing", "crop-stale", "crop-unused"}),
])
def test_processed_tables_edited_by_hand_are_no_traceback(processed, name, old, new, kinds):
    text = (processed.processed / name).read_text(encoding="utf-8")
    assert old in text
    (processed.processed / name).write_text(text.replace(old, new), encoding="utf-8")
    assert kinds & {each.kind for each in check_data(processed)}


# ---- What is reported

def test_the_csv_the_terminal_and_the_picture(clean, capsys, drawn):
    edit(clean.source / CASE, "DME", "XYZ")
    edit(clean.source / ANNOTATION, ",300,", ",6109,")
    (clean.source / FIRST).write_bytes(b"no image")
    found = check_data(clean)
    table = pd.read_csv(clean.processed / "check.csv", dtype=str, keep_default_na=False)
    assert table.columns.tolist() == list(Finding._fields)
    assert table.to_numpy().tolist() == [["" if cell is None else str(cell) for cell in each] for each in found]
    said = capsys.readouterr().out
    assert re.search(r"^stops +1 +category-unknown +option 0 .*\[train_anno_case.csv, row 2, diagnosis: 'XYZ'\]$",
                     said, re.MULTILINE)
    assert "1 of the findings stop the pipeline; 3 findings in all" in said
    assert "check.csv" in said and "check.png" in said
    picture = read_image(clean.processed / "check.png")
    assert picture.shape[1] == 1500 and picture.std() > 20


def test_many_suspicious_images_fill_the_contact_sheet_and_no_more(clean, drawn):
    for number in range(20):        # ten without a retina, ten of odd size
        name = f"preliminary/Train_set/0000-0001L_1{number:03d}.png"
        write_screen(clean.source / name, np.zeros((596, 1264 if number < 10 else 1300), np.uint8))
    check_data(clean)
    assert read_image(clean.processed / "check.png").shape[0] == 1605       # 9 + 3 x 2.35 inches of 100 dots


def test_without_any_data_it_says_what_to_put_where(paths):
    with pytest.raises(PipelineError, match="preliminary/Train_set"):
        check_data(paths)


def test_tables_alone_are_checked(clean):
    for name in IMAGES:
        (clean.source / name).unlink()
    edit(clean.source / CASE, "DME", "XYZ")
    assert {each.kind for each in check_data(clean)} >= {"no-images", "category-unknown"}


# ---- The demonstration and the real tables

def test_the_demonstration_is_sound(demo_copy):
    found = check_data(demo_copy)
    assert [each for each in found if each.severity == "stops"] == []
    assert len([each for each in found if each.severity == "warns"]) <= 5


@pytest.fixture(scope="module")
def real_findings(real, real_tree, tmp_path_factory):
    """The real tables and templates with one image of each eye and visit (final round: all), all but one empty."""
    from config import Paths

    paths, seen = Paths(tmp_path_factory.mktemp("real")), set()
    for name in real_tree:
        visit = re.match(r"(.*[LR]_\d)", name.name, re.IGNORECASE)
        key = visit[1] if name.parts[0] == "preliminary" else name
        if key not in seen:
            seen.add(key)
            (paths.source / name).parent.mkdir(parents=True, exist_ok=True)
            (paths.source / name).touch()
    shutil.copyfile(real / "images" / "radial_OS_normal.jpg", paths.source / real_tree[0])
    for name in TABLES:
        place = next(folder for folder in (paths.source / name).parent.parent.iterdir()
                     if folder.name.lower() == name.split("/")[1].lower())
        shutil.copyfile(real / "tables" / name.rsplit("/", 1)[-1], place / name.rsplit("/", 1)[-1])
    paths.submit.mkdir(parents=True)
    for file in (real / "tables").glob("submit_*.csv"):
        shutil.copyfile(file, paths.submit / file.name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("processing.check.draw_check", lambda *_: None)
        return check_data(paths)


def test_the_real_tables_stop_nothing_and_have_only_known_kinds(real_findings):
    assert {each.kind for each in real_findings} == {
        "measure-missing", "answer-missing", "cst-implausible", "va-implausible", "continue-odd", "va-nlp",
        "va-float32", "labels-doubled", "labels-contradict", "eye-without-images", "visit-missing", "image-unreadable",
        "cell-blank", "person-in-both",
    }
    assert not any(each.severity == "stops" for each in real_findings)


def test_gaps_of_the_real_tables(real_findings):
    gaps = Counter(each.column for each in real_findings if each.kind in ("measure-missing", "answer-missing"))
    assert gaps == {
        c.PRE_CST: 88, c.CST: 153, "preIRF": 82, "preSRF": 82, "prePED": 82, "preHRF": 83, "IRF": 150, "SRF": 151,
        "PED": 151, "HRF": 150, "continue injection": 8, c.PRE_VA: 7, c.VA: 20,
    }


def test_values_of_the_real_tables(real_findings):
    continues, = only(real_findings, "continue-odd")
    assert (continues.row, continues.value) == (1278, "6")
    acuity, = only(real_findings, "va-implausible")
    assert (acuity.column, acuity.value) == (c.PRE_VA, "-0.1")
    thickness = {column: sorted(int(each.value) for each in only(real_findings, "cst-implausible")
                                if each.column == column) for column in (c.PRE_CST, c.CST)}
    assert thickness[c.PRE_CST][0] == 21 and thickness[c.PRE_CST][3:] == [67, 6109]
    assert thickness[c.CST][0] == 31 and len(thickness[c.CST]) == 13
    assert only(real_findings, "va-nlp")[0].column == c.PRE_VA
    assert sum(each.value == "Male " for each in only(real_findings, "cell-blank")) == 2
    assert sum(each.file.endswith("submit_stage1.csv") for each in only(real_findings, "cell-blank")) == 4 * 361
    assert "0.319999993" in {each.value for each in only(real_findings, "va-float32")}


def test_eyes_and_doubled_rows_of_the_real_tables(real_findings):
    lonely = only(real_findings, "eye-without-images")
    assert len(lonely) == 38 and {each.file.rsplit("/", 1)[-1] for each in lonely} == {"TrainingAnnotation.csv"}
    doubled, contradicting = only(real_findings, "labels-doubled"), only(real_findings, "labels-contradict")
    assert (len(doubled), len(contradicting)) == (2, 9)
    assert {each.value for each in doubled + contradicting} == {
        f"513L, Pre injection, 334_0010{number:02d}" for number in range(9, 20)
    }
    assert all("in row" in each.why and "SRF" in each.column for each in contradicting)


def test_visits_without_a_scan_near_the_fovea_are_named(demo_copy):
    kinds = {"lines-unknown", "counter-differs", "visit-off-fovea", "visit-place-unknown"}
    assert not kinds & {each.kind for each in check_data(demo_copy)}
    table = pd.read_csv(demo_copy.geometry_table)
    eye = table[c.SOURCE].str.contains("9501L/Pre")
    table.loc[eye, "distance_um"] = 900.0
    after = table[c.SOURCE].str.contains("9501L/Post")
    table.loc[after, "pattern"] = "unknown"
    other = table[c.SOURCE].str.contains("9501R").to_numpy().argmax()
    table.loc[other, ["line", "lines", "counter"]] = 3, 6, "differs"
    table.to_csv(demo_copy.geometry_table, index=False)
    found = check_data(demo_copy)
    off, = only(found, "visit-off-fovea")
    assert off.file == table[c.SOURCE][eye].iloc[0] and off.value == "900 um" and off.severity == "warns"
    assert {each.file for each in only(found, "lines-unknown")} == set(table[c.SOURCE][after])
    assert "visit-place-unknown" not in {each.kind for each in found}
    told, = only(found, "counter-differs")
    assert (told.file, told.value) == (table[c.SOURCE][other], "3 of 6 by the green lines") and told.severity == "notes"


def test_places_that_another_version_read_are_read_anew_before_anything_uses_them(demo_copy):
    table = pd.read_csv(demo_copy.geometry_table)
    table.drop(columns=["line", "lines", "counter"]).to_csv(demo_copy.geometry_table, index=False)
    told, = (one for one in check_data(demo_copy) if one.kind.startswith(("lines", "visit", "counter")))
    assert told.kind == "lines-unread" and told.file == demo_copy.relative(demo_copy.geometry_table)
    with pytest.raises(PipelineError, match=r"geometry.csv is of another version .* Option 0"):
        GeometryRecord(demo_copy.geometry_table).table(table[c.SOURCE])
    processing_data(demo_copy)
    pd.testing.assert_frame_equal(pd.read_csv(demo_copy.geometry_table), table)


def test_a_visit_one_of_whose_scans_lies_anywhere_may_have_been_near(tmp_path):
    paths, files = Paths(tmp_path), ["a.jpg", "b.jpg", "c.jpg"]
    images = pd.DataFrame({c.SOURCE: files, c.PATIENT: "1L", c.AFTER: 0, c.DATA_TYPE: "train"})
    table = pd.DataFrame({c.SOURCE: files, "pattern": "volume", "distance_um": [900.0, -800.0, None]})
    paths.geometry_table.parent.mkdir(parents=True)
    table.reindex(columns=GEOMETRY_COLUMNS).to_csv(paths.geometry_table, index=False)
    assert [one.kind for one in check_geometry(paths, images)] == ["visit-place-unknown"]
    assert [(one.kind, one.value) for one in check_geometry(paths, images.head(2))] == [("visit-off-fovea", "800 um")]
