"""A picture of a network, drawn from its modules as a forward pass goes through them.

Writes PNG files, whole or not at all. docs/ImageModule.png and docs/CSVModule.png are draw_network's of the networks of
the 2021 system: build_portable_images(ImageModule()) and build_portable_eyes(CSVModule(), {}).
"""

import math
import textwrap
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Polygon
from torch import nn

from model.portable import Port, Portable
from processing.plots import save_figure

# Okabe and Ito's palette. Fill and edge of what a box stands for
INPUT, MAP = ("#DDDDDD", "#555555"), ("#9BD3F2", "#0072B2")
VECTOR, POOL = ("#F5CF7A", "#9A6A00"), ("#8FD6BE", "#00795A")
# Inches: of the picture, of the highest boxes, and of a map's box for each root of a channel
WIDTH, MARGIN, MAP_HEIGHT, VECTOR_HEIGHT, CHANNEL_WIDTH, VECTOR_WIDTH = 14.0, 0.3, 1.9, 1.2, 0.09, 0.2
SLANT = 0.2             # of the width of a map, that is seen to the right and upwards
TITLE_HEIGHT, LABELS_HEIGHT, HEAD_HEIGHT = 0.7, 1.35, 1.95
INPUT_TEXT_WIDTH = 2.9      # for the features' names


class Part(NamedTuple):
    """A part of the network and what it gives for one image or eye."""

    name: str
    shape: tuple[int, ...]      # channels, height, width; or features
    parameters: int
    stride: int | None = None   # of maps


class Spot(NamedTuple):
    """Where a box is: its left and right edge, and its middle's height."""

    left: float
    right: float
    y: float


def draw_network(path: Path, portable: Portable, title: str) -> None:
    """Draw a network: a band for each trunk, and below them one for what leads to each output.

    Args:
        path: the PNG to write.
        portable: of a model, on the CPU.
        title: of the picture.
    """
    shapes = record_shapes(portable)
    trunks = {name: list_parts(trunk, shapes) for name, trunk in portable.trunks.items()}
    heads = {name: list_parts(head, shapes) for name, head in portable.heads.items()}
    bands = [LABELS_HEIGHT + (MAP_HEIGHT * 1.25 if parts[0].stride else VECTOR_HEIGHT * 1.1)
             for parts in trunks.values()]
    height = TITLE_HEIGHT + sum(bands) + HEAD_HEIGHT * len(heads) + MARGIN
    figure = Figure(figsize=(WIDTH, height))
    axis = figure.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(0, height))
    axis.set_axis_off()
    axis.text(MARGIN, height - 0.2, f"{title}: {_count(portable.module):,} parameters", fontsize=20, weight="bold",
              va="top")
    top, ends = height - TITLE_HEIGHT, []
    for port, band in zip(portable.inputs, bands, strict=False):
        ends.append(_draw_trunk(axis, port, trunks[port.name], (top, top - band)))
        top -= band
    features = sum(math.prod(parts[-1].shape) for parts in trunks.values())
    if all(parts[0].stride for parts in heads.values()):        # the heads answer for each place
        shape, features = next(iter(trunks.values()))[-1].shape, int(max(map(int, portable.inputs[0].axes[2:])))
    else:
        shape = (features,)
    start = alone = _draw_features(axis, Part("features", shape, 0), features, ends, top)
    if portable.pool is not None:
        pool = Part(type(portable.pool).__name__, (features,), _count(portable.pool))
        start = _draw_pool(axis, pool, start)
    for number, (name, parts) in enumerate(heads.items()):
        outputs = [port for port in portable.outputs if port.name == name or port.name.endswith("_" + name)]
        first = _draw_head(axis, parts, outputs, (start, top - HEAD_HEIGHT * (number + 0.45), features))
        if len(outputs) > 1:
            _draw_way_past(axis, alone, first)
    save_figure(figure, path)


