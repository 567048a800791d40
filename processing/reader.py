"""A CSV file from anywhere becomes typed columns, or one report of all its faults.

Knows encodings, separators and cells; what a column means is said by the caller, as one parser per column.
"""

import codecs
import csv
import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from processing.errors import PipelineError

ENCODINGS = ("utf-8-sig", "gb18030")
SEPARATORS = (",", ";", "\t")
MISSING = ("", "nan", "na", "null", "none")     # in lower case
MAX_FAULTS_SHOWN = 200
MAX_HEADER_SHOWN = 300          # characters
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+([eE][+-]?\d+)?")
_END = "end of the table"       # a line put behind the last one: within a quoted cell, it is not found again


class CellError(ValueError):
    """A cell that its column cannot hold; the message says what the column wants."""


class Fault(NamedTuple):
    """Something in a table that cannot be used; what does not apply is None."""

    row: int | None         # as in an editor: the header is row 1
    column: str | None
    value: str | None       # the cell's text
    reason: str

    def __str__(self) -> str:
        place = ", ".join(part for part in (self.row and f"row {self.row}", self.column) if part)
        value = "" if self.value is None else f"{self.value!r}; "
        return (f"{place}: " if place else "") + value + self.reason


def text(cell: str) -> str:
    """Any text but none at all."""
    if cell.lower() in MISSING:
        raise CellError("text is wanted, the cell is empty")
    return cell


def number(cell: str) -> float:
    """A finite number; NaN where the cell is missing."""
    if cell.lower() in MISSING:
        return np.nan
    try:
        value = float(cell) if cell.isascii() and "_" not in cell else np.inf
    except ValueError:
        raise CellError("a number is wanted") from None
    if not np.isfinite(value):
        raise CellError("a finite number is wanted")
    return value


def code(codes: dict) -> Callable:
    """A parser for one of the keys of `codes` (text -> number), in any case; nothing else, not even missing."""
    lowered = {key.lower(): value for key, value in codes.items()}

    def parse(cell):
        if cell.lower() not in lowered:
            raise CellError(f"the known values are {', '.join(codes)}")
        return lowered[cell.lower()]

    return parse


def read_table(path: Path, parsers: dict[str, Callable], *, unique: Sequence[str] = (),
               optional: Sequence[str] = ()) -> pd.DataFrame:
    """Read a CSV file into the columns that `parsers` names; other columns are left out.

    Args:
        path: the file; UTF-8 (with a byte order mark or without), GB 18030 or marked UTF-16; cells parted by
            comma, semicolon (then with decimal commas too) or tab.
        parsers: dict of column name -> function from a cell's text, without blanks at its ends, to a value;
            it raises CellError.
        unique: columns whose values together may occur once only.
        optional: those of the columns that the file may lack; then they hold NaN.

    Returns:
        DataFrame with the columns in the order of `parsers`, one row per line.

    Raises:
        PipelineError: one message with every fault: file, row, column, value.
    """
    table, faults = parse_table(path, parsers, unique=unique, optional=optional)
    if faults:
        more = len(faults) - MAX_FAULTS_SHOWN
        shown = [str(fault) for fault in faults[:MAX_FAULTS_SHOWN]]
        shown += [f"and {more} more; option 6 (check_data) lists all of them"] if more > 0 else []
        raise PipelineError(f"{path} cannot be used; correct it and run again:\n  " + "\n  ".join(shown))
    return table.reindex(columns=list(parsers))


def parse_table(path: Path, parsers: dict[str, Callable], *, unique: Sequence[str] = (),
                optional: Sequence[str] = ()) -> tuple[pd.DataFrame, list[Fault]]:
    """Read a CSV file as far as it can be read, and list its faults; arguments as for read_table.

    Returns:
        table: DataFrame with the columns that are there, None in the cells at fault; and `row`, the index.
        faults: list of Fault, by row.
    """
    try:
        header, lines, faults = _read_cells(path)
    except CellError as error:
        return pd.DataFrame(columns=list(parsers)), [Fault(None, None, None, str(error))]
    places, missing = _find_columns(header, parsers, optional)
    faults += missing if lines else [*missing, Fault(None, None, None, "it has a header and no rows")]
    values = {}
    for name, place in places.items():
        values[name] = [_parse_cell(parsers[name], cells[place], row, name, faults) for row, cells in lines]
    if unique and set(unique) <= values.keys():
        faults += _find_repeated_rows([row for row, _ in lines], unique, [values[name] for name in unique])
    table = pd.DataFrame(values, index=pd.Index([row for row, _ in lines], name="row"))
    return table, sorted(faults, key=lambda fault: fault.row or 0)


