"""Cysts, foci and vessels in a scan to learn from: where they lie, and what of them shows. Reads and writes no file.

Arrays are H x W, of the rows and columns of the scan. Heights are um above Bruch's membrane.
"""

from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np

from processing.eye import variety as v
from processing.eye.curves import ELM, RPE, Curves, Rng, pick, pick_count, pick_small

LEAST_CYST_AREA_PX = 12
SUBPIXEL = 4                # fractional bits of the coordinates that OpenCV draws with
FOCUS_CONTRAST = 45         # a bright dot in a bright layer is none


class Site(NamedTuple):
    """A cyst: column, share of the retina's height (0 ELM to 1 ILM), half width and half height (um)."""

    column: float
    depth: float
    wide_um: float
    high_um: float


def measure_heights(curves: Curves) -> np.ndarray:
    """Height of each pixel above BM: float32 H x W, um."""
    rows = np.arange(curves.frame.rows, dtype=np.float32)[:, None]
    return (curves.bm_row - rows) * np.float32(curves.frame.um_down)


def make_texture(rng: Rng, shape: tuple[int, int], grain: tuple[float, float]) -> np.ndarray:
    """Smooth noise: float32 H x W, standard deviation about 1; grain: px down and across."""
    grid = rng.standard_normal([max(4, int(size / step) + 3) for size, step in zip(shape, grain, strict=True)])
    return cv2.resize(grid.astype(np.float32), shape[::-1], interpolation=cv2.INTER_CUBIC) * np.float32(1.4)


# ---- Cysts

def paint_cysts(rng: Rng, image: np.ndarray, heights: np.ndarray, curves: Curves) -> np.ndarray:
    """Draw intraretinal fluid into `image`. Returns where it is: bool H x W."""
    if rng.random() >= v.IRF:
        return np.zeros(image.shape, bool)
    frame = curves.frame
    rough = make_texture(rng, image.shape, (max(3, 45 / frame.um_down), max(3, 60 / frame.um_across)))
    mask, left = np.zeros(image.shape, bool), np.zeros(image.shape, np.float32)
    roughness, darkness = pick(rng, v.CYST_ROUGHNESS), pick(rng, v.CYST_DARKNESS)
    wall_um = pick(rng, v.CYST_WALL_UM) * (rng.random() < 0.75)
    for site in _choose_layout(rng)(rng, curves):
        small = site.wide_um < 60 or site.high_um < 30
        own = np.clip(darkness + rng.normal(0, 0.06), 0, 0.35 if small else v.CYST_DARKNESS[1])
        _add_cyst(mask, left, site, rough, curves, roughness=roughness, wall_um=wall_um, darkness=own)
    mask &= (heights > curves.surfaces_um[ELM] + 5) & (heights < curves.surfaces_um[0] - 9)
    mask = _drop_specks(mask)
    if rng.random() < 0.4:
        rim = cv2.dilate(mask.view(np.uint8), np.ones((3, 3), np.uint8)).astype(bool) & ~mask
        image[rim] += pick(rng, (4, 28))
    image[mask] = image[mask] * left[mask] + pick(rng, (0, 14))
    return mask


def _choose_layout(rng: Rng) -> Callable[[Rng, Curves], list[Site]]:
    return [_scatter, _scatter, _fill_fovea, _line_up, _honeycomb][rng.integers(5)]


def _scatter(rng: Rng, curves: Curves) -> list[Site]:
    """Anywhere, of all sizes, the large ones first."""
    frame, count = curves.frame, pick_count(rng, v.CYSTS)
    middle, spread = rng.uniform(0, frame.columns), pick(rng, (300, 1800)) / frame.um_across
    largest = pick_small(rng, (50, v.CYST_UM[1]))
    sites = [_invent(rng, curves, rng.normal(middle, spread), rng.uniform(0.08, 0.92), (v.CYST_UM[0], largest))
             for _ in range(count)]
    return sorted(sites, key=lambda site: -site.wide_um)


