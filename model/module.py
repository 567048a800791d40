"""The networks.

Shapes: B batch, C channels, H and W pixels, F features, K classes.
State names and layer order are those of the 2021 system, so that its published checkpoints load.
"""

import copy
from math import ceil

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from model_config import CSV_RECIPES, IMAGE_RECIPES
from processing import columns as c

# Channels in, channels out, stride of the nine blocks
BLOCKS = [
    (3, 8, 1), (8, 8, 2), (8, 8, 2), (8, 16, 2), (16, 16, 2), (16, 32, 2), (32, 32, 2), (32, 64, 2), (64, 64, 2),
]
CROP_SIZE = (400, 650)      # H, W of the 2021 system's crops


class Conv2d(nn.Conv2d):
    """A convolution to which an image of one channel stands for one of in_channels equal channels.

    Its weights are added up over the channels first: the same result, up to rounding, for a third of the work.
    """

    def _conv_forward(self, input, weight, bias):
        if input.shape[1] == 1:
            weight = weight.sum(1, keepdim=True)
        return super()._conv_forward(input, weight, bias)


class BasicConv2d(nn.Module):
    """Convolution with bias, batch norm, ReLU. B x C_in x H x W -> B x C_out x ceil(H/stride) x ceil(W/stride)."""

    def __init__(self, in_channels, out_channels, *, kernel_size=3, stride=1):
        super().__init__()
        self.layers = nn.Sequential(
            Conv2d(in_channels, out_channels, kernel_size, stride, padding=(kernel_size - 1) // 2),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )

    def forward(self, x):
        return self.layers(x)


class ResidualBlock(nn.Module):
    """Two convolutions with batch norm beside a shortcut; ReLU after the first and after the sum.

    Input is padded by dilation * (kernel_size - 1) in all, so that both branches give
    B x C_out x ceil(H/stride) x ceil(W/stride) for any kernel size, stride and dilation.
    """

    def __init__(self, in_channels, out_channels, *, kernel_size=3, stride=1, dilation=1):
        super().__init__()
        padding = _same_padding(kernel_size, dilation)
        self.layers = nn.Sequential(
            nn.ZeroPad2d(padding),
            Conv2d(in_channels, out_channels, kernel_size, stride, dilation=dilation),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
            nn.ZeroPad2d(padding),
            nn.Conv2d(out_channels, out_channels, kernel_size, dilation=dilation),
            nn.BatchNorm2d(out_channels),
        )
        self.shortcut = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                Conv2d(in_channels, out_channels, 1, stride), nn.BatchNorm2d(out_channels)
            )
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x):
        return self.activation(self.layers(x) + self.shortcut(x))


class ImageModule(nn.Module):
    """B-scan crop -> CST and four findings.

    Args:
        recipe: a key of model_config.IMAGE_RECIPES.
        crop_size: H, W of the crops in pixels; the first layer of the heads depends on it.
    """

    def __init__(self, recipe="seed", crop_size=CROP_SIZE):
        super().__init__()
        self.recipe, self.crop_size = recipe, tuple(crop_size)
        block = {"plain": BasicConv2d, "residual": ResidualBlock}[IMAGE_RECIPES[recipe].backbone]
        self.layers = nn.Sequential(*(block(c_in, c_out, stride=stride) for c_in, c_out, stride in BLOCKS))
        features = _flat_features(self.crop_size)
        self.regression = nn.Sequential(nn.Flatten(), *_head(features, features // 2, features // 4, 1))
        self.classify = nn.Sequential(nn.Flatten(), *_head(features, features // 2, features // 4, len(c.FINDINGS)))
        if IMAGE_RECIPES[recipe].heads == "sigmoid":
            self.classify.append(nn.Sigmoid())

    def forward(self, x):
        """B x C x H x W float32 in 0-1, C 3, or 1 for three equal channels -> CST and findings.

        Returns:
            B CST in hundreds of um, and B x 4 findings as the recipe's heads give.
        """
        features = self.layers(x)                   # B x 64 x H/256 x W/256, rounded up
        return self.regression(features)[:, 0], self.classify(features)

    def probabilities(self, findings):
        """The heads' B x 4 findings as probabilities, 0-1."""
        return findings if IMAGE_RECIPES[self.recipe].heads == "sigmoid" else torch.sigmoid(findings)


class CSVModule(nn.Module):
    """16 features of an eye (CSV_FEATURES, in their units) -> VA and continue injection.

    Args:
        recipe: a key of model_config.CSV_RECIPES.
    """

    def __init__(self, recipe="seed"):
        super().__init__()
        self.recipe = recipe
        self.layers = nn.Sequential(*_head(len(c.CSV_FEATURES), 32, 64, 128, 32, 8), nn.ReLU())
        self.regression = nn.Sequential(*_head(8, 4, 1))
        self.classify = nn.Sequential(*_head(8, 4, 2))
        if CSV_RECIPES[recipe].heads == "sigmoid":
            self.classify.append(nn.Sigmoid())

    def forward(self, x):
        """B x 16 float32 -> (B VA, B x 2 scores of stop and continue)."""
        features = self.layers(x)                   # B x 8
        return self.regression(features)[:, 0], self.classify(features)

    def probabilities(self, scores):
        """B x 2 scores -> B probabilities of continue injection, 0-1: the softmax that CSVLoss trains."""
        return torch.softmax(scores, dim=1)[:, 1]


def fold_batch_norm(module):
    """A copy for prediction: each batch norm becomes part of the convolution before it."""
    folded = copy.deepcopy(module).eval()
    for part in [part for part in folded.modules() if isinstance(part, nn.Sequential)]:
        for number in range(1, len(part)):
            if isinstance(part[number], nn.BatchNorm2d):
                part[number - 1] = fuse_conv_bn_eval(part[number - 1], part[number])
                part[number] = nn.Identity()
    return folded


def _head(*widths):
    """Linear layers of these widths with ReLU between them."""
    layers = []
    for before, after in zip(widths, widths[1:], strict=False):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return layers[:-1]


def _same_padding(kernel_size, dilation):
    total = dilation * (kernel_size - 1)
    return (total // 2, total - total // 2) * 2     # left, right, top, bottom


def _flat_features(crop_size):
    """How many features the blocks leave of a crop: 64 x 2 x 3 = 384 of 400 x 650."""
    height, width = crop_size
    for _, _, stride in BLOCKS:
        height, width = ceil(height / stride), ceil(width / stride)
    return BLOCKS[-1][1] * height * width
