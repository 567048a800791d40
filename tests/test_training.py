import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from config import VIEWS
from model.checkpoint import load_checkpoint
from model.training import select_rows, training_means
from model_config import CSV_MODEL, IMAGE_MODELS
from processing import columns as c
from processing.errors import PipelineError
from processing.tables import build_case_table, read_processed
from tests.helpers import train_csv, train_csv_and_image, train_image

QUICK_CSV = replace(CSV_MODEL, epochs=2)
QUICK_IMAGE = replace(IMAGE_MODELS[1], epochs=1, batch_size=8)


def test_each_image_model_takes_its_visit(demo_root):
    train = read_processed(demo_root.train_table, c.TRAIN_COLUMNS)
    before, after = select_rows(train, "before"), select_rows(train, "after")
    assert set(before[c.AFTER]) == {0}
    assert set(after[c.AFTER]) == {1}
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
    cases = build_case_table(read_processed(trained_root.train_table, c.TRAIN_COLUMNS))
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


def test_two_runs_of_one_config_are_equal_to_the_last_bit(demo_copy, one_thread):
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
    gone = sorted(demo_copy.view_folder(VIEWS["bscan"]).rglob("train/*_1_*.jpg"))[0]
    gone.unlink()
    with pytest.raises(PipelineError, match=f"1 of .* crops are not there, the first is .*{gone.name}"):
        train_image(demo_copy, [replace(QUICK_IMAGE, visit="all")])
    assert not demo_copy.ckpt.exists()


def test_nothing_to_train_on_is_said(demo_copy):
    table = pd.read_csv(demo_copy.train_table)
    table[table[c.AFTER] == 0].to_csv(demo_copy.train_table, index=False)
    with pytest.raises(PipelineError, match="no images of the visit 'after'"):
        train_image(demo_copy, [QUICK_IMAGE])
    with pytest.raises(PipelineError, match="no eye with images of both visits"):
        train_csv(demo_copy, QUICK_CSV)


def test_a_start_that_does_not_fit_makes_no_run(trained_copy):
    folder, = (trained_copy.ckpt / "Model-CSV").iterdir()
    runs = sorted(trained_copy.ckpt.rglob("run.json"))
    with pytest.raises(PipelineError, match="holds the weights of CSVModule; those of ImageModule are needed"):
        train_image(trained_copy, [replace(QUICK_IMAGE, init_from=str(folder))])
    assert sorted(trained_copy.ckpt.rglob("run.json")) == runs


def test_crops_of_another_box_are_never_trained_on(demo_copy):
    """An edited box without option 0, and an option 0 that was stopped half way: both leave crops of another box."""
    moved = VIEWS["bscan"]._replace(left=500, right=1150)
    with pytest.raises(PipelineError, match=r"crops were not cut with the box 50:450,500:1150 of config.py"):
        train_image(demo_copy, [QUICK_IMAGE], box=moved)
    lines = demo_copy.crop_record.read_text().splitlines()
    lines[-1] = lines[-1].replace("550:1200", "500:1150")
    demo_copy.crop_record.write_text("\n".join(lines))
    with pytest.raises(PipelineError, match="1 of .* crops were not cut with the box 50:450,550:1200 of config.py"):
        train_image(demo_copy, [replace(QUICK_IMAGE, visit="all")])
    assert not demo_copy.ckpt.exists()


@pytest.mark.parametrize(
    "values", [{"init_from": "absent.pt"}, {"device": "mps"}, {"visit": "after", "name": "Model-Image-After"}],
    ids=["start", "device", "crops"],
)
def test_option_3_refuses_all_that_it_can_before_the_first_training(demo_copy, values):
    if "name" in values:
        sorted(demo_copy.view_folder(VIEWS["bscan"]).rglob("train/*_1_?_*.jpg"))[0].unlink()
    with pytest.raises(PipelineError, match="is not there|has no mps|are not there"):
        train_csv_and_image(demo_copy, QUICK_CSV, [replace(QUICK_IMAGE, **values)])
    assert not demo_copy.ckpt.exists()


def test_an_empty_list_of_models_is_said(demo_root):
    with pytest.raises(PipelineError, match="IMAGE_MODELS is empty"):
        train_image(demo_root, [])


def test_bf16_takes_the_course_of_float32(demo_copy):
    """Within the noise that another order of the images makes, over five epochs; weights stay float32."""
    curves = {}
    for precision, seed in (("float32", 1), ("float32", 2), ("bf16", 1)):
        config = replace(QUICK_IMAGE, epochs=5, batch_size=4, recipe="fixed", seed=seed, precision=precision,
                         learning_rate=1e-4, device="cpu")
        folder, = train_image(demo_copy, [config])
        curves[precision, seed] = pd.read_csv(folder / "history.csv")["loss"]
        saved = torch.load(folder / f"{config.name}.pt", weights_only=True)["state"]
        assert {value.dtype for value in saved.values()} == {torch.float32, torch.int64}
    plain, other_seed, half = curves.values()
    assert not plain.equals(half)
    assert (half - plain).abs().mean() < (other_seed - plain).abs().mean()
    assert half.iloc[-1] < half.iloc[0]
