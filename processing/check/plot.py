"""The data check's picture: distributions above, suspicious images below. Computes nothing of what it draws.

Writes one PNG, whole or not at all.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullFormatter, ScalarFormatter

from processing.check.tables import CST_RANGE
from processing.plots import BLUE, ORANGE, save_figure

GREY = "#666666"
SEVERITY_COLOURS = {"stops": ORANGE, "warns": "#E69F00", "notes": "#56B4E9"}     # Okabe and Ito's, as in plots.py
TOP_HEIGHT, ROW_HEIGHT, WIDTH = 9.0, 2.35, 15.0         # inches: distributions, a row of images, the whole
PER_ROW = 6                 # images
TITLE_LETTERS = 34          # that fit above an image
MOST_KINDS = 16             # bars
LEGEND_ROOM = 1.25          # height of a panel against its highest bar: the legend hides nothing


class Distributions(NamedTuple):
    """What the upper part shows: for each panel, series name -> list of numbers."""

    age: dict               # years, by round
    logmar: dict            # acuity of the preliminary round
    decimal: dict           # acuity of the final round
    cst_um: dict
    images: dict            # per eye, by visit


class Suspect(NamedTuple):
    """One image of the contact sheet."""

    eye: str
    name: str
    reason: str
    pixels: np.ndarray | None       # uint8 H x W x 3, blue first; None: unreadable


def draw_check(path: Path, distributions: Distributions, counts: dict, suspects: list[Suspect]) -> None:
    """Draw what the data check saw.

    Args:
        path: the PNG to write.
        distributions: Distributions.
        counts: dict of (severity, kind) -> how many findings.
        suspects: list of Suspect.
    """
    rows = -(-len(suspects) // PER_ROW)
    height = max(rows * ROW_HEIGHT, 0.6)
    figure = Figure(figsize=(WIDTH, TOP_HEIGHT + height), layout="constrained")
    top, bottom = figure.subfigures(2, 1, squeeze=False, height_ratios=[TOP_HEIGHT, height])[:, 0]
    _draw_distributions(top.subplots(2, 3), distributions, counts)
    if suspects:
        _draw_suspects(bottom, suspects, rows)
    else:
        bottom.suptitle("No suspicious images", fontsize=13)
    save_figure(figure, path)


def _draw_distributions(axes, distributions, counts):
    _draw_series(axes[0, 0], distributions.age, np.arange(0, 111, 5), title="Age", labels=("years", "eyes"))
    _draw_series(axes[0, 1], distributions.logmar, np.arange(-0.25, 3.26, 0.1), title="Acuity, preliminary round",
                 labels=("logMAR (0 good, 3 light perception)", "eyes"), limits=(0, 3))
    _draw_series(axes[0, 2], distributions.decimal, np.arange(-0.05, 2.11, 0.05), title="Acuity, final round",
                 labels=("decimal (1.0 = 6/6)", "eyes"), limits=(0, 2))
    _draw_series(axes[1, 0], distributions.cst_um, np.arange(0, 1651, 50),
                 title="Central subfield thickness, both rounds", limits=CST_RANGE,
                 labels=("um (thicker ones in the last bar)", "eyes"))
    _draw_series(axes[1, 1], distributions.images, np.arange(0.5, 41.5), title="Images of an eye and visit",
                 labels=("images (more in the last bar)", "eyes"))
    _draw_counts(axes[1, 2], counts)


def _draw_series(axis, series, bins, *, title, labels, limits=()):
    """Two outlines over the same bins; numbers beyond them count in the first or last bin."""
    handles = []
    for (name, values), colour, style in zip(series.items(), (BLUE, ORANGE), ("-", "--"), strict=True):
        inside = np.clip(values, bins[0], bins[-1] - 1e-9)      # 1e-9: the last bin is open to the right
        axis.hist(inside, bins=bins, histtype="step", color=colour, linestyle=style, linewidth=1.8)
        handles.append(Line2D([], [], color=colour, linestyle=style, label=f"{name} ({len(values)})"))
    for limit in limits:
        axis.axvline(limit, color=GREY, linestyle=":", linewidth=1.5)
    handles += [Line2D([], [], color=GREY, linestyle=":", label="plausible from, to")] if limits else []
    axis.set_ylim(0, LEGEND_ROOM * max(1, axis.get_ylim()[1]))
    axis.yaxis.set_major_locator(MaxNLocator(integer=True))
    axis.legend(handles=handles, fontsize=9, ncols=2, loc="upper center")
    axis.set_title(title)
    axis.set_xlabel(labels[0])
    axis.set_ylabel(labels[1])
    axis.grid(alpha=0.3)


def _draw_counts(axis, counts):
    shown = sorted(counts.items(), key=lambda item: list(SEVERITY_COLOURS).index(item[0][0]))[:MOST_KINDS]
    for place, ((severity, _), count) in enumerate(shown):
        axis.barh(place, count, color=SEVERITY_COLOURS[severity])
        axis.text(count * 1.1, place, str(count), va="center", fontsize=8)
    axis.set_yticks(range(len(shown)), [f"{severity}: {kind}" for (severity, kind), _ in shown], fontsize=8)
    axis.invert_yaxis()
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter(ScalarFormatter())
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_xlim(0.5, 8 * max(counts.values(), default=1))     # 8: room for the number behind the bar
    more = f" (the worst {MOST_KINDS} of {len(counts)} kinds)" if len(counts) > MOST_KINDS else ""
    axis.set_title(f"Findings{more}")
    axis.set_xlabel("how many (logarithmic)")


def _draw_suspects(figure, suspects, rows):
    figure.suptitle("Suspicious images, as cropped", fontsize=13)
    axes = figure.subplots(rows, PER_ROW, squeeze=False).ravel()
    for axis, suspect in zip(axes, suspects, strict=False):
        lines = [_shorten(suspect.eye), _shorten(suspect.name), _shorten(suspect.reason)]
        axis.set_title("\n".join(lines), fontsize=8, loc="left")
        if suspect.pixels is None:
            axis.text(0.5, 0.5, "cannot be read", ha="center", va="center", transform=axis.transAxes)
            axis.set_box_aspect(0.6)
        else:
            axis.imshow(suspect.pixels[..., ::-1], aspect="equal")
        axis.set_xticks([])
        axis.set_yticks([])
    for axis in axes[len(suspects):]:
        axis.set_axis_off()


def _shorten(text):
    """`text` as fits above an image."""
    half = TITLE_LETTERS // 2
    return text if len(text) <= TITLE_LETTERS else f"{text[:half - 2]}...{text[-half + 1:]}"
