"""Where a B-scan lies on the retina: the green lines of a screen's fundus picture. Reads and writes no file.

Bright green is this scan, dark green the other lines of its pattern. Places are px of the fundus picture, x to the
right, y downwards; angles are degrees, 0 to the right and 90 upwards.
"""

import math
from typing import NamedTuple

import cv2
import numpy as np

from processing.bscans import FUNDUS_PX, SCAN_ROWS, UM_ACROSS
from processing.counter import COUNTER_PX, check_counter
from processing.screens import NARROW_SCREEN, SCREEN

FUNDUS_UM = 768 * UM_ACROSS / FUNDUS_PX     # of a pixel of the fundus picture: it is as wide as a whole scan is long
GREEN = 18                                  # by which green exceeds red and blue in a line at least
BRIGHT = 0.75                               # of the brightest lines' green: what is less is dark green
HEAD_CORE, HEAD_GREEN = np.ones((5, 5), np.uint8), 120      # no line is as wide in both ways, the arrowhead is
AROUND_HEAD = np.ones((15, 15), np.uint8)
LEAST_PX = 40                               # a line's length
FIRST_PLACES, MORE_PLACES = 400, 1200       # that a line is fitted to at first, and then, before all of them
ENOUGH_PLACES = 12_000                      # to find a pattern by: of more, some are looked at
NEAR_PX, OFF_PX = 2.5, 1.2                  # from the line, of what belongs to it; root mean square of them at most
FILLED = 0.55                               # of a line's length that is seen at least
HEAD_PX, HEAD_WIDE_PX = 16, 3.0             # the arrowhead: how long, and beyond which distance it is no line
LEAST_HEAD = 10                             # its pixels there
BESIDE_PX = 5                               # from this scan's line, of what belongs to others
LEAST_LINE = 0.45                           # of the usual line's green, that a line has at least
FAINT_LINE = 0.15                           # of it: from here on it may be a line
LEAST_SPACING_PX = 5.5                      # of parallel lines; a JPEG, which halves colour, makes denser ones others
UNEVEN = 0.2                                # of the distance between two lines, that it may differ by
LEAST_OTHERS, MOST_OTHERS = 60, 1500        # pixels of other lines; of more, some are looked at
PARALLEL_DEG = 8.0                          # of a pixel's direction
PARALLEL, RADIAL = 0.85, 0.25               # shares of such pixels from which, and up to which, a pattern is named
RADIAL_OFF_PX = 8.0                         # of the other lines' crossings from their middle, median
CROSSING_PX = 50                            # from there on lines stand apart
MOST_COUNTED = 4000                         # places to count them by; of more, some are looked at
UPRIGHT = 0.35                              # of the angle between two lines, that the first may be turned by
EDGE_PX = 3                                 # from the picture's edge: what lies beyond is not seen
NEAR_FOVEA_UM = 500                         # the central subfield's radius: a visit without a scan there is remarked on
UNKNOWN, RADIAL_PATTERN, VOLUME_PATTERN = "unknown", "radial", "volume"


class Geometry(NamedTuple):
    """Where a scan lies. NaN and "" are what is not known."""

    pattern: str            # radial, volume or unknown
    start_x: float          # of the scan's first column; where the arrow's end is not known, the left end
    start_y: float
    end_x: float
    end_y: float
    angle_deg: float        # of the way from start to end; 0 to 360, without an arrow never to the left
    distance_um: float      # of the pattern's middle from the line: positive on its right, looking along it
    arrow: str              # end: the arrowhead was seen there; "": not
    line: float             # which of the pattern's lines it is, from 1 on: of a radial one clockwise from the upright
                            # one, of a volume from the bottom up, as the device counts, or from the left
    lines: float            # how many the pattern has
    counter: str            # whether the screen's own counter "agrees" with these or "differs"; "": it is not legible


NOTHING = Geometry(UNKNOWN, math.nan, math.nan, math.nan, math.nan, math.nan, math.nan, "", math.nan, math.nan,
                   "")


class _Pattern(NamedTuple):
    """What the other lines tell; NaN: not known."""

    name: str = UNKNOWN
    distance_px: float = math.nan       # how far right of the line its middle lies
    number: float = math.nan            # of the line, from 1 on
    total: float = math.nan             # of its lines


class _Line(NamedTuple):
    middle: np.ndarray      # 2: a point of it
    along: np.ndarray       # 2: unit vector
    first: float            # where it begins and ends, px from the middle
    last: float


