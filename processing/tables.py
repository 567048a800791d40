"""Annotation tables become the processed tables and the case table."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from processing import columns as c
from processing.acuity import parse_decimal_va
from processing.errors import PipelineError
from processing.reader import CellError, code, number, parse_table, read_header, read_table, text
from processing.visits import join_visits

# ---- Annotation tables as handed out -> typed columns

def parse_patient(cell: str) -> str:
    """A cell of the column patient ID: it ends in a digit and the eye's letter."""
    patient = c.normalise_patient(text(cell))
    if not re.fullmatch(r".*[0-9][LR]", patient):
        raise CellError("a patient ID ends in a digit and L or R; take out the row if it is no eye's")
    return patient


def parse_visit(cell: str) -> str:
    """A cell of the column injection: PRE or POST."""
    return code({c.PRE: c.PRE, c.POST: c.POST})(cell)


def _parse_digits(codes):
    """A parser for whole numbers out of `codes`."""
    parse = code({str(value): value for value in codes})
    return lambda cell: parse(cell.removesuffix(".0"))      # a table saved again by a spreadsheet may hold 1.0


_PRELIMINARY_CLINICAL = {
    c.PATIENT: parse_patient,
    c.GENDER: _parse_digits(c.PRELIMINARY_GENDERS),
    c.AGE: number,
    c.DIAGNOSIS: _parse_digits(c.PRELIMINARY_DIAGNOSES),
    c.DRUG: _parse_digits(c.PRELIMINARY_DRUGS),
    c.PRE_VA: number,
}
_FINAL_CLINICAL = {
    c.PATIENT: parse_patient,
    c.GENDER: code(c.GENDERS),
    c.AGE: number,
    c.DIAGNOSIS: code(c.DIAGNOSES),
    c.DRUG: code(c.DRUGS),
    c.PRE_VA: parse_decimal_va,
}

# What each table must hold, by the keys of source.TABLE_FILES
PARSERS = {
    "annotation": _PRELIMINARY_CLINICAL | dict.fromkeys([c.PRE_CST, *c.PRE_FINDINGS, c.VA, c.CONTINUE, c.CST,
                                                         *c.FINDINGS], number),
    "preliminary_info": _PRELIMINARY_CLINICAL,
    "case": _FINAL_CLINICAL | {c.PRE_CST: number, c.VA: parse_decimal_va, c.CST: number, c.CONTINUE: number},
    "pic": {c.PATIENT: parse_patient, c.INJECTION: parse_visit, c.IMAGE: text} | dict.fromkeys(c.FINDINGS, number),
    "final_info": _FINAL_CLINICAL,
}
# What names a row of the submission templates, by file
_KEY_PARSERS = {c.IMAGE_NUMBER: text, c.PATIENT: parse_patient, c.INJECTION: parse_visit, c.IMAGE: text}
TEMPLATE_PARSERS = {file: {key: _KEY_PARSERS[key] for key in keys} for file, keys in c.SUBMISSION_KEYS.items()}

# Which tables have a row per eye: round and set
EYE_TABLES = {
    "annotation": (0, "train"), "preliminary_info": (0, "test"), "case": (1, "train"), "final_info": (1, "test"),
}


def read_raw_table(path: Path, table: str) -> pd.DataFrame:
    """Read one of the tables that are handed out, NaN where a value is missing.

    Eyes are unique in all of them but "pic", the findings of each image: the real one has eleven images of eye 513L
    twice, and both rows stay.

    Args:
        path: the file.
        table: a key of PARSERS.

    Returns:
        DataFrame with the columns of PARSERS[table]; one of c.OPTIONAL_FINDINGS that the file lacks holds NaN.

    Raises:
        PipelineError: all faults of the file.
    """
    unique = [c.PATIENT] if table in EYE_TABLES else []
    return read_table(path, PARSERS[table], unique=unique, optional=c.OPTIONAL_FINDINGS)


def read_sets(files: Iterable[tuple[str, Path]]) -> dict[tuple[str, str], str]:
    """The set of each eye as tables tell it; an eye that tables of both sets list has none.

    Args:
        files: pairs of a key of PARSERS and the file. What is wrong with one is not said here.

    Returns:
        dict of round and patient ID -> train or test.
    """
    sets = defaultdict(set)
    for table, file in files:
        final, data_type = (EYE_TABLES | {"pic": EYE_TABLES["case"]})[table]
        rows, _ = parse_table(file, {c.PATIENT: parse_patient})
        for eye in rows.get(c.PATIENT, pd.Series(dtype=object)).dropna():
            sets[c.ROUND_NAMES[final], eye].add(data_type)
    return {eye: found.pop() for eye, found in sets.items() if len(found) == 1}


