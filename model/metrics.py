"""What a hit is, and the competition's scores, item by item and in total: pure functions of true and predicted values.

Rows whose truth is missing (NaN) are left out; an empty set, or a single class under the ROC curve, gives NaN. Each
score takes weights, which count a row so many times: N of them, or R x N for R scores at once (a bootstrap).
Reads and writes nothing.
"""

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from processing import columns as c

Score = float | np.ndarray      # in 0-1; R of them for R x N weights

CST_TOLERANCE = 0.075       # share of the truth
VA_TOLERANCE = 0.05         # where the truth is at most 1; above that, CST_TOLERANCE's share of the truth
PRELIMINARY_TOLERANCE = 0.025       # share of the truth, for CST and VA alike
ROUNDING = 1e-9             # what binary fractions may add to a difference of decimal ones: 0.55 - 0.5 > 0.05

# The fourteen items of the final round: submission file -> column -> rule
FINAL_ITEMS = {
    c.STAGE1: {c.PRE_CST: "thickness", c.VA: "acuity", c.CONTINUE: "auc", c.CST: "thickness",
               "IRF": "auc", "SRF": "auc", "HRF": "auc"},
    c.STAGE2_CASE: {c.PRE_CST: "thickness", c.VA: "acuity", c.CONTINUE: "auc", c.CST: "thickness"},
    c.STAGE2_PIC: {"IRF": "auc", "SRF": "auc", "PED": "auc"},
}
# What an eye of the preliminary round could score one point each for
PRELIMINARY_ITEMS = {c.PRE_CST: "near", c.VA: "near", c.CST: "near", c.CONTINUE: "class",
                     "IRF": "class", "SRF": "class", "HRF": "class"}


# ---- What a hit is: N true and N predicted values -> N bool; a prediction that is not there (NaN) is a miss

def hits_thickness(true: ArrayLike, predicted: ArrayLike) -> np.ndarray:
    """Which CST (um) lies within thickness_tolerance of the truth."""
    return _lies_within(true, predicted, thickness_tolerance(true))


def hits_acuity(true: ArrayLike, predicted: ArrayLike) -> np.ndarray:
    """Which VA lies within acuity_tolerance of the truth."""
    return _lies_within(true, predicted, acuity_tolerance(true))


def hits_near(true: ArrayLike, predicted: ArrayLike) -> np.ndarray:
    """Preliminary round: which value lies within 2.5 % of the truth, which as logMAR may be below 0."""
    return _lies_within(true, predicted, PRELIMINARY_TOLERANCE * np.abs(true))


def hits_class(true: ArrayLike, predicted: ArrayLike) -> np.ndarray:
    """Preliminary round: which 0 / 1 is right; a probability of 0.5 or more is a 1."""
    true, predicted = np.asarray(true, float), np.asarray(predicted, float)
    return ~np.isnan(predicted) & ((predicted >= 0.5) == (true == 1))


def thickness_tolerance(true: ArrayLike) -> np.ndarray:
    """How far a predicted CST may be off: 7.5 % of the truth."""
    return CST_TOLERANCE * np.asarray(true, float)


def acuity_tolerance(true: ArrayLike) -> np.ndarray:
    """How far a predicted VA may be off: 0.05 where the truth is at most 1, else 7.5 % of it."""
    true = np.asarray(true, float)
    return np.where(true <= 1, VA_TOLERANCE, CST_TOLERANCE * true)


def _lies_within(true, predicted, tolerance):
    return np.abs(np.asarray(predicted, float) - np.asarray(true, float)) <= tolerance + ROUNDING


# ---- Scores

def thickness_score(true: ArrayLike, predicted: ArrayLike, weights: ArrayLike | None = None) -> Score:
    """Share of eyes whose CST is a hit (hits_thickness); arrays of um.

    >>> thickness_score([200, 200], [215, 216])
    0.5
    """
    return _share_hit(hits_thickness, true, predicted, weights)


def acuity_score(true: ArrayLike, predicted: ArrayLike, weights: ArrayLike | None = None) -> Score:
    """Share of eyes whose VA is a hit (hits_acuity), in the round's unit.

    >>> acuity_score([0.5, 2.0], [0.54, 2.2])
    0.5
    """
    return _share_hit(hits_acuity, true, predicted, weights)


