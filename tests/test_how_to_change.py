"""What docs/how-to-change.md says, done in a copy of the program, as a user would."""

import re
import shutil

import pandas as pd
import pytest

from processing import columns as c
from tests.helpers import REPOSITORY, run_commands

PARTS = ("main.py", "config.py", "model_config.py", "processing", "model", "data")
TEXT = (REPOSITORY / "docs" / "how-to-change.md").read_text(encoding="utf-8")
TRAIN = ("train_image", "--models", "Model-Image-After", "--epochs", "1", "--batch-size", "4", "--device", "cpu")
PREDICT = ("4", "--device", "cpu")


class Program:
    """A copy of the program with a root of its own."""

    def __init__(self, folder, root):
        self.folder, self.root = folder, root

    def edit(self, file, before, after):
        """Put `after` in the place of `before`."""
        path = self.folder / file
        text = path.read_text(encoding="utf-8")
        assert before in text
        path.write_text(text.replace(before, after, 1), encoding="utf-8")

    def append(self, file, text):
        path = self.folder / file
        path.write_text(path.read_text(encoding="utf-8") + text, encoding="utf-8")

    def run(self, *commands):
        """Run command lines one after another; what they say."""
        return run_commands(*commands, root=self.root, program=self.folder)

    def submission(self):
        """The newest submission's files."""
        folder = max((self.root / "model" / "result").glob("2*"), key=lambda path: path.stat().st_mtime_ns)
        return {name: (folder / name).read_text() for name in (c.STAGE1, c.STAGE2_CASE, c.STAGE2_PIC)}


@pytest.fixture
def program(trained_copy, tmp_path):
    folder = tmp_path / "program"
    folder.mkdir()
    for part in PARTS:
        copy = shutil.copytree if (REPOSITORY / part).is_dir() else shutil.copy
        copy(REPOSITORY / part, folder / part, **({"ignore": shutil.ignore_patterns("__pycache__", "ckpt", "source")}
                                                  if copy is shutil.copytree else {}))
    return Program(folder, trained_copy.root)


@pytest.fixture(scope="module")
def unchanged_submission(trained_root, tmp_path_factory):
    """What the program as it is predicts with the same runs."""
    root = tmp_path_factory.mktemp("unchanged") / "root"
    shutil.copytree(trained_root.root, root)
    program = Program(REPOSITORY, root)
    program.run(PREDICT)
    return program.submission()


def line_of(words):
    """The line of the text that holds `words`, without its indent."""
    line, = (line.strip() for line in TEXT.splitlines() if line.startswith("    ") and words in line)
    return line


def test_a_new_backbone_is_one_function_and_one_line(program):
    program.append("model/backbones.py", '''

def build_mine(view: View) -> tuple[nn.Sequential, int]:
    """A small one."""
    seen = (view.height // 32) * (view.width // 32)
    return nn.Sequential(nn.AvgPool2d(32), nn.Flatten(), nn.Linear(seen, 24), nn.ReLU()), 24
''')
    program.edit("model_config.py", "IMAGE_RECIPES = {\n", "IMAGE_RECIPES = {\n    " + line_of('"mine": Recipe') + "\n")
    assert "Model-Image-After epoch 1/1" in program.run([*TRAIN, "--recipe", "mine"], PREDICT)


def test_a_new_view_is_one_entry(program):
    program.edit("config.py", "VIEWS = {\n", "VIEWS = {\n    " + line_of('"lower": View') + "\n")
    said = program.run(["0"], [*TRAIN, "--views", "lower", "bscan"], PREDICT)
    assert len(list((program.root / "data/processed/lower").rglob("*.jpg"))) == 24
    assert "Model-Image-After epoch 1/1" in said


def test_another_crop_box_is_one_line_and_old_runs_predict_as_before(program, unchanged_submission):
    program.edit("config.py", "top=50, bottom=450, left=550, right=1200", "top=60, bottom=444, left=560, right=1200")
    said = program.run(["0"], PREDICT, TRAIN)
    assert program.submission() == unchanged_submission
    assert "Model-Image-After epoch 1/1" in said


def test_a_new_finding_is_one_name_and_old_runs_predict_as_before(program, unchanged_submission):
    text = (program.folder / "processing/columns.py").read_text(encoding="utf-8")
    findings = re.search(r"^FINDINGS = .*$", text, re.M)[0]
    program.edit("processing/columns.py", findings, 'FINDINGS = ["IRF", "SRF", "PED", "HRF", "ERM"]')
    program.run(["0"], PREDICT)
    assert "ERM" in pd.read_csv(program.root / "data/processed/csv/train.csv")
    assert program.submission() == unchanged_submission
    said = program.run(TRAIN, ["train_csv", "--epochs", "1", "--device", "cpu"], PREDICT)
    assert "Model-Image-After epoch 1/1" in said and "Model-CSV epoch 1/1" in said


def test_another_pooling_is_one_class_and_one_line(program):
    program.append("model/pooling.py", '''

class MeanPool(nn.Module):
    """The mean over a visit's images."""

    takes_visits = True

    def __init__(self, features: int):
        super().__init__()

    def forward(self, features: torch.Tensor, visits: torch.Tensor) -> torch.Tensor:
        member = visits.to(features.dtype)
        return member @ features / member.sum(dim=1, keepdim=True)
''')
    program.edit("model_config.py", "POOLS = {", "POOLS = {" + line_of('"mean": "MeanPool"') + " ")
    assert "Model-Image-After epoch 1/1" in program.run([*TRAIN, "--pool", "mean"], PREDICT)


def test_a_new_option_is_one_function_and_one_row(program):
    program.edit("main.py", "# ---- The table of options\n", '''def hello(_arguments: Namespace) -> None:
    terminal.say("Hello.")


# ---- The table of options
''')
    program.edit("main.py", "OPTIONS = (\n", "OPTIONS = (\n    " + line_of('Option("14"') + "\n")
    assert program.run(["14"], ["hello"]) == "Hello.\nHello.\n"
