"""Every image: can it be read, has it the right size, does it show a retina, is it there under another name too?

Reads the crops that are as option 0 would cut them now, the screens of all other images, and the processed
tables; writes nothing. Images are looked at on all cores, one a thread in memory.
"""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd

from config import CropBox, Paths
from processing import columns as c
from processing.check.kinds import find
from processing.crops import CropRecord, describe_box, state_of_crop
from processing.images import ImageError, crop_image, decode_image, encode_jpeg, read_image
from processing.terminal import progress

SCREEN, NARROW_SCREEN = (1264, 596), (1008, 596)        # px, width x height, as the device writes them
BLOCK_PX = 25               # blocks of 25 x 25 px (100 um down): speckle averages out, a retina does not
# Grey levels by which a column of blocks varies from top to bottom. Measured: the real image 49, the
# demonstration's 34 to 51; noise 11 at most, the real image at a seventh of its brightness 7
LEAST_CONTRAST = 14
CONTRAST_QUARTILE = 75      # a quarter of the columns suffices: narrow screens end in black, vessels cast shadows
KEY = [c.PATIENT, c.AFTER, c.DATA_TYPE, c.SOURCE, c.PROCESSED]


class Look(NamedTuple):
    """What one image looks like."""

    findings: list
    digest: bytes | None    # of the crop as JPEG; None: unreadable, or nothing on it


class Task(NamedTuple):
    """What is the same for all images of a run."""

    paths: Paths
    box: CropBox
    record: CropRecord | None
    screens: dict           # source_path -> width, height (px) of the screens that crops were cut from
    boxes: dict             # processed_path -> the box that the crop was cut with, as text
    listed: frozenset       # processed_path of the crops that the processed tables name


def check_processed(paths: Paths) -> tuple[pd.DataFrame, list]:
    """Check image_data.csv, train.csv and test.csv, if option 0 has made any of them.

    Args:
        paths: config.Paths.

    Returns:
        images: DataFrame with the columns KEY, one row per crop that a table names.
        findings: list of Finding; tables.read_processed would refuse the table at the first of them.
    """
    wanted = {paths.image_table: c.IMAGE_COLUMNS, paths.train_table: c.TRAIN_COLUMNS, paths.test_table: c.TEST_COLUMNS}
    parts, found = [pd.DataFrame(columns=KEY)], []
    if not any(file.is_file() for file in wanted):      # option 0 has not run
        return parts[0], found
    for file, columns in wanted.items():
        name = paths.relative(file)
        if not file.is_file():
            found.append(find("processed-missing", name))
            continue
        try:
            table = pd.read_csv(file, dtype=str, keep_default_na=False)
            if not isinstance(table.index, pd.RangeIndex):      # pandas took the first cells for an index
                raise ValueError("rows have more cells than the header")
        except (ValueError, OSError) as error:
            found.append(find("processed-broken", name, detail=str(error)))
            continue
        found += [find("processed-column", name, column=column) for column in columns if column not in table]
        for column in table.columns.intersection(columns).difference(c.TEXT_COLUMNS, sort=False):
            values = pd.to_numeric(table[column], errors="coerce").astype(float)
            found += [find("processed-number", name, cell, row=place + 2, column=column)    # + 2: the header is row 1
                      for place, cell in table[column][~np.isfinite(values)].items()]
        if set(KEY) <= set(table):
            parts.append(table[KEY])
    return pd.concat(parts).drop_duplicates(c.PROCESSED), found


def check_images(paths, images, processed, box):
    """Look at every image of data/source and at every crop that the processed tables name.

    Args:
        paths: config.Paths.
        images: DataFrame with IMAGE_COLUMNS of data/source.
        processed: DataFrame of check_processed.
        box: config.CropBox.

    Returns:
        list of Finding; those of images name the screen (source_path), those of crops the crop.
    """
    gone = processed[~processed[c.PROCESSED].isin(images[c.PROCESSED])]
    rows = [*images[KEY].to_dict("records"), *gone.to_dict("records")]
    task = Task(paths, box, *_read_record(paths), frozenset(processed[c.PROCESSED]))
    cv2.setNumThreads(1)        # one image a thread is faster than many threads an image
    found, first = [], {}
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        looks = pool.map(lambda row: _look_at(row, task), rows)
        for row, look in zip(rows, progress(looks, total=len(rows), label="check", unit="image"), strict=True):
            found += look.findings
            if look.digest is not None and first.setdefault(look.digest, row) is not row:
                found.append(_same_picture(row, first[look.digest]))
    finally:
        pool.shutdown(cancel_futures=True)
    if len(images) and sum(each.kind == "image-unreadable" for each in found) == len(images):
        found.append(find("no-images", paths.relative(paths.source), detail="not one image can be read"))
    return found + _unused_crops(paths, task.listed)


def _read_record(paths):
    """The fields record, screens and boxes of a Task; None and nothing where the record is not usable."""
    record = CropRecord(paths.crop_record)
    try:
        sizes = record.screens()
    except ValueError:      # edited by hand: none of its crops is believed to be current
        return None, {}, {}
    return record, {source: (width, height) for source, width, height in sizes.itertuples(index=False)}, record.boxes()


