"""File and folder names of both rounds become one row per image. Opens no image.

Reads the folders below data/source, the eyes that tables list and the first bytes of unknown files; writes nothing.

    preliminary/{Train_set,Test_set}/**/<patient>_<number>.jpg
    final/{Train_Set,Test_Set}/**/<eye>/<Pre|Post> Injection OCT Images/<image name>.jpg
"""

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath
from typing import Any

import pandas as pd

import config
from processing import columns as c
from processing.errors import PipelineError
from processing.formats import OTHER_TABLE, explain_unread, read_start
from processing.tables import read_sets
from processing.views import view_paths

SUFFIXES = (".jpg", ".jpeg", ".png")
MAX_NAME_BYTES = 220         # a crop's name is up to 35 bytes longer, systems allow 255
ROUNDS = ("preliminary", "final")
SETS = {"train_set": "train", "test_set": "test"}       # folder name in lower case -> data_type

# The tables by the two sets of names under which they are handed out, and the round whose folder holds them
TABLE_FILES = {
    "annotation": ("preliminary", ("TrainingAnnotation.csv", "train_anno_stage1.csv")),
    "preliminary_info": ("preliminary", ("PreliminaryValidationSet_Info.csv", "test_info_stage1.csv")),
    "case": ("final", ("train_anno_case.csv", "train_anno_case_stage2.csv")),
    "pic": ("final", ("train_anno_pic.csv", "train_anno_pic_stage2.csv")),
    "final_info": ("final", ("test_info.csv", "test_info_stage2.csv")),
}
TABLE_OF_NAME = {name.lower(): table for table, (_, names) in TABLE_FILES.items() for name in names}

# 0000-0163R_2 (1): eye 0000-0163R, visit 2 (after), the rest is the image's index
_PRELIMINARY_NAME = re.compile(r"(?P<patient>[^_]*\d[LR])_(?P<visit>[12])", re.IGNORECASE)
_EYE_FOLDER = re.compile(r".*\d[LR]", re.IGNORECASE)
_VISIT_FOLDER = re.compile(r"(?P<visit>pre|post)[\s_-]*injection\b.*", re.IGNORECASE)
_NAMING_RULES = {
    "preliminary": "<eye>_1... before and <eye>_2... after treatment, as 0000-0001L_1000.jpg",
    "final": "<eye>/Pre Injection OCT Images/... and <eye>/Post Injection OCT Images/..., eyes as 600L",
}

# Of tables and templates, without the suffix
TABLE_STEMS = {name.removesuffix(".csv") for name in (*TABLE_OF_NAME, *map(str.lower, c.SUBMISSION_COLUMNS))}


def find_set_folders(source: Path) -> list[tuple[str, str, Path]]:
    """Folders of images and tables below `source`, matched in any case.

    Returns:
        list of (round, data_type, Path), round from ROUNDS, data_type "train" or "test", sorted.
    """
    return [
        (round_folder.name.lower(), SETS[folder.name.lower()], folder)
        for round_folder in _list_round_folders(source)
        for folder in _list_folders(round_folder)
        if folder.name.lower() in SETS
    ]


def list_tables(source: Path) -> dict[str, list[Path]]:
    """The tables of both rounds, anywhere inside their round's folder, by either name in any case.

    Returns:
        dict of a key of TABLE_FILES -> every file of that name; tables that are not there have no key.
    """
    found: dict[str, list[Path]] = {}
    for folder in _list_round_folders(source):
        for file in find_files(folder):
            table = TABLE_OF_NAME.get(file.name.lower())
            if table and TABLE_FILES[table][0] == folder.name.lower():
                found.setdefault(table, []).append(file)
    return found


def find_tables(source: Path) -> dict[str, Path]:
    """The one file of each table that list_tables finds.

    Raises:
        PipelineError: a table is there twice with different content, or cannot be read.
    """
    found = list_tables(source)
    for first, *others in found.values():
        content = _read_bytes(first)
        for other in others:
            if _read_bytes(other) != content:
                raise PipelineError(f"{first} and {other} are one table with different content; keep one.")
    return {table: files[0] for table, files in found.items()}


