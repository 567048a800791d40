"""Model-CSV's epoch as one CUDA graph: where there is no card, on stand-ins."""

import contextlib
from unittest import mock

import pytest
import torch

from model.csv_graph import GraphedSteps
from model.csv_steps import CSVBackward, build_case_batches, take_steps
from model.guard import build_guard
from model.module import CSVModule
from processing import columns as c
from tests.toys import CPU, make_cases


def train_cases(device, *, is_graphed, epochs=5):
    """The summed losses of so many epochs of Model-CSV over twelve eyes, and its weights."""
    torch.manual_seed(0)
    backward = CSVBackward(CSVModule().to(device))
    optimizer = torch.optim.Adam(backward.parameters, lr=0.01, fused=True)
    batches = build_case_batches(make_cases(12), tuple(c.CSV_FEATURES), 4, device)
    guard = build_guard(backward.parameters, optimizer)
    graphed = GraphedSteps(backward, batches, optimizer, guard)
    losses = []
    for _ in range(epochs):
        sums = graphed.take() if is_graphed else take_steps(backward, batches, optimizer, guard)
        guard.check([batch.rows for batch in batches], str)
        losses.append(sums.tolist())
    return torch.tensor(losses), backward.parameters[0].detach().cpu()


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
    losses, weights = train_cases(CPU, is_graphed=True)
    out = capsys.readouterr().out
    assert out.count("The steps cannot be made one CUDA graph") == 1 and "the same results" in out
    plain_losses, plain_weights = train_cases(CPU, is_graphed=False)
    assert torch.equal(losses, plain_losses) and torch.equal(weights, plain_weights)


def test_too_little_memory_is_not_taken_for_a_graph_that_cannot_be_made(monkeypatch):
    monkeypatch.setattr(torch.cuda, "Stream", mock.Mock(side_effect=torch.OutOfMemoryError("CUDA out of memory")))
    with pytest.raises(torch.OutOfMemoryError):
        train_cases(CPU, is_graphed=True)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no graphics card")
def test_a_cuda_graph_takes_the_same_steps(capsys):
    losses, weights = train_cases(torch.device("cuda"), is_graphed=True)
    assert capsys.readouterr().out == ""
    plain_losses, plain_weights = train_cases(torch.device("cuda"), is_graphed=False)
    assert torch.allclose(losses, plain_losses, rtol=1e-5)
    assert torch.allclose(weights, plain_weights, atol=1e-5)
