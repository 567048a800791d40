"""Which eyes a run leaves out, and means that are fitted without them.

Reads data/processed/splits.json and csv/eyes.csv.
"""

from collections.abc import Collection
from pathlib import Path

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


def refuse_learned(learned: Collection[str] | None, held_out: set[str], *, whose: Path | str, advice: str) -> None:
    """What has learned from an eye of a person gives no held-out figure on that person's eyes.

    Args:
        learned: patient IDs of the eyes that some weights come from; None: not known.
        held_out: of those that are to be measured on; if there are none, nothing is refused.
        whose: the weights' file.
        advice: what to do instead.

    Raises:
        PipelineError: a person is in both, or may be.
    """
    if not held_out:
        return
    if learned is None:
        raise PipelineError(f"{whose} does not say which eyes it has learned from; they may be among the "
                            f"{len(held_out)} held-out ones, and a figure on these would not be one of unseen eyes. "
                            f"{advice}")
    persons = set(map(c.person_of, learned))
    seen = sorted(patient for patient in held_out if c.person_of(patient) in persons)
    if seen:
        raise PipelineError(f"{whose} has learned from persons of {len(seen)} of the {len(held_out)} held-out eyes, "
                            f"the first is {seen[0]}; a figure on these would not be one of unseen eyes. {advice}")


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
