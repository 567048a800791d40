"""Which files are there, missing or superfluous below data/source. Opens only tables that are there twice.

Reads the folders below data/source; writes nothing.
"""

from collections import defaultdict
from typing import NamedTuple

import pandas as pd

import config
from processing import columns as c
from processing.check.kinds import find
from processing.data_factory import NEEDED
from processing.errors import PipelineError
from processing.source import ROUNDS, SUFFIXES, TABLE_FILES, find_files, printable, read_image_rows

NOTE_FILE = "readme.md"     # the notes that a clone has in each folder of the layout


class Layout(NamedTuple):
    """What lies in data/source, by name."""

    images: pd.DataFrame    # IMAGE_COLUMNS, one row per image
    tables: dict            # key of TABLE_FILES -> Path, of those that the images need (without images: all)


def read_layout(paths):
    """Look at every name below data/source.

    Args:
        paths: config.Paths.

    Returns:
        Layout, and the list of Findings.
    """
    no_images = pd.DataFrame(columns=c.IMAGE_COLUMNS)
    if not paths.source.is_dir():
        return Layout(no_images, {}), []
    try:
        files = list(find_files(paths.source))
        rows, problems = read_image_rows(paths)
    except PipelineError as error:
        return Layout(no_images, {}), [find("folder-unlistable", paths.relative(paths.source), error)]
    images = pd.DataFrame(rows, columns=c.IMAGE_COLUMNS)
    found = [find("name-unknown", source, detail=reason) for source, reason in problems]
    copies = _list_tables(files, paths)
    needed, missing = _needed_tables(images, copies, paths)
    found += missing
    found += _contradicting(copies, paths)
    known = set(images[c.SOURCE]) | {source for source, _ in problems}
    known |= {printable(paths.relative(file)) for same in copies.values() for file in same}
    found += _superfluous(files, known, paths)
    return Layout(images, {key: copies[key][0] for key in needed if key in copies}), found


def _list_tables(files, paths):
    """dict of a key of TABLE_FILES -> every file of that name in its round's folder."""
    wanted = {(place, name.lower()): key for key, (place, names) in TABLE_FILES.items() for name in names}
    copies = defaultdict(list)
    for file in files:
        round_name = file.relative_to(paths.source).parts[0].lower()
        key = wanted.get((round_name, file.name.lower()))
        if key:
            copies[key].append(file)
    return copies


def _needed_tables(images, copies, paths):
    """Keys of the tables that the images need, and Findings of absent tables, unused tables and absent sets."""
    if images.empty:        # the tables alone are worth checking too
        return list(TABLE_FILES), []
    present = set(zip(images[c.FINAL].map(dict(enumerate(ROUNDS))), images[c.DATA_TYPE], strict=True))
    needed = [key for place, keys in NEEDED.items() if place in present for key in keys]
    found = []
    for round_name, data_type in NEEDED.keys() - present:
        folder = paths.relative(paths.source / round_name)
        found.append(find("set-absent", folder, f"{round_name} round, {data_type} images"))
    for key, (round_name, names) in TABLE_FILES.items():
        if key in needed and key not in copies:
            found.append(find("table-missing", paths.relative(paths.source / round_name), " or ".join(names)))
        if key not in needed:
            found += [find("table-unused", paths.relative(file)) for file in copies.get(key, [])]
    return needed, found


def _contradicting(copies, paths):
    return [
        find("table-contradicts", paths.relative(other), detail=f"it differs from {paths.relative(first)}")
        for first, *others in copies.values()
        for other in others
        if _content(other) != _content(first)
    ]


def _content(file):
    """The bytes of a file; None where it cannot be read, which whoever needs it will say."""
    try:
        return file.read_bytes()
    except OSError:
        return None


def _superfluous(files, known, paths):
    found = []
    for file in files:
        name = printable(paths.relative(file))
        if file.name in config.EXCLUDED_IMAGES and file.suffix.lower() in SUFFIXES:
            found.append(find("image-excluded", name))
        elif name not in known and file.name.lower() != NOTE_FILE:
            found.append(find("file-unused", name))
    return found
