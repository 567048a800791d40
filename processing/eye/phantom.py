"""Paint the B-scan that a synthetic eye would give.

Reads and writes no file. Grey values, blur and noise were measured on a real B-scan of a normal eye: a black
vitreous, bright nerve fibres, the dark outer nuclear layer, the bright double line of ellipsoid zone and RPE,
a choroid with dark vessels that fades into noise.
"""

import cv2
import numpy as np

from processing.eye.anatomy import Eye, Visit
from processing.eye.section import PIXEL_ACROSS_UM, PIXEL_DOWN_UM, RPE, Scan, cut_section

BSCAN_ROWS = 496            # px, all B-scans
BSCAN_COLUMNS = 768         # px, most B-scans
NARROW_COLUMNS = 512        # px, a few eyes
FUNDUS_PX = 496             # the fundus picture is square
FUNDUS_PIXEL_UM = BSCAN_COLUMNS * PIXEL_ACROSS_UM / FUNDUS_PX   # it shows what a full B-scan spans

# Mean grey value of each of section.LAYERS
LAYER_GREY = np.array([165, 98, 116, 86, 124, 60, 112, 72, 226, 160, 226, 62], np.float32)
BASAL_GREY = 130            # just below an RPE that is not lifted
SRF_GREY, CYST_GREY = 12, 24    # fluid: nearly as dark as the vitreous under the retina, less so in it
FOCUS_GREY = 235
EXUDATE_UM = 15             # foci of a larger radius cast a shadow
VITREOUS_GREY = 1.4
FLOOR_GREY = 21             # mean of the noise far below the retina
SPECKLE = 0.11              # standard deviation of tissue, relative to its grey value
NOISE_GREY = (1.6, 6.0, 16.0)           # standard deviation of the detector's noise: vitreous, retina, deep
SPECKLE_SIGMA_PX = (0.6, 0.76)          # across, down: gives the real neighbour correlations 0.5 and 0.65
SHARPNESS_PX = (0.7, 1.0)               # blur of the optics, across and down
CUT_OFF_PX = (14, 28)                   # most that eye movement leaves black at the right and below
LEAST_OVAL_PX = 1.2                     # half axes of what is just visible
SUBPIXEL = 4                            # fractional bits of the coordinates that OpenCV draws with


def render_bscan(visit: Visit, scan: Scan, rng: np.random.Generator, *, width: int = BSCAN_COLUMNS,
                 vessels: np.ndarray | None = None) -> np.ndarray:
    """One B-scan.

    Args:
        visit: anatomy.Visit.
        scan: anatomy.Scan.
        rng: numpy Generator for speckle and texture.
        width: columns, 768 or 512.
        vessels: what `draw_vessels` gives for this eye, to draw it once per visit; None: draw it here.

    Returns:
        uint8 array 496 x width.
    """
    section = cut_section(visit, scan, width=width)
    vessels = draw_vessels(visit.eye) if vessels is None else vessels
    places = to_fundus_px(np.stack([section.u_um, section.v_um], axis=-1)).astype(np.float32)
    vessel = cv2.remap(vessels, places[None, :, 0].copy(), places[None, :, 1].copy(), cv2.INTER_LINEAR)[0]
    image = _paint_retina(section, rng)
    _paint_choroid(image, section, visit.eye.choroid_um, rng=rng)
    _paint_ovals(image, section, section.foci[:, [0, 1, 2, 2]], grey=FOCUS_GREY)
    _paint_ovals(image, section, section.cysts, grey=CYST_GREY)
    _cast_shadows(image, section, vessel, rng=rng)
    image = cv2.GaussianBlur(image, (0, 0), sigmaX=SHARPNESS_PX[0], sigmaY=SHARPNESS_PX[1])
    return _add_noise(image * visit.eye.clarity, section, visit.quality_db, rng=rng)


