"""Option 0, in reading order: walk the source, cut the crops, write the tables.

Reads data/source; writes data/processed: csv/{image_data,eyes,crops,geometry,train,test}.csv, a folder of crops for
each view (img/, fundus/), problems.csv, crop_preview.png and geometry.png.
"""

from collections import Counter, defaultdict
from pathlib import PurePath
from typing import NamedTuple

import numpy as np
import pandas as pd

import config
from config import Paths, View
from processing import columns as c
from processing import tables
from processing.crops import crop_all
from processing.errors import PipelineError
from processing.files import try_to_write, write_csv
from processing.geometry import read_geometry
from processing.images import read_image, write_image
from processing.overlays import draw_lines
from processing.plots import draw_crop_preview, plot_log
from processing.screens import explain_oddity
from processing.source import ROUNDS, TABLE_FILES, find_misnamed, find_tables, is_image, read_image_rows
from processing.terminal import say
from processing.views import check_views, keep_views, view_paths

__all__ = ["crop_img", "plot_log", "processing_data", "read_image", "write_image"]

# The tables without which images of a round and set have no row
NEEDED = {
    ("preliminary", "train"): ["annotation"],
    ("preliminary", "test"): ["preliminary_info"],
    ("final", "train"): ["case", "pic"],
    ("final", "test"): ["final_info"],
}


MAX_EXAMPLES, MAX_ODD = 5, 3        # problems and odd screens that are said on the terminal
SCREENS_SHOWN = 12                  # in geometry.png


class Processed(NamedTuple):
    """What option 0 made."""

    images: int     # rows of image_data.csv
    train: int      # rows of train.csv
    test: int       # rows of test.csv
    crops: int      # crops cut in this run, of all views
    problems: int   # rows of problems.csv
    coloured: int   # images with colours where a view is grey
    odd: int        # screens that are not as the device makes them; rows of problems.csv too


class Crops(NamedTuple):
    """What crop_img made."""

    images: pd.DataFrame    # IMAGE_COLUMNS of the images that have crops
    problems: list          # (source_path, reason) of the others
    made: int               # how many crops were cut in this run
    coloured: list          # source_path of the images with colours where a view is grey
    odd: list               # (source_path, reason) of the screens that are not as the device makes them


def processing_data(
    paths: Paths = config.PATHS, views: dict[str, View] = config.VIEWS, *, strict: bool = False
) -> Processed:
    """Option 0: data/source becomes data/processed.

    Tables are checked before the first image is opened; the processed tables are written when all crops
    are there. A second run cuts only what is new or changed.

    Args:
        paths: config.Paths.
        views: name -> View, what is cut out of each screen.
        strict: whether a single problem (an image that is unreadable or unknown to the tables, a screen that is odd,
            another file that looks like data) stops the stage before a table is written; otherwise it is listed.

    Returns:
        Processed, the counts.

    Raises:
        PipelineError: a view that cannot be cut, no data, a table missing or faulty, no usable image; with `strict`,
            any problem.
    """
    check_views(views)
    views = keep_views(views)
    rows, problems = _list_images(paths)
    raw, annotations = _read_annotations(paths, rows, problems)
    images, failed, made, coloured, odd = crop_img(rows, paths, views)
    problems += failed
    if images.empty:
        _write_problems(problems, paths)
        raise PipelineError(f"None of {len(rows)} images could be cropped. The reasons stand in {paths.problems}.")
    train = tables.build_train_table(images, **_pick(annotations, annotation="annotation", case="case", pic="pic"))
    test = tables.build_test_table(images, **_pick(annotations, preliminary="preliminary_info", final="final_info"))
    used = {*train[c.SOURCE], *test[c.SOURCE]}
    problems += [(file, "its annotation table has no row for it") for file in images[c.SOURCE] if file not in used]
    listed = problems + [(file, f"{reason}; it is cut all the same") for file, reason in odd]
    _write_problems(listed, paths)
    if strict and listed:
        raise PipelineError(f"--strict: {len(listed)} problems; no table was written. See {paths.problems}.")

    write_csv(paths.image_table, images)
    write_csv(paths.eye_table, tables.build_eye_table(raw))
    write_csv(paths.train_table, train)
    write_csv(paths.test_table, test)
    processed = Processed(len(images), len(train), len(test), made, len(listed), len(coloured), len(odd))
    _say_summary(processed, problems, coloured, odd, paths)
    return processed


