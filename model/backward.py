"""Gradients of CSVModule without autograd.

Its steps are so small that autograd's bookkeeping takes longer than the arithmetic. Same losses and gradients, to
the last bits; tests/test_backward.py compares them. B batch, F features.
"""

import torch
from torch import nn
from torch.nn import functional


class CSVBackward:
    """Function of module, loss_function and batch, as model.loop.train_epoch wants it, for a CSVModule and CSVLoss.

    Args:
        module: CSVModule, on its device; gradients are kept in the same memory from step to step.
    """

    def __init__(self, module):
        for parameter in module.parameters():
            parameter.grad = torch.zeros_like(parameter)

    @torch.no_grad()
    def __call__(self, module, _loss_function, batch):
        true_va, true_class = batch.targets
        trunk = _forward(module.layers, batch.inputs)
        va = _forward(module.regression, trunk[-1])
        scores = _forward(module.classify, trunk[-1])
        difference = va[-1][:, 0] - true_va                                     # B
        logs = functional.log_softmax(scores[-1], dim=1)                        # B x 2
        regression, classification = difference.square().mean(), functional.nll_loss(logs, true_class)
        count = len(difference)
        slope_va = difference[:, None] * (2 / count)                            # B x 1
        slope_scores = (logs.exp() - functional.one_hot(true_class, 2)) / count
        slope = _backward(module.regression, va, slope_va) + _backward(module.classify, scores, slope_scores)
        _backward(module.layers, trunk, slope)
        return torch.stack([regression + classification, regression, classification])


def _forward(layers, x):
    """The input and every layer's output: list of B x F tensors."""
    outputs = [x]
    for layer in layers:
        x = torch.addmm(layer.bias, x, layer.weight.t()) if isinstance(layer, nn.Linear) else layer(x)
        outputs.append(x)
    return outputs


def _backward(layers, outputs, slope):
    """Write the gradients of Linear, ReLU and Sigmoid layers; returns the loss's slope at their input.

    Args:
        layers: nn.Sequential.
        outputs: as _forward gives.
        slope: of the loss at the last output, B x F.
    """
    for number in reversed(range(len(layers))):
        layer, before, after = layers[number], outputs[number], outputs[number + 1]
        if isinstance(layer, nn.Linear):
            torch.mm(slope.t(), before, out=layer.weight.grad)
            torch.sum(slope, dim=0, out=layer.bias.grad)
            slope = slope.mm(layer.weight)
        elif isinstance(layer, nn.ReLU):
            slope = torch.ops.aten.threshold_backward(slope, after, 0)
        else:                                                                   # Sigmoid
            slope = slope * after * (1 - after)
    return slope
