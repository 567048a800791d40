"""What each crop was cut from: its screen, its box, its size and time on the disk. And where each scan lies.

Reads and writes data/processed/csv/crops.csv, by which option 0 knows what is new or changed, and training and
prediction with which box a crop was cut; and geometry.csv, a row per image.
"""

import csv
import functools
import io
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pandas as pd

from processing import columns as c
from processing.bscans import Bscan
from processing.errors import PipelineError
from processing.files import read_if_there, stat_files, write_text
from processing.geometry import Geometry
from processing.reader import read_header

CROP, BOX, CHANNELS, TURNED_GREY = "crop_path", "box", "channels", "turned_grey"
WIDTH, HEIGHT = "screen_width", "screen_height"     # px
BLACK = "black"             # percent of the crop; see screens.measure_black
RECORD_COLUMNS = [
    CROP, c.SOURCE, "source_bytes", "source_mtime_ns", "crop_bytes", "crop_mtime_ns", WIDTH, HEIGHT, BLACK, BOX,
    CHANNELS,
    TURNED_GREY,        # 1: the screen has colours within the box of a grey view
]
SCALE_COLUMNS = list(Bscan._fields[1:])
GEOMETRY_COLUMNS = [c.SOURCE, "source_bytes", "source_mtime_ns", *Geometry._fields, "bscan_columns", *SCALE_COLUMNS]
_NUMBERS = slice(RECORD_COLUMNS.index(WIDTH), RECORD_COLUMNS.index(BLACK) + 1)
SAVE_EVERY_S = 10       # a killed run loses the record of its last seconds' crops and cuts those again


class Record:
    """A table on disk of what was made of files, saved while it grows.

    Args:
        path: the CSV file. One that is not there, is no such table, or is of an older version is no record: all is
            made again then.
        columns: of the table; the first names a row.
        numbers: those that hold whole numbers.
    """

    def __init__(self, path: Path, columns: list[str], numbers: slice = slice(0)):
        self._path, self._columns = path, columns
        self._rows = {row[0]: row for row in _read_rows(path, columns, numbers)}      # first cell -> all, as texts
        self._changed, self._saved_at = False, time.monotonic()

    def holds(self, row: dict) -> bool:
        """Whether a row of this name stands in the record with these very values, of the columns that `row` has."""
        known = dict(zip(self._columns, self._rows.get(row[self._columns[0]], ()), strict=False))
        return all(known.get(name) == str(value) for name, value in row.items())

    def add(self, row: dict) -> None:
        """Note a row with all columns; the table is saved every few seconds."""
        self._rows[row[self._columns[0]]] = [str(row[name]) for name in self._columns]
        self._changed = True
        if time.monotonic() - self._saved_at > SAVE_EVERY_S:
            self.save()

    def save(self) -> None:
        """Write the table, if anything was added."""
        if not self._changed:
            return
        text, rows = io.StringIO(), [self._rows[name] for name in sorted(self._rows)]
        csv.writer(text, lineterminator="\n").writerows([self._columns, *rows])
        write_text(self._path, text.getvalue())
        self._changed, self._saved_at = False, time.monotonic()


class CropRecord(Record):
    """One row per crop, which is an image and a view: 114,000 rows for the competition's.

    Args:
        path: crops.csv.
    """

    def __init__(self, path: Path):
        super().__init__(path, RECORD_COLUMNS, _NUMBERS)

    def views(self) -> dict[str, tuple[str, str]]:
        """Path of each crop -> its box and its channels, as text."""
        box, channels = RECORD_COLUMNS.index(BOX), RECORD_COLUMNS.index(CHANNELS)
        return {crop: (row[box], row[channels]) for crop, row in self._rows.items()}

    def find_turned_grey(self) -> set[str]:
        """Paths of the crops whose colours were taken away."""
        place = RECORD_COLUMNS.index(TURNED_GREY)
        return {crop for crop, row in self._rows.items() if row[place] == "1"}

    def screens(self, crops: Iterable[str]) -> pd.DataFrame:
        """source_path, screen_width, screen_height (px) and black (percent) of those of the crops that it holds."""
        rows = [self._rows[crop] for crop in crops if crop in self._rows]
        table = pd.DataFrame(rows, columns=RECORD_COLUMNS)[[c.SOURCE, WIDTH, HEIGHT, BLACK]]
        return table.astype({WIDTH: int, HEIGHT: int, BLACK: int})


class GeometryRecord(Record):
    """Where the scan of each screen lies, one row per image.

    Args:
        path: geometry.csv.
    """

    def __init__(self, path: Path):
        super().__init__(path, GEOMETRY_COLUMNS)

    def table(self, sources: Iterable[str]) -> pd.DataFrame:
        """source_path, pattern, distance_um, line, lines (NaN: not known) and counter of those of the screens that it
        holds.

        Raises:
            PipelineError: another version of the program made it, or it is damaged.
        """
        if not self._rows and self._path.is_file() and read_header(self._path) != GEOMETRY_COLUMNS:
            raise PipelineError(f"{self._path} is of another version of the program, or damaged. Option 0 "
                                "(processing_data) reads where scans lie anew.")
        rows = [self._rows[source] for source in sources if source in self._rows]
        numbers = ["distance_um", "line", "lines"]
        table = pd.DataFrame(rows, columns=GEOMETRY_COLUMNS)[[c.SOURCE, "pattern", *numbers, "counter"]]
        return table.assign(**{name: pd.to_numeric(table[name], errors="coerce") for name in numbers})


def find_crops(path: Path, box: str, channels: int) -> set[str]:
    """Paths of the crops that were cut with a box (as describe_view puts it) and kept with so many channels."""
    state, = stat_files(path.parent, [path.name])
    return set() if state is None else _find_crops(path, box, channels, (state.st_mtime_ns, state.st_size))


@functools.lru_cache(maxsize=8)     # a training reads the record for each of its tables and views
def _find_crops(path: Path, box: str, channels: int, _state: tuple[int, int]) -> set[str]:
    place = slice(RECORD_COLUMNS.index(BOX), RECORD_COLUMNS.index(BOX) + 2)     # CHANNELS stands behind it
    return {row[0] for row in _read_rows(path, RECORD_COLUMNS, _NUMBERS) if row[place] == [box, str(channels)]}


def _read_rows(path: Path, columns: list[str], numbers: slice) -> Iterator[list[str]]:
    """The texts of a record, row by row; none where the file is no such table. Damaged rows are passed over."""
    try:
        rows = csv.reader(io.StringIO((read_if_there(path) or b"").decode(), newline=""))
        if next(rows, None) == columns:
            yield from (row for row in rows
                        if len(row) == len(columns) and all(cell.isdecimal() for cell in row[numbers]))
    except (ValueError, csv.Error):     # ValueError: no UTF-8
        return
