"""Scan lines on screens of all kinds: each is read rightly or called unknown."""

from collections import Counter

import numpy as np

from processing.bscans import find_bscan
from processing.geometry import UNKNOWN, read_geometry
from tests.faults import Figure, scaled
from tests.lines import draw_screen

SCREENS = 2000
ANGLE_DEG, DISTANCE_UM, DOWN, ACROSS = 1.0, 15.0, 0.02, 0.04        # by which what is read may differ


def scan_lines(share, folder):
    """Radial and volume patterns, 768 and 512 columns, JPEG of every quality, off the middle, clipped."""
    fates = Counter(judge(draw_screen([SCREENS, seed])) for seed in range(scaled(SCREENS, share)))
    wrong = {fate: count for fate, count in fates.items() if fate.startswith("wrong")}
    return Figure("scan lines of all kinds, none wrong without saying unknown", fates.total(),
                  fates.total() - sum(wrong.values()), ", ".join(f"{fate} {count}" for fate, count in fates.items()))


def judge(drawn):
    """What became of one screen."""
    found = read_geometry(drawn.screen)
    if np.isnan(found.angle_deg):
        return "no line"
    scan = find_bscan(drawn.screen)
    if scan.scale == "scale bars" and not abs(scan.um_down / drawn.um_down - 1) <= DOWN:
        return f"wrong scale: {drawn.um_down:.2f} as {scan.um_down:.2f}"
    if scan.scale == "scale bars" and not abs(scan.um_across / drawn.um_across - 1) <= ACROSS:
        return f"wrong scale: {drawn.um_across:.2f} as {scan.um_across:.2f} across"
    if scan.scale != "scale bars" and np.isfinite(drawn.um_down):
        return "unknown scale"
    circle = 360 if found.arrow else 180
    off = (found.angle_deg - drawn.angle_deg + circle / 2) % circle - circle / 2
    if abs(off) > ANGLE_DEG:
        return "wrong angle"
    if found.arrow and not drawn.has_arrow:
        return "wrong arrow"
    if found.pattern == UNKNOWN:
        return "unknown pattern"
    if found.pattern != drawn.pattern:
        return f"wrong pattern: {drawn.pattern} as {found.pattern}"
    if np.isnan(found.distance_um):
        return "unknown distance"
    is_turned = abs((found.angle_deg - drawn.angle_deg + 180) % 360 - 180) > 90
    off_um = found.distance_um - drawn.distance_um * (-1 if is_turned else 1)
    return "right" if abs(off_um) <= DISTANCE_UM else f"wrong distance by {off_um:.0f} um"


FIGURES = [scan_lines]
