"""The synthetic data set: layout, tables, what its pictures show, and that a seed decides every byte."""

import itertools
import shutil
import subprocess
import sys
from dataclasses import replace

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from config import VIEWS, Paths
from model_config import ConfigError
from processing import columns as c
from processing.demo import DEFAULT, SMALLEST, DemoSize, choose_lines, share_eyes, write_demo
from processing.demo.cases import invent_cases
from processing.eye.anatomy import grow_eye, plan_visit
from processing.eye.phantom import render_bscan
from processing.eye.section import PIXEL_DOWN_UM, RPE, Scan, cut_section, visible_findings
from processing.images import crop_image
from processing.source import read_image_rows
from tests.helpers import REPOSITORY, read_filled

NOTHING, EVERYTHING = (0, 0, 0, 0), (1, 1, 1, 1)
CENTRE = [Scan(1, 6, 0, 0, 0), Scan(4, 6, 0, 0, 0), Scan(13, 25, 0, 0, 0)]
INSIDE = slice(54, 704)         # the crop box, in columns of the B-scan


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    paths = Paths(tmp_path_factory.mktemp("demo"))
    write_demo(paths, SMALLEST, seed=5)
    return paths


def make_visit(seed, cst_um, findings):
    rng = np.random.default_rng(seed)
    return plan_visit(grow_eye(rng, right=bool(seed % 2)), cst_um, findings, rng=rng)


def read_files(root):
    files = (file for file in root.rglob("*") if file.is_file())
    return {file.relative_to(root).as_posix(): file.read_bytes() for file in files}


# ---- The eye

@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), cst_um=st.integers(180, 700),
       findings=st.tuples(*[st.integers(0, 1)] * 4), scan=st.sampled_from(CENTRE))
def test_thickness_at_the_fovea_is_the_cst_and_layers_never_cross(seed, cst_um, findings, scan):
    visit = make_visit(seed, cst_um, findings)
    section = cut_section(visit, scan, width=769)       # odd: a column lies exactly at the fovea
    thickness_um = section.tops_um[0] - section.ped_um
    assert thickness_um[384] == pytest.approx(cst_um, abs=0.01)
    assert (np.diff(section.tops_um, axis=0) <= 1e-9).all() and (section.tops_um[-1] > 0).all()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), cst_um=st.integers(240, 700), finding=st.integers(0, 3))
@example(seed=258, cst_um=240, finding=0)
def test_scans_through_the_fovea_show_what_the_eye_has_and_nothing_else(seed, cst_um, finding):
    visit = make_visit(seed, cst_um, tuple(int(k == finding) for k in range(4)))
    seen = np.array([visible_findings(cut_section(visit, scan, width=768), columns=INSIDE) for scan in CENTRE])
    assert not np.delete(seen, finding, axis=1).any()
    if finding in (0, 1, 3):            # an RPE detachment may lie beside the lines, few cysts beside some
        assert seen[:, finding].any()


def test_scans_away_from_the_fovea_miss_the_pit():
    visit = make_visit(1, 210, NOTHING)
    thinnest_um = [cut_section(visit, Scan(number, 25, 0, 0, 0), width=768).tops_um[0, 300:468].min()
                   for number in (13, 16, 19)]
    assert thinnest_um[0] < 215 < 300 < thinnest_um[1] < thinnest_um[2] + 60


def test_both_visits_of_an_eye_cut_the_same_cysts():
    rng = np.random.default_rng(3)
    eye = grow_eye(rng, right=True)
    first, second = (plan_visit(eye, 400, (1, 0, 0, 0), rng=rng) for _ in "12")
    first, second = (cut_section(visit, CENTRE[0], width=768) for visit in (first, second))
    np.testing.assert_array_equal(first.cysts, second.cysts)


# ---- The picture

def test_rendered_retina_is_as_thick_as_the_label_says():
    visit = make_visit(2, 300, NOTHING)
    image = render_bscan(visit, CENTRE[0], np.random.default_rng(0))
    profile = image[:, 380:388].mean(axis=1)            # eight columns at the fovea
    rows = np.flatnonzero(profile > 35)                 # brighter than vitreous
    rpe = cut_section(visit, CENTRE[0], width=768).bm_row[384]
    assert (rpe - rows[0]) * PIXEL_DOWN_UM == pytest.approx(300, abs=4 * PIXEL_DOWN_UM)