def read_header(path: Path) -> list[str]:
    """The column names of a CSV file, as they stand there; none where it cannot be read as a table."""
    try:
        return _read_cells(path)[0]
    except CellError:
        return []


def _read_cells(path):
    """The header, and (row number, cells) of each line that is not empty; odd lines are faults and left out.

    Raises:
        CellError: no table at all.
    """
    separator, lines = read_lines(path)
    lines = [(row, [cell.strip() for cell in cells]) for row, cells in lines]
    header = _drop_empty_end(lines[0][1])
    kept, faults = [], []
    for row, cells in lines[1:]:
        cells = cells[: len(header)] + _drop_empty_end(cells[len(header):])
        if separator == ";":        # then a comma within a number is its decimal point
            cells = [cell.replace(",", ".") if _DECIMAL_COMMA.fullmatch(cell) else cell for cell in cells]
        if len(cells) == len(header):
            kept.append((row, cells))
        else:
            faults.append(Fault(row, None, None, f"it has {len(cells)} cells, the header has {len(header)}"))
    return header, kept, faults


def read_lines(path: Path) -> tuple[str, list[tuple[int, list[str]]]]:
    """The separator of a CSV file, and (row number, cells as they stand) of each line that is not empty.

    Raises:
        CellError: no table at all.
    """
    content = _decode(path)
    first = next(filter(str.strip, io.StringIO(content, newline=None)), "")
    separator = max(SEPARATORS, key=first.count)
    try:
        rows = list(csv.reader(io.StringIO(f"{content}\n{_END}", newline=None), delimiter=separator))
    except csv.Error as error:
        raise CellError(f"it is no table: {error}") from error
    if rows.pop() != [_END]:        # the rest of the table would be one cell
        raise CellError(f"it is no table: a quotation mark in row {len(rows) + 1} is never closed")
    lines = [(row, cells) for row, cells in enumerate(rows, start=1) if any(map(str.strip, cells))]
    if not lines:
        raise CellError("it is empty; a table with a header line is wanted")
    return separator, lines


def _decode(path):
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise CellError(f"it cannot be read: {error.strerror or error}") from error
    marked = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    for encoding in ("utf-16",) if marked else ENCODINGS:
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise CellError("it is not text in UTF-8 or GB 18030; save it as UTF-8")


def _find_columns(header, wanted, optional):
    """Where each wanted column stands (in any case), and a Fault for each that is missing or there twice."""
    names = [name.lower() for name in header]
    there = ", ".join(header)
    there = f"; there are {there if len(there) <= MAX_HEADER_SHOWN else there[:MAX_HEADER_SHOWN] + ' ...'}"
    places, faults = {}, []
    for name in wanted:
        count = names.count(name.lower())
        if count == 1:
            places[name] = names.index(name.lower())
        elif count == 0:
            if name not in optional:
                faults.append(Fault(None, name, None, f"the column is missing{there}"))
                there = ""      # said once
        else:
            faults.append(Fault(None, name, None, f"the column is there {count} times; keep one"))
    return places, faults


def _drop_empty_end(cells):
    """`cells` without the empty ones at its end (a spreadsheet's export may add some)."""
    while cells and not cells[-1]:
        cells = cells[:-1]
    return cells


def _parse_cell(parse, cell, row, name, faults):
    """The cell's value; where it has none, None, and one more Fault in `faults`."""
    try:
        return parse(cell)
    except CellError as error:
        faults.append(Fault(row, name, cell, str(error)))
        return None


def _find_repeated_rows(rows, names, columns):
    """A Fault for each row whose values in `columns` stand in an earlier row too."""
    faults, first = [], {}
    for row, key in zip(rows, zip(*columns, strict=True), strict=True):
        earlier = first.setdefault(key, row)
        if earlier != row and None not in key:
            value = ", ".join(map(str, key))
            faults.append(Fault(row, ", ".join(names), value, f"it stands in row {earlier} already"))
    return faults