def find_files(folder: Path, *, passed: Iterable[str] = ()) -> Iterator[Path]:
    """Every file below `folder` but hidden ones (.DS_Store, __MACOSX), sorted by folder and name.

    A folder with an image's name (x.jpg) counts as a file, so that reading it fails and is reported.

    Linked folders are entered, each real folder once, so that a loop of links ends; those of the real paths `passed`
    are not.
    """
    entered = set(passed)
    for place, folders, names in os.walk(folder, onerror=_refuse_listing, followlinks=True):
        real = os.path.realpath(place)
        if real in entered:
            folders.clear()
            continue
        entered.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        for name in sorted([*names, *(name for name in folders if name.lower().endswith(SUFFIXES))]):
            if not name.startswith("."):
                yield Path(place, name)


def read_image_rows(paths: config.Paths) -> tuple[list[dict[str, Any]], list[tuple[str, str]]]:
    """One row per image of both rounds, sorted by source_path.

    An image is of the set whose table lists its eye, else of the one that its folders name (see find_misnamed).

    Args:
        paths: config.Paths.

    Returns:
        rows: list of dicts with the columns of image_data.csv; paths relative to the root.
        problems: list of (source_path, reason) of what has no row: images of which is_image is true that follow no
            naming rule, are in no set or would overwrite another image's crop; and other files that look like scans,
            tables or archives and are not read.
    """
    rows, problems = [], []
    sets = read_sets((table, file) for table, files in list_tables(paths.source).items() for file in files)
    for file in _walk(paths.source):
        name, within = paths.relative(file), file.relative_to(paths.source)
        if not is_image(file):
            reason = _explain_unread(file, within)
        elif file.name in config.EXCLUDED_IMAGES:
            continue
        else:
            round_name = within.parts[0].lower()
            row = parse_name(within, round_name) if round_name in ROUNDS else None
            data_type = row and (sets.get((round_name, row[c.PATIENT])) or _name_set(within))
            reason = _find_name_fault(within, row, data_type)
            if row and not reason:
                rows.append(row | {c.SOURCE: name, c.DATA_TYPE: data_type})
        problems += [(printable(name), reason)] if reason else []
    rows.sort(key=lambda row: row[c.SOURCE])
    names = view_paths(pd.DataFrame(rows, columns=c.IMAGE_COLUMNS), config.VIEWS["bscan"])
    rows = [row | {c.PROCESSED: name} for row, name in zip(rows, names, strict=True)]
    return _drop_clashes(rows, problems), problems


def _walk(source):
    """Every file below `source`, those of the sets' folders first: a link to such a folder is passed over."""
    sets = [folder for _, _, folder in find_set_folders(source)]
    for folder in sets:
        yield from find_files(folder)
    if source.is_dir():
        yield from find_files(source, passed=map(os.path.realpath, sets))


