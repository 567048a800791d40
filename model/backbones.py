"""What turns a view's pixels into features, by name. Reads and writes nothing.

A backbone is a function of a config.View that gives a network and how many features it leaves of an image of that
size. A new one: write a function `build_<name>` here, and a recipe in model_config.py that says backbone="<name>".

B batch, C channels, H and W pixels.
"""

from collections.abc import Callable
from math import ceil

import torch
from torch import nn

from config import View

# Channels in, channels out, stride of the nine blocks of the 2021 system
BLOCKS = [
    (3, 8, 1), (8, 8, 2), (8, 8, 2), (8, 16, 2), (16, 16, 2), (16, 32, 2), (32, 32, 2), (32, 64, 2), (64, 64, 2),
]


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

    def __init__(self, in_channels: int, out_channels: int, *, kernel_size: int = 3, stride: int = 1):
        super().__init__()
        self.layers = nn.Sequential(
            Conv2d(in_channels, out_channels, kernel_size, stride, padding=(kernel_size - 1) // 2),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


class ResidualBlock(nn.Module):
    """Two convolutions with batch norm beside a shortcut; ReLU after the first and after the sum.

    Input is padded by dilation * (kernel_size - 1) in all, so that both branches give
    B x C_out x ceil(H/stride) x ceil(W/stride) for any kernel size, stride and dilation.
    """

    def __init__(self, in_channels: int, out_channels: int, *, kernel_size: int = 3, stride: int = 1,
                 dilation: int = 1):
        super().__init__()
        total = dilation * (kernel_size - 1)
        padding = (total // 2, total - total // 2) * 2      # left, right, top, bottom
        self.layers = nn.Sequential(
            nn.ZeroPad2d(padding),
            Conv2d(in_channels, out_channels, kernel_size, stride, dilation=dilation),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
            nn.ZeroPad2d(padding),
            nn.Conv2d(out_channels, out_channels, kernel_size, dilation=dilation),
            nn.BatchNorm2d(out_channels),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                Conv2d(in_channels, out_channels, 1, stride), nn.BatchNorm2d(out_channels)
            )
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.activation(self.layers(x) + self.shortcut(x))


def build_plain(view: View) -> tuple[nn.Sequential, int]:
    """The 2021 system's nine blocks: 64 x 2 x 3 = 384 features of 400 x 650 pixels."""
    return nn.Sequential(*(BasicConv2d(c_in, c_out, stride=stride) for c_in, c_out, stride in BLOCKS)), _count(view)


def build_residual(view: View) -> tuple[nn.Sequential, int]:
    """The same widths and strides in residual blocks."""
    return nn.Sequential(*(ResidualBlock(c_in, c_out, stride=stride) for c_in, c_out, stride in BLOCKS)), _count(view)


def _count(view: View) -> int:
    """How many features the nine blocks leave of a view."""
    height, width = view.height, view.width
    for _, _, stride in BLOCKS:
        height, width = ceil(height / stride), ceil(width / stride)
    return BLOCKS[-1][1] * height * width


def find_backbone(name: str) -> Callable[[View], tuple[nn.Sequential, int]]:
    """The function `build_<name>` of this module.

    Raises:
        KeyError: there is none.
    """
    return globals()[f"build_{name}"]
