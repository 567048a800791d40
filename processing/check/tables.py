"""Every cell of the annotation tables and templates: can it be read, is it plausible, in which unit is it.

Reads the tables that it is given; writes nothing.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from config import Paths
from processing import columns as c
from processing.check.kinds import Finding, find
from processing.reader import MISSING, CellError, Fault, parse_table, read_lines
from processing.source import TABLE_FILES
from processing.tables import EYE_TABLES, PARSERS

PIC_KEY = [c.PATIENT, c.INJECTION, c.IMAGE]       # one image of the final round
ACUITIES = (c.PRE_VA, c.VA)
CATEGORIES = (c.GENDER, c.DIAGNOSIS, c.DRUG, c.INJECTION)
NUMBERS = (*c.MEASURES, *c.ANSWERS)

AGE_RANGE = (1, 110)        # years
CST_RANGE = (100, 1500)     # um; no macula is thinner, and none of a seeing eye thicker
VA_RANGE = {"preliminary": (0, 3), "final": (0, 2)}     # logMAR to light perception (3); decimal to 6/3 (2)

# Above this no decimal chart goes (6/3.75), while 15 to 20 % of the real logMAR values do (counting fingers)
DECIMAL_TOP = 1.6
# Of so many real logMAR values one or more is above DECIMAL_TOP, but for a chance of 0.84^40 = 0.1 %
ENOUGH_VALUES = 40
# Decimal 0 is no sight at all (none is typed as a number in the real tables), logMAR 0 is full sight; three,
# so that single slips accuse no column; 2 %: a third of what the real decimal columns give when turned into logMAR
ODD_DECIMALS, ODD_SHARE = 3, 0.02


def check_tables(paths: Paths, files: dict[str, Path]) -> tuple[dict[str, pd.DataFrame], list[Finding]]:
    """Check the annotation tables, each on its own.

    Args:
        paths: config.Paths.
        files: by the keys of TABLE_FILES.

    Returns:
        tables: by the same keys, DataFrames of the columns that are there, numbers with NaN where there is none; the
            index `row` counts as an editor does.
        findings: what is wrong or odd in them.
    """
    tables, found = {}, []
    for key, file in files.items():
        name, round_name = paths.relative(file), TABLE_FILES[key][0]
        table, texts, faults = check_cells(name, file, PARSERS[key], unique=[c.PATIENT] if key in EYE_TABLES else [])
        found += faults + [find("answer-missing", name, column=column, detail="there is no such column")
                           for column in PARSERS[key] if column in c.OPTIONAL_FINDINGS and column not in table]
        for column in texts.columns.intersection(NUMBERS):
            table[column] = pd.to_numeric(table[column], errors="coerce")
            found += _check_gaps(name, texts[column]) + _check_values(name, table[column], texts[column], round_name)
            found += _check_unit(name, table[column], texts[column], round_name) if column in ACUITIES else []
        found += _check_doubled_labels(name, table) if key == "pic" else []
        tables[key] = table
    return tables, found


def check_cells(
    name: str, file: Path, parsers: dict[str, Callable], *, unique: Sequence[str] = (), known: Sequence[str] = ()
) -> tuple[pd.DataFrame, pd.DataFrame, list[Finding]]:
    """Read a table, and find what no stage can read, superfluous columns and blanks.

    Args:
        name: the file as findings name it.
        file: its path.
        parsers, unique: as for reader.read_table.
        known: columns that are not read but belong there.

    Returns:
        table: DataFrame as of reader.parse_table.
        texts: DataFrame of its cells as they stand in the file, without blanks at their ends.
        findings: what is wrong.
    """
    table, faults = parse_table(file, parsers, unique=unique, optional=c.OPTIONAL_FINDINGS)
    found = [
        find(_name_kind(fault, unique), name, fault.value or "", row=fault.row, column=fault.column or "",
             detail=fault.reason)
        for fault in faults
    ]
    try:
        _, [(_, header), *rows] = read_lines(file)
    except CellError:       # a finding already, or deleted since it was parsed
        return table.head(0), table.head(0).astype(str), found
    header, lines = [c.fold_text(cell) for cell in header], dict(rows)
    expected = {column.lower() for column in (*parsers, *known)}
    found += [find("column-extra", name, column=column) for column in header
              if column and column.lower() not in expected]
    places = {column.lower(): place for place, column in enumerate(header)}
    texts = {column: [lines[row][places[column.lower()]].strip() for row in table.index] for column in table.columns}
    for row in table.index:
        found += [find("cell-blank", name, cell, row=row, column=column)
                  for column, cell in zip(header, lines[row], strict=False) if column and cell != cell.strip()]
    return table, pd.DataFrame(texts, index=table.index, dtype=object), found


def _name_kind(fault: Fault, unique):
    """The kind of finding that a fault of the table reader is."""
    if fault.row is None:
        return "column-missing" if fault.column else "table-unreadable"
    if fault.column is None:
        return "row-odd"
    if fault.column in CATEGORIES:
        return "category-unknown"
    if fault.column in NUMBERS:
        return "number-wanted"
    is_named = (fault.value or "").lower() not in MISSING
    return "row-doubled" if fault.column == ", ".join(unique) and is_named else "key-missing"


def _check_gaps(name, texts):
    gaps = texts.str.lower().isin(MISSING)
    if texts.name in c.ANSWERS:
        return _find_each("answer-missing", name, texts[gaps])
    if len(gaps) and gaps.all():
        return [find("column-empty", name, column=texts.name)]
    return _find_each("measure-missing", name, texts[gaps])


def _find_each(kind, name, cells, detail=""):
    """A Finding for each cell of a Series."""
    return [find(kind, name, cell, row=row, column=cells.name, detail=detail) for row, cell in cells.items()]


def _check_values(name, values, texts, round_name):
    """Numbers out of range, and acuity that is no plain number."""
    if texts.name in c.ANSWERS:
        odd = values.notna() & ~values.isin((0, 1))
        return _find_each("continue-odd" if texts.name == c.CONTINUE else "answer-odd", name, texts[odd])
    kinds = {c.AGE: ("age-implausible", AGE_RANGE), c.PRE_CST: ("cst-implausible", CST_RANGE),
             c.CST: ("cst-implausible", CST_RANGE)}
    kind, (low, high) = kinds.get(texts.name, ("va-implausible", VA_RANGE[round_name]))
    found = _find_each(kind, name, texts[(values < low) | (values > high)], f"{low} to {high} is plausible")
    if texts.name in ACUITIES:
        typed = pd.to_numeric(texts, errors="coerce").astype(float)
        short = typed.round(3)      # a decimal of three places, equal to what is typed as a 32-bit float only
        as_float32 = (typed != short) & (typed.astype(np.float32) == short.astype(np.float32))
        found += _find_each("va-nlp", name, texts[texts.str.upper() == "NLP"])
        found += _find_each("va-float32", name, texts[as_float32])
    return found


def _check_unit(name, values, texts, round_name):
    """Whether a column of acuities looks, as a whole, like the other round's unit."""
    values = values[texts.str.upper() != "NLP"].dropna()
    if round_name == "preliminary":
        doubtful = (len(values) >= ENOUGH_VALUES and values.max() <= DECIMAL_TOP
                    and values.between(0, 0.1, "neither").any())
        detail = (f"the preliminary round is logMAR, where values above {DECIMAL_TOP} are common; of {len(values)} "
                  "here there is none, but some below 0.1, as decimals of nearly blind eyes have")
    else:
        odd = ((values == 0) | (values > DECIMAL_TOP)).sum()
        doubtful = odd >= max(ODD_DECIMALS, ODD_SHARE * len(values))
        detail = (f"the final round is decimal, where 0 and values above {DECIMAL_TOP} do not occur; here {odd} of "
                  f"{len(values)} are such, as full sight and counted fingers are in logMAR")
    return [find("unit-doubtful", name, column=texts.name, detail=detail)] if doubtful else []


def _check_doubled_labels(name, table):
    """Images with two rows or more: each later row against the first."""
    if not set(PIC_KEY) <= set(table.columns):
        return []
    found, first = [], {}
    labels = table[table.columns.intersection(c.FINDINGS)].fillna(0)      # a gap counts as 0
    for row, key in read_image_keys(table).items():
        earlier = first.setdefault(key, row)
        if earlier == row:
            continue
        here, before = labels.loc[row], labels.loc[earlier]
        other = [label for label in labels if here[label] != before[label]]
        detail = "; ".join(f"{label} is {here[label]:g}, in row {earlier} {before[label]:g}" for label in other)
        found.append(find("labels-contradict" if other else "labels-doubled", name, ", ".join(key), row=row,
                          column=", ".join(other), detail=detail or f"as row {earlier}"))
    return found


def read_image_keys(table: pd.DataFrame) -> dict:
    """dict of the table's index -> what names an image of the final round: patient ID, injection, image name.

    Args:
        table: DataFrame with PIC_KEY; rows with a gap there are left out.
    """
    keys = table[PIC_KEY].dropna()
    return dict(zip(keys.index, keys.itertuples(index=False, name=None), strict=True))