def crop_img(rows: list[dict], paths: Paths, views: dict[str, View]) -> Crops:
    """Cut the crops of `rows` (of read_image_rows), tell odd screens, and draw the preview if anything changed."""
    images = pd.DataFrame(rows, columns=c.IMAGE_COLUMNS)
    problems, made, record, _ = crop_all(images, paths, views)
    images = images[~images[c.SOURCE].isin([source for source, _ in problems])].reset_index(drop=True)
    preview, screens = paths.crop_preview, record.screens(images[c.PROCESSED])
    if len(images) and not (preview.is_file()
                            and preview.stat().st_mtime_ns >= paths.crop_record.stat().st_mtime_ns):
        sources = _preview_sources(images, screens, paths)
        try_to_write(preview, lambda: draw_crop_preview(preview, sources, views))
    _draw_geometry(images, paths)
    turned_grey = record.find_turned_grey()
    crops = [view_paths(images, view) for view in views.values()]
    coloured = [source for source, *names in zip(images[c.SOURCE], *crops, strict=True) if turned_grey & set(names)]
    odd = [(source, reason) for source, width, height, black in screens.itertuples(index=False)
           if (reason := explain_oddity((width, height), black))]
    return Crops(images, problems, made, coloured, odd)


def _draw_geometry(images, paths):
    """Draw what was read of where scans lie, on a few screens of the data set, if any of it is new."""
    picture = paths.geometry_preview
    if images.empty or (picture.is_file() and picture.stat().st_mtime_ns >= paths.geometry_table.stat().st_mtime_ns):
        return
    chosen = images.iloc[np.unique(np.linspace(0, len(images) - 1, SCREENS_SHOWN).round().astype(int))]

    def draw():
        rows = chosen[[c.PATIENT, c.INJECTION, c.SOURCE]].itertuples(index=False)
        screens = [(f"{patient}, {injection}", read_image(paths.root / source)) for patient, injection, source in rows]
        draw_lines(picture, [(name, screen, read_geometry(screen)) for name, screen in screens])

    try_to_write(picture, draw)


def _list_images(paths):
    """One row per source image of both rounds, and what else looks like data and has none; see read_image_rows."""
    rows, problems = read_image_rows(paths)
    counts = Counter((row[c.FINAL], row[c.DATA_TYPE]) for row in rows)
    for number, round_name in enumerate(ROUNDS):
        train, test, folder = counts[number, "train"], counts[number, "test"], paths.source / round_name
        unusable = sum(name.lower().startswith(f"data/source/{round_name}/") for name in find_images(problems))
        if train or test:
            say(f"{round_name} round: {train} training and {test} test images")
        elif unusable:
            say(f"{round_name} round: none of {unusable} images in {folder} is usable; the round is left out")
        else:
            say(f"{round_name} round: no images in {folder}; the round is left out")
    misnamed = defaultdict(list)
    for row in find_misnamed(rows):
        misnamed[ROUNDS[row[c.FINAL]], row[c.DATA_TYPE]].append(row[c.SOURCE])
    for (round_name, data_type), names in misnamed.items():
        say(f"{len(names)} {round_name} images are {data_type} by the table that lists their eye, but not by their "
            f"folder: the table decides. The first is {names[0]}.")
    return rows, problems


def find_images(problems: list[tuple[str, str]]) -> list[str]:
    """The images among the problems of read_image_rows."""
    return [name for name, _ in problems if is_image(PurePath(name))]


