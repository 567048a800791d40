"""Every cell of the annotation tables and templates: can it be read, is it plausible, in which unit is it.

Reads the tables that it is given; writes nothing.
"""

import numpy as np
import pandas as pd

from processing import columns as c
from processing.check.kinds import find
from processing.reader import MISSING, CellError, parse_table, read_header, read_lines
from processing.source import TABLE_FILES
from processing.tables import PARSERS

PIC_KEY = [c.PATIENT, c.INJECTION, c.IMAGE]       # one image of the final round
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


def check_tables(paths, files):
    """Check the annotation tables, each on its own.

    Args:
        paths: config.Paths.
        files: dict of a key of TABLE_FILES -> Path.

    Returns:
        tables: dict of the same keys -> DataFrame of the columns that are there, numbers with NaN where there is
            none; the index `row` counts as an editor does.
        findings: list of Finding.
    """
    tables, found = {}, []
    for key, file in files.items():
        name, round_name = paths.relative(file), TABLE_FILES[key][0]
        table, texts, faults = check_cells(name, file, PARSERS[key], unique=[] if key == "pic" else [c.PATIENT])
        for column in table.columns.intersection(NUMBERS):
            table[column] = pd.to_numeric(table[column], errors="coerce")
        found += faults + _check_gaps(name, texts)
        found += _check_ranges(name, table, texts, va_range=VA_RANGE[round_name])
        found += _check_acuity_text(name, texts) + _check_units(name, table, texts, round_name=round_name)
        found += _check_doubled_labels(name, table) if key == "pic" else []
        tables[key] = table
    return tables, found


def check_cells(name, file, parsers, *, unique=(), known=()):
    """Read a table, and find what no stage can read, superfluous columns and blanks.

    Args:
        name: the file as findings name it.
        file: its Path.
        parsers, unique: as for reader.read_table.
        known: columns that are not read but belong there.

    Returns:
        table: DataFrame as of reader.parse_table.
        texts: DataFrame of its cells as they stand in the file, blanks and all.
        findings: list of Finding.
    """
    table, faults = parse_table(file, parsers, unique=unique)
    found = [
        find(_kind_of(fault, unique), name, fault.value or "", row=fault.row, column=fault.column or "",
             detail=fault.reason)
        for fault in faults
    ]
    expected = {column.lower() for column in (*parsers, *known)}
    found += [find("column-extra", name, column=column) for column in read_header(file)
              if column and column.lower() not in expected]
    texts, blank = _read_texts(file, table)
    found += [find("cell-blank", name, cell, row=row, column=column) for row, column, cell in blank]
    return table, texts, found


def _kind_of(fault, unique):
    if fault.row is None:
        return "column-missing" if fault.column else "table-unreadable"
    if fault.column is None:
        return "row-odd"
    if fault.column in CATEGORIES:
        return "category-unknown"
    if fault.column in NUMBERS:
        return "number-wanted"
    return "row-doubled" if fault.column == ", ".join(unique) and fault.value.lower() not in MISSING else "key-missing"


def _read_texts(file, table):
    """The cells of `table` without blanks at their ends, and (row, column, cell) of every cell that had some."""
    if table.empty:
        return table.astype(str), []
    try:
        _, lines = read_lines(file)
    except CellError:       # deleted since it was parsed
        return table.head(0).astype(str), []
    lines = dict(lines)
    header = [cell.strip() for cell in next(iter(lines.values()))]
    places = [place for place, column in enumerate(header) if column]
    blank = [(row, header[place], lines[row][place]) for row in table.index for place in places
             if lines[row][place] != lines[row][place].strip()]
    lowered = [column.lower() for column in header]
    texts = {name: [lines[row][lowered.index(name.lower())].strip() for row in table.index] for name in table.columns}
    return pd.DataFrame(texts, index=table.index), blank


def _each(kind, name, texts, *, mask, detail=""):
    """A Finding for each cell of the Series `texts` where `mask` is true."""
    cells = texts[np.asarray(mask)]
    return [find(kind, name, cell, row=row, column=texts.name, detail=detail) for row, cell in cells.items()]


def _check_gaps(name, texts):
    found = []
    for column in texts.columns.intersection(NUMBERS):
        gaps = texts[column].str.lower().isin(MISSING)
        if column in c.ANSWERS:
            found += _each("answer-missing", name, texts[column], mask=gaps)
        elif len(gaps) and gaps.all():
            found.append(find("column-empty", name, column=column))
        else:
            found += _each("measure-missing", name, texts[column], mask=gaps)
    return found


def _check_ranges(name, table, texts, *, va_range):
    kinds = {c.AGE: ("age-implausible", AGE_RANGE), c.PRE_CST: ("cst-implausible", CST_RANGE),
             c.CST: ("cst-implausible", CST_RANGE), c.PRE_VA: ("va-implausible", va_range),
             c.VA: ("va-implausible", va_range)}
    found = []
    for column, (kind, (low, high)) in kinds.items():
        if column in table:
            outside = (table[column] < low) | (table[column] > high)
            found += _each(kind, name, texts[column], mask=outside, detail=f"{low} to {high} is plausible")
    for column in table.columns.intersection(c.ANSWERS):
        odd = table[column].notna() & ~table[column].isin((0, 1))
        found += _each("continue-odd" if column == c.CONTINUE else "answer-odd", name, texts[column], mask=odd)
    return found


def _check_acuity_text(name, texts):
    """Acuity that is no plain number: NLP, and 32-bit floats, equal to a decimal of three places as such only."""
    found = []
    for column in texts.columns.intersection([c.PRE_VA, c.VA]):
        found += _each("va-nlp", name, texts[column], mask=texts[column].str.upper() == "NLP")
        values = pd.to_numeric(texts[column], errors="coerce").astype(float)
        short = values.round(3)
        as_float32 = (values != short) & (values.astype(np.float32) == short.astype(np.float32))
        found += _each("va-float32", name, texts[column], mask=as_float32)
    return found


def _check_units(name, table, texts, *, round_name):
    """Acuity columns whose values as a whole look like the other round's unit."""
    found = []
    for column in table.columns.intersection([c.PRE_VA, c.VA]):
        values = table[column][texts[column].str.upper() != "NLP"].dropna()
        doubt = _looks_decimal(values) if round_name == "preliminary" else _looks_logmar(values)
        if doubt:
            found.append(find("unit-doubtful", name, column=column, detail=doubt))
    return found


def _looks_decimal(values):
    """Why a logMAR column seems to be decimal, or ""."""
    if len(values) >= ENOUGH_VALUES and values.max() <= DECIMAL_TOP and values.between(0, 0.1, "neither").any():
        return (f"the preliminary round is logMAR, where values above {DECIMAL_TOP} are common; of {len(values)} here "
                "there is none, but some below 0.1, as decimals of nearly blind eyes have")
    return ""


def _looks_logmar(values):
    """Why a decimal column seems to be logMAR, or ""."""
    odd = ((values == 0) | (values > DECIMAL_TOP)).sum()
    if odd >= max(ODD_DECIMALS, ODD_SHARE * len(values)):
        return (f"the final round is decimal, where 0 and values above {DECIMAL_TOP} do not occur; here {odd} of "
                f"{len(values)} are such, as full sight and counted fingers are in logMAR")
    return ""


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


def read_image_keys(table):
    """dict of the table's index -> what names an image of the final round: patient ID, injection, image name.

    Args:
        table: DataFrame with PIC_KEY; rows with a gap there are left out.
    """
    keys = table[PIC_KEY].dropna()
    return dict(zip(keys.index, keys.itertuples(index=False, name=None), strict=True))