def test_fluid_is_dark_and_foci_are_bright():
    visit = make_visit(4, 420, (0, 1, 0, 1))
    section = cut_section(visit, CENTRE[0], width=768)
    image = render_bscan(visit, CENTRE[0], np.random.default_rng(0))
    column = section.srf_um.argmax()
    height_um = section.tops_um[RPE, column] + section.srf_um[column] / 2
    row = section.bm_row[column] - height_um / PIXEL_DOWN_UM
    assert image[round(row) - 2:round(row) + 3, column - 2:column + 3].mean() < 30
    columns = section.foci[:, 0].astype(int)
    rows = (section.bm_row[columns] - section.foci[:, 1] / PIXEL_DOWN_UM).astype(int)
    assert np.median(image[rows, columns]) > 130


# ---- Sizes and lines

@pytest.mark.parametrize(
    "change", [{"preliminary_train": 1}, {"final_test": 0}, {"images": 26}, {"images": 2.0}])
def test_sizes_out_of_range_die_with_the_value_in_the_message(change):
    with pytest.raises(ValueError, match=str(*change.values())):
        replace(SMALLEST, **change)


@given(eyes=st.integers(8, 880), images=st.integers(1, 25))
@example(eyes=8, images=1)
def test_eyes_are_shared_over_the_sets_most_of_them_for_training(eyes, images):
    size = share_eyes(eyes, images=images)
    sets = [size.preliminary_train, size.final_train, size.preliminary_test, size.final_test]
    assert sum(sets) == eyes and min(sets) >= 2 and size.images == images
    assert sum(sets[:2]) >= eyes / 2


def test_the_default_number_of_eyes_is_shared_as_in_the_default_size():
    assert share_eyes(54) == DEFAULT


@pytest.mark.parametrize("eyes", [7, 0, 5000])
def test_too_few_or_too_many_eyes_are_refused_with_their_number(eyes):
    with pytest.raises(ConfigError, match=f"^{eyes} eyes cannot be shared over the four sets"):
        share_eyes(eyes)


@given(images=st.integers(1, 25), radial=st.booleans())
def test_lines_are_distinct_and_exist(images, radial):
    lines = choose_lines(images, radial=radial)
    assert len(set(lines)) == len(lines)
    assert len(lines) == (min(images, 6) if radial else images)
    assert min(lines) >= 1
    assert max(lines) <= (6 if radial else 25)


def test_each_set_holds_both_classes():
    for count, seed in itertools.product((2, 3, 5), range(4)):
        cases = invent_cases([f"{9001 + k}L" for k in range(count)], np.random.default_rng(seed),
                             final=True, fellows=False)
        for flags in (*zip(*(case.before.findings for case in cases), strict=True),
                      *zip(*(case.after.findings for case in cases), strict=True),
                      [case.continues for case in cases]):
            assert set(flags) == {0, 1}


# ---- The tree

def test_every_screen_is_found_by_the_pipeline(demo):
    rows, problems = read_image_rows(demo)
    assert problems == []
    sets = pd.DataFrame(rows).groupby([c.FINAL, c.DATA_TYPE])[c.PATIENT].nunique()
    assert sets.to_dict() == {(0, "train"): 4, (0, "test"): 3, (1, "train"): 3, (1, "test"): 2}
    assert len(rows) == 2 * 12
    names = {row[c.SOURCE].rsplit("/", 1)[1] for row in rows}
    assert names.issuperset(["9000-0001L_1000.jpg", "9000-0001R_2_000000.JPG",
                             "9000-0002L_1_000.jpg", "9000-0003R_2.jpg"])


