"""Make the weights that come with the program out of a finished run of Model-Segmentation.

    python main.py train_segmentation
    python -m tests.weights model/ckpt/Model-Segmentation/<time>

Writes model/weights/: the checkpoint without the optimizer's state, its convolutions in half precision; the run's
config.json; score.json, of 500 drawn scans that no training sees (model/lesson_score.py), read by what was written.
"""

import json
import shutil
import sys
from pathlib import Path

import torch

from model.checkpoint import load_checkpoint, save_checkpoint
from model.lesson_score import score_lessons
from model.registry import load_model
from model.segmentation_model import WEIGHTS
from processing.files import write_json
from processing.terminal import say

DIGITS = 4


def make_weights(run: Path, count: int = 500) -> dict[str, float]:
    """Write the three files from a run folder; returns the scores of `count` drawn scans."""
    file = run / "Model-Segmentation.pt"
    state = {name: value.half() if value.ndim == 4 else value for name, value in load_checkpoint(file).state.items()}
    WEIGHTS.parent.mkdir(exist_ok=True)
    save_checkpoint(WEIGHTS, load_model(file, torch.device("cpu")), state, name=file.stem, learned=[])
    shutil.copyfile(run / "config.json", WEIGHTS.parent / "config.json")
    score = score_lessons(load_model(WEIGHTS, torch.device("cpu")), count) if count else {}
    rounded = {name: round(value, DIGITS) for name, value in score.items()}
    write_json(WEIGHTS.parent / "score.json", {"scans": count} | rounded)
    return rounded


if __name__ == "__main__":
    say(json.dumps(make_weights(Path(sys.argv[1])), indent=1))
