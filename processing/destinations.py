"""Where each downloaded file belongs in the layout: its name tells it, the folders above it, or a table.

Reads the names below data/source and data/submit, and the eyes that tables list; writes nothing.
"""

import re
import tempfile
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from config import Paths
from processing import columns as c
from processing.downloads import Entry, make_entry
from processing.files import write_bytes
from processing.source import (
    SETS,
    SUFFIXES,
    TABLE_FILES,
    TABLE_OF_NAME,
    explain_unread_file,
    find_files,
    find_set_folders,
    find_tables,
    guess_set,
    parse_name,
)
from processing.tables import read_sets

IMAGES, TABLES, TEMPLATES = "images", "tables", "templates"
NO_DATA = "no part of the data"
SET_FOLDERS = {                                         # made where a set has no folder yet
    ("preliminary", "train"): "preliminary/Train_set",
    ("preliminary", "test"): "preliminary/Test_set",
    ("final", "train"): "final/Train_Set",
    ("final", "test"): "final/Test_Set",
}
_CROP_NAME = re.compile(r".*\d[LR]_[01]_[01]_[01]_", re.IGNORECASE)     # <eye>_<final>_<after>_<side>_, of option 0
# Characters that Windows or a UTF-8 table cannot hold
_UNSTORABLE = re.compile(r'[\x00-\x1f\x7f<>:"|?*/\\\ud800-\udfff]')


class Item(NamedTuple):
    """A file of the data, and where it belongs."""

    entry: Entry
    kind: str               # IMAGES, TABLES or TEMPLATES
    round_name: str         # one of ROUNDS; empty for templates
    data_type: str | None   # train or test; empty for templates; None: no name tells
    key: tuple              # what the pipeline knows it by within its set (of an image, its eye first)
    tail: tuple[str, ...]   # names below the set's folder

    @property
    def identity(self) -> tuple:
        """The same for two files of which the pipeline can use one only."""
        return self.kind, self.round_name, self.data_type, self.key


def locate_entry(entry: Entry) -> Item | str:
    """Tell where a file belongs by its name and the folders above it.

    Returns:
        Item, or why the file is left out: NO_DATA for notes, previews and the like.
    """
    parts = tuple(next(same) for _, same in groupby(entry.parts, str.casefold))     # Train Set/Train Set is one folder
    name = parts[-1].lower()
    if table := TABLE_OF_NAME.get(name):
        round_name, (usual_name, _) = TABLE_FILES[table]
        return Item(entry, TABLES, round_name, guess_set(usual_name), (table,), parts[-1:])
    if name in c.SUBMISSION_COLUMNS:
        return Item(entry, TEMPLATES, "", "", (name,), (name,))
    if name.endswith(SUFFIXES):
        return _locate_image(entry, parts)
    return explain_unread_file(name, entry.read_start()) or NO_DATA


def _locate_image(entry, parts):
    path, folders = PurePosixPath(*parts), list(parts[:-1])
    data_type = next(filter(None, map(guess_set, reversed(folders))), None)     # the nearest folder that tells
    if row := parse_name(path, "final"):
        tail = parts[-3:]
    elif _CROP_NAME.match(path.name):
        return "it is a crop that option 0 made, no scan"
    elif row := parse_name(path, "preliminary"):
        person = c.person_of(row[c.PATIENT])
        if folders and c.person_of(folders[-1].upper()) == person:
            person = folders.pop()
        tail = person, path.name
        # A folder such as TrainingSet1 above the person's is kept
        if folders and guess_set(folders[-1]) and folders[-1].lower().replace(" ", "_") not in SETS:
            tail = folders[-1], *tail
    else:
        return "its name and folders follow no rule of either round"
    if any(_UNSTORABLE.search(part) for part in tail):
        return "its name or folder holds characters that not every system can store"
    return _make_image(entry, row, data_type, tail)


def _make_image(entry, row, data_type, tail):
    """The Item of an image, `row` as parse_name gives it."""
    key = row[c.PATIENT], row[c.AFTER], row[c.IMAGE].casefold()
    return Item(entry, IMAGES, c.ROUND_NAMES[row[c.FINAL]], data_type, key, tail)


def find_existing(paths: Paths) -> dict[tuple, Item]:
    """What data/source and data/submit hold already.

    Returns:
        dict of Item.identity -> Item.

    Raises:
        PipelineError: a folder cannot be listed, or a table is there twice with different content.
    """
    items = []
    for round_name, data_type, folder in find_set_folders(paths.source):
        for file in find_files(folder):
            tail = file.relative_to(folder)
            if file.suffix.lower() in SUFFIXES and (row := parse_name(tail, round_name)):
                items.append(_make_image(make_entry(file), row, data_type, tail.parts))
    submit = find_files(paths.submit) if paths.submit.is_dir() else ()
    templates = [file for file in submit if file.name.lower() in c.SUBMISSION_COLUMNS]
    items += [locate_entry(make_entry(file)) for file in (*find_tables(paths.source).values(), *templates)]
    return {item.identity: item for item in reversed(items)}        # of two with one identity, the first


def choose_folders(paths: Paths) -> dict[tuple[str, str], Path]:
    """Choose the folder of each (round, data_type), the one that is there or else a new one; ("", ""): of templates."""
    new = {key: paths.source / name for key, name in SET_FOLDERS.items()}
    there = {(round_name, data_type): folder
             for round_name, data_type, folder in reversed(find_set_folders(paths.source))}
    return {("", ""): paths.submit} | new | there


def decide_sets(items: list[Item], known: dict[tuple, Item]) -> tuple[list[Item], list[Item]]:
    """Decide which set an image belongs to: as the table says that knows its eye, else as names say.

    Tables know no eye that tables of both sets list. What the layout holds already stays where it is.

    Args:
        items: of locate_entry.
        known: of find_existing.

    Returns:
        items: the same with their data_type, None where neither tells.
        misnamed: those whose names say otherwise than the table, as named; of the layout's, the item there.

    Raises:
        PipelineError: a table cannot be read at all. Faults in its cells are check_data's to report.
    """
    told = _read_sets(item for item in (*items, *known.values()) if item.kind == TABLES)
    decided, misnamed = [], []
    for item in items:
        data_type = told.get((item.round_name, item.key[0]), item.data_type) if item.kind == IMAGES else item.data_type
        if item.data_type not in (None, data_type):
            misnamed.append(known.get(item.identity, item))
            if item.identity not in known:      # nor is a folder such as TrainingSet1 kept that says the other set
                tail = item.tail[1:] if guess_set(item.tail[0]) == item.data_type else item.tail
                item = item._replace(data_type=data_type, tail=tail)
        decided.append(item._replace(data_type=item.data_type or data_type))
    return decided, misnamed


def _read_sets(tables):
    """(round, eye) -> train or test, as tables say that list the eye."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:       # a table may lie in a zip file
        files = []
        for number, table in enumerate(tables):
            files.append((*table.key, Path(folder, f"{number}.csv")))
            write_bytes(files[-1][1], b"".join(table.entry.read_chunks()))
        return read_sets(files)