def draw_vessels(eye: Eye) -> np.ndarray:
    """The eye's retinal vessels seen from the front: float32 array 496 x 496, 0 (none) to 1 (dark)."""
    picture = np.zeros((FUNDUS_PX, FUNDUS_PX), np.uint8)
    for path_um, width_um in eye.vessels:
        points = np.rint(to_fundus_px(path_um) * 2 ** SUBPIXEL).astype(np.int32)
        thickness = max(1, round(width_um / FUNDUS_PIXEL_UM))
        darkness = int(np.clip(70 + 1.7 * width_um, 0, 255))
        cv2.polylines(picture, [points], False, darkness, thickness, cv2.LINE_AA, SUBPIXEL)
    return cv2.GaussianBlur(picture, (0, 0), 0.6).astype(np.float32) / 255


def to_fundus_px(place_um: np.ndarray) -> np.ndarray:
    """(..., 2) array of places (u, v in um from the fovea) -> (x, y) in px of the fundus picture."""
    return np.asarray(place_um) / FUNDUS_PIXEL_UM + (FUNDUS_PX - 1) / 2


def _row(section, height_um):
    """Screen row (float) of a height above BM."""
    return (section.bm_row - height_um / PIXEL_DOWN_UM).astype(np.float32)


def _mask_below(rows):
    """Share of each pixel that lies below a surface: 496 x W, 0 to 1."""
    share = np.arange(BSCAN_ROWS, dtype=np.float32)[:, None] + 0.5 - rows
    return np.clip(share, 0, 1, out=share)


def _paint_retina(section, rng):
    """Vitreous and retina: 496 x W float32; below BM the last layer goes on."""
    width = section.u_um.size
    surfaces = [(top_um, grey * (1 + 0.10 * _wave(rng, width, 30) + 0.05 * _wave(rng, width, 4)))   # never quite even
                for top_um, grey in zip(section.tops_um, LAYER_GREY, strict=True)]
    above_rpe, below_rpe = surfaces[RPE - 1][1], surfaces[-1][1]
    fluid = np.where(section.srf_um > 2, np.float32(SRF_GREY), above_rpe)     # 2 um: half a pixel
    surfaces.insert(RPE, (section.tops_um[RPE] + section.srf_um, fluid))
    surfaces[-1] = section.tops_um[-1], np.where(section.ped_um > 2, below_rpe, np.float32(BASAL_GREY))
    image = np.full((BSCAN_ROWS, width), VITREOUS_GREY, np.float32)
    last = np.float32(VITREOUS_GREY)
    for top_um, grey in surfaces:
        image += (grey - last) * _mask_below(_row(section, top_um))
        last = grey
    return image


def _wave(rng, width, period_px):
    """Smooth noise along the columns, standard deviation about 1."""
    knots = rng.standard_normal(int(width / period_px) + 4).astype(np.float32)
    return cv2.resize(knots[None], (width, 1), interpolation=cv2.INTER_CUBIC)[0]


def _paint_choroid(image, section, choroid_um, *, rng):
    """Everything below BM: stroma that fades with depth, small vessels above large ones, sclera.

    Depths are in px (rows below BM); the large vessels begin at 10 to 22.
    """
    depth = np.arange(BSCAN_ROWS, dtype=np.float32)[:, None] - section.bm_row.astype(np.float32)
    small = _texture(rng, depth, section, grain_px=(13, 8))
    large = _texture(rng, depth, section, grain_px=(46, 24))
    thick_px = choroid_um / PIXEL_DOWN_UM
    fade = np.exp(-np.clip(depth / thick_px, 0, None) ** 2.2)
    deep = np.clip((depth - 10) / 12, 0, 1)
    lumen = np.clip(1.9 * (0.7 * small * (1 - deep) + (large + 0.4 * small) * deep) + 0.3, 0, 1)
    lumen *= np.clip(depth / 8, 0, 1)
    stroma = 78 + 40 * np.exp(-np.clip(depth, 0, None) / 30) - 9 * small
    grey = FLOOR_GREY + (stroma - FLOOR_GREY) * fade * (1 - 0.85 * lumen)
    share = _mask_below(section.bm_row.astype(np.float32))
    image += (grey - image) * share


