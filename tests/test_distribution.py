"""The answer that is most probably a hit, the interval that holds the truth, and several models as one."""

import numpy as np
import pandas as pd
import pytest

from model.distribution import (
    BINS,
    EDGES_UM,
    LEAST_UM,
    MIDDLES_UM,
    MOST_UM,
    Judgement,
    answer_images,
    answer_thickness,
    bin_samples,
    choose_thickness,
    find_interval,
    join_judgements,
)
from model.metrics import hits_thickness
from processing import columns as c


def test_the_answer_hits_more_than_any_other_would():
    rng = np.random.default_rng(3)
    samples, weights = rng.normal(np.log(300), 0.25, (6, 400)), rng.dirichlet(np.ones(400), 6)
    chances = bin_samples(samples, weights)
    answers, hits = choose_thickness(chances)
    for values, answer, found in zip(chances, answers, hits, strict=True):
        held = [(values * hits_thickness(MIDDLES_UM, other)).sum() for other in np.arange(150.0, 600.0)]
        assert found == pytest.approx((values * hits_thickness(MIDDLES_UM, answer)).sum(), abs=1e-6)
        assert found >= max(held) - 0.015


def test_the_answer_is_the_likelier_of_two_camps_not_their_mean():
    samples, weights = np.log([[250.0, 255, 500, 505, 510]]), np.array([[0.3, 0.3, 0.1, 0.1, 0.2]])
    answers, hits = choose_thickness(bin_samples(samples, weights))
    assert 240 < answers[0] < 268 and hits[0] == pytest.approx(0.6)


def test_where_several_answers_are_as_likely_it_is_the_middle_one():
    answers, hits = choose_thickness(bin_samples(np.log([[333.0]]), np.ones((1, 1))))
    assert answers[0] == pytest.approx(333, rel=0.01) and hits[0] == 1


def test_samples_fall_into_their_bins_and_what_lies_beyond_into_the_last():
    chances = bin_samples(np.log([[10.0, 301, 301, 9000]]), np.array([[1.0, 1, 2, 4]]))
    assert chances.shape == (1, BINS) and chances.sum() == pytest.approx(1)
    assert chances[0, 0] == 1 / 8 and chances[0, -1] == 1 / 2
    place, = np.flatnonzero(chances[0, 1:-1]) + 1
    assert EDGES_UM[place] <= 301 < EDGES_UM[place + 1] and chances[0, place] == 3 / 8
    assert (EDGES_UM[0], EDGES_UM[-1]) == pytest.approx((LEAST_UM, MOST_UM))


def test_an_interval_holds_its_share():
    chances = np.zeros((2, BINS))
    chances[0, 100:200], chances[1, 49] = 0.01, 1
    low, high = find_interval(chances).T
    assert low[0] == pytest.approx(EDGES_UM[109]) and high[0] == pytest.approx(EDGES_UM[190])
    assert (low[1], high[1]) == pytest.approx((EDGES_UM[49], EDGES_UM[50]))


def test_many_rows_are_answered_as_each_alone(monkeypatch):
    monkeypatch.setattr("model.distribution.ROWS_AT_ONCE", 3)
    chances = np.random.default_rng(0).dirichlet(np.full(BINS, 0.05), 8)
    both = np.stack(choose_thickness(chances))
    assert np.array_equal(both, np.concatenate([choose_thickness(row[None]) for row in chances], axis=1))


def test_several_models_answer_by_the_means_of_chances_and_logits():
    index = pd.Index([7, 3], name="row")
    one, other = (Judgement(np.eye(BINS)[[at, at]], pd.DataFrame({"IRF": findings}, index=index))
                  for at, findings in ((100, [0.5, 0.9]), (140, [0.5, 0.1])))
    joined = join_judgements([one, other])
    assert joined.chances[0, 100] == joined.chances[1, 140] == 0.5
    assert np.allclose(joined.findings["IRF"], 0.5) and joined.findings.index.equals(index)
    surer = join_judgements([one, one, other])
    assert surer.findings["IRF"][3] == pytest.approx(1 / (1 + 9 ** (-1 / 3)))
    answers = answer_images(surer)
    assert list(answers) == [c.CST, *c.sure_columns(c.CST), "IRF"]
    assert answers[c.CST][7] == pytest.approx(MIDDLES_UM[100], rel=0.02)
    assert answers[c.sure_columns(c.CST)[0]][3] == pytest.approx(2 / 3)


def test_an_answer_lies_within_its_own_interval():
    """The likeliest neighbourhood may lie in a tail."""
    chances = np.full((1, BINS), 1e-9)
    chances[0, 100], chances[0, 200:500] = 0.08, 0.92 / 300
    table = answer_thickness(chances / chances.sum(), pd.RangeIndex(1))
    low, high = (table[name].item() for name in c.sure_columns(c.CST)[1:])
    assert find_interval(chances)[0, 0] > table[c.CST].item() == low < high
