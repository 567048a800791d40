"""Which eyes a run leaves out, and means that are fitted without them.

Reads data/processed/splits.json and csv/eyes.csv.
"""

import pandas as pd

from config import Paths
from processing import columns as c
from processing.errors import PipelineError
from processing.splits import load_splits
from processing.tables import read_processed


def find_held_out(paths: Paths, table: pd.DataFrame, fold: str) -> set[str]:
    """The eyes that a fold leaves out.

    Args:
        paths: config.Paths.
        table: train.csv's table.
        fold: "none", or the fold's number as text.

    Returns:
        set of patient IDs, empty for "none".

    Raises:
        PipelineError: the splits cannot be drawn or used, or lack that fold.
    """
    if fold == "none":
        return set()
    folds = load_splits(paths.splits, table.drop_duplicates(c.PATIENT))
    if int(fold) >= len(folds):
        raise PipelineError(f"{paths.splits} has {len(folds)} folds, 0 to {len(folds) - 1}; there is no fold {fold}.")
    return folds[int(fold)]


def refill_means(table: pd.DataFrame, paths: Paths, held_out: set[str]) -> pd.DataFrame:
    """`table` with its missing measures filled anew by means over the eyes that are not held out.

    Option 0 fills what is missing with means over all annotated eyes; to a held-out eye those are no secret kept.

    Args:
        table: train.csv's table.
        paths: config.Paths.
        held_out: set of patient IDs.

    Returns:
        DataFrame: a copy; the same where nothing is missing.
    """
    eyes = read_processed(paths.eye_table, c.EYE_COLUMNS)
    eyes = eyes[eyes[c.DATA_TYPE] == "train"]
    means = fit_means(eyes[~eyes[c.PATIENT].isin(held_out)])
    return apply_means(table, eyes, means)


def fit_means(eyes: pd.DataFrame) -> pd.DataFrame:
    """Means of the measures over each round's eyes: DataFrame, round x measure; missing values do not count."""
    return eyes.groupby(c.FINAL)[c.MEASURES].mean()


def apply_means(table: pd.DataFrame, eyes: pd.DataFrame, means: pd.DataFrame) -> pd.DataFrame:
    """`table` (rows of eyes) with `means` where `eyes` has no value; arguments as fit_means gives and takes them."""
    filled = table.copy()
    raw = eyes.set_index(c.PATIENT)
    for name in filled.columns.intersection(c.MEASURES):
        missing = filled[c.PATIENT].map(raw[name]).isna()
        filled[name] = filled[name].astype(float).mask(missing, filled[c.FINAL].map(means[name]))
    return filled


def split_rows(rows: pd.DataFrame, held_out: set[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows to train on and rows that are held out: two DataFrames."""
    unseen = rows[c.PATIENT].isin(held_out) if held_out else pd.Series(False, index=rows.index)
    return rows[~unseen], rows[unseen]
