"""The training loop: losses, rates, too little memory."""

import json
import math
import re
import weakref
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from config import View
from model import loop
from model.csv_model import CSVNetwork
from model.csv_steps import CSVBackward, build_case_batches, take_steps
from model.guard import build_guard
from model.loop import LossSums, halve_batch, measure_losses, say_epoch, set_learning_rate
from model.module import ImageModule
from model.run import Run
from model_config import CSV_MODEL
from processing import columns as c
from processing.errors import PipelineError
from tests.helpers import train_csv
from tests.toys import CPU, Recorder, build_images, image_config, make_cases, make_images, train_images

CSV = replace(CSV_MODEL, epochs=3, batch_size=2, device="cpu")


def test_no_tensor_of_a_step_outlives_the_next_on_a_cpu(paths):
    """Small ones would lie amid the memory of large ones, and a training would take more with each step."""
    rows, model, seen = make_images(paths, 12), build_images(), []
    loss_function = model.plain_loss

    class Watched:
        parts = loss_function.parts

        def __call__(self, *arguments):
            assert all(loss() is None for loss in seen[:-1])
            loss = loss_function(*arguments)
            seen.append(weakref.ref(loss))
            return loss

    model.plain_loss = Watched()
    model.fit(rows, Recorder(image_config(epochs=1, batch_size=2)), paths, held_out=rows.head(0))
    assert len(seen) == 6


def test_losses_are_added_up_by_rows_and_divided_once():
    sums = LossSums(("CST", "findings"), CPU)
    assert all(math.isnan(value) for value in sums.means("loss").values())
    sums.add(torch.tensor([1.0, 2.0, 3.0]), 3)
    sums.add(torch.tensor([5.0, 6.0, 7.0]), 1)
    sums.gather()
    assert sums.means("loss") == {"loss": 2.0, "loss CST": 3.0, "loss findings": 4.0}


def test_held_out_losses_are_those_of_all_processes(monkeypatch):
    """Another process measured one row more, of a loss of 10."""
    class Loss:
        parts = ()

        def __call__(self, *_):
            return torch.tensor([2.0])

    monkeypatch.setattr(loop, "sum_over_processes", lambda both: both + torch.tensor([10.0, 1.0], dtype=both.dtype))
    model = SimpleNamespace(module=torch.nn.Identity(), plain_loss=Loss(), device=CPU)
    model.module.forward = lambda *_: None
    batch = SimpleNamespace(arguments=(), visit_count=3)
    assert measure_losses(model, [batch]) == {"held-out loss": (3 * 2.0 + 10.0) / 4}


def test_no_row_is_lost_to_rounding_in_a_long_epoch():
    sums = LossSums((), CPU)
    sums.add(torch.tensor([2.0**24]), 1)
    for _ in range(1000):
        sums.add(torch.ones(1), 1)
    assert sums.means("loss")["loss"] == (2**24 + 1000) / 1001


def test_measuring_without_a_batch_gives_no_number_and_changes_nothing(paths):
    losses = measure_losses(build_images(), [])
    assert list(losses) == ["held-out loss", "held-out loss CST", "held-out loss findings"]
    assert all(map(math.isnan, losses.values()))


@pytest.mark.parametrize(("schedule", "epochs", "rates"), [
    ("constant", 3, [0.2, 0.2, 0.2]),
    ("cosine", 5, [0.2, 0.2 * (0.01 + 0.99 * (1 + 0.5**0.5) / 2), 0.2 * 0.505, 0.2 * (0.01 + 0.99 * (1 - 0.5**0.5) / 2),
                   0.002]),
    ("cosine", 1, [0.2]), ("warm", 1, [0.2]), ("warm", 2, [0.04, 0.002]),
])
def test_the_rate_of_an_epoch_follows_from_its_number_alone(schedule, epochs, rates):
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=9)
    config = image_config(schedule=schedule, epochs=epochs, learning_rate=0.2)
    for epoch in reversed(range(1, epochs + 1)):
        set_learning_rate(optimizer, config, epoch)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(rates[epoch - 1])


