"""Where a downloaded file belongs in the layout, told by its own name and the names of the folders above it.

Reads the names below data/source and data/submit, and the eyes that tables list; writes nothing.
"""

import re
import tempfile
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from processing import columns as c
from processing.archive import file_entry
from processing.files import write_bytes
from processing.reader import parse_table
from processing.source import SETS, SUFFIXES, TABLE_FILES, find_files, find_set_folders, find_tables, parse_name
from processing.tables import parse_patient

IMAGES, TABLES, TEMPLATES = "images", "tables", "templates"
TRAIN_TABLES = ("annotation", "case", "pic")            # keys of TABLE_FILES; the other tables are of test eyes
SET_FOLDERS = {                                         # made where a set has no folder yet
    ("preliminary", "train"): "Train_set",
    ("preliminary", "test"): "Test_set",
    ("final", "train"): "Train_Set",
    ("final", "test"): "Test_Set",
}

_TABLE_OF_NAME = {name.lower(): table for table, (_, names) in TABLE_FILES.items() for name in names}
_CLOSED_ARCHIVES = (".rar", ".7z", ".tar", ".gz", ".tgz", ".bz2", ".xz")
_CROP_NAME = re.compile(r".*\d[LR]_[01]_[01]_[01]_", re.IGNORECASE)     # <eye>_<final>_<after>_<side>_, of option 0
# Characters that Windows or a UTF-8 table cannot hold
_UNSTORABLE = re.compile(r'[\x00-\x1f\x7f<>:"|?*/\\\ud800-\udfff]')


class Place(NamedTuple):
    """Where a file belongs."""

    kind: str               # IMAGES, TABLES or TEMPLATES
    round_name: str         # one of ROUNDS; empty for templates
    data_type: str | None   # train or test; None: no name tells
    tail: tuple             # names below the set's folder
    key: tuple              # what the pipeline knows it by within its set: two files with one key clash
    eye: str = ""           # of an image

    @property
    def identity(self):
        """The same for two files of which the pipeline can use one only."""
        return self.kind, self.round_name, self.data_type, self.key


def find_place(parts):
    """Where the file belongs that stands at `parts`: names of the source, the folders below it and the file.

    Returns:
        Place, or None for a file that is left out.
        reason: why it is left out; None for files that are no part of the data (notes, previews).
    """
    parts = _without_doubled(parts)
    name = parts[-1]
    suffix = PurePosixPath(name).suffix.lower()
    if name.lower() in _TABLE_OF_NAME:
        return _table_place(name), None
    if name.lower() in c.SUBMISSION_COLUMNS:
        return Place(TEMPLATES, "", None, (name.lower(),), (name.lower(),)), None
    if suffix in SUFFIXES:
        return _image_place(parts)
    if suffix == ".csv":
        return None, "it has the name of no table"
    if suffix in _CLOSED_ARCHIVES:
        return None, "archives of this kind are not opened; unpack it and import the folder"
    return None, None


def find_existing(paths):
    """What the layout holds already.

    Args:
        paths: config.Paths.

    Returns:
        dict of Place.identity -> Path.

    Raises:
        PipelineError: a folder cannot be listed, or a table is there twice with different content.
    """
    existing = {}
    for round_name, data_type, folder in find_set_folders(paths.source):
        for file in find_files(folder):
            if file.suffix.lower() in SUFFIXES and (row := parse_name(file.relative_to(folder), round_name)):
                existing.setdefault((IMAGES, round_name, data_type, _image_key(row)), file)
    for file in find_tables(paths.source).values():
        existing[_table_place(file.name).identity] = file
    for file in find_files(paths.submit) if paths.submit.is_dir() else ():
        if file.name.lower() in c.SUBMISSION_COLUMNS:
            existing[TEMPLATES, "", None, (file.name.lower(),)] = file
    return existing


