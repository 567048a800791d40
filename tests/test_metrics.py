import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from model.metrics import (
    FINAL_ITEMS,
    acuity_score,
    auc_score,
    class_score,
    hits_acuity,
    hits_class,
    hits_near,
    hits_thickness,
    near_score,
    preliminary_score,
    thickness_score,
    total_score,
)


def test_thickness_counts_what_lies_within_7_5_percent_of_the_truth():
    true = [200, 200, 200, 400, 400]
    assert thickness_score(true, [215, 185, 184.9, 431, 370]) == pytest.approx(3 / 5)


def test_acuity_has_an_absolute_window_up_to_1_and_a_relative_one_above():
    assert acuity_score([0.1, 0.5, 1.0, 2.0, 2.0], [0.15, 0.44, 1.05, 2.15, 2.16]) == pytest.approx(3 / 5)


def test_near_is_2_5_percent_of_the_truth_also_of_a_logmar_below_0():
    assert near_score([200, 200, -0.1, -0.1], [205, 206, -0.1, -0.11]) == 0.5


def test_a_prediction_that_is_not_there_is_a_miss_whatever_the_truth():
    for hits in (hits_thickness, hits_acuity, hits_near, hits_class):
        assert hits([0, 1, 1], [math.nan, math.nan, 1]).tolist() == [False, False, True]
    assert thickness_score([200, 200], [200, math.nan]) == 0.5


def test_a_difference_of_decimals_that_is_the_tolerance_is_a_hit():
    """0.55 - 0.5 is 0.05000000000000004 in binary."""
    assert hits_acuity([0.5, 0.5, 2], [0.55, 0.4499, 2.15]).tolist() == [True, False, True]
    assert hits_thickness([280, 280], [301, 301.01]).tolist() == [True, False]


def test_auc_by_hand_with_ties_counting_half():
    assert auc_score([0, 1], [0.3, 0.3]) == 0.5
    assert auc_score([0, 0, 1], [0.1, 0.3, 0.3]) == pytest.approx(0.75)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), max_size=20))
def test_auc_is_the_share_of_pairs_in_the_right_order(rows):
    positive = [score for truth, score in rows if truth]
    negative = [score for truth, score in rows if not truth]
    score = auc_score([truth for truth, _ in rows], [value for _, value in rows])
    if not positive or not negative:
        assert math.isnan(score)
    else:
        pairs = [(p > n) + 0.5 * (p == n) for p in positive for n in negative]
        assert score == pytest.approx(np.mean(pairs))


def test_missing_truth_is_left_out_and_nothing_gives_nan():
    assert thickness_score([200, math.nan], [200, 900]) == 1
    assert acuity_score([0.5, math.nan], [0.9, 0.5]) == 0
    assert auc_score([0, 1, math.nan], [0.1, 0.2, 0.9]) == 1
    for score in (thickness_score, acuity_score, auc_score):
        assert math.isnan(score([], []))


def test_weights_count_rows_so_many_times_also_many_scores_at_once():
    rng = np.random.default_rng(0)
    true, predicted = rng.integers(0, 2, 40), rng.integers(0, 8, 40) / 8
    weights = rng.integers(0, 3, (5, 40))
    for score in (auc_score, thickness_score, acuity_score, class_score):
        scores = score(true, predicted, weights)
        assert scores.shape == (5,)
        for row, one in zip(weights, scores, strict=True):
            assert one == pytest.approx(score(np.repeat(true, row), np.repeat(predicted, row)))


@given(st.lists(st.tuples(st.integers(0, 1), st.floats(0, 1)), min_size=2, max_size=60))
def test_auc_is_scikit_learns(rows):
    true, predicted = zip(*rows, strict=True)
    if len(set(true)) == 2:
        assert auc_score(true, predicted) == pytest.approx(roc_auc_score(true, predicted))


def test_the_fourteen_items_of_the_published_submission_average_to_its_total(expected):
    record = expected["original system's own record"]
    items = {("stage 1", name): value for name, value in record["items stage 1"].items()}
    items |= {("stage 2", name): value for name, value in record["items stage 2"].items()}
    assert len(items) == sum(map(len, FINAL_ITEMS.values())) == 14
    assert total_score(items) == pytest.approx(record["final-round score"], abs=5e-5)
    assert math.isnan(total_score({}))


def test_the_preliminary_rounds_points_by_hand():
    true = pd.DataFrame({"preCST": [200, 400], "VA": [1.0, math.nan], "CST": [200, 400], "continue injection": [0, 1],
                         "IRF": [0, 1], "SRF": [0, 1], "HRF": [1, 1]})
    guess = pd.DataFrame({"preCST": [205, 411], "VA": [1.0, 1], "CST": [194, 395], "continue injection": [0.4, 0.6],
                          "IRF": [1, 1], "SRF": [0, 0.5], "HRF": [0, 0]})
    assert preliminary_score(true, guess) == {
        "preCST": 1, "VA": 1, "CST": 1, "continue injection": 2, "IRF": 1, "SRF": 2, "HRF": 0, "total": 8,
    }
