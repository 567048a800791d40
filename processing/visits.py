"""Visits: an eye before or after treatment, with the images of it.

A visit is (patient ID, after); an eye has at most two. Reads and writes nothing.
"""

import numpy as np
import pandas as pd

from processing import columns as c

VISIT = [c.PATIENT, c.AFTER]        # what tells one visit from another
# An image's columns, as its eye's row names them: of images before treatment, of images after it
BEFORE_TREATMENT = {c.CST: c.PRE_CST} | dict(zip(c.FINDINGS, c.PRE_FINDINGS, strict=True))
AFTER_TREATMENT = {column: column for column in BEFORE_TREATMENT}


def number_visits(rows: pd.DataFrame) -> np.ndarray:
    """Number the visits of a table of images.

    Args:
        rows: N rows with patient ID and after.

    Returns:
        N int64: which visit each row is of, numbered from 0 in the order in which the visits first appear.

    >>> number_visits(pd.DataFrame({"patient ID": ["2L", "1R", "2L", "2L"], "after": [1, 0, 0, 1]})).tolist()
    [0, 1, 2, 0]
    """
    return rows.groupby(VISIT, sort=False).ngroup().to_numpy(np.int64)


def visit_means(images: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """Average columns over the images of each visit; missing values do not count.

    Args:
        images: one row per image: patient ID, after and `columns`.
        columns: of numbers.

    Returns:
        DataFrame of `columns`, indexed by (patient ID, after), sorted.
    """
    return images.groupby(VISIT)[columns].mean()


def join_visits(images: pd.DataFrame, *, eye: list[str], before: dict[str, str], after: dict[str, str],
                how: str = "left") -> pd.DataFrame:
    """Make one row per eye of the images of its two visits.

    Args:
        images: one row per image: patient ID, after and the columns that are named in the others.
        eye: columns that belong to the eye: averaged over the images of both visits.
        before: columns averaged over the images before treatment -> their names in the eye's row.
        after: the same of the images after treatment.
        how: "left": every eye, NaN where a visit has no image; "inner": the eyes with images of both visits.

    Returns:
        DataFrame of the eye's, the before and the after columns, indexed by patient ID, sorted.
    """
    eyes = images.groupby(c.PATIENT)[eye].mean()
    means = visit_means(images, [*{**before, **after}])
    for number, names in ((0, before), (1, after)):
        visit = means[means.index.get_level_values(c.AFTER) == number].droplevel(c.AFTER)
        eyes = eyes.join(visit[[*names]].rename(columns=names), how=how)
    return eyes
