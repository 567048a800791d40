"""Model-CSV's gradients by hand are those of autograd, and its weights stay the module's."""

import copy

import pytest
import torch
from model.backward import Autograd, CSVBackward

from model.dataset import CaseFeed
from model.loss import CSVLoss
from model.module import CSVModule
from tests.test_model import CPU, make_cases


def train(module, backward, batches, steps=20):
    """Losses of each step, B x 3."""
    optimizer = torch.optim.Adam(backward.parameters, lr=1e-3, fused=True)
    losses = []
    for step in range(steps):
        losses.append(backward(module, CSVLoss(), batches[step % len(batches)]))
        optimizer.step()
    return torch.stack(losses)


@pytest.mark.parametrize("recipe", ["seed", "fixed"])
@pytest.mark.parametrize("count", [1, 7])
def test_a_step_by_hand_is_one_of_autograd(recipe, count):
    torch.manual_seed(0)
    module = CSVModule(recipe)
    by_hand = copy.deepcopy(module)
    batch, = CaseFeed(make_cases(count), CPU).epoch(1, count)
    theirs = Autograd(module)(module, CSVLoss(), batch)
    backward = CSVBackward(by_hand)
    ours = backward(by_hand, CSVLoss(), batch)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)
    # One step of plain descent shows the gradients in the module's own weights
    for number, parameter in enumerate(backward.parameters):
        backward.parameters[number].data -= parameter.grad
    for (name, parameter), own in zip(module.named_parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(own, parameter - parameter.grad, rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize("recipe", ["seed", "fixed"])
def test_a_training_by_hand_takes_the_same_course(recipe):
    torch.manual_seed(0)
    module = CSVModule(recipe)
    by_hand, batches = copy.deepcopy(module), CaseFeed(make_cases(20), CPU).epoch(1, 5)
    theirs = train(module, Autograd(module), batches)
    ours = train(by_hand, CSVBackward(by_hand), batches)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    assert ours[-1, 0] < ours[0, 0]


def test_weights_are_read_and_written_as_ever(tmp_path):
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
    module = CSVModule("fixed")
    backward = CSVBackward(module)
    count = sum(value.numel() for value in module.parameters())
    train(module, backward, CaseFeed(make_cases(20), CPU).epoch(1, 5))
    assert backward.parameters[0].count_nonzero() <= count < backward.parameters[0].numel()
