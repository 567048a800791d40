"""What an evaluation is measured against and needs no model: the best constant, and "as before treatment".

Reads and writes nothing.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd

from data.folds import Data, Predictions
from model.metrics import acuity_score, thickness_score
from processing import columns as c

CHANCE = 0.5                        # what any constant scores under the ROC curve
# Candidates for a constant: each known value, and what hits it from near either edge of its tolerance
FACTORS, STEPS = (0.93, 1.07), (-0.05, 0.05)


def predict_references(data: Data, newest: Predictions) -> dict[str, Predictions]:
    """Answer the same eyes and images as a pipeline without any model.

    Args:
        data: of data.folds.read_data.
        newest: what the pipeline says of them; only its eyes, images, folds and thickness before treatment are used.

    Returns:
        dict of name -> Predictions: "best constant", of each fold's other treated eyes of the round, and "as before",
        without findings and continue injection.
    """
    eyes = data.eyes.loc[newest.eyes.index]
    constant, before = newest.eyes[[c.FOLD]].copy(), newest.eyes[[c.FOLD]].copy()
    for fold, part in newest.eyes.groupby(c.FOLD):
        others = data.eyes[~data.eyes.index.isin(data.folds[fold]) & (data.eyes[c.DIAGNOSIS] != c.UNTREATED)]
        for final, own in eyes.loc[part.index].groupby(c.FINAL):
            known = others[others[c.FINAL] == final]
            for column, score in {c.PRE_CST: thickness_score, c.CST: thickness_score, c.VA: acuity_score}.items():
                constant.loc[own.index, column] = find_constant(known[column].dropna(), score)
            before.loc[own.index, c.VA] = own[c.PRE_VA].fillna(known[c.PRE_VA].mean())
    if c.PRE_CST in newest.eyes:
        before[c.CST] = newest.eyes[c.PRE_CST]
    constant[[c.CONTINUE, *c.FINDINGS]] = CHANCE
    images = newest.images.assign(**dict.fromkeys(c.FINDINGS, CHANCE))
    columns = newest.eyes.columns
    return {
        "best constant": Predictions(constant[[name for name in columns if name in constant]], images, {}),
        "as before": Predictions(before[[name for name in columns if name in before]], newest.images.head(0), {}),
    }


def find_constant(values: pd.Series, score: Callable) -> float:
    """Find the one answer that scores best on known values; NaN without any.

    Args:
        values: the known values.
        score: thickness_score or acuity_score.
    """
    if not len(values):
        return np.nan
    near = [values, *(values * factor for factor in FACTORS), *(values + step for step in STEPS)]
    candidates = np.unique(np.concatenate(near).round(4))
    return candidates[int(np.argmax([score(values, np.full(len(values), candidate)) for candidate in candidates]))]
