"""The three submission files: which rows and columns they have, and writing them whole or not at all.

Reads the templates in data/submit; writes model/result/<time>/.
"""

import io
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from config import Paths
from processing import columns as c
from processing.errors import PipelineError
from processing.files import new_timed_folder, write_bytes, write_csv, write_json
from processing.reader import read_header, read_table
from processing.tables import TEMPLATE_PARSERS

DECIMALS = 6
PROBABILITIES = [c.CONTINUE, *c.PRE_FINDINGS, *c.FINDINGS]


class Sheet(NamedTuple):
    """One submission file: first the rows that are asked for, in the end with all that is answered."""

    rows: pd.DataFrame      # the file's keys; of images, `after` too; in the end every column of `header`
    header: dict[str, str]  # column -> its name in the file, in the file's order


class Submission(NamedTuple):
    """The three files."""

    stage1: Sheet
    stage2_case: Sheet
    stage2_pic: Sheet


def read_templates(paths: Paths, test: pd.DataFrame) -> Submission:
    """Read which rows and columns each file must have: the template's, or without one the test table's and 2021's.

    Args:
        paths: config.Paths.
        test: test.csv's table.

    Returns:
        Submission whose sheets have rows without answers.

    Raises:
        PipelineError: a template is faulty, or asks for what no model answers.
    """
    rounds = {c.STAGE1: 0, c.STAGE2_CASE: 1, c.STAGE2_PIC: 1}
    folder = list(paths.submit.iterdir()) if paths.submit.is_dir() else []
    sheets = []
    for name, final in rounds.items():
        file = next((file for file in folder if file.name.lower() == name), None)
        if file:
            keys = TEMPLATE_PARSERS[name]
            rows, header = read_table(file, keys, unique=[next(iter(keys))]), _read_columns(file, name)
        else:
            rows = test[test[c.FINAL] == final].reset_index(drop=True)
            rows[c.IMAGE_NUMBER] = [str(number + 1) for number in range(len(rows))]
            rows, header = rows[[*TEMPLATE_PARSERS[name]]], {column: column for column in c.SUBMISSION_COLUMNS[name]}
        if name == c.STAGE2_PIC:
            rows = rows.assign(**{c.AFTER: (rows[c.INJECTION] == c.POST).astype(int)})
        else:
            rows = rows.drop_duplicates(ignore_index=True)
        sheets.append(Sheet(rows, header))
    return Submission(*sheets)


def _read_columns(file, name):
    """The columns of a template, and how it spells each: what is not known, or there twice, cannot be answered."""
    known = {column.lower(): column for column in (*TEMPLATE_PARSERS[name], *c.TEMPLATE_ANSWERS[name])}
    names = read_header(file)
    unknown = [column for column in names if column.lower() not in known]
    lowered = [column.lower() for column in names]
    doubled = [column for column in names if lowered.count(column.lower()) > 1]
    answers = ", ".join(c.TEMPLATE_ANSWERS[name])
    if unknown:
        raise PipelineError(f"{file}: no model answers the column {', '.join(map(repr, unknown))}; take it out of the "
                            f"template. Answered are {answers}.")
    if doubled:
        raise PipelineError(f"{file}: the column {doubled[0]!r} is there {len(doubled)} times; keep one.")
    if len(names) == len(TEMPLATE_PARSERS[name]):
        raise PipelineError(f"{file} asks for nothing: it has no column to be answered. Answered are {answers}.")
    return {known[column.lower()]: column for column in names}


def write_submission(paths: Paths, submission: Submission, origin: dict, *,
                     beside: dict[str, pd.DataFrame] | None = None) -> Path:
    """Write the three files, submit.zip and runs.json into a new folder under model/result.

    Args:
        paths: config.Paths.
        submission: Submission, each sheet with every column of its header.
        origin: dict of plain values: which option and runs it came from.
        beside: further tables by file name, which are no part of submit.zip.

    Returns:
        The folder.

    Raises:
        PipelineError: a value is not finite or out of range, or the folder cannot be written; nothing is left.
    """
    tables = {}
    for name, (rows, header) in zip(c.SUBMISSION_COLUMNS, submission, strict=True):
        table = rows[[*header]].round(DECIMALS)
        _check_values(name, table)
        tables[name] = table.rename(columns=header)
    with new_timed_folder(paths.result) as folder:
        for name, table in tables.items():
            write_csv(folder.path / name, table)
        for name, table in (beside or {}).items():
            write_csv(folder.path / name, table.round(DECIMALS))
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
            for name in tables:
                file.writestr(zipfile.ZipInfo(name), (folder.path / name).read_bytes(), zipfile.ZIP_DEFLATED)
        write_bytes(folder.path / "submit.zip", archive.getvalue())
        write_json(folder.path / "runs.json", origin | {"written": datetime.now(UTC).isoformat(timespec="seconds")})
    return folder.path


def _check_values(name, table):
    """Every number finite, 0 or more; probabilities 1 or less."""
    for column in table.columns.difference([*TEMPLATE_PARSERS[name]]):
        values = table[column].to_numpy(float)
        wrong = ~np.isfinite(values) | (values < 0) | (values > (1 if column in PROBABILITIES else np.inf))
        if wrong.any():
            row = table[wrong].iloc[0]
            raise PipelineError(
                f"{name}: {column} of {row[c.PATIENT]} would be {row[column]} (and {wrong.sum() - 1} more such "
                "values); nothing was written. A model gives numbers that are none: train it again."
            )
