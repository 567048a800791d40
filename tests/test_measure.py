"""Option 11: the data set's scans, once each; anybody's scans, with pictures; lines that make a map."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from config import Paths
from data import measure, measuring
from data import measure_files as named
from data.measure import measure_all
from data.measure_files import measure_files
from data.measuring import COLUMNS
from model.lessons import TEST
from processing import columns as c
from processing.check import check_data
from processing.errors import PipelineError
from processing.eye.lesson import draw_lesson
from processing.images import read_image
from tests.helpers import run_main


def draw_clear(seed, columns=512):
    """A scan that is easy to read."""
    for k in range(100):
        lesson = draw_lesson([TEST, 51, seed, k], columns=columns)
        if lesson.is_readable.all() and lesson.image.std() > 30:
            return lesson
    raise AssertionError("no such scan")


@pytest.fixture(scope="module")
def clear():
    return [draw_clear(seed) for seed in range(3)]


@pytest.fixture(scope="module")
def measured_root(demo_root, tmp_path_factory):
    root = tmp_path_factory.mktemp("measured") / "root"
    shutil.copytree(demo_root.root, root)
    measure_all(Paths(root))
    return root


@pytest.fixture
def measured(measured_root, tmp_path):
    """A demonstration of one's own whose scans are measured."""
    shutil.copytree(measured_root, tmp_path / "measured demo")
    return Paths(tmp_path / "measured demo")


