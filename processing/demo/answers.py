"""The tables of a synthetic data set: annotations, test information, templates, truth.

Writes the eight tables under their real names and the truth of the test eyes; reads nothing. Columns, texts,
missing values and blanks are as in the real tables.
"""

import numpy as np
import pandas as pd

from config import VIEWS
from processing import columns as c
from processing.demo.phantom import FUNDUS_PX
from processing.demo.section import cut_section, visible_findings
from processing.files import write_csv

IRF, SRF, PED, HRF = c.FINDINGS
PRELIMINARY_INFO = [c.PATIENT, c.GENDER, c.AGE, c.DIAGNOSIS, c.PRE_VA, c.DRUG]
ANNOTATION = [*PRELIMINARY_INFO, c.PRE_CST, *c.PRE_FINDINGS, c.VA, c.CONTINUE, c.CST, *c.FINDINGS]
FINAL_INFO = [c.PATIENT, c.GENDER, c.AGE, c.DIAGNOSIS, c.DRUG, c.PRE_VA]
FINAL_CASE = [*FINAL_INFO, c.PRE_CST, c.VA, c.CST, c.CONTINUE]
FINAL_PIC = [c.PATIENT, c.INJECTION, c.IMAGE, *c.FINDINGS]
STAGE1 = [c.PATIENT, c.PRE_CST, c.VA, c.CONTINUE, c.CST, IRF, SRF, HRF]
STAGE2_CASE = [c.PATIENT, c.VA, c.CONTINUE, c.PRE_CST, c.CST]
STAGE2_PIC = [c.IMAGE_NUMBER, c.PATIENT, c.INJECTION, c.IMAGE, IRF, SRF, PED]
MISSING_EVERY = 9           # one row in nine lacks something, as in the real annotation


def write_tables(paths, sets, sittings):
    """Write every table.

    Args:
        paths: config.Paths.
        sets: dict of a set's folder below paths.source -> list of cases.Case.
        sittings: dict of the same -> list of demo.Sitting.
    """
    rows = {name: pd.DataFrame([_case_row(case) for case in cases]) for name, cases in sets.items()}
    source, (train1, test1, train2, test2) = paths.source, sets
    write_csv(source / train1 / "TrainingAnnotation.csv", _lose_some(rows[train1][ANNOTATION]))
    write_csv(source / test1 / "PreliminaryValidationSet_Info.csv", rows[test1][PRELIMINARY_INFO])
    write_csv(source / train2 / "train_anno_case.csv", _in_words(rows[train2][FINAL_CASE]))
    write_csv(source / test2 / "test_info.csv", _in_words(rows[test2][FINAL_INFO]))
    floats = dict.fromkeys(c.FINDINGS, float)           # 1.0, as the real table writes them
    write_csv(source / train2 / "train_anno_pic.csv", _pictures(sittings[train2])[FINAL_PIC].astype(floats))
    pictures = _pictures(sittings[test2])
    pictures[c.IMAGE_NUMBER] = np.arange(1, len(pictures) + 1)
    _write_answers(paths, "stage1", rows[test1][STAGE1], keys=[c.PATIENT], padded=[c.CONTINUE, IRF, SRF, HRF])
    _write_answers(paths, "stage2_case", rows[test2][STAGE2_CASE], keys=[c.PATIENT])
    _write_answers(paths, "stage2_pic", pictures[STAGE2_PIC], keys=STAGE2_PIC[:4])


def _case_row(case):
    before, after = case.before, case.after
    return {c.PATIENT: case.patient, c.GENDER: case.gender, c.AGE: case.age, c.DIAGNOSIS: case.diagnosis,
            c.DRUG: case.drug, c.PRE_VA: case.pre_va, c.VA: case.va, c.CONTINUE: case.continues,
            c.PRE_CST: int(before.cst_um), c.CST: int(after.cst_um),
            **dict(zip(c.PRE_FINDINGS, before.findings, strict=True)),
            **dict(zip(c.FINDINGS, after.findings, strict=True))}


def _pictures(sittings):
    return pd.DataFrame([row for sitting in sittings for row in _picture_rows(sitting)])


def _picture_rows(sitting):
    """One row per screen: what that B-scan shows inside the box of the view bscan."""
    view = VIEWS["bscan"]
    columns = slice(view.left - FUNDUS_PX, min(view.right - FUNDUS_PX, sitting.width))
    for scan, file in zip(sitting.scans, sitting.files, strict=True):
        seen = visible_findings(cut_section(sitting.visit, scan, width=sitting.width), columns=columns)
        yield {c.PATIENT: sitting.case.patient, c.INJECTION: sitting.injection, c.IMAGE: file.stem,
               **dict(zip(c.FINDINGS, seen, strict=True))}


def _lose_some(annotation):
    """`nan` where real annotators left gaps: a visit's CST and findings, an acuity, a decision."""
    table = annotation.astype(object)
    lost = [[c.CST, *c.FINDINGS], [c.PRE_CST, *c.PRE_FINDINGS], [c.VA], [c.CONTINUE]]
    for turn, row in enumerate(range(MISSING_EVERY - 2, len(table), MISSING_EVERY)):
        table.loc[row, lost[turn % len(lost)]] = "nan"
    return table


def _in_words(table):
    """Codes to the final round's texts, one of them with a trailing blank; acuity as 32-bit floats."""
    words = {c.GENDER: c.GENDERS, c.DIAGNOSIS: c.DIAGNOSES, c.DRUG: c.DRUGS}
    table = table.copy()
    for column, codes in words.items():
        first_word = {code: word for word, code in reversed(codes.items())}
        table[column] = table[column].map(first_word)
    males = table.index[table[c.GENDER] == "Male"]
    table.loc[males[1:2], c.GENDER] = "Male "
    for column in table.columns.intersection([c.PRE_VA, c.VA]):
        table[column] = [f"{np.float32(value):.9f}".rstrip("0").rstrip(".") for value in table[column]]
    return table


def _write_answers(paths, name, truth, *, keys, padded=()):
    """The truth beside the data, and the template: the same rows with zeros, some written with a blank."""
    write_csv(paths.truth / f"submit_{name}.csv", truth)
    template = truth.copy()
    for column in truth.columns.drop(keys):
        template[column] = "0.00 " if column in padded else 0
    write_csv(paths.submit / f"submit_{name}.csv", template)
