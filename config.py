"""Where things are, and what is cut out of a screen. Constants only: edit them here.

Everything lies under one root. The environment variable APTOS_ROOT moves it (default: this folder).
"""

import os
from pathlib import Path
from typing import NamedTuple


class View(NamedTuple):
    """What is cut out of a device's screen, in pixels, and how it is kept; `bottom` and `right` are not part of it."""

    top: int
    bottom: int
    left: int
    right: int
    channels: int = 1       # 1: grey, what has colours is turned grey; 3: with its colours
    folder: str = "img"     # below data/processed; each view has its own. "": not kept, cut from the screen when read
    narrow: int = 1         # so many columns become one, their mean

    @property
    def height(self) -> int:
        return self.bottom - self.top

    @property
    def width(self) -> int:
        return (self.right - self.left) // self.narrow


class Paths:
    """Every folder and file of the pipeline, from one root."""

    def __init__(self, root: Path | str):
        self.root = Path(os.path.expanduser(root)).resolve()
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
        self.pixel_cache = self.processed / "pixels.bin"               # the training crops, decoded
        self.crop_record = self.processed / "csv" / "crops.csv"        # what each crop was cut from
        self.geometry_table = self.processed / "csv" / "geometry.csv"  # where each scan lies on the retina
        self.crop_preview = self.processed / "crop_preview.png"
        self.geometry_preview = self.processed / "geometry.png"        # where some scans lie, drawn on their screens
        self.problems = self.processed / "problems.csv"                # what option 0 left out, and why
        self.check_table = self.processed / "check.csv"                # what option 6 found
        self.check_picture = self.processed / "check.png"
        self.measures = self.processed / "csv" / "measures.csv"        # what option 11 read of each scan
        self.measures_picture = self.processed / "measures.png"
        self.train_table = self.processed / "csv" / "train.csv"
        self.test_table = self.processed / "csv" / "test.csv"

        self.truth = self.root / "truth"                        # the demonstration's known answers
        self.error_log = model / "error.log"                    # tracebacks of bugs

    def view_folder(self, view: View) -> Path:
        """Where the crops of a view lie: {train,test}/<crop>.jpg below it."""
        return self.processed / view.folder

    def relative(self, path: Path | str) -> str:
        """`path` relative to the root, with forward slashes: how paths are stored in tables."""
        return Path(path).relative_to(self.root).as_posix()


PATHS = Paths(os.environ.get("APTOS_ROOT") or Path(__file__).parent)

# What is cut out of each screen. On one of 1264 x 596, columns 0-495 hold the fundus picture and columns 496-1263 the
# B-scan, both in rows 0-495. One more entry is one more view.
VIEWS = {
    "bscan": View(top=50, bottom=450, left=550, right=1200, channels=1, folder="img"),    # without its rim, as in 2021
    "fundus": View(top=0, bottom=496, left=0, right=496, channels=3, folder="fundus"),    # with this scan's line
    "bscan_full": View(top=0, bottom=496, left=496, right=1264, channels=1, folder="", narrow=2),     # whole, not kept
}

# Faulty scans of the preliminary round, left out by the 2021 system too.
EXCLUDED_IMAGES = ("0000-1270R_2.jpg", "0000-1186R_2.jpg")

# Runs that options 4, 5 and 11 use, as folder or checkpoint file. None: the newest finished run of that model; of
# Model-Segmentation, the weights that come with the program.
CHECKPOINTS = {
    "Model-Image-Before": None,
    "Model-Image-After": None,
    "Model-Image-All": None,
    "Model-CSV": None,
    "Model-Segmentation": None,
}