def find_misnamed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those rows of read_image_rows whose folders name another set than the table that lists their eye."""
    return [row for row in rows
            if _name_set(PurePath(*row[c.SOURCE].split("/")[2:])) not in (None, row[c.DATA_TYPE])]


def guess_set(name: str) -> str | None:
    """Train or test, as a name says: TrainingSet, Validation Set, test_set2, 训练集; None: neither or both."""
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[\u4e00-\u9fff]+", name)
    found = [re.match(r"(?:preliminary|final|初赛|复赛|决赛)?(train|test|valid|val$|训练|测试|验证)", word.lower())
             for word in words]
    sets = {"train" if match[1] in ("train", "训练") else "test" for match in found if match}
    return sets.pop() if len(sets) == 1 else None


def _name_set(within):
    """Train or test, as the folders of a file below data/source say, or None."""
    folders = within.parts[1:-1]
    exact = SETS.get(folders[0].lower()) if folders else None
    return exact or next(filter(None, map(guess_set, reversed(folders))), None)      # the nearest folder that tells


def explain_unread_file(name: str, start: bytes) -> str | None:
    """Why a file that is neither an image, a zip file nor a known table by name is not read, if it looks like data.

    Args:
        name: of the file.
        start: its first formats.START_BYTES.

    Returns:
        What it is and what to do; None of notes and the like.
    """
    name = name.lower()
    if name.endswith(".csv"):
        return "it has the name of no table; rename it to that of its table, as TrainingAnnotation.csv"
    if name.split(".")[0] in TABLE_STEMS:
        return OTHER_TABLE
    unread = explain_unread(name, start)
    return unread and unread.reason


def _explain_unread(file, within):
    """Why a file below data/source that is no image is not read, if it looks like data; None also of a table."""
    name = file.name.lower()
    if name in TABLE_OF_NAME:
        round_name, _ = TABLE_FILES[TABLE_OF_NAME[name]]
        is_in_place = within.parts[0].lower() == round_name
        return None if is_in_place else f"it is a table of the {round_name} round; put it below {round_name}"
    if name in map(str.lower, c.SUBMISSION_COLUMNS):
        return "it is a submission template; put it into data/submit"
    if name.endswith(".zip"):
        return "zip files are opened by option 7 (import_data) only; let that lay it out, or unpack it here"
    return explain_unread_file(name, read_start(file))


def is_image(file: PurePath) -> bool:
    """Whether a file is one of those that are read as images, by its name."""
    return file.suffix.lower() in SUFFIXES


def parse_name(path: PurePath, round_name: str) -> dict[str, Any] | None:
    """What a file's place and name say of an image, or None where they follow no rule.

    >>> parse_name(Path("0000-0163/0000-0163R_2 (1).jpg"), "preliminary")[c.PATIENT]
    '0000-0163R'
    """
    if round_name == "preliminary":
        match = _PRELIMINARY_NAME.match(path.stem)
        patient, after = (match["patient"], match["visit"] == "2") if match else (None, False)
    else:
        patient, after = _parse_final_path(path)
    if patient is None:
        return None
    patient = c.normalise_patient(patient)
    return {
        c.PATIENT: patient,
        c.SIDE: int(patient.endswith("R")),
        c.FINAL: int(round_name == "final"),
        c.AFTER: int(after),
        c.INJECTION: c.POST if after else c.PRE,
        c.IMAGE: path.stem,
    }


def _find_name_fault(within, row, data_type):
    """What is wrong with an image's place and name below data/source, or nothing."""
    round_name, name = within.parts[0].lower(), str(within)
    if round_name not in ROUNDS:
        return "it lies in the folder of no round; put its set's folder below preliminary or final"
    if row is None:
        return f"its name follows no rule of the {round_name} round: {_NAMING_RULES[round_name]}"
    if data_type is None:
        return f"its folder is of no set; put it below {round_name}/Train_set or {round_name}/Test_set"
    if name != printable(name):
        return "its name is not UTF-8 (unpacked on another system?); rename it"
    if len(within.name.encode()) > MAX_NAME_BYTES:
        return f"its name is longer than {MAX_NAME_BYTES} bytes; shorten it"
    return None


def printable(name: str) -> str:
    """A file name with \\x.. for each byte that is no text."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _parse_final_path(path):
    if len(path.parts) < 3:
        return None, None
    eye, visit = path.parts[-3], _VISIT_FOLDER.fullmatch(path.parts[-2])
    if visit is None or not _EYE_FOLDER.fullmatch(eye):
        return None, None
    return eye, visit["visit"].lower() == "post"


def _drop_clashes(rows, problems):
    """Drop rows whose crop would carry the name of an earlier row's (names differing in case count as one)."""
    kept = {}
    for row in rows:
        first = kept.setdefault(row[c.PROCESSED].lower(), row)
        if first is not row:
            problems.append((row[c.SOURCE], f"same eye, visit and image name as {first[c.SOURCE]}"))
    return list(kept.values())


def _read_bytes(file):
    try:
        return file.read_bytes()
    except OSError as error:
        raise PipelineError(f"{file} cannot be read: {error.strerror or error}.") from error


def _list_round_folders(source):
    return [folder for folder in _list_folders(source) if folder.name.lower() in ROUNDS]


def _list_folders(folder):
    return sorted(child for child in folder.iterdir() if child.is_dir()) if folder.is_dir() else []


def _refuse_listing(error):
    raise PipelineError(f"{error.filename} could not be listed: {error.strerror}.") from error
