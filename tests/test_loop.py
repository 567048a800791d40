"""What stops a training before harm is done."""

import contextlib
import json
import weakref
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import torch
from model.backward import CSVBackward

from model import loop, model
from model.dataset import Batch, CaseFeed
from model.loss import CSVLoss
from model.module import CSVModule
from model.run import Run
from model_config import CSV_MODEL, IMAGE_MODELS
from processing import columns as c
from processing.errors import PipelineError
from tests.helpers import train_csv, train_image
from tests.test_model import make_cases
from tests.test_run import state

CSV = replace(CSV_MODEL, epochs=3, batch_size=2, device="cpu")
IMAGE = replace(IMAGE_MODELS[1], epochs=1, batch_size=4, device="cpu")
CPU = torch.device("cpu")
STEPS = 3       # of an epoch of the smallest demonstration's after-images in batches of 3


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("column", [c.CSV_FEATURES[0], c.CSV_FEATURES[15], c.VA, c.CONTINUE])
def test_a_feature_or_label_that_is_no_number_is_named_by_eye_and_column(column, value):
    cases = make_cases(5)
    cases.loc[3, column] = value
    with pytest.raises(PipelineError, match=f"3L: {column} is {value}"):
        CaseFeed(cases, CPU)


def test_a_label_of_an_image_that_is_no_number_is_named_by_file(demo_copy):
    table = pd.read_csv(demo_copy.train_table)
    row = table.index[table["after"] == 1][2]
    table.loc[row, "CST"] = np.inf
    table.to_csv(demo_copy.train_table, index=False)
    with pytest.raises(PipelineError, match=r"img/train/.*\.jpg: CST is inf"):
        train_image(demo_copy, [IMAGE])


def test_no_tensor_of_a_step_outlives_the_next_on_a_cpu():
    """Small ones would lie amid the memory of large ones, and a training would take more with each step."""
    feed, module, seen = CaseFeed(make_cases(12), CPU), CSVModule(), []
    backward = CSVBackward(module)

    class Watched:
        parameters = backward.parameters

        def __call__(self, *arguments):
            assert all(loss() is None for loss in seen[:-1])
            loss = backward(*arguments)
            seen.append(weakref.ref(loss))
            return loss

    steps = loop.Steps(module, CSVLoss(), torch.optim.Adam(backward.parameters, fused=True), Watched())
    loop.train_epoch(steps, feed.epoch(1, 2))
    assert len(seen) == 6


class Poison(torch.nn.Module):
    """A loss that goes wrong in one step of one epoch: in its value, or in its gradient alone."""

    parts = ("VA", "continue injection")

    def __init__(self, step, *, kind):
        super().__init__()
        self.step, self.kind, self.calls = step, kind, 0

    def forward(self, outputs, targets):
        self.calls += 1
        loss = (outputs[0] - targets[0]).square().mean()
        if self.calls == self.step:
            finite_with_a_slope_that_is_not = torch.sqrt(outputs[0].sum() * 0)
            loss = loss + (torch.nan if self.kind == "loss" else finite_with_a_slope_that_is_not)
        return loss, (loss, loss)


@pytest.mark.parametrize(("kind", "what"), [("loss", "the loss"), ("gradient", "a gradient")])
def test_a_loss_or_gradient_that_is_not_finite_stops_before_the_weights_change(demo_copy, monkeypatch, kind, what):
    seen = []
    step = torch.optim.Adam.step
    monkeypatch.setattr(torch.optim.Adam, "step", lambda self, *a: (step(self, *a), seen.append(1))[0])
    monkeypatch.setattr(model, "ImageLoss", lambda: Poison(STEPS + 2, kind=kind))
    message = rf"Model-Image-After, epoch 2: {what} is not finite in batch 2 \(.+jpg, .+jpg, .+jpg\)\. "
    with pytest.raises(PipelineError, match=message):
        train_image(demo_copy, [replace(IMAGE, epochs=2, batch_size=3)])
    assert len(seen) == STEPS + 1
    folder, = (demo_copy.ckpt / IMAGE.name).iterdir()
    assert state(folder) == "failed"
    assert torch.load(folder / f"{IMAGE.name}.pt", weights_only=True)["epoch"] == 1


def test_a_guard_that_is_asked_late_lets_no_step_pass_after_the_bad_one():
    """As on a graphics card, where nothing waits for the answer before the epoch ends."""
    torch.manual_seed(0)
    module = CSVModule()
    optimizer = torch.optim.Adam(module.parameters(), lr=0.1, fused=True)
    guard, weights, complaints = loop.LateGuard(list(module.parameters()), optimizer), [], []
    for loss in (1.0, torch.nan, 1.0):
        module(torch.rand(3, 16))[0].sum().backward()
        assert guard.judge(torch.tensor(loss))
        optimizer.step()
        weights.append(module.layers[0].weight.detach().clone())
        complaints.append(guard.found())
    assert complaints == [False, True, True]
    assert torch.equal(weights[0], weights[1]) and torch.equal(weights[1], weights[2])
    losses = [torch.tensor([1.0]), torch.tensor([torch.nan]), torch.tensor([1.0])]
    complaint = guard.complaint(losses, [["a"], ["b"], ["c"]], list)
    assert "the loss is not finite in batch 2 (b)" in str(complaint)


