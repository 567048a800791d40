"""Every picture. Draws what it is given and computes nothing of it; needs no display.

Writes PNG files, whole or not at all.
"""

import functools
import textwrap
from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib import font_manager
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator, NullFormatter, ScalarFormatter

from config import View
from processing.files import replace_file
from processing.images import cut_view, decode_pixels, read_image
from processing.tables import read_history

matplotlib.rcdefaults()     # a matplotlibrc of the user's is for the user's own pictures
matplotlib.rcParams["text.parse_math"] = False      # a $ in the name of a file or a run is a $
# Fonts that have Chinese signs, as systems bring them; matplotlib's own, which is the first, has none
CHINESE_FONTS = ("Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "Microsoft YaHei", "SimHei", "PingFang SC",
                 "Hiragino Sans GB", "Heiti SC", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Noto Sans CJK JP",
                 "Droid Sans Fallback", "SimSun", "Arial Unicode MS")
matplotlib.rcParams["font.family"] = ["DejaVu Sans", *(
    name for name in CHINESE_FONTS if name in {font.name for font in font_manager.fontManager.ttflist})]
LONGEST_LINE, LONGEST_LABEL = 100, 48       # signs; longer texts are wrapped

# Okabe and Ito's palette, told apart by colour-blind readers
ORANGE, BLUE, BOX = "#D55E00", "#0072B2", "#E69F00"
VIEW_COLORS = (BOX, "#56B4E9", "#009E73", "#CC79A7")
COLORS = (BLUE, ORANGE, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")      # of one run after the other
PART_COLORS = ("#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999", "#8C510A")
PART_LABELS = {"loss findings": "findings (counts twice)"}
TOWERS = 10         # times the median loss: a loss beyond it would press the rest of a curve flat
DPI = 100
DOT_AREA = 16       # square points, of one eye

# A panel of draw_agreement
Agreement = tuple[str, str, np.ndarray, np.ndarray, np.ndarray, Callable[[np.ndarray], np.ndarray]]


def draw_crop_preview(path: Path, sources: list[tuple[str, Path]], views: dict[str, View]) -> None:
    """Draw a few screens with the box of every view on them, each beside the crops that option 0 makes of it.

    Args:
        path: the PNG to write.
        sources: list of (title, path of a source image).
        views: name -> View; a box on a screen and the frame of its crop share a colour.
    """
    widths = [1264, *(view.width / view.height * 496 for view in views.values())]       # px, as high as the scan
    figure = Figure(figsize=(sum(widths) / 135, 4.7 * len(sources)), layout="constrained")
    axes = figure.subplots(len(sources), len(widths), squeeze=False, width_ratios=widths)
    for (left, *others), (title, source) in zip(axes, sources, strict=True):
        screen = read_image(source)
        _show_image(left, screen[..., ::-1], title)
        left.set_facecolor("0.85")      # beyond the screen, where a crop is black
        left.set_xlim(0, max(screen.shape[1], *(view.right for view in views.values())) - 0.5)
        left.set_ylim(max(screen.shape[0], *(view.bottom for view in views.values())) - 0.5, 0)
        for axis, (name, view), color in zip(others, views.items(), cycle(VIEW_COLORS), strict=False):
            left.add_patch(Rectangle((view.left, view.top), view.width, view.height, fill=False, edgecolor=color,
                                     linewidth=2.5))
            left.text(view.left + 8, view.bottom - 10, name, backgroundcolor=color, fontsize=11)
            crop = decode_pixels(cut_view(screen, view)[0], view.channels).transpose(1, 2, 0)
            _show_image(axis, np.broadcast_to(crop, (*crop.shape[:2], 3)),
                        f"{name}, {'grey' if view.channels == 1 else 'in colour'}:\n"
                        f"rows {view.top}-{view.bottom - 1}, columns {view.left}-{view.right - 1}")
            for side in axis.spines.values():
                side.set(edgecolor=color, linewidth=2.5)
    save_figure(figure, path)


def _show_image(axis, image, title):
    """An image, H x W x 3, red first, with its pixels counted along the axes."""
    axis.imshow(image)
    axis.set_title(title, loc="left", fontsize=11)
    axis.set(xlabel="column (pixels)", ylabel="row (pixels)")


def plot_log(history: Path, path: Path) -> None:
    """Draw the loss curves of a run from its history.csv.

    Args:
        history: path of history.csv, one row per epoch: `epoch`, `loss`, and its parts `loss ...`.
        path: the PNG to write.
    """
    table = read_history(history)
    parts = [name for name in table.columns if name.startswith("loss ")]
    unseen = table.get("held-out loss")
    figure = Figure(figsize=(10.5, 5.5), layout="constrained")
    axis = figure.subplots()
    marker = "o" if len(table) <= 60 else None
    axis.plot(table["epoch"], table["loss"], color=ORANGE, marker=marker, markersize=4, label="training loss")
    for name, color, style in zip(parts, cycle(PART_COLORS), cycle(("--", ":")), strict=False):
        label = PART_LABELS.get(name, name.removeprefix("loss "))
        axis.plot(
            table["epoch"], table[name], color=color, linestyle=style, marker=marker, markersize=2, linewidth=1.2,
            label=label,
        )
    if unseen is not None and unseen.notna().any():
        axis.plot(table["epoch"], unseen, color=BLUE, marker=marker, markersize=4, label="held-out loss")
        best = unseen.idxmin()
        axis.plot(table["epoch"][best], unseen[best], color=BLUE, marker="*", markersize=13, linestyle="none",
                  label=f"best epoch: {table['epoch'][best]}")
    axis.set_title(path.stem)
    axis.set_xlabel("epoch")
    axis.set_ylabel("loss (mean over the epoch)")
    _scale_epochs(axis, table)
    axis.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)   # there may be nine curves
    save_figure(figure, path)


