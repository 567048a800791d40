import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.metrics import acuity_score, auc_score, thickness_score


def test_thickness_counts_what_lies_within_7_5_percent_of_the_truth():
    true = [200, 200, 200, 400, 400]
    assert thickness_score(true, [215, 185, 184.9, 431, 370]) == pytest.approx(3 / 5)


def test_acuity_has_an_absolute_window_up_to_1_and_a_relative_one_above():
    assert acuity_score([0.1, 0.5, 1.0, 2.0, 2.0], [0.15, 0.44, 1.05, 2.15, 2.16]) == pytest.approx(3 / 5)


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