def test_crops_are_grey_and_screens_have_the_devices_size(demo):
    shapes = set()
    for file in demo.source.rglob("*.[jJ][pP][gG]"):
        screen = cv2.imdecode(np.frombuffer(file.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
        shapes.add(screen.shape)
        crop = crop_image(screen, VIEWS["bscan"])
        assert (crop == crop[..., :1]).all(), file
        assert (screen[:496, :496, 1].astype(int) - screen[:496, :496, 2] > 100).any(), "no green lines"
    assert shapes == {(596, 1264, 3), (596, 1008, 3)}


def test_tables_can_be_read_and_match_the_screens(demo):
    annotation = read_filled(
        demo.source / "preliminary/Train_set/TrainingAnnotation.csv", "annotation")
    assert set(annotation[c.DIAGNOSIS]) >= {6} and annotation[c.CST].between(180, 700).all()
    case = read_filled(demo.source / "final/Train_Set/train_anno_case.csv", "case")
    pic = read_filled(demo.source / "final/Train_Set/train_anno_pic.csv", "pic")
    assert set(case[c.PATIENT]) == set(pic[c.PATIENT])
    rows = pd.DataFrame(read_image_rows(demo)[0])
    keys = [c.PATIENT, c.INJECTION, c.IMAGE]
    train = rows[(rows[c.FINAL] == 1) & (rows[c.DATA_TYPE] == "train")]
    assert sorted(map(tuple, train[keys].to_numpy())) == sorted(map(tuple, pic[keys].to_numpy()))


@pytest.mark.parametrize("name", ["stage1", "stage2_case", "stage2_pic"])
def test_truth_has_the_templates_form(demo, name):
    template = pd.read_csv(demo.submit / f"submit_{name}.csv")
    truth = pd.read_csv(demo.truth / f"submit_{name}.csv")
    assert list(template.columns) == list(truth.columns) and len(template) == len(truth)
    assert (template[c.PATIENT] == truth[c.PATIENT]).all()
    labels = template.select_dtypes("number").columns.difference([c.IMAGE_NUMBER])
    assert (template[labels] == 0).all(axis=None) and truth[labels].to_numpy().any()


def test_templates_carry_the_blanks_of_the_real_ones(demo):
    assert "0.00 " in (demo.submit / "submit_stage1.csv").read_text().splitlines()[1].split(",")


def test_same_seed_same_bytes_and_other_seed_other_eyes(demo, tmp_path):
    size = DemoSize(2, 2, 2, 2, images=1)
    for name, seed in (("first", 7), ("again", 7), ("other", 8)):
        write_demo(Paths(tmp_path / name), size, seed=seed)
    first, again, other = (read_files(tmp_path / name) for name in ("first", "again", "other"))
    assert first == again
    assert set(first) == set(other) and first != other


WRITE_AND_READ_WITH_AND_WITHOUT = """
import shutil
from config import Paths
from processing.data_factory import processing_data
from processing.demo import SMALLEST, write_demo
write_demo(Paths("demo"), SMALLEST, seed=5)
processing_data(Paths("demo"))
shutil.copytree("demo", "without")
shutil.copytree("given", "without/data/source", dirs_exist_ok=True)
processing_data(Paths("without"))
"""


def test_a_fifth_finding_is_left_open_in_the_tables_and_changes_nothing_else(demo, tmp_path):
    """In a copy of the program: the demonstration writes `nan`; tables that lack the column are read too."""
    for name in ("config.py", "model_config.py"):
        shutil.copy(REPOSITORY / name, tmp_path)
    shutil.copytree(REPOSITORY / "processing", tmp_path / "processing")
    columns, four = tmp_path / "processing" / "columns.py", 'FINDINGS = ["IRF", "SRF", "PED", "HRF"]'
    text = columns.read_text(encoding="utf-8")
    assert text.count(four) == 1
    columns.write_text(text.replace(four, four.replace("]", ', "CNV"]')), encoding="utf-8")
    labels = ["preliminary/Train_set/TrainingAnnotation.csv", "final/Train_Set/train_anno_pic.csv"]
    for name in labels:
        (tmp_path / "given" / name).parent.mkdir(parents=True)
        shutil.copy(demo.source / name, tmp_path / "given" / name)
    subprocess.run([sys.executable, "-c", WRITE_AND_READ_WITH_AND_WITHOUT], cwd=tmp_path, check=True,
                   capture_output=True)
    before, after = read_files(demo.root), read_files(tmp_path / "demo")
    assert {name for name in before if after[name] != before[name]} == {f"data/source/{name}" for name in labels}
    annotation = pd.read_csv(tmp_path / "demo/data/source" / labels[0], dtype=str, keep_default_na=False)
    assert set(annotation["CNV"]) == set(annotation["preCNV"]) == {"nan"}
    for root in (Paths(tmp_path / "demo"), Paths(tmp_path / "without")):
        train, eyes = pd.read_csv(root.train_table), pd.read_csv(root.eye_table)
        assert (train["CNV"] == 0).all() and train["IRF"].any()
        assert eyes[["CNV", "preCNV"]].isna().all(axis=None)


def test_findings_seen_in_everything():
    section = cut_section(make_visit(6, 500, EVERYTHING), CENTRE[0], width=768)
    assert len(section.cysts) > 2 and len(section.foci) > 3 and section.srf_um.max() > 25