def test_each_epoch_of_a_training_is_taken_at_its_rate(paths):
    rows, config, rates = make_images(paths, 4), image_config(schedule="cosine", epochs=3, batch_size=4), []

    class RateRecorder(Recorder):
        def finish_epoch(self, epoch, optimizer, losses):
            super().finish_epoch(epoch, optimizer, losses)
            rates.append(optimizer.param_groups[0]["lr"])

    build_images().fit(rows, RateRecorder(config), paths, held_out=rows.head(0))
    assert rates == pytest.approx([1e-3, 1e-3 * 0.505, 1e-5])


def test_all_epochs_of_a_short_run_are_said_and_some_of_a_long_one_and_the_last(capsys):
    losses = {"loss": 1.0, "loss CST": 0.5, "loss findings": 0.25, "held-out loss": 2.0, "held-out loss CST": 0.5}
    say_epoch(image_config(epochs=3), 2, losses, 0.123)
    assert capsys.readouterr().out == (
        "Model-Image-After epoch 2/3: loss 1.0000 (CST 0.5000, findings 0.2500), held-out 2.0000, 0.12 s\n")
    for epoch in range(1, 1002):
        say_epoch(image_config(epochs=1001), epoch, {"loss": 1.0}, 1)
    said = capsys.readouterr().out
    assert said.count("\n") == 167 and "epoch 6/1001: loss 1.0000" in said and "epoch 1001/1001" in said


WIDE = {"bscan": View(0, 64, 0, 160)}


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_half_the_precision_learns_much_the_same(paths, precision):
    _, losses = train_images(make_images(paths, 8, WIDE), paths, WIDE, recipe="fixed", epochs=15, batch_size=8,
                             learning_rate=3e-3, precision=precision)
    assert losses[-1]["loss"] < 0.3 * losses[0]["loss"]


def test_half_the_precision_is_refused_where_torch_computes_wrong_gradients(paths):
    with pytest.raises(PipelineError, match="crops 96 pixels wide.*wrong gradients in bf16.*--precision float32"):
        train_images(make_images(paths, 8), paths, recipe="fixed", epochs=1, batch_size=8, precision="bf16")


# ---- Too little memory

# As a card says it, as the CPU's allocator, numpy and C++ do
SHORTAGES = [
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried to "
                 "allocate 1997600000 bytes. Error code 12 (Cannot allocate memory)"),
    RuntimeError("MPS backend out of memory (MPS allocated: 9.0 GB)"), RuntimeError("std::bad_alloc"), MemoryError(),
]


def out_of_memory_above(limit, monkeypatch, let_pass=0, error=SHORTAGES[0]):
    """Let every step of more than `limit` images, but the first few, fail as where the memory does not suffice."""
    forward, passed = ImageModule.forward, []

    def forward_or_fail(self, inputs, visits=None):
        count = len(inputs["bscan"])
        if count > limit and len(passed) == let_pass:
            raise error
        passed.extend([count] if count > limit else [])
        return forward(self, inputs, visits)

    monkeypatch.setattr(ImageModule, "forward", forward_or_fail)


def train_a_run(paths, rows, **values):
    """The folder of a run on small images."""
    config, model = image_config(**values), build_images(**values)
    with Run.start(paths, config, model, data={}) as run:
        model.fit(rows, run, paths, held_out=rows.head(0))
    return run.folder


@pytest.mark.parametrize("error", SHORTAGES, ids=["card", "cpu", "mps", "c++", "numpy"])
def test_too_little_memory_halves_the_batch_says_so_and_records_it(paths, monkeypatch, capsys, one_thread, error):
    """The second step of an epoch fails: it is begun anew, as if there had never been larger batches."""
    rows = make_images(paths, 8)
    out_of_memory_above(2, monkeypatch, let_pass=3, error=error)
    folder = train_a_run(paths, rows, epochs=3, batch_size=4)
    assert "Model-Image-After: this computer has too little memory; going on with batches of 2" in (
        capsys.readouterr().out)
    record = json.loads((folder / "run.json").read_text())
    assert (record["state"], record["batch_size"], record["halvings"]) == ("finished", 2, 1)
    monkeypatch.undo()
    whole = train_a_run(paths, rows, epochs=3, batch_size=2)
    assert (folder / "history.csv").read_bytes() != (whole / "history.csv").read_bytes()    # an epoch of larger ones
    out_of_memory_above(2, monkeypatch, let_pass=1)
    folder = train_a_run(paths, rows, epochs=3, batch_size=4)
    assert (folder / "history.csv").read_bytes() == (whole / "history.csv").read_bytes()


