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

from processing.columns import drop_unseen, fold_text
from processing.errors import PipelineError

ENCODINGS = ("utf-8-sig", "gb18030")
SEPARATORS = (",", ";", "\t")
# What a file is whose first bytes are these (in lower case), though its name says CSV
_WORKBOOK = "it is a workbook, not a CSV file; open it and save the sheet as CSV (UTF-8)"
_WEB_PAGE = "it is a web page, not a CSV file: the download was refused or asks for a login; download it again"
_KINDS = {
    b"pk\x03\x04": _WORKBOOK, b"\xd0\xcf\x11\xe0": _WORKBOOK, b"<html": _WEB_PAGE, b"<!doctype": _WEB_PAGE,
    b"\x1f\x8b": "it is compressed (gzip), not a CSV file; unpack it", b"%pdf": "it is a PDF file, not a CSV file",
}
_MARKS = {codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32",      # they begin as UTF-16's do
          codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
MISSING = ("", "nan", "na", "null", "none")     # in lower case
MAX_FAULTS_SHOWN = 200
MAX_HEADER_SHOWN = 300          # characters
_DECIMAL = r"\A([+-]?[0-9]+){}([0-9]+(?:[eE][+-]?[0-9]+)?)\Z"      # a number with a decimal sign
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
    if fold_text(cell).lower() in MISSING:
        raise CellError("text is wanted, the cell is empty")
    return cell


def number(cell: str) -> float:
    """A finite number in ASCII digits; NaN where the cell is missing."""
    cell = drop_unseen(cell)
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
        cell = fold_text(cell)
        if cell.lower() not in lowered:
            raise CellError(f"the known values are {', '.join(codes)}")
        return lowered[cell.lower()]

    return parse


def read_table(path: Path, parsers: dict[str, Callable], *, unique: Sequence[str] = (),
               optional: Sequence[str] = ()) -> pd.DataFrame:
    """Read a CSV file into the columns that `parsers` names; other columns are left out.

    Args:
        path: the file; UTF-8, UTF-16 (with a byte order mark or without), GB 18030 or marked UTF-32; cells parted
            by comma, semicolon (then with decimal commas too), tab, or what a first line such as `sep=;` says.
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
    header = _drop_empty_end([fold_text(cell) for cell in lines[0][1]])
    kept, faults = [], []
    for row, cells in lines[1:]:
        cells = cells[: len(header)] + _drop_empty_end(cells[len(header):])
        if len(cells) == len(header):
            kept.append((row, cells))
        else:
            faults.append(Fault(row, None, None, f"it has {len(cells)} cells, the header has {len(header)}"))
    return header, _replace_decimal_commas(kept, header) if separator == ";" else kept, faults


def read_lines(path: Path) -> tuple[str, list[tuple[int, list[str]]]]:
    """The separator of a CSV file, and (row number, cells as they stand) of each line that is not empty.

    Raises:
        CellError: no table at all.
    """
    content = _decode(path).lstrip("\ufeff")
    said = re.match(r'"?sep=([^\r\n])"?[,;\t]*(?=[\r\n])', content, re.IGNORECASE)       # for spreadsheets
    content = content[said.end():] if said else content
    first = next(filter(str.strip, io.StringIO(content, newline=None)), "")
    separator = said[1] if said else max(SEPARATORS, key=first.count)
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
    start = data[:64].lstrip().lower()
    known = next((kind for magic, kind in _KINDS.items() if start.startswith(magic)), None)
    if known:
        raise CellError(known)
    for encoding in _guess_encodings(data):
        try:
            content = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" not in content.partition("\n")[0]:       # in a cell it is that cell's fault
            return content
    raise CellError("it is not text in UTF-8 or GB 18030; save it as UTF-8")


def _guess_encodings(data):
    """The encodings to be tried: as a mark says, or as every other byte is zero (most of a table is ASCII)."""
    marked = [encoding for mark, encoding in _MARKS.items() if data.startswith(mark)]
    if marked:
        return marked[:1]
    if data.count(0) * 4 > len(data):
        return ["utf-16-le"] if data[1::2].count(0) > data[::2].count(0) else ["utf-16-be"]
    return ENCODINGS


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


def _replace_decimal_commas(lines, header):
    """The lines with points for the decimal commas of their numbers.

    Raises:
        CellError: some numbers have commas and some points, so that 1,436 may be 1.436 or 1436.
    """
    comma, point = (_find_number(lines, header, sign) for sign in (",", "[.]"))
    if comma and point:
        raise CellError(f"its numbers are ambiguous: a comma in {comma}, a point in {point}; write all in one way")
    return [(row, [re.sub(_DECIMAL.format(","), r"\1.\2", cell) for cell in cells]) for row, cells in lines]


def _find_number(lines, header, sign):
    """The place and value of the first number with `sign` (a pattern) between its digits, or nothing."""
    return next((f"row {row}, {name}: {cell!r}" for row, cells in lines
                 for name, cell in zip(header, cells, strict=True) if re.match(_DECIMAL.format(sign), cell)), None)


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