def read_geometry(screen: np.ndarray) -> Geometry:
    """Read the lines of a screen's fundus picture.

    Args:
        screen: uint8 H x W x 3, blue first.

    Returns:
        Geometry; NOTHING where no such line is found, or the screen has another size than the device gives it: its
        scale is not known.
    """
    if screen.shape[1::-1] not in (SCREEN, NARROW_SCREEN):
        return NOTHING
    blue, green, red = cv2.split(np.ascontiguousarray(screen[:SCAN_ROWS, :FUNDUS_PX]))      # twice as fast of a copy
    greenness = cv2.subtract(green, cv2.max(blue, red))
    greenness[:COUNTER_PX[0], :COUNTER_PX[1]] = 0
    found = cv2.findNonZero(cv2.threshold(greenness, GREEN, 255, cv2.THRESH_BINARY)[1])
    if found is None or len(found) < LEAST_PX:
        return NOTHING
    found = found.reshape(-1, 2)        # N x 1 x 2 before OpenCV 5
    places, at = found.astype(np.float32), found[:, 1].astype(int) * FUNDUS_PX + found[:, 0].astype(int)
    values = greenness.take(at)
    head = cv2.dilate((cv2.erode(greenness, HEAD_CORE) > HEAD_GREEN).astype(np.uint8), AROUND_HEAD)
    is_line = head.take(at) == 0
    counts = np.bincount(values[is_line], minlength=256)[::-1].cumsum()
    level = max(0, 255 - int(np.searchsorted(counts, LEAST_PX)))        # a line has so many pixels at least
    bright = places[values >= BRIGHT * level]
    line = _fit_line(bright)
    if line is None:
        return NOTHING
    line, arrow = _turn_to_arrow(line, bright)
    start, end = line.middle + line.first * line.along, line.middle + line.last * line.along
    angle = math.degrees(math.atan2(-line.along[1], line.along[0])) % 360
    step = 1 + len(places) // ENOUGH_PLACES
    pattern = _find_pattern(line, places[::step], values[::step], greenness)
    counter = "" if math.isnan(pattern.number) else check_counter(screen, _list_numbers(pattern), int(pattern.total))
    return Geometry(pattern.name, float(start[0]), float(start[1]), float(end[0]), float(end[1]), angle,
                    pattern.distance_px * FUNDUS_UM, arrow, pattern.number, pattern.total, counter)


def _list_numbers(pattern: _Pattern) -> list[int]:
    """What the device may call this line: of a radial pattern it is not known which way round it counts."""
    number, total = int(pattern.number), int(pattern.total)
    return [number, (1 - number) % total + 1] if pattern.name == RADIAL_PATTERN else [number]


