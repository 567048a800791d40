"""What stops a training before harm is done."""

import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from model import csv_model, image_model, network
from model.guard import Guard, LateGuard, build_guard, check_weights
from model.module import CSVModule
from model_config import CSV_MODEL, IMAGE_MODELS
from processing.errors import PipelineError
from tests.helpers import train_csv, train_image

CSV = replace(CSV_MODEL, epochs=3, batch_size=2, device="cpu")
IMAGE = replace(IMAGE_MODELS[1], epochs=2, batch_size=3, device="cpu")
STEPS = 3       # of an epoch of the smallest demonstration's after-images in batches of 3


def check_failed_run(paths, name, epochs):
    folder, = (paths.ckpt / name).iterdir()
    assert json.loads((folder / "run.json").read_text())["state"] == "failed"
    saved = torch.load(folder / f"{name}.pt", weights_only=True)
    assert saved["epoch"] == epochs
    assert all(value.isfinite().all() for value in saved["state"].values())


def test_a_label_of_an_image_that_is_no_number_is_named_by_file(demo_copy):
    table = pd.read_csv(demo_copy.train_table)
    row = table.index[table["after"] == 1][2]
    table.loc[row, "CST"] = np.inf
    table.to_csv(demo_copy.train_table, index=False)
    with pytest.raises(PipelineError, match=r"img/train/.*\.jpg: CST is inf"):
        train_image(demo_copy, [IMAGE])


class Poison:
    """A loss that goes wrong in one step: in its value, or in its gradient alone."""

    parts = ("CST", "findings")

    def __init__(self, step, kind):
        self.step, self.kind, self.calls = step, kind, 0

    def __call__(self, outputs, batch):
        self.calls += 1
        loss = (outputs[0] - batch.targets.cst_um / 100).square().mean()
        if self.calls == self.step:
            finite_with_a_slope_that_is_not = torch.sqrt(outputs[0].sum() * 0)
            loss = loss + (torch.nan if self.kind == "loss" else finite_with_a_slope_that_is_not)
        return torch.stack([loss, loss, loss])


@pytest.mark.parametrize(("kind", "what"), [("loss", "the loss"), ("gradient", "a gradient")])
def test_a_loss_or_gradient_that_is_not_finite_stops_before_the_weights_change(demo_copy, monkeypatch, kind, what):
    seen = []
    step = torch.optim.AdamW.step
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self, *a: (step(self, *a), seen.append(1))[0])
    monkeypatch.setattr(image_model, "ImageLoss", lambda: Poison(STEPS + 2, kind=kind))
    message = rf"Model-Image-After, epoch 2: {what} is not finite in batch 2 \(.+jpg, .+jpg, .+jpg\)\. "
    with pytest.raises(PipelineError, match=message):
        train_image(demo_copy, [IMAGE])
    assert len(seen) == STEPS + 1
    check_failed_run(demo_copy, IMAGE.name, epochs=1)


@pytest.mark.parametrize(("kind", "what"), [("loss", "the loss"), ("gradient", "a gradient")])
def test_of_model_csv_too(demo_copy, monkeypatch, kind, what):
    backward, calls = csv_model.CSVBackward.__call__, []

    def spoil(self, batch):
        losses = backward(self, batch)
        calls.append(self.parameters[0].detach().clone())
        if len(calls) == 5:
            losses[0] += torch.nan if kind == "loss" else 0
            self.parameters[0].grad[7] = 0 if kind == "loss" else torch.inf
        return losses

    monkeypatch.setattr(csv_model.CSVBackward, "__call__", spoil)
    with pytest.raises(PipelineError, match=rf"Model-CSV, epoch 2: {what} is not finite in batch 2 \(\S+, \S+\)\. "):
        train_csv(demo_copy, replace(CSV, batch_size=2, fold="none"))
    assert len(calls) == 5
    check_failed_run(demo_copy, "Model-CSV", epochs=1)


def make_guarded(kind):
    """A module, its optimizer, and the guard of this kind."""
    torch.manual_seed(0)
    module = CSVModule()
    parameters = list(module.parameters())
    optimizer = torch.optim.Adam(parameters, lr=0.1, fused=True)
    return module, optimizer, LateGuard(parameters, optimizer) if kind is LateGuard else Guard(parameters)


def test_a_guard_that_is_asked_late_lets_no_step_pass_after_the_bad_one():
    """As on a graphics card, where nothing waits for the answer before the epoch ends."""
    module, optimizer, guard = make_guarded(LateGuard)
    weights, rows = [], [np.array([number]) for number in range(3)]
    for loss in (1.0, torch.nan, 1.0):
        optimizer.zero_grad()
        module(torch.rand(3, 16))[0].sum().backward()
        assert guard.allows(torch.tensor(loss))
        optimizer.step()
        weights.append(module.layers[0].weight.detach().clone())
    assert torch.equal(weights[0], weights[1]) and torch.equal(weights[1], weights[2])
    with pytest.raises(PipelineError, match=r"^the loss is not finite in batch 2 \(row 1\)\."):
        guard.check(rows, lambda row: f"row {row}")
    guard.begin()                               # the next epoch
    assert guard.allows(torch.tensor(1.0))
    optimizer.step()
    assert not torch.equal(module.layers[0].weight, weights[2])
    guard.check(rows, str)


