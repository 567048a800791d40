"""What each crop was cut from: its screen, its box, its size and time on the disk.

Reads and writes data/processed/csv/crops.csv, by which option 0 knows what is new or changed, and training and
prediction with which box a crop was cut.
"""

import csv
import functools
import io
import time
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from processing import columns as c
from processing.files import read_if_there, stat_files, write_text

CROP, BOX, CHANNELS, TURNED_GREY = "crop_path", "box", "channels", "turned_grey"
WIDTH, HEIGHT = "screen_width", "screen_height"     # px
BLACK = "black"             # percent of the crop; see screens.measure_black
RECORD_COLUMNS = [
    CROP, c.SOURCE, "source_bytes", "source_mtime_ns", "crop_bytes", "crop_mtime_ns", WIDTH, HEIGHT, BLACK, BOX,
    CHANNELS,
    TURNED_GREY,        # 1: the screen has colours within the box of a grey view
]
SAVE_EVERY_S = 10       # a killed run loses the record of its last seconds' crops and cuts those again


class CropRecord:
    """The table on disk, one row per crop, which is an image and a view: 114,000 rows for the competition's.

    Args:
        path: crops.csv. A file that is not there, is no such table, or is one of an older version is no record: every
            crop is cut again then.
    """

    def __init__(self, path: Path):
        self._path = path
        self._rows = {row[0]: row for row in _read_rows(path)}      # path of the crop -> texts of RECORD_COLUMNS
        self._changed, self._saved_at = False, time.monotonic()

    def holds(self, row: dict) -> bool:
        """Whether a crop stands in the record with these very values: of CROP, and of other columns that `row` has."""
        known = dict(zip(RECORD_COLUMNS, self._rows.get(row[CROP], ()), strict=False))
        return all(known.get(name) == str(value) for name, value in row.items())

    def add(self, row: dict) -> None:
        """Note a crop that was cut, with all RECORD_COLUMNS; the table is saved every few seconds."""
        self._rows[row[CROP]] = [str(row[name]) for name in RECORD_COLUMNS]
        self._changed = True
        if time.monotonic() - self._saved_at > SAVE_EVERY_S:
            self.save()

    def save(self) -> None:
        """Write the table, if anything was added."""
        if not self._changed:
            return
        text, rows = io.StringIO(), [self._rows[crop] for crop in sorted(self._rows)]
        csv.writer(text, lineterminator="\n").writerows([RECORD_COLUMNS, *rows])
        write_text(self._path, text.getvalue())
        self._changed, self._saved_at = False, time.monotonic()

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


def find_crops(path: Path, box: str, channels: int) -> set[str]:
    """Paths of the crops that were cut with a box (as describe_view puts it) and kept with so many channels."""
    state, = stat_files(path.parent, [path.name])
    return set() if state is None else _find_crops(path, box, channels, (state.st_mtime_ns, state.st_size))


@functools.lru_cache(maxsize=8)     # a training reads the record for each of its tables and views
def _find_crops(path: Path, box: str, channels: int, _state: tuple[int, int]) -> set[str]:
    place = slice(RECORD_COLUMNS.index(BOX), RECORD_COLUMNS.index(BOX) + 2)     # CHANNELS stands behind it
    return {row[0] for row in _read_rows(path) if row[place] == [box, str(channels)]}


def _read_rows(path):
    """Texts of RECORD_COLUMNS, crop by crop; none where the file is no such table. Damaged rows are passed over."""
    numbers = slice(RECORD_COLUMNS.index(WIDTH), RECORD_COLUMNS.index(BLACK) + 1)
    try:
        rows = csv.reader(io.StringIO((read_if_there(path) or b"").decode(), newline=""))
        if next(rows, None) == RECORD_COLUMNS:
            yield from (row for row in rows
                        if len(row) == len(RECORD_COLUMNS) and all(cell.isdecimal() for cell in row[numbers]))
    except (ValueError, csv.Error):     # ValueError: no UTF-8
        return
