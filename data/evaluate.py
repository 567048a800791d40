"""How well predictions match the truth, where the truth is known.

Reads a result folder and a folder of truth tables in the form of the submission files.
"""

import numpy as np

from model import metrics
from processing.errors import PipelineError
from processing.reader import number, read_table, text
from processing.tables import (
    CONTINUE,
    CST,
    IMAGE_NUMBER,
    PATIENT,
    PRE_CST,
    STAGE1,
    STAGE2_CASE,
    STAGE2_PIC,
    VA,
    parse_patient,
)

# Which columns of each submission file are scored, by which of the competition's rules
SCORED = {
    STAGE1: {PRE_CST: "thickness", CST: "thickness", VA: "acuity", CONTINUE: "auc", "IRF": "auc", "SRF": "auc",
             "HRF": "auc"},
    STAGE2_CASE: {PRE_CST: "thickness", CST: "thickness", VA: "acuity", CONTINUE: "auc"},
    STAGE2_PIC: {"IRF": "auc", "SRF": "auc", "PED": "auc"},
}


def score_submission(result, truth):
    """The items of the final round's score.

    Args:
        result: folder with the three submission files.
        truth: folder with three files of the same names and rows, holding the true values.

    Returns:
        dict of (file name, column) -> score in 0-1, NaN where it is not defined.

    Raises:
        PipelineError: a file or row is missing, or faulty.
    """
    scores = {}
    for name, rules in SCORED.items():
        predicted, true = _read_pair(result / name, truth / name, rules)
        for column, rule in rules.items():
            scores[name, column] = metrics.RULES[rule](true[column], predicted[column])
    return scores


def describe_match(result, truth):
    """One line that says how well a submission matches the truth: folders as for score_submission."""
    scores = score_submission(result, truth)
    means = {}
    for (_, column), score in scores.items():
        means.setdefault(column, []).append(score)
    items = ", ".join(f"{column} {np.nanmean(values):.2f}" for column, values in means.items())
    predicted, true = _thickness_pairs(result, truth)
    error, correlation = np.abs(predicted - true).mean(), np.corrcoef(predicted, true)[0, 1]
    return f"thickness off by {error:.0f} um on average, r = {correlation:.2f}; scores: {items}"


def _thickness_pairs(result, truth):
    """Predicted and true thickness (um) of all eyes and visits, as two arrays."""
    pairs = [_read_pair(result / name, truth / name, [PRE_CST, CST]) for name in (STAGE1, STAGE2_CASE)]
    return (np.concatenate([pair[side][[PRE_CST, CST]].to_numpy().ravel() for pair in pairs]) for side in (0, 1))


def _read_pair(predicted_file, true_file, columns):
    """Both tables, the rows of the first in the order of the second."""
    key, parse = (IMAGE_NUMBER, text) if predicted_file.name == STAGE2_PIC else (PATIENT, parse_patient)
    parsers = {key: parse} | {column: number for column in columns}
    predicted, true = (read_table(file, parsers, unique=[key]).set_index(key) for file in (predicted_file, true_file))
    if set(predicted.index) != set(true.index):
        odd = sorted(set(predicted.index) ^ set(true.index))[0]
        raise PipelineError(f"{predicted_file} and {true_file} are not of the same rows; {odd} stands in one only.")
    return predicted.loc[true.index], true
