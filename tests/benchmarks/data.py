"""What the benchmarks work on: synthetic screens of the real size, their crops, and a case table of noise."""

import os

import numpy as np
import pandas as pd

from config import VIEWS, Paths
from processing import columns as c
from processing.crop_record import CROP
from processing.crops import crop_all
from processing.demo import DemoSize, write_demo
from processing.files import write_csv
from processing.images import read_size
from processing.views import view_paths

BSCAN = VIEWS["bscan"]
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
    return [file for file in files if read_size(file.read_bytes())[0] >= BSCAN.right]


def name_images(count):
    """A table of `count` images as option 0 knows them, each with crops of its own, but without screens."""
    images = pd.DataFrame({c.IMAGE: [str(number) for number in range(count)]}).assign(**{
        c.PATIENT: "9000-0001L", c.FINAL: 0, c.AFTER: 1, c.SIDE: 0, c.DATA_TYPE: "train"})
    return images.assign(**{c.PROCESSED: view_paths(images, BSCAN)})


def screen_rows(paths, count):
    """The same with screens, for crop_all."""
    screens = [paths.relative(screen) for screen in find_screens(paths)]
    return name_images(count).assign(**{c.SOURCE: [screens[number % len(screens)] for number in range(count)]})


def make_crops(folder, count):
    """Write `count` crops below `folder`, their record, and train.csv of them."""
    paths = make_screens(folder)
    first = screen_rows(paths, len(find_screens(paths)))
    paths.crop_record.unlink(missing_ok=True)
    crop_all(first, paths, {"bscan": BSCAN})
    rows = make_labels(count)
    for number in range(len(first), count):
        crop = paths.root / rows[c.PROCESSED][number]
        if not crop.exists():
            os.link(paths.root / rows[c.PROCESSED][number % len(first)], crop)
    record = pd.read_csv(paths.crop_record, dtype=str)
    record = record.iloc[np.arange(count) % len(record)].assign(**{
        CROP: rows[c.PROCESSED].to_numpy(), c.SOURCE: rows[c.SOURCE].to_numpy()})
    write_csv(paths.crop_record, record)
    write_csv(paths.train_table, rows.reindex(columns=c.TRAIN_COLUMNS).fillna(0))


def make_labels(count):
    """name_images of the crops that make_crops writes, with labels: CST and FINDINGS."""
    rng = np.random.default_rng(0)
    findings = rng.integers(0, 2, (count, len(c.FINDINGS))).astype(float)
    return name_images(count).assign(**{
        c.CST: rng.uniform(200, 600, count), c.SOURCE: [f"data/source/{number}.jpg" for number in range(count)],
        **dict(zip(c.FINDINGS, findings.T, strict=True)),
    })


def make_cases(count):
    """A case table of `count` invented eyes."""
    rng = np.random.default_rng(0)
    cases = pd.DataFrame(rng.random((count, len(c.CSV_FEATURES))) * 10, columns=c.CSV_FEATURES)
    return cases.assign(**{
        c.VA: rng.random(count), c.CONTINUE: rng.integers(0, 2, count).astype(float),
        c.PATIENT: [f"{number}L" for number in range(count)],
    })
