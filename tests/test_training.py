import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from model.checkpoint import load_checkpoint
from model.training import select_rows, train_csv, train_csv_and_image, train_image, training_means
from model_config import CSV_MODEL, IMAGE_MODELS
from processing.errors import PipelineError
from processing.tables import AFTER, build_case_table, read_processed

QUICK_CSV = replace(CSV_MODEL, epochs=2)
QUICK_IMAGE = replace(IMAGE_MODELS[1], epochs=1, batch_size=8)


def test_each_image_model_takes_its_visit(demo_root):
    train = read_processed(demo_root.train_table)
    before, after = select_rows(train, "before"), select_rows(train, "after")
    assert set(before[AFTER]) == {0}
    assert set(after[AFTER]) == {1}
    assert len(before) + len(after) == len(select_rows(train, "all")) == len(train)
    assert [(config.visit, config.target) for config in IMAGE_MODELS] == [
        ("before", "preCST"), ("after", "CST"), ("all", "CST"),
    ]


def test_option_3_makes_a_finished_run_of_every_model(trained_root):
    for name in ("Model-Image-Before", "Model-Image-After", "Model-Image-All", "Model-CSV"):
        folder, = (trained_root.ckpt / name).iterdir()
        assert json.loads((folder / "run.json").read_text())["state"] == "finished"
        assert list(folder.glob(f"{name}-loss-epoch(*)-eta(*)-{folder.name}.png"))
        history = pd.read_csv(folder / "history.csv")
        assert history["epoch"].tolist() == list(range(1, len(history) + 1))
        assert np.isfinite(history.to_numpy()).all()


def test_model_csv_carries_the_training_means_of_each_round(trained_root):
    cases = build_case_table(read_processed(trained_root.train_table))
    folder, = (trained_root.ckpt / "Model-CSV").iterdir()
    means = load_checkpoint(folder / "Model-CSV.pt", "CSVModule")[1]["values"]["training_means"]
    assert means == training_means(cases)
    assert means["final"]["CST"] == pytest.approx(cases[cases["final"] == 1]["CST"].mean())


def test_a_run_can_start_from_another(trained_copy):
    folder, = (trained_copy.ckpt / "Model-CSV").iterdir()
    config = replace(QUICK_CSV, epochs=1, learning_rate=1e-12, init_from=str(folder))
    started = load_checkpoint(train_csv(trained_copy, config)[0] / "Model-CSV.pt", "CSVModule")[0]
    start = load_checkpoint(folder / "Model-CSV.pt", "CSVModule")[0]
    for name, value in start.state_dict().items():
        torch.testing.assert_close(started.state_dict()[name], value, rtol=1e-5, atol=1e-7)


def test_two_runs_of_one_config_are_equal_to_the_last_bit(demo_copy):
    first, again = (train_image(demo_copy, [QUICK_IMAGE])[0] for _ in range(2))
    assert first != again
    assert (first / "history.csv").read_bytes() == (again / "history.csv").read_bytes()
    weights, same = (
        load_checkpoint(folder / "Model-Image-After.pt", "ImageModule")[0].state_dict() for folder in (first, again)
    )
    assert all(torch.equal(weights[name], same[name]) for name in weights)


def test_without_processed_data_it_says_which_option_makes_it(paths):
    for train in (train_image, train_csv, train_csv_and_image):
        with pytest.raises(PipelineError, match=r"train.csv is not there. Option 0 \(processing_data\) makes it"):
            train(paths)
    assert not paths.ckpt.exists()


def test_missing_crops_are_named_before_a_run_is_made(demo_copy):
    gone = sorted(demo_copy.crops.rglob("train/*_1_*.jpg"))[0]
    gone.unlink()
    with pytest.raises(PipelineError, match=f"1 of .* crops are not there, the first is .*{gone.name}"):
        train_image(demo_copy, [replace(QUICK_IMAGE, visit="all")])
    assert not demo_copy.ckpt.exists()


def test_nothing_to_train_on_is_said(demo_copy):
    table = pd.read_csv(demo_copy.train_table)
    table[table[AFTER] == 0].to_csv(demo_copy.train_table, index=False)
    with pytest.raises(PipelineError, match="no images of the visit 'after'"):
        train_image(demo_copy, [QUICK_IMAGE])
    with pytest.raises(PipelineError, match="no eye with images of both visits"):
        train_csv(demo_copy, QUICK_CSV)


def test_a_start_that_does_not_fit_makes_no_run(trained_copy):
    folder, = (trained_copy.ckpt / "Model-CSV").iterdir()
    runs = sorted(trained_copy.ckpt.rglob("run.json"))
    with pytest.raises(PipelineError, match="holds a CSVModule; a ImageModule is needed"):
        train_image(trained_copy, [replace(QUICK_IMAGE, init_from=str(folder))])
    assert sorted(trained_copy.ckpt.rglob("run.json")) == runs
