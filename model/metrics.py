"""The competition's scores, item by item: pure functions of true and predicted values.

The rules of the final round: share of eyes within a tolerance for CST and VA, area under the ROC curve for
probabilities. Rows whose truth is missing (NaN) are left out; an empty set or a single class gives NaN.
"""

import numpy as np
from sklearn.metrics import roc_auc_score

CST_TOLERANCE = 0.075       # share of the truth
VA_TOLERANCE = 0.05         # where the truth is at most 1; above that, CST_TOLERANCE's share of the truth


def thickness_score(true, predicted):
    """Share of eyes with |predicted - true| <= 7.5 % of the truth; arrays of um.

    >>> thickness_score([200, 200], [215, 216])
    0.5
    """
    true, predicted = _known(true, predicted)
    return _share(np.abs(predicted - true) <= CST_TOLERANCE * true * (1 + 1e-12))


def acuity_score(true, predicted):
    """Share of eyes with VA within 0.05 of the truth where that is <= 1, else within 7.5 % of it.

    >>> acuity_score([0.5, 2.0], [0.54, 2.2])
    0.5
    """
    true, predicted = _known(true, predicted)
    return _share(np.abs(predicted - true) <= acuity_tolerance(true) + 1e-12)


def acuity_tolerance(true):
    """How far a predicted VA may be off: 0.05 where the truth is at most 1, else 7.5 % of it."""
    return np.where(true <= 1, VA_TOLERANCE, CST_TOLERANCE * true)


def auc_score(true, predicted):
    """Area under the ROC curve; `true` 0 / 1, `predicted` any score. Equal scores count half.

    >>> float(auc_score([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]))
    0.75
    """
    true, predicted = _known(true, predicted)
    if len(np.unique(true)) < 2:
        return float("nan")
    return float(roc_auc_score(true, predicted))


RULES = {"thickness": thickness_score, "acuity": acuity_score, "auc": auc_score}


def _known(true, predicted):
    true, predicted = np.asarray(true, float), np.asarray(predicted, float)
    known = ~np.isnan(true)
    return true[known], predicted[known]


def _share(hits):
    return float(hits.mean()) if len(hits) else float("nan")
