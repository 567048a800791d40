"""Whether the counter at a screen's upper left (`1 / 6`) says what the lines say. Reads and writes no file.

Its letters are some 11 px high and green, a JPEG has their colour at half its resolution, and the device's font is not
at hand: so a number is not read, but compared with all that it might be, in a font that is.
"""

import functools
import itertools
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import cv2
import matplotlib
import numpy as np
from matplotlib.ft2font import FT2Font

COUNTER_PX = (26, 76)           # rows and columns that it may take
AGREES, DIFFERS = "agrees", "differs"
MOST_LINES = 64                 # numbers that are compared with
GREEN_GREY = 150                # of full green, as a JPEG keeps grey
LEAST_CONTRAST = 20             # of greys: on a ground that is closer to green's the letters have no shape
COLOURED_PX = 60                # places that are a letter's at least: as coloured as these letters are
COLOURED, INKED = 0.4, 0.35     # of a letter's colour and ink, from which a place belongs to it
CALM = 3                        # times the median deviation of the ground, by which letters must stand out from it
LETTER_HIGH_PX, UNEVEN_PX = (7, 16), 3      # how high letters are, and by how much they may differ
STROKE_PX, LEAN = 4, 0.12       # a stroke's width in a row at most; how far it leans at least, of its height
UNEVEN_BLANKS = 2.5             # times the one beside the stroke, that the other one may be wide
LEAST_AROUND = 20               # places beside letters to tell the ground by
LETTER_PX = (14, 20)            # rows and columns that a number is stretched to and laid in
BLUR_PX = 0.8
FONTS = ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf")       # matplotlib brings them
DRAWN_PT, SEEN_PX = 60, 11      # how large digits are drawn, and how high they are made then
WIDTHS = (0.85, 1.1)            # of the font's own
SHIFTS = [(left, right) for left in (-1, 0) for right in (0, 1)]        # of a number's edges
ALIKE, CLEAR = 0.8, 0.9         # correlations, from which a picture is one of a number, and clear enough to contradict
UNLIKE = 0.15                   # by which a number that it is not correlates less than the likeliest


class _Box(NamedTuple):
    """Columns and rows; the last ones are not included."""

    left: int
    right: int
    high: int
    low: int


def check_counter(screen: np.ndarray, numbers: Collection[int], lines: int) -> str:
    """Compare a screen's counter with what its lines say.

    Args:
        screen: uint8 H x W x 3, blue first.
        numbers: any of these may stand before the stroke, from 1 on.
        lines: what should stand behind it.

    Returns:
        AGREES, DIFFERS, or "" where the counter cannot be read.
    """
    if lines > MOST_LINES:
        return ""
    ink = _find_ink(screen[:COUNTER_PX[0], :COUNTER_PX[1]].astype(np.float32))
    boxes = None if ink is None else _find_numbers(ink)
    if ink is None or boxes is None:
        return ""
    before, behind = (_compare(ink, box) for box in boxes)
    if min(before.max(), behind.max()) < ALIKE:
        return ""
    off = [(likeliest, likeliest - wanted) for likeliest, wanted in (
        (before.max(), max(before[number - 1] for number in numbers)), (behind.max(), behind[lines - 1]))]
    if all(less <= UNLIKE for _, less in off):
        return AGREES
    return DIFFERS if any(less > UNLIKE and likeliest >= CLEAR for likeliest, less in off) else ""


def _find_ink(corner: np.ndarray) -> np.ndarray | None:
    """How much of a letter each place is, 0 to 1; None where letters do not stand out from their ground."""
    blue, green, red = cv2.split(corner)
    colour = np.maximum(green - (blue + red) / 2, 0)
    grey = 0.299 * red + 0.587 * green + 0.114 * blue
    level = max(1.0, float(np.partition(colour.ravel(), -COLOURED_PX)[-COLOURED_PX]))
    is_letter = colour > COLOURED * level
    is_beside = (cv2.dilate(is_letter.astype(np.uint8), np.ones((5, 5))) > 0) & ~is_letter
    if is_beside.sum() < LEAST_AROUND:
        return None
    ground = float(np.median(grey[is_beside]))
    contrast, unrest = GREEN_GREY - ground, float(np.median(np.abs(grey[is_beside] - ground)))
    if abs(contrast) < max(LEAST_CONTRAST, CALM * unrest):
        return None
    shape = np.clip(1 + (grey - GREEN_GREY) / contrast, 0, 1)           # sharp, colour is not
    return shape * np.clip(cv2.GaussianBlur(colour, (0, 0), 1.0) / level, 0, 1)


