"""The tables of a synthetic data set: annotations, test information, templates, truth.

Writes the eight tables under their real names and the truth of the test eyes; reads nothing. Columns, texts,
missing values and blanks are as in the real tables.
"""

import numpy as np
import pandas as pd

from config import CROP
from processing import tables as t
from processing.demo.phantom import FUNDUS_PX
from processing.demo.section import cut_section, visible_findings
from processing.files import write_csv

IRF, SRF, PED, HRF = t.FINDINGS
PRELIMINARY_INFO = [t.PATIENT, t.GENDER, t.AGE, t.DIAGNOSIS, t.PRE_VA, t.DRUG]
ANNOTATION = [*PRELIMINARY_INFO, t.PRE_CST, *t.PRE_FINDINGS, t.VA, t.CONTINUE, t.CST, *t.FINDINGS]
FINAL_INFO = [t.PATIENT, t.GENDER, t.AGE, t.DIAGNOSIS, t.DRUG, t.PRE_VA]
FINAL_CASE = [*FINAL_INFO, t.PRE_CST, t.VA, t.CST, t.CONTINUE]
FINAL_PIC = [t.PATIENT, t.INJECTION, t.IMAGE, *t.FINDINGS]
STAGE1 = [t.PATIENT, t.PRE_CST, t.VA, t.CONTINUE, t.CST, IRF, SRF, HRF]
STAGE2_CASE = [t.PATIENT, t.VA, t.CONTINUE, t.PRE_CST, t.CST]
STAGE2_PIC = [t.IMAGE_NUMBER, t.PATIENT, t.INJECTION, t.IMAGE, IRF, SRF, PED]
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
    floats = dict.fromkeys(t.FINDINGS, float)           # 1.0, as the real table writes them
    write_csv(source / train2 / "train_anno_pic.csv", _pictures(sittings[train2])[FINAL_PIC].astype(floats))
    pictures = _pictures(sittings[test2])
    pictures[t.IMAGE_NUMBER] = np.arange(1, len(pictures) + 1)
    _write_answers(paths, "stage1", rows[test1][STAGE1], keys=[t.PATIENT], padded=[t.CONTINUE, IRF, SRF, HRF])
    _write_answers(paths, "stage2_case", rows[test2][STAGE2_CASE], keys=[t.PATIENT])
    _write_answers(paths, "stage2_pic", pictures[STAGE2_PIC], keys=STAGE2_PIC[:4])


def _case_row(case):
    before, after = case.before, case.after
    return {t.PATIENT: case.patient, t.GENDER: case.gender, t.AGE: case.age, t.DIAGNOSIS: case.diagnosis,
            t.DRUG: case.drug, t.PRE_VA: case.pre_va, t.VA: case.va, t.CONTINUE: case.continues,
            t.PRE_CST: int(before.cst_um), t.CST: int(after.cst_um),
            **dict(zip(t.PRE_FINDINGS, before.findings, strict=True)),
            **dict(zip(t.FINDINGS, after.findings, strict=True))}


def _pictures(sittings):
    return pd.DataFrame([row for sitting in sittings for row in _picture_rows(sitting)])


def _picture_rows(sitting):
    """One row per screen: what that B-scan shows inside the crop box."""
    columns = slice(CROP.left - FUNDUS_PX, min(CROP.right - FUNDUS_PX, sitting.width))
    for scan, file in zip(sitting.scans, sitting.files, strict=True):
        seen = visible_findings(cut_section(sitting.visit, scan, width=sitting.width), columns=columns)
        yield {t.PATIENT: sitting.case.patient, t.INJECTION: sitting.injection, t.IMAGE: file.stem,
               **dict(zip(t.FINDINGS, seen, strict=True))}


def _lose_some(annotation):
    """`nan` where real annotators left gaps: a visit's CST and findings, an acuity, a decision."""
    table = annotation.astype(object)
    lost = [[t.CST, *t.FINDINGS], [t.PRE_CST, *t.PRE_FINDINGS], [t.VA], [t.CONTINUE]]
    for turn, row in enumerate(range(MISSING_EVERY - 2, len(table), MISSING_EVERY)):
        table.loc[row, lost[turn % len(lost)]] = "nan"
    return table


def _in_words(table):
    """Codes to the final round's texts, one of them with a trailing blank; acuity as 32-bit floats."""
    words = {t.GENDER: t.GENDERS, t.DIAGNOSIS: t.DIAGNOSES, t.DRUG: t.DRUGS}
    table = table.copy()
    for column, codes in words.items():
        first_word = {code: word for word, code in reversed(codes.items())}
        table[column] = table[column].map(first_word)
    males = table.index[table[t.GENDER] == "Male"]
    table.loc[males[1:2], t.GENDER] = "Male "
    for column in table.columns.intersection([t.PRE_VA, t.VA]):
        table[column] = [f"{np.float32(value):.9f}".rstrip("0").rstrip(".") for value in table[column]]
    return table


def _write_answers(paths, name, truth, *, keys, padded=()):
    """The truth beside the data, and the template: the same rows with zeros, some written with a blank."""
    write_csv(paths.truth / f"submit_{name}.csv", truth)
    template = truth.copy()
    for column in truth.columns.drop(keys):
        template[column] = "0.00 " if column in padded else 0
    write_csv(paths.submit / f"submit_{name}.csv", template)
