"""Every image: can it be read, has it the right size, does it show a retina, is it there under another name too?

Reads the crops that are as option 0 would cut them now, the screens of all other images, and the processed
tables; writes nothing. Images are looked at on all cores, one a thread in memory.
"""

import hashlib
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd

from config import Paths, View
from processing import columns as c
from processing.check.kinds import Finding, find
from processing.counter import DIFFERS
from processing.crop_record import CropRecord, GeometryRecord
from processing.crops import is_current
from processing.errors import PipelineError
from processing.files import describe_file
from processing.geometry import NEAR_FOVEA_UM, UNKNOWN
from processing.images import ImageError, crop_image, cut_view, decode_image, read_image
from processing.parallel import map_in_threads, one_image_per_thread
from processing.screens import NARROW_SCREEN, explain_oddity, measure_black
from processing.tables import read_measures
from processing.terminal import progress
from processing.views import describe_view, view_paths

BLOCK_PX = 25               # blocks of 25 x 25 px (100 um down): speckle averages out, a retina does not
# Grey levels by which a column of blocks varies from top to bottom. Measured: the real image 49, the
# demonstration's 34 to 51; noise 11 at most, the real image at a seventh of its brightness 7
LEAST_CONTRAST = 14
CONTRAST_QUARTILE = 75      # a quarter of the columns suffices: narrow screens end in black, vessels cast shadows
CROPS = "crops"             # of an image: name of a view -> path of the crop
KEY = [c.PATIENT, c.AFTER, c.DATA_TYPE, c.SOURCE, c.PROCESSED]


class Look(NamedTuple):
    """What one image looks like."""

    findings: list
    digest: bytes | None    # of the crop as JPEG; None: unreadable, or nothing on it


class Task(NamedTuple):
    """What is the same for all images of a run."""

    paths: Paths
    views: dict             # name -> View; the pixels of bscan are looked at, the others are only to be there
    record: CropRecord
    screens: dict           # source_path -> size (width, height, px) and black of the screens that crops were cut from
    cut: dict               # path of a crop -> box and channels that it was cut with, as text
    turned_grey: set        # paths of the crops whose colours were taken away
    listed: set             # processed_path of the crops that the processed tables name


def check_processed(paths: Paths) -> tuple[pd.DataFrame, list]:
    """Check image_data.csv, train.csv and test.csv, if option 0 has made any of them.

    Args:
        paths: config.Paths.

    Returns:
        images: DataFrame with the columns KEY, one row per crop that a table names.
        findings: list of Finding; tables.read_processed would refuse the table at the first of them.
    """
    wanted = {paths.image_table: c.IMAGE_COLUMNS, paths.train_table: c.TRAIN_COLUMNS, paths.test_table: c.TEST_COLUMNS}
    parts = [pd.DataFrame(columns=KEY)]
    found: list[Finding] = []
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


def check_images(paths: Paths, images: pd.DataFrame, processed: pd.DataFrame, views: dict[str, View]) -> list:
    """Look at every image of data/source and at every crop that the processed tables name.

    Args:
        paths: config.Paths.
        images: DataFrame with IMAGE_COLUMNS of data/source.
        processed: DataFrame of check_processed.
        views: name -> View.

    Returns:
        list of Finding; those of images name the screen (source_path), those of crops the crop.
    """
    gone = processed[~processed[c.PROCESSED].isin(images[c.PROCESSED])]
    crops = {name: view_paths(images, view) for name, view in views.items()}
    rows = [row | {CROPS: {name: crops[name][place] for name in views}}
            for place, row in enumerate(images[KEY].to_dict("records"))]
    rows += [row | {CROPS: {"bscan": row[c.PROCESSED]}} for row in gone.to_dict("records")]
    record = CropRecord(paths.crop_record)
    screens = {source: ((width, height), black)
               for source, width, height, black in record.screens(images[c.PROCESSED]).itertuples(index=False)}
    task = Task(paths, views, record, screens, record.views(), record.find_turned_grey(), {*processed[c.PROCESSED]})
    found: list[Finding] = []
    first: dict[bytes, dict] = {}
    with one_image_per_thread():
        looks = map_in_threads(lambda row: _look_at(row, task), rows)
        for row, look in zip(rows, progress(looks, total=len(rows), label="check", unit="image"), strict=True):
            found += look.findings
            if look.digest is not None and first.setdefault(look.digest, row) is not row:
                found.append(_same_picture(row, first[look.digest]))
    if len(images) and sum(each.kind == "image-unreadable" for each in found) == len(images):
        found.append(find("no-images", paths.relative(paths.source), detail="not one image can be read"))
    return found + _find_unused_crops(paths, views, task.listed)


