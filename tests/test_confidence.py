"""How sure answers are: what is told beside a submission, and how it compares with the truth."""

import numpy as np
import pandas as pd
import pytest

from config import Paths
from data.confidence import (
    FAR,
    NO_IMAGES,
    NOT_MEASURED,
    POOR,
    UNKNOWN_PLACE,
    describe_confidence,
    describe_coverage,
    find_remarks,
    pair_sure,
    score_coverage,
    trace_chances,
)
from data.folds import Data, Predictions
from processing import columns as c
from processing.crop_record import GEOMETRY_COLUMNS
from processing.files import write_csv

# patient, after -> (distance from the middle, um; share of the columns that were read) of each scan
VISITS = {
    ("1L", 0): [(0.0, 0.9), (900.0, 0.95)], ("1L", 1): [(900.0, 0.9), (-700.0, 1.0)],
    ("2R", 0): [(None, 0.9), (None, 0.9)], ("2R", 1): [(900.0, 0.2), (None, 0.5)],
    ("3L", 0): [(0.0, None)],
}


@pytest.fixture
def measured(tmp_path):
    """Tables of options 0 and 11, and the images."""
    paths, rows = Paths(tmp_path), []
    for (patient, after), scans in VISITS.items():
        rows += [(patient, after, f"{patient}{after}{number}.jpg", *scan) for number, scan in enumerate(scans)]
    table = pd.DataFrame(rows, columns=[c.PATIENT, c.AFTER, c.SOURCE, "distance_um", "readable_share"])
    paths.measures.parent.mkdir(parents=True)
    write_csv(paths.geometry_table, table.reindex(columns=GEOMETRY_COLUMNS))
    write_csv(paths.measures, table.dropna(subset="readable_share").rename(columns={c.SOURCE: c.FILE}).reindex(
        columns=[c.FILE, "readable_share", "scale", c.PROBLEM, *c.MEASURED_STATE]))
    return paths, table[[c.PATIENT, c.AFTER, c.SOURCE]]


def test_what_makes_a_visit_doubtful_is_said(measured):
    paths, images = measured
    assert find_remarks(images, paths) == {
        ("1L", 0): [], ("1L", 1): [FAR], ("2R", 0): [UNKNOWN_PLACE], ("2R", 1): [UNKNOWN_PLACE, POOR],
        ("3L", 0): [NOT_MEASURED]}


def test_without_tables_everything_is_unknown(measured, tmp_path):
    _, images = measured
    assert {tuple(remarks) for remarks in find_remarks(images, Paths(tmp_path / "empty")).values()} == {
        (UNKNOWN_PLACE, NOT_MEASURED)}


def test_a_table_of_measures_that_cannot_be_read_keeps_no_answer_back(measured, capsys):
    paths, images = measured
    header = paths.measures.read_text().splitlines()[0]
    paths.measures.write_text(header + "\n")
    assert find_remarks(images, paths)["1L", 1] == [FAR, NOT_MEASURED]
    assert "Whose signal is poor is not told." in capsys.readouterr().out


def test_each_answer_of_an_eye_has_a_row(measured):
    paths, images = measured
    eyes = pd.DataFrame({c.PATIENT: ["1L", "3L"], c.FINAL: [0, 1], c.PRE_CST: [300.0, 310], c.CST: [250.0, 260],
                         c.VA: [0.5, 0.6]}).assign(**dict.fromkeys(c.SURE, 0.25))
    table = describe_confidence(eyes, images, paths).set_index([c.PATIENT, "item"])
    assert table["remarks"].to_dict() == {
        ("1L", c.PRE_CST): "", ("1L", c.CST): FAR, ("1L", c.VA): FAR,
        ("3L", c.PRE_CST): NOT_MEASURED, ("3L", c.CST): NO_IMAGES, ("3L", c.VA): f"{NOT_MEASURED}; {NO_IMAGES}"}
    assert table["answer"]["1L", c.PRE_CST] == 300 and table["round"]["3L", c.VA] == "final"
    assert (table[["chance", "low", "high"]] == 0.25).all(axis=None)
    bare = describe_confidence(eyes.drop(columns=c.SURE), images, paths)
    assert bare[["chance", "low", "high"]].isna().all(axis=None)


