"""Option 11 on hostile images and on pictures without a retina: each is measured or named, and none is invented."""

import contextlib
import io
import random
import shutil
from collections import Counter

import cv2
import numpy as np
import pandas as pd

from config import Paths
from data.measure import measure_all
from model.lessons import TEST
from processing import columns as c
from processing.eye.lesson import draw_lesson
from processing.eye.others import draw_other
from tests.faults import Figure, scaled
from tests.faults.images import KINDS, NAMED

IMAGES, OTHERS, BATCH = 2000, 500, 200
SCREENS = 8
# Kinds of hostile images that hold the whole screen
WHOLE = {"good.jpg", "good.png", "colour.jpg", "grey.jpg", "16-bit.png", "rgba.png", "progressive.jpg", "upright.jpg",
         "linked.jpg", "png-as.jpg", "jpeg-as.png", "trailing.jpg"}
LEFT_OUT = {"forbidden.jpg"}        # nothing is forbidden to a superuser


def make_screens():
    """Screens with a retina that is easy to see."""
    screens = []
    for seed in range(1000):
        lesson = draw_lesson([TEST, 31, seed])
        if lesson.is_readable.mean() > 0.95 and lesson.image.std() > 30:
            screen = np.zeros((596, 1264, 3), np.uint8)
            screen[:496, 496:] = lesson.image[..., None]
            screens.append(screen)
        if len(screens) == SCREENS:
            return screens
    raise AssertionError("no such scans")


def hostile_scans(share, folder):
    """Damaged, odd and hostile files by the batch, as images of a data set."""
    count = scaled(IMAGES, share)
    names = [name for name, kind in KINDS.items() if name not in LEFT_OUT for _ in range(kind.share)]
    names = names if count >= len(names) else random.Random(1).sample(names, count)
    numbers, screens, results = random.Random(0), make_screens(), []
    for first in range(0, count, BATCH):
        paths = Paths(folder / str(first))
        paths.source.mkdir(parents=True)
        made = {}
        for number in range(first, min(first + BATCH, count)):
            name = names[number % len(names)]
            file = paths.source / f"{number}-{name}"
            KINDS[name].make(file, numbers, numbers.choice(screens))
            made[paths.relative(file)] = name
        results += [(name, _judge(row, name)) for name, row in _measure(paths, made)]
        shutil.rmtree(paths.root)
    return _report("hostile images, each measured or named, no traceback", results)


def pictures_without_a_retina(share, folder):
    """Photographs, writing, noise, fundus pictures, turned scans: none gets a number."""
    count, results = scaled(OTHERS, share), []
    paths = Paths(folder / "others")
    paths.source.mkdir(parents=True)
    made = {}
    for number in range(count):
        file = paths.source / f"{number}.png"
        file.write_bytes(cv2.imencode(".png", draw_other([TEST, 41, number]).image)[1].tobytes())
        made[paths.relative(file)] = "other"
    for name, row in _measure(paths, made):
        results.append((name, "named" if row[c.PROBLEM] == c.NO_RETINA and np.isnan(row["thickness_middle_um"])
                        else f"wrong: {row[c.FILE]} {row[c.PROBLEM] or row['thickness_middle_um']}"))
    return _report("pictures without a retina, none of which gets a number", results)


def _measure(paths, made):
    """(kind, row of measures.csv) of each file."""
    rows = [dict.fromkeys(c.IMAGE_COLUMNS, 0) | {c.SOURCE: file, c.PROCESSED: f"{number}.jpg", c.PATIENT: f"{number}L",
                                                 c.INJECTION: "PRE", c.IMAGE: str(number), c.DATA_TYPE: "train"}
            for number, file in enumerate(made)]
    paths.image_table.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows, columns=c.IMAGE_COLUMNS).to_csv(paths.image_table, index=False)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        measure_all(paths)
    table = pd.read_csv(paths.measures).fillna({c.PROBLEM: ""})
    assert table[c.FILE].tolist() == list(made)
    return [(made[row[c.FILE]], row) for row in table.to_dict("records")]


def _judge(row, name):
    """What became of a hostile file."""
    is_measured, is_named = np.isfinite(row["thickness_largest_um"]), bool(row[c.PROBLEM])
    if not (is_measured or is_named):
        return "wrong: neither measured nor named"
    if is_measured and KINDS[name].wanted == NAMED:
        return "wrong: measured"
    if name in WHOLE and not is_measured:
        return f"wrong: {row[c.PROBLEM]}"
    return "measured" if is_measured else "named"


def _report(text, results):
    fates = Counter(fate for _, fate in results)
    failures = [f"{name}: {fate}" for name, fate in results if fate.startswith("wrong")]
    return Figure(text, len(results), len(results) - len(failures),
                  "; ".join([f"{fates['measured']} measured, {fates['named']} named", *failures[:5]]))


FIGURES = [hostile_scans, pictures_without_a_retina]
