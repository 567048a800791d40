"""Held-out eyes: all eyes of a person in one fold, drawn once and read ever after.

Reads and writes data/processed/splits.json: {"seed": ..., "folds": [[patient IDs], ...]}.
"""

import json
import warnings
from pathlib import Path

import pandas as pd

from model_config import FOLDS
from processing import columns as c
from processing.errors import PipelineError
from processing.files import read_if_there, write_json
from processing.terminal import say

SEED = 2021


def load_splits(path: Path, eyes: pd.DataFrame) -> list[set[str]]:
    """The folds of splits.json; draws and writes them where the file is not there yet.

    Args:
        path: of splits.json.
        eyes: DataFrame of the training eyes: patient ID, final, diagnosis, continue injection.

    Returns:
        list of sets of patient IDs, one per fold; an eye that the file does not list is in the fold of its fellow eye.

    Raises:
        PipelineError: too few persons, a damaged file, a person in two folds, an eye in none.
    """
    content = read_if_there(path)
    if content is None:
        folds = draw_splits(eyes)
        write_json(path, {"seed": SEED, "folds": [sorted(fold) for fold in folds]})
        say(f"The eyes are divided into {len(folds)} folds by person: {path}")
        content = path.read_bytes()
    try:
        folds = [set(fold) for fold in json.loads(content)["folds"]]
        wrong = not folds or not all(isinstance(patient, str) for fold in folds for patient in fold)
    except (ValueError, KeyError, TypeError) as error:
        raise PipelineError(f"{path} is damaged: {error!r}. {_DRAW_ANEW}") from error
    if wrong:
        raise PipelineError(f"{path} is damaged: no lists of patient IDs. {_DRAW_ANEW}")
    fold_of = _check_folds(path, folds, eyes[c.PATIENT])
    for patient in eyes[c.PATIENT]:
        folds[fold_of[c.person_of(patient)]].add(patient)
    return folds


def draw_splits(eyes: pd.DataFrame, folds: int = FOLDS, seed: int = SEED) -> list[set[str]]:
    """Divide eyes by person, balanced over round, diagnosis and continue injection.

    Returns:
        list of sets of patient IDs.

    Raises:
        PipelineError: fewer persons than folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold  # takes long to load, and is needed once

    eyes = eyes.drop_duplicates(c.PATIENT).sort_values(c.PATIENT)
    persons = eyes[c.PATIENT].map(c.person_of)
    if persons.nunique() < folds:
        raise PipelineError(f"{persons.nunique()} persons are too few for {folds} folds; use more data.")
    kinds = eyes[[c.FINAL, c.DIAGNOSIS, c.CONTINUE]].fillna(-1).astype(str).agg(" ".join, axis=1)
    if kinds.value_counts().max() < folds:      # so few eyes that no kind can be in every fold
        kinds[:] = "eye"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")     # kinds of fewer eyes than folds are balanced as well as can be
        drawn = StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(eyes, kinds, persons)
        drawn = [set(eyes[c.PATIENT].iloc[held_out]) for _, held_out in drawn]
    return _fill_empty_folds(drawn)


def _fill_empty_folds(folds):
    """Give an empty fold (of few persons, balance can leave one) a person of the largest."""
    for fold in folds:
        if not fold:
            largest = max(folds, key=lambda other: len({c.person_of(patient) for patient in other}))
            person = c.person_of(min(largest))
            moved = {patient for patient in largest if c.person_of(patient) == person}
            largest -= moved
            fold |= moved
    return folds


def _check_folds(path, folds, patients):
    """The fold of each person; raises PipelineError where one is in two, or an eye's in none."""
    fold_of = {}
    for number, fold in enumerate(folds):
        for patient in sorted(fold):
            earlier = fold_of.setdefault(c.person_of(patient), number)
            if earlier != number:
                raise PipelineError(
                    f"{path}: person {c.person_of(patient)} is in folds {earlier} and {number}; what is held out would "
                    f"not be unseen. {_DRAW_ANEW}"
                )
    absent = sorted(patient for patient in set(patients) if c.person_of(patient) not in fold_of)
    if absent:
        raise PipelineError(f"{path} lacks {len(absent)} eyes of train.csv, the first is {absent[0]}. {_DRAW_ANEW}")
    return fold_of


_DRAW_ANEW = "Delete the file, and it is drawn anew (earlier held-out figures then no longer compare)."
