"""Invent the clinical side of synthetic eyes: who, which disease, how treatment went.

Reads and writes no file. Relations are sensible, so that a model has something to learn: fluid thickens the
retina, treatment thins it, acuity follows thickness and findings, injections go on where fluid remains.
Everything is random and about nobody.
"""

from dataclasses import dataclass

import numpy as np

from processing import columns as c
from processing.acuity import to_decimal
from processing.eye.anatomy import Visit, grow_eye, plan_visit

# What the demonstration can show, whatever else the tables may hold
SHOWN_FINDINGS = ("IRF", "SRF", "PED", "HRF")
SHOWN_PRE_FINDINGS = ("preIRF", "preSRF", "prePED", "preHRF")

# Codes as in processing/columns.py, and how often each occurs
DIAGNOSIS_SHARES = {1: 0.35, 2: 0.2, 3: 0.35, 4: 0.06, 5: 0.04}     # wet AMD, PCV, DME, RVO, CME
DRUG_SHARES = {1: 0.75, 2: 0.1, 3: 0.1, 5: 0.05}    # bevacizumab, ranibizumab, aflibercept, triamcinolone
FELLOW, NO_DRUG = 6, 0                              # the untreated eye beside a treated one

LOGMAR_STEPS = np.array([0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.3, 2.0, 2.3])
DECIMAL_STEPS = np.array([1.0, 0.67, 0.5, 0.32, 0.25, 0.17, 0.1, 0.08, 0.05, 0.03, 0.017])  # 6/6 to 1/60

BEFORE_SHARES = np.array([0.5, 0.4, 0.45, 0.5])     # of eyes with IRF, SRF, PED, HRF before treatment
AFTER_SHARES = np.array([0.45, 0.3, 0.45, 0.45])    # and after
CONTINUE_SHARE = 0.5                                # of eyes whose treatment goes on
UNCHANGED_SHARE = 0.3                               # of eyes whose acuity stays as it was
SEVERITY_UM = ((60, 40), (440, 220))                # what IRF and SRF add to CST, from and to
CST_RANGE_UM = (180, 700)
NEVER = -9                                          # a score below all others


@dataclass(frozen=True)
class Case:
    """One eye: its row in the tables, and its two visits."""

    patient: str            # patient ID: one eye
    person: str             # without the eye's letter
    gender: int             # 1 male, 2 female
    age: int                # years
    diagnosis: int
    drug: int
    pre_va: float           # in the round's unit: logMAR or decimal
    va: float
    continues: int          # 1: injections go on
    before: Visit
    after: Visit

    @property
    def right(self) -> bool:
        return self.patient.endswith("R")


def invent_cases(patients: list[str], rng: np.random.Generator, *, final: bool, fellows: bool) -> list[Case]:
    """Invent one case per eye.

    Args:
        patients: patient IDs ending in L or R, two at least; both eyes of a person stand together.
        rng: numpy Generator.
        final: acuity decimal (True) or logMAR.
        fellows: the second eye of a person is an untreated fellow eye.

    Returns:
        list of Case. With two eyes or more, each finding and continue injection has both classes.
    """
    persons = [c.person_of(patient) for patient in patients]
    fellow = np.array([fellows and person in persons[:k] for k, person in enumerate(persons)])
    eyes = [grow_eye(rng, right=patient.endswith("R")) for patient in patients]
    before = _invent_findings(rng, rng.random((len(eyes), 4)), BEFORE_SHARES, fellow=fellow)
    after = _invent_findings(rng, 0.7 * before, AFTER_SHARES, fellow=fellow)    # 0.7: most findings stay
    pre_cst, cst = _invent_cst(rng, np.array([eye.fovea_um for eye in eyes]), before, after=after)
    wish = (cst - 250) / 150 + after[:, 0] + 0.7 * after[:, 1] + rng.normal(0, 0.5, len(eyes))
    continues = _mark_highest(np.where(fellow, NEVER, wish), CONTINUE_SHARE)
    lost = rng.gamma(2.0, 0.12, len(eyes))          # for good, logMAR
    logmar = [lost + 0.0015 * (thick - 220) + 0.08 * found.sum(axis=1) + rng.normal(0, 0.05, len(eyes))
              for thick, found in ((pre_cst, before), (cst, after))]
    pre_va, va = (_snap(to_decimal(v), DECIMAL_STEPS) if final else _snap(v, LOGMAR_STEPS) for v in logmar)
    va = np.where(rng.random(len(eyes)) < UNCHANGED_SHARE, pre_va, va)
    cases = []
    for k, patient in enumerate(patients):
        visits = [plan_visit(eyes[k], float(thick[k]), found[k], rng=rng)
                  for thick, found in ((pre_cst, before), (cst, after))]
        diagnosis, drug = (FELLOW, NO_DRUG) if fellow[k] else (
            int(rng.choice([*shares], p=[*shares.values()])) for shares in (DIAGNOSIS_SHARES, DRUG_SHARES))
        gender, age = int(rng.integers(1, 3)), int(rng.normal(63, 10))
        cases.append(Case(patient, persons[k], gender, age, diagnosis, drug,
                          float(pre_va[k]), float(va[k]), int(continues[k]), *visits))
    return cases


def _invent_findings(rng, leaning, shares, *, fellow):
    """0 / 1, eyes x 4: in each column the given share of eyes, those that lean to it most; no fellow eye."""
    score = leaning + rng.random(leaning.shape)
    score[fellow] = NEVER
    return np.stack([_mark_highest(score[:, k], shares[k]) for k in range(4)], axis=1)


def _mark_highest(score, share):
    """1 for the given share of the highest scores, at least one; 0 for the others, at least one."""
    count = int(np.clip(round(share * len(score)), 1, len(score) - 1))
    marks = np.zeros(len(score), int)
    marks[np.argsort(-score, kind="stable")[:count]] = 1
    return marks


def _invent_cst(rng, fovea_um, before, *, after):
    """CST before and after, whole um: cysts and subretinal fluid thicken, treatment leaves a share of it."""
    severity = rng.uniform(*SEVERITY_UM, (len(fovea_um), 2))        # of IRF, SRF
    left = rng.uniform(0.4, 1.1, (len(fovea_um), 1))
    for findings, thicker_um in ((before, severity), (after, severity * left)):
        cst = fovea_um + (findings[:, :2] * thicker_um).sum(axis=1) + rng.normal(0, 12, len(fovea_um))
        yield np.clip(np.rint(cst), *CST_RANGE_UM)


def _snap(values, steps):
    """The nearest step of the chart for each value."""
    return steps[np.abs(np.asarray(values)[:, None] - steps).argmin(axis=1)]
