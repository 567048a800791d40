"""Losses and gradients of a batch: by autograd, or for CSVModule by hand.

Model-CSV's steps are so small that autograd's and the optimizer's bookkeeping take longer than the arithmetic. By
hand they need few and large operations: all weights lie in one tensor, so that the optimizer sees one parameter, and
a layer's bias is the last column of its weights, so that one product gives the gradient of both. The results are
autograd's, up to rounding; tests/test_backward.py compares them. B batch, I and O features into and out of a layer.
"""

import torch
from torch import nn
from torch.nn import functional


class Autograd:
    """Backward of any module and loss.

    Args:
        module: on its device.
        precision: "float32"; or "bf16": the module's convolutions and products compute in bfloat16, weights and losses
            do not.

    Attributes: parameters: what the optimizer is for; their gradients are there after a call.
    """

    def __init__(self, module, precision="float32"):
        self.parameters, self._precision = list(module.parameters()), precision

    def __call__(self, module, loss_function, batch):
        """The total and its parts, as one detached tensor."""
        module.zero_grad()
        total, parts = loss_function(run_forward(module, batch.inputs, self._precision), batch.targets)
        total.backward()
        return torch.stack([total, *parts]).detach()


def run_forward(module, inputs, precision):
    """The module's outputs in float32, computed as Autograd's `precision` says."""
    with torch.autocast(inputs.device.type, torch.bfloat16, enabled=precision == "bf16"):
        outputs = module(inputs)
    return tuple(output.float() for output in outputs)


class CSVBackward:
    """Backward of CSVModule under CSVLoss; used as Autograd.

    Args:
        module: CSVModule, on its device. Its weights become views of one tensor.
    """

    def __init__(self, module):
        trunk, va, scores = ([layer for layer in part if isinstance(layer, nn.Linear)]
                             for part in (module.layers, module.regression, module.classify))
        # The first layers of both heads see the same features: one product
        blocks = [*([layer] for layer in trunk), [va[0], scores[0]], [va[1]], [scores[1]]]
        self._weights, self._gradients, flat = _lay_out(blocks)
        self.parameters = [flat]
        self._sigmoid = isinstance(module.classify[-1], nn.Sigmoid)
        self._hidden = len(trunk) + 1           # layers that end in ReLU, the heads' first ones included
        self._split = va[0].out_features        # of those, the columns that the head of VA goes on from
        self._outputs = {}                      # B -> what _new_outputs gives

    @torch.no_grad()
    def __call__(self, module, _loss_function, batch):
        """The total and its parts, as one detached tensor."""
        va, classes = batch.targets
        count = len(va)
        if count not in self._outputs:
            self._outputs = {count: self._new_outputs(count)}
        outputs, to_va, to_scores = self._outputs[count]
        self._forward(batch.inputs, outputs)
        last = outputs[-1][:, :-1]
        to_va[:, :-1], to_scores[:, :-1] = last[:, :self._split], last[:, self._split:]
        difference = to_va.mm(self._weights[-2].t())[:, 0] - va                 # B
        scores = to_scores.mm(self._weights[-1].t())                            # B x 2
        scores = scores.sigmoid_() if self._sigmoid else scores
        logs = functional.log_softmax(scores, dim=1)
        losses = difference.square().mean(), functional.nll_loss(logs, classes)
        slope_va = difference[:, None].mul_(2 / count)                          # of the total, at each output
        slope_scores = logs.exp_().scatter_add_(1, classes[:, None], torch.full_like(slope_va, -1)).div_(count)
        if self._sigmoid:
            slope_scores *= scores * (1 - scores)
        torch.mm(slope_va.t(), to_va, out=self._gradients[-2])
        torch.mm(slope_scores.t(), to_scores, out=self._gradients[-1])
        slope = [slope_va.mm(self._weights[-2][:, :-1]), slope_scores.mm(self._weights[-1][:, :-1])]
        self._backward(torch.cat(slope, dim=1), outputs)
        return torch.stack([losses[0] + losses[1], *losses])

    def _new_outputs(self, count):
        """B x (O + 1) of the input and each hidden layer, and of the two parts of the last; the last column is 1."""
        device = self.parameters[0].device
        widths = [self._weights[0].shape[1] - 1, *(weight.shape[0] for weight in self._weights[:self._hidden])]
        heads = [weight.shape[1] - 1 for weight in self._weights[self._hidden:]]
        ones = [torch.ones(count, width + 1, device=device) for width in [*widths, *heads]]
        return ones[:-2], *ones[-2:]

    def _forward(self, inputs, outputs):
        outputs[0][:, :-1] = inputs
        for weight, before, after in zip(self._weights, outputs, outputs[1:], strict=False):
            torch.mm(before, weight.t(), out=after[:, :-1])
            after[:, :-1].relu_()

    def _backward(self, slope, outputs):
        """Write the hidden layers' gradients, given the loss's slope at the last of them."""
        for number in reversed(range(self._hidden)):
            slope = torch.ops.aten.threshold_backward(slope, outputs[number + 1][:, :-1], 0)
            torch.mm(slope.t(), outputs[number], out=self._gradients[number])
            if number:
                slope = slope.mm(self._weights[number][:, :-1])


def _lay_out(blocks):
    """Put Linear layers into one tensor, block by block; layers of a block lie below one another.

    Args:
        blocks: list of lists of nn.Linear; those of one list have the same input.

    Returns:
        weights: O x (I + 1) view of each block, biases in the last column.
        gradients: the same of the gradient.
        flat: the parameter that holds all weights, with its gradient.
    """
    shapes = [(sum(layer.out_features for layer in block), block[0].in_features + 1) for block in blocks]
    sizes = [rows * columns for rows, columns in shapes]
    flat = torch.zeros(sum(sizes), device=blocks[0][0].weight.device)
    gradient = torch.zeros_like(flat)
    weights, gradients = ([part.view(shape) for part, shape in zip(whole.split(sizes), shapes, strict=True)]
                          for whole in (flat, gradient))
    for block, weight in zip(blocks, weights, strict=True):
        parts = weight.split([layer.out_features for layer in block])
        for layer, part in zip(block, parts, strict=True):
            part[:, :-1], part[:, -1] = layer.weight.data, layer.bias.data
            layer.weight.data, layer.bias.data = part[:, :-1], part[:, -1]
    parameter = nn.Parameter(flat)
    parameter.grad = gradient
    return weights, gradients, parameter
