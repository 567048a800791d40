"""Means of a training's eyes, by round: what stands in for a value that is not known. Reads and writes nothing."""

import pandas as pd

from processing import columns as c
from processing.acuity import convert_va
from processing.errors import PipelineError


def fit_case_means(cases: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Means of each round's training eyes.

    Args:
        cases: DataFrame of tables.build_case_table.

    Returns:
        dict of round name -> dict of column -> mean; a round without eyes has none.
    """
    if cases.empty:     # its columns have no types
        return {}
    return {
        c.ROUND_NAMES[final]: rows.mean().to_dict() for final, rows in cases.select_dtypes("number").groupby(c.FINAL)
    }


def find_means(means: dict[str, dict[str, float]], final: int) -> dict[str, float]:
    """The means of a round; of the other round, with acuity in this one's unit, where it has none.

    Raises:
        PipelineError: there are none at all.
    """
    own = means.get(c.ROUND_NAMES[final])
    if own is not None:
        return own
    if not means:
        raise PipelineError(
            "Some eyes have no images, and Model-CSV does not carry the means of its training data. "
            "Train Model-CSV by option 2 (train_csv)."
        )
    other = next(iter(means.values()))
    return other | {name: float(convert_va(other[name], 1 - final, final)) for name in (c.PRE_VA, c.VA)}


def fill_missing(table: pd.DataFrame, means: dict[str, dict[str, float]], final: int) -> pd.DataFrame:
    """Put the mean of its column at each NaN.

    Args:
        table: rows of eyes or images of one round.
        means: of fit_case_means.
        final: the round.

    Raises:
        PipelineError: something is missing and there are no means.
    """
    return table.fillna(find_means(means, final)) if table.isna().any(axis=None) else table


def fill_rounds(cases: pd.DataFrame, means: dict[str, dict[str, float]]) -> pd.DataFrame:
    """The same for cases of both rounds; raises PipelineError where means are wanted and there are none.

    Args:
        cases: DataFrame with final; one row per eye.
        means: of fit_case_means.
    """
    if not cases.isna().any(axis=None):
        return cases
    by_place = cases.reset_index(drop=True)     # an eye may stand in several rows
    filled = [fill_missing(part, means, int(final)) for final, part in by_place.groupby(c.FINAL)]
    return pd.concat(filled).sort_index().set_axis(cases.index)
