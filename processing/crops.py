"""Every screen becomes a crop on disk, on all cores; what is there and unchanged is left alone.

Reads the source images; writes the crops and data/processed/csv/crops.csv, the record of what each crop was
cut from (file, size, time, box), by which a second run knows what is new or changed.
"""

import contextlib
import os
import time
from concurrent.futures import ThreadPoolExecutor

import cv2
import pandas as pd

from processing.files import replacing, write_csv
from processing.images import ImageError, crop_image, encode_jpeg, read_image
from processing.progress import progress
from processing.tables import PROCESSED, SOURCE

RECORD_COLUMNS = [
    PROCESSED, SOURCE, "source_bytes", "source_mtime_ns", "crop_bytes", "screen_width", "screen_height", "box",
]
SAVE_EVERY_S = 10       # a killed run loses the record of its last seconds' crops and cuts those again


class CropRecord:
    """What each crop was cut from: a table on disk, one row per crop."""

    def __init__(self, path):
        self._path = path
        self._rows = {}
        self._saved_at = time.monotonic()
        if path.is_file():
            with contextlib.suppress(ValueError):       # no such table: every crop is cut again
                rows = pd.read_csv(path, dtype=str, keep_default_na=False).to_dict("records")
                self._rows = {row[PROCESSED]: row for row in rows if set(RECORD_COLUMNS) <= set(row)}

    def holds(self, row):
        """Whether this very row stands in the record (all but the screen's size, which the file decides)."""
        known = self._rows.get(row[PROCESSED], {})
        return bool(known) and all(known[name] == str(value) for name, value in row.items())

    def add(self, row):
        """Note a crop that was cut; the table is saved every few seconds."""
        self._rows[row[PROCESSED]] = {name: str(value) for name, value in row.items()}
        if time.monotonic() - self._saved_at > SAVE_EVERY_S:
            self.save()

    def save(self):
        """Write the table."""
        rows = [self._rows[name] for name in sorted(self._rows)]
        write_csv(self._path, pd.DataFrame(rows, columns=RECORD_COLUMNS))
        self._saved_at = time.monotonic()

    def screens(self):
        """DataFrame of source_path, screen_width, screen_height (px) of every crop in the record."""
        table = pd.DataFrame(self._rows.values(), columns=RECORD_COLUMNS)
        return table[[SOURCE, "screen_width", "screen_height"]].astype({"screen_width": int, "screen_height": int})


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
    cv2.setNumThreads(1)        # one image a thread is faster than many threads an image
    problems, made = [], 0
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        results = pool.map(lambda row: _crop_one(row, paths, box, record), rows)
        for row, result in zip(rows, progress(results, total=len(rows), label="crop", unit="image"), strict=True):
            if isinstance(result, ImageError):
                problems.append((row[SOURCE], str(result)))
            elif result is not None:
                record.add(result)
                made += 1
    finally:
        pool.shutdown(cancel_futures=True)
        record.save()
    return problems, made, record


def _crop_one(row, paths, box, record):
    """The record's row of a crop newly cut, None where the old one is right, or the ImageError."""
    source, target = paths.root / row[SOURCE], paths.root / row[PROCESSED]
    try:
        state = source.stat()
    except OSError as error:
        return ImageError(f"cannot be read: {error.strerror}")
    cut = {
        PROCESSED: row[PROCESSED],
        SOURCE: row[SOURCE],
        "source_bytes": state.st_size,
        "source_mtime_ns": state.st_mtime_ns,
        "box": f"{box.top}:{box.bottom},{box.left}:{box.right}",
    }
    if target.is_file() and record.holds(cut | {"crop_bytes": target.stat().st_size}):
        return None
    try:
        screen = read_image(source)
        data = encode_jpeg(crop_image(screen, box))
    except ImageError as error:
        target.unlink(missing_ok=True)      # a crop of what the file held before would be wrong now
        return error
    with replacing(target) as temporary:
        temporary.write_bytes(data)
    return cut | {"crop_bytes": len(data), "screen_width": screen.shape[1], "screen_height": screen.shape[0]}
