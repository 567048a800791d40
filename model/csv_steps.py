"""Model-CSV's steps: losses and gradients by hand, and an epoch of them.

The steps are so small that autograd's and the optimizer's bookkeeping take longer than the arithmetic. By hand they
need few and large operations: all weights lie in one tensor, so that the optimizer sees one parameter, and a layer's
bias is the last column of its weights, so that one product gives the gradient of both. The results are autograd's, up
to rounding; tests/test_csv_steps.py compares them. B batch, I and O features into and out of a layer.
"""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn import functional

from model.dataset import check_finite
from model.guard import Guard
from processing import columns as c


class CaseBatch(NamedTuple):
    """What a step takes."""

    inputs: torch.Tensor    # B x 16 float32
    targets: tuple[torch.Tensor, torch.Tensor]      # B VA, B classes
    rows: np.ndarray        # indices in the case table


def build_case_batches(cases: pd.DataFrame, features: tuple[str, ...], batch_size: int, device: torch.device
                       ) -> list[CaseBatch]:
    """A case table in fixed batches in its order, the last partial one left out as in 2021.

    A table of fewer rows than a batch makes one batch.

    Args:
        cases: DataFrame with patient ID, `features`, VA and continue injection (0 / 1); 1 row or more.
        features: names of the model's features.
        batch_size: eyes per batch.
        device: torch.device.

    Raises:
        PipelineError: a value is no finite number.
    """
    check_finite(cases, [*features, c.VA, c.CONTINUE], cases[c.PATIENT].tolist())
    inputs = torch.tensor(cases[list(features)].to_numpy(np.float32), device=device)
    va = torch.tensor(cases[c.VA].to_numpy(np.float32), device=device)
    classes = torch.tensor(cases[c.CONTINUE].to_numpy(np.int64), device=device)
    size = min(batch_size, len(cases))
    starts = range(0, len(cases) - size + 1, size)
    return [CaseBatch(inputs[start:start + size], (va[start:start + size], classes[start:start + size]),
                      np.arange(start, start + size)) for start in starts]


def take_steps(backward: "CSVBackward", batches: list[CaseBatch], optimizer: torch.optim.Optimizer, guard: Guard
               ) -> torch.Tensor:
    """A step for each batch; the first that is not finite is the last.

    Returns:
        Sum of the steps' losses, 1 + 2: the total and its parts; all batches are of one size.
    """
    guard.begin()
    kind = torch.float32 if backward.device.type == "mps" else torch.float64        # mps has no float64
    sums = torch.zeros(3, dtype=kind, device=backward.device)
    for batch in batches:
        losses = backward(batch)
        if not guard.allows(losses[0]):
            break
        optimizer.step()
        sums += losses
    return sums


class CSVBackward:
    """Losses and gradients of CSVModule under CSVLoss.

    Activations lie features first (O x B), so that every operand is one stretch of memory; each has one row more, of
    ones, for the bias. Cross entropy over two classes is binary cross entropy of the difference of their scores.

    Args:
        module: CSVModule, on its device. Its weights become views of one tensor.

    Attributes: parameters: what the optimizer is for; their gradients are there after a call. device.
    """

    def __init__(self, module: Any):
        trunk, va, scores = ([layer for layer in part if isinstance(layer, nn.Linear)]
                             for part in (module.layers, module.regression, module.classify))
        # The heads side by side: their first layers see the same features, their last ones a part of them each
        first = [_Part(va[0], 0, 0), _Part(scores[0], va[0].out_features, 0)]
        last = [_Part(va[1], 0, 0), _Part(scores[1], 1, va[0].out_features)]
        blocks = [*([_Part(layer, 0, 0)] for layer in trunk), first, last]
        self._weights, self._gradients, flat = _lay_out(blocks)
        self.parameters, self.device = [flat], flat.device
        self._used = torch.zeros_like(self._weights[-1])        # where the last block has weights
        for part in last:
            part.cut(self._used)[:], self._used[part.rows, -1] = 1, 1
        self._sigmoid = isinstance(module.classify[-1], nn.Sigmoid)
        self._buffers: _Buffers | None = None   # for batches of one size

    @torch.no_grad()
    def __call__(self, batch: CaseBatch) -> torch.Tensor:
        """The total loss and its parts, as one tensor; the gradients are there then."""
        if self._buffers is None or self._buffers.count != len(batch.inputs):
            self._buffers = _Buffers(self._weights, self._gradients, len(batch.inputs))
        self._forward(batch.inputs, self._buffers)
        losses = self._measure(*batch.targets, self._buffers)
        self._backward(self._buffers)
        return losses

    def _forward(self, inputs, buffers):
        buffers.inputs.copy_(inputs.t())
        for weight, before, after in buffers.hidden:
            torch.mm(weight, before, out=after).relu_()
        torch.mm(*buffers.last, out=buffers.outputs)
        if self._sigmoid:
            buffers.scores.sigmoid_()

    def _measure(self, va, classes, buffers):
        """The total loss and its parts, and their slope at the outputs."""
        difference, wanted = buffers.va - va, classes.float()                   # B
        margin = buffers.score_continue - buffers.score_stop                    # B
        squares = difference.dot(difference)
        surprise = functional.softplus(margin).sum() - wanted.dot(margin)       # cross entropy, summed
        torch.mul(difference, 2 / buffers.count, out=buffers.slope_va)
        torch.mul(margin.sigmoid_().sub_(wanted), buffers.signs, out=buffers.slope_scores)
        if self._sigmoid:
            slope = buffers.slope_scores
            torch.ops.aten.sigmoid_backward.grad_input(slope, buffers.scores, grad_input=slope)
        return buffers.means.mv(torch.stack((squares, surprise)))

    def _backward(self, buffers):
        """Write the gradients, given the slope at the outputs."""
        slope = buffers.slope
        for inputs, gradient, weight, before, below in buffers.backward:
            torch.mm(slope, inputs, out=gradient)
            if below is not None:
                torch.mm(weight, slope, out=below)
                slope = torch.ops.aten.threshold_backward.grad_input(below, before, 0, grad_input=below)
        self._gradients[-1].mul_(self._used)


