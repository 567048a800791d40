"""File and folder names of both rounds become one row per image. Opens no file.

Reads the folders below data/source; writes nothing.

    preliminary/{Train_set,Test_set}/**/<patient>_<number>.jpg
    final/{Train_Set,Test_Set}/**/<eye>/<Pre|Post> Injection OCT Images/<image name>.jpg
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any

import pandas as pd

import config
from processing import columns as c
from processing.errors import PipelineError
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


def find_files(folder: Path) -> Iterator[Path]:
    """Every file below `folder` but hidden ones (.DS_Store, __MACOSX), sorted by folder and name.

    A folder with an image's name (x.jpg) counts as a file, so that reading it fails and is reported.

    Linked folders are entered, each real folder once, so that a loop of links ends.
    """
    entered = set()
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

    Args:
        paths: config.Paths.

    Returns:
        rows: list of dicts with the columns of image_data.csv; paths relative to the root.
        problems: list of (source_path, reason) of images that follow no naming rule or would
            overwrite another image's crop; they have no row.
    """
    rows, problems = [], []
    for round_name, data_type, folder in find_set_folders(paths.source):
        for file in find_files(folder):
            if file.suffix.lower() not in SUFFIXES or file.name in config.EXCLUDED_IMAGES:
                continue
            row = parse_name(file.relative_to(folder), round_name)
            reason = _find_name_fault(file, row, round_name)
            if row is None or reason:
                problems.append((printable(paths.relative(file)), reason))
            else:
                rows.append(row | {c.SOURCE: paths.relative(file), c.DATA_TYPE: data_type})
    rows.sort(key=lambda row: row[c.SOURCE])
    names = view_paths(pd.DataFrame(rows, columns=c.IMAGE_COLUMNS), config.VIEWS["bscan"])
    rows = [row | {c.PROCESSED: name} for row, name in zip(rows, names, strict=True)]
    return _drop_clashes(rows, problems), problems


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


def _find_name_fault(file, row, round_name):
    """What is wrong with an image's name, or nothing."""
    if row is None:
        return f"its name follows no rule of the {round_name} round"
    if str(file) != printable(str(file)):
        return "its name is not UTF-8 (unpacked on another system?); rename it"
    if len(file.name.encode()) > MAX_NAME_BYTES:
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