def _find_numbers(ink: np.ndarray) -> tuple[_Box, _Box] | None:
    """What stands before the stroke, and behind it; None where there is not one stroke between things as high as it."""
    columns = np.flatnonzero((ink > INKED).any(axis=0))
    words = [_frame(ink, int(word[0]), int(word[-1]) + 1)
             for word in np.split(columns, np.flatnonzero(np.diff(columns) > 1) + 1) if len(word)]
    strokes = [number for number, word in enumerate(words) if 0 < number < len(words) - 1 and _is_stroke(ink, word)]
    if len(strokes) != 1:
        return None
    stroke, = strokes
    blanks = [right.left - left.right for left, right in itertools.pairwise(words[stroke - 1:stroke + 2])]
    if max(blanks) > UNEVEN_BLANKS * min(blanks):
        return None         # it is part of a number, and the stroke is not seen
    before = _frame(ink, words[0].left, words[stroke - 1].right)
    behind = _frame(ink, words[stroke + 1].left, words[-1].right)
    heights = [box.low - box.high for box in (before, words[stroke], behind)]
    is_even = LETTER_HIGH_PX[0] <= min(heights) and max(heights) <= min(LETTER_HIGH_PX[1], min(heights) + UNEVEN_PX)
    is_whole = behind.right + min(blanks) <= ink.shape[1]       # no digit follows beyond the corner
    return (before, behind) if is_even and is_whole else None


def _frame(ink: np.ndarray, left: int, right: int) -> _Box:
    rows = np.flatnonzero((ink[:, left:right] > INKED).any(axis=1))
    return _Box(left, right, int(rows[0]), int(rows[-1]) + 1)


def _is_stroke(ink: np.ndarray, word: _Box) -> bool:
    """Whether a word is thin in each row and leans to the right."""
    part = np.where(ink > INKED, ink, 0)[word.high:word.low, word.left:word.right]
    if ((part > 0).sum(axis=1) > STROKE_PX).any() or len(part) < LETTER_HIGH_PX[0]:
        return False
    third = len(part) // 3
    middles = [np.average(np.arange(part.shape[1]), weights=rows.sum(axis=0)) for rows in (part[:third], part[-third:])]
    return middles[0] - middles[1] > LEAN * len(part)


def _compare(ink: np.ndarray, box: _Box) -> np.ndarray:
    """Correlation of what a box holds with each number from 1 to MOST_LINES."""
    left, right, high, low = box
    pictures = np.stack([_normalise(ink[high:low, max(0, left + more_left):right + more_right])
                         for more_left, more_right in SHIFTS])
    return (_draw_numbers() @ pictures.T).max(axis=1).reshape(MOST_LINES, -1).max(axis=1)


@functools.cache
def _draw_numbers() -> np.ndarray:
    """Each number in each weight and width: rows of unit length, those of a number behind each other."""
    fonts = [FT2Font(str(Path(matplotlib.get_data_path(), "fonts", "ttf", name))) for name in FONTS]
    drawn = []
    for number, font in itertools.product(range(1, MOST_LINES + 1), fonts):
        font.set_size(DRAWN_PT, 72)
        font.set_text(str(number))
        font.draw_glyphs_to_bitmap()
        picture = np.array(font.get_image())
        left, high, wide, tall = cv2.boundingRect(picture)
        for width in WIDTHS:
            small = cv2.resize(picture[high:high + tall, left:left + wide],
                               (max(2, round(wide * SEEN_PX / tall * width)), SEEN_PX), interpolation=cv2.INTER_AREA)
            drawn.append(_normalise(small.astype(np.float32)))
    return np.array(drawn)


def _normalise(picture: np.ndarray) -> np.ndarray:
    """A number's picture (H x W) stretched to the same height, flat, without its mean and of unit length."""
    rows, columns = LETTER_PX
    wide = min(columns, max(1, round(picture.shape[1] * rows / picture.shape[0])))
    laid = np.zeros((rows + 2, columns + 2), np.float32)
    laid[1:-1, 1:1 + wide] = cv2.resize(picture, (wide, rows), interpolation=cv2.INTER_LINEAR)
    flat = cv2.GaussianBlur(laid, (0, 0), BLUR_PX).ravel()
    flat -= flat.mean()
    return flat / (np.linalg.norm(flat) + 1e-6)