def _fit_line(places: np.ndarray) -> _Line | None:
    """The straight line through most of N x 2 bright places; None where there is none."""
    if len(places) < LEAST_PX:
        return None
    near = places[::1 + len(places) // FIRST_PLACES]
    along_x, along_y, x, y = cv2.fitLine(near, cv2.DIST_HUBER, 0, 0.01, 0.01).ravel()
    middle, along = np.array([x, y]), np.array([along_x, along_y])
    some = places[::1 + len(places) // MORE_PLACES]
    for seen in (some, some, some, places):
        off = np.abs((seen - middle.astype(np.float32)) @ np.array([-along[1], along[0]], np.float32))
        near = seen[off <= NEAR_PX]
        if len(near) < LEAST_PX:
            return None
        middle = near.mean(axis=0, dtype=float)
        x, y = (near - middle.astype(np.float32)).T
        angle = 0.5 * math.atan2(2 * float(x @ y), float(x @ x - y @ y))    # in which they spread most
        along = np.array([math.cos(angle), math.sin(angle)])
    off = np.abs((places - middle) @ np.array([-along[1], along[0]]))
    run = np.sort((near - middle) @ along)
    filled = len(np.unique(np.rint(run - run[0]))) / (run[-1] - run[0] + 1)     # halves would be rounded to even
    rms = math.sqrt(float((off[off <= NEAR_PX] ** 2).mean()))
    if run[-1] - run[0] < LEAST_PX or filled < FILLED or rms > OFF_PX or len(near) < 0.6 * len(places):
        return None
    return _Line(middle, along, float(run[0]), float(run[-1]))


def _turn_to_arrow(line: _Line, bright: np.ndarray) -> tuple[_Line, str]:
    """The line such that the arrowhead is at its end, and whether it was seen."""
    from_middle = bright - line.middle
    run, off = from_middle @ line.along, np.abs(from_middle @ np.array([-line.along[1], line.along[0]]))
    wide = (off > HEAD_WIDE_PX) & (off < HEAD_PX / 2)
    at_last = int((wide & (run > line.last - HEAD_PX)).sum())
    at_first = int((wide & (run < line.first + HEAD_PX)).sum())
    turned = _Line(line.middle, -line.along, -line.last, -line.first)
    if max(at_last, at_first) < LEAST_HEAD or 0.5 * max(at_last, at_first) < min(at_last, at_first):
        points_left = line.along[0] < 0 if abs(line.along[0]) > 1e-3 else line.along[1] > 0    # upright ones: upwards
        return (turned if points_left else line), ""
    return (line, "end") if at_last > at_first else (turned, "end")


def _find_pattern(line: _Line, places: np.ndarray, values: np.ndarray, greenness: np.ndarray) -> _Pattern:
    """Which pattern the other lines make, and where this one lies in it."""
    right = np.array([-line.along[1], line.along[0]], np.float32)       # y grows downwards
    off = (places - line.middle.astype(np.float32)) @ right
    others = places[np.abs(off) > BESIDE_PX]
    others = others[::1 + len(others) // MOST_OTHERS]
    if len(others) < LEAST_OTHERS:
        return _Pattern()
    directions, is_clear = _find_directions(greenness, others)
    turned = np.abs(directions @ right)                     # sine of the angle to the line
    turned, directions, others = turned[is_clear], directions[is_clear], others[is_clear]
    if len(others) < LEAST_OTHERS:
        return _Pattern()
    parallel = float((turned < math.sin(math.radians(PARALLEL_DEG))).mean())
    if parallel >= PARALLEL:
        return _measure_volume(line, off, values, right)
    crossing = _find_crossing(line, others, directions, right) if parallel <= RADIAL else None
    if crossing is None:
        return _Pattern()
    return _Pattern(RADIAL_PATTERN, 0.0, *_count_radial(line, places, values, crossing))


def _find_directions(greenness: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The direction of the line that each place lies on (N x 2 unit vectors), and whether it is clear (N)."""
    smooth = cv2.pyrDown(greenness)                             # half the size
    down, across = cv2.Sobel(smooth, cv2.CV_32F, 0, 1), cv2.Sobel(smooth, cv2.CV_32F, 1, 0)
    parts = [cv2.boxFilter(part, -1, (5, 5)) for part in (across * across, down * down, across * down)]
    columns, rows = (places // 2).astype(int).T
    xx, yy, xy = (part[rows, columns] for part in parts)
    angle = 0.5 * np.arctan2(2 * xy, xx - yy) + np.pi / 2       # across the steepest slope
    clear = np.hypot(xx - yy, 2 * xy) > 0.8 * (xx + yy)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1), clear


def _measure_volume(line: _Line, off: np.ndarray, values: np.ndarray, right: np.ndarray) -> _Pattern:
    """The middle between the outermost of parallel lines; not known where one may lie outside the picture.

    Args:
        line: this scan's.
        off: N, how far right of it each green place lies.
        values: N, how green they are.
        right: unit vector.
    """
    steps = np.floor(off + 0.5).astype(int)     # np.rint would send halves to either side, and lines lie at halves
    first = int(steps.min()) - 2
    profile = np.pad(np.bincount(steps - steps.min(), values), 2)       # of greenness across the lines
    smooth = np.convolve(profile, [1, 1, 1], "same")
    peaks = _find_peaks(smooth)
    if len(peaks) < 3:
        return _Pattern()
    around = np.arange(5)
    windows = np.pad(profile, 2)[peaks[:, None] + around]
    spots = first - 2 + peaks + windows @ around / windows.sum(axis=1)      # centres of gravity
    spacing = float(np.median(np.diff(spots)))
    numbers = np.rint((spots - spots[0]) / spacing)
    if np.abs(np.diff(spots) / spacing - np.diff(numbers)).max() > UNEVEN:
        return _Pattern()
    spacing, start = np.polyfit(numbers, spots, 1)      # all lines say together where the outermost lie
    if spacing < LEAST_SPACING_PX:
        return _Pattern(VOLUME_PATTERN)
    ends = start, start + numbers[-1] * spacing
    middle = line.middle + (line.first + line.last) / 2 * line.along
    for outermost, way in zip(ends, (-1, 1), strict=True):
        beyond = middle + (outermost + way * spacing) * right
        at = round(outermost + way * spacing) - first           # a faint line there may be one, or not
        if (not ((beyond > EDGE_PX) & (beyond < FUNDUS_PX - 1 - EDGE_PX)).all()
                or smooth[max(0, at - 2):max(0, at + 3)].max(initial=0) > FAINT_LINE * np.median(smooth[peaks])):
            return _Pattern(VOLUME_PATTERN)
    before, total = numbers[np.abs(spots).argmin()], numbers[-1] + 1
    own = start + spacing * before                      # this scan's place among them, surer than its own
    counts_on = right[1] < 0 if abs(right[1]) > abs(right[0]) else right[0] > 0      # whether upwards, or rightwards
    return _Pattern(VOLUME_PATTERN, float(sum(ends) / 2 - own), float(before + 1 if counts_on else total - before),
                    float(total))


def _find_peaks(profile: np.ndarray) -> np.ndarray:
    """Where a profile across parallel lines has one: about as high as the others, and not beside a higher one."""
    is_peak = (profile > np.roll(profile, 1)) & (profile >= np.roll(profile, -1)) & (profile > 0.1 * profile.max())
    peaks = np.flatnonzero(is_peak)
    if len(peaks) == 0:
        return peaks
    peaks = peaks[profile[peaks] > LEAST_LINE * np.median(profile[peaks])]
    near = 0.75 * np.median(np.diff(peaks)) if len(peaks) > 2 else 0
    is_near = np.abs(peaks[:, None] - peaks) < near
    return peaks[profile[peaks] >= np.where(is_near, profile[peaks], 0).max(axis=1, initial=0)]


def _find_crossing(line: _Line, others: np.ndarray, directions: np.ndarray, right: np.ndarray) -> np.ndarray | None:
    """Where lines of other directions cross each other, and this scan's (2, px); None: not in one place."""
    normals = np.stack([-directions[:, 1], directions[:, 0]], axis=1)
    offsets = (normals * others).sum(axis=1)
    weights = np.ones(len(others))
    for _ in range(5):
        weighted = normals.T * weights ** 2
        centre = np.linalg.lstsq(weighted @ normals, weighted @ offsets, rcond=None)[0]
        missed = np.abs(normals @ centre - offsets)
        weights = 1 / np.maximum(1, missed / 2)
    is_one = float(np.median(missed)) <= RADIAL_OFF_PX and abs(float((centre - line.middle) @ right)) <= RADIAL_OFF_PX
    return centre if is_one else None


def _count_radial(line: _Line, places: np.ndarray, values: np.ndarray, crossing: np.ndarray) -> tuple[float, float]:
    """Which of how many lines through one place this is, clockwise from the upright one; NaN where they are uneven.

    Args:
        line: this scan's.
        places, values: N x 2 and N, green places and how green they are.
        crossing: 2, px.
    """
    own = line.middle + line.along * ((crossing - line.middle) @ line.along)        # nearest to where they cross
    step = 1 + len(places) // MOST_COUNTED
    x, y = (places[::step] - own.astype(np.float32)).T
    is_far = np.hypot(x, y) > CROSSING_PX
    turns = np.degrees(np.arctan2(x, -y))[is_far] % 180                 # clockwise from upright
    profile = np.bincount((turns * 2).astype(int) % 360, values[::step][is_far], minlength=360)     # half degrees
    smooth = np.convolve(np.pad(profile, 40, "wrap"), [1, 1, 1, 1, 1], "same")
    peaks = _find_peaks(smooth) - 40
    peaks = peaks[(peaks >= 0) & (peaks < 360)]
    own_turn = math.degrees(math.atan2(line.along[0], -line.along[1])) % 180
    spacing = 180 / max(1, len(peaks))
    off = ((peaks + 0.5) / 2 - own_turn) / spacing
    before = own_turn / spacing
    if len(peaks) < 3 or np.abs(off - np.rint(off)).max() > UNEVEN or abs(before - round(before)) > UPRIGHT:
        return math.nan, math.nan
    return float(round(before) % len(peaks) + 1), float(len(peaks))
