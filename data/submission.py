"""The three submission files: which rows they have, and writing them whole or not at all.

Reads the templates in data/submit; writes model/result/<time>/.
"""

import io
import zipfile
from datetime import datetime
from typing import NamedTuple

import numpy as np
import pandas as pd

from processing import columns as c
from processing.errors import PipelineError
from processing.files import new_timed_folder, write_bytes, write_csv, write_json
from processing.reader import read_table, text
from processing.tables import parse_patient, parse_visit

DECIMALS = 6


class Submission(NamedTuple):
    """One DataFrame per file: first the rows that are asked for, in the end with all of SUBMISSION_COLUMNS."""

    stage1: pd.DataFrame
    stage2_case: pd.DataFrame
    stage2_pic: pd.DataFrame


def read_templates(paths, test):
    """The rows that each file must have, in order: the template's, or without one the test table's.

    Args:
        paths: config.Paths.
        test: test.csv's table.

    Returns:
        Submission of tables with patient ID (stage2_pic: all of its columns but the findings, and `after`).

    Raises:
        PipelineError: a faulty template.
    """
    eyes = {final: rows[[c.PATIENT]].drop_duplicates(ignore_index=True) for final, rows in test.groupby(c.FINAL)}
    no_eyes = test[[c.PATIENT]].head(0)
    parsers = {c.IMAGE_NUMBER: text, c.PATIENT: parse_patient, c.INJECTION: parse_visit, c.IMAGE: text}
    pic = _read_template(paths.submit / c.STAGE2_PIC, parsers, unique=[c.IMAGE_NUMBER])
    if pic is None:
        pic = test[test[c.FINAL] == 1].reset_index(drop=True)
        pic = pic.assign(**{c.IMAGE_NUMBER: [str(number + 1) for number in range(len(pic))]})[list(parsers)]
    pic = pic.assign(**{c.AFTER: (pic[c.INJECTION] == c.POST).astype(int)})
    stage1, stage2 = (
        _read_template(paths.submit / name, {c.PATIENT: parse_patient}, unique=[c.PATIENT])
        for name in (c.STAGE1, c.STAGE2_CASE)
    )
    return Submission(
        eyes.get(0, no_eyes) if stage1 is None else stage1,
        eyes.get(1, no_eyes) if stage2 is None else stage2,
        pic,
    )


def _read_template(path, parsers, unique):
    """The template of that name, in any case, or None where there is none."""
    folder = path.parent.iterdir() if path.parent.is_dir() else ()
    files = [file for file in folder if file.name.lower() == path.name.lower()]
    return read_table(files[0], parsers, unique=unique) if files else None


def write_submission(paths, submission, origin):
    """Write the three files, submit.zip and runs.json into a new folder under model/result.

    Args:
        paths: config.Paths.
        submission: Submission, each table with the columns of SUBMISSION_COLUMNS.
        origin: dict of plain values: which option and runs it came from.

    Returns:
        The folder.

    Raises:
        PipelineError: a value is not finite or out of range, or the folder cannot be written; nothing is left.
    """
    tables = {}
    for (name, columns), table in zip(c.SUBMISSION_COLUMNS.items(), submission, strict=True):
        tables[name] = table[columns].round(DECIMALS)
        _check_values(name, tables[name])
    with new_timed_folder(paths.result) as folder:
        for name, table in tables.items():
            write_csv(folder.path / name, table)
        write_bytes(folder.path / "submit.zip", _zip(folder.path / name for name in tables))
        write_json(folder.path / "runs.json", origin | {"written": datetime.now().isoformat(timespec="seconds")})
    return folder.path


def _check_values(name, table):
    """Every number finite, 0 or more; probabilities 1 or less."""
    for column in table.columns.difference([c.IMAGE_NUMBER, c.PATIENT, c.INJECTION, c.IMAGE]):
        values = table[column].to_numpy(float)
        top = 1 if column in (c.CONTINUE, *c.FINDINGS) else np.inf
        wrong = ~np.isfinite(values) | (values < 0) | (values > top)
        if wrong.any():
            row = table[wrong].iloc[0]
            raise PipelineError(
                f"{name}: {column} of {row[c.PATIENT]} would be {row[column]} (and {wrong.sum() - 1} more such "
                "values); nothing was written. A model gives numbers that are none: train it again."
            )


def _zip(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in files:
            archive.writestr(zipfile.ZipInfo(file.name), file.read_bytes(), zipfile.ZIP_DEFLATED)
    return buffer.getvalue()
