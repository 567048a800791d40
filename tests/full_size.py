"""Time and memory of every stage at the competition's size: the real tables, a synthetic screen at every real path.

    python -m tests.full_size FOLDER                    all stages, one line each
    python -m tests.full_size FOLDER --only 8           what is made already is not made again

FOLDER takes some 5 GB; it stays. There are a few hundred different screens, and every path is another name (hard link)
of one of them: each is read, cut and measured for itself. What the tables say has nothing to do with these screens, so
the scores of option 8 are those of chance where images count.
"""

import argparse
import gzip
import os
import shutil
import subprocess
import sys
import time
from itertools import cycle
from pathlib import Path

from config import Paths
from processing.demo import share_eyes, write_demo
from processing.terminal import say
from tests.helpers import REPOSITORY
from tests.test_real import put_tables

REAL = REPOSITORY.parent / "shared" / "aptos2021"
EYES = 24                   # whose screens are drawn
STAGES = {
    "0": ["0"],
    "11": ["11", "--device", "cpu"],
    "3 measured": ["3", "--csv-recipe", "best", "--image-recipe", "measured", "--device", "cpu"],
    "4": ["4", "--device", "cpu"],
    "5": ["5", "--device", "cpu"],
    "3 best": ["3", "--recipe", "best", "--device", "cpu"],
    "3 measured, all folds": ["3", "--csv-recipe", "best", "--image-recipe", "measured", "--fold", "all", "--device",
                              "cpu"],
    "8": ["8", "--device", "cpu"],
}


def make_root(root):
    """The real tables and templates, and a screen at every real path."""
    paths = Paths(root)
    drawn = Paths(root / "drawn")
    if not drawn.source.is_dir():
        write_demo(drawn, share_eyes(EYES))
    screens = cycle(sorted(drawn.source.rglob("*.jpg")))
    with gzip.open(REAL / "tree.txt.gz", "rt") as file:
        names = [Path(line.rstrip("\n")) for line in file]
    for name, screen in zip(names, screens, strict=False):
        place = paths.source / name
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            os.link(screen, place)
    put_tables(REAL, paths)
    paths.submit.mkdir(parents=True, exist_ok=True)
    for template in sorted((REAL / "tables").glob("submit_*.csv")):
        shutil.copy(template, paths.submit / template.name)
    return len(names)


def run_stage(root, words, log):
    """Run an option: exit status, seconds, peak memory (GB) of its process and what it started."""
    started = time.monotonic()
    with log.open("wb") as file:
        process = subprocess.Popen([sys.executable, "main.py", *words], cwd=REPOSITORY, stdout=file,
                                   stderr=subprocess.STDOUT, env=os.environ | {"APTOS_ROOT": str(root)})
        _, status, usage = os.wait4(process.pid, 0)
    return os.waitstatus_to_exitcode(status), time.monotonic() - started, usage.ru_maxrss / 2**20


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="+", choices=list(STAGES), default=list(STAGES))
    arguments = parser.parse_args()
    if not REAL.is_dir():
        say(f"{REAL} is not at hand.")
        return 1
    root = arguments.folder.resolve()
    say(f"{make_root(root)} screens in {root}")
    total = 0.0
    for stage in arguments.only:
        log = root / f"option {stage}.log"
        status, seconds, memory = run_stage(root, STAGES[stage], log)
        total += seconds
        say(f"option {stage:24}{seconds:7.0f} s{memory:7.2f} GB" + ("" if status == 0 else f"  status {status}: {log}"))
    say(f"{'together':31}{total:7.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
