"""Option 7: downloaded folders, zip files and tables are laid out under data/source, as the other options want them.

Reads what was downloaded and never changes it; writes data/source and the templates in data/submit, by hard link
where the system can and by copy where not. Everything is planned, refused or agreed to before the first file.
"""

import os
import shutil
from collections import Counter, defaultdict
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from processing.archive import Entry, file_entry, find_entries, same_content
from processing.errors import PipelineError
from processing.files import replacing
from processing.placing import (
    IMAGES,
    TABLES,
    TEMPLATES,
    Place,
    find_existing,
    find_place,
    find_table_entries,
    read_sets_of_eyes,
    target_of,
)
from processing.source import find_set_folders
from processing.terminal import progress, say

MAX_NAMES_SHOWN = 20        # of the files that are left out for one reason
UNDONE = "Nothing was imported: the files that this run had placed are removed again."


class Imported(NamedTuple):
    """Numbers of files."""

    linked: int = 0
    copied: int = 0
    extracted: int = 0
    already_there: int = 0
    skipped: int = 0


class Item(NamedTuple):
    """One file to be placed."""

    entry: Entry
    place: Place
    target: Path


class Plan(NamedTuple):
    """What an import will do."""

    new: list               # of Item
    already_there: int      # files whose content the layout holds, or that the sources hold twice
    skipped: list           # of (Entry, reason)
    others: int             # files that are no part of the data


def import_data(paths, sources, *, confirm):
    """Lay out what was downloaded; a second run adds only what is new.

    Args:
        paths: config.Paths.
        sources: folders, zip files and CSV files as downloaded, in any mixture.
        confirm: function of the plan's text that gives True to go on; it is not asked where nothing is new.

    Returns:
        Imported; nothing linked, copied or extracted where `confirm` said no.

    Raises:
        PipelineError: no source holds anything of the data; something is refused, before anything is written; or it
            failed midway, and what was placed until then is removed again.
    """
    with ExitStack() as stack:
        try:
            plan = plan_import(paths, sources, stack)
        except OSError as error:
            raise PipelineError(f"{_said(error)}. Nothing was imported.") from error
        text = describe_plan(paths, plan)
        done = Counter()
        if not (plan.new or plan.already_there):
            found = ", ".join(map(str, sources))
            raise PipelineError(f"No file of the data was found in {found}.\n{text}")
        if not plan.new:
            say(text)
        elif confirm(text):
            done = _carry_out(plan.new)
    return Imported(already_there=plan.already_there, skipped=len(plan.skipped) + plan.others, **done)


def plan_import(paths, sources, stack):
    """Decide what goes where; writes nothing.

    Args:
        paths: config.Paths.
        sources: as for import_data.
        stack: contextlib.ExitStack that closes the zip files; the plan can be carried out until then.

    Returns:
        Plan.

    Raises:
        PipelineError: a source that must not be trusted, clashing files, or too little room on the disk.
        OSError: a file cannot be read.
    """
    for source in map(Path, sources):
        if paths.source.resolve().is_relative_to(source.expanduser().resolve()):
            raise PipelineError(f"{source} holds {paths.source} itself. Give the downloaded folders and files only.")
    placed, skipped, others = [], [], 0
    for entry in find_entries(sources, stack):
        place, reason = find_place(entry.parts)
        if place:
            placed.append((place, entry))
        elif reason:
            skipped.append((entry, reason))
        else:
            others += 1
    placed = _with_sets(paths, placed, skipped)
    new = _find_new(paths, placed)
    _refuse_links_outside(paths, new)
    _refuse_too_large(paths, new)
    return Plan(new, len(placed) - len(new), skipped, others)


def _with_sets(paths, placed, skipped):
    """Complete the places whose folders do not tell train or test; those that no table tells are skipped."""
    if all(place.data_type or place.kind == TEMPLATES for place, _ in placed):
        return placed
    tables = [(place, entry) for place, entry in placed if place.kind == TABLES]
    sets = read_sets_of_eyes(tables + find_table_entries(paths))
    kept = []
    for place, entry in placed:
        if place.kind == IMAGES and place.data_type is None:
            place = place._replace(data_type=sets.get((place.round_name, place.eye)))
        if place.kind == IMAGES and place.data_type is None:
            skipped.append((entry, "neither its folders nor a table tells whether it is for training or test"))
        else:
            kept.append((place, entry))
    return kept


def _find_new(paths, placed):
    """Item of each file that is not there yet; files with one identity must have one content."""
    folders = {}
    for round_name, data_type, folder in find_set_folders(paths.source):
        folders.setdefault((round_name, data_type), folder)
    known = {identity: file_entry(file) for identity, file in find_existing(paths).items()}
    new, clashes = [], []
    for place, entry in progress(placed, label="comparing", unit="file", leave=False):
        first = known.setdefault(place.identity, entry)
        if first is entry:
            new.append(Item(entry, place, target_of(place, paths, folders)))
        elif not same_content(first, entry):
            clashes.append((first, entry))
    if clashes:
        first, second = clashes[0]
        more = f" (and {len(clashes) - 1:,} more such pairs)" if len(clashes) > 1 else ""
        raise PipelineError(
            f"{first}\nand {second} would be one file, but their content differs{more}. "
            "Nothing was imported; keep the right one."
        )
    return new


