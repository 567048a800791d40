"""Option 7: downloaded folders, zip files and tables are laid out under data/source, as the other options want them.

Reads what was downloaded and never changes it; writes data/source and the templates in data/submit. Images are hard
links where the system can; tables and templates, which people edit, are always copies. Everything is planned, refused
or agreed to before the first file.
"""

import os
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path, PurePath
from typing import NamedTuple

from config import Paths
from processing.destinations import (
    IMAGES,
    NO_DATA,
    TABLES,
    TEMPLATES,
    Item,
    choose_folders,
    decide_sets,
    find_existing,
    locate_entry,
)
from processing.downloads import Entry, find_entries, same_content
from processing.errors import PipelineError
from processing.files import Patience, insist, replace_file
from processing.terminal import progress, say

MAX_NAMES_SHOWN = 20        # of the files that are left out for one reason
MAX_ENDINGS_SHOWN = 6       # of the files that are no part of the data
LINKED, COPIED, EXTRACTED = "linked", "copied", "extracted"     # names of Imported
WAYS = {
    LINKED: "by link, or by copy where the system cannot link",
    COPIED: "by copy",
    EXTRACTED: "unpacked from zip files",
}
NO_SET = "neither its folders nor a table tells whether it is for training or test"
UNDONE = "Nothing was imported: the files that this run had placed are removed again."


class Imported(NamedTuple):
    """Numbers of files."""

    linked: int = 0
    copied: int = 0
    extracted: int = 0
    already_there: int = 0
    skipped: int = 0


class Plan(NamedTuple):
    """What an import will do."""

    new: dict[Path, Item]               # by the path that the file gets
    already_there: int                  # files whose content the layout holds, or that the sources hold twice
    skipped: dict[str, list[Entry]]     # by the reason
    misnamed: list[Item]                # whose names say another set than the table that knows their eye


def import_data(paths: Paths, sources: Sequence[Path | str], *, confirm: Callable[[str], bool]) -> Imported:
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
            plan = _make_plan(paths, sources, stack)
        except OSError as error:
            raise PipelineError(f"{_describe_error(error)}. Nothing was imported.") from error
        text = _describe_plan(paths, plan)
        done: Counter[str] = Counter()
        if not (plan.new or plan.already_there):
            found, count = ", ".join(map(str, sources)), sum(map(len, plan.skipped.values()))
            raise PipelineError(f"None of {count:,} files in {found} can be imported.\n{text}" if count else
                                f"There are no files in {found}.")
        if not plan.new:
            say(text)
        elif confirm(text):
            done = _place_files(plan.new)
    return Imported(already_there=plan.already_there, skipped=sum(map(len, plan.skipped.values())), **done)


# ---- The plan

def _make_plan(paths, sources, stack):
    """Decide what goes where, and refuse what must not be; writes nothing. It can be carried out until `stack` ends."""
    for source in sources:
        real = os.path.realpath(os.path.expanduser(source))
        if Path(os.path.realpath(paths.source)).is_relative_to(real):
            raise PipelineError(f"{source} holds {paths.source} itself. Give the downloaded folders and files only.")
    items, skipped = [], defaultdict(list)
    for entry in find_entries(sources, stack):
        match locate_entry(entry):
            case Item() as item:
                items.append(item)
            case reason:
                skipped[reason].append(entry)
    known = find_existing(paths)
    items, misnamed = decide_sets(items, known)
    skipped[NO_SET] += [item.entry for item in items if item.data_type is None]
    items = [item for item in items if item.data_type is not None]
    folders = choose_folders(paths)
    new = {folders[item.round_name, item.data_type].joinpath(*item.tail): item for item in _find_new(items, known)}
    _refuse_links_outside(paths, new)
    _refuse_too_large(paths, new)
    return Plan(new, len(items) - len(new), skipped, misnamed)


def _find_new(items, known):
    """The items that `known`, which gets them, does not hold yet; files with one identity must have one content."""
    new, clashes = [], []
    for item in progress(items, label="comparing", unit="file", leave=False):
        first = known.setdefault(item.identity, item)
        if first is item:
            new.append(item)
        elif not same_content(first.entry, item.entry):
            clashes.append((first.entry, item.entry))
    if clashes:
        first, second = clashes[0]
        more = f" (and {len(clashes) - 1:,} more such pairs)" if len(clashes) > 1 else ""
        raise PipelineError(
            f"{first}\nand {second} would be one file, but their content differs{more}. "
            "Nothing was imported; keep the right one."
        )
    return new


def _refuse_links_outside(paths, new):
    for folder in {target.parent for target in new}:
        base = paths.source if folder.is_relative_to(paths.source) else paths.submit
        if not Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(base)):
            raise PipelineError(f"{folder} is a link that leads out of {base}. Nothing was imported; remove the link.")


