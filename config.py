"""Where things are, and what is cut out of a scan. Constants only: edit them here.

Everything lies under one root. The environment variable APTOS_ROOT moves it (default: this folder).
"""

import os
from pathlib import Path
from typing import NamedTuple


class Paths:
    """Every folder and file of the pipeline, from one root."""

    def __init__(self, root):
        self.root = Path(root).expanduser().resolve()
        data, model = self.root / "data", self.root / "model"

        self.source = data / "source"                           # the scans and tables, as handed out
        self.processed = data / "processed"                     # what option 0 makes
        self.submit = data / "submit"                           # the submission templates
        self.ckpt = model / "ckpt"                              # runs: <model name>/<time>/
        self.evaluation = model / "evaluation"                  # scores on held-out eyes: <time>/
        self.result = model / "result"                          # submissions: <time>/

        self.eye_table = self.processed / "csv" / "eyes.csv"           # one row per annotated eye, nothing filled in
        self.out_of_fold = self.processed / "csv" / "out_of_fold.csv"  # what image models say of eyes they never saw
        self.splits = self.processed / "splits.json"                   # the folds of held-out eyes
        self.image_table = self.processed / "csv" / "image_data.csv"   # one row per image
        self.crops = self.processed / "img"                            # {train,test}/<crop>.jpg
        self.pixel_cache = self.processed / "pixels.bin"               # the training crops, decoded
        self.crop_record = self.processed / "csv" / "crops.csv"        # what each crop was cut from
        self.crop_preview = self.processed / "crop_preview.png"
        self.problems = self.processed / "problems.csv"                # what option 0 left out, and why
        self.check_table = self.processed / "check.csv"                # what option 6 found
        self.check_picture = self.processed / "check.png"
        self.train_table = self.processed / "csv" / "train.csv"
        self.test_table = self.processed / "csv" / "test.csv"

        self.truth = self.root / "truth"                        # the demonstration's known answers
        self.error_log = model / "error.log"                    # tracebacks of bugs

    def relative(self, path):
        """`path` relative to the root, with forward slashes: how paths are stored in tables."""
        return Path(path).relative_to(self.root).as_posix()


class CropBox(NamedTuple):
    """What is cut out of a device screen, in pixels; `bottom` and `right` are not part of it."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def height(self):
        return self.bottom - self.top

    @property
    def width(self):
        return self.right - self.left


class View(NamedTuple):
    """What is cut out of a device screen, in pixels; `bottom` and `right` are not part of it."""

    top: int
    bottom: int
    left: int
    right: int
    channels: int = 1       # 1: grey, 3: colours kept
    folder: str = "img"     # below data/processed

    @property
    def height(self) -> int:
        return self.bottom - self.top

    @property
    def width(self) -> int:
        return self.right - self.left


PATHS = Paths(os.environ.get("APTOS_ROOT") or Path(__file__).parent)

# The B-scan without its rim, on a screen of 1264 x 596 (columns 496-1263, rows 0-495 hold the B-scan).
CROP = CropBox(top=50, bottom=450, left=550, right=1200)

# Parts of the screen that an image model may see. Columns 0-495 hold the fundus picture, in colours.
VIEWS = {
    "bscan": View(50, 450, 550, 1200, channels=1, folder="img"),
    "fundus": View(0, 496, 0, 496, channels=3, folder="fundus"),
}

# Faulty scans of the preliminary round, left out by the 2021 system too.
EXCLUDED_IMAGES = ("0000-1270R_2.jpg", "0000-1186R_2.jpg")

# Runs that options 4 and 5 use, as folder or checkpoint file; None: the newest finished run of that model.
CHECKPOINTS = {
    "Model-Image-Before": None,
    "Model-Image-After": None,
    "Model-Image-All": None,
    "Model-CSV": None,
}