def _refuse_links_outside(paths, new):
    for folder in {item.target.parent for item in new}:
        base = paths.source if folder.is_relative_to(paths.source) else paths.submit
        if not folder.resolve().is_relative_to(base.resolve()):
            raise PipelineError(f"{folder} is a link that leads out of {base}. Nothing was imported; remove the link.")


def _refuse_too_large(paths, new):
    there = next(folder for folder in (paths.source, *paths.source.parents) if folder.exists())
    needed, free = _bytes_to_write(new, there), shutil.disk_usage(there).free
    if needed > free:
        raise PipelineError(
            f"{needed:,} bytes are to be written, {free:,} are free on the disk of {paths.source}. "
            "Nothing was imported; make room."
        )


def _bytes_to_write(new, folder):
    """Files on the disk of `folder` are linked and take no room."""
    device = folder.stat().st_dev
    return sum(item.entry.size for item in new if item.entry.archive or item.entry.path.stat().st_dev != device)


# ---- The plan as a text

def describe_plan(paths, plan):
    """The plan for a person to agree to: what goes where, how much, and what is left out."""
    lines = [f"To be imported into {paths.source}; the originals stay as they are:" if plan.new else "Nothing is new."]
    images = Counter((item.place.round_name, item.place.data_type) for item in plan.new if item.place.kind == IMAGES)
    lines += [f"  {round_name} {data_type}: {count:,} images" for (round_name, data_type), count in images.items()]
    for kind in (TABLES, TEMPLATES):
        names = [item.target.name for item in plan.new if item.place.kind == kind]
        where = f" (into {paths.submit})" if kind == TEMPLATES else ""
        lines += [f"  {kind}{where}: {', '.join(names)}"] if names else []
    unpacked = [item.entry.size for item in plan.new if item.entry.archive]
    linked = [item.entry.size for item in plan.new if not item.entry.archive]
    if linked:
        lines.append(f"  {_amount(linked)} by link, or by copy where the system cannot link")
    if unpacked:
        lines.append(f"  {_amount(unpacked)} unpacked from zip files")
    if plan.already_there:
        lines.append(f"Already there, or given twice: {plan.already_there:,} files")
    if plan.others:
        lines.append(f"Left out as no part of the data: {plan.others:,} files")
    return "\n".join(lines + _describe_skipped(plan.skipped))


def _amount(sizes):
    return f"{len(sizes):,} files ({sum(sizes) / 1e6:,.1f} MB)"


def _describe_skipped(skipped):
    groups = defaultdict(list)
    for entry, reason in skipped:
        groups[reason].append(entry)
    lines = []
    for reason, entries in groups.items():
        lines.append(f"Left out, {reason}: {len(entries):,} files")
        lines += [f"  {_printable(str(entry))}" for entry in entries[:MAX_NAMES_SHOWN]]
        lines += [f"  and {len(entries) - MAX_NAMES_SHOWN:,} more"] if len(entries) > MAX_NAMES_SHOWN else []
    return lines


def _printable(text):
    """A name may hold codes that would move the terminal's cursor over the plan."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


# ---- Carrying it out

def _carry_out(new):
    """Place every file or, where one fails, none. Returns how many went which way, by Imported's names."""
    done = Counter()
    with _undone_on_failure() as made:
        for item in progress(new, label="import_data", unit="file"):
            done[_place_file(item.entry, item.target, made)] += 1
    return done


def _place_file(entry, target, made):
    """Link, copy or extract one file; `made` gets the paths that come into being, before they do."""
    missing = [folder for folder in target.parents if not folder.exists()]
    for folder in reversed(missing):
        made.append(folder)
        folder.mkdir()
    if os.path.lexists(target):
        raise PipelineError(f"{target} came into being meanwhile. Run this option again.")
    made.append(target)
    if not entry.archive:
        try:
            os.link(entry.path, target)
            return "linked"
        except OSError:
            pass        # another disk, a disk without links, or a file of somebody else: copied below
    with replacing(target) as temporary, open(temporary, "wb") as file:
        for chunk in entry.read_chunks():
            file.write(chunk)
    return "extracted" if entry.archive else "copied"


@contextmanager
def _undone_on_failure():
    """Give a list for the paths that are made; when the body fails or is stopped, they are removed again."""
    made = []
    try:
        yield made
    except BaseException as error:
        left = [path for path in reversed(made) if not _removed(path)]
        result = f"These could not be removed again: {', '.join(map(str, left))}." if left else UNDONE
        if isinstance(error, (OSError, PipelineError)):
            raise PipelineError(f"{_said(error)}\n{result}") from error
        say(result)
        raise


def _said(error):
    return f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)


def _removed(path):
    """Whether `path`, a file or an empty folder, is gone."""
    try:
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
    except OSError:
        return False
    return True
