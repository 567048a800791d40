import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_config import FOLDS
from processing import columns as c
from processing.errors import PipelineError
from processing.splits import draw_splits, load_splits


def make_eyes(persons, seed=0):
    """Eyes of so many persons, one or two each, of mixed rounds, diagnoses and outcomes."""
    rng = np.random.default_rng(seed)
    rows = [
        (f"{number:04}{side}", number % 3 == 0, rng.integers(1, 7), rng.integers(0, 2))
        for number in range(persons)
        for side in ("LR" if rng.random() < 0.6 else "L")
    ]
    return pd.DataFrame(rows, columns=[c.PATIENT, c.FINAL, c.DIAGNOSIS, c.CONTINUE])


@settings(max_examples=50, deadline=None)
@given(st.integers(FOLDS, 80), st.integers(0, 2**32 - 1))
def test_no_person_is_shared_and_every_eye_is_in_one_fold(persons, seed):
    eyes = make_eyes(persons, seed)
    folds = draw_splits(eyes, seed=seed)
    assert len(folds) == FOLDS
    assert all(folds)
    assert sorted(patient for fold in folds for patient in fold) == sorted(eyes[c.PATIENT])
    owners = [{c.person_of(patient) for patient in fold} for fold in folds]
    assert sum(map(len, owners)) == len(set.union(*owners))


def test_folds_are_balanced_over_round_diagnosis_and_outcome():
    eyes = make_eyes(600)
    for column in (c.FINAL, c.CONTINUE):
        shares = [eyes[column][eyes[c.PATIENT].isin(fold)].mean() for fold in draw_splits(eyes)]
        assert np.ptp(shares) < 0.03


def test_they_are_drawn_once_and_read_ever_after(tmp_path):
    eyes, file = make_eyes(30), tmp_path / "splits.json"
    folds = load_splits(file, eyes)
    assert folds == draw_splits(eyes)
    moved = [folds[1], folds[0], *folds[2:]]
    file.write_text(json.dumps({"folds": [sorted(fold) for fold in moved]}))
    assert load_splits(file, eyes) == moved


def test_an_eye_that_comes_later_is_in_the_fold_of_its_fellow_eye(tmp_path):
    eyes, file = make_eyes(30), tmp_path / "splits.json"
    later = eyes[c.PATIENT].map(c.person_of).duplicated()
    assert later.any()
    load_splits(file, eyes[~later])
    fold_of = {patient: number for number, fold in enumerate(load_splits(file, eyes)) for patient in fold}
    assert set(fold_of) == set(eyes[c.PATIENT])
    assert all(fold_of[patient] == fold_of[c.fellow_of(patient)] for patient in eyes[c.PATIENT][later])


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda folds: folds[1].append(folds[0][0]), r"person \S+ is in folds 0 and 1"),
        (lambda folds: folds[0].pop(), "lacks 1 eyes of train.csv"),
        (lambda folds: folds.clear(), "is damaged"),
        (lambda folds: folds.append([1]), "is damaged"),
    ],
)
def test_a_split_that_was_changed_by_hand_is_refused(tmp_path, edit, message):
    file = tmp_path / "splits.json"
    eyes = make_eyes(30)[lambda table: ~table[c.PATIENT].map(c.person_of).duplicated()]     # one eye each
    load_splits(file, eyes)
    content = json.loads(file.read_text())
    edit(content["folds"])
    file.write_text(json.dumps(content))
    with pytest.raises(PipelineError, match=message):
        load_splits(file, eyes)


def test_too_few_persons_are_refused(tmp_path):
    with pytest.raises(PipelineError, match="4 persons are too few for 5 folds"):
        load_splits(tmp_path / "splits.json", make_eyes(4))


def test_what_is_no_split_is_refused(tmp_path):
    (tmp_path / "splits.json").write_text("fold 1: 600L")
    with pytest.raises(PipelineError, match="splits.json is damaged.*Delete the file"):
        load_splits(tmp_path / "splits.json", make_eyes(10))


def test_splits_that_cannot_be_read_are_not_said_to_be_damaged(tmp_path):
    (tmp_path / "splits.json").mkdir()
    with pytest.raises(PipelineError, match="splits.json cannot be read: "):
        load_splits(tmp_path / "splits.json", pd.DataFrame())
