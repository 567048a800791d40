"""The answer that is most probably a hit, and the interval that holds the truth."""

import numpy as np
import pytest

from model.distribution import choose_thickness, find_interval
from model.metrics import hits_thickness


def test_the_answer_hits_more_samples_than_any_other_would():
    rng = np.random.default_rng(3)
    samples = np.exp(rng.normal(np.log(300), 0.25, (6, 400)))
    weights = rng.dirichlet(np.ones(400), 6)
    answers, chances = choose_thickness(samples, weights)
    for values, chance, answer, found in zip(samples, weights, answers, chances, strict=True):
        held = [(chance * hits_thickness(values, other)).sum() for other in np.arange(150.0, 600.0)]
        assert found == pytest.approx((chance * hits_thickness(values, answer)).sum(), abs=1e-9)
        assert found >= max(held) - 0.01


def test_the_answer_is_the_likelier_of_two_camps_not_their_mean():
    samples, weights = np.array([[250.0, 255, 500, 505, 510]]), np.array([[0.3, 0.3, 0.1, 0.1, 0.2]])
    answers, chances = choose_thickness(samples, weights)
    assert 240 < answers[0] < 265 and chances[0] == pytest.approx(0.6)


def test_one_sample_is_its_own_answer():
    answers, chances = choose_thickness(np.array([[333.0]]), np.array([[1.0]]))
    assert answers[0] == pytest.approx(333) and chances[0] == 1


def test_an_interval_holds_its_share():
    samples, weights = np.tile(np.arange(1.0, 101.0), (2, 1))[:, ::-1], np.full((2, 100), 0.01)
    weights[1] = 0
    weights[1, 49] = 1      # all of it at one place
    assert find_interval(samples, weights, 0.8) == pytest.approx(np.array([[10, 90], [51, 51]]), abs=1)
