"""Membranes and layers of a scan to learn from, as curves along its columns. Reads and writes no file.

Heights are um above Bruch's membrane (BM); rows grow downwards, and row r is the middle of pixel r. W columns.
"""

from typing import NamedTuple

import cv2
import numpy as np

from processing.eye import variety as v
from processing.eye.phantom import LAYER_GREY
from processing.eye.section import OUTER_TOPS_UM

Rng = np.random.Generator
Pair = tuple[float, float]

# What lies below each surface, from the inner limiting membrane (ILM) down
BANDS = ("RNFL", "GCL", "IPL", "INL", "OPL", "ONL", "ELM", "myoid", "ellipsoid", "interdigitation", "SRF", "RPE", "PED")
ELM, ELLIPSOID, SRF, RPE, PED = (BANDS.index(name) for name in ("ELM", "ellipsoid", "SRF", "RPE", "PED"))
SHARES = np.array([0.14, 0.20, 0.24, 0.20, 0.16])       # of RNFL to OPL in the inner retina


class Frame(NamedTuple):
    """Size and scale of a scan."""

    rows: int
    columns: int
    um_down: float
    um_across: float

    @property
    def x_um(self) -> np.ndarray:
        """W: distance of each column from the middle one."""
        return ((np.arange(self.columns) - (self.columns - 1) / 2) * self.um_across).astype(np.float32)


class Curves(NamedTuple):
    """A retina along a scan."""

    frame: Frame
    bm_row: np.ndarray          # W
    surfaces_um: np.ndarray     # len(BANDS) x W: upper surface of each band above BM
    greys: np.ndarray           # len(BANDS) x W
    swelling: np.ndarray        # W: um of it

    @property
    def ilm_row(self) -> np.ndarray:
        """W."""
        return self.bm_row - self.surfaces_um[0] / self.frame.um_down

    @property
    def srf_um(self) -> np.ndarray:
        """W: height of what lies between retina and RPE."""
        return self.surfaces_um[SRF] - self.surfaces_um[RPE]

    @property
    def ped_um(self) -> np.ndarray:
        """W: height by which the RPE is lifted."""
        return self.surfaces_um[PED]


def pick(rng: Rng, pair: Pair) -> float:
    """A number of a range, each equally likely."""
    return float(rng.uniform(*pair))


def pick_small(rng: Rng, pair: Pair) -> float:
    """A number of a range above 0, each order of magnitude equally likely."""
    return float(np.exp(rng.uniform(*np.log(pair))))


def pick_count(rng: Rng, pair: tuple[int, int]) -> int:
    """A whole number of a range, small ones commoner."""
    return int(pick_small(rng, (pair[0] + 1, pair[1] + 2))) - 1


def wave(rng: Rng, width: int, period: float) -> np.ndarray:
    """Smooth noise along W columns, standard deviation about 1; `period`: of its waves, columns."""
    knots = rng.standard_normal(max(4, int(width / period) + 4)).astype(np.float32)
    return cv2.resize(knots[None], (width, 1), interpolation=cv2.INTER_CUBIC)[0]


def make_texture(rng: Rng, shape: tuple[int, int], grain: Pair) -> np.ndarray:
    """Smooth noise: float32 H x W, standard deviation about 1; grain: px down and across."""
    grid = rng.standard_normal([max(4, int(size / step) + 3) for size, step in zip(shape, grain, strict=True)])
    return cv2.resize(grid.astype(np.float32), shape[::-1], interpolation=cv2.INTER_CUBIC) * np.float32(1.4)


def bell(x_um: np.ndarray, middle_um: float, radius_um: float) -> np.ndarray:
    """A smooth hill of height 1."""
    return np.exp(-((x_um - middle_um) / radius_um) ** 2)


