"""Names and tables at many times the real size: option 0 without the pixels, then the case table.

    python -m tests.benchmarks.walk ../shared/aptos2021     the real tree and tables ten times over: 568,120 paths

The folder holds tree.txt.gz (image paths, relative to data/source) and tables/. The images are empty files; each copy
of the tree has eyes of its own. Prints seconds and peak memory for once and for ten times.
"""

import argparse
import gzip
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

from config import Paths
from processing import columns as c
from processing import data_factory
from processing.tables import build_case_table, read_processed
from tests.benchmarks.stages import peak_bytes
from tests.helpers import REPOSITORY

PLACES = {
    "TrainingAnnotation.csv": "preliminary/Train_set", "PreliminaryValidationSet_Info.csv": "preliminary/Test_set",
    "train_anno_case.csv": "final/Train_Set", "train_anno_pic.csv": "final/Train_Set",
    "test_info.csv": "final/Test_set",
}


def make_tree(paths, real, times):
    """Empty files at each path of the tree and the tables, `times` over, with other eyes each time."""
    with gzip.open(real / "tree.txt.gz", "rt") as file:
        names = file.read().split("\n")[:-1]
    folders = set()
    for copy in range(times):
        for name in names:
            target = paths.source / _of_copy(Path(name), copy)
            if target.parent not in folders:
                target.parent.mkdir(parents=True, exist_ok=True)
                folders.add(target.parent)
            target.touch()
    for name, place in PLACES.items():
        table = pd.read_csv(real / "tables" / name, dtype=str, keep_default_na=False)
        copies = [table.assign(**{c.PATIENT: f"{copy}" + table[c.PATIENT]}) for copy in range(times)]
        pd.concat(copies).to_csv(paths.source / place / name, index=False)


def _of_copy(name, copy):
    """The same image of another eye: its number, in front of folder and file names, begins with that of the copy."""
    *place, last = name.parts
    if place[0] == "final":
        *place, eye, visit = place
        return Path(*place, f"{copy}{eye}", visit, last)
    *place, person = place
    return Path(*place, f"{copy}{person}", f"{copy}{last}")


def measure(root):
    """Option 0 but for the pixels, and the case table: prints counts, seconds, peak memory."""
    paths = Paths(root)
    data_factory.crop_img = lambda rows, *_: data_factory.Crops(
        pd.DataFrame(rows, columns=c.IMAGE_COLUMNS), [], 0, [])
    started = time.perf_counter()
    made = data_factory.processing_data(paths)
    cases = build_case_table(read_processed(paths.train_table, c.TRAIN_COLUMNS))
    seconds = time.perf_counter() - started
    print(f"{made.images} images, {made.train} training rows, {made.test} test rows, {len(cases)} cases: "
          f"{seconds:.1f} s, {peak_bytes() / 1e6:.0f} MB")


def main():
    """Make the trees and measure each in a process of its own."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.walk")
    parser.add_argument("real", type=Path, help="folder with tree.txt.gz and tables/")
    parser.add_argument("--times", type=int, nargs="+", default=[1, 10], help="how many times over")
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)     # measure what is there
    options = parser.parse_args()
    if options.root:
        return measure(options.root)
    for times in options.times:
        with tempfile.TemporaryDirectory() as folder:
            make_tree(Paths(folder), options.real, times)
            words = [sys.executable, "-m", "tests.benchmarks.walk", options.real.resolve(), "--root", folder]
            told = subprocess.run(words, cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout
        print(f"{times} times over: {told.splitlines()[-1]}", flush=True)


if __name__ == "__main__":
    main()
