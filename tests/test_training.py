import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from config import VIEWS
from model.checkpoint import load_checkpoint
from model.device import select_device
from model.image_model import select_visit
from model.means import fit_case_means
from model.registry import load_model
from model_config import CSV_MODEL, IMAGE_MODELS
from processing import columns as c
from processing.data_factory import processing_data
from processing.errors import PipelineError
from processing.tables import build_case_table, read_processed
from tests.helpers import train_csv, train_csv_and_image, train_image

QUICK_CSV = replace(CSV_MODEL, epochs=2)
QUICK_IMAGE = replace(IMAGE_MODELS[1], epochs=1, batch_size=8, device="cpu")     # equal to the last bit on a CPU only
MOVED = VIEWS["bscan"]._replace(left=500, right=1150)


def test_without_measures_no_training_begins(demo_copy):
    with pytest.raises(PipelineError, match=r"measures.csv is not there; .*Option 11 makes it"):
        train_csv_and_image(demo_copy, QUICK_CSV, [replace(IMAGE_MODELS[0], recipe="best", device="cpu")])
    assert not list(demo_copy.ckpt.glob("*/*"))


def test_a_training_begins_alike_alone_and_behind_others(demo_copy, monkeypatch):
    """Stopped in its first epoch, it is resumed alone, and ends as it would have."""
    drawn = []

    def fit(_model, _rows, _run, _paths, *, held_out):
        drawn.append(torch.rand(2).tolist())

    monkeypatch.setattr("model.csv_model.CSVNetwork.fit", fit)
    train_csv(demo_copy, replace(QUICK_CSV, fold="all"))
    train_csv(demo_copy, replace(QUICK_CSV, fold="3"))
    assert len(drawn) == 6 and all(one == drawn[0] for one in drawn)


def test_each_image_model_takes_its_visit(demo_root):
    train = read_processed(demo_root.train_table, c.TRAIN_COLUMNS)
    before, after = select_visit(train, "before"), select_visit(train, "after")
    assert set(before[c.AFTER]) == {0}
    assert set(after[c.AFTER]) == {1}
    assert len(before) + len(after) == len(select_visit(train, "all")) == len(train)
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
    means = load_checkpoint(folder / "Model-CSV.pt").specification["means"]
    assert means == fit_case_means(cases)
    assert means["final"]["CST"] == pytest.approx(cases[cases["final"] == 1]["CST"].mean())


def test_a_run_can_start_from_another(trained_copy):
    folder, = (trained_copy.ckpt / "Model-CSV").iterdir()
    config = replace(QUICK_CSV, epochs=1, learning_rate=1e-12, init_from=str(folder))
    started = load_checkpoint(train_csv(trained_copy, config)[0] / "Model-CSV.pt").state
    for name, value in load_checkpoint(folder / "Model-CSV.pt").state.items():
        torch.testing.assert_close(started[name], value, rtol=1e-5, atol=1e-7)


def test_two_runs_of_one_config_are_equal_to_the_last_bit(demo_copy, one_thread):
    first, again = (train_image(demo_copy, [QUICK_IMAGE])[0] for _ in range(2))
    assert first != again
    assert (first / "history.csv").read_bytes() == (again / "history.csv").read_bytes()
    weights, same = (load_checkpoint(folder / "Model-Image-After.pt").state for folder in (first, again))
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
    with pytest.raises(PipelineError, match="Model-Image-After on: no images of the visits that it wants"):
        train_image(demo_copy, [QUICK_IMAGE])
    with pytest.raises(PipelineError, match="Model-CSV on: no eyes of the visits that it wants"):
        train_csv(demo_copy, QUICK_CSV)


def test_a_start_that_does_not_fit_makes_no_run(trained_copy):
    folder, = (trained_copy.ckpt / "Model-CSV").iterdir()
    runs = sorted(trained_copy.ckpt.rglob("run.json"))
    with pytest.raises(PipelineError, match="holds the weights of CSVNetwork; those of ImageNetwork are needed"):
        train_image(trained_copy, [replace(QUICK_IMAGE, init_from=str(folder))])
    assert sorted(trained_copy.ckpt.rglob("run.json")) == runs


def result(folder):
    state = load_checkpoint(folder / "Model-Image-After.pt").state
    return (folder / "history.csv").read_bytes(), {name: value.numpy().tobytes() for name, value in state.items()}


def test_crops_of_another_box_are_never_trained_on(demo_copy, monkeypatch, capsys, one_thread):
    """An edited box without option 0, and an option 0 that was stopped half way: both leave crops of another box."""
    monkeypatch.setitem(VIEWS, "bscan", MOVED)
    from_screens, = train_image(demo_copy, [QUICK_IMAGE])
    cut = "were not cut with the box 50:450,500:1150; these images are cut from their screens"
    assert cut in capsys.readouterr().out
    processing_data(demo_copy)
    from_crops, = train_image(demo_copy, [QUICK_IMAGE])
    assert cut not in capsys.readouterr().out
    lines = demo_copy.crop_record.read_text().splitlines()
    place = next(place for place, line in enumerate(lines) if "/img/train/" in line and "_0_1_" in line)
    lines[place] = lines[place].replace("500:1150", "550:1200")
    demo_copy.crop_record.write_text("\n".join(lines))
    from_both, = train_image(demo_copy, [QUICK_IMAGE])
    assert re.search(rf"(?<!\d)1 of \d+ crops in data/processed/img {cut}", capsys.readouterr().out)
    assert result(from_screens) == result(from_crops) == result(from_both)


def test_without_crops_of_its_box_and_without_screens_a_training_is_refused(demo_copy, monkeypatch):
    monkeypatch.setitem(VIEWS, "bscan", MOVED)
    images = pd.read_csv(demo_copy.train_table)
    screen = demo_copy.root / images[images[c.AFTER] == 1][c.SOURCE].iloc[0]
    screen.unlink()
    with pytest.raises(PipelineError, match=f"50:450,500:1150, and 1 of their screens are not .*{screen.name}"):
        train_image(demo_copy, [QUICK_IMAGE])
    assert not demo_copy.ckpt.exists()


def test_an_old_run_with_another_box_still_predicts(trained_copy, monkeypatch, one_thread):
    """From its screens, what it predicted from its crops: bit for bit, since both go through JPEG."""
    folder, = (trained_copy.ckpt / "Model-Image-After").iterdir()
    file, cpu = folder / "Model-Image-After.pt", select_device("cpu")
    rows = read_processed(trained_copy.test_table, c.TEST_COLUMNS)
    before = load_model(file, cpu, unit="images").predict(rows, trained_copy)
    monkeypatch.setitem(VIEWS, "bscan", MOVED)
    processing_data(trained_copy)
    after = load_model(file, cpu, unit="images").predict(rows, trained_copy)
    pd.testing.assert_frame_equal(after, before, check_exact=True)
    assert len(after) == len(rows) and after[c.CST].nunique() > 1


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