def dome(x_um: np.ndarray, middle_um: float, radius_um: float, steepness: float) -> np.ndarray:
    """A hill of height 1 that ends at its radius; `steepness` 0.4 (a blister) to 1.5 (it runs out flat)."""
    return np.clip(1 - ((x_um - middle_um) / radius_um) ** 2, 0, None) ** steepness


def draw_frame(rng: Rng, rows: int, columns: int) -> Frame:
    """Choose the scale."""
    if rng.random() < v.USUAL_SCALE:
        return Frame(rows, columns, *(um * pick(rng, (0.97, 1.03)) for um in v.USUAL_UM))
    return Frame(rows, columns, pick_small(rng, v.UM_DOWN), pick_small(rng, v.UM_ACROSS))


def draw_curves(rng: Rng, frame: Frame) -> Curves:
    """Invent a retina with what lifts it; what lies within it (cysts, foci) comes after."""
    neural_um, distance_um, swelling = _draw_thickness(rng, frame)
    greys = _draw_greys(rng, frame, swelling)
    sick_um = _pick_place(rng, frame)
    srf_um, is_fluid = _draw_subretinal(rng, frame, sick_um)
    ped_um, ped_grey = _draw_detachments(rng, frame, sick_um)
    greys[ELM - 1] *= 1 - (1 - pick(rng, v.FOVEA_SHADE)) * bell(distance_um, 0, 400)
    greys[SRF - 1] = pick(rng, v.INTERDIGITATION_GREY) * greys[SRF - 1] / greys[SRF - 1].mean()
    greys[RPE] *= pick(rng, v.RPE_SHADE)
    greys[SRF] = pick(rng, v.SRF_GREY) if is_fluid else pick(rng, v.MATERIAL_GREY) + 12 * wave(rng, frame.columns, 30)
    greys[PED] = ped_grey
    rpe_um = pick(rng, v.RPE_UM) * (1 + 0.12 * wave(rng, frame.columns, 25))
    rpe_um *= 1 + pick(rng, v.RPE_FOVEA) * bell(distance_um, 0, 600)
    surfaces_um = np.concatenate([
        _stack_layers(rng, neural_um, distance_um, swelling) + srf_um + ped_um,
        [srf_um + ped_um + rpe_um, ped_um + rpe_um, ped_um],
    ])
    surfaces_um = np.minimum.accumulate(np.maximum(surfaces_um, 0), axis=0).astype(np.float32)
    return Curves(frame, _place(rng, frame, surfaces_um[0]), surfaces_um, greys.astype(np.float32), swelling)


