"""Cysts, foci and vessels in a scan to learn from: where they lie, and what of them shows. Reads and writes no file.

Arrays are H x W, of the rows and columns of the scan. Heights are um above Bruch's membrane.
"""

from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np

from processing.eye import variety as v
from processing.eye.camera import Camera
from processing.eye.curves import ELM, RPE, Curves, Rng, make_texture, pick, pick_count, pick_small

LEAST_CYST_AREA_PX, SMALL_CYST_PX = 12, 120
RING_PX = 2                 # of tissue about a cyst that it is told from
RING = np.ones((2 * RING_PX + 1, 2 * RING_PX + 1), np.uint8)
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


# ---- Cysts

def paint_cysts(rng: Rng, image: np.ndarray, heights: np.ndarray, curves: Curves, camera: Camera, light: np.ndarray
                ) -> np.ndarray:
    """Draw intraretinal fluid into `image`, so that `camera` can show it in that `light` (W). Returns bool H x W."""
    if rng.random() >= v.IRF:
        return np.zeros(image.shape, bool)
    frame = curves.frame
    rough = make_texture(rng, image.shape, (max(3, 45 / frame.um_down), max(3, 60 / frame.um_across)))
    mask, left = np.zeros(image.shape, bool), np.zeros(image.shape, np.float32)
    roughness, darkness = pick(rng, v.CYST_ROUGHNESS), pick(rng, v.CYST_DARKNESS)
    wall_um, smooth = pick(rng, v.CYST_WALL_UM) * (rng.random() < 0.75), rng.random()
    for site in _choose_sites(rng, curves):
        own = np.clip(darkness + rng.normal(0, 0.06), 0, v.CYST_DARKNESS[1])
        smaller = min(1.0, v.ROUGH_UM / min(site.wide_um, site.high_um)) ** smooth
        _add_cyst(mask, left, site, rough, curves, roughness=roughness * smaller, wall_um=wall_um, darkness=own)
    mask &= (heights > curves.surfaces_um[ELM] + 5) & (heights < curves.surfaces_um[0] - 9)
    mask = _fill(image, mask, left, light, camera)
    if rng.random() < 0.4:
        rim = cv2.dilate(mask.view(np.uint8), np.ones((3, 3), np.uint8)).astype(bool) & ~mask
        image[rim] += pick(rng, (4, 28))
    return mask


def _choose_sites(rng: Rng, curves: Curves) -> list[Site]:
    layouts: list[Callable[[Rng, Curves], list[Site]]] = [
        _scatter, _scatter, _fill_fovea, _fill_fovea, _line_up, _honeycomb, _raise_pillars, _raise_pillars]
    count = 2 if rng.random() < v.SECOND_LAYOUT else 1
    return [site for number in rng.integers(len(layouts), size=count) for site in layouts[number](rng, curves)]


def _pick_middle(rng: Rng, curves: Curves) -> float:
    """Column about which they lie: where the retina is thickest, or anywhere."""
    if rng.random() >= v.AT_PEAK:
        return float(rng.uniform(0, curves.frame.columns))
    peak = int(np.argmax(curves.surfaces_um[0] - curves.surfaces_um[ELM]))
    return float(rng.normal(peak, 200 / curves.frame.um_across))


def _scatter(rng: Rng, curves: Curves) -> list[Site]:
    """Anywhere, of all sizes, the large ones first."""
    frame, count = curves.frame, pick_count(rng, v.CYSTS)
    middle, spread = _pick_middle(rng, curves), pick(rng, (300, 1800)) / frame.um_across
    largest = pick_small(rng, (50, v.CYST_UM[1]))
    sites = [_invent(rng, curves, rng.normal(middle, spread), rng.uniform(0.08, 0.92), (v.CYST_UM[0], largest))
             for _ in range(count)]
    return sorted(sites, key=lambda site: -site.wide_um)


