"""A stopped run goes on from its last complete epoch, and ends as if it had never been stopped."""

import functools
import json
import os
import shutil
import time
from dataclasses import replace

import pandas as pd
import pytest
import torch

import config as places
from config import View
from model.checkpoint import load_checkpoint
from model.run import Run, read_specification
from model_config import CSV_MODEL, IMAGE_MODELS
from processing.errors import PipelineError
from processing.tables import read_history
from tests import warm
from tests.helpers import REPOSITORY, damage_history, run_warm, train_csv, train_image

pytestmark = pytest.mark.usefixtures("one_thread", "small_boxes")
EPOCHS = 3
CSV = replace(CSV_MODEL, epochs=EPOCHS, batch_size=2, learning_rate=1e-3, device="cpu")
IMAGE = replace(IMAGE_MODELS[1], epochs=EPOCHS, batch_size=3, device="cpu")
# All that an epoch can depend on: two views, whole visits of random images, changed images, another step each epoch
VISITS = replace(
    IMAGE, views=("bscan", "fundus"), pool="visit", augment="mild", schedule="cosine", weight_decay=0.1, batch_size=6,
    normalise="image", recipe="fixed",
)


class Stop(BaseException):
    """Stands in for a kill at a chosen moment."""


def train(paths, config, **arguments):
    if config is CSV or config.name == CSV.name:
        return train_csv(paths, config, **arguments)[0]
    return train_image(paths, [config], **arguments)[0]


def result(folder):
    """History and all that the checkpoint holds, to be compared bit for bit."""
    name = folder.parent.name
    content = torch.load(folder / f"{name}.pt", weights_only=True)
    states = content["optimizer"]["state"].items()
    optimizer = {(number, part): value for number, state in states for part, value in state.items()}
    tensors = {name: value.numpy().tobytes() for name, value in (content["state"] | optimizer).items()}
    return (folder / "history.csv").read_bytes(), tensors, content["epoch"], content["optimizer"]["param_groups"]


def stop_after(monkeypatch, epochs, *, within=False):
    """Let a training die when it has done `epochs` epochs: at their end, or within the next."""
    finish = Run.finish_epoch

    def finish_and_stop(run, epoch, *arguments):
        if within and epoch == epochs + 1:
            raise Stop
        finish(run, epoch, *arguments)
        if epoch == epochs and not within:
            raise Stop

    monkeypatch.setattr(Run, "finish_epoch", finish_and_stop)


@pytest.mark.parametrize(
    ("epochs", "within"), [(0, True), *((epochs, within) for epochs in range(1, EPOCHS) for within in (False, True))]
)
@pytest.mark.parametrize("config", [CSV, IMAGE], ids=["csv", "image"])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(
        demo_copy, monkeypatch, train_whole, config, epochs, within):
    check_resumed(demo_copy, monkeypatch, config, epochs=epochs, within=within, whole=train_whole(config))


@pytest.mark.parametrize("fold", ["none", "1"])
def test_a_resumed_run_of_views_visits_and_changed_images_equals_too(demo_copy, monkeypatch, train_whole, fold):
    config = replace(VISITS, fold=fold)
    check_resumed(demo_copy, monkeypatch, config, epochs=1, within=True, whole=train_whole(config))


@pytest.fixture(scope="module")
def train_whole(demo_root, tmp_path_factory):
    """A config -> the result of an uninterrupted run of it, trained once."""
    @functools.cache
    def train_once(config):
        root = tmp_path_factory.mktemp("whole") / "root"
        shutil.copytree(demo_root.root, root)
        return result(train(places.Paths(root), config))

    return train_once


def check_resumed(demo_copy, monkeypatch, config, *, epochs, within, whole):
    with monkeypatch.context() as patch, pytest.raises(Stop):
        stop_after(patch, epochs, within=within)
        train(demo_copy, config)
    stopped = sorted((demo_copy.ckpt / config.name).iterdir())[-1]
    assert json.loads((stopped / "run.json").read_text())["epochs_done"] == epochs
    folder = train(demo_copy, replace(config, epochs=99), resume="")       # the run's own config counts
    assert folder == stopped
    assert json.loads((folder / "run.json").read_text())["state"] == "finished"
    assert result(folder) == whole


