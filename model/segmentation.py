"""The network that reads a B-scan: membranes as rows, fluid as probabilities. Reads and writes no file.

Shapes: B scans, H and W pixels, h = H / 2 and w = W / 2 places of an answer, F kinds of fluid. Place i of an answer is
the middle of pixels 2 i and 2 i + 1.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as functional
from torch import nn

FLUIDS = ("IRF", "SRF", "PED", "foci")
WIDTHS = (24, 48, 80, 112, 128)     # channels at 1/4, 1/8, 1/16, 1/32 and 1/64 of the size
DEPTHS = (0, 1, 1, 2, 1)            # residual blocks there: most work where the pixels are few
STEM = 12                           # channels at half the size
LEAST_SPREAD = 0.02                 # of the greys: what is less is noise
MULTIPLE = 2 ** (1 + len(WIDTHS))   # what rows and columns are filled up to
NEAR = 3                            # places beside the most likely row that count for its sub-pixel row
STEPS = 4                           # places that a membrane may climb or fall from one column to the next
STEEPNESS = 0.7                     # log-probability that each of them costs


class Reading(NamedTuple):
    """What the network says of scans, at half their size."""

    membranes: torch.Tensor     # B x 2 x h x w: log-probability of each row, of ILM and BM, in each column
    readable: torch.Tensor      # B x w: logit that a column can be read
    fluids: torch.Tensor        # B x F x h x w: logits


class SegmentationModule(nn.Module):
    """A U-Net whose answers have half the scan's size.

    Args:
        widths: channels, from a quarter of the size downwards, halving at each.
        depths: residual blocks at each.
        fluids: names of what it marks.
    """

    def __init__(self, widths: tuple[int, ...] = WIDTHS, depths: tuple[int, ...] = DEPTHS,
                 fluids: tuple[str, ...] = FLUIDS):
        super().__init__()
        self.widths, self.depths, self.fluids = tuple(widths), tuple(depths), tuple(fluids)
        first = widths[0]
        self.stem = build_layer(1, STEM, size=5, stride=2)
        self.downs = nn.ModuleList(
            nn.Sequential(build_layer(before, after, stride=2), *(Residual(after) for _ in range(depth)))
            for before, after, depth in zip((STEM, *widths), widths, depths, strict=False)
        )
        self.laterals = nn.ModuleList(
            nn.Conv2d(below, here, 1) for here, below in zip(widths, widths[1:], strict=False)
        )
        self.ups = nn.ModuleList(build_layer(here, here) for here in widths[:-1])
        self.detail = nn.Sequential(Unshuffle(), nn.Conv2d(4 * STEM, first, 1))
        self.membranes, self.marks = (
            nn.Sequential(build_layer(first, first), nn.Conv2d(first, 4 * count, 3, padding=1), Shuffle())
            for count in (3, len(fluids))
        )

    def forward(self, images: torch.Tensor) -> Reading:
        """Read scans.

        Args:
            images: B x 1 x H x W float32 in 0-1; even H and W.
        """
        return self.ascend(self.descend(images), images.shape[2] // 2, images.shape[3] // 2)

    def descend(self, images: torch.Tensor) -> list[torch.Tensor]:
        """What is seen of scans at half their size, at a quarter, and so on, each level of more channels; arguments as
        forward's.
        """
        fill = (0, -images.shape[3] % MULTIPLE, 0, -images.shape[2] % MULTIPLE)
        spread, mean = torch.std_mean(images, dim=(1, 2, 3), keepdim=True)     # devices differ in gain and contrast
        levels = [self.stem((functional.pad(images, fill) - mean) / (spread + LEAST_SPREAD))]
        for down in self.downs:
            levels.append(down(levels[-1]))
        return levels

    def ascend(self, levels: list[torch.Tensor], height: int, width: int) -> Reading:
        """Read scans by the levels of `descend`: answers of h rows and w columns."""
        *finer, x = levels
        for up, lateral in zip(reversed(self.ups), reversed(self.laterals), strict=True):
            x = up(functional.interpolate(lateral(x), scale_factor=2.0) + finer.pop())
        x = x + self.detail(finer.pop())
        found, marks = (head(x)[:, :, :height, :width].float() for head in (self.membranes, self.marks))
        membranes = found[:, :2].log_softmax(dim=2)
        where = membranes.detach().exp().sum(dim=1)         # a column can be read if what was found there looks right
        return Reading(membranes, (where * found[:, 2]).sum(dim=1), marks)


class Unshuffle(nn.Module):
    """nn.PixelUnshuffle(2), of an empty batch, too: a process's share of a step may be one."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B x C x h x w -> B x 4 C x h / 2 x w / 2."""
        return x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).permute(0, 1, 3, 5, 2, 4).flatten(1, 3)


