"""Option 6: everything that the stages would read is read, and all that is wrong or odd is said in one pass.

Reads data/source, data/submit and, where option 0 has run, data/processed; writes data/processed/check.csv (every
finding) and check.png (distributions, and a contact sheet of suspicious images). Repairs nothing.
"""

from collections import Counter, defaultdict

import pandas as pd

import config
from config import Paths, View
from processing import columns as c
from processing.check.eyes import check_eyes, check_templates
from processing.check.images import (
    check_geometry,
    check_images,
    check_measures,
    check_processed,
    end_of_path,
)
from processing.check.kinds import KINDS, SEVERITIES, STOPS, Finding, find
from processing.check.layout import read_layout
from processing.check.plot import Distributions, Suspect, draw_check
from processing.check.tables import check_tables
from processing.data_factory import explain_start
from processing.errors import PipelineError
from processing.files import try_to_write, write_csv
from processing.images import ImageError, crop_image, read_image
from processing.terminal import say
from processing.views import check_views, keep_views

__all__ = ["Finding", "check_data"]

MOST_SUSPECTS = 18          # images on the contact sheet
# Kinds whose images a person should look at, the likeliest fault first
SUSPICIOUS = ("image-unreadable", "image-empty", "retina-missing", "retina-cut", "image-identical", "screen-odd",
              "crop-unreadable", "crop-size", "image-unlabelled")


def check_data(paths: Paths = config.PATHS, views: dict[str, View] = config.VIEWS) -> list[Finding]:
    """Option 6: report all that is wrong or odd in the data.

    Args:
        paths: config.Paths.
        views: name -> config.View, what option 0 cuts out of each screen.

    Returns:
        list of Finding, the worst first. Where one of them `stops`, a stage would refuse to run.

    Raises:
        PipelineError: there is no data at all, or a view cannot be cut.
    """
    check_views(views)
    views = keep_views(views)
    layout, found = read_layout(paths)
    processed, faults = check_processed(paths)
    found += faults
    if layout.images.empty and processed.empty:
        if not layout.tables and not found:
            raise PipelineError(explain_start(paths, {}, []))
        unusable = sum(each.kind == "name-unknown" for each in found)
        detail = f"none of {unusable} images there is usable" if unusable else ""
        found.append(find("no-images", paths.relative(paths.source), detail=detail))
    tables, faults = check_tables(paths, layout.tables)
    found += faults + check_eyes(paths, layout.images, tables, layout.tables)
    found += check_templates(paths, layout.images, tables)
    found += check_images(paths, layout.images, processed, views) + check_measures(paths, layout.images)
    found += check_geometry(paths, layout.images)
    found.sort(key=lambda one: (SEVERITIES.index(one.severity), list(KINDS).index(one.kind), one.file, one.row or 0))
    table = pd.DataFrame(found, columns=Finding._fields, dtype=object)
    try_to_write(paths.check_table, lambda: write_csv(paths.check_table, table))
    suspects = _read_suspects(found, pd.concat([layout.images, processed]), paths, views["bscan"])
    counts = Counter((each.severity, each.kind) for each in found)
    numbers = _collect_numbers(tables, layout.images)
    try_to_write(paths.check_picture, lambda: draw_check(paths.check_picture, numbers, counts, suspects))
    _say_findings(found, counts, paths)
    return found


def _collect_numbers(tables, images):
    """The numbers whose distributions are drawn."""
    def values(column, *keys):
        return [value for key in keys if column in tables.get(key, ())
                for value in tables[key][column].dropna().to_numpy(float)]

    visits = images.groupby([c.PATIENT, c.FINAL, c.AFTER]).size().reset_index(name="count")
    preliminary, final = ("annotation", "preliminary_info"), ("case", "final_info")
    return Distributions(
        age={"preliminary": values(c.AGE, *preliminary), "final": values(c.AGE, *final)},
        logmar={c.PRE_VA: values(c.PRE_VA, *preliminary), c.VA: values(c.VA, "annotation")},
        decimal={c.PRE_VA: values(c.PRE_VA, *final), c.VA: values(c.VA, "case")},
        cst_um={column: values(column, "annotation", "case") for column in (c.PRE_CST, c.CST)},
        images={name: visits["count"][visits[c.AFTER] == after].tolist()
                for name, after in (("before treatment", 0), ("after treatment", 1))},
    )


def _read_suspects(found, images, paths, view):
    """The images of the contact sheet: by turns of each suspicious kind, so that no kind crowds out another."""
    queues = defaultdict(list)
    for each in found:
        queues[each.kind].append(each)
    turns = sorted((turn, SUSPICIOUS.index(kind), each)
                   for kind in SUSPICIOUS for turn, each in enumerate(queues[kind][:MOST_SUSPECTS]))
    by_source = images.drop_duplicates(c.SOURCE).set_index(c.SOURCE, drop=False)
    by_crop = images.drop_duplicates(c.PROCESSED)
    by_crop.index = [end_of_path(crop) for crop in by_crop[c.PROCESSED]]
    suspects = {}
    for _, _, each in turns:
        row = by_source.loc[each.file] if each.file in by_source.index else by_crop.loc[end_of_path(each.file)]
        if each.file not in suspects and len(suspects) < MOST_SUSPECTS:
            short = {"image-identical": f"identical to {each.value.rsplit('/', 1)[-1]}", "image-unlabelled": "no label"}
            reason = short.get(each.kind, " ".join([each.kind.replace("-", " "), each.value]).strip())
            suspects[each.file] = Suspect(row[c.PATIENT], each.file.rsplit("/", 1)[-1], reason,
                                          _read_crop(paths, row, each, view))
    return list(suspects.values())


def _read_crop(paths, row, finding, view):
    """The pixels of a suspicious image, or None."""
    source = paths.root / row[c.SOURCE]
    try:
        if finding.kind.startswith("crop-"):
            return read_image(paths.root / finding.file)
        if not source.is_file():
            return read_image(paths.root / row[c.PROCESSED])
        return crop_image(read_image(source), view)
    except ImageError:
        return None


def _say_findings(found, counts, paths):
    """One line per kind, then what it comes to."""
    examples = {}
    for each in found:
        examples.setdefault(each.kind, each)
    for (severity, kind), count in counts.items():
        each = examples[kind]
        row = f"row {each.row}" if each.row else ""
        place = ", ".join(filter(None, [each.file.rsplit("/", 1)[-1], row, each.column]))
        value = f": {each.value.rsplit('/', 1)[-1]!r}" if each.value else ""
        say(f"{severity} {count:>6}  {kind:<22}  {each.action} [{place}{value}]")
    stops = sum(each.severity == STOPS for each in found)
    verdict = f"{stops} of the findings stop the pipeline" if stops else "Nothing stops the pipeline"
    say(f"{verdict}; {len(found)} findings in all, each with its reason: {paths.check_table}. "
        f"Picture: {paths.check_picture}")
