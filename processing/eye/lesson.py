"""One scan to learn from: a B-scan of an invented retina, and the truth about every pixel. Reads and writes no file."""

from typing import NamedTuple

import numpy as np

from processing.eye import variety as v
from processing.eye.camera import compress, draw_camera, draw_cloud, expose
from processing.eye.curves import (
    ELLIPSOID,
    ELM,
    PED,
    RPE,
    SRF,
    Curves,
    Rng,
    draw_curves,
    draw_frame,
    make_texture,
    pick,
)
from processing.eye.lesions import measure_heights, paint_cysts, paint_foci, paint_vessels
from processing.eye.surroundings import add_marks, add_rims, paint_choroid, paint_front

FLUIDS = ("IRF", "SRF", "PED", "foci")      # the order of the masks


class Lesson(NamedTuple):
    """A B-scan and its truth. H rows, W columns."""

    image: np.ndarray       # uint8 H x W
    ilm_row: np.ndarray     # float32 W: inner limiting membrane; NaN: not to be seen; negative: above the picture
    bm_row: np.ndarray      # float32 W: Bruch's membrane; NaN: not to be seen; H or more: below the picture
    masks: np.ndarray       # bool 4 x H x W: FLUIDS
    um_down: float          # scale of a pixel
    um_across: float

    @property
    def is_readable(self) -> np.ndarray:
        """bool W: columns in which both membranes are in the picture and can be seen."""
        with np.errstate(invalid="ignore"):
            return (self.ilm_row >= 0) & (self.bm_row <= len(self.image) - 1)


def draw_lesson(seed: int | list[int], *, rows: int = 496, columns: int = 768) -> Lesson:
    """Invent a scan.

    Args:
        seed: whole number or several; with the size it determines every byte.
        rows, columns: of the picture, 64 or more.

    Returns:
        Lesson.
    """
    rng = np.random.default_rng(seed)
    frame = draw_frame(rng, rows, columns)
    curves = draw_curves(rng, frame)
    heights = measure_heights(curves)
    image = _paint_bands(rng, heights, curves)
    camera, light, cloud = draw_camera(rng), np.ones(columns, np.float32), draw_cloud(rng, curves)
    paint_choroid(rng, image, heights, curves)
    _paint_deposits(rng, image, heights, curves)
    paint_vessels(rng, image, heights, curves, light)
    foci = paint_foci(rng, image, curves, camera, light * cloud)
    cysts = paint_cysts(rng, image, heights, curves, camera, light * cloud)
    paint_front(rng, image, heights, curves)
    image *= 1 - (heights < curves.surfaces_um[2]) * (1 - light)
    disc = _cut_disc(rng, image, heights, curves)
    shown = compress(rng, expose(rng, image, camera, cloud))
    add_marks(rng, shown)
    rims = add_rims(rng, shown)
    inner, outer = curves.greys[:ELM].max(axis=0), curves.greys[[ELLIPSOID, RPE]].max(axis=0)
    hidden = disc | camera.find_hidden(np.minimum(inner, outer) * cloud)
    return _tell_truth(shown, curves, heights, cysts, foci & ~cysts, hidden=hidden, rims=rims)


def _paint_bands(rng: Rng, heights: np.ndarray, curves: Curves) -> np.ndarray:
    """Vitreous and retina: float32 H x W."""
    band = np.zeros(heights.shape, np.uint8)
    for surface in curves.surfaces_um:
        band += heights <= surface
    greys = np.concatenate([np.full((1, heights.shape[1]), pick(rng, v.VITREOUS_GREY), np.float32), curves.greys])
    image = np.take_along_axis(greys, band.astype(np.intp), axis=0)
    frame = curves.frame
    grain = pick(rng, (20, 90)) / frame.um_down, pick(rng, (40, 400)) / frame.um_across
    image *= 1 + pick(rng, (0, 0.12)) * make_texture(rng, image.shape, grain)   # never so dark as a cyst
    return image


def _paint_deposits(rng: Rng, image: np.ndarray, heights: np.ndarray, curves: Curves) -> None:
    """Texture of what lies under a lifted RPE, the thin line of BM there, and the RPE's shadow."""
    lifted = (heights > 0) & (heights < curves.ped_um)
    if lifted.any():
        image += lifted * make_texture(rng, image.shape, (12, 12)) * pick(rng, v.PED_TEXTURE)
        line = lifted & (heights < 7) & (curves.ped_um > 25)
        image[line] = np.maximum(image[line], pick(rng, (40, 170)))
        shade = (1 - pick(rng, v.PED_SHADE)) * np.clip(curves.ped_um / pick(rng, v.SHADED_UM), 0, 1)
        image *= 1 - (heights < curves.ped_um) * shade


def _cut_disc(rng: Rng, image: np.ndarray, heights: np.ndarray, curves: Curves) -> np.ndarray:
    """At times the optic disc's edge lies at one side: no layers, no BM. Returns where: bool W."""
    frame = curves.frame
    if rng.random() >= v.DISC:
        return np.zeros(frame.columns, bool)
    width = min(int(pick(rng, v.DISC_UM) / frame.um_across), frame.columns // 4)
    inside = np.zeros(frame.columns, bool)
    inside[slice(0, width) if rng.random() < 0.5 else slice(frame.columns - width, None)] = True
    tissue = inside & (heights < curves.surfaces_um[0])
    fade = np.exp(-np.maximum(curves.surfaces_um[0] - heights, 0) / pick(rng, (150, 500)))
    image[tissue] = (pick(rng, (90, 200)) * fade * (1 + 0.2 * make_texture(rng, image.shape, (14, 9))))[tissue]
    return inside


def _tell_truth(shown: np.ndarray, curves: Curves, heights: np.ndarray, cysts: np.ndarray, foci: np.ndarray, *,
                hidden: np.ndarray, rims: tuple[int, int, int, int]) -> Lesson:
    rows, columns = shown.shape
    top, bottom, left, right = rims
    hidden[:left], hidden[columns - right:] = True, True
    srf_um, least = curves.srf_um, max(v.LEAST_FLUID_UM, 2.5 * curves.frame.um_down)
    is_fluid = float(curves.greys[SRF].mean()) <= v.SRF_GREY[1]
    srf = (heights > curves.surfaces_um[RPE]) & (heights <= curves.surfaces_um[SRF]) & (srf_um >= least) & is_fluid
    ped = (heights > 0) & (heights <= curves.surfaces_um[PED]) & (curves.ped_um >= least)
    within = (heights > 0) & (heights < curves.surfaces_um[0])
    masks = np.stack([cysts, srf, ped, foci & within]) & ~hidden
    masks[:, :top], masks[:, rows - bottom:] = False, False
    ilm_row = np.where(hidden, np.nan, curves.ilm_row).astype(np.float32)
    bm_row = np.where(hidden, np.nan, curves.bm_row).astype(np.float32)
    ilm_row[(ilm_row >= 0) & (ilm_row < top)] = -1          # behind the rim
    bm_row[bm_row > rows - 1 - bottom] = rows
    return Lesson(shown, ilm_row, bm_row, masks, curves.frame.um_down, curves.frame.um_across)

