import numpy as np
import pandas as pd

from processing import columns as c
from processing.visits import AFTER_TREATMENT, BEFORE_TREATMENT, join_visits, number_visits, visit_means


def images(rows):
    return pd.DataFrame(rows, columns=[c.PATIENT, c.AFTER, c.AGE, c.CST, *c.FINDINGS])


ROWS = images([
    ("2L", 1, 60, 300.0, 1, 0, 0, 0),
    ("1R", 0, 70, 400.0, 0, 1, 0, 0),
    ("2L", 0, 60, 500.0, 0, 0, 1, 0),
    ("2L", 1, 60, 200.0, 0, 0, 0, 0),
])


def test_visits_are_numbered_as_they_appear_whatever_the_index():
    numbers = number_visits(ROWS.set_axis([7, 7, 1, 0]))
    assert numbers.dtype == np.int64 and numbers.tolist() == [0, 1, 2, 0]
    assert number_visits(ROWS.head(0)).tolist() == []


def test_a_visit_is_the_mean_of_its_images():
    means = visit_means(ROWS, [c.CST, "IRF"])
    assert means.loc[("2L", 1)].tolist() == [250, 0.5]
    assert means.index.tolist() == [("1R", 0), ("2L", 0), ("2L", 1)]


def test_an_eye_is_a_row_of_its_two_visits():
    eyes = join_visits(ROWS, eye=[c.AGE], before=BEFORE_TREATMENT, after=AFTER_TREATMENT)
    assert list(eyes) == [c.AGE, c.PRE_CST, *c.PRE_FINDINGS, c.CST, *c.FINDINGS]
    assert eyes.loc["2L"].tolist() == [60, 500, 0, 0, 1, 0, 250, 0.5, 0, 0, 0]
    assert eyes.loc["1R", c.PRE_CST] == 400 and eyes.loc["1R", [c.CST, *c.FINDINGS]].isna().all()
    both = join_visits(ROWS, eye=[], before=BEFORE_TREATMENT, after=AFTER_TREATMENT, how="inner")
    assert both.index.tolist() == ["2L"]
