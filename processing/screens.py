"""Is a screen as the device makes it? By its size, and by how much of a crop is black. Reads and writes nothing."""

import numpy as np

SCREEN, NARROW_SCREEN = (1264, 596), (1008, 596)        # px, width x height, as the device writes them
# Grey level up to which a row or column counts as black throughout; JPEG ripples beside an edge. The real image at a
# seventh of its brightness has none such
BLACK_LEVEL = 8
STEP_PX = 8                 # between the pixels that are looked at: 20 us a crop
MOST_PERCENT = {SCREEN: 50, NARROW_SCREEN: 65}      # of a crop, black; 30 lie beside a narrow screen


def measure_black(crop: np.ndarray) -> int:
    """How much of a crop lies in rows or columns that are black throughout, as what lies outside the screen is.

    Args:
        crop: uint8 array, H x W x 3.

    Returns:
        percent, 0 to 100.
    """
    lit = crop[::STEP_PX, ::STEP_PX, 1] > BLACK_LEVEL
    return round(100 * (1 - lit.any(axis=0).mean() * lit.any(axis=1).mean()))


def explain_oddity(size: tuple[int, int], black: int) -> str:
    """What is not as expected of a screen.

    Args:
        size: its width and height, px.
        black: of measure_black, of the crop of its B-scan.

    Returns:
        The reason; empty where the screen is as the device makes it.
    """
    is_usual = size in MOST_PERCENT
    if is_usual and black <= MOST_PERCENT[size]:
        return ""
    reasons = [] if is_usual else [f"no screen of the device has {size[0]} x {size[1]} pixels"]
    return ", ".join([*reasons, *([f"{black} % of the crop is black"] if black else [])])
