"""Whether the counter at a screen's upper left (`1 / 6`) says what the lines say. Reads and writes no file.

Its letters are some 11 px high and green, a JPEG has their colour at half its resolution, and the device's font is not
at hand: so a number is not read, but compared with all that it might be, in a font that is.
"""

import functools
import itertools
from collections.abc import Collection
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from matplotlib.ft2font import FT2Font

COUNTER_PX = (26, 64)           # rows and columns that it may take
AGREES, DIFFERS = "agrees", "differs"
MOST_LINES = 64                 # numbers that are compared with
GREEN_GREY = 150                # of full green, as a JPEG keeps grey
LEAST_CONTRAST = 20             # of greys: on a ground that is closer to green's the letters have no shape
MOST_COLOURED = 97              # percentile of colour that is a letter's
COLOURED, INKED = 0.4, 0.35     # of a letter's colour and ink, from which a place belongs to it
GAP_PX = 2                      # between the digits of a number at most; blanks are wider
LEAST_AROUND = 20               # places beside letters to tell the ground by
LETTER_PX = (14, 20)            # rows and columns that a number is stretched to and laid in
BLUR_PX = 0.8
FONTS = ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf")       # matplotlib brings them
DRAWN_PT, SEEN_PX = 60, 11      # how large digits are drawn, and how high they are made then
WIDTHS = (0.85, 1.1)            # of the font's own
SHIFTS = [(left, right) for left in (-1, 0) for right in (0, 1)]        # of a number's edges
ALIKE, CLEAR = 0.8, 0.9         # correlations, from which a picture is one of a number, and clear enough to contradict
UNLIKE = 0.15                   # by which a number that it is not correlates less than the likeliest


def check_counter(screen: np.ndarray, numbers: Collection[int], lines: int) -> str:
    """Compare a screen's counter with what its lines say.

    Args:
        screen: uint8 H x W x 3, blue first.
        numbers: any of these may stand before the stroke, from 1 on.
        lines: what should stand behind it.

    Returns:
        AGREES, DIFFERS, or "" where the counter cannot be read.
    """
    ink = _find_ink(screen[:COUNTER_PX[0], :COUNTER_PX[1]].astype(np.float32))
    if ink is None or lines > MOST_LINES:
        return ""
    words = _split_words(ink)
    if len(words) != 3 or lines > MOST_LINES:
        return ""
    before, behind = _compare(ink, words[0]), _compare(ink, words[2])
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
    level = max(1.0, float(np.percentile(colour, MOST_COLOURED)))
    is_letter = colour > COLOURED * level
    is_beside = (cv2.dilate(is_letter.astype(np.uint8), np.ones((5, 5))) > 0) & ~is_letter
    if is_beside.sum() < LEAST_AROUND:
        return None
    contrast = GREEN_GREY - float(np.median(grey[is_beside]))
    if abs(contrast) < LEAST_CONTRAST:
        return None
    shape = np.clip(1 + (grey - GREEN_GREY) / contrast, 0, 1)           # sharp, colour is not
    return shape * np.clip(cv2.GaussianBlur(colour, (0, 0), 1.0) / level, 0, 1)


def _split_words(ink: np.ndarray) -> list[tuple[int, int, int, int]]:
    """First and last column and row (the last one not included) of what stands between blanks, from left to right."""
    columns = np.flatnonzero((ink > INKED).any(axis=0))
    words = []
    for word in np.split(columns, np.flatnonzero(np.diff(columns) > GAP_PX) + 1) if len(columns) else []:
        rows = np.flatnonzero((ink[:, word[0]:word[-1] + 1] > INKED).any(axis=1))
        words.append((int(word[0]), int(word[-1]) + 1, int(rows[0]), int(rows[-1]) + 1))
    return words


def _compare(ink: np.ndarray, word: tuple[int, int, int, int]) -> np.ndarray:
    """Correlation of a word with each number from 1 to MOST_LINES."""
    left, right, high, low = word
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