def check_measures(paths: Paths, images: pd.DataFrame) -> list:
    """What option 11 said of scans, where it has run.

    Args:
        paths: config.Paths.
        images: DataFrame with IMAGE_COLUMNS of data/source.

    Returns:
        list of Finding: of scans whose retina was not found, or is cut off at the top, unless they changed since.
    """
    if not paths.measures.is_file():
        return []
    try:
        table = read_measures(paths.measures)
    except PipelineError as error:
        return [find("measures-broken", paths.relative(paths.measures), detail=str(error))]
    kinds = {c.NO_RETINA: "retina-missing", c.CUT_OFF: "retina-cut"}
    table = table[table[c.PROBLEM].isin(kinds) & table[c.FILE].isin(images[c.SOURCE])]
    return [find(kinds[problem], file)
            for file, problem, *state in table[[c.FILE, c.PROBLEM, *c.MEASURED_STATE[:2]]].itertuples(index=False)
            if state == describe_file(paths.root / file)]


def check_geometry(paths: Paths, images: pd.DataFrame) -> list:
    """What option 0 read from the screens about where the scans lie, where it has run.

    Args:
        paths: config.Paths.
        images: DataFrame with IMAGE_COLUMNS of data/source.

    Returns:
        list of Finding: that it is of another version; screens whose lines cannot be read, or tell another line than
        the counter; visits none of whose scans is known to lie within NEAR_FOVEA_UM of the middle of their pattern,
        though some lines can be read.
    """
    try:
        table = images.merge(GeometryRecord(paths.geometry_table).table(images[c.SOURCE]), on=c.SOURCE)
    except PipelineError:
        return [find("lines-unread", paths.relative(paths.geometry_table))]
    found = [find("lines-unknown", file) for file in table[c.SOURCE][table["pattern"] == UNKNOWN]]
    found += [find("counter-differs", row[c.SOURCE], f"{row['line']:.0f} of {row['lines']:.0f} by the green lines")
              for row in table[table["counter"] == DIFFERS].to_dict("records")]
    for _, visit in table.groupby([c.PATIENT, c.AFTER, c.DATA_TYPE]):
        nearest = visit["distance_um"].abs().min()
        if nearest <= NEAR_FOVEA_UM or (visit["pattern"] == UNKNOWN).all():     # the latter are named one by one
            continue
        is_known = visit["distance_um"].notna().all()
        value = f"{nearest:.0f} um" if is_known else ""
        found.append(find("visit-off-fovea" if is_known else "visit-place-unknown", visit[c.SOURCE].iloc[0], value))
    return found


def _look_at(row, task):
    """Look at one image: its crop where option 0 would leave that as it is, else its screen."""
    paths, view = task.paths, task.views["bscan"]
    source, crop_file, crop = paths.root / row[c.SOURCE], paths.root / row[c.PROCESSED], row[c.PROCESSED]
    found = _check_listed(row, task) if crop in task.listed else []
    if not source.is_file():
        found += [find("source-gone", crop, row[c.SOURCE])]
        return _look_at_crop(row, crop_file, task, found) if crop_file.is_file() else Look(found, None)
    if is_current(crop, row[c.SOURCE], view, paths=paths, record=task.record):
        found += _check_screen(row, *task.screens[row[c.SOURCE]])
        found += [find("bscan-coloured", row[c.SOURCE])] if crop in task.turned_grey else []
        return _look_at_crop(row, crop_file, task, found)
    if crop in task.listed and crop_file.is_file():
        found += _look_at_crop(row, crop_file, task, []).findings
    look = _look_at_screen(row, source, task, found)
    readable = all(each.kind != "image-unreadable" for each in look.findings)
    if task.listed and readable:
        look.findings.append(find("crop-stale", row[c.SOURCE]))
    return look