def _texture(rng, depth, section, *, grain_px):
    """Smooth noise that follows BM: 496 x W float32, standard deviation about 1; grain across and down."""
    rows, columns = BSCAN_ROWS // grain_px[1] + 8, section.u_um.size // grain_px[0] + 4
    grid = rng.standard_normal((rows, columns)).astype(np.float32)
    x = np.arange(section.u_um.size, dtype=np.float32) / grain_px[0] + 1
    x = np.broadcast_to(x, depth.shape)
    y = np.clip(depth / grain_px[1] + 1, 0, rows - 1)
    return cv2.remap(grid, np.ascontiguousarray(x), y, cv2.INTER_LINEAR)


def _paint_ovals(image, section, ovals, *, grey):
    """Fill ellipses (n x 4: column, height above BM, half width, half height in um), the last one on top."""
    if not len(ovals):
        return
    mask = np.zeros(image.shape, np.uint8)
    for column, height_um, wide_um, high_um in ovals:
        centre = column, section.bm_row[int(column)] - height_um / PIXEL_DOWN_UM
        axes = max(wide_um / PIXEL_ACROSS_UM, LEAST_OVAL_PX), max(high_um / PIXEL_DOWN_UM, LEAST_OVAL_PX)
        _fill_oval(mask, centre, (axes[0] + 1, axes[1] + 1.5), value=0)     # px: a wall to its neighbours
        _fill_oval(mask, centre, axes, value=255)
    image += (grey - image) * (mask.astype(np.float32) / 255)


def _fill_oval(mask, centre, axes, *, value):
    fixed = [tuple(round(v * 2 ** SUBPIXEL) for v in pair) for pair in (centre, axes)]
    cv2.ellipse(mask, *fixed, 0, 0, 360, value, -1, cv2.LINE_AA, SUBPIXEL)


def _cast_shadows(image, section, vessel, *, rng):
    """Vessels and thick tissue weaken what lies below; no two columns pass quite the same light."""
    inner = _mask_below(_row(section, section.tops_um[2]))
    thick_um = np.clip(section.tops_um[0] - section.srf_um - 320, 0, 600)       # 320: a healthy retina's
    exudates = np.zeros((1, section.u_um.size), np.float32)
    exudates[0, section.foci[section.foci[:, 2] > EXUDATE_UM, 0].astype(int)] = 1.5
    blocked = np.clip(cv2.GaussianBlur(exudates, (0, 0), 1.2)[0], 0, 1)
    light = (1 - 0.5 * vessel) * (1 - 0.5 * blocked) * np.exp(-thick_um / 1500)
    light *= 1 + 0.04 * _wave(rng, section.u_um.size, 2)
    image *= 1 - inner * (1 - light.astype(np.float32))
    wall = _mask_below(_row(section, section.tops_um[0] - 15)) - inner
    image += 30 * vessel * wall


def _add_noise(image, section, quality_db, *, rng):
    """Speckle in proportion to the signal, and detector noise that grows below the retina: uint8."""
    gain = 0.80 + 0.20 * np.clip((quality_db - 15) / 12, 0, 1)
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    noise = cv2.GaussianBlur(noise, (0, 0), sigmaX=SPECKLE_SIGMA_PX[0], sigmaY=SPECKLE_SIGMA_PX[1])
    noise /= noise.std()
    rows = np.arange(BSCAN_ROWS, dtype=np.float32)[:, None]
    vitreous, retina, deep = NOISE_GREY
    floor = vitreous + (retina - vitreous) * np.clip((rows - _row(section, section.tops_um[0])) / 10, 0, 1)
    floor += (deep - retina) * np.clip((rows - section.bm_row.astype(np.float32)) / 60, 0, 1)
    floor *= 1 + 0.03 * (25 - quality_db)
    image = image * gain + noise * np.sqrt((SPECKLE * image) ** 2 + floor ** 2)
    right, below = rng.integers(0, CUT_OFF_PX)
    image[BSCAN_ROWS - below:] = 0
    image[:, image.shape[1] - right:] = 0
    return np.clip(image, 0, 255).astype(np.uint8)
