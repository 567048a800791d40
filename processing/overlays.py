"""Pictures of what was read of B-scans: membranes and fluid on the scan, thickness beneath, a map over the fundus.

Writes PNG files, whole or not at all. H and W pixels of a scan.
"""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from matplotlib import patheffects
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Patch

from processing.bscans import FUNDUS_PX, SCAN_ROWS
from processing.geometry import Geometry
from processing.plots import save_figure

# Red, green, blue; Okabe and Ito's palette, told apart by colour-blind readers
FLUID_COLORS = {"IRF": (86, 180, 233), "SRF": (0, 158, 115), "PED": (204, 121, 167), "foci": (240, 228, 66)}
ILM_COLOR, BM_COLOR = (230, 159, 0), (213, 94, 0)
STRENGTH = 0.55         # of a fluid's colour
SHEET_COLUMNS = 4
LINE_STYLE = {"color": "magenta", "linewidth": 1.4, "shrinkA": 0, "shrinkB": 0, "linestyle": (0, (6, 4))}
SPOT_OF = {"C0": (0, 0), "S": (0, -1), "I": (0, 1), "N": (1, 0), "T": (-1, 0)}


def paint_scan(pixels: np.ndarray, ilm_row: np.ndarray, bm_row: np.ndarray, fluids: dict[str, np.ndarray]
               ) -> np.ndarray:
    """A scan with what was read of it.

    Args:
        pixels: uint8 H x W.
        ilm_row, bm_row: W rows; NaN: not read.
        fluids: name of FLUID_COLORS -> probabilities of any size, stretched over the scan.

    Returns:
        uint8 H x W x 3, red first.
    """
    painted = np.repeat(pixels[..., None], 3, axis=2).astype(np.float32)
    for name, chances in fluids.items():
        likely = cv2.resize(chances.astype(np.float32), pixels.shape[::-1], interpolation=cv2.INTER_LINEAR) >= 0.5
        painted[likely] += STRENGTH * (np.array(FLUID_COLORS[name], np.float32) - painted[likely])
    painted = painted.astype(np.uint8)
    for rows, color in ((ilm_row, ILM_COLOR), (bm_row, BM_COLOR)):
        known = np.isfinite(rows)
        points = np.stack([np.arange(len(rows)), np.nan_to_num(rows)], axis=1)
        for part in np.split(points, np.flatnonzero(np.diff(known.astype(int))) + 1):
            if known[int(part[0, 0])]:
                cv2.polylines(painted, [np.rint(part * 16).astype(np.int32)], False, color, 1, cv2.LINE_AA, shift=4)
    return painted


def draw_scan(path: Path, title: str, painted: np.ndarray, thickness_um: np.ndarray, um_across: float) -> None:
    """A painted scan, and the retina's thickness along it beneath.

    Args:
        path: the PNG to write.
        title: above it.
        painted: of paint_scan.
        thickness_um: W; NaN: not read.
        um_across: scale of a pixel.
    """
    figure = Figure(figsize=(9.6, 7.6), layout="constrained")
    above, beneath = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1.2))
    mm = (np.arange(len(thickness_um)) - (len(thickness_um) - 1) / 2) * um_across / 1000
    edges = mm[0] - um_across / 2000, mm[-1] + um_across / 2000
    above.imshow(painted, extent=(*edges, len(painted) - 0.5, -0.5), aspect="auto")
    above.set_title(title, loc="left", fontsize=11)
    above.set(ylabel="row (pixels)")
    above.legend(handles=explain_colors(), loc="lower right", ncols=6, fontsize=8, framealpha=0.7)
    beneath.plot(mm, thickness_um, color="black", linewidth=1)
    top = np.nanmax(thickness_um) if np.isfinite(thickness_um).any() else 400
    beneath.set(xlabel="distance from the middle (mm)", ylabel="thickness (µm)", ylim=(0, max(400, 1.1 * top)),
                xlim=edges)
    beneath.axvline(0, color="grey", linewidth=0.8, linestyle=":")
    beneath.grid(alpha=0.3)
    save_figure(figure, path)