def test_after_three_halvings_it_stops_with_advice(paths, monkeypatch):
    rows = make_images(paths, 32)
    out_of_memory_above(0, monkeypatch)
    with pytest.raises(PipelineError, match=r"this computer has .* even for batches of 2\. .*\(--batch-size\)\.$"):
        train_a_run(paths, rows, epochs=1, batch_size=16)


def test_half_of_a_batch_that_never_was_full_is_half_of_what_there_is(paths, monkeypatch, capsys):
    out_of_memory_above(4, monkeypatch)
    train_a_run(paths, make_images(paths, 8), epochs=1, batch_size=100)
    assert "going on with batches of 4." in capsys.readouterr().out


def test_measuring_and_predicting_go_on_with_less(paths, monkeypatch, capsys):
    rows = make_images(paths, 8)
    model, _ = train_images(rows, paths, epochs=1)
    wanted = model.predict(rows, paths)
    out_of_memory_above(2, monkeypatch, error=SHORTAGES[1])
    got = model.predict(rows, paths)
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4)
    assert re.findall(r"batches of (\d+)", capsys.readouterr().out) == ["8", "4", "2"]
    out_of_memory_above(0, monkeypatch, error=SHORTAGES[1])
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        model.predict(rows, paths)


def test_another_fault_is_no_shortage_of_memory(paths, monkeypatch):
    out_of_memory_above(0, monkeypatch, error=RuntimeError("shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        train_a_run(paths, make_images(paths, 4), epochs=1, batch_size=2)


def test_on_a_card_another_device_is_named():
    recorder = Recorder(image_config(batch_size=1))
    with pytest.raises(PipelineError, match="the graphics card has too little memory .*--device cpu"):
        halve_batch(recorder, 8, torch.device("cuda", 1), SHORTAGES[0])


def test_of_several_processes_none_goes_on_alone(paths, monkeypatch):
    for name, value in {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 2, "MASTER_ADDR": "x"}.items():
        monkeypatch.setenv(name, str(value))
    with pytest.raises(PipelineError, match="even for batches of 16"):
        halve_batch(Recorder(image_config(batch_size=16)), 99, CPU, torch.OutOfMemoryError())


def test_too_little_memory_for_model_csv_is_said_with_advice(demo_copy, monkeypatch):
    def fail(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(CSVBackward, "__call__", fail)
    with pytest.raises(PipelineError, match="Model-CSV: the graphics card has too little memory.*--device cpu"):
        train_csv(demo_copy, CSV)


def test_what_a_run_is_rewound_to_is_its_last_complete_epoch():
    """Out of memory in a later batch: the steps of the earlier ones are taken back."""
    cases = make_cases(6)
    torch.manual_seed(0)
    model = CSVNetwork(CSVNetwork.specify(CSV, cases), CPU)
    backward = CSVBackward(model.module)
    start = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.Adam(backward.parameters, lr=0.1, fused=True)
    run = Run(Path("unused"), CSV, record={})
    run.restore(model, optimizer)
    batches = build_case_batches(cases, tuple(c.CSV_FEATURES), 2, CPU)
    take_steps(backward, batches[:1], optimizer, build_guard(backward.parameters, optimizer))
    assert not torch.equal(model.module.layers[0].weight, start["layers.0.weight"])
    run.rewind(model.module, optimizer)
    for name, value in model.state_dict().items():
        assert torch.equal(value, start[name])
    assert optimizer.state_dict()["state"] == {}
