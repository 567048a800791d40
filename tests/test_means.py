"""Means of a training's eyes, and what they stand in for."""

import numpy as np
import pandas as pd
import pytest

from model.means import fill_rounds, find_means, fit_case_means
from processing import columns as c
from processing.errors import PipelineError

CASES = pd.DataFrame({c.FINAL: [0, 1, 1], c.AGE: [50.0, 60, 80], c.PRE_VA: [0.3, 0.5, 0.7], c.VA: [0.2, 0.4, 0.8]},
                     index=["1L", "2L", "3L"])


def test_means_are_those_of_each_round():
    means = fit_case_means(CASES.assign(name="text"))
    assert list(means) == [c.ROUND_NAMES[0], c.ROUND_NAMES[1]]
    assert means[c.ROUND_NAMES[1]] == pytest.approx({c.FINAL: 1, c.AGE: 70, c.PRE_VA: 0.6, c.VA: 0.6})


def test_a_round_without_eyes_takes_the_others_with_acuity_in_its_own_unit():
    means = fit_case_means(CASES[CASES[c.FINAL] == 1])
    logmar = find_means(means, 0)
    assert logmar[c.AGE] == 70
    assert logmar[c.VA] == pytest.approx(-np.log10(0.6))
    assert find_means(means, 1)[c.VA] == pytest.approx(0.6)
    with pytest.raises(PipelineError, match="does not carry the means"):
        find_means({}, 0)


def test_each_gap_takes_the_mean_of_its_round_and_rows_stay_in_order_whatever_their_names():
    holes = pd.DataFrame({c.FINAL: [1, 0, 1, 1], c.AGE: [np.nan, np.nan, 33, np.nan]}, index=["x", "y", "x", "z"])
    filled = fill_rounds(holes, fit_case_means(CASES))
    assert filled[c.AGE].tolist() == [70, 50, 33, 70]
    assert filled.index.tolist() == ["x", "y", "x", "z"]
    assert holes[c.AGE].isna().sum() == 3


def test_means_are_wanted_only_where_something_is_missing():
    assert fill_rounds(CASES, {}).equals(CASES)
    with pytest.raises(PipelineError, match="option 2"):
        fill_rounds(CASES.assign(**{c.AGE: np.nan}), {})
