"""What the benchmarks work on: synthetic screens of the real size, their crops, and a case table of noise."""

import os

import numpy as np
import pandas as pd

from config import CROP, Paths
from processing import columns as c
from processing.crops import crop_all
from processing.demo import DemoSize, write_demo
from processing.images import read_size

SCREENS = DemoSize(6, 2, 2, 2, images=4)        # 80 screens, each used again and again under other names


def make_screens(folder):
    """Write the screens below `folder`, once."""
    paths = Paths(folder)
    if not paths.source.is_dir():
        write_demo(paths, SCREENS)
    return paths


def find_screens(paths):
    """The screens of the common width: of a narrow one, a plain slice is no whole crop."""
    files = sorted(paths.source.rglob("*.jpg"))
    return [file for file in files if read_size(file.read_bytes())[0] >= CROP.right]


def screen_rows(paths, count):
    """`count` rows for crop_all, each with a crop of its own."""
    screens = find_screens(paths)
    return [
        {c.PROCESSED: f"data/processed/img/train/{number}.jpg",
         c.SOURCE: paths.relative(screens[number % len(screens)])}
        for number in range(count)
    ]


def make_crops(folder, count):
    """Write `count` crops below `folder`."""
    paths = make_screens(folder)
    first = screen_rows(paths, len(find_screens(paths)))
    crop_all(first, paths, CROP)
    names = crop_names(count)
    for number in range(len(first), count):
        if not (paths.root / names[number]).exists():
            os.link(paths.root / names[number % len(first)], paths.root / names[number])


def crop_names(count):
    """processed_path of each crop."""
    return [f"data/processed/img/train/{number}.jpg" for number in range(count)]


def make_labels(count):
    """A table of the crops that make_crops writes, with labels: processed_path, CST and FINDINGS."""
    rng = np.random.default_rng(0)
    findings = rng.integers(0, 2, (count, len(c.FINDINGS))).astype(float)
    return pd.DataFrame({c.PROCESSED: crop_names(count), c.CST: rng.uniform(200, 600, count),
                         c.DATA_TYPE: "train"}).assign(
        **dict(zip(c.FINDINGS, findings.T, strict=True))
    )


def make_cases(count):
    """A case table of `count` invented eyes."""
    rng = np.random.default_rng(0)
    cases = pd.DataFrame(rng.random((count, len(c.CSV_FEATURES))) * 10, columns=c.CSV_FEATURES)
    return cases.assign(**{
        c.VA: rng.random(count), c.CONTINUE: rng.integers(0, 2, count).astype(float),
        c.PATIENT: [f"{number}L" for number in range(count)],
    })