def test_a_run_without_a_complete_epoch_is_built_from_its_specification(demo_copy, monkeypatch):
    """Whatever config.py says by now: another box."""
    for config in (CSV, IMAGE):
        whole = train(demo_copy, config)
        with monkeypatch.context() as patch, pytest.raises(Stop):
            stop_after(patch, 0, within=True)
            train(demo_copy, config)
        stopped, = set((demo_copy.ckpt / config.name).iterdir()) - {whole}
        with monkeypatch.context() as patch:
            patch.setitem(places.VIEWS, "bscan", View(0, 200, 500, 800))
            resumed = train(demo_copy, config, resume="")
        assert resumed == stopped
        assert result(resumed) == result(whole)
        specification = read_specification(resumed)
        assert specification == load_checkpoint(resumed / f"{config.name}.pt").specification
        assert specification == read_specification(whole)


def test_with_reading_threads_too(demo_copy, monkeypatch):
    config = replace(IMAGE, epochs=2, workers=2)
    whole = result(train(demo_copy, config))
    assert result(train(demo_copy, replace(config, workers=0))) == whole
    with monkeypatch.context() as patch, pytest.raises(Stop):
        stop_after(patch, 1)
        train(demo_copy, config)
    assert result(train(demo_copy, config, resume="")) == whole


def start(paths, folder, *words):
    return warm.start(REPOSITORY / "main.py", *words, folder=folder, cwd=paths.root,
                      environment=os.environ | {"APTOS_ROOT": str(paths.root), "PYTHONUNBUFFERED": "1"})


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_killed_run_is_resumed(demo_copy, tmp_path):
    """kill -9: nothing could be said at the end, the run stands as running."""
    words = ("2", "--epochs", 200, "--batch-size", 2, "--device", "cpu")
    process = start(demo_copy, tmp_path, *words)
    wait_for(lambda: list(demo_copy.ckpt.glob("Model-CSV/*/Model-CSV.pt")))
    process.kill()
    process.join()
    stopped, = (demo_copy.ckpt / "Model-CSV").iterdir()
    assert json.loads((stopped / "run.json").read_text())["state"] == "running"
    done = load_checkpoint(stopped / "Model-CSV.pt").values["epoch"]
    assert 1 <= done < 200
    answer = run_warm("2", "--resume", root=demo_copy.root)
    assert answer.returncode == 0, answer.stderr
    assert f"goes on after epoch {done} of 200" in answer.stdout
    assert run_warm(*words, root=demo_copy.root).returncode == 0
    resumed, whole = sorted((demo_copy.ckpt / "Model-CSV").iterdir())
    assert result(resumed) == result(whole)


def test_resume_goes_on_with_the_models_behind_in_the_list(demo_copy, monkeypatch):
    configs = [replace(config, epochs=1, batch_size=8, device="cpu") for config in IMAGE_MODELS]
    with monkeypatch.context() as patch, pytest.raises(Stop):
        stop_after(patch, 0, within=True)
        train_image(demo_copy, configs[1:])
    folders = train_image(demo_copy, IMAGE_MODELS, resume="")           # by their own configs, not by these
    assert [folder.parent.name for folder in folders] == ["Model-Image-After", "Model-Image-All"]
    assert json.loads((folders[1] / "config.json").read_text())["epochs"] == 1


def test_resume_goes_on_with_the_folds_that_are_left(demo_copy, monkeypatch, capsys):
    config = replace(CSV, fold="all", epochs=2)
    with monkeypatch.context() as patch, pytest.raises(Stop):
        stop_after(patch, 1)
        train_csv(demo_copy, config)
    folders = train_csv(demo_copy, CSV, resume="")
    assert [json.loads((folder / "config.json").read_text())["fold"] for folder in folders] == list("01234")
    assert "what was to follow it when it began follows: Model-CSV (fold 1), " in capsys.readouterr().out
    with monkeypatch.context() as patch, pytest.raises(Stop):           # those that follow know what follows them
        stop_after(patch, 1)
        train_csv(demo_copy, config)
    run = json.loads((sorted((demo_copy.ckpt / "Model-CSV").iterdir())[-1] / "run.json").read_text())
    assert [one["fold"] for one in run["behind"]] == list("1234")