def _scale_epochs(axis, table):
    """Room for every point of loss curves and whole epochs; losses from 0, or as logarithms where one towers."""
    losses = np.concatenate([line.get_ydata() for line in axis.lines])
    losses = losses[np.isfinite(losses)]
    if len(losses) and losses.min() > 0 and losses.max() > TOWERS * np.median(losses):
        axis.set(yscale="log", ylabel=f"{axis.get_ylabel()}, logarithmic")
        axis.yaxis.set_major_formatter(ScalarFormatter())
        axis.yaxis.set_minor_formatter(NullFormatter())
        axis.grid(alpha=0.15, which="minor")
    else:
        axis.set_ylim(0, 1.05 * axis.get_ylim()[1])
    first, last = table["epoch"].min(), table["epoch"].max()
    axis.set_xlim(first - 0.5, last + 0.5 + 0.01 * (last - first))
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axis.grid(alpha=0.3)


def draw_comparison(path: Path, panels: Sequence[tuple[str, Sequence[tuple[str, pd.DataFrame]]]]) -> None:
    """Draw the loss curves of runs over one another, one panel per model.

    Args:
        path: the PNG to write.
        panels: list of (model name, list of (label, history as plot_log reads it)).
    """
    figure = Figure(figsize=(13, 4.6 * len(panels)), layout="constrained")
    for axis, (name, runs) in zip(figure.subplots(len(panels), squeeze=False)[:, 0], panels, strict=True):
        longest = max(len(history) for _, history in runs)
        for number, (label, history) in enumerate(runs):
            color, marker = COLORS[number % len(COLORS)], "o" if longest <= 60 else None
            axis.plot(history["epoch"], history["loss"], color=color, marker=marker, markersize=4, label=label)
            if "held-out loss" in history:
                axis.plot(history["epoch"], history["held-out loss"], color=color, linestyle="--", marker=marker,
                          markersize=4, markerfacecolor="white", label="    held-out")
        axis.set_title(name, loc="left")
        axis.set_xlabel("epoch")
        axis.set_ylabel("loss (mean over the epoch)")
        _scale_epochs(axis, pd.concat([history for _, history in runs]))
        for text in axis.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False).get_texts():
            text.set_text(textwrap.fill(text.get_text(), LONGEST_LABEL, drop_whitespace=False))
    save_figure(figure, path)