def fill_missing(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Missing measures take the column's mean, missing findings and continue injection 0 (as in 2021).

    Args:
        table: of read_raw_table.
        path: of its file, for the error.

    Raises:
        PipelineError: a column without any value.
    """
    filled = table.copy()
    measures = filled.columns.intersection(c.MEASURES)
    empty = [f"\n  {name}: the column has no value at all" for name in measures if filled[name].isna().all()]
    if empty:
        raise PipelineError(f"{path} cannot be used; correct it and run again:{''.join(empty)}")
    for name in measures:
        filled[name] = filled[name].fillna(filled[name].mean())
    for name in filled.columns.intersection(c.ANSWERS):
        filled[name] = filled[name].fillna(0)
    if c.CONTINUE in filled:
        filled[c.CONTINUE] = filled[c.CONTINUE].clip(0, 1)
    return filled


# ---- Processed tables

def build_eye_table(raw: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """One row per annotated eye of both rounds, nothing filled in: what held-out scores and recipe best go by.

    Findings of a final eye are means over the annotated images of the visit; continue injection is clipped to 0-1.

    Args:
        raw: dict of a key of PARSERS -> table of read_raw_table.

    Returns:
        DataFrame with EYE_COLUMNS, sorted by round and patient ID.
    """
    parts = []
    for name, (final, data_type) in EYE_TABLES.items():
        if name in raw:
            part = raw[name].assign(**{c.FINAL: final, c.DATA_TYPE: data_type})
            if name == "case" and "pic" in raw:
                pic = raw["pic"].assign(**{c.AFTER: (raw["pic"][c.INJECTION] == c.POST).astype(int)})
                findings = join_visits(pic, eye=[], before=dict(zip(c.FINDINGS, c.PRE_FINDINGS, strict=True)),
                                       after={name: name for name in c.FINDINGS})
                part = part.merge(findings.reset_index(), on=c.PATIENT, how="left")
            parts.append(part.reindex(columns=c.EYE_COLUMNS))
    eyes = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=c.EYE_COLUMNS)
    eyes[c.SIDE] = eyes[c.PATIENT].str.endswith("R").astype(int)
    eyes[c.CONTINUE] = eyes[c.CONTINUE].clip(0, 1)
    return eyes.sort_values([c.FINAL, c.DATA_TYPE, c.PATIENT], ignore_index=True)


def build_train_table(
    images: pd.DataFrame, *, annotation: pd.DataFrame | None = None, case: pd.DataFrame | None = None,
    pic: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """One row per labelled training image.

    Args:
        images: DataFrame with IMAGE_COLUMNS (test images are left out).
        annotation, case, pic: tables of fill_missing, or None without that round.

    Returns:
        DataFrame with TRAIN_COLUMNS. A preliminary image carries its eye's findings of the visit; a final
        image its own findings, once per row of `pic`, and its eye's clinical row.
    """
    train = images[images[c.DATA_TYPE] == "train"]
    parts = []
    if annotation is not None:
        rows = train[train[c.FINAL] == 0].merge(annotation, on=c.PATIENT)
        before = rows[c.AFTER] == 0
        for finding, pre_finding in zip(c.FINDINGS, c.PRE_FINDINGS, strict=True):
            rows[finding] = rows[finding].where(~before, rows[pre_finding])
        parts.append(rows[c.TRAIN_COLUMNS])
    if case is not None and pic is not None:
        rows = train[train[c.FINAL] == 1].merge(pic, on=[c.PATIENT, c.INJECTION, c.IMAGE]).merge(case, on=c.PATIENT)
        parts.append(rows[c.TRAIN_COLUMNS])
    return _stack(parts, c.TRAIN_COLUMNS)


def build_test_table(
    images: pd.DataFrame, *, preliminary: pd.DataFrame | None = None, final: pd.DataFrame | None = None
) -> pd.DataFrame:
    """One row per test image with its eye's clinical row.

    Args:
        images: DataFrame with IMAGE_COLUMNS (training images are left out).
        preliminary, final: tables of fill_missing, or None without that round.

    Returns:
        DataFrame with TEST_COLUMNS.
    """
    test = images[images[c.DATA_TYPE] == "test"]
    parts = [
        test[test[c.FINAL] == number_of_round].merge(info, on=c.PATIENT)[c.TEST_COLUMNS]
        for number_of_round, info in ((0, preliminary), (1, final))
        if info is not None
    ]
    return _stack(parts, c.TEST_COLUMNS)


def build_case_table(train: pd.DataFrame) -> pd.DataFrame:
    """One row per training eye that has images of both visits: what Model-CSV is trained on.

    Clinical fields are means over all of the eye's rows; preVA, preCST and the pre-findings over its
    before-images; VA, CST and the findings over its after-images.

    Args:
        train: DataFrame with TRAIN_COLUMNS.

    Returns:
        DataFrame sorted by patient ID: patient ID, final, CSV_FEATURES, VA, continue injection.
    """
    measures = {c.PRE_VA: c.PRE_VA, c.PRE_CST: c.PRE_CST} | dict(zip(c.FINDINGS, c.PRE_FINDINGS, strict=True))
    cases = join_visits(
        train, eye=[c.FINAL, c.GENDER, c.AGE, c.DIAGNOSIS, c.DRUG, c.SIDE, c.CONTINUE], before=measures,
        after={name: name for name in (c.VA, c.CST, *c.FINDINGS)}, how="inner",
    )
    return cases.reset_index()[[c.PATIENT, c.FINAL, *c.CSV_FEATURES, c.VA, c.CONTINUE]]


def _stack(parts, columns):
    parts = [part for part in parts if len(part)]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


def read_processed(path: Path, columns: list[str]) -> pd.DataFrame:
    """Read image_data.csv, train.csv or test.csv back; IDs and names stay text.

    Args:
        path: the file.
        columns: what it must hold: IMAGE_COLUMNS, TRAIN_COLUMNS or TEST_COLUMNS.

    Raises:
        PipelineError: it is not there, or no such table.
    """
    if not path.is_file():
        raise PipelineError(f"{path} is not there. Option 0 (processing_data) makes it.")
    numbers = {name: ["", "nan"] for name in columns if name not in c.TEXT_COLUMNS}
    try:
        table = pd.read_csv(path, dtype=dict.fromkeys(c.TEXT_COLUMNS, str), keep_default_na=False, na_values=numbers)
    except (ValueError, OSError) as error:
        raise PipelineError(f"{path} cannot be read: {error}. {_MAKE_ANEW}") from error
    absent = [name for name in columns if name not in table]
    if absent:
        raise PipelineError(f"{path} lacks {', '.join(absent)}. {_MAKE_ANEW}")
    wrong = [name for name in numbers if len(table) and not pd.api.types.is_numeric_dtype(table[name])]
    if wrong:
        raise PipelineError(f"{path} holds text where numbers belong, in {', '.join(wrong)}. {_MAKE_ANEW}")
    return table


def read_history(path: Path) -> pd.DataFrame:
    """Read a run's history.csv back, as it was written or as a spreadsheet saved it.

    Returns:
        DataFrame, a row per epoch: `epoch`, `loss`, and what there is of `loss <part>` and `held-out loss`.

    Raises:
        PipelineError: it is not there, empty, or no such table.
    """
    losses = [name for name in read_header(path) if "loss" in name]
    table = read_table(path, dict.fromkeys(dict.fromkeys(["epoch", "loss", *losses]), number), unique=["epoch"])
    return table.dropna(subset="epoch").astype({"epoch": int}).reset_index(drop=True)


def read_measures(path: Path, numbers: Iterable[str] = (), *, optional: Sequence[str] = ()) -> pd.DataFrame:
    """Read measures.csv back, as option 11 wrote it or as a spreadsheet saved it.

    Args:
        path: the file.
        numbers: columns of numbers that are wanted; NaN where a cell is empty.
        optional: those of them that the file may lack; then they hold NaN.

    Returns:
        DataFrame with `file` (source_path), `problem`, c.MEASURED_STATE, and `numbers`.

    Raises:
        PipelineError: it is not there, or no such table.
    """
    texts = dict.fromkeys([c.FILE, c.PROBLEM, "scale", *c.MEASURED_STATE], str)
    table = read_table(path, texts | dict.fromkeys(numbers, number), unique=[c.FILE], optional=optional)
    return table.reset_index(drop=True)


_MAKE_ANEW = "Option 0 (processing_data) makes it anew."