def _draw_thickness(rng: Rng, frame: Frame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of the retina itself, ILM to BM (W, um), the distance from the fovea (W, um), and the swelling in it (W, um)."""
    width_um = frame.columns * frame.um_across
    middle_um = pick(rng, (-0.35, 0.35)) * width_um
    off_um = 0 if rng.random() < v.THROUGH_FOVEA else pick(rng, v.OFF_FOVEA_UM)
    along_um = frame.x_um - middle_um
    distance_um = np.hypot(along_um, off_um)
    far_um, rim_um, radius_um = pick(rng, v.FAR_UM), pick(rng, v.RIM_UM), pick(rng, v.PIT_RADIUS_UM)
    pit_um = max(0, far_um + rim_um - pick(rng, v.FOVEA_UM))
    thickness = far_um + rim_um * bell(distance_um, 0, 1600) - pit_um * bell(distance_um, 0, radius_um)
    thickness += pick(rng, v.NASAL_UM) * np.clip(along_um / 4000, -0.3, 1)
    swelling = np.zeros(frame.columns, np.float32)
    if rng.random() < v.SWOLLEN:
        for _ in range(rng.integers(1, 4)):
            where_um = middle_um + rng.normal(0, 900)
            swelling += pick_small(rng, v.SWELLING_UM) * bell(frame.x_um, where_um, pick(rng, v.SWELLING_RADIUS_UM))
        thickness += np.minimum(swelling, 600)
    if rng.random() < v.ATROPHIC:
        thinned = pick(rng, v.ATROPHY)
        thickness *= 1 - (1 - thinned) * bell(frame.x_um, pick(rng, (-0.5, 0.5)) * width_um, pick(rng, (800, 5000)))
    if rng.random() < v.TRACTION:
        thickness += pick(rng, v.TRACTION_UM) * np.exp(-np.abs(along_um) / pick(rng, (80, 400)))
    if rng.random() < v.WRINKLED:
        thickness += pick(rng, v.WRINKLES_UM) * wave(rng, frame.columns, pick(rng, (40, 200)) / frame.um_across)
    thickness += pick(rng, (0, 8)) * wave(rng, frame.columns, 400 / frame.um_across)
    return np.maximum(thickness, 85).astype(np.float32), distance_um, swelling


def _stack_layers(rng: Rng, neural_um: np.ndarray, distance_um: np.ndarray, swelling: np.ndarray) -> np.ndarray:
    """Upper surfaces of RNFL to interdigitation (10 x W) of a retina that lies flat: the thickness, shared out."""
    tops_um = OUTER_TOPS_UM[:4, None]
    thinner = 1 - pick(rng, (0, 0.25)) * (1 - bell(distance_um, 0, 900))
    thinner *= 1 + pick(rng, v.OUTER_FOVEA) * bell(distance_um, 0, 450)
    outer_um = np.minimum(tops_um * pick(rng, v.OUTER) * thinner, 0.62 * neural_um * tops_um / OUTER_TOPS_UM[0])
    above_um = neural_um - outer_um[0]
    onl_um = pick(rng, (28, 60)) + pick(rng, (35, 80)) * bell(distance_um, 0, 550) + pick(rng, (0.15, 0.7)) * swelling
    onl_um = np.minimum(onl_um, pick(rng, (0.7, 0.92)) * above_um)
    shares = (SHARES * rng.uniform(0.6, 1.5, 5))[:, None] * np.ones_like(neural_um)
    shares[0] *= 0.5 + np.clip(distance_um / 2500, 0, 1.6)
    from_below = np.cumsum(shares[::-1], axis=0)[::-1] / shares.sum(axis=0)
    inner_um = outer_um[0] + onl_um + (above_um - onl_um) * from_below
    return np.concatenate([inner_um, (outer_um[0] + onl_um)[None], outer_um])


def _draw_greys(rng: Rng, frame: Frame, swelling: np.ndarray) -> np.ndarray:
    """Grey of each band (len(BANDS) x W): never quite even, alike in swollen tissue, broken where cells are lost."""
    base = np.concatenate([LAYER_GREY[:10], [0, LAYER_GREY[10], 0]])
    base += rng.normal(0, v.LAYER_NOISE, base.size)
    base = 110 + (base - 110) * pick(rng, v.CONTRAST)
    greys = np.stack([grey * (1 + 0.10 * wave(rng, frame.columns, 30) + 0.05 * wave(rng, frame.columns, 4))
                      for grey in base])
    lost = np.clip(swelling / 250, 0, 1) * pick(rng, v.INNER_LOST)
    greys[1:ELM] += (pick(rng, (55, 115)) - greys[1:ELM]) * lost
    if rng.random() < v.OUTER_LOST:
        x_um = frame.x_um
        gone = pick(rng, v.LOST_SHARE) * bell(x_um, pick(rng, (x_um[0], x_um[-1])), pick(rng, (150, 1500)))
        greys[ELM:SRF] += (pick(rng, (60, 120)) - greys[ELM:SRF]) * gone
    return np.clip(greys, 4, 255)


def _draw_subretinal(rng: Rng, frame: Frame, sick_um: float) -> tuple[np.ndarray, bool]:
    """Height of what lies between retina and RPE (W, um), at times near `sick_um`, and whether it is fluid."""
    is_fluid = rng.random() < v.SRF
    height = np.zeros(frame.columns, np.float32)
    if is_fluid or rng.random() < v.MATERIAL:
        for _ in range(rng.integers(1, 3)):
            high = pick_small(rng, v.SRF_UM if is_fluid else v.MATERIAL_UM)
            radius = max(pick_small(rng, v.SRF_RADIUS_UM), 1.5 * high)
            place_um = _pick_place(rng, frame, sick_um)
            height = np.maximum(height, high * dome(frame.x_um, place_um, radius, pick(rng, v.SRF_EDGE)))
        height *= 1 + pick(rng, (0, 0.12)) * wave(rng, frame.columns, 250 / frame.um_across)
    return np.maximum(height, 0), is_fluid


def _draw_detachments(rng: Rng, frame: Frame, sick_um: float) -> tuple[np.ndarray, np.ndarray]:
    """Height by which the RPE is lifted (W, um), at times near `sick_um`, and the grey below it (W)."""
    height, grey = np.zeros(frame.columns, np.float32), np.full(frame.columns, pick(rng, v.PED_GREY), np.float32)
    if rng.random() < v.PED:
        for _ in range(rng.integers(1, 3)):
            high = pick_small(rng, v.PED_UM)
            radius = max(pick_small(rng, v.PED_RADIUS_UM), 1.3 * high)
            hill = high * dome(frame.x_um, _pick_place(rng, frame, sick_um), radius, pick(rng, (0.5, 1.5)))
            height = np.maximum(height, hill)
        height *= 1 + pick(rng, (0, 0.15)) * wave(rng, frame.columns, 200 / frame.um_across)
    if rng.random() < v.DRUSEN:
        for _ in range(pick_count(rng, v.DRUSEN_COUNT)):
            high, radius = pick_small(rng, v.DRUSEN_UM), pick_small(rng, v.DRUSEN_RADIUS_UM)
            hill = high * dome(frame.x_um, _pick_place(rng, frame), max(radius, 0.8 * high), pick(rng, (0.6, 1.5)))
            grey = np.where(hill > height, pick(rng, (70, 165)), grey)
            height = np.maximum(height, hill)
    return np.maximum(height, 0), grey


def _pick_place(rng: Rng, frame: Frame, near_um: float | None = None) -> float:
    if near_um is not None and rng.random() < v.TOGETHER:
        return float(rng.normal(near_um, v.TOGETHER_UM))
    return float(pick(rng, (-0.5, 0.5)) * frame.columns * frame.um_across)


def _place(rng: Rng, frame: Frame, thickness_um: np.ndarray) -> np.ndarray:
    """Row of BM in each column: tilted, curved, seldom cut off at the top."""
    aside_um = pick(rng, (-1, 1)) * max(0, v.WHOLE_UM / 2 + frame.x_um[0])      # a narrow one may lie at a side
    x_um = frame.x_um + aside_um
    height_um = pick(rng, v.TILT) * x_um + pick(rng, v.CURVATURE_UM) * (x_um / 4400) ** 2
    height_um = height_um + pick(rng, v.WOBBLE_UM) * wave(rng, frame.columns, 500 / frame.um_across)
    if rng.random() >= v.LEAVES:
        room_um = max(0.0, v.SPAN * frame.rows * frame.um_down - float(thickness_um.max()))
        height_um *= min(1.0, room_um / max(float(np.ptp(height_um)), 1.0))
    curve = -(height_um - np.median(height_um)) / frame.um_down
    top = curve - thickness_um / frame.um_down
    row = pick(rng, v.BM_ROW) * frame.rows
    if rng.random() < v.CUT_TOP:
        return (curve - top.min() - pick(rng, (5, 90))).astype(np.float32)
    lowest, highest = frame.rows - 12 - curve.max(), 4 - top.min()
    return (curve + np.clip(row, min(lowest, highest), max(lowest, highest))).astype(np.float32)
