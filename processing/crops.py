"""Every screen becomes a crop of each view on disk, on all cores; what is there and unchanged is left alone.

Reads the source images; writes the crops, their record and where each scan lies (processing/crop_record.py).
"""

import math
import os
from typing import NamedTuple

import pandas as pd

from config import Paths, View
from processing import columns as c
from processing.bscans import find_bscan
from processing.crop_record import (
    BLACK,
    BOX,
    CHANNELS,
    CROP,
    HEIGHT,
    SCALE_COLUMNS,
    TURNED_GREY,
    WIDTH,
    CropRecord,
    GeometryRecord,
)
from processing.files import replace_file
from processing.geometry import read_geometry
from processing.images import ImageError, crop_image, cut_view, read_image
from processing.parallel import CORES, map_in_threads, one_image_per_thread
from processing.screens import measure_black
from processing.terminal import progress
from processing.views import describe_view, view_paths

THREADS = 2 * CORES     # while one waits for the disk to confirm a crop, another decodes


class Cutting(NamedTuple):
    """What crop_all did."""

    problems: list          # (source_path, reason) of the images that could not be cropped
    made: int               # how many crops were written, of all views
    record: CropRecord      # saved
    geometry: GeometryRecord    # saved, too


def crop_all(images: pd.DataFrame, paths: Paths, views: dict[str, View]) -> Cutting:
    """Cut every view out of every image, unless its crop is there and nothing changed. A screen is decoded once.

    Args:
        images: DataFrame with the columns that views.view_paths needs, and source_path.
        paths: config.Paths.
        views: name -> View.

    Returns:
        Cutting. Of an image with a problem no crop is written.
    """
    record, geometry = CropRecord(paths.crop_record), GeometryRecord(paths.geometry_table)
    sources = images[c.SOURCE].tolist()
    crops = zip(*(view_paths(images, view) for view in views.values()), strict=True)
    wanted = [list(zip(names, views.values(), strict=True)) for names in crops]     # per image: (crop, view) of each
    problems, made = [], 0
    with one_image_per_thread():
        jobs = zip(sources, wanted, strict=True)
        results = map_in_threads(lambda job: _cut_screen(*job, paths, record, geometry), jobs, threads=THREADS)
        try:
            shown = progress(results, total=len(sources), label="crop", unit="image")
            for source, result in zip(sources, shown, strict=True):
                if isinstance(result, ImageError):
                    problems.append((source, str(result)))
                    continue
                made += len(result.crops)
                for row in result.crops:
                    record.add(row)
                if result.geometry:
                    geometry.add(result.geometry)
        finally:
            results.close()
            record.save()
            geometry.save()
    return Cutting(problems, made, record, geometry)


def is_current(crop: str, source: str, view: View, *, paths: Paths, record: CropRecord) -> bool:
    """Whether a crop on disk is as option 0 would cut it now, so that it leaves it alone.

    Args:
        crop, source: paths of the crop and of its screen, relative to the root.
        view: what the crop shows.
        paths: config.Paths.
        record: what the crops were cut from.
    """
    try:
        cut = _describe_cut(crop, source, view, (paths.root / source).stat())
        return record.holds(cut | _describe_crop(paths.root / crop))
    except (OSError, ValueError):       # ValueError: no possible path
        return False


class _Cut(NamedTuple):
    """What became of one screen."""

    crops: list[dict]       # rows of the crops' record
    geometry: dict          # row of where its scan lies; empty: known


def _cut_screen(source, crops, paths, record, geometry):
    """Cut those of the crops (pairs of path and View) that are not current, and read where the scan lies, unless that
    is known: _Cut, or ImageError."""
    stale = [(crop, view) for crop, view in crops if not is_current(crop, source, view, paths=paths, record=record)]
    try:
        state = (paths.root / source).stat()        # before it is read: what changes meanwhile is cut again
        is_known = geometry.holds(_describe_source(source, state))
        if not stale and is_known:
            return _Cut([], {})
        screen = read_image(paths.root / source)
        cuts = [cut_view(screen, view) for _, view in stale]
    except OSError as error:
        return ImageError(f"cannot be read: {error.strerror}")
    except ImageError as error:
        return error
    rows = []
    for (crop, view), (data, turned_grey) in zip(stale, cuts, strict=True):
        with replace_file(paths.root / crop) as temporary:
            temporary.write_bytes(data)
        rows.append(_describe_cut(crop, source, view, state) | _describe_crop(paths.root / crop) | {
            WIDTH: screen.shape[1], HEIGHT: screen.shape[0], BLACK: measure_black(crop_image(screen, view)),
            TURNED_GREY: int(turned_grey)})
    return _Cut(rows, {} if is_known else _describe_source(source, state) | _describe_place(screen))


def _describe_source(source, state):
    """The columns of both records that tell whether a screen has changed; `state` is its os.stat."""
    return {c.SOURCE: source, "source_bytes": state.st_size, "source_mtime_ns": state.st_mtime_ns}


def _describe_place(screen):
    """The columns of geometry.csv that a screen tells; numbers to a hundredth, what is not known is empty."""
    values = read_geometry(screen)._asdict()
    try:
        scan = find_bscan(screen)
        values |= {"bscan_columns": scan.pixels.shape[1]} | {name: getattr(scan, name) for name in SCALE_COLUMNS}
    except ImageError:
        values |= dict.fromkeys(["bscan_columns", *SCALE_COLUMNS], "")
    return {name: _write_number(value, up=name.endswith("_off")) if isinstance(value, float) else value
            for name, value in values.items()}


def _write_number(value, *, up):
    """Rounded, or rounded up; what is not known is empty, and whole numbers have no decimals."""
    if math.isnan(value):
        return ""
    return f"{math.ceil(100 * value) / 100 if up else round(value, 2) + 0.0:.9g}"       # + 0.0: no -0


def _describe_cut(crop, source, view, state):
    """The record's columns of what a crop is cut from; `state` is os.stat of the screen."""
    return {CROP: crop, **_describe_source(source, state), BOX: describe_view(view), CHANNELS: view.channels}


def _describe_crop(file):
    """The record's columns of a crop on the disk."""
    state = os.stat(file)
    return {"crop_bytes": state.st_size, "crop_mtime_ns": state.st_mtime_ns}