def draw_noise(path: Path, table: pd.DataFrame) -> None:
    """Draw scores against the noise of the inputs, one line per item.

    Args:
        path: the PNG to write.
        table: DataFrame with noise, file, item, score.
    """
    figure = Figure(figsize=(9, 5), layout="constrained")
    axis = figure.subplots()
    for number, ((file, item), part) in enumerate(table.groupby(["file", "item"], sort=False)):
        label = f"{item}, {file.removesuffix('.csv').removeprefix('submit_')}"
        axis.plot(part["noise"], part["score"], color=COLORS[number % len(COLORS)], marker="o", label=label)
    axis.set(title="Model-CSV under noise of thickness and findings", ylim=(0, 1),
             xlabel="noise (1: as large as that of the image models is taken to be)", ylabel="score (0 to 1)")
    axis.grid(alpha=0.3)
    axis.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    save_figure(figure, path)


def draw_coverage(path: Path, table: pd.DataFrame, curves: Sequence[tuple[str, np.ndarray, np.ndarray]]) -> None:
    """Draw how often intervals hold the truth, and how often hits that were told come true.

    Args:
        path: the PNG to write.
        table: of data.confidence.score_coverage.
        curves: (label, chance told, share of hits) of each item.
    """
    figure = Figure(figsize=(13, 6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
    groups = [group for _, group in table.groupby(["item", "round"], sort=False)]
    for place, group in enumerate(groups):
        for x, marker, row in zip(place + np.linspace(-0.3, 0.3, len(group)), "os^D", group.itertuples(), strict=False):
            left.scatter(x, row.covered, s=20 + 160 * row.rows / table["rows"].max(), marker=marker,
                         color=COLORS[place % len(COLORS)])
    left.axhline(0.8, color="grey", linestyle=":", linewidth=1)
    left.set_xticks(range(len(groups)), [f"{group['item'].iloc[0]}\n{group['round'].iloc[0]}" for group in groups])
    left.set(title="Intervals of 80 %: share that holds the truth", ylim=(0, 1.08), ylabel="share of the eyes")
    left.grid(alpha=0.3, axis="y")
    for part, marker in zip(table["part"].unique(), "os^D", strict=False):
        left.scatter([], [], marker=marker, color="grey", label=part)
    left.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2, frameon=False, title="eyes, by the truth")
    right.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle=":", label="told rightly")
    for (label, told, hit), color in zip(curves, cycle(COLORS), strict=False):
        right.plot(told, hit, color=color, marker="o", markersize=4, label=label)
    right.set(title="Chance of a hit, and hits", xlabel="chance that was told", ylabel="share of hits", xlim=(0, 1.02),
              ylim=(0, 1.02), aspect="equal")
    right.grid(alpha=0.3)
    _place_legend(right)
    save_figure(figure, path)


def draw_gallery(path: Path, rows: Sequence[tuple[str, Sequence[tuple[str, np.ndarray, np.ndarray | None]]]], *,
                 legend: Sequence[Artist] = ()) -> None:
    """Draw crops with what is said of them, in rows with a title each.

    Args:
        path: the PNG to write.
        rows: list of (title, list of (caption, image, map)): uint8 image, H x W x 3, blue first; a map of h x w in
            0-1 to lay over it, or None.
        legend: handles of what is drawn on the images, if there is anything to explain.
    """
    width = max(len(pictures) for _, pictures in rows)
    figure = Figure(figsize=(4.2 * width, 3.6 * len(rows)), layout="constrained")
    parts = figure.subfigures(len(rows), 1, squeeze=False)[:, 0]
    for part, (title, pictures) in zip(parts, rows, strict=True):
        part.suptitle(title, fontsize=13, x=0.01, ha="left")
        for axis, (caption, image, attention) in zip(part.subplots(1, width, squeeze=False)[0],
                                                     [*pictures, *[("", None, None)] * width][:width], strict=True):
            axis.set_axis_off()
            if image is None:
                continue
            axis.imshow(image[..., ::-1])
            axis.set_title(caption, fontsize=9, loc="left")
            if attention is not None:
                axis.imshow(attention, extent=(-0.5, image.shape[1] - 0.5, image.shape[0] - 0.5, -0.5),
                            alpha=0.65 * attention, cmap="autumn", vmin=0, vmax=1, interpolation="bilinear")
    if legend:
        figure.legend(handles=legend, loc="outside lower center", ncols=len(legend), frameon=False)
    save_figure(figure, path)


