"""What a training was after an epoch, kept in memory until it is on disk. Reads and writes no file."""

import copy
from typing import Any, NamedTuple

import torch
from torch import nn


class Snapshot(NamedTuple):
    """A complete epoch. One takes the place of the one before in one step: a signal falls before it or behind it."""

    epoch: int                              # 0: none yet
    states: dict[str, Any]                  # of copy_states; empty where they are on disk
    best: tuple[int, float] | None          # epoch and held-out loss of the best so far
    best_states: dict[str, Any]             # of that epoch; empty where they are on disk


NOTHING_YET = Snapshot(0, {}, None, {})


def copy_states(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Weights, Adam's state and random states on the CPU, that later steps leave alone."""
    state = {name: value.detach().to("cpu", copy=True) for name, value in module.state_dict().items()}
    adam = optimizer.state_dict()
    adam["state"] = {
        number: {name: value.detach().to("cpu", copy=True) for name, value in own.items()}
        for number, own in adam["state"].items()
    }
    adam["param_groups"] = copy.deepcopy(adam["param_groups"])
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"state": state, "optimizer": adam, "random": {"torch": torch.get_rng_state(), "cuda": cuda}}


def restore_states(states: dict[str, Any], module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Give both, and torch's random numbers, the states of copy_states, which stay as they are."""
    module.load_state_dict(states["state"])
    optimizer.load_state_dict(copy.deepcopy(states["optimizer"]))
    random = states["random"]
    torch.set_rng_state(random["torch"])
    if len(random["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(random["cuda"])