def _fill_fovea(rng: Rng, curves: Curves) -> list[Site]:
    """One or two large ones that take most of the retina's height, and small ones beside them."""
    middle = _pick_middle(rng, curves)
    sites = []
    for _ in range(rng.integers(1, 3)):
        column = middle + rng.normal(0, 150) / curves.frame.um_across
        high_um = pick(rng, (0.25, 0.52)) * _room(curves, column)
        sites.append(Site(column, rng.uniform(0.3, 0.6), pick_small(rng, v.FOVEAL_CYST_UM), high_um))
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
    middle, size_um = _pick_middle(rng, curves), pick(rng, (50, 200))
    sites = []
    for step in range(-int(rng.integers(1, 7)), int(rng.integers(1, 7))):
        for depth in rng.uniform(0.15, 0.85, rng.integers(1, 4)):
            column = middle + (1.7 * step + rng.normal(0, 0.3)) * size_um / curves.frame.um_across
            sites.append(_invent(rng, curves, column, depth, (0.6 * size_um, 1.3 * size_um)))
    return sites


def _raise_pillars(rng: Rng, curves: Curves) -> list[Site]:
    """Upright ones side by side, nearly as high as the retina, with thin walls between them."""
    middle, size_um = _pick_middle(rng, curves), pick_small(rng, v.PILLAR_UM)
    sites, column = [], middle - rng.uniform(1, 8) * size_um / curves.frame.um_across
    for _ in range(rng.integers(2, 12)):
        wide_um, high_um = size_um * rng.uniform(0.5, 1.4), rng.uniform(0.15, 0.45) * _room(curves, column)
        sites.append(Site(column, rng.uniform(0.35, 0.6), wide_um, high_um))
        column += rng.uniform(1.5, 2.3) * wide_um / curves.frame.um_across
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
    """Set `mask` where the cyst is and `left` to its darkness; its wall cuts into its neighbours."""
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


def _fill(image: np.ndarray, mask: np.ndarray, left: np.ndarray, light: np.ndarray, camera: Camera) -> np.ndarray:
    """Fill the pieces of `mask` that can be told from the noise, each with one grey: the share `left` of the darkest
    tissue about it, less if need be. Returns these pieces: bool H x W.
    """
    count, pieces, stats, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=4)
    least_px = np.maximum(v.LEAST_CYST_PX, v.LEAST_CYST_BLUR * np.array(camera.blur_px))
    lit, kept, tissue = image * light, np.zeros_like(mask), image.copy()
    for number in range(1, count):
        column, row, wide, high, area = stats[number]
        if area < LEAST_CYST_AREA_PX or high < least_px[0] or wide < least_px[1]:
            continue
        top, first = max(0, row - RING_PX), max(0, column - RING_PX)
        box = slice(top, row + high + RING_PX), slice(first, column + wide + RING_PX)
        piece = pieces[box] == number
        about = cv2.dilate(piece.view(np.uint8), RING).astype(bool)
        darkest, shown = (np.percentile(grey[box][about], v.DARKEST) for grey in (tissue, lit))
        contrast = camera.show(shown) - camera.show(0 * shown)
        wanted = v.LEAST_SMALL_CONTRAST if area < SMALL_CYST_PX else v.LEAST_CONTRAST
        least = max(wanted * camera.find_noise(shown), v.LEAST_GREYS)
        if contrast >= least:
            image[box][piece] = darkest * min(left[box][piece].mean(), 1 - least / contrast)
            kept[box] |= piece
    return kept


# ---- Foci

def paint_foci(rng: Rng, image: np.ndarray, curves: Curves, camera: Camera, light: np.ndarray) -> np.ndarray:
    """Draw hyperreflective foci and exudates, and the shadows of the latter, where `camera` can show them in that
    `light` (W). Returns bool H x W.
    """
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
        around, own = image[int(row), at] * light[at], grey * light[at]
        if camera.show(own) - camera.show(around) < v.LEAST_SMALL_CONTRAST * camera.find_noise(around):
            continue
        flat = pick(rng, (0.6, 1.2))
        axes = max(radius_um / frame.um_across, 0.8), max(flat * radius_um / frame.um_down, 1.3)
        middle, halves = ([round(value * 2 ** SUBPIXEL) for value in pair] for pair in ((column, row), axes))
        cv2.ellipse(drawn, middle, halves, 0, 0, 360, 255, -1, cv2.LINE_AA, SUBPIXEL)
        if radius_um > v.EXUDATE_UM[0]:
            half = max(1, round(axes[0]))
            image[round(row + axes[1]):, max(0, at - half):at + half + 1] *= pick(rng, (0.3, 0.8))
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