def _square_panels(count):
    """A figure and its axes, two beside one another."""
    columns = min(2, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(6.2 * columns, 6.4 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for unused in axes[count:]:
        unused.set_axis_off()
    return figure, axes[:count]


def _place_legend(axis):
    """The legend where it hides nothing."""
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), frameon=False)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a matplotlib Figure as PNG, whole or not at all; long lines are wrapped, signs that no font has are ?."""
    for text in figure.findobj(Text):
        lines = _show_signs(text.get_text()).split("\n")
        text.set_text("\n".join(line if len(line) <= LONGEST_LINE else textwrap.fill(line, LONGEST_LINE)
                                for line in lines))
    with replace_file(path) as temporary:
        figure.savefig(temporary, dpi=DPI)


def _show_signs(text):
    """A text with ? for each sign that no font of this system has."""
    if text.isascii():
        return text
    return "".join(sign if ord(sign) in _load_signs() or sign == "\n" else "?" for sign in text)


@functools.cache
def _load_signs():
    """The signs that pictures can show, as numbers."""
    files = map(font_manager.findfont, matplotlib.rcParams["font.family"])
    return {sign for file in files for sign in font_manager.get_font(file).get_charmap()}


def draw_agreement(path: Path, panels: Sequence[Agreement]) -> None:
    """Predicted against true values, with the band in which a prediction scores.

    Args:
        path: the PNG to write.
        panels: list of (title, unit, true, predicted, hit, tolerance): arrays of one number per eye, whether it
            counts as a hit, and a function from true values to how far a prediction may be off.
    """
    figure, axes = _square_panels(len(panels))
    for axis, (title, unit, true, predicted, hit, tolerance) in zip(axes, panels, strict=True):
        values = np.concatenate([true, predicted])
        low, high = (values.min(), values.max()) if len(values) else (0, 1)
        margin = 0.05 * (high - low) or 1
        line = np.linspace(low - margin, high + margin, 300)
        axis.fill_between(line, line - tolerance(line), line + tolerance(line), color=BOX, alpha=0.35, linewidth=0,
                          label="counts as a hit")
        axis.plot(line, line, color="black", linewidth=0.8)
        _scatter(axis, true[~hit], predicted[~hit], color=ORANGE, marker="D", label=f"missed: {(~hit).sum()} eyes")
        _scatter(axis, true[hit], predicted[hit], color=BLUE, marker="o", label=f"hit: {hit.sum()} eyes")
        axis.set(title=title, xlabel=f"true ({unit})", ylabel=f"predicted ({unit})", aspect="equal",
                 xlim=(line[0], line[-1]), ylim=(line[0], line[-1]))
        axis.grid(alpha=0.3)
        _place_legend(axis)
    save_figure(figure, path)


def _scatter(axis, x, y, *, color, marker, label):
    """Dots that are larger where several eyes lie on one another; the legend shows one eye's and the largest."""
    points, counts = np.unique(np.column_stack([x, y]).round(3), axis=0, return_counts=True)
    style = {"color": color, "marker": marker, "alpha": 0.6, "linewidth": 0}
    axis.scatter(*points.T, s=DOT_AREA * np.sqrt(counts), **style)
    axis.scatter([], [], s=DOT_AREA, label=label, **style)
    if counts.max(initial=1) > 1:
        most = counts.max()
        axis.scatter([], [], s=DOT_AREA * np.sqrt(most), label=f"{most} of them on one another", **style)


def draw_curves(path: Path, panels: Sequence[tuple[str, Sequence[tuple[str, np.ndarray, np.ndarray]]]], *, xlabel: str,
                ylabel: str, diagonal: str) -> None:
    """Curves over the unit square: ROC or calibration.

    Args:
        path: the PNG to write.
        panels: list of (title, list of (label, x, y)).
        xlabel, ylabel: of both axes, each from 0 to 1.
        diagonal: what the diagonal stands for.
    """
    figure, axes = _square_panels(len(panels))
    for axis, (title, curves) in zip(axes, panels, strict=True):
        axis.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle=":", label=diagonal)
        for number, (label, x, y) in enumerate(curves):
            axis.plot(x, y, color=COLORS[number % len(COLORS)], marker="o" if len(x) <= 12 else None, markersize=4,
                      label=label)
        axis.set(title=title, xlabel=xlabel, ylabel=ylabel, xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
        axis.grid(alpha=0.3)
        _place_legend(axis)
    save_figure(figure, path)