def test_a_run_of_another_option_or_none_is_not_resumed(demo_copy, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(Stop):
        stop_after(patch, 1)
        train(demo_copy, CSV)
    folder, = (demo_copy.ckpt / CSV.name).iterdir()
    with pytest.raises(PipelineError, match="is a run of Model-CSV; this option resumes those of Model-Image-After"):
        train_image(demo_copy, [IMAGE], resume=str(folder))
    with pytest.raises(PipelineError, match=f"nowhere is no run folder.* of Model-CSV: {folder.name} .stopped.[.]$"):
        train_csv(demo_copy, CSV, resume="nowhere")


def test_what_cannot_be_resumed_is_refused(demo_copy, monkeypatch, tmp_path):
    with pytest.raises(PipelineError, match="There is no unfinished run of Model-CSV"):
        train_csv(demo_copy, CSV, resume="")
    finished = train(demo_copy, CSV)
    with pytest.raises(PipelineError, match="is finished; there is nothing to resume"):
        train_csv(demo_copy, CSV, resume=str(finished))
    with pytest.raises(PipelineError, match="is no run folder"):
        train_csv(demo_copy, CSV, resume=str(tmp_path))
    with monkeypatch.context() as patch, pytest.raises(Stop):
        stop_after(patch, 1)
        train(demo_copy, CSV)
    folder = sorted((demo_copy.ckpt / CSV.name).iterdir())[-1]
    config = (folder / "config.json").read_text()
    for field, value in (("fold", "2"), ("recipe", "fixed"), ("recipe", "best"), ("epochs", 99)):
        (folder / "config.json").write_text(json.dumps(json.loads(config) | {field: value}))
        with pytest.raises(PipelineError, match=f"{field} in config.json changed since it began"):
            train_csv(demo_copy, CSV, resume="")
    (folder / "config.json").write_text(config)
    (folder / f"{CSV.name}.pt").rename(folder / "away")
    with pytest.raises(PipelineError, match="Model-CSV.pt is gone, and with it the 1 epochs that were done"):
        train_csv(demo_copy, CSV, resume=f"{CSV.name}/{folder.name}")
    (folder / "away").rename(folder / f"{CSV.name}.pt")
    table = demo_copy.train_table.read_text(encoding="utf-8")
    demo_copy.train_table.write_text(table.replace("9000-0001L", "9000-0001R"), encoding="utf-8")
    with pytest.raises(PipelineError, match="cannot be resumed: train.csv changed since it began"):
        train_csv(demo_copy, CSV, resume="")


def test_a_run_whose_images_changed_is_not_resumed(demo_copy, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(Stop):
        stop_after(patch, 1)
        train(demo_copy, IMAGE)
    images = pd.read_csv(demo_copy.train_table)
    screen = demo_copy.root / images["source_path"][images["after"] == 1].iloc[0]      # small boxes are cut from these
    screen.write_bytes(screen.read_bytes() + b"\0")
    with pytest.raises(PipelineError, match="cannot be resumed: images changed since it began"):
        train_image(demo_copy, [IMAGE], resume="")


def test_a_run_in_use_cannot_be_resumed_by_another_process(demo_copy, tmp_path):
    process = start(demo_copy, tmp_path, "2", "--epochs", "1000000", "--device", "cpu")
    try:
        wait_for(lambda: list(demo_copy.ckpt.glob("Model-CSV/*/Model-CSV.pt")))
        answer = run_warm("2", "--resume", root=demo_copy.root)
        assert answer.returncode == 1
        assert "is in use by another process" in answer.stderr
        assert process.exitcode is None
    finally:
        process.kill()
        process.join()


def test_flags_of_the_config_beside_resume_are_refused(demo_copy):
    answer = run_warm("2", "--resume", "--epochs", 5, root=demo_copy.root)
    assert answer.returncode == 2
    assert "--resume takes the run's own config; leave out --epochs" in answer.stderr


@pytest.mark.parametrize("how", ["spreadsheet", "emptied", "deleted", "text"])
def test_a_run_is_resumed_from_its_checkpoint_whatever_became_of_its_history(demo_copy, monkeypatch, how):
    whole, = train_csv(demo_copy, CSV)
    stop_after(monkeypatch, 2)
    with pytest.raises(Stop):
        train_csv(demo_copy, CSV)
    monkeypatch.undo()
    folder = max((demo_copy.ckpt / "Model-CSV").iterdir(), key=lambda run: run.stat().st_mtime_ns)
    damage_history(folder / "history.csv", how)
    train_csv(demo_copy, CSV, resume=str(folder))
    states = [load_checkpoint(run / "Model-CSV.pt").state for run in (whole, folder)]
    assert all(torch.equal(states[0][name], value) for name, value in states[1].items())
    epochs = read_history(folder / "history.csv")["epoch"].tolist()
    assert epochs == list(range(1 if how == "spreadsheet" else 3, CSV.epochs + 1))
