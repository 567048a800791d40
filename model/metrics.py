"""The competition's scores, item by item and in total: pure functions of true and predicted values.

Rows whose truth is missing (NaN) are left out; an empty set, or a single class under the ROC curve, gives NaN. Each
function takes weights, which count a row so many times: N of them, or R x N for R scores at once (a bootstrap).
"""

import numpy as np

from processing import columns as c

CST_TOLERANCE = 0.075       # share of the truth
VA_TOLERANCE = 0.05         # where the truth is at most 1; above that, CST_TOLERANCE's share of the truth
PRELIMINARY_TOLERANCE = 0.025       # share of the truth, for CST and VA alike

# The fourteen items of the final round: submission file -> column -> rule
FINAL_ITEMS = {
    c.STAGE1: {c.PRE_CST: "thickness", c.VA: "acuity", c.CONTINUE: "auc", c.CST: "thickness", "IRF": "auc",
               "SRF": "auc",
             "HRF": "auc"},
    c.STAGE2_CASE: {c.PRE_CST: "thickness", c.VA: "acuity", c.CONTINUE: "auc", c.CST: "thickness"},
    c.STAGE2_PIC: {"IRF": "auc", "SRF": "auc", "PED": "auc"},
}
# What an eye of the preliminary round could score one point each for
PRELIMINARY_ITEMS = {c.PRE_CST: "near", c.VA: "near", c.CST: "near", c.CONTINUE: "class", "IRF": "class",
                     "SRF": "class",
                     "HRF": "class"}


def thickness_score(true, predicted, weights=None):
    """Share of eyes with |predicted - true| <= 7.5 % of the truth; arrays of um.

    >>> thickness_score([200, 200], [215, 216])
    0.5
    """
    true, predicted, weights = _known(true, predicted, weights)
    return _share(np.abs(predicted - true) <= CST_TOLERANCE * true * (1 + 1e-12), weights)


def acuity_score(true, predicted, weights=None):
    """Share of eyes with VA within 0.05 of the truth where that is <= 1, else within 7.5 % of it.

    >>> acuity_score([0.5, 2.0], [0.54, 2.2])
    0.5
    """
    true, predicted, weights = _known(true, predicted, weights)
    return _share(np.abs(predicted - true) <= acuity_tolerance(true) + 1e-12, weights)


def acuity_tolerance(true):
    """How far a predicted VA may be off: 0.05 where the truth is at most 1, else 7.5 % of it."""
    return np.where(true <= 1, VA_TOLERANCE, CST_TOLERANCE * true)


def auc_score(true, predicted, weights=None):
    """Area under the ROC curve: how probably a positive scores above a negative. Equal scores count half.

    Args:
        true: N of 0 / 1.
        predicted: N scores of any scale.
        weights: None, N or R x N counts.

    >>> auc_score([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
    0.75
    """
    true, predicted, weights = _known(true, predicted, weights)
    if not len(true):
        return _share(true, weights)
    order = np.argsort(predicted, kind="stable")
    starts = np.flatnonzero(np.diff(predicted[order], prepend=np.nan))      # where a score begins, lowest first
    weights = np.ones(len(true)) if weights is None else weights
    positive, negative = (
        np.add.reduceat((weights * (true == value))[..., order], starts, axis=-1) for value in (1, 0)
    )
    below = np.cumsum(negative, axis=-1) - negative / 2
    pairs = positive.sum(axis=-1) * negative.sum(axis=-1)
    return _divided((positive * below).sum(axis=-1), pairs)


def near_score(true, predicted, weights=None):
    """Preliminary round: share of eyes with |predicted - true| <= 2.5 % of the truth.

    >>> near_score([200, 200, -0.1], [205, 206, -0.1])
    0.6666666666666666
    """
    true, predicted, weights = _known(true, predicted, weights)
    return _share(np.abs(predicted - true) <= PRELIMINARY_TOLERANCE * np.abs(true) * (1 + 1e-12), weights)     # logMAR


def class_score(true, predicted, weights=None):
    """Preliminary round: share of eyes whose 0 / 1 is right; a probability of 0.5 or more is a 1.

    >>> class_score([0, 1], [0.2, 0.4])
    0.5
    """
    true, predicted, weights = _known(true, predicted, weights)
    return _share((predicted >= 0.5) == (true == 1), weights)


RULES = {"thickness": thickness_score, "acuity": acuity_score, "auc": auc_score, "near": near_score,
         "class": class_score}


def final_score(pairs, weights=None):
    """The items of the final round.

    Args:
        pairs: dict of submission file -> (truth, prediction), DataFrames of the same rows with the file's scored
            columns; a file or column that is not there has no item.
        weights: dict of submission file -> weights of its rows, or None.

    Returns:
        dict of (file, column) -> score in 0-1; R of them for R x N weights.
    """
    return {
        (file, column): RULES[rule](true[column], predicted[column], weights and weights[file])
        for file, (true, predicted) in pairs.items()
        for column, rule in FINAL_ITEMS[file].items()
        if column in true and column in predicted
    }


def total_score(items):
    """The mean of the items that are defined, as the final round ranks by; NaN without any.

    >>> total_score({"a": 0.25, "b": 0.75, "c": float("nan")})
    0.5
    """
    values = np.array(list(items.values()), float)
    known = ~np.isnan(values)
    total = _divided(np.where(known, values, 0).sum(axis=0), known.sum(axis=0))
    return total


def preliminary_score(true, predicted):
    """Points of the preliminary round: one for each eye and item that is right.

    Args:
        true, predicted: DataFrames of the same eyes with the columns of PRELIMINARY_ITEMS.

    Returns:
        dict of column -> points, and "total": their sum. An item without any truth has no points.
    """
    points = {}
    for column, rule in PRELIMINARY_ITEMS.items():
        known = int(true[column].notna().sum())
        points[column] = RULES[rule](true[column], predicted[column]) * known if known else 0.0
    return points | {"total": sum(points.values())}


def _known(true, predicted, weights):
    """The rows whose truth is known, as arrays of floats."""
    true, predicted = np.asarray(true, float), np.asarray(predicted, float)
    known = ~np.isnan(true)
    return true[known], predicted[known], None if weights is None else np.asarray(weights, float)[..., known]


def _share(hits, weights):
    weights = np.ones(len(hits)) if weights is None else weights
    return _divided(weights @ np.asarray(hits, float), weights.sum(axis=-1))


def _divided(part, whole):
    """part / whole, NaN where whole is 0; a float where there is one."""
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(whole > 0, np.divide(part, whole), np.nan)
    return share if share.ndim else float(share)
