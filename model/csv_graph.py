"""Model-CSV's epoch as one CUDA graph: the same batches in every epoch, and no Python between the steps."""

from typing import Any

import torch

from model.csv_steps import CaseBatch, CSVBackward, take_steps
from model.guard import Guard
from processing.terminal import say

WARM_UPS = 3            # epochs, before the graph is recorded


class GraphedSteps:
    """As model.csv_steps.take_steps, recorded once and replayed.

    Where the graph cannot be made, the steps are taken one by one, which is said.

    Args:
        backward: CSVBackward of a module on a graphics card.
        batches: of every epoch.
        optimizer: of the parameters of `backward`.
        guard: LateGuard of the same.
    """

    def __init__(self, backward: CSVBackward, batches: list[CaseBatch], optimizer: torch.optim.Optimizer,
                 guard: Guard):
        self._backward, self._batches, self._optimizer, self._guard = backward, batches, optimizer, guard
        self._graph: torch.cuda.CUDAGraph | None = None
        self._is_possible = True

    def take(self) -> torch.Tensor:
        """An epoch's steps; returns what take_steps does."""
        if self._graph is None and self._is_possible:
            before = self._copy_state()
            try:
                self._capture(before)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                self._is_possible = False
                self._restore_state(before)
                say(f"The steps cannot be made one CUDA graph ({str(error).splitlines()[0]}); they are taken one by "
                    "one: slower, with the same results.")
        if self._graph is None:
            return self._take_plainly()
        self._graph.replay()
        return self._sums

    def _take_plainly(self) -> torch.Tensor:
        return take_steps(self._backward, self._batches, self._optimizer, self._guard)

    def _capture(self, before: list[Any]) -> None:
        """Record the steps, after a few taken for the libraries to settle, which are taken back."""
        for group in self._optimizer.param_groups:
            group["capturable"] = True
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                self._take_plainly()
        torch.cuda.current_stream().wait_stream(stream)
        self._restore_state(before)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._sums = self._take_plainly()
        self._graph = graph

    def _copy_state(self) -> list[Any]:
        """Copies of the weights and of Adam's state, by parameter."""
        return [
            (parameter.detach().clone(),
             {name: value.clone() for name, value in self._optimizer.state.get(parameter, {}).items()})
            for parameter in self._backward.parameters
        ]

    @torch.no_grad()
    def _restore_state(self, before: list[Any]) -> None:
        """Give both their values again, in place; what Adam had not yet is 0."""
        for parameter, (weights, adam) in zip(self._backward.parameters, before, strict=True):
            parameter.copy_(weights)
            for name, value in self._optimizer.state.get(parameter, {}).items():
                value.copy_(adam[name]) if name in adam else value.zero_()