def _fill_fovea(rng: Rng, curves: Curves) -> list[Site]:
    """One or two large ones that take most of the retina's height, and small ones beside them."""
    middle = rng.uniform(0, curves.frame.columns)
    sites = []
    for _ in range(rng.integers(1, 3)):
        column = middle + rng.normal(0, 150) / curves.frame.um_across
        room_um = _room(curves, column)
        sites.append(Site(column, rng.uniform(0.3, 0.6), pick(rng, (80, 420)), pick(rng, (0.25, 0.48)) * room_um))
    spread = 700 / curves.frame.um_across
    beside = [_invent(rng, curves, rng.normal(middle, spread), rng.uniform(0.2, 0.9), (18, 110))
              for _ in range(rng.integers(0, 25))]
    return sites + beside


def _line_up(rng: Rng, curves: Curves) -> list[Site]:
    """Small ones side by side in a layer, as in the inner nuclear layer."""
    start, depth = rng.uniform(-0.1, 0.8) * curves.frame.columns, rng.uniform(0.35, 0.85)
    sites, column = [], start
    for _ in range(rng.integers(3, 30)):
        site = _invent(rng, curves, column, depth + rng.normal(0, 0.05), (18, 80))
        sites.append(site)
        column += (1.2 + abs(rng.normal(0, 0.9))) * 2 * site.wide_um / curves.frame.um_across
    return sites


def _honeycomb(rng: Rng, curves: Curves) -> list[Site]:
    """Large ones pressed against one another."""
    middle, size_um = rng.uniform(0, curves.frame.columns), pick(rng, (50, 200))
    sites = []
    for step in range(-int(rng.integers(1, 7)), int(rng.integers(1, 7))):
        for depth in rng.uniform(0.15, 0.85, rng.integers(1, 4)):
            column = middle + (1.7 * step + rng.normal(0, 0.3)) * size_um / curves.frame.um_across
            sites.append(_invent(rng, curves, column, depth, (0.6 * size_um, 1.3 * size_um)))
    return sites


def _invent(rng: Rng, curves: Curves, column: float, depth: float, sizes_um: tuple[float, float]) -> Site:
    """A cyst that fits the retina there."""
    wide_um = pick_small(rng, sizes_um)
    high_um = min(wide_um * pick_small(rng, v.CYST_SHAPE), 0.46 * _room(curves, column))
    return Site(column, depth, wide_um, high_um)


def _room(curves: Curves, column: float) -> float:
    at = int(np.clip(column, 0, curves.frame.columns - 1))
    return float(curves.surfaces_um[0, at] - curves.surfaces_um[ELM, at])


def _add_cyst(mask: np.ndarray, left: np.ndarray, site: Site, rough: np.ndarray, curves: Curves, *, roughness: float,
              wall_um: float, darkness: float) -> None:
    """Set `mask` where the cyst is and `left` to the share of grey that stays; its wall cuts into its neighbours."""
    frame, at = curves.frame, int(np.clip(site.column, 0, curves.frame.columns - 1))
    wide = max(site.wide_um / frame.um_across, v.LEAST_CYST_PX[1] / 2)
    high = max(site.high_um / frame.um_down, v.LEAST_CYST_PX[0] / 2)
    height_um = curves.surfaces_um[ELM, at] + site.depth * _room(curves, site.column)
    row = curves.bm_row[at] - height_um / frame.um_down
    reach = 1.6
    top, bottom = max(0, int(row - reach * high)), min(frame.rows, int(row + reach * high) + 2)
    first, last = max(0, int(site.column - reach * wide)), min(frame.columns, int(site.column + reach * wide) + 2)
    if bottom <= top or last <= first:
        return
    box = slice(top, bottom), slice(first, last)
    down = ((np.arange(top, bottom, dtype=np.float32) - row) / high)[:, None] ** 2
    across = ((np.arange(first, last, dtype=np.float32) - site.column) / wide) ** 2
    inside = 1 - down - across + roughness * rough[box]
    thick = 2 * wall_um / max(8.0, min(site.wide_um, site.high_um))
    mask[box] &= (inside < -thick) | (inside > 0)
    mask[box] |= inside > 0
    left[box][inside > 0] = darkness


