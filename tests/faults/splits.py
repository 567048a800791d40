"""Splits: of generated tables, no person in two folds, and every eye in one."""

import random

from model_config import FOLDS
from processing import columns as c
from processing.splits import draw_splits
from tests.faults import Figure, scaled
from tests.test_splits import make_eyes

TABLES = 1000
MOST_PERSONS = 120


def shared_persons(share, _folder):
    """Tables of eyes of random persons, rounds, diagnoses and outcomes, divided into folds."""
    numbers, held, shared = random.Random(0), 0, 0
    cases = scaled(TABLES, share)
    for _ in range(cases):
        eyes = make_eyes(numbers.randint(FOLDS, MOST_PERSONS), seed=numbers.randrange(2**32))
        folds = draw_splits(eyes, seed=numbers.randrange(2**32))
        owners = [{c.person_of(patient) for patient in fold} for fold in folds]
        twice = sum(map(len, owners)) - len(set().union(*owners))
        whole = sorted(patient for fold in folds for patient in fold) == sorted(eyes[c.PATIENT])
        shared += twice
        held += twice == 0 and whole and len(folds) == FOLDS and all(folds)
    return Figure("generated tables divided by person", cases, held, f"{shared} persons shared")


FIGURES = [shared_persons]