def record_shapes(portable: Portable) -> dict[nn.Module, tuple[int, ...]]:
    """What each module gives for one image, eye or visit, found by a forward pass: module -> shape."""
    shapes: dict[nn.Module, tuple[int, ...]] = {}

    def record(module: nn.Module, _inputs: tuple, output: torch.Tensor | tuple) -> None:
        if isinstance(output, torch.Tensor):
            shapes[module] = tuple(output.shape[1:])

    hooks = [module.register_forward_hook(record) for module in portable.module.modules()]
    try:
        with torch.inference_mode():
            portable.module.eval()(*portable.example)
    finally:
        for hook in hooks:
            hook.remove()
    return shapes


def list_parts(layers: nn.Module, shapes: dict[nn.Module, tuple[int, ...]]) -> list[Part]:
    """The parts that have parameters; what has none (ReLU, Sigmoid) goes without saying.

    Args:
        layers: the modules, one after the other.
        shapes: of record_shapes.
    """
    parts = []
    for module in layers.children():
        if _count(module):
            strides = [own.stride[0] for own in module.modules() if isinstance(own, nn.Conv2d)]
            parts.append(Part(type(module).__name__, shapes[module], _count(module), max(strides, default=None)))
    return parts


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


# ---- What stands where

def _draw_trunk(axis: Axes, port: Port, parts: list[Part], band: tuple[float, float]) -> Spot:
    """An input and the layers that it goes through, in a band from its top to its bottom."""
    top, bottom = band
    has_maps = parts[0].stride is not None
    total = sum(part.parameters for part in parts)
    axis.text(MARGIN, top - 0.05, f"{port.name}: {len(parts)} × {parts[0].name}, {total:,} parameters", fontsize=14,
              va="top")
    shown = [Part("input", tuple(map(int, port.axes[1:])), 0), *parts]
    largest = max(max(part.shape[1:] or part.shape) for part in shown)
    left = MARGIN + (0.4 if has_maps else INPUT_TEXT_WIDTH)
    pitch = min((WIDTH - left - MARGIN) / len(shown), 1.8)
    y = bottom + LABELS_HEIGHT - 0.35 + (MAP_HEIGHT if has_maps else VECTOR_HEIGHT) / 2
    if not has_maps:
        names = textwrap.fill(port.meaning.split(": ")[-1].split(";")[0], 28,
                              break_on_hyphens=False)
        axis.text(MARGIN, y, names, fontsize=12, va="center", linespacing=1.4)
    colors = [INPUT] + [MAP if has_maps else VECTOR] * len(parts)
    size = 11.5 * min(1.0, pitch / 1.25)
    spots = [_draw_box(axis, part, (left + number * pitch, y), largest=largest, colors=colors[number], size=size)
             for number, part in enumerate(shown)]
    for before, here in pairwise(spots):
        _draw_arrow(axis, (before.right, y), (here.left, y))
    return spots[-1]


def _draw_features(axis: Axes, part: Part, largest: int, ends: list[Spot], top: float) -> Spot:
    """The trunks' features side by side, with lines to them from where the trunks end."""
    y = top - HEAD_HEIGHT * 0.95
    here = _draw_box(axis, part, (MARGIN + 0.9, y), largest=largest, colors=MAP if len(part.shape) > 1 else VECTOR)
    turn, middle = top - 0.1, (here.left + here.right) / 2
    for end in ends:
        axis.plot([end.right + 0.05, WIDTH - 0.2, WIDTH - 0.2, middle], [end.y, end.y, turn, turn], color="0.3",
                  linewidth=1.3)
    _draw_arrow(axis, (middle, turn), (middle, y + VECTOR_HEIGHT / 2))
    return here


def _draw_pool(axis: Axes, part: Part, before: Spot) -> Spot:
    """What makes one answer of a visit's images."""
    here = _draw_box(axis, part, (before.right + 1.9, before.y), largest=part.shape[0], colors=POOL)
    axis.text((before.right + here.left) / 2, before.y + 0.1, f"{part.name}:\na visit's images\nbecome one",
              fontsize=12, ha="center", va="bottom")
    _draw_arrow(axis, (before.right, before.y), (here.left, before.y))
    return here