def target_of(place, paths, set_folders):
    """The path that a file gets in the layout.

    Args:
        place: Place whose data_type is known.
        paths: config.Paths.
        set_folders: dict of (round, data_type) -> the set's folder that is there.

    Returns:
        Path below data/source, or for templates data/submit; nothing need be there.
    """
    if place.kind == TEMPLATES:
        return paths.submit.joinpath(*place.tail)
    key = place.round_name, place.data_type
    folder = set_folders.get(key, paths.source / place.round_name / SET_FOLDERS[key])
    return folder.joinpath(*place.tail)


def read_sets_of_eyes(entries):
    """Which set each eye belongs to, by the tables that list it.

    Args:
        entries: list of (Place, Entry) of tables.

    Returns:
        dict of (round, eye) -> "train" or "test"; eyes that tables of both sets list are left out.
    """
    told = {}
    for place, entry in entries:
        for eye in _read_eyes(entry):
            told.setdefault((place.round_name, eye), set()).add(place.data_type)
    return {eye: sets.pop() for eye, sets in told.items() if len(sets) == 1}


def find_table_entries(paths):
    """(Place, Entry) of each table that the layout holds."""
    return [(_table_place(file.name), file_entry(file)) for file in find_tables(paths.source).values()]


def _read_eyes(entry):
    with tempfile.TemporaryDirectory() as folder:       # the table may lie in a zip file
        file = Path(folder, "table.csv")
        write_bytes(file, b"".join(entry.read_chunks()))
        table, _ = parse_table(file, {c.PATIENT: parse_patient})      # faults are check_data's to report
    return [eye for eye in table.get(c.PATIENT, ()) if eye is not None]


def _table_place(name):
    table = _TABLE_OF_NAME[name.lower()]
    return Place(TABLES, TABLE_FILES[table][0], "train" if table in TRAIN_TABLES else "test", (name,), (table,))


def _image_place(parts):
    path, data_type = PurePosixPath(*parts), _told_by_folders(parts[:-1])
    if row := parse_name(path, "final"):
        place = Place(IMAGES, "final", data_type, parts[-3:], _image_key(row), row[c.PATIENT])
    elif _CROP_NAME.match(path.name):
        return None, "it is a crop that option 0 made, no scan"
    elif row := parse_name(path, "preliminary"):
        tail = _preliminary_tail(parts, row[c.PATIENT])
        place = Place(IMAGES, "preliminary", data_type, tail, _image_key(row), row[c.PATIENT])
    else:
        return None, "its name and folders follow no rule of either round"
    if any(_UNSTORABLE.search(part) for part in place.tail):
        return None, "its name or folder holds characters that not every system can store"
    return place, None


def _image_key(row):
    return row[c.PATIENT], row[c.AFTER], row[c.IMAGE].casefold()


def _preliminary_tail(parts, patient):
    """<part>/<person>/<file>; the part only where a folder such as TrainingSet1 stands above the person's."""
    *above, name = parts
    person = patient[:-1]
    if above and above[-1].upper().removesuffix("L").removesuffix("R") == person:
        person = above.pop()
    part = above[-1] if above else ""
    is_set_folder = part.lower().replace(" ", "_") in SETS
    return (part, person, name) if _told_by(part) and not is_set_folder else (person, name)


def _told_by_folders(names):
    """Train or test, as the nearest folder says that says either; None where none does."""
    return next(filter(None, map(_told_by, reversed(names))), None)


def _told_by(name):
    """Train or test, as a name says: TrainingSet, Validation Set, test_set2, 训练集; None: neither or both."""
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[\u4e00-\u9fff]+", name)
    found = [re.match(r"(?:preliminary|final|初赛|复赛|决赛)?(train|test|valid|val$|训练|测试|验证)", word.lower())
             for word in words]
    told = {"train" if match[1] in ("train", "训练") else "test" for match in found if match}
    return told.pop() if len(told) == 1 else None


def _without_doubled(parts):
    """`Training Set/Training Set/a` -> `Training Set/a`."""
    return tuple(part for part, above in zip(parts, (None, *parts[:-1]), strict=True) if not _same(part, above))


def _same(name, other):
    return other is not None and name.casefold() == other.casefold()