class Shuffle(nn.Module):
    """nn.PixelShuffle(2), of an empty batch, too."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B x 4 C x h x w -> B x C x 2 h x 2 w."""
        return x.unflatten(1, (-1, 2, 2)).permute(0, 1, 4, 2, 5, 3).flatten(4, 5).flatten(2, 3)


class Residual(nn.Module):
    """Two convolutions beside which the input goes on."""

    def __init__(self, width: int):
        super().__init__()
        self.layers = nn.Sequential(*build_layer(width, width), nn.Conv2d(width, width, 3, padding=1, bias=False),
                                    nn.BatchNorm2d(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B x C x h x w -> the same shape."""
        return torch.relu(x + self.layers(x))


def build_layer(before: int, after: int, *, size: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution, batch norm, ReLU."""
    convolution = nn.Conv2d(before, after, size, stride, size // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(after), nn.ReLU())


class Rows(NamedTuple):
    """Membranes as rows of the scan, at every other column."""

    rows: torch.Tensor      # B x 2 x w: ILM, BM; sub-pixel rows of the scan
    spread: torch.Tensor    # B x 2 x w: standard deviation of where it may be, rows


def find_rows(membranes: torch.Tensor, steepness: float = STEEPNESS) -> Rows:
    """The most likely course of each membrane, BM never above ILM, and how uncertain it is.

    Args:
        membranes: B x 2 x h x w log-probabilities, as of Reading.
        steepness: log-probability that a step of one place up or down costs.
    """
    places = torch.arange(membranes.shape[2], device=membranes.device).view(1, 1, -1, 1)
    peaks = _trace(membranes.detach().flatten(0, 1), steepness)                            # 2 B x w
    peaks = peaks.unflatten(0, membranes.shape[:2])[:, :, None]                            # B x 2 x 1 x w
    chances = membranes.exp()
    near = chances * ((places - peaks).abs() <= NEAR) + 1e-12 * (places == peaks)
    middle = (near * places).sum(dim=2) / near.sum(dim=2)
    spread = (chances * (places - middle[:, :, None]) ** 2).sum(dim=2).sqrt()
    ilm, bm = (2 * middle + 0.5).unbind(1)
    return Rows(torch.stack([ilm, torch.maximum(ilm, bm)], dim=1), 2 * spread)


def _trace(scores: torch.Tensor, steepness: float) -> torch.Tensor:
    """The course from left to right whose scores, less what its steps cost, add up to most (Viterbi).

    Args:
        scores: N x h x w.

    Returns:
        N x w int64 places.
    """
    steps = torch.arange(-STEPS, STEPS + 1, device=scores.device)
    costs, columns = steps.abs() * steepness, scores.unbind(2)
    best, came_from = columns[0], []
    for column in columns[1:]:
        reached = functional.pad(best, (STEPS, STEPS), value=-torch.inf).unfold(1, len(steps), 1) - costs
        best, step = reached.max(dim=2)
        best = best + column
        came_from.append(step)
    course = [best.argmax(dim=1, keepdim=True)]
    for step in reversed(came_from):
        course.append(course[-1] + steps[step.gather(1, course[-1])])
    return torch.cat(course[::-1], dim=1)