class _Part(NamedTuple):
    """A layer's place in its block."""

    layer: nn.Linear
    row: int
    column: int

    @property
    def rows(self):
        return slice(self.row, self.row + self.layer.out_features)

    def cut(self, block):
        """The layer's weights in its block, without biases."""
        return block[self.rows, self.column:self.column + self.layer.in_features]


class _Buffers:
    """Activations and slopes for batches of `count` eyes, with every view of them that a step takes.

    Attributes:
        inputs: 16 x B.
        hidden: (weights, (I + 1) x B before, O x B after) of each block that ends in ReLU; last: weights and before.
        outputs: 3 x B: va, then scores (2 x B): score_stop, score_continue.
        slope: 3 x B, of the total loss at the outputs: slope_va, then slope_scores.
        signs: 2 x 1: how a score's slope follows from that of their difference. means: 3 x 2: total and parts of sums.
        backward: from the last block down: (B x (I + 1) before, gradient, I x O weights without biases, I x B before,
            I x B for the slope there; None at the inputs).
    """

    def __init__(self, weights, gradients, count):
        self.count, device = count, weights[0].device
        whole = [torch.ones(weight.shape[1], count, device=device) for weight in weights]
        self.inputs, self.last = whole[0][:-1], (weights[-1], whole[-1])
        self.hidden = [(weight, before, after[:-1]) for weight, before, after in zip(weights, whole, whole[1:],
                                                                                     strict=False)]
        self.outputs, self.slope = torch.empty(2, len(weights[-1]), count, device=device)
        self.va, self.score_stop, self.score_continue = self.outputs
        self.scores, self.slope_va, self.slope_scores = self.outputs[1:], self.slope[0], self.slope[1:]
        self.signs = torch.tensor([[-1.0], [1.0]], device=device) / count
        self.means = torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0]], device=device) / count
        self.backward = [
            (values.t(), gradient, weight[:, :-1].t(), values[:-1], torch.empty_like(values[:-1]))
            for values, gradient, weight in zip(whole, gradients, weights, strict=True)
        ][::-1]
        self.backward[-1] = (*self.backward[-1][:4], None)


def _lay_out(blocks):
    """Put Linear layers into one tensor, block by block.

    Args:
        blocks: list of lists of _Part. What no layer of a block covers is 0.

    Returns:
        weights: O x (I + 1) view of each block, biases in the last column.
        gradients: the same of the gradient.
        flat: the parameter that holds all weights, with its gradient.
    """
    shapes = [
        (sum(part.layer.out_features for part in block),
         max(part.column + part.layer.in_features for part in block) + 1)
        for block in blocks
    ]
    sizes = [rows * columns for rows, columns in shapes]
    flat = torch.zeros(sum(sizes), device=blocks[0][0].layer.weight.device)
    gradient = torch.zeros_like(flat)
    weights, gradients = ([part.view(shape) for part, shape in zip(whole.split(sizes), shapes, strict=True)]
                          for whole in (flat, gradient))
    for block, weight in zip(blocks, weights, strict=True):
        for part in block:
            own, bias = part.cut(weight), weight[part.rows, -1]
            own[:], bias[:] = part.layer.weight.data, part.layer.bias.data
            part.layer.weight.data, part.layer.bias.data = own, bias
    parameter = nn.Parameter(flat)
    parameter.grad = gradient
    return weights, gradients, parameter
