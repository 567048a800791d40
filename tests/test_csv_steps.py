"""Model-CSV's gradients by hand are those of autograd, and its weights stay the module's."""

import copy

import numpy as np
import pytest
import torch

from model.csv_steps import CSVBackward, build_case_batches, take_steps
from model.guard import build_guard
from model.loss import CSVLoss
from model.module import CSVModule
from processing import columns as c
from processing.errors import PipelineError
from tests.toys import CPU, make_cases

HEADS = ["sigmoid", "logits"]


class Autograd:
    """The same steps by torch's own means."""

    def __init__(self, module):
        self.module, self.parameters = module, list(module.parameters())

    def __call__(self, batch):
        for parameter in self.parameters:
            parameter.grad = None
        losses = CSVLoss()(self.module(batch.inputs), batch.targets)
        losses[0].backward()
        return losses.detach()


def make_batches(count, batch_size):
    return build_case_batches(make_cases(count), tuple(c.CSV_FEATURES), batch_size, CPU)


def train(backward, batches, steps=20):
    """Losses of each step: steps x 3."""
    optimizer = torch.optim.Adam(backward.parameters, lr=1e-3, fused=True)
    losses = []
    for step in range(steps):
        losses.append(backward(batches[step % len(batches)]))
        optimizer.step()
    return torch.stack(losses)


@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("count", [1, 7])
def test_a_step_by_hand_is_one_of_autograd(heads, count):
    torch.manual_seed(0)
    module = CSVModule(heads)
    by_hand = copy.deepcopy(module)
    batch, = make_batches(count, count)
    theirs = Autograd(module)(batch)
    backward = CSVBackward(by_hand)
    torch.testing.assert_close(backward(batch), theirs, rtol=1e-6, atol=1e-7)
    # One step of plain descent shows the gradients in the module's own weights
    for number, parameter in enumerate(backward.parameters):
        backward.parameters[number].data -= parameter.grad
    for (name, parameter), own in zip(module.named_parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(own, parameter - parameter.grad, rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize("heads", HEADS)
def test_a_training_by_hand_takes_the_same_course(heads):
    torch.manual_seed(0)
    module = CSVModule(heads)
    by_hand, batches = copy.deepcopy(module), make_batches(20, 5)
    theirs = train(Autograd(module), batches)
    ours = train(CSVBackward(by_hand), batches)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    assert ours[-1, 0] < ours[0, 0]


def test_batches_of_different_sizes_do_not_disturb_one_another():
    torch.manual_seed(0)
    module = CSVModule("logits")
    small, large = make_batches(3, 3), make_batches(9, 9)
    theirs = [Autograd(copy.deepcopy(module))(batch) for batch in (*small, *large, *small)]
    backward = CSVBackward(module)
    for batch, losses in zip((*small, *large, *small), theirs, strict=True):
        torch.testing.assert_close(backward(batch), losses, rtol=1e-6, atol=1e-7)


def test_weights_are_read_and_written_as_ever():
    """state_dict and load_state_dict see what the optimizer changes, and it sees what they bring."""
    torch.manual_seed(0)
    module, other = CSVModule(), CSVModule()
    backward = CSVBackward(module)
    before = backward.parameters[0].detach().clone()
    module.load_state_dict(other.state_dict())
    assert not torch.equal(backward.parameters[0], before)
    for name, value in other.state_dict().items():
        assert torch.equal(module.state_dict()[name], value)
    assert backward.parameters[0].count_nonzero() == sum(value.count_nonzero() for value in other.parameters())


def test_what_belongs_to_no_layer_stays_zero():
    """The heads' last layers lie side by side: each sees its own features only."""
    torch.manual_seed(0)
    module = CSVModule("logits")
    backward = CSVBackward(module)
    count = sum(value.numel() for value in module.parameters())
    train(backward, make_batches(20, 5))
    assert backward.parameters[0].count_nonzero() <= count < backward.parameters[0].numel()


@pytest.mark.parametrize(("count", "sizes"), [(1, [1]), (9, [9]), (10, [10]), (11, [10]), (21, [10, 10])])
def test_batches_are_fixed_in_the_tables_order_and_the_last_partial_one_is_left_out(count, sizes):
    cases, batches = make_cases(count), make_batches(count, 10)
    assert [len(batch.inputs) for batch in batches] == sizes
    for number, batch in enumerate(batches):
        own = cases.iloc[10 * number:10 * number + 10]
        assert cases[c.PATIENT].iloc[batch.rows].tolist() == own[c.PATIENT].tolist()
        np.testing.assert_allclose(batch.inputs, own[c.CSV_FEATURES].astype(np.float32))
        np.testing.assert_allclose(batch.targets[0], own[c.VA].astype(np.float32))
        assert batch.targets[1].tolist() == own[c.CONTINUE].tolist()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("column", [c.CSV_FEATURES[0], c.CSV_FEATURES[15], c.VA, c.CONTINUE])
def test_a_feature_or_label_that_is_no_number_is_named_by_eye_and_column(column, value):
    cases = make_cases(5)
    cases.loc[3, column] = value
    with pytest.raises(PipelineError, match=f"3L: {column} is {value}"):
        build_case_batches(cases, tuple(c.CSV_FEATURES), 2, CPU)


def test_an_epoch_is_a_step_for_each_batch_and_its_losses_are_added_up():
    torch.manual_seed(0)
    module, batches = CSVModule("logits"), make_batches(20, 5)
    theirs = train(Autograd(copy.deepcopy(module)), batches, steps=4)
    backward = CSVBackward(module)
    optimizer = torch.optim.Adam(backward.parameters, lr=1e-3, fused=True)
    sums = take_steps(backward, batches, optimizer, build_guard(backward.parameters, optimizer))
    torch.testing.assert_close(sums.float(), theirs.sum(dim=0), rtol=1e-4, atol=1e-5)


def test_the_first_step_that_is_not_finite_is_the_last():
    module, batches = CSVModule("logits"), make_batches(20, 5)
    batches[1].inputs[:] = torch.nan
    backward, called = CSVBackward(module), []

    def count(batch):
        called.append(1)
        return backward(batch)

    count.device = CPU
    optimizer = torch.optim.Adam(backward.parameters, lr=1e-3, fused=True)
    guard = build_guard(backward.parameters, optimizer)
    take_steps(count, batches, optimizer, guard)
    assert len(called) == 2
    assert all(value.isfinite().all() for value in module.parameters())
    with pytest.raises(PipelineError, match=r"the loss is not finite in batch 2 \(eye 5, eye 6, .* eye 9\)"):
        guard.check([batch.rows for batch in batches], lambda row: f"eye {row}")
