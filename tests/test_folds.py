"""Runs that leave a fold out: what they report, keep and know."""

import json
from dataclasses import replace

import pandas as pd
import pytest
import torch

from model.checkpoint import save_checkpoint
from model.csv_model import CSVNetwork
from model.folds import apply_means, fit_means, refuse_learned
from model.module import CSVModule
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


# ---- A held-out figure is one of unseen eyes

def in_other_folds(paths):
    """Draw the folds anew: each person moves on by one."""
    splits = json.loads(paths.splits.read_text())
    folds = splits["folds"][1:] + splits["folds"][:1]
    paths.splits.write_text(json.dumps(splits | {"folds": folds}))


QUICK = replace(CSV, epochs=1, learning_rate=1e-9)


def test_a_start_that_saw_held_out_eyes_is_refused(demo_copy):
    seen, = train_csv(demo_copy, replace(CSV, fold="none"))
    runs = sorted(demo_copy.ckpt.rglob("run.json"))
    with pytest.raises(PipelineError, match=r"has learned from persons of (\d+) of the \1 held-out eyes, the first is"):
        train_csv(demo_copy, replace(QUICK, fold="all", init_from=str(seen)))
    assert sorted(demo_copy.ckpt.rglob("run.json")) == runs
    train_csv(demo_copy, replace(QUICK, fold="none", init_from=str(seen)))


def drop_eyes(paths, patients):
    """Take eyes out of train.csv, as where a folder of images is gone for a while; gives the table as it was."""
    table = paths.train_table.read_bytes()
    rows = pd.read_csv(paths.train_table, dtype=str, keep_default_na=False)
    rows[~rows[c.PATIENT].isin(patients)].to_csv(paths.train_table, index=False)
    return table


def test_what_a_start_started_from_counts_too(demo_copy):
    first, = train_csv(demo_copy, replace(CSV, fold="1"))
    same, = train_csv(demo_copy, replace(QUICK, fold="1", init_from=str(first)))
    train_csv(demo_copy, replace(QUICK, fold="1", init_from=str(same)))     # it never saw that fold
    table = drop_eyes(demo_copy, json.loads(demo_copy.splits.read_text())["folds"][0])
    without, = train_csv(demo_copy, replace(QUICK, fold="none", init_from=str(same)))
    demo_copy.train_table.write_bytes(table)
    for start in (first, same, without):
        with pytest.raises(PipelineError, match="has learned from persons of"):
            train_csv(demo_copy, replace(QUICK, fold="0", init_from=str(start)))


def test_folds_drawn_anew_make_eyes_seen(demo_copy):
    first, = train_csv(demo_copy, CSV)
    in_other_folds(demo_copy)
    with pytest.raises(PipelineError, match="has learned from persons of"):
        train_csv(demo_copy, replace(QUICK, init_from=str(first)))


def test_the_fellow_eye_is_a_way_to_know_a_person():
    with pytest.raises(PipelineError, match="x.pt has learned from persons of 1 of the 2 held-out eyes, .* is 7R"):
        refuse_learned({"7L", "8L"}, {"7R", "9L"}, whose="x.pt", advice="")
    refuse_learned({"7L"}, {"9L"}, whose="x.pt", advice="")
    refuse_learned(None, set(), whose="x.pt", advice="")


def test_the_best_epoch_was_chosen_by_the_held_out_eyes(demo_copy):
    folder, = train_csv(demo_copy, CSV)
    train_csv(demo_copy, replace(QUICK, init_from=str(folder / "Model-CSV.pt")))
    with pytest.raises(PipelineError, match="chosen by these eyes"):
        train_csv(demo_copy, replace(QUICK, init_from=str(folder / "Model-CSV-best.pt")))


@pytest.mark.parametrize("kind", ["published", "earlier"])
def test_weights_of_unknown_eyes_are_refused_with_fold(demo_copy, kind, tmp_path):
    file = tmp_path / "start.pt"
    if kind == "published":
        torch.save(CSVModule(), file)
    else:
        model = CSVNetwork({}, torch.device("cpu"))
        save_checkpoint(file, model, model.state_dict())
    with pytest.raises(PipelineError, match="does not say which eyes it has learned from"):
        train_csv(demo_copy, replace(QUICK, recipe="seed", init_from=str(file)))
    after, = train_csv(demo_copy, replace(QUICK, recipe="seed", fold="none", init_from=str(file)))
    with pytest.raises(PipelineError, match="does not say which eyes it has learned from"):     # nor does what follows
        train_csv(demo_copy, replace(QUICK, recipe="seed", init_from=str(after)))


def test_a_resumed_run_knows_its_start(demo_copy, monkeypatch):
    from tests.test_resume import Stop, stop_after

    seen, = train_csv(demo_copy, replace(CSV, fold="none"))
    eyes = set(pd.read_csv(demo_copy.train_table, dtype={c.PATIENT: str})[c.PATIENT])
    drop_eyes(demo_copy, sorted(eyes)[:4])
    with monkeypatch.context() as patch, pytest.raises(Stop):
        stop_after(patch, 2)
        train_csv(demo_copy, replace(CSV, fold="none", init_from=str(seen)))
    seen.rename(seen.parent / "moved")
    resumed, = train_csv(demo_copy, CSV, resume="")
    assert set(content(resumed)["learned"]) == eyes
