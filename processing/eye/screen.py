"""Draw the whole device screen: fundus picture with the scan lines, B-scan, scale bars and captions.

Reads and writes no file. Only the scan lines and the counter are coloured; the rest is grey.
"""

from dataclasses import replace
from typing import NamedTuple

import cv2
import numpy as np

from processing.eye.anatomy import DISC_UM, Eye, Visit
from processing.eye.phantom import (
    BSCAN_COLUMNS,
    BSCAN_ROWS,
    FUNDUS_PIXEL_UM,
    FUNDUS_PX,
    draw_vessels,
    render_bscan,
    to_fundus_px,
)
from processing.eye.section import PIXEL_ACROSS_UM, PIXEL_DOWN_UM, Scan

SCREEN_ROWS = 596                       # px; columns: the fundus picture's 496 and the B-scan's
DARK_GREEN, BRIGHT_GREEN = (0, 128, 0), (0, 255, 0)     # BGR: the pattern's lines, and this scan's
WHITE = (255, 255, 255)
SCALE_UM = 200                          # length of the scale bars
TEXT_SIZE = 0.45                        # letters about 12 px high


class Fundus(NamedTuple):
    """The infrared picture of one eye's visit."""

    grey: np.ndarray        # uint8 496 x 496
    vessels: np.ndarray     # float32 496 x 496, see phantom.draw_vessels


def render_fundus(eye: Eye, rng: np.random.Generator) -> Fundus:
    """The fundus from the front: vessels, optic disc, a darker macula, uneven light.

    Args:
        eye: anatomy.Eye.
        rng: numpy Generator.

    Returns:
        Fundus.
    """
    vessels = draw_vessels(eye)
    y, x = np.mgrid[:FUNDUS_PX, :FUNDUS_PX].astype(np.float32)
    u_um, v_um = np.moveaxis((np.stack([x, y], -1) - (FUNDUS_PX - 1) / 2) * FUNDUS_PIXEL_UM, -1, 0)
    cloud = cv2.resize(rng.standard_normal((8, 8)).astype(np.float32), (FUNDUS_PX, FUNDUS_PX),
                       interpolation=cv2.INTER_CUBIC)
    grain = cv2.GaussianBlur(rng.standard_normal(x.shape, dtype=np.float32), (0, 0), 1.2)
    macula = np.exp(-(u_um ** 2 + v_um ** 2) / 900 ** 2)
    disc = np.hypot(u_um - DISC_UM * (1 if eye.right else -1), v_um * 0.85) < 750
    disc = cv2.GaussianBlur(disc.astype(np.float32), (0, 0), 3)
    grey = rng.uniform(150, 195) + 14 * cloud + 22 * grain - 40 * macula
    grey *= (1 - 0.6 * vessels) * (1 - 0.65 * disc)
    return Fundus(np.clip(grey, 0, 255).astype(np.uint8), vessels)


def render_screen(visit: Visit, scan: Scan, rng: np.random.Generator, *, fundus: Fundus, date: str,
                  width: int = BSCAN_COLUMNS) -> np.ndarray:
    """One device screen.

    Args:
        visit: anatomy.Visit.
        scan: anatomy.Scan.
        rng: numpy Generator.
        fundus: what `render_fundus` gave for this visit.
        date: text for the caption.
        width: columns of the B-scan, 768 or 512.

    Returns:
        uint8 array 596 x (496 + width) x 3, BGR.
    """
    screen = np.zeros((SCREEN_ROWS, FUNDUS_PX + width, 3), np.uint8)
    screen[:FUNDUS_PX, :FUNDUS_PX] = fundus.grey[..., None]
    bscan = render_bscan(visit, scan, rng, width=width, vessels=fundus.vessels)
    screen[:BSCAN_ROWS, FUNDUS_PX:] = bscan[..., None]
    _draw_pattern(screen[:FUNDUS_PX, :FUNDUS_PX], scan, width * PIXEL_ACROSS_UM)
    _draw_scale(screen, 10, (FUNDUS_PIXEL_UM, FUNDUS_PIXEL_UM))
    _draw_scale(screen, FUNDUS_PX + 10, (PIXEL_ACROSS_UM, PIXEL_DOWN_UM))
    _write(screen, f"{scan.number} / {scan.total}", (5, 19), colour=BRIGHT_GREEN)
    _write(screen, f"{date}, {'OD' if visit.eye.right else 'OS'}", (10, 551))
    _write(screen, f"IR&OCT 30 deg ART [HS] ART(15) Q: {visit.quality_db}", (10, 581))
    return screen


def _draw_pattern(picture, scan, length_um):
    """All lines of the pattern in dark green, then this scan's in bright green with its arrowhead."""
    for number in range(1, scan.total + 1):
        _draw_line(picture, replace(scan, number=number), length_um, colour=DARK_GREEN)
    start, end = _draw_line(picture, scan, length_um, colour=BRIGHT_GREEN)
    along = (end - start) / np.hypot(*(end - start))
    across = np.array([-along[1], along[0]])
    tip = np.clip(end, 0, FUNDUS_PX - 1)
    head = np.stack([tip, tip - 11 * along + 6 * across, tip - 11 * along - 6 * across])    # 11 x 12 px
    cv2.fillPoly(picture, [np.rint(head).astype(np.int32)], BRIGHT_GREEN, cv2.LINE_AA)


def _draw_line(picture, scan, length_um, *, colour):
    half_um = scan.direction * length_um / 2
    middle_um = np.array([0.0, scan.offset_um])
    start, end = to_fundus_px(middle_um - half_um), to_fundus_px(middle_um + half_um)
    ends = [tuple(int(v) for v in np.rint(place)) for place in (start, end)]
    cv2.line(picture, *ends, colour, 2 if scan.radial else 1, cv2.LINE_AA)
    return start, end


def _draw_scale(screen, left, pixel_um):
    """A white corner, 200 um across and 200 um down, with its caption. `pixel_um`: across, down."""
    across, down = (round(SCALE_UM / um) for um in pixel_um)
    corner = [(left, 486 - down), (left, 486), (left + across, 486)]
    cv2.polylines(screen, [np.array(corner, np.int32)], False, WHITE, 2)
    _write(screen, f"{SCALE_UM} um", (left + 5, 481))


def _write(screen, text, place, *, colour=WHITE):
    cv2.putText(screen, text, place, cv2.FONT_HERSHEY_SIMPLEX, TEXT_SIZE, colour, 1, cv2.LINE_AA)
