"""What stops a training before harm is done: losses, gradients or weights that are no finite numbers."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from processing.errors import PipelineError

_SMALLER = "A smaller learning rate helps most often (--learning-rate)."


class Guard:
    """Refuses a step whose loss or gradient is not finite, before it is taken.

    Args:
        parameters: those whose gradients are looked at.
    """

    # Good steps before the first refused one, whether there is one, and whether for its loss; of a LateGuard tensors
    _good_steps: Any
    _is_found: Any
    _is_loss: Any

    def __init__(self, parameters: Sequence[nn.Parameter]):
        self._parameters = list(parameters)
        self.begin()

    def begin(self) -> None:
        """Begin an epoch."""
        self._good_steps, self._is_found, self._is_loss = 0, False, False

    def allows(self, loss: torch.Tensor) -> bool:
        """Look at a step's loss and at the gradients that the parameters hold: whether the step is to be taken."""
        self._is_found = not bool(torch.isfinite(self._add_up(loss)))
        self._is_loss = not bool(torch.isfinite(loss))
        self._good_steps += not self._is_found
        return not self._is_found

    def check(self, rows: Sequence[np.ndarray], name: Callable[[int], str]) -> None:
        """After the epoch's steps: raise if one was refused; waits for the device.

        Args:
            rows: of each step's batch.
            name: what the user knows a row by.

        Raises:
            PipelineError: names the first refused step.
        """
        if not bool(self._is_found):
            return
        first = int(self._good_steps)
        named = rows[first]
        shown = ", ".join(name(int(row)) for row in named[:5])
        shown += f" and {len(named) - 5} more" if len(named) > 5 else ""
        raise PipelineError(
            f"{'the loss' if bool(self._is_loss) else 'a gradient'} is not finite in batch {first + 1} ({shown}). The "
            f"step was not taken; the run keeps its last complete epoch. {_SMALLER}"
        )

    def _add_up(self, loss: torch.Tensor) -> torch.Tensor:
        """A number that is finite where the loss and all gradients are."""
        gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        if len(gradients) == 1:
            return loss + torch.linalg.vector_norm(gradients[0])
        return loss + torch.nn.utils.get_total_norm(gradients)


class LateGuard(Guard):
    """The same where an answer is waited for (a graphics card): it is asked for once an epoch.

    From the first refused step on, the optimizer takes none: a fused Adam leaves out a step where found_inf is 1.

    Args:
        parameters: as for Guard.
        optimizer: Adam, fused.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], optimizer: torch.optim.Optimizer):
        device = parameters[0].device
        self._good_steps, self._is_found, self._is_loss = (torch.zeros((), device=device) for _ in range(3))
        # Adam's step asks for both by name; no class of torch declares them
        optimizer.grad_scale, optimizer.found_inf = None, self._is_found    # type: ignore[attr-defined]
        super().__init__(parameters)

    def begin(self) -> None:
        """Begin an epoch."""
        for value in (self._good_steps, self._is_found, self._is_loss):
            value.zero_()

    def allows(self, loss: torch.Tensor) -> bool:
        """Look at a step's loss and gradients; always true, since the optimizer knows."""
        is_bad = (~torch.isfinite(self._add_up(loss))).float()
        self._is_loss += (1 - self._is_found) * (~torch.isfinite(loss)).float()     # of the first refused step
        torch.maximum(self._is_found, is_bad, out=self._is_found)
        self._good_steps += 1 - self._is_found
        return True


def build_guard(parameters: Sequence[nn.Parameter], optimizer: torch.optim.Optimizer) -> Guard:
    """The guard that suits the device of the parameters."""
    return Guard(parameters) if parameters[0].device.type == "cpu" else LateGuard(parameters, optimizer)


def check_weights(module: nn.Module, epoch: int, weights: Iterable[torch.Tensor] | None = None) -> None:
    """Look at all weights and batch norms' statistics after an epoch.

    Args:
        module: as trained.
        epoch: its number.
        weights: all of the module's weights where they lie in fewer tensors than its own; None: its parameters.

    Raises:
        PipelineError: one is not finite.
    """
    values = [value.detach() for value in (*(module.parameters() if weights is None else weights), *module.buffers())
              if value.is_floating_point()]
    if torch.isfinite(torch.nn.utils.get_total_norm(values)):       # one look at all; it is infinite for huge ones, too
        return
    wrong = [name for name, value in module.state_dict().items() if not torch.isfinite(value).all()]
    if wrong:
        raise PipelineError(
            f"The weights are not finite after epoch {epoch} ({wrong[0]}); the run keeps the epoch before. {_SMALLER}"
        )


def check_losses(losses: dict[str, float], epoch: int) -> None:
    """Look at an epoch's losses: a held-out one can overflow where the weights are still finite.

    Args:
        losses: name -> mean of the epoch.
        epoch: its number.

    Raises:
        PipelineError: one is not finite.
    """
    wrong = [name for name, value in losses.items() if not math.isfinite(value)]
    if wrong:
        raise PipelineError(f"The {wrong[0]} is not finite after epoch {epoch}; the run keeps the epoch before. "
                            f"{_SMALLER}")
