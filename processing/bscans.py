"""The whole B-scan of a picture, with the scale of its pixels. Reads image files; writes nothing."""

import math
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from processing.images import ImageError, read_image
from processing.screens import NARROW_SCREEN, SCREEN

UM_DOWN, UM_ACROSS = 3.87, 11.5     # of a pixel: the Spectralis, where nothing else is known
FUNDUS_PX, SCAN_ROWS = 496, 496     # of a screen: columns before the B-scan, rows of it
LEAST_PX, MOST_ROWS, MOST_COLUMNS = 64, 4096, 8192      # of a B-scan, either side; rows and columns at most
BAR_UM = 200                        # length of a screen's scale bars
LIT = 128                           # grey of a bar at least
DOWN_PX, ACROSS_PX = (20, 160), (8, 120)    # how long a bar may be
THIN_PX = 2                         # lines up to this are as long as they look; wider ones were drawn from middle to
WIDEST_PX = 4                       # middle. Wider than this is no bar
SHORTER_PX, LONGER_PX = 0.5, 1.0    # than its whole pixels, by which a bar may be meant: they are rounded, or cut off
GREEN, FUNDUS_SHARE = 80, 0.5       # by which a screen's lines are greener than red or blue; they lie left of it
LEAST_GREEN_PX = 30


class Bscan(NamedTuple):
    """A B-scan as it was recorded. H rows, W columns."""

    pixels: np.ndarray      # uint8 H x W
    um_down: float          # scale of a pixel
    um_across: float
    scale: str              # where that comes from: "scale bars", "given", "given in part" (the rest is assumed) or
                            # "assumed"
    um_down_off: float = 0      # by which the scale may be another: bars have whole pixels; 0: it was given; NaN: it
    um_across_off: float = 0    # was assumed


def read_bscan(path: Path, *, um_down: float | None = None, um_across: float | None = None) -> Bscan:
    """Read a screen of the device, or a bare B-scan.

    Args:
        path: JPEG or PNG.
        um_down, um_across: scale of a pixel, where it is known, unless a screen's scale bars say another; None: by
            these, else the Spectralis'.

    Raises:
        ImageError: it cannot be read, or is too small or too high for a B-scan.
    """
    return find_bscan(read_image(path), um_down=um_down, um_across=um_across)


def find_bscan(image: np.ndarray, *, um_down: float | None = None, um_across: float | None = None) -> Bscan:
    """The B-scan of a picture (uint8 H x W x 3): of a screen what stands right of the fundus picture, else all of it.

    Args and errors as of read_bscan.
    """
    size = image.shape[1], image.shape[0]
    is_screen = size in (SCREEN, NARROW_SCREEN)
    grey = cv2.cvtColor(image[:SCAN_ROWS, FUNDUS_PX:] if is_screen else image, cv2.COLOR_BGR2GRAY)
    if min(grey.shape) < LEAST_PX or grey.shape[0] > MOST_ROWS or grey.shape[1] > MOST_COLUMNS:
        raise ImageError(f"{size[0]} x {size[1]} pixels are no B-scan: it has {LEAST_PX} or more either way, and up to "
                         f"{MOST_ROWS} rows and {MOST_COLUMNS} columns")
    if not is_screen and _shows_lines(image):
        raise ImageError(f"it looks like a screen of the device, cut or resized to {size[0]} x {size[1]} pixels; only "
                         f"{SCREEN[0]} x {SCREEN[1]} and {NARROW_SCREEN[0]} x {NARROW_SCREEN[1]} are known. Save the "
                         "screen as it was, or cut out its B-scan")
    bars = read_scale_bars(grey) if is_screen else None
    given = sum(length is not None for length in (um_down, um_across))
    scale = "scale bars" if bars else ("assumed", "given in part", "given")[given]
    seen = bars or ((UM_DOWN, math.nan), (UM_ACROSS, math.nan))
    down, across = (_choose_scale(*each) for each in zip((um_down, um_across), seen, strict=True))
    return Bscan(np.asarray(grey), down[0], across[0], scale, down[1], across[1])


def _choose_scale(given: float | None, seen: tuple[float, float]) -> tuple[float, float]:
    """What is given, where a bar may mean it or there is none; else what the bar says."""
    um, off = seen
    return seen if given is None or abs(given - um) > off else (given, 0.0)


def _shows_lines(image: np.ndarray) -> bool:
    """Whether there is bright green in the left half and none in the right: the lines on a screen's fundus picture."""
    blue, green, red = cv2.split(image)
    lit = cv2.subtract(green, cv2.max(blue, red)) >= GREEN
    middle = round(FUNDUS_SHARE * image.shape[1])
    return lit[:, :middle].sum() >= LEAST_GREEN_PX and not lit[:, middle:].any()


def read_scale_bars(grey: np.ndarray) -> tuple[tuple[float, float], tuple[float, float]] | None:
    """The scale that the white corner at the lower left of a screen's B-scan tells; it is 200 um high and wide.

    Args:
        grey: uint8 H x W.

    Returns:
        um of a pixel, and by how much it may be another, down and across; None where there is no such corner.
    """
    top = len(grey) // 2
    lit = (grey[top:, :grey.shape[1] // 2] >= LIT).astype(np.uint8)
    cores = cv2.erode(lit, np.ones((DOWN_PX[0], 1), np.uint8), borderValue=0)
    count, _, boxes, _ = cv2.connectedComponentsWithStats(cores, connectivity=8)
    for left, high, wide, long, _ in boxes[1:count]:
        if wide > WIDEST_PX:
            continue
        first = int(high) - DOWN_PX[0] // 2             # erosion took half of its kernel from either end
        last = first + int(long) + DOWN_PX[0] - 2
        found = _measure_corner(lit, int(left), int(wide), first, last)
        if found:
            return _to_scale(found[0], UM_DOWN), _to_scale(found[1], UM_ACROSS)
    return None


def _measure_corner(lit: np.ndarray, left: int, wide: int, first: int, last: int) -> tuple[float, float] | None:
    """Length in px, down and across, of a line with a foot to the right; None where it has none, or is no thin line."""
    rows, columns = lit.shape
    beside = [column for column in (left - 2, left + wide + 1) if 0 <= column < columns]
    if any(lit[first:last - 2 * WIDEST_PX, column].mean() > 0.2 for column in beside):
        return None
    around = lit[max(0, last - WIDEST_PX):min(rows, last + WIDEST_PX + 1), left:]
    feet = [int(np.argmin(np.append(row, 0))) for row in around]        # how far each row is lit from the line on
    across = max(feet)
    thick = sum(foot > across - 3 for foot in feet)
    down = last - first + 1
    if not (DOWN_PX[0] <= down <= DOWN_PX[1] and ACROSS_PX[0] <= across <= ACROSS_PX[1] and thick <= WIDEST_PX):
        return None
    more = wide if wide > THIN_PX else 0
    return down - more, across - more


def _to_scale(length_px: float, usual_um: float) -> tuple[float, float]:
    """The usual scale where a bar of so many pixels may have it, else the likeliest; and how far others lie from it."""
    shortest, longest = length_px - SHORTER_PX, length_px + LONGER_PX
    is_usual = shortest <= BAR_UM / usual_um <= longest
    um = usual_um if is_usual else 2 * BAR_UM / (shortest + longest)
    return um, max(BAR_UM / shortest - um, um - BAR_UM / longest)