def _draw_way_past(axis: Axes, features: Spot, head: Spot) -> None:
    """The way of each image alone, below what pools, to a head that is asked for both."""
    corners = [(features.right + 0.05, features.y - 0.35), (features.right + 0.55, features.y - 0.35),
               (features.right + 0.55, head.y - 0.35), (head.left - 0.3, head.y - 0.35)]
    axis.plot(*zip(*corners, strict=True), color="0.3", linewidth=1.3, linestyle="--")
    _draw_arrow(axis, corners[-1], (head.left, head.y - 0.35))
    axis.text(features.right + 0.65, head.y - 0.42, "each image alone", fontsize=12, va="top")


def _draw_head(axis: Axes, parts: list[Part], outputs: list[Port], place: tuple[Spot, float, int]) -> Spot:
    """Linear layers and what they lead to; returns where the first is.

    `place`: where they begin, their height, and the largest width.
    """
    before, y, largest = place
    start, spots = (before.right, before.y), []
    for number, part in enumerate(parts):
        here = _draw_box(axis, part, (before.right + 1.6 + 1.5 * number, y), largest=largest, colors=VECTOR)
        _draw_arrow(axis, start, (here.left, y))
        start = (here.right, y)
        spots.append(here)
    x = here.right + 0.7
    _draw_arrow(axis, start, (x - 0.1, y))
    lines = [(port.name, textwrap.wrap(port.meaning, max(24, round((WIDTH - x - MARGIN) * 9.5)))) for port in outputs]
    line_y = y + 0.115 * (sum(1 + len(text) for _, text in lines) - 1)
    for name, text in lines:
        axis.text(x, line_y, name, fontsize=13, weight="bold", va="center")
        for number, line in enumerate(text, start=1):
            axis.text(x, line_y - 0.22 * number, line, fontsize=11.5, va="center")
        line_y -= 0.22 * (1 + len(text)) + 0.04
    return spots[0]


# ---- A box, an arrow

def _draw_box(axis: Axes, part: Part, place: tuple[float, float], *, largest: int, colors: tuple[str, str],
              size: float = 11.5) -> Spot:
    """A map as a block as thick as it has channels, a vector as a bar; sides are as roots of what they stand for."""
    (x, y), (fill, edge) = place, colors
    channels, *sides = part.shape
    if sides:
        half, high = CHANNEL_WIDTH * math.sqrt(channels) / 2, MAP_HEIGHT * math.sqrt(sides[0] / largest) / 2
        deep = SLANT * MAP_HEIGHT * math.sqrt(sides[1] / largest)
    else:
        half, high, deep = VECTOR_WIDTH / 2, VECTOR_HEIGHT * math.sqrt(channels / largest) / 2, 0.0
    left, right, low, up = x - half, x + half, y - high, y + high
    style: dict[str, Any] = {"edgecolor": edge, "linewidth": 1.3}
    axis.add_patch(Polygon([(left, low), (right, low), (right, up), (left, up)], facecolor=fill, **style))
    if deep:
        axis.add_patch(Polygon([(left, up), (right, up), (right + deep, up + deep), (left + deep, up + deep)],
                               facecolor="white", **style))
        axis.add_patch(Polygon([(right, low), (right, up), (right + deep, up + deep), (right + deep, low + deep)],
                               facecolor=edge, alpha=0.6, **style))
    lines = [" × ".join(map(str, part.shape))]
    lines += [f"stride {part.stride}"] if part.stride else []
    lines += [f"{part.parameters:,} par."] if part.parameters else [part.name]
    axis.text(x + deep / 2, low - 0.08, "\n".join(lines), fontsize=size, ha="center", va="top", linespacing=1.25)
    return Spot(left, right + deep, y)


def _draw_arrow(axis: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    axis.annotate("", xy=end, xytext=start,
                  arrowprops={"arrowstyle": "-|>", "color": "0.3", "linewidth": 1.3, "shrinkA": 3, "shrinkB": 3})