@pytest.mark.parametrize("kind", [Guard, LateGuard])
@pytest.mark.parametrize(("losses", "spoiled", "what"), [
    ((1.0, 1.0, 1.0), 2, "a gradient is not finite in batch 3"),
    ((1.0, torch.inf, 1.0), 2, "the loss is not finite in batch 2"),
    ((torch.nan, torch.nan), None, "the loss is not finite in batch 1"),
    ((1.0, 1.0), None, None),
])
def test_the_first_step_that_goes_wrong_is_named_with_what_did(kind, losses, spoiled, what):
    module, optimizer, guard = make_guarded(kind)
    rows = [np.arange(7 * number, 7 * number + 7) for number in range(3)]
    for number, loss in enumerate(losses):
        optimizer.zero_grad()
        module(torch.rand(3, 16))[0].sum().backward()
        if number == spoiled:
            module.layers[0].bias.grad[1] = -torch.inf
        if not guard.allows(torch.tensor(loss)):
            break
        optimizer.step()
    if what is None:
        guard.check(rows, str)
        return
    first = int(what[-1]) * 7 - 7
    named = ", ".join(map(str, range(first, first + 5)))
    with pytest.raises(PipelineError, match=rf"^{what} \({named} and 2 more\)\. The step was not taken; .*smaller"):
        guard.check(rows, str)


def test_on_a_cpu_each_step_is_asked_about():
    module, optimizer, _ = make_guarded(Guard)
    assert type(build_guard(list(module.parameters()), optimizer)) is Guard
    if torch.cuda.is_available():
        module = module.cuda()
        optimizer = torch.optim.Adam(module.parameters(), fused=True)
        assert type(build_guard(list(module.parameters()), optimizer)) is LateGuard


def spoil_second_epoch(monkeypatch, module, name, spoiled):
    """Let the weights that `spoiled` finds be infinite after the second call of a function that makes an epoch."""
    take, calls = getattr(module, name), []

    def take_and_spoil(trained, *arguments, **how):
        losses = take(trained, *arguments, **how)
        calls.append(1)
        if len(calls) == 2:
            torch.nn.init.constant_(spoiled(trained), torch.inf)
        return losses

    monkeypatch.setattr(module, name, take_and_spoil)


def test_weights_that_are_not_finite_are_never_saved(demo_copy, monkeypatch):
    spoil_second_epoch(monkeypatch, csv_model, "take_steps", lambda backward: backward.parameters[0])
    with pytest.raises(PipelineError, match=r"not finite after epoch 2 \(layers.0.weight\); the run keeps"):
        train_csv(demo_copy, CSV)
    check_failed_run(demo_copy, "Model-CSV", epochs=1)


def test_statistics_of_batch_norm_that_are_not_finite_are_never_saved(demo_copy, monkeypatch):
    def statistics(model):
        return model.module.layers[3].layers[1].running_var

    spoil_second_epoch(monkeypatch, network, "train_epoch", statistics)
    with pytest.raises(PipelineError, match=r"not finite after epoch 2 \(layers.3.layers.1.running_var\)"):
        train_image(demo_copy, [IMAGE])
    check_failed_run(demo_copy, IMAGE.name, epochs=1)


@pytest.mark.parametrize("kind", ["images", "eyes"])
def test_a_held_out_loss_that_is_not_finite_is_never_the_best(demo_copy, monkeypatch, kind):
    """Weights may be finite, and what they make of eyes that were not seen not."""
    given = iter([0.5, math.nan])

    def measure(*_):
        return {"held-out loss": next(given)}

    name = "Model-CSV" if kind == "eyes" else IMAGE.name
    if kind == "eyes":
        monkeypatch.setattr(csv_model.CSVNetwork, "_measure", measure)
    else:
        monkeypatch.setattr(network, "measure_losses", measure)
    with pytest.raises(PipelineError, match="The held-out loss is not finite after epoch 2; the run keeps the epoch"):
        train_csv(demo_copy, replace(CSV, fold="0")) if kind == "eyes" else train_image(
            demo_copy, [replace(IMAGE, fold="0")])
    check_failed_run(demo_copy, name, epochs=1)
    record, = (json.loads(file.read_text()) for file in (demo_copy.ckpt / name).glob("*/run.json"))
    assert record["best_epoch"] == 1


def test_weights_that_are_huge_but_finite_are_none_of_its_business():
    module = CSVModule()
    for parameter in module.parameters():
        torch.nn.init.constant_(parameter, 3e38)        # their norm is infinite
    check_weights(module, 1)
