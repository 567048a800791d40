"""Which answer scores best, and between which bounds the truth lies: of thickness and acuity alike. No file.

N rows, K candidates or values.
"""

import numpy as np

COVERED = 0.8               # share of the truths that an interval is to hold


def decide(candidates: np.ndarray, hits: np.ndarray, preference: np.ndarray | float = 0.0
           ) -> tuple[np.ndarray, np.ndarray]:
    """Choose the answer that is most probably a hit, which is what the competition's scores reward.

    Args:
        candidates: K or N x K values.
        hits: N x K, the chance that the truth lies within each one's tolerance.
        preference: N x K, what is added to tell those apart that are as likely.

    Returns:
        answers: N.
        chances: N, that each is a hit, 1 at most.
    """
    best, rows = (hits + preference).argmax(axis=1), np.arange(len(hits))
    return np.broadcast_to(candidates, hits.shape)[rows, best], np.minimum(1, hits[rows, best])


def find_ends(weights: np.ndarray, covered: float = COVERED) -> np.ndarray:
    """Bounds that hold a share of the probability, as much of the rest below as above.

    Args:
        weights: N x K, probabilities of ascending values.
        covered: the share.

    Returns:
        N x 2, places of the first and the last value within.
    """
    total = np.cumsum(weights, axis=1, dtype=float)
    ends = [(total < edge - 1e-9).sum(axis=1) for edge in ((1 - covered) / 2, (1 + covered) / 2)]
    return np.minimum(ends, weights.shape[1] - 1).T
