"""Runs that leave a fold out: what they report, keep and know."""

import json
from dataclasses import replace

import pandas as pd
import pytest
import torch

from model.folds import apply_means, fit_means
from model.runs import find_checkpoint
from model_config import CSV_MODEL, FOLDS, IMAGE_MODELS
from processing import columns as c
from processing.data_factory import processing_data
from processing.errors import PipelineError
from processing.source import find_tables
from tests.helpers import train_csv, train_image

CSV = replace(CSV_MODEL, epochs=4, batch_size=2, learning_rate=1e-3, device="cpu", fold="0")
IMAGE = replace(IMAGE_MODELS[1], epochs=2, batch_size=4, device="cpu", fold="1", recipe="fixed")


def content(folder, suffix=""):
    return torch.load(folder / f"{folder.parent.name}{suffix}.pt", weights_only=True)


@pytest.mark.parametrize("config", [CSV, IMAGE], ids=["csv", "image"])
def test_the_held_out_loss_of_each_epoch_is_kept_and_the_best_epoch_too(demo_copy, config):
    train = train_csv if config is CSV else train_image
    folder, = train(demo_copy, config if config is CSV else [config])
    history = pd.read_csv(folder / "history.csv")
    assert len(history) == config.epochs
    assert history.filter(like="held-out loss").notna().all(axis=None)
    assert history.filter(like="held-out loss").shape[1] == 3
    best = int(history["epoch"][history["held-out loss"].idxmin()])
    assert (content(folder)["epoch"], content(folder, "-best")["epoch"]) == (config.epochs, best)
    assert json.loads((folder / "run.json").read_text())["best_epoch"] == best
    assert find_checkpoint(demo_copy, config.name, folder) == folder / f"{config.name}.pt"


def test_held_out_eyes_are_not_trained_on(demo_copy, capsys):
    train_csv(demo_copy, CSV)
    folds = json.loads(demo_copy.splits.read_text())["folds"]
    cases = pd.read_csv(demo_copy.train_table, dtype={c.PATIENT: str})[c.PATIENT].unique()
    assert f"({sum(patient in cases for patient in folds[0])} of fold 0 held out)" in capsys.readouterr().out


def test_a_resumed_fold_equals_an_uninterrupted_one(demo_copy, monkeypatch):
    from tests.test_resume import Stop, result, stop_after

    whole, = train_csv(demo_copy, CSV)
    with monkeypatch.context() as patch, pytest.raises(Stop):
        stop_after(patch, 2)
        train_csv(demo_copy, CSV)
    resumed, = train_csv(demo_copy, CSV, resume="")
    assert result(resumed) == result(whole)
    for name, value in content(whole, "-best")["state"].items():
        assert torch.equal(value, content(resumed, "-best")["state"][name])


def test_nothing_that_is_fitted_knows_the_held_out_eyes(demo_copy):
    """Other values of a held-out eye, and a gap elsewhere that would be filled by a mean: the same weights."""
    file = find_tables(demo_copy.source)["annotation"]
    table = pd.read_csv(file, dtype=str, keep_default_na=False)
    train_csv(demo_copy, CSV)                                   # draws the folds
    held_out = set(json.loads(demo_copy.splits.read_text())["folds"][0])
    is_held_out = table[c.PATIENT].isin(held_out)
    assert is_held_out.any()
    gap = table.index[~is_held_out][0]
    table.loc[gap, [c.VA, c.CST]] = "nan"
    runs = []
    for factor in (1, 3):
        changed = table.copy()
        values = changed.loc[is_held_out, [c.VA, c.CST]].astype(float) * factor
        changed.loc[is_held_out, [c.VA, c.CST]] = values.astype(str)
        changed.to_csv(file, index=False)
        processing_data(demo_copy)
        runs.append(train_csv(demo_copy, CSV)[0])
    first, second = (content(run) for run in runs)
    assert first["specification"] == second["specification"]
    for name, value in first["state"].items():
        assert torch.equal(value, second["state"][name])
    histories = [pd.read_csv(run / "history.csv") for run in runs]
    assert histories[0]["loss"].equals(histories[1]["loss"])
    assert not histories[0]["held-out loss"].equals(histories[1]["held-out loss"])


def test_means_are_of_the_own_round_and_fill_only_what_is_missing():
    eyes = pd.DataFrame({c.PATIENT: ["1L", "2L", "3L"], c.FINAL: [0, 0, 1]}).assign(**dict.fromkeys(c.MEASURES, 1.0))
    eyes[c.CST] = [200.0, None, 500.0]
    table = eyes.assign(**{c.CST: [200.0, 350.0, 500.0]})         # 350: the mean over all, as option 0 fills in
    filled = apply_means(table, eyes, fit_means(eyes))
    assert filled[c.CST].tolist() == [200.0, 200.0, 500.0]


def test_all_folds_in_turn_are_five_runs(demo_copy):
    folders = train_csv(demo_copy, replace(CSV, epochs=1, fold="all"))
    assert [json.loads((folder / "config.json").read_text())["fold"] for folder in folders] == list("01234")
    assert len(set(folders)) == FOLDS


def test_a_split_that_shares_a_person_stops_the_run(demo_copy):
    train_csv(demo_copy, replace(CSV, epochs=1))
    splits = json.loads(demo_copy.splits.read_text())
    splits["folds"][1].append(splits["folds"][0][0])
    demo_copy.splits.write_text(json.dumps(splits))
    with pytest.raises(PipelineError, match="is in folds 0 and 1"):
        train_csv(demo_copy, CSV)
    assert len(list((demo_copy.ckpt / "Model-CSV").iterdir())) == 1


def test_training_without_an_eye_of_both_visits_is_refused(demo_copy):
    table = pd.read_csv(demo_copy.train_table, dtype=str, keep_default_na=False)
    table[table["after"] == "1"].to_csv(demo_copy.train_table, index=False)
    with pytest.raises(PipelineError, match="Model-CSV on: no eyes of the visits that it wants"):
        train_csv(demo_copy, replace(CSV, fold="none"))
