"""Visual acuity: its two units, how one becomes the other, and no light perception.

The preliminary round gives logMAR, the final one decimal acuity: logMAR = -log10(decimal). Reads and writes nothing.
"""

import numpy as np
from numpy.typing import ArrayLike

from processing.reader import number

UNITS = ("logMAR", "decimal")       # by the column final
NO_LIGHT_PERCEPTION = "NLP"         # as a final round's table has it: decimal 0
# The least decimal acuity that has a logMAR: hand motion, 2.3 (Schulze-Bonsel et al. 2006,
# https://pubmed.ncbi.nlm.nih.gov/16505064, could measure it; light perception they could not). Whatever is darker
# counts as that, or one eye of decimal 0 would be infinitely far from all others.
LEAST_DECIMAL = 0.005


def parse_decimal_va(cell: str) -> float:
    """A cell of decimal acuity: NLP is 0 (the 2021 system read it as 1.0, normal sight), missing is NaN.

    Raises:
        processing.reader.CellError: it is no number.
    """
    return 0.0 if cell.upper() == NO_LIGHT_PERCEPTION else number(cell)


def to_logmar(decimal: ArrayLike) -> np.ndarray:
    """Decimal acuity, N values of 0 or more, as logMAR, at most 2.3 (LEAST_DECIMAL); NaN stays.

    >>> to_logmar([0.5, 0.1, 0.0]).round(2).tolist()
    [0.3, 1.0, 2.3]
    """
    return -np.log10(np.clip(np.asarray(decimal, float), LEAST_DECIMAL, None))


def to_decimal(logmar: ArrayLike) -> np.ndarray:
    """N values of logMAR as decimal acuity; NaN stays.

    >>> to_decimal([0.0, 1.0]).tolist()
    [1.0, 0.1]
    """
    return 10.0 ** -np.asarray(logmar, float)


def convert_va(va: ArrayLike, rounds: ArrayLike, final: int) -> np.ndarray:
    """Bring acuities of eyes of both rounds into the unit of one.

    Args:
        va: N values, each in the unit of its own round.
        rounds: N of 0 (preliminary, logMAR) or 1 (final, decimal), or one for all.
        final: the round whose unit is wanted.

    Returns:
        N float64; NaN stays.
    """
    va = np.asarray(va, float)
    return np.where(np.asarray(rounds) == final, va, to_decimal(va) if final else to_logmar(va))
