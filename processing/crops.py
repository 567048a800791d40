"""Every screen becomes a crop of each view on disk, on all cores; what is there and unchanged is left alone.

Reads the source images; writes the crops and their record (processing/crop_record.py).
"""

import os
from typing import NamedTuple

import pandas as pd

from config import Paths, View
from processing import columns as c
from processing.crop_record import BLACK, BOX, CHANNELS, CROP, HEIGHT, TURNED_GREY, WIDTH, CropRecord
from processing.files import replace_file
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


def crop_all(images: pd.DataFrame, paths: Paths, views: dict[str, View]) -> Cutting:
    """Cut every view out of every image, unless its crop is there and nothing changed. A screen is decoded once.

    Args:
        images: DataFrame with the columns that views.view_paths needs, and source_path.
        paths: config.Paths.
        views: name -> View.

    Returns:
        Cutting. Of an image with a problem no crop is written.
    """
    record = CropRecord(paths.crop_record)
    sources = images[c.SOURCE].tolist()
    crops = zip(*(view_paths(images, view) for view in views.values()), strict=True)
    wanted = [list(zip(names, views.values(), strict=True)) for names in crops]     # per image: (crop, view) of each
    problems, made = [], 0
    with one_image_per_thread():
        jobs = zip(sources, wanted, strict=True)
        results = map_in_threads(lambda job: _cut_screen(job[0], job[1], paths, record), jobs, threads=THREADS)
        try:
            shown = progress(results, total=len(sources), label="crop", unit="image")
            for source, result in zip(sources, shown, strict=True):
                if isinstance(result, ImageError):
                    problems.append((source, str(result)))
                    continue
                made += len(result)
                for row in result:
                    record.add(row)
        finally:
            results.close()
            record.save()
    return Cutting(problems, made, record)


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


def _cut_screen(source, crops, paths, record):
    """Cut those of the crops (pairs of path and View) that are not current: their rows of the record, or ImageError."""
    stale = [(crop, view) for crop, view in crops if not is_current(crop, source, view, paths=paths, record=record)]
    if not stale:
        return []
    try:
        state = (paths.root / source).stat()        # before it is read: what changes meanwhile is cut again
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
    return rows


def _describe_cut(crop, source, view, state):
    """The record's columns of what a crop is cut from; `state` is os.stat of the screen."""
    return {CROP: crop, c.SOURCE: source, "source_bytes": state.st_size, "source_mtime_ns": state.st_mtime_ns,
            BOX: describe_view(view), CHANNELS: view.channels}


def _describe_crop(file):
    """The record's columns of a crop on the disk."""
    state = os.stat(file)
    return {"crop_bytes": state.st_size, "crop_mtime_ns": state.st_mtime_ns}