def _check_listed(row, task):
    """Findings of the crops of an image that a processed table names: there, cut with the view, readable (of bscan,
    whose pixels are looked at, that is found out elsewhere)?"""
    found = []
    for name, crop in row[CROPS].items():
        view, file, known = task.views[name], task.paths.root / crop, task.cut.get(crop)
        is_wanted = known == (describe_view(view), str(view.channels))
        if not file.is_file() and (is_wanted or name == "bscan"):
            found.append(find("crop-missing", crop))
        elif not is_wanted:
            value = known[0] if known else "unknown" if file.is_file() else "not cut"
            found.append(find("crop-box", crop, value, detail=f"config.VIEWS['{name}'] is {describe_view(view)}"))
        elif name != "bscan":
            found += _read_crop(crop, file, view)[2]
    return found


def _read_crop(crop, file, view):
    """Pixels, bytes and findings of a crop on the disk; None, None where there is a finding."""
    try:
        data = file.read_bytes()
        pixels = decode_image(data)
    except (OSError, ImageError) as error:
        return None, None, [find("crop-unreadable", crop, detail=str(error))]
    height, width = pixels.shape[:2]
    if (width, height) != (view.width, view.height):
        wanted = f"{view.width} x {view.height} is the box's"
        return None, None, [find("crop-size", crop, f"{width} x {height}", detail=wanted)]
    return pixels, data, []


def _look_at_crop(row, file, task, found):
    pixels, data, faults = _read_crop(row[c.PROCESSED], file, task.views["bscan"])
    return Look([*found, *faults], None) if faults else _look_at_pixels(row, pixels, data, found)


def _look_at_screen(row, file, task, found):
    view = task.views["bscan"]
    try:
        screen = read_image(file)
        data, turned_grey = cut_view(screen, view)
    except ImageError as error:
        return Look([*found, find("image-unreadable", row[c.SOURCE], detail=str(error))], None)
    crop = crop_image(screen, view)
    found = found + _check_screen(row, screen.shape[1::-1], measure_black(crop))
    found += [find("bscan-coloured", row[c.SOURCE])] if turned_grey else []
    return _look_at_pixels(row, crop, data, found)


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


def _check_screen(row, size, black):
    value = f"{size[0]} x {size[1]}"
    if reason := explain_oddity(size, black):
        return [find("screen-odd", row[c.SOURCE], value, detail=reason)]
    return [find("screen-narrow", row[c.SOURCE], value)] if size == NARROW_SCREEN else []


def _same_picture(row, first):
    if row[c.PATIENT] != first[c.PATIENT]:
        where = f"also of eye {first[c.PATIENT]}"
    else:
        where = "same eye, " + ("same visit" if row[c.AFTER] == first[c.AFTER] else "other visit")
    where += ", in training and in test" if row[c.DATA_TYPE] != first[c.DATA_TYPE] else ""
    return find("image-identical", row[c.SOURCE], first[c.SOURCE], detail=where)


def _find_unused_crops(paths, views, listed):
    """Crops of every view that no table names: the end of their path is that of the view bscan."""
    if not listed:
        return []
    ends = set(map(end_of_path, listed))
    names = (paths.relative(file) for view in views.values() for file in sorted(paths.view_folder(view).rglob("*.jpg")))
    return [find("crop-unused", name) for name in names if end_of_path(name) not in ends]


def end_of_path(crop: str) -> str:
    """What the crops of all views of an image share: the path below data/processed/<folder>."""
    return crop.split("/", 3)[-1]
