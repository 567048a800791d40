"""Every screen becomes a crop on disk, on all cores; what is there and unchanged is left alone.

Reads the source images; writes the crops and data/processed/csv/crops.csv, the record of what each crop was
cut from (file, size, time, box), by which a second run knows what is new or changed, and training and prediction
that all crops were cut with one box.
"""

import contextlib
import time

import cv2
import pandas as pd

from processing import columns as c
from processing.errors import PipelineError
from processing.files import replacing, stat_files, write_csv
from processing.images import MAX_PIXELS, ImageError, crop_image, encode_jpeg, read_image
from processing.parallel import CORES, keep_freed_memory, map_in_threads
from processing.terminal import progress

RECORD_COLUMNS = [
    c.PROCESSED, c.SOURCE, "source_bytes", "source_mtime_ns", "crop_bytes", "crop_mtime_ns", "screen_width",
    "screen_height", "box",
]
THREADS = 2 * CORES     # while one waits for the disk to confirm a crop, another decodes
SAVE_EVERY_S = 10       # a killed run loses the record of its last seconds' crops and cuts those again


class CropRecord:
    """What each crop was cut from: a table on disk, one row per crop."""

    def __init__(self, path):
        self._path = path
        self._rows = {}
        self._changed, self._saved_at = False, time.monotonic()
        if path.is_file():
            with contextlib.suppress(ValueError):       # no such table: every crop is cut again
                table = pd.read_csv(path, dtype=str, keep_default_na=False, usecols=RECORD_COLUMNS)[RECORD_COLUMNS]
                rows = (dict(zip(RECORD_COLUMNS, row, strict=True)) for row in table.to_numpy().tolist())
                self._rows = {row[c.PROCESSED]: row for row in rows}

    def holds(self, row):
        """Whether this very row stands in the record (all but the screen's size, which the file decides)."""
        known = self._rows.get(row[c.PROCESSED], {})
        return bool(known) and all(known[name] == str(value) for name, value in row.items())

    def add(self, row):
        """Note a crop that was cut; the table is saved every few seconds."""
        self._rows[row[c.PROCESSED]] = {name: str(value) for name, value in row.items()}
        self._changed = True
        if time.monotonic() - self._saved_at > SAVE_EVERY_S:
            self.save()

    def save(self):
        """Write the table, if anything was added."""
        if not self._changed:
            return
        rows = [self._rows[name] for name in sorted(self._rows)]
        write_csv(self._path, pd.DataFrame(rows, columns=RECORD_COLUMNS))
        self._changed, self._saved_at = False, time.monotonic()

    def boxes(self):
        """dict of processed_path -> the box that the crop was cut with, as text."""
        return {name: row["box"] for name, row in self._rows.items()}

    def screens(self):
        """DataFrame of source_path, screen_width, screen_height (px) of every crop in the record."""
        table = pd.DataFrame(self._rows.values(), columns=RECORD_COLUMNS)
        return table[[c.SOURCE, "screen_width", "screen_height"]].astype({"screen_width": int, "screen_height": int})


def crop_all(rows, paths, box):
    """Cut `box` out of every image of `rows`, unless its crop is there and nothing changed.

    Args:
        rows: list of dicts with processed_path and source_path, relative to the root.
        paths: config.Paths.
        box: config.CropBox.

    Returns:
        problems: list of (source_path, reason) of the images that could not be cropped.
        made: how many crops were written.
        record: the CropRecord, saved.
    """
    record = CropRecord(paths.crop_record)
    keep_freed_memory()
    cv2.setNumThreads(1)        # one image a thread is faster than many threads an image
    problems, made = [], 0
    results = map_in_threads(lambda row: _crop_one(row, paths, box, record), rows, threads=THREADS)
    try:
        for row, result in zip(rows, progress(results, total=len(rows), label="crop", unit="image"), strict=True):
            if isinstance(result, ImageError):
                problems.append((row[c.SOURCE], str(result)))
            elif result is not None:
                record.add(result)
                made += 1
    finally:
        results.close()
        record.save()
    return problems, made, record


def _crop_one(row, paths, box, record):
    """The record's row of a crop newly cut, None where the old one is right, or the ImageError."""
    source, target = paths.root / row[c.SOURCE], paths.root / row[c.PROCESSED]
    try:
        state = source.stat()
    except OSError as error:
        return ImageError(f"cannot be read: {error.strerror}")
    cut = {
        c.PROCESSED: row[c.PROCESSED],
        c.SOURCE: row[c.SOURCE],
        "source_bytes": state.st_size,
        "source_mtime_ns": state.st_mtime_ns,
        "box": describe_box(box),
    }
    if target.is_file() and record.holds(cut | state_of_crop(target)):
        return None
    try:
        screen = read_image(source)
        data = encode_jpeg(crop_image(screen, box))
    except ImageError as error:
        return error
    with replacing(target) as temporary:
        temporary.write_bytes(data)
    size = {"screen_width": screen.shape[1], "screen_height": screen.shape[0]}
    return cut | state_of_crop(target) | size


def state_of_crop(target):
    """What the record keeps of a crop file: its size and time."""
    state = target.stat()
    return {"crop_bytes": state.st_size, "crop_mtime_ns": state.st_mtime_ns}


def describe_box(box):
    """A box as rows and columns, e.g. 50:450,550:1200."""
    return f"{box.top}:{box.bottom},{box.left}:{box.right}"


def check_box(box):
    """Refuse a crop box that cuts nothing or wraps around.

    Raises:
        PipelineError: an edge is no whole number, or out of order.
    """
    whole = all(isinstance(edge, int) for edge in box)
    if not whole or not (0 <= box.top < box.bottom and 0 <= box.left < box.right):
        raise PipelineError(f"config.CROP is {box}; whole numbers are wanted, 0 <= top < bottom and 0 <= left < right.")
    if box.height * box.width > MAX_PIXELS:
        raise PipelineError(f"config.CROP is {box}: {box.height} x {box.width} pixels are more than any screen has.")


def check_crops(names, paths, box):
    """Make sure that crops are there and were all cut with `box`.

    Args:
        names: processed_path of each.
        paths: config.Paths.
        box: config.CropBox.

    Raises:
        PipelineError: a crop is missing, or was cut with another box.
    """
    absent = [name for name, state in zip(names, stat_files(paths.root, names), strict=True) if state is None]
    if absent:
        raise PipelineError(
            f"{len(absent)} of {len(names)} crops are not there, the first is {paths.root / absent[0]}. "
            "Option 0 (processing_data) cuts them."
        )
    boxes = CropRecord(paths.crop_record).boxes()
    other = [name for name in names if boxes.get(name) != describe_box(box)]
    if other:
        raise PipelineError(
            f"{len(other)} of {len(names)} crops were not cut with the box {describe_box(box)} of config.py, the first "
            f"is {paths.root / other[0]} ({boxes.get(other[0], 'unknown')}). Option 0 (processing_data) cuts them anew."
        )
