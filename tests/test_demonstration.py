"""Option 10: everything on synthetic eyes, in a root of its own."""

from dataclasses import replace

import pandas as pd
import pytest

import model_config
from config import Paths
from data import demonstration
from processing import columns as c
from processing.demo import SIZES, DemoSize
from processing.errors import PipelineError


@pytest.mark.parametrize(
    ("asked", "name", "size"),
    [
        ({}, "default-2021", SIZES["default"]),
        ({"size": "smallest", "seed": 5}, "smallest-5", SIZES["smallest"]),
        ({"eyes": 9, "seed": 5}, "9eyes-5", DemoSize(3, 2, 2, 2, images=3)),
        ({"eyes": 8, "size": "smallest"}, "8eyes-smallest-2021", DemoSize(2, 2, 2, 2, images=1)),
    ],
)
def test_each_size_and_number_of_eyes_has_a_root_of_its_own(asked, name, size, tmp_path, monkeypatch):
    def stop(paths, wanted, *, seed):
        assert (paths.root, wanted, seed) == (tmp_path / "demo" / name, size, asked.get("seed", 2021))
        raise PipelineError("far enough")

    monkeypatch.setattr(demonstration, "write_demo", stop)
    with pytest.raises(PipelineError, match="far enough"):
        demonstration.run_demo(tmp_path, **asked)


def test_a_demonstration_goes_from_invented_eyes_to_two_scored_submissions(tmp_path, monkeypatch, capsys):
    quick = [replace(config, epochs=1) for config in model_config.DEMO_IMAGE_MODELS]
    monkeypatch.setattr(model_config, "DEMO_IMAGE_MODELS", quick)
    monkeypatch.setattr(model_config, "DEMO_CSV_MODEL", replace(model_config.DEMO_CSV_MODEL, epochs=2))
    demonstration.run_demo(tmp_path, size="smallest", eyes=8)
    paths = Paths(tmp_path / "demo" / "8eyes-smallest-2021")
    assert pd.read_csv(paths.image_table)[c.PATIENT].nunique() == 8
    assert len(list(paths.result.glob("*/submit.zip"))) == 2
    *_, scans, models, submissions, before_after, of_all = capsys.readouterr().out.splitlines()
    assert scans.startswith("Scans and tables:") and models.startswith("Models and plots:")
    assert submissions.startswith("Submissions:") and "(Before and After)" in submissions
    assert before_after.startswith("Before and After against the known answers: ")
    assert of_all.startswith("All against the known answers: ")