def draw_sheet(path: Path, scans: Sequence[tuple[str, np.ndarray]], title: str) -> None:
    """Scans beside one another, in reading order.

    Args:
        path: the PNG to write.
        scans: (caption, picture of paint_scan) of each.
        title: above all.
    """
    rows = -(-len(scans) // SHEET_COLUMNS)
    figure = Figure(figsize=(4.3 * SHEET_COLUMNS, 3.1 * rows + 0.7), layout="constrained")
    figure.suptitle(title, fontsize=13)
    axes = figure.subplots(rows, SHEET_COLUMNS, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, (caption, painted) in zip(axes, scans, strict=False):
        axis.imshow(painted, aspect="auto")
        axis.set_title(caption, loc="left", fontsize=9)
    figure.legend(handles=explain_colors(), loc="outside lower center", ncols=6, frameon=False)
    save_figure(figure, path)


def draw_lines(path: Path, screens: Sequence[tuple[str, np.ndarray, Geometry]]) -> None:
    """Fundus pictures with the scan that was read from each, from its first column to its last.

    Args:
        path: the PNG to write.
        screens: (name, uint8 screen with blue first, what was read of it) of each.
    """
    rows = -(-len(screens) // SHEET_COLUMNS)
    figure = Figure(figsize=(3.7 * SHEET_COLUMNS, 4.1 * rows), layout="constrained")
    axes = figure.subplots(rows, SHEET_COLUMNS, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, (name, screen, found) in zip(axes, screens, strict=False):
        axis.imshow(screen[:SCAN_ROWS, :FUNDUS_PX, ::-1])
        if np.isfinite(found.angle_deg):
            axis.annotate("", (found.end_x, found.end_y), (found.start_x, found.start_y), arrowprops=LINE_STYLE
                          | {"arrowstyle": "-|>" if found.arrow else "-"})
            place = "distance unknown" if np.isnan(found.distance_um) else f"{found.distance_um:+.0f} µm"
            angle = round(found.angle_deg, 1) % 360
            number = "" if np.isnan(found.line) else f" {found.line:.0f} of {found.lines:.0f}"
            name += f"\n{found.pattern}{number}, {angle:.1f}°, {place}" + ("" if found.arrow else ", no arrow")
        else:
            name += "\nno line was found"
        axis.set_title(name, loc="left", fontsize=9)
    save_figure(figure, path)


def draw_map(path: Path, title: str, thickness_map: np.ndarray, fields: dict[str, float], *, is_right: bool,
             fundus: np.ndarray | None = None, fundus_mm: tuple[float, float, float, float] | None = None) -> None:
    """The retina's thickness over the fundus picture, with the fields of the ETDRS grid and their means.

    Args:
        path: the PNG to write.
        title: above it.
        thickness_map: G x G um, 3 mm around the grid's middle; NaN: unknown.
        fields: name -> mean, um.
        is_right: whether it is a right eye.
        fundus: uint8 picture, H x W x 3, red first; None: there is none.
        fundus_mm: its left, right, bottom and top, from the grid's middle; y downwards.
    """
    figure = Figure(figsize=(8.4, 7.4), layout="constrained")
    axis = figure.subplots()
    if fundus is not None:
        axis.imshow(fundus, extent=fundus_mm)
    shown = axis.imshow(thickness_map, extent=(-3, 3, 3, -3), cmap="viridis", alpha=0.7 if fundus is not None else 1)
    figure.colorbar(shown, ax=axis, label="ILM to BM (µm)", shrink=0.85)
    for radius in (0.5, 1.5, 3.0):
        axis.add_patch(Circle((0, 0), radius, fill=False, color="white", linewidth=1.2))
    for angle in np.deg2rad([45, 135, 225, 315]):
        axis.plot(np.array([0.5, 3]) * np.cos(angle), np.array([0.5, 3]) * np.sin(angle), color="white", linewidth=1.2)
    for field, mean in fields.items():
        x, y = SPOT_OF.get(field, SPOT_OF.get(field[0], (0, 0)))
        away = {"0": 0.0, "1": 1.0, "2": 2.25}[field[1]]
        text = f"{field}\n{mean:.0f}" if np.isfinite(mean) else f"{field}\n-"
        axis.text((x if is_right else -x) * away, y * away, text, ha="center", va="center", color="white", fontsize=11,
                  path_effects=[patheffects.withStroke(linewidth=2.5, foreground="black")])
    axis.set_title(title, loc="left", fontsize=11)
    axis.set(xlabel="mm", ylabel="mm", xlim=(-3.4, 3.4), ylim=(3.4, -3.4), aspect="equal")
    save_figure(figure, path)


def explain_colors() -> list[Artist]:
    """What a legend shows of membranes and fluids: handles of matplotlib."""
    def scale(color):
        return tuple(value / 255 for value in color)

    handles = [Line2D([], [], color=scale(color), label=name) for name, color in (("ILM", ILM_COLOR), ("BM", BM_COLOR))]
    return handles + [Patch(color=scale(color), label=name) for name, color in FLUID_COLORS.items()]