def _read_annotations(paths, rows, problems):
    """The tables that the images need, by the keys of TABLE_FILES: as they are, and with missing values filled.

    Raises:
        PipelineError: no image and no table at all, a needed table missing, or faults in one.
    """
    files = find_tables(paths.source)
    if not rows:
        if problems:
            _write_problems(problems, paths)
        raise PipelineError(explain_start(paths, files, problems))
    present = {(ROUNDS[row[c.FINAL]], row[c.DATA_TYPE]) for row in rows}
    needed = [table for key in sorted(present) for table in NEEDED[key]]
    absent = [table for table in needed if table not in files]
    if absent:
        if problems:
            _write_problems(problems, paths)
        others = [problem for problem in problems if not is_image(PurePath(problem[0]))]
        raise PipelineError("\n".join([
            *(f"{' or '.join(names)} is missing: put it anywhere below {paths.source / round_name}."
              for round_name, names in (TABLE_FILES[table] for table in absent)),
            *_show_examples(others, paths),
        ]))
    raw = {table: tables.read_raw_table(files[table], table) for table in needed}
    return raw, {name: tables.fill_missing(table, files[name]) for name, table in raw.items()}


def explain_start(paths: Paths, files: dict, problems: list[tuple[str, str]]) -> str:
    """What to say to a user who has put no usable image below data/source.

    Args:
        paths: config.Paths.
        files: as found by find_tables.
        problems: of read_image_rows, already in problems.csv.
    """
    images = find_images(problems)
    found = f"None of {len(images)} images below {paths.source} is usable" if images else \
        f"No images below {paths.source}" + (f", only {len(files)} tables" if files else "")
    return "\n".join([
        f"{found}. Put the APTOS 2021 folders there: preliminary/Train_set, preliminary/Test_set, "
        "final/Train_Set and final/Test_Set, one round or both, with their tables.",
        *(_show_examples(problems, paths) or
          ["No data at hand? `python main.py demo` makes a demonstration data set and runs everything on it."]),
    ])


def _show_examples(problems, paths):
    """Lines with the first problem of each reason, images first, and where they all are."""
    first = {}
    for name, reason in sorted(problems, key=lambda problem: not is_image(PurePath(problem[0]))):
        first.setdefault(reason, name)
    lines = [f"  {name}: {reason}" for reason, name in first.items()]
    return [*lines[:MAX_EXAMPLES], f"All {len(problems)} are listed in {paths.problems}."] if problems else []


def _pick(annotations, **wanted):
    return {argument: annotations.get(table) for argument, table in wanted.items()}


def _preview_sources(images, screens, paths, per_kind=2, kinds_per_round=2):
    """A few source images of each kind: round and size of the screen, the commonest sizes of a round.

    Returns:
        list of (title, Path).
    """
    kinds = images.merge(screens, on=c.SOURCE)
    shape = [c.FINAL, "screen_width", "screen_height"]
    common = kinds.groupby(shape).size().sort_values(ascending=False).groupby(level=0).head(kinds_per_round).index
    picked = []
    for (final, width, height), rows in kinds.set_index(shape, drop=False).loc[common].groupby(level=[0, 1, 2]):
        eyes = rows.drop_duplicates(c.PATIENT)
        for row in eyes.iloc[:: max(1, len(eyes) // per_kind)].head(per_kind).to_dict("records"):
            title = f"{ROUNDS[final]} round, {width} x {height} px: {row[c.PATIENT]}, {row['injection']}"
            picked.append((title, paths.root / row[c.SOURCE]))
    return picked


def _write_problems(problems, paths):
    table = pd.DataFrame(sorted(problems), columns=[c.SOURCE, "problem"])
    try_to_write(paths.problems, lambda: write_csv(paths.problems, table))


def _say_summary(processed, problems, coloured, odd, paths):
    say(
        f"image_data.csv: {processed.images} images; train.csv: {processed.train} rows; "
        f"test.csv: {processed.test} rows; {processed.crops} crops cut, any others were there."
    )
    if coloured:
        say(f"{len(coloured)} images have colours where the device makes none; their crops were turned grey "
            f"(ITU-R BT.601). The first is {coloured[0]}.")
    if odd:
        first = "; ".join(f"{file} ({reason})" for file, reason in odd[:MAX_ODD])
        say(f"{len(odd)} screens are not as the device makes them and were cut all the same, as {first}. "
            f"All are listed in {paths.problems}.")
    if problems:
        say(f"{len(problems)} files were left out or have no labels; all are listed in {paths.problems}:")
        for source, reason in sorted(problems)[:MAX_EXAMPLES]:
            say(f"  {source}: {reason}")
    say(f"See what each view cuts out: {paths.crop_preview}; where scans lie: {paths.geometry_preview}")
