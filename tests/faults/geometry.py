"""Scan lines, scale bars and counters on screens of all kinds: each is read rightly or called unknown."""

from collections import Counter

import numpy as np

from processing.bscans import find_bscan
from processing.geometry import UNKNOWN, read_geometry
from tests.faults import Figure, scaled
from tests.lines import draw_screen

SCREENS = 2000
ANGLE_DEG, DISTANCE_UM = 1.0, 15.0      # by which what is read may differ
SCALE_OFF = 0.07                        # of a scale, by which it may say itself to be off at most; else it is unknown
ROUNDING_UM, NEAR = 1e-6, 0.02


def scan_lines(share, folder):
    """Radial and volume patterns, 768 and 512 columns, JPEG of every quality, off the middle, clipped."""
    fates = Counter(judge(draw_screen([SCREENS, seed])) for seed in range(scaled(SCREENS, share)))
    return _sum_up("scan lines of all kinds, none wrong without saying unknown", fates)


def scales(share, folder):
    """Scale bars of the same screens: within what they say themselves that they may be off by."""
    drawn = [draw_screen([SCREENS, seed]) for seed in range(scaled(SCREENS, share))]
    scans = [find_bscan(one.screen) for one in drawn]
    fates = Counter(_judge_scale(scan, one) or "right" for scan, one in zip(scans, drawn, strict=True))
    near = [[abs(um / truth - 1) <= NEAR for um, truth in pairs if np.isfinite(truth)] for pairs in (
        [(scan.um_down, one.um_down) for scan, one in zip(scans, drawn, strict=True)],
        [(scan.um_across, one.um_across) for scan, one in zip(scans, drawn, strict=True)])]
    return _sum_up(f"scales within their own bounds ({100 * NEAR:.0f} % of the truth: down {np.mean(near[0]):.3f}, "
                   f"across {np.mean(near[1]):.3f} of them)", fates)


def counters(share, folder):
    """Counters of the same screens, one in twelve of which tells another line: none contradicts its own lines."""
    fates = Counter()
    for seed in range(scaled(SCREENS, share)):
        drawn = draw_screen([SCREENS, seed])
        said = read_geometry(drawn.screen).counter or "illegible"
        own = "own" if drawn.counter == "agrees" else "another line's"
        fates[("wrong: " if (own, said) == ("own", "differs") else "") + f"{own} {said}"] += 1
    return _sum_up("counters, none wrongly said to differ", fates)


def _sum_up(what, fates):
    wrong = sum(count for fate, count in fates.items() if fate.startswith("wrong"))
    return Figure(what, fates.total(), fates.total() - wrong,
                  ", ".join(f"{fate} {count}" for fate, count in fates.most_common()))


def judge(drawn):
    """What became of one screen."""
    found = read_geometry(drawn.screen)
    if np.isnan(found.angle_deg):
        return "no line"
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
    if np.isnan(found.line):
        return "unknown line"
    if (found.line, found.lines) != (drawn.line, drawn.lines):
        return f"wrong line: {drawn.line} of {drawn.lines} as {found.line} of {found.lines}"
    is_turned = abs((found.angle_deg - drawn.angle_deg + 180) % 360 - 180) > 90
    off_um = found.distance_um - drawn.distance_um * (-1 if is_turned else 1)
    return "right" if abs(off_um) <= DISTANCE_UM else f"wrong distance by {off_um:.0f} um"


def _judge_scale(scan, drawn):
    """What is wrong, or unknown, of a screen's scale; empty if it is right."""
    for um, off, truth in ((scan.um_down, scan.um_down_off, drawn.um_down),
                           (scan.um_across, scan.um_across_off, drawn.um_across)):
        if np.isnan(truth):
            continue
        if not off <= SCALE_OFF * um:
            return "unknown scale"
        if abs(um - truth) > off + ROUNDING_UM:
            return f"wrong scale: {truth:.2f} as {um:.2f}, off by {off:.2f} at most"
    return "wrong scale: there is no bar" if np.isnan(drawn.um_down) and scan.scale == "scale bars" else ""


FIGURES = [scan_lines, scales, counters]
