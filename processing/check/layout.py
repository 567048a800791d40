"""Which files are there, missing or superfluous below data/source. Opens only tables that are there twice.

Reads the folders below data/source; writes nothing.
"""

from pathlib import Path, PurePath
from typing import NamedTuple

import pandas as pd

import config
from processing import columns as c
from processing.check.kinds import Finding, find
from processing.data_factory import NEEDED
from processing.errors import PipelineError
from processing.source import (
    ROUNDS,
    TABLE_FILES,
    find_files,
    find_misnamed,
    is_image,
    list_tables,
    printable,
    read_image_rows,
)

NOTE_FILE = "readme.md"     # the notes that a clone has in each folder of the layout


class Layout(NamedTuple):
    """What lies in data/source, by name."""

    images: pd.DataFrame    # IMAGE_COLUMNS, one row per image
    tables: dict[str, Path]     # by the keys of TABLE_FILES, those that the images need (without images: all)


def read_layout(paths: config.Paths) -> tuple[Layout, list[Finding]]:
    """Look at every name below data/source.

    Args:
        paths: config.Paths.

    Returns:
        Layout, and what is missing, superfluous or contradictory.
    """
    nothing = Layout(pd.DataFrame(columns=c.IMAGE_COLUMNS), {})
    if not paths.source.is_dir():
        return nothing, []
    try:
        files = list(find_files(paths.source))
        copies = list_tables(paths.source)
        rows, problems = read_image_rows(paths)
    except PipelineError as error:
        return nothing, [find("folder-unlistable", paths.relative(paths.source), error)]
    images = pd.DataFrame(rows, columns=c.IMAGE_COLUMNS)
    needed, found = _choose_tables(images, copies, paths)
    found += [find("name-unknown" if is_image(PurePath(source)) else "file-unread", source, detail=reason)
              for source, reason in problems]
    found += [find("set-misnamed", row[c.SOURCE], row[c.PATIENT], detail=f"{row[c.DATA_TYPE]} by its table")
              for row in find_misnamed(rows)]
    for first, *others in copies.values():
        found += [find("table-contradicts", paths.relative(other), detail=f"it differs from {paths.relative(first)}")
                  for other in others if _read_content(other) != _read_content(first)]
    known = set(images[c.SOURCE]) | {source for source, _ in problems}
    known |= {printable(paths.relative(file)) for same in copies.values() for file in same}
    for file in files:
        name = printable(paths.relative(file))
        if file.name in config.EXCLUDED_IMAGES and is_image(file):
            found.append(find("image-excluded", name))
        elif name not in known and file.name.lower() != NOTE_FILE:
            found.append(find("file-unused", name))
    return Layout(images, {key: copies[key][0] for key in needed if key in copies}), found


def _choose_tables(images, copies, paths):
    """Keys of the tables that the images need, and Findings of absent tables, unused tables and absent sets."""
    if images.empty:        # the tables alone are worth checking too
        return list(TABLE_FILES), []
    present = set(zip(images[c.FINAL].map(dict(enumerate(ROUNDS))), images[c.DATA_TYPE], strict=True))
    needed = [key for place, keys in NEEDED.items() if place in present for key in keys]
    found = [find("set-absent", paths.relative(paths.source / round_name), f"{round_name} round, {data_type} images")
             for round_name, data_type in NEEDED if (round_name, data_type) not in present]
    for key, (round_name, names) in TABLE_FILES.items():
        if key not in needed:
            found += [find("table-unused", paths.relative(file)) for file in copies.get(key, [])]
        elif key not in copies:
            found.append(find("table-missing", paths.relative(paths.source / round_name), " or ".join(names)))
    return needed, found


def _read_content(file):
    """The bytes of a file; None where it cannot be read, which whoever needs it will say."""
    try:
        return file.read_bytes()
    except OSError:
        return None