def auc_score(true: ArrayLike, predicted: ArrayLike, weights: ArrayLike | None = None) -> Score:
    """Area under the ROC curve: how probably a positive scores above a negative. Equal scores count half.

    Args:
        true: N of 0 / 1.
        predicted: N scores of any scale, none of them NaN.
        weights: None, N or R x N counts.

    >>> auc_score([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
    0.75
    """
    true, predicted, weights = _drop_unknown(true, predicted, weights)
    if not len(true):
        return _divide(weights.sum(axis=-1), 0)
    order = np.argsort(predicted, kind="stable")
    starts = np.flatnonzero(np.diff(predicted[order], prepend=np.nan))      # where a score begins, lowest first
    positive, negative = (
        np.add.reduceat((weights * (true == value))[..., order], starts, axis=-1) for value in (1, 0)
    )
    below = np.cumsum(negative, axis=-1) - negative / 2
    pairs = positive.sum(axis=-1) * negative.sum(axis=-1)
    return _divide((positive * below).sum(axis=-1), pairs)


def near_score(true: ArrayLike, predicted: ArrayLike, weights: ArrayLike | None = None) -> Score:
    """Preliminary round: share of eyes within 2.5 % of the truth (hits_near).

    >>> near_score([200, 200, -0.1], [205, 206, -0.1])
    0.6666666666666666
    """
    return _share_hit(hits_near, true, predicted, weights)


def class_score(true: ArrayLike, predicted: ArrayLike, weights: ArrayLike | None = None) -> Score:
    """Preliminary round: share of eyes whose 0 / 1 is right (hits_class).

    >>> class_score([0, 1], [0.2, 0.4])
    0.5
    """
    return _share_hit(hits_class, true, predicted, weights)


RULES = {"thickness": thickness_score, "acuity": acuity_score, "auc": auc_score, "near": near_score,
         "class": class_score}


def final_score(
    pairs: dict[str, tuple[pd.DataFrame, pd.DataFrame]], weights: dict[str, np.ndarray] | None = None
) -> dict[tuple[str, str], Score]:
    """The items of the final round.

    Args:
        pairs: dict of submission file -> (truth, prediction), DataFrames of the same rows with the file's scored
            columns; a file or column that is not there has no item.
        weights: dict of submission file -> weights of its rows, or None.

    Returns:
        dict of (file, column) -> score in 0-1; R of them for R x N weights.
    """
    return {
        (file, column): RULES[rule](true[column], predicted[column], weights[file] if weights else None)
        for file, (true, predicted) in pairs.items()
        for column, rule in FINAL_ITEMS[file].items()
        if column in true and column in predicted
    }


def total_score(items: dict[tuple[str, str], Score]) -> Score:
    """The mean of the items that are defined, as the final round ranks by; NaN without any.

    >>> total_score({"a": 0.25, "b": 0.75, "c": float("nan")})
    0.5
    """
    values = np.array(list(items.values()), float)
    known = ~np.isnan(values)
    return _divide(np.where(known, values, 0).sum(axis=0), known.sum(axis=0))


def preliminary_score(true: pd.DataFrame, predicted: pd.DataFrame) -> dict[str, float]:
    """Points of the preliminary round: one for each eye and item that is right.

    Args:
        true, predicted: DataFrames of the same eyes with the columns of PRELIMINARY_ITEMS.

    Returns:
        dict of column -> points, and "total": their sum. An item without any truth has no points.
    """
    points: dict[str, float] = {}
    for column, rule in PRELIMINARY_ITEMS.items():
        known = int(true[column].notna().sum())
        points[column] = float(RULES[rule](true[column], predicted[column])) * known if known else 0.0
    return points | {"total": sum(points.values())}


def _drop_unknown(true: ArrayLike, predicted: ArrayLike, weights: ArrayLike | None) -> tuple[np.ndarray, ...]:
    """The rows whose truth is known, as arrays of floats; without weights, each row counts once."""
    true, predicted = np.asarray(true, float), np.asarray(predicted, float)
    known = ~np.isnan(true)
    weights = np.ones(len(true)) if weights is None else np.asarray(weights, float)
    return true[known], predicted[known], weights[..., known]


def _share_hit(hits, true, predicted, weights):
    true, predicted, weights = _drop_unknown(true, predicted, weights)
    return _divide(weights @ hits(true, predicted).astype(float), weights.sum(axis=-1))


def _divide(part, whole):
    """part / whole, NaN where whole is 0; a float where there is one."""
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(whole > 0, np.divide(part, whole), np.nan)
    return share if share.ndim else float(share)