def _refuse_too_large(paths, new):
    there = next(folder for folder in (paths.source, *paths.source.parents) if folder.exists())
    device, free = there.stat().st_dev, shutil.disk_usage(there).free
    # Those on the same disk that are linked take no room
    needed = sum(item.entry.size for item in new.values()
                 if _choose_way(item) != LINKED or item.entry.path.stat().st_dev != device)
    if needed > free:
        raise PipelineError(
            f"{needed:,} bytes are to be written, {free:,} are free on the disk of {paths.source}. "
            "Nothing was imported; make room."
        )


def _describe_plan(paths, plan):
    """The plan for a person to agree to: what goes where, how much, and what is left out."""
    items = plan.new.values()
    lines = [f"To be imported into {paths.source}; the originals stay as they are:" if items else "Nothing is new."]
    images = Counter((item.round_name, item.data_type) for item in items if item.kind == IMAGES)
    lines += [f"  {round_name} {data_type}: {count:,} images" for (round_name, data_type), count in images.items()]
    for kind, where in ((TABLES, ""), (TEMPLATES, f" (into {paths.submit})")):
        names = [item.tail[-1] for item in items if item.kind == kind]
        lines += [f"  {kind}{where}: {', '.join(names)}"] if names else []
    for way, text in WAYS.items():
        sizes = [item.entry.size for item in items if _choose_way(item) == way]
        lines += [f"  {len(sizes):,} files ({sum(sizes) / 1e6:,.1f} MB) {text}"] if sizes else []
    lines += _describe_misnamed(paths, plan.misnamed)
    if plan.already_there:
        lines.append(f"Already there, or given twice: {plan.already_there:,} files")
    if others := plan.skipped.get(NO_DATA):
        endings = Counter(PurePath(entry.parts[-1].lower()).suffix or "no ending" for entry in others)
        shown = ", ".join(f"{ending} {count:,}" for ending, count in endings.most_common(MAX_ENDINGS_SHOWN))
        lines.append(_make_harmless(f"Left out as {NO_DATA}: {len(others):,} files ({shown})"))
    for reason, entries in plan.skipped.items():
        if reason != NO_DATA and entries:
            lines.append(f"Left out, {reason}: {len(entries):,} files")
            lines += [f"  {_make_harmless(str(entry))}" for entry in entries[:MAX_NAMES_SHOWN]]
            lines += [f"  and {len(entries) - MAX_NAMES_SHOWN:,} more"] if len(entries) > MAX_NAMES_SHOWN else []
    return "\n".join(lines)


def _describe_misnamed(paths, misnamed):
    """A line for each way in which names and tables contradict each other, and what comes of it."""
    cases = defaultdict(list)
    for item in misnamed:
        is_there = item.entry.path.is_relative_to(paths.source)
        cases[item.round_name, item.data_type, is_there].append(item)
    return [f"{len(items):,} {round_name} images are {data_type} by name, but not by the table that lists their eye: "
            + ("they are there already; move them." if is_there else "the table decides.")
            + f" The first is {_make_harmless(str(items[0].entry))}"
            for (round_name, data_type, is_there), items in cases.items()]


def _make_harmless(name):
    """A name without the codes that would move the terminal's cursor over the plan."""
    return "".join(sign if sign.isprintable() else "?" for sign in name)


# ---- Carrying it out

def _place_files(new: dict[Path, Item]) -> Counter[str]:
    """Place every file or, where one fails, none. Returns how many went which way, by Imported's names."""
    done: Counter[str] = Counter()
    made: list[Path] = []
    linking, removing = Patience(), Patience()
    try:
        for target, item in progress(new.items(), label="import_data", unit="file"):
            done[_place_file(item, target, made, linking)] += 1
    except BaseException as error:
        left = [path for path in reversed(made) if not _remove_path(path, removing)]
        result = f"These could not be removed again: {', '.join(map(str, left))}." if left else UNDONE
        if isinstance(error, (OSError, PipelineError)):
            raise PipelineError(f"{_describe_error(error)}\n{result}") from error
        say(result)
        raise
    return done


def _place_file(item, target, made, linking):
    """Link, copy or extract one file; `made` gets the paths that come into being, before they do."""
    way = _choose_way(item)
    missing = [folder for folder in target.parents if not os.path.lexists(folder)]
    for folder in reversed(missing):
        made.append(folder)
        insist(folder.mkdir)
    if os.path.lexists(target):
        raise PipelineError(f"{target} came into being meanwhile. Run this option again.")
    made.append(target)
    if way == LINKED:
        with suppress(OSError):     # another disk, a disk without links, or a file of somebody else: copied below
            linking.insist(os.link, item.entry.path, target)
            return way
    with replace_file(target) as temporary, insist(open, temporary, "wb") as file:
        for chunk in item.entry.read_chunks():
            file.write(chunk)
    return COPIED if way == LINKED else way


def _choose_way(item):
    """How a file gets its place: a key of WAYS."""
    if item.entry.archive:
        return EXTRACTED
    return LINKED if item.kind == IMAGES else COPIED


def _remove_path(path, removing):
    """Remove a file or an empty folder. Returns whether it is gone."""
    with suppress(OSError):
        removing.insist(path.rmdir if path.is_dir() and not path.is_symlink() else path.unlink)
    return not os.path.lexists(path)


def _describe_error(error):
    return f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