def _drop_specks(mask: np.ndarray) -> np.ndarray:
    """Without pieces that nobody could tell from speckle."""
    count, pieces, stats, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=4)
    keep = (stats[:, cv2.CC_STAT_AREA] >= LEAST_CYST_AREA_PX) & (stats[:, cv2.CC_STAT_HEIGHT] >= v.LEAST_CYST_PX[0])
    keep &= stats[:, cv2.CC_STAT_WIDTH] >= v.LEAST_CYST_PX[1]
    keep[0] = False
    return keep[pieces] if count > 1 else mask


# ---- Foci

def paint_foci(rng: Rng, image: np.ndarray, curves: Curves, light: np.ndarray) -> np.ndarray:
    """Draw hyperreflective foci and exudates into `image`; the large ones take `light` (W). Returns bool H x W."""
    drawn = np.zeros(image.shape, np.uint8)
    if rng.random() >= v.FOCI:
        return drawn.astype(bool)
    frame, grey = curves.frame, pick(rng, v.FOCUS_GREY)
    middles = rng.uniform(0, frame.columns, rng.integers(1, 4))
    spread = pick_small(rng, (100, 2500)) / frame.um_across
    sizes = [pick_small(rng, v.FOCUS_UM) for _ in range(pick_count(rng, v.FOCI_COUNT))]
    if rng.random() < v.EXUDATES:
        sizes += [pick_small(rng, v.EXUDATE_UM) for _ in range(pick_count(rng, v.EXUDATE_COUNT))]
    for radius_um in sizes:
        column = rng.normal(rng.choice(middles), spread)
        at = round(column)
        if not 0 <= at < frame.columns:
            continue
        low_um = curves.surfaces_um[ELM if rng.random() < 0.8 else RPE, at]
        height_um = low_um + rng.uniform(0.03, 0.93) * (curves.surfaces_um[0, at] - low_um)
        row = float(curves.bm_row[at] - height_um / frame.um_down)
        if not 0 <= row < frame.rows - 1 or image[int(row), at] > grey - FOCUS_CONTRAST:
            continue
        flat = pick(rng, (0.6, 1.2))
        axes = max(radius_um / frame.um_across, 0.8), max(flat * radius_um / frame.um_down, 1.3)
        middle, halves = ([round(value * 2 ** SUBPIXEL) for value in pair] for pair in ((column, row), axes))
        cv2.ellipse(drawn, middle, halves, 0, 0, 360, 255, -1, cv2.LINE_AA, SUBPIXEL)
        if radius_um > v.EXUDATE_UM[0]:
            half = max(1, round(axes[0]))
            light[max(0, at - half):at + half + 1] *= pick(rng, (0.3, 0.8))
    image += (grey - image) * (drawn.astype(np.float32) / 255)
    return drawn > 127


# ---- Vessels

def paint_vessels(rng: Rng, image: np.ndarray, heights: np.ndarray, curves: Curves, light: np.ndarray) -> None:
    """Draw retinal vessels: a bright spot in the inner retina, and what they take of `light` (W)."""
    frame = curves.frame
    for _ in range(pick_count(rng, v.VESSELS)):
        at, half_um = int(rng.integers(frame.columns)), pick_small(rng, v.VESSEL_UM) / 2
        half = max(1.0, half_um / frame.um_across)
        profile = np.clip(1.3 - np.abs(np.arange(frame.columns) - at) / half, 0, 1)
        light *= 1 - (1 - pick(rng, v.VESSEL_LIGHT)) * profile
        middle_um = curves.surfaces_um[0, at] - pick(rng, (0.3, 1.2)) * half_um - 10
        first, last = max(0, int(at - half - 1)), min(frame.columns, int(at + half + 2))
        here = heights[:, first:last]
        spot = (np.abs(here - middle_um) < 0.8 * half_um) & (here < curves.surfaces_um[0, first:last])
        image[:, first:last] += spot * pick(rng, (-10, 70)) * profile[first:last]