def test_weights_that_are_not_finite_are_never_saved(demo_copy, monkeypatch):
    train_epoch = loop.train_epoch

    def spoil(steps, *arguments):
        losses = train_epoch(steps, *arguments)
        spoil.calls += 1
        if spoil.calls == 2:
            torch.nn.init.constant_(steps.module.layers[0].bias, torch.inf)
        return losses

    spoil.calls = 0
    monkeypatch.setattr(loop, "train_epoch", spoil)
    with pytest.raises(PipelineError, match="not finite after epoch 2"):
        train_csv(demo_copy, CSV)
    folder, = (demo_copy.ckpt / "Model-CSV").iterdir()
    saved = torch.load(folder / "Model-CSV.pt", weights_only=True)
    assert saved["epoch"] == 1
    assert all(value.isfinite().all() for value in saved["state"].values())


def out_of_memory_above(limit, monkeypatch, let_pass=0):
    """Let every step of more than `limit` rows, but the first few, fail as a graphics card's memory does."""
    backward, passed = CSVBackward.__call__, []

    def step_or_fail(self, module, loss, batch):
        count = len(batch.inputs)
        if count > limit and len(passed) == let_pass:
            raise torch.OutOfMemoryError("CUDA out of memory")
        passed.extend([count] if count > limit else [])
        return backward(self, module, loss, batch)

    monkeypatch.setattr(CSVBackward, "__call__", step_or_fail)


def test_too_little_memory_halves_the_batch_says_so_and_records_it(demo_copy, monkeypatch, capsys):
    out_of_memory_above(1, monkeypatch, let_pass=1)
    folder, = train_csv(demo_copy, replace(CSV, batch_size=2))
    assert "going on with batches of 1" in capsys.readouterr().out
    record = json.loads((folder / "run.json").read_text())
    assert (record["state"], record["batch_size"], record["halvings"]) == ("finished", 1, 1)
    monkeypatch.undo()
    whole, = train_csv(demo_copy, replace(CSV, batch_size=1))
    assert (folder / "history.csv").read_bytes() == (whole / "history.csv").read_bytes()


def test_after_three_halvings_it_stops_with_advice(demo_copy, monkeypatch):
    out_of_memory_above(0, monkeypatch)
    with pytest.raises(PipelineError, match=r"too little memory even for batches of 2\. .*--device cpu"):
        train_csv(demo_copy, replace(CSV, batch_size=16))


def test_an_error_of_a_batch_half_way_starts_the_epoch_anew(monkeypatch):
    """Out of memory in the second batch: the first one's step is taken back."""
    cases = make_cases(6)
    torch.manual_seed(0)
    module = CSVModule()
    start = {name: value.clone() for name, value in module.state_dict().items()}
    optimizer = torch.optim.Adam(module.parameters(), lr=0.1, fused=True)
    run = Run(Path("unused"), CSV, record={}, values={})
    run.restore(module, optimizer)
    batches = list(CaseFeed(cases, CPU).epoch(1, 2))
    loop.train_epoch(loop.Steps(module, Poison(0, kind="loss"), optimizer), batches[:1])
    assert not torch.equal(module.layers[0].weight, start["layers.0.weight"])
    run.rewind(module, optimizer)
    for name, value in module.state_dict().items():
        assert torch.equal(value, start[name])
    assert optimizer.state_dict()["state"] == {}


def train_cases(steps_class, device, epochs=5):
    """The losses of so many epochs of Model-CSV over twelve eyes, and its weights."""
    torch.manual_seed(0)
    module = CSVModule().to(device)
    backward = CSVBackward(module)
    optimizer = torch.optim.Adam(backward.parameters, lr=0.01, fused=True)
    steps = steps_class(module, CSVLoss(), optimizer, backward)
    feed = CaseFeed(make_cases(12), device)
    losses = [loop.train_epoch(steps, feed.epoch(number, 4), feed.names) for number in range(epochs)]
    return losses, backward.parameters[0].detach().cpu()


@pytest.mark.parametrize("fails_at", ["once", "the end of the first steps"])
def test_where_no_cuda_graph_can_be_made_the_steps_are_taken_one_by_one(monkeypatch, capsys, fails_at):
    if fails_at == "once" and torch.cuda.is_available():
        pytest.skip("there is a card")
    if fails_at != "once":
        @contextlib.contextmanager
        def stream(_):
            yield
            raise RuntimeError("streams are not supported\nand more")

        monkeypatch.setattr(torch.cuda, "Stream", mock.MagicMock())
        monkeypatch.setattr(torch.cuda, "current_stream", mock.MagicMock())
        monkeypatch.setattr(torch.cuda, "stream", stream)
    losses, weights = train_cases(loop.GraphedSteps, CPU)
    out = capsys.readouterr().out
    assert out.count("The steps cannot be made one CUDA graph") == 1 and "the same results" in out
    plain_losses, plain_weights = train_cases(loop.Steps, CPU)
    assert losses == plain_losses and torch.equal(weights, plain_weights)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no graphics card")
def test_a_cuda_graph_takes_the_same_steps(capsys):
    losses, weights = train_cases(loop.GraphedSteps, torch.device("cuda"))
    assert capsys.readouterr().out == ""
    plain_losses, plain_weights = train_cases(loop.Steps, torch.device("cuda"))
    pd.testing.assert_frame_equal(pd.DataFrame(losses), pd.DataFrame(plain_losses), rtol=1e-5)
    assert torch.allclose(weights, plain_weights, atol=1e-5)


def test_a_batch_names_its_rows():
    cases = make_cases(5)
    feed = CaseFeed(cases, CPU)
    batch = feed.epoch(1, 2)[1]
    assert isinstance(batch, Batch)
    assert feed.names(batch.rows) == cases[c.PATIENT].tolist()[2:4]
