"""The tables of a synthetic data set: annotations, test information, templates, truth.

Writes the eight tables under their real names and the truth of the test eyes; reads nothing. Columns, texts,
missing values and blanks are as in the real tables.
"""

import numpy as np
import pandas as pd

from config import VIEWS, Paths
from processing import columns as c
from processing.demo.cases import SHOWN_FINDINGS, SHOWN_PRE_FINDINGS
from processing.eye.phantom import FUNDUS_PX
from processing.eye.section import cut_section, visible_findings
from processing.files import write_csv

PRELIMINARY_INFO = [c.PATIENT, c.GENDER, c.AGE, c.DIAGNOSIS, c.PRE_VA, c.DRUG]
ANNOTATION = [*PRELIMINARY_INFO, c.PRE_CST, *c.PRE_FINDINGS, c.VA, c.CONTINUE, c.CST, *c.FINDINGS]
FINAL_INFO = [c.PATIENT, c.GENDER, c.AGE, c.DIAGNOSIS, c.DRUG, c.PRE_VA]
FINAL_CASE = [*FINAL_INFO, c.PRE_CST, c.VA, c.CST, c.CONTINUE]
FINAL_PIC = [c.PATIENT, c.INJECTION, c.IMAGE, *c.FINDINGS]
MISSING_EVERY = 9           # one row in nine lacks something, as in the real annotation


def write_tables(paths: Paths, sets: dict, sittings: dict) -> None:
    """Write every table.

    Args:
        paths: config.Paths.
        sets: dict of a set's folder below paths.source -> list of cases.Case.
        sittings: dict of the same -> list of demo.Sitting.
    """
    rows = {name: pd.DataFrame([_describe_case(case) for case in cases]) for name, cases in sets.items()}
    source, (train1, test1, train2, test2) = paths.source, sets
    write_csv(source / train1 / "TrainingAnnotation.csv", _remove_some_values(_add_columns(rows[train1], ANNOTATION)))
    write_csv(source / test1 / "PreliminaryValidationSet_Info.csv", rows[test1][PRELIMINARY_INFO])
    write_csv(source / train2 / "train_anno_case.csv", _replace_codes_by_words(rows[train2][FINAL_CASE]))
    write_csv(source / test2 / "test_info.csv", _replace_codes_by_words(rows[test2][FINAL_INFO]))
    floats = dict.fromkeys(SHOWN_FINDINGS, float)       # 1.0, as the real table writes them
    pictures = _describe_pictures(sittings[train2]).astype(floats)
    write_csv(source / train2 / "train_anno_pic.csv", _add_columns(pictures, FINAL_PIC))
    pictures = _describe_pictures(sittings[test2])
    pictures[c.IMAGE_NUMBER] = np.arange(1, len(pictures) + 1)
    _write_answers(paths, c.STAGE1, rows[test1], padded=[c.CONTINUE, "IRF", "SRF", "HRF"])
    _write_answers(paths, c.STAGE2_CASE, rows[test2])
    _write_answers(paths, c.STAGE2_PIC, pictures)


def _describe_case(case):
    before, after = case.before, case.after
    return {c.PATIENT: case.patient, c.GENDER: case.gender, c.AGE: case.age, c.DIAGNOSIS: case.diagnosis,
            c.DRUG: case.drug, c.PRE_VA: case.pre_va, c.VA: case.va, c.CONTINUE: case.continues,
            c.PRE_CST: int(before.cst_um), c.CST: int(after.cst_um),
            **dict(zip(SHOWN_PRE_FINDINGS, before.findings, strict=True)),
            **dict(zip(SHOWN_FINDINGS, after.findings, strict=True))}


def _describe_pictures(sittings):
    """One row per screen: what that B-scan shows inside the box of the view bscan."""
    rows, view = [], VIEWS["bscan"]
    for sitting in sittings:
        columns = slice(view.left - FUNDUS_PX, min(view.right - FUNDUS_PX, sitting.width))
        for scan, file in zip(sitting.scans, sitting.files, strict=True):
            seen = visible_findings(cut_section(sitting.visit, scan, width=sitting.width), columns=columns)
            rows.append({c.PATIENT: sitting.case.patient, c.INJECTION: sitting.injection, c.IMAGE: file.stem,
                         **dict(zip(SHOWN_FINDINGS, seen, strict=True))})
    return pd.DataFrame(rows)


def _add_columns(table, columns):
    """The given columns; those of findings that the demonstration does not show hold `nan`."""
    return table.reindex(columns=columns, fill_value="nan")


def _remove_some_values(annotation):
    """Put `nan` where real annotators left gaps: a visit's CST and findings, an acuity, a decision."""
    table = annotation.astype(object)
    lost = [[c.CST, *c.FINDINGS], [c.PRE_CST, *c.PRE_FINDINGS], [c.VA], [c.CONTINUE]]
    for turn, row in enumerate(range(MISSING_EVERY - 2, len(table), MISSING_EVERY)):
        table.loc[row, lost[turn % len(lost)]] = "nan"
    return table


def _replace_codes_by_words(table):
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


def _write_answers(paths, name, rows, *, padded=()):
    """The truth beside the data, and the template: the same rows with zeros, some written with a blank."""
    truth = rows[c.TEMPLATE_COLUMNS[name]]
    write_csv(paths.truth / name, truth)
    template = truth.copy()
    for column in truth.columns.drop(c.SUBMISSION_KEYS[name]):
        template[column] = "0.00 " if column in padded else 0
    write_csv(paths.submit / name, template)