def _look_at(row, task):
    """Look at one image: its crop where option 0 would leave that as it is, else its screen."""
    source, crop_file = task.paths.root / row[c.SOURCE], task.paths.root / row[c.PROCESSED]
    found = _check_listed(row, crop_file, task) if row[c.PROCESSED] in task.listed else []
    if not source.is_file():
        found += [find("source-gone", row[c.PROCESSED], row[c.SOURCE])]
        return _look_at_crop(row, crop_file, task, found) if crop_file.is_file() else Look(found, None)
    if _is_current(row, task):
        found += _check_screen(row, task.screens[row[c.SOURCE]], task.box)
        return _look_at_crop(row, crop_file, task, found)
    if row[c.PROCESSED] in task.listed and crop_file.is_file():
        found += _look_at_crop(row, crop_file, task, []).findings
    look = _look_at_screen(row, source, task, found)
    readable = all(each.kind != "image-unreadable" for each in look.findings)
    if task.listed and readable:
        look.findings.append(find("crop-stale", row[c.SOURCE]))
    return look


def _check_listed(row, crop_file, task):
    """Findings of a crop that a processed table names: there, and cut with the box?"""
    if not crop_file.is_file():
        return [find("crop-missing", row[c.PROCESSED])]
    box = task.boxes.get(row[c.PROCESSED], "unknown")
    if box != describe_box(task.box):
        return [find("crop-box", row[c.PROCESSED], box, detail=f"config.CROP is {describe_box(task.box)}")]
    return []


def _is_current(row, task):
    """Whether option 0 would leave the crop as it is (as crops._crop_one decides)."""
    try:
        source = (task.paths.root / row[c.SOURCE]).stat()
        crop_state = state_of_crop(task.paths.root / row[c.PROCESSED])
    except (OSError, ValueError):       # ValueError: the table's cell is no possible path
        return False
    return task.record is not None and task.record.holds(crop_state | {
        c.PROCESSED: row[c.PROCESSED],
        c.SOURCE: row[c.SOURCE],
        "source_bytes": source.st_size,
        "source_mtime_ns": source.st_mtime_ns,
        "box": describe_box(task.box),
    })


def _look_at_crop(row, file, task, found):
    try:
        data = file.read_bytes()
        crop = decode_image(data)
    except (OSError, ImageError) as error:
        return Look([*found, find("crop-unreadable", row[c.PROCESSED], detail=str(error))], None)
    height, width = crop.shape[:2]
    if (width, height) != (task.box.width, task.box.height):
        wanted = f"{task.box.width} x {task.box.height} is the box's"
        return Look([*found, find("crop-size", row[c.PROCESSED], f"{width} x {height}", detail=wanted)], None)
    return _look_at_pixels(row, crop, data, found)


def _look_at_screen(row, file, task, found):
    try:
        screen = read_image(file)
        crop = crop_image(screen, task.box)
    except ImageError as error:
        return Look([*found, find("image-unreadable", row[c.SOURCE], detail=str(error))], None)
    found = found + _check_screen(row, screen.shape[1::-1], task.box)
    return _look_at_pixels(row, crop, encode_jpeg(crop), found)


def _look_at_pixels(row, crop, data, found):
    contrast = measure_contrast(crop)
    if contrast < LEAST_CONTRAST:
        detail = f"brightness varies by {contrast:.1f} grey levels from top to bottom, {LEAST_CONTRAST} are usual"
        return Look([*found, find("image-empty", row[c.SOURCE], f"{contrast:.1f}", detail=detail)], None)
    return Look(found, hashlib.blake2b(data, digest_size=16).digest())


def measure_contrast(crop: np.ndarray) -> float:
    """By how much a crop's columns vary in brightness from top to bottom: the bands of a retina.

    Args:
        crop: uint8 array, H x W x 3.

    Returns:
        grey levels: the standard deviation over the blocks of a column, at the upper quartile of the columns.
    """
    height, width = crop.shape[:2]
    blocks = (max(1, width // BLOCK_PX), max(1, height // BLOCK_PX))
    grey = cv2.resize(np.ascontiguousarray(crop[..., 1]), blocks, interpolation=cv2.INTER_AREA)
    return float(np.percentile(grey.std(axis=0), CONTRAST_QUARTILE))


def _check_screen(row, size, box):
    size = tuple(size)
    if size == SCREEN:
        return []
    value = f"{size[0]} x {size[1]}"
    if size == NARROW_SCREEN:
        return [find("screen-narrow", row[c.SOURCE], value)]
    small = size[0] < box.right or size[1] < box.bottom
    return [find("screen-odd", row[c.SOURCE], value, detail="smaller than the crop box" if small else "")]


def _same_picture(row, first):
    if row[c.PATIENT] != first[c.PATIENT]:
        where = f"also of eye {first[c.PATIENT]}"
    else:
        where = "same eye, " + ("same visit" if row[c.AFTER] == first[c.AFTER] else "other visit")
    where += ", in training and in test" if row[c.DATA_TYPE] != first[c.DATA_TYPE] else ""
    return find("image-identical", row[c.SOURCE], first[c.SOURCE], detail=where)


def _unused_crops(paths, listed):
    if not listed:
        return []
    names = (paths.relative(file) for file in sorted(paths.crops.rglob("*.jpg")))
    return [find("crop-unused", name) for name in names if name not in listed]