def make_predictions(count=300, seed=0):
    """Answers that err by 5 %, with intervals that say so; every fifth eye is an untreated fellow eye."""
    rng = np.random.default_rng(seed)
    eyes = pd.DataFrame({c.FINAL: np.arange(count) % 2, c.DIAGNOSIS: np.where(np.arange(count) % 5, 1, c.UNTREATED)},
                        index=pd.Index([f"{number}L" for number in range(count)], name=c.PATIENT))
    answers = pd.DataFrame(index=eyes.index)
    for item in (c.PRE_CST, c.CST):
        eyes[item], off = rng.uniform(200, 600, count), rng.normal(0, 0.05, count)
        answers[item] = eyes[item] * np.exp(off)
        names = c.sure_columns(item)
        answers[names[0]], answers[names[1]], answers[names[2]] = (
            0.866, answers[item] * np.exp(-1.2816 * 0.05), answers[item] * np.exp(1.2816 * 0.05))
    eyes[c.VA] = answers[c.VA] = 0.5
    return Data(pd.DataFrame(), eyes, []), Predictions(answers, pd.DataFrame(), {})


def test_the_width_of_acuity_is_in_its_own_unit_as_it_may_be_0():
    sure = pd.DataFrame({"item": c.VA, "round": ["preliminary"] * 4 + ["final"] * 3, "truth": 0.1, "answer": 0.0,
                         "low": -0.1, "high": [0.1, 0.2, 0.2, 0.3, 0.4, 0.4, 0.4], "chance": 0.5, "hit": True})
    table = score_coverage(sure)
    whole = table[table["part"] == "all"]
    assert whole["width"].tolist() == pytest.approx([0.3, 0.5]) and whole["unit"].tolist() == ["logMAR", "decimal"]
    assert describe_coverage(table).splitlines()[2].endswith(" 0.30 logMAR")


def test_coverage_is_counted_over_treated_eyes_in_all_and_by_thirds():
    sure = pair_sure(*make_predictions())
    assert set(sure["item"]) == {c.PRE_CST, c.CST} and len(sure) == 2 * 240      # VA came without
    table = score_coverage(sure)
    assert table.groupby(["item", "round"])["rows"].first().eq(120).all() and len(table) == 4 * 4
    whole = table[table["part"] == "all"]
    assert whole["covered"].between(0.72, 0.88).all() and whole["hits"].between(0.78, 0.94).all()
    assert np.allclose(table["width"], np.exp(1.2816 * 0.05) - np.exp(-1.2816 * 0.05))
    assert table[table["part"] != "all"]["rows"].eq(40).all()
    assert f"{whole['covered'].iloc[0]:.0%}" in describe_coverage(table).splitlines()[2]
    for _, told, hit in trace_chances(sure):
        assert np.allclose(told, 0.866) and np.average(hit) == pytest.approx(0.866, abs=0.06)


def test_an_interval_that_misses_is_not_counted():
    data, predictions = make_predictions()
    wrong = predictions.eyes.assign(**{c.sure_columns(c.CST)[1]: 5000.0, c.sure_columns(c.CST)[2]: 6000.0})
    table = score_coverage(pair_sure(data, predictions._replace(eyes=wrong)))
    assert (table[table["item"] == c.CST]["covered"] == 0).all()
    assert (table[table["item"] == c.PRE_CST]["covered"] > 0.6).all()


def test_where_no_recipe_tells_there_is_nothing_to_score():
    data, predictions = make_predictions()
    assert pair_sure(data, predictions._replace(eyes=predictions.eyes[[c.PRE_CST, c.CST, c.VA]])).empty
