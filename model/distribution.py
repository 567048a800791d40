"""Which value to answer where a distribution is known, and how sure that is. Reads and writes nothing.

V visits, M samples of a value, each with its probability.
"""

import numpy as np

from model.metrics import CST_TOLERANCE

COVERED = 0.8           # share of the truths that an interval is to hold


def choose_thickness(samples: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The answer with the most probability within CST_TOLERANCE of it.

    A truth t is hit by an answer a where |a - t| <= CST_TOLERANCE t, that is where a / (1 + CST_TOLERANCE) <= t <=
    a / (1 - CST_TOLERANCE).

    Args:
        samples: V x M thicknesses, um.
        weights: V x M probabilities; they sum to 1 over M.

    Returns:
        answers: V, um.
        chances: V, of a hit.
    """
    answers, chances = np.empty(len(samples)), np.empty(len(samples))
    for row, (values, chance) in enumerate(zip(samples, weights, strict=True)):
        order = np.argsort(values)
        order = order[chance[order] > 0]
        values, total = values[order], np.concatenate([[0], np.cumsum(chance[order])])
        # Between two edges every answer hits the same samples
        edges = np.sort(np.concatenate([values * (1 - CST_TOLERANCE), values * (1 + CST_TOLERANCE)]))
        tried = (edges[:-1] + edges[1:]) / 2
        held = (total[np.searchsorted(values, tried / (1 - CST_TOLERANCE), side="right")]
                - total[np.searchsorted(values, tried / (1 + CST_TOLERANCE), side="left")])
        widest = np.where(held >= held.max() - 1e-9, np.diff(edges), -1).argmax()
        answers[row], chances[row] = tried[widest], min(1.0, held[widest])
    return answers, chances


def find_interval(samples: np.ndarray, weights: np.ndarray, covered: float = COVERED) -> np.ndarray:
    """V x 2: quantiles between which lies the share `covered` of the probability, as much above as below."""
    edges = np.empty((len(samples), 2))
    for row, (values, chance) in enumerate(zip(samples, weights, strict=True)):
        order = np.argsort(values)
        total = np.cumsum(chance[order])
        places = np.searchsorted(total, [(1 - covered) / 2, (1 + covered) / 2])
        edges[row] = values[order][np.minimum(places, len(values) - 1)]
    return edges
