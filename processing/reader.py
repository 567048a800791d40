"""A CSV file from anywhere becomes typed columns, or one report of all its faults.

Knows encodings and cells; what a column means is said by the caller, as one parser per column.
"""

import csv
import io
from pathlib import Path

import numpy as np
import pandas as pd

from processing.errors import PipelineError

ENCODINGS = ("utf-8-sig", "gb18030")
MISSING = ("", "nan", "na", "null", "none")     # in lower case
MAX_FAULTS_SHOWN = 20


class CellError(ValueError):
    """A cell that its column cannot hold; the message says what the column wants."""


def text(cell):
    """Any text but none at all."""
    if cell.lower() in MISSING:
        raise CellError("text is wanted, the cell is empty")
    return cell


def number(cell):
    """A finite number; NaN where the cell is missing."""
    if cell.lower() in MISSING:
        return np.nan
    try:
        value = float(cell)
    except ValueError:
        raise CellError("a number is wanted") from None
    if not np.isfinite(value):
        raise CellError("a finite number is wanted")
    return value


def code(codes):
    """A parser for one of the keys of `codes` (text -> number), in any case; nothing else, not even missing."""
    lowered = {key.lower(): value for key, value in codes.items()}

    def parse(cell):
        if cell.lower() not in lowered:
            raise CellError(f"the known values are {', '.join(codes)}")
        return lowered[cell.lower()]

    return parse


def read_table(path, parsers, *, unique=()):
    """Read a CSV file into the columns that `parsers` names; other columns are left out.

    Args:
        path: the file; UTF-8 (with a byte order mark or without) or GB 18030.
        parsers: dict of column name -> function from a cell's text, without blanks at its ends, to a value;
            it raises CellError.
        unique: columns whose values together may occur once only.

    Returns:
        DataFrame with the columns in the order of `parsers`, one row per line.

    Raises:
        PipelineError: one message with every fault: file, row (as in an editor, the header is row 1),
            column, value.
    """
    header, lines = _read_cells(path)
    absent = [name for name in parsers if name not in header]
    if absent:
        raise PipelineError(f"{path}: the columns {', '.join(absent)} are missing; it has {', '.join(header)}.")
    faults, values = [], {}
    for name, parse in parsers.items():
        place = header.index(name)
        values[name] = [_parse(parse, cells[place], f"row {row}, {name}", faults) for row, cells in lines]
    faults += _repeated_rows([row for row, _ in lines], [values[name] for name in unique])
    if faults:
        raise PipelineError(_report(path, faults))
    return pd.DataFrame(values)


def _read_cells(path):
    """The header and (row number, cells) of each line that is not empty; every line as long as the header."""
    content = _decode(path)
    lines = [
        (row, [cell.strip() for cell in cells])
        for row, cells in enumerate(csv.reader(io.StringIO(content)), start=1)
        if any(cell.strip() for cell in cells)
    ]
    if not lines:
        raise PipelineError(f"{path} is empty; a table with a header line is wanted.")
    header = lines[0][1]
    odd = [f"row {row} has {len(cells)} cells" for row, cells in lines[1:] if len(cells) != len(header)]
    if odd:
        raise PipelineError(_report(path, [f"{fault}, the header has {len(header)}" for fault in odd]))
    return header, lines[1:]


def _decode(path):
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise PipelineError(f"{path} cannot be read: {error.strerror or error}.") from error
    for encoding in ENCODINGS:
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise PipelineError(f"{path} is not text in UTF-8 or GB 18030; save it as UTF-8.")


def _parse(parse, cell, place, faults):
    try:
        return parse(cell)
    except CellError as error:
        faults.append(f"{place}: {cell!r}; {error}")
        return None


def _repeated_rows(rows, columns):
    """A fault for each row whose values in `columns` stand in an earlier row too."""
    faults, first = [], {}
    for row, key in zip(rows, zip(*columns, strict=True), strict=False):
        earlier = first.setdefault(key, row)
        if earlier != row:
            faults.append(f"row {row}: {', '.join(map(str, key))} stands in row {earlier} already")
    return faults


def _report(path, faults):
    more = len(faults) - MAX_FAULTS_SHOWN
    shown = faults[:MAX_FAULTS_SHOWN] + ([f"and {more} more"] if more > 0 else [])
    return f"{path} cannot be used; correct it and run again:\n  " + "\n  ".join(shown)