@pytest.fixture
def folder(tmp_path, clear):
    """A folder with three bare scans, a black picture and a damaged file."""
    place = tmp_path / "my scans"
    (place / "more").mkdir(parents=True)
    for number, lesson in enumerate(clear):
        cv2.imwrite(str(place / f"{number}.png"), lesson.image)
    cv2.imwrite(str(place / "more" / "black.png"), np.zeros((496, 512), np.uint8))
    (place / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    (place / "notes.txt").write_text("right eye")
    return place


def interrupt_at(patch, number):
    """Ctrl-C while that scan is measured."""
    measure_scan, done = measuring.measure_scan, []

    def stop(scan, reading):
        done.append(scan)
        if len(done) == number:
            raise KeyboardInterrupt
        return measure_scan(scan, reading)

    patch.setattr(measuring, "measure_scan", stop)


# ---- The data set

def test_every_image_is_measured_once(demo_copy, capsys):
    table = pd.read_csv(measure_all(demo_copy))
    images = pd.read_csv(demo_copy.image_table)
    assert table["file"].tolist() == images[c.SOURCE].tolist() and list(table) == [*COLUMNS, *c.MEASURED_STATE]
    assert table["thickness_middle_um"].between(100, 1000).all() and (table["scale"] == "scale bars").all()
    assert table["readable_share"].min() > 0.9 and table[c.PROBLEM].isna().all()
    assert demo_copy.measures_picture.stat().st_size > 100_000
    assert "24 images are measured, 24 of them now" in capsys.readouterr().out
    before = demo_copy.measures.read_bytes()
    measure_all(demo_copy)
    assert demo_copy.measures.read_bytes() == before
    assert "24 images are measured, 0 of them now" in capsys.readouterr().out


def test_the_demonstrations_measures_are_those_of_its_eyes(measured):
    """At its thinnest point, from the ILM to the RPE, the retina is as thick as the eye was drawn."""
    table = pd.read_csv(measured.measures).set_index("file")
    images = pd.read_csv(measured.train_table)
    after = images[images[c.AFTER] == 1].set_index(c.SOURCE)
    off = table.loc[after.index, "thickness_to_rpe_fovea_um"] / after[c.CST] - 1
    assert len(off) >= 6 and off.abs().max() < 0.08
    detached = table.loc[after.index, "ped_area_mm2"] > 0.01
    assert detached.any() and (table["thickness_fovea_um"] >= table["thickness_to_rpe_fovea_um"]).all()


def test_only_what_is_new_or_changed_is_measured(measured, capsys):
    files = pd.read_csv(measured.measures)["file"]
    changed, gone = measured.root / files[3], measured.root / files[5]
    shutil.copyfile(measured.root / files[0], changed)
    gone.unlink()
    asked = []
    read = measure.read_bscan
    own_read = pytest.MonkeyPatch()
    own_read.setattr(measure, "read_bscan", lambda path, **how: asked.append(path) or read(path, **how))
    try:
        measured.measures_picture.unlink()
        measure_all(measured)
    finally:
        own_read.undo()
    assert set(asked[:2]) == {changed, gone}
    table = pd.read_csv(measured.measures).set_index("file")
    same = table.loc[files[0], "thickness_middle_um"]       # but for what a batch's size does to the last digits
    assert table.loc[files[3], "thickness_middle_um"] == pytest.approx(same, abs=0.01)
    assert "cannot be read: No such file" in table.loc[files[5], c.PROBLEM]
    assert np.isnan(table.loc[files[5], "thickness_middle_um"])
    out = capsys.readouterr().out
    assert "2 of them now" in out and "1 of 24 scans are not measured" in out and files[5] in out


def test_an_interrupted_measuring_goes_on(demo_copy, monkeypatch, capsys):
    with monkeypatch.context() as patched:
        interrupt_at(patched, 10)
        with pytest.raises(KeyboardInterrupt) as stop:
            measure_all(demo_copy)
    assert stop.value.__notes__ == ["9 of 24 images are measured; option 11 goes on with the others."]
    assert len(pd.read_csv(demo_copy.measures)) == 9
    measure_all(demo_copy)
    assert "24 images are measured, 15 of them now" in capsys.readouterr().out


def test_what_ends_before_the_first_scan_leaves_no_empty_table(demo_copy, monkeypatch):
    with monkeypatch.context() as patched:
        interrupt_at(patched, 1)
        with pytest.raises(KeyboardInterrupt):
            measure_all(demo_copy)
    assert not demo_copy.measures.exists()


def test_a_table_that_a_spreadsheet_saved_or_damaged_is_no_harm(measured, capsys):
    table = pd.read_csv(measured.measures)
    table.to_csv(measured.measures, sep=";", index=False, encoding="utf-8-sig")
    measure_all(measured)
    assert "24 images are measured, 0 of them now" in capsys.readouterr().out
    measured.measures.write_text("file,problem\n")
    measure_all(measured)
    out = capsys.readouterr().out
    assert "All scans are measured anew" in out and "24 of them now" in out


def test_other_weights_measure_anew(measured, monkeypatch, capsys):
    load = measure.load_network
    monkeypatch.setattr(measure, "load_network", lambda *arguments: (load(*arguments)[0], "other"))
    measure_all(measured)
    assert "24 of them now" in capsys.readouterr().out


def test_without_processed_data_it_says_what_to_do(paths):
    with pytest.raises(PipelineError, match=r"image_data.csv is not there. Option 0 \(processing_data\) makes it"):
        measure_all(paths)


def test_the_check_names_scans_whose_retina_was_not_found_or_is_cut_off(measured):
    table = pd.read_csv(measured.measures, dtype={c.PROBLEM: object})
    table.loc[1, c.PROBLEM], table.loc[2, c.PROBLEM] = c.NO_RETINA, c.CUT_OFF
    table.to_csv(measured.measures, index=False)
    found = {(each.kind, each.file) for each in check_data(measured) if each.kind.startswith("retina")}
    assert found == {("retina-missing", table["file"][1]), ("retina-cut", table["file"][2])}
    (measured.root / table["file"][1]).write_bytes((measured.root / table["file"][0]).read_bytes())    # since then
    assert "retina-missing" not in {each.kind for each in check_data(measured)}
    measured.measures.write_text("what?\n1\n")
    assert [each.kind for each in check_data(measured) if "measures" in each.file] == ["measures-broken"]


# ---- Files that are named

def test_a_folder_of_scans_becomes_a_table_and_pictures(folder, clear, capsys):
    made = measure_files([str(folder)])
    assert made == folder / "measured"
    table = pd.read_csv(made / "measures.csv")
    assert list(table) == COLUMNS
    by_name = table.set_index(table["file"].map(lambda file: file.rsplit("/", 1)[-1]))
    assert set(by_name.index) == {"0.png", "1.png", "2.png", "black.png", "broken.jpg"}
    assert by_name.loc["black.png", c.PROBLEM] == "no retina found"
    assert "damaged" in by_name.loc["broken.jpg", c.PROBLEM]
    assert by_name.loc[["black.png", "broken.jpg"], "thickness_middle_um"].isna().all()
    for number, lesson in enumerate(clear):
        truth = (lesson.bm_row - lesson.ilm_row)[254:258].mean() * 3.87     # the scale that is assumed
        assert by_name.loc[f"{number}.png", "thickness_middle_um"] == pytest.approx(truth, rel=0.06)
        assert read_image(made / f"{number}-measured.png").shape[0] > 500
    out = capsys.readouterr().out
    assert "middle µm" in out and "black.png" in out and "no retina found" in out
    assert "what is not given of their scale is assumed to be that of the Spectralis" in out and str(made) in out
    measure_files([str(folder)], out=str(folder))       # what it wrote itself is no scan, wherever it lies
    assert len(pd.read_csv(folder / "measures.csv")) == 5


def test_a_file_that_cannot_be_read_is_an_error_where_there_is_no_other(folder):
    broken = next(folder.rglob("broken.jpg"))
    with pytest.raises(PipelineError, match=r"None of the files can be read as a B-scan; .*measures.csv says why"):
        measure_files([str(broken)], out=str(folder / "out"))
    assert "damaged" in pd.read_csv(folder / "out" / "measures.csv")[c.PROBLEM].item()


def test_the_scale_that_is_given_counts(folder):
    one = pd.read_csv(measure_files([str(folder / "0.png")]) / "measures.csv").iloc[0]
    other = pd.read_csv(measure_files([str(folder / "0.png")], um_down=3.0, um_across=10.0) / "measures.csv").iloc[0]
    assert other["um_down"] == 3 and other["um_across"] == 10 and other["scale"] == "given"
    assert other["thickness_middle_um"] == pytest.approx(one["thickness_middle_um"] * 3 / 3.87, rel=0.03)


def test_a_screens_bars_count_more_than_what_is_given_and_that_is_said(folder, measured, capsys):
    screen = next(file for file in sorted(measured.source.rglob("*.jpg")))
    table = pd.read_csv(measure_files([str(screen), str(folder / "0.png")], out=str(folder / "o"), um_down=5.0)
                        / "measures.csv")
    assert table["um_down"].tolist() == [3.87, 5] and table["scale"].tolist() == ["scale bars", "given in part"]
    assert "1 of 2 scans have scale bars that say another scale than was given; the bars count." in \
        capsys.readouterr().out


def test_files_of_one_name_get_pictures_of_their_own(folder):
    shutil.copyfile(folder / "0.png", folder / "more" / "0.png")
    made = measure_files([str(folder / "0.png"), str(folder / "more")], out=str(folder / "out"))
    assert made == folder / "out"
    assert {file.name for file in made.iterdir()} == {"0-measured.png", "0-2-measured.png", "black-measured.png",
                                                      "measures.csv"}


def test_scans_are_never_replaced_by_pictures_of_them(folder):
    shutil.copyfile(folder / "0.png", folder / "0-measured.png")        # named, it is a scan like any other
    before = {file: file.read_bytes() for file in folder.glob("*.png")}
    measure_files([str(folder / "0.png"), str(folder / "0-measured.png")], out=str(folder))
    assert {file: file.read_bytes() for file in before} == before
    assert {file.name for file in folder.glob("*-measured.png")} == {
        "0-measured.png", "0-2-measured.png", "0-measured-measured.png"}


def test_where_no_retina_is_found_no_membrane_and_no_number_is_drawn(folder, monkeypatch):
    drawn = {}
    monkeypatch.setattr("processing.overlays.draw_scan", lambda path, title, painted, curve, um: drawn.update(
        {path.name: (painted, curve)}))
    for room in (measuring, named):
        monkeypatch.setattr(room, "explain", lambda measures: c.NO_RETINA)
    measure_files([str(folder / "0.png")])
    painted, curve = drawn["0-measured.png"]
    assert np.isnan(curve).all() and np.array_equal(painted, read_image(folder / "0.png"))


def test_a_folder_that_cannot_be_written_to_is_said_before_the_work(folder, monkeypatch):
    monkeypatch.setattr(named, "measure_each", lambda *_: pytest.fail("measured"))
    with pytest.raises(PipelineError, match="notes.txt cannot be written to: .*Name another folder with --out"):
        measure_files([str(folder)], out=str(folder / "notes.txt"))


def test_what_was_measured_of_named_files_outlives_an_interruption(folder, monkeypatch, capsys):
    monkeypatch.setattr(named, "draw_picture", lambda *_: None)
    interrupt_at(monkeypatch, 3)
    with pytest.raises(KeyboardInterrupt) as stop:
        measure_files([str(folder)])
    assert stop.value.__notes__ == [f"2 of 5 scans are measured: {folder / 'measured'}"]
    assert [Path(file).name for file in pd.read_csv(folder / "measured" / "measures.csv")["file"]] == ["0.png", "1.png"]
    assert "0.png" in capsys.readouterr().out


def test_a_table_that_is_open_elsewhere_does_not_end_the_measuring(demo_copy, monkeypatch, capsys):
    """It is tried again, in the end in earnest."""
    monkeypatch.setattr(measure.Pace, "is_due", lambda self: True)
    monkeypatch.setattr(measure, "SAVE_EACH", 5)
    write, refused = measure.write_csv, []

    def refuse_twice(path, table):
        if path == demo_copy.measures and len(refused) < 2:
            refused.append(path)
            raise PipelineError(f"{path} could not be written.")
        write(path, table)

    monkeypatch.setattr(measure, "write_csv", refuse_twice)
    assert len(pd.read_csv(measure_all(demo_copy))) == 24
    assert capsys.readouterr().out.count("measures.csv could not be written. The measuring goes on") == 2


def test_where_the_table_stays_open_elsewhere_nothing_that_was_measured_is_lost(demo_copy, monkeypatch, capsys):
    write = measure.write_csv

    def refuse(path, table):
        if path == demo_copy.measures:
            raise PipelineError(f"{path} could not be written.")
        write(path, table)

    with monkeypatch.context() as patched:
        patched.setattr(measure, "write_csv", refuse)
        with pytest.raises(PipelineError, match="kept in .*measures-unsaved.csv. Close what .* run option 11 again"):
            measure_all(demo_copy)
    unsaved = demo_copy.measures.with_stem("measures-unsaved")
    assert len(pd.read_csv(unsaved)) == 24 and not demo_copy.measures.exists()
    capsys.readouterr()
    measure_all(demo_copy)
    assert "24 images are measured, 0 of them now" in capsys.readouterr().out and not unsaved.exists()


def test_the_table_of_named_files_has_another_name_where_it_is_open_elsewhere(folder, monkeypatch, capsys):
    write = named.write_csv

    def refuse(path, table):
        if path.name == "measures.csv":
            raise PipelineError(f"{path} could not be written.")
        write(path, table)

    monkeypatch.setattr(named, "draw_picture", lambda *_: None)
    monkeypatch.setattr(named, "write_csv", refuse)
    other, = measure_files([str(folder)]).glob("measures-*.csv")
    assert len(pd.read_csv(other)) == 5 and f"The table is {other} instead" in capsys.readouterr().out


@pytest.mark.parametrize(("named", "message"), [
    (["nowhere"], "nowhere is not there; name scans"), (["{}/none"], "No JPEG or PNG in .*none. Name scans"),
])
def test_what_is_no_scan_is_said(tmp_path, named, message):
    (tmp_path / "none").mkdir()
    with pytest.raises(PipelineError, match=message):
        measure_files([name.format(tmp_path) for name in named])


def test_the_network_can_be_a_users_own_and_must_be_one_for_scans(folder, trained_root):
    run = next((trained_root.ckpt / "Model-CSV").iterdir())
    with pytest.raises(PipelineError, match="answers for eyes; a model for scans is needed"):
        measure_files([str(folder)], run=str(run))
    with pytest.raises(PipelineError, match="is not there: name a run folder"):
        measure_files([str(folder)], run="none")


def test_lines_make_a_map_and_the_nine_fields(tmp_path, clear, capsys):
    """The same scan on each of nine lines: a field's mean is the mean of its columns."""
    lesson = clear[0]
    lines = []
    for number in range(9):
        cv2.imwrite(str(tmp_path / f"{number}.png"), lesson.image)
        height = 0.8 * number - 3.2
        lines.append({"bscan": f"{number}.png", "start_mm": [-3.5, height], "end_mm": [3.5, height]})
    cv2.imwrite(str(tmp_path / "fundus.png"), np.full((700, 700, 3), 90, np.uint8))
    file = tmp_path / "lines.json"
    file.write_text(json.dumps({"eye": "left", "centre_px": [0, 0], "fundus_um_per_pixel": 10.0, "lines": lines,
                                "um_per_pixel_down": 3.87, "um_per_pixel_across": 13.7}))
    made = measure_files([], lines=str(file))
    fields = pd.read_csv(made / "etdrs.csv").set_index("field")["thickness_um"]
    assert fields.index.tolist() == ["C0", "S1", "N1", "I1", "T1", "S2", "N2", "I2", "T2"]
    thickness = (lesson.bm_row - lesson.ilm_row) * 3.87
    x = np.linspace(-3.5, 3.5, 512)
    assert fields["C0"] == pytest.approx(np.average(thickness, weights=np.sqrt(np.maximum(0.25 - x**2, 0))), rel=0.05)
    assert fields["S1"] == pytest.approx(fields["I1"], rel=0.03)
    assert (made / "etdrs.png").stat().st_size > 20_000
    assert "ETDRS fields (µm): C0" in capsys.readouterr().out
    measure_files([str(tmp_path / "3.png")], lines=str(file), out=str(tmp_path / "other"))     # the others belong to it
    again = pd.read_csv(tmp_path / "other" / "etdrs.csv").set_index("field")["thickness_um"]
    assert np.allclose(again, fields) and len(pd.read_csv(tmp_path / "other" / "measures.csv")) == 9
    far = json.loads(file.read_text()) | {"centre_px": [4000, 4000]}
    (tmp_path / "far.json").write_text(json.dumps(far))
    with pytest.raises(PipelineError, match=r"Within 3 mm of the centre \(40, 40 mm\) too little was read"):
        measure_files([], lines=str(tmp_path / "far.json"))
    (tmp_path / "4.png").unlink()
    measure_files([], lines=str(file))
    assert "1 of 9 lines have no scan that could be read (4.png)" in capsys.readouterr().out
    (tmp_path / "fundus.png").write_bytes(b"damaged")
    measure_files([], lines=str(file))
    assert "fundus.png: cannot be decoded: damaged, or neither JPEG nor PNG" in capsys.readouterr().out


def test_lines_take_their_own_scans_and_no_others_of_their_names(tmp_path):
    """Two folders with files of the same names: the map is of those beside the JSON file, or of none."""
    own_um, other_um = np.full(100, 300.0), np.full(100, 500.0)
    beside, other, third = tmp_path / "a" / "1.png", tmp_path / "b" / "1.png", tmp_path / "c" / "1.png"
    curves = {beside.resolve(): own_um, other.resolve(): other_um}
    assert named._find_line(beside, curves) is own_um
    assert np.isnan(named._find_line(third, curves)).all()
    assert named._find_line(third, {other.resolve(): other_um}) is other_um      # scans may lie elsewhere


def test_a_scan_without_a_retina_is_no_part_of_the_map(tmp_path, clear):
    lines = []
    for number in range(4):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.zeros((496, 512), np.uint8))
        lines.append({"bscan": f"{number}.png", "start_mm": [-3.5, number - 1.5], "end_mm": [3.5, number - 1.5]})
    file = tmp_path / "lines.json"
    file.write_text(json.dumps({"eye": "left", "centre_mm": [0, 0], "lines": lines}))
    with pytest.raises(PipelineError, match="No line has a scan that could be read"):
        measure_files([], lines=str(file))
    assert not (tmp_path / "measured" / "etdrs.csv").exists()


# ---- The command line

def test_flags_for_files_want_files(tmp_path):
    answer = run_main("measure", "--um-down", "3", root=tmp_path)
    assert answer.returncode == 2 and "--um-down belongs to files" in answer.stderr
    answer = run_main("measure", "x.jpg", "--um-down", "-3", root=tmp_path)
    assert answer.returncode == 2 and "'-3' is no number of um above 0" in answer.stderr


def test_a_user_measures_a_scan(folder):
    answer = run_main("measure", str(folder / "0.png"), root=Paths(folder.parent).root)
    assert answer.returncode == 0, answer.stderr
    assert "Measures and pictures" in answer.stdout and (folder / "measured" / "0-measured.png").is_file()
