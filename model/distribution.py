"""Distributions of thickness: the likeliest answer, how sure it is, and several models' made one. No file.

A distribution is the probability of each bin of thickness; the bins are even in its logarithm, EDGES_UM apart. N images
or visits, B bins, M models, K findings.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from model.decision import COVERED, decide, find_ends
from model.metrics import CST_TOLERANCE
from processing import columns as c

LEAST_UM, MOST_UM, BINS = 60.0, 1500.0, 512
EDGES_UM = np.geomspace(LEAST_UM, MOST_UM, BINS + 1)
MIDDLES_UM = np.sqrt(EDGES_UM[:-1] * EDGES_UM[1:])
AROUND, SLIGHT = 31, 1e-3   # answers that count beside one, where several are as likely, and how little they do
ROWS_AT_ONCE = 4096


class Judgement(NamedTuple):
    """What a model makes of images."""

    chances: np.ndarray         # N x B: of the thickness of the image's visit
    findings: pd.DataFrame      # N x K probabilities


def bin_samples(logs: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted samples of log thickness (N x S) as a distribution (N x B); what lies beyond the bins is in the last."""
    step = np.log(MOST_UM / LEAST_UM) / BINS
    places = np.clip((logs - np.log(LEAST_UM)) // step, 0, BINS - 1).astype(int)
    flat = (np.arange(len(logs))[:, None] * BINS + places).ravel()
    found = np.bincount(flat, weights.ravel(), minlength=len(logs) * BINS).reshape(len(logs), BINS)
    return found / np.maximum(found.sum(axis=1, keepdims=True), 1e-12)


def choose_thickness(chances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The answer with the most probability within CST_TOLERANCE of the truth.

    A truth t is hit by an answer a where |a - t| <= CST_TOLERANCE t, that is where a / (1 + CST_TOLERANCE) <= t <=
    a / (1 - CST_TOLERANCE).

    Args:
        chances: N x B.

    Returns:
        answers: N, um.
        hits: N, the chance that each is a hit.
    """
    below = np.searchsorted(MIDDLES_UM, MIDDLES_UM / (1 + CST_TOLERANCE), side="left")
    above = np.searchsorted(MIDDLES_UM, MIDDLES_UM / (1 - CST_TOLERANCE), side="right")
    answers, hits = np.empty(len(chances)), np.empty(len(chances))
    for start in range(0, len(chances), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        total = np.cumsum(chances[rows], axis=1, dtype=float)
        total = np.concatenate([np.zeros((len(total), 1)), total], axis=1)
        held = total[:, above] - total[:, below]                                        # of each bin's middle
        answers[rows], hits[rows] = decide(MIDDLES_UM, held, SLIGHT * _smooth(_smooth(held)))   # the middle of several
    return answers, hits


def _smooth(values: np.ndarray) -> np.ndarray:
    """Means over AROUND neighbours along each row."""
    total = np.cumsum(np.pad(values, ((0, 0), (AROUND // 2 + 1, AROUND // 2))), axis=1)
    return (total[:, AROUND:] - total[:, :-AROUND]) / AROUND


def find_interval(chances: np.ndarray, covered: float = COVERED) -> np.ndarray:
    """N x 2 um: between them lies the share `covered` of the probability, as much above as below."""
    low, high = find_ends(chances, covered).T
    return np.stack([EDGES_UM[low], EDGES_UM[high + 1]], axis=1)


def answer_thickness(chances: np.ndarray, index: pd.Index) -> pd.DataFrame:
    """CST (um) and how sure it is (c.sure_columns) of N x B chances, with that index."""
    (answer, hit), (low, high) = choose_thickness(chances), find_interval(chances).T
    answers = np.column_stack([answer, hit, np.minimum(low, answer), np.maximum(high, answer)])
    return pd.DataFrame(answers, columns=[c.CST, *c.sure_columns(c.CST)], index=index)


def answer_images(judgement: Judgement) -> pd.DataFrame:
    """The answers of images: CST (um) and how sure it is, then the findings as probabilities."""
    return answer_thickness(judgement.chances, judgement.findings.index).join(judgement.findings)


def join_judgements(judgements: Sequence[Judgement]) -> Judgement:
    """One of several models' judgements of the same images: means of the chances, and of the findings' logits."""
    chances = np.mean([one.chances for one in judgements], axis=0)
    probabilities = np.stack([one.findings.to_numpy(float) for one in judgements]).clip(1e-6, 1 - 1e-6)
    logits = np.log(probabilities / (1 - probabilities)).mean(axis=0)
    first = judgements[0].findings
    return Judgement(chances, pd.DataFrame(1 / (1 + np.exp(-logits)), index=first.index, columns=first.columns))
