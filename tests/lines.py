"""Screens with scan lines of all kinds, whose places are known: for tests of processing.geometry."""

from pathlib import Path
from typing import NamedTuple

import cv2
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from processing.bscans import UM_ACROSS, UM_DOWN
from processing.eye.phantom import FUNDUS_PX
from processing.geometry import FUNDUS_UM

FONTS = Path(matplotlib.get_data_path(), "fonts", "ttf")
COUNTER_FONTS = ["DejaVuSans-Oblique.ttf", "DejaVuSansMono-Bold.ttf", "DejaVuSerif.ttf", "STIXGeneral.ttf",
                 "cmtt10.ttf", "cmss10.ttf"]        # none of those that processing.counter compares with
BRIGHT, DARK, WHITE = (0, 255, 0), (0, 128, 0), (255, 255, 255)


class Drawn(NamedTuple):
    """A screen and what is on it."""

    screen: np.ndarray
    pattern: str
    angle_deg: float
    distance_um: float      # of the pattern's middle from the line
    has_arrow: bool
    clipped: bool           # whether a line of the pattern leaves the picture
    line: int               # which of the pattern's, by geometry.csv's way of counting
    lines: int
    counter: str            # what the screen's own counter does: "agrees", or "differs"
    um_down: float = np.nan     # of a pixel of the B-scan, which its scale bars show; NaN: it has none
    um_across: float = np.nan


def draw_screen(seed):
    """A screen as a device makes it, with a pattern of any kind."""
    rng = np.random.default_rng(seed)
    width = int(rng.choice([768, 768, 512]))
    screen = np.zeros((596, FUNDUS_PX + width, 3), np.uint8)
    picture = screen[:FUNDUS_PX, :FUNDUS_PX]
    picture[:] = draw_background(rng)[..., None]
    screen[:FUNDUS_PX, FUNDUS_PX:] = rng.integers(0, 90, (FUNDUS_PX, width, 1))
    draw = draw_radial if rng.random() < 0.5 else draw_volume
    drawn = draw(rng, picture, screen)
    _write(screen, "200 um", (15, 481), WHITE)
    um_down, um_across = draw_scale_bars(np.random.default_rng([1, *np.atleast_1d(seed)]), screen)
    quality = int(rng.integers(60, 96))
    decoded = cv2.imdecode(cv2.imencode(".jpg", screen, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)
    return drawn._replace(screen=decoded, um_down=um_down, um_across=um_across)


def draw_scale_bars(rng, screen):
    """The corner at the lower left of the B-scan, 200 um either way: um of a pixel down and across; NaN: none there."""
    if rng.random() < 0.05:
        return np.nan, np.nan
    um_down, um_across = (usual if rng.random() < 0.4 else usual * rng.uniform(0.8, 1.25)
                          for usual in (UM_DOWN, UM_ACROSS))
    left, low = FUNDUS_PX + int(rng.integers(6, 20)), FUNDUS_PX - int(rng.integers(6, 20))
    thick = int(rng.integers(1, 3))
    to_pixels = int if rng.random() < 0.5 else round
    down, across = to_pixels(200 / um_down), to_pixels(200 / um_across)
    screen[low - down + 1:low + 1, left:left + thick] = WHITE
    screen[low - thick + 1:low + 1, left:left + across] = WHITE
    return um_down, um_across


def draw_background(rng):
    """A fundus picture: uneven light, vessels, grain."""
    cloud = cv2.resize(rng.standard_normal((6, 6)).astype(np.float32), (FUNDUS_PX, FUNDUS_PX),
                       interpolation=cv2.INTER_CUBIC)
    grey = rng.uniform(60, 210) + rng.uniform(5, 40) * cloud + rng.uniform(3, 25) * rng.standard_normal(cloud.shape)
    grey = np.ascontiguousarray(grey, np.float32)
    for _ in range(rng.integers(4, 14)):
        turns = np.cumsum(rng.normal(0, 0.15, 60)) + rng.uniform(0, 2 * np.pi)
        path = np.cumsum(np.stack([np.cos(turns), np.sin(turns)], axis=1) * 9, axis=0) + rng.uniform(0, FUNDUS_PX, 2)
        cv2.polylines(grey, [path.astype(np.int32)], False, float(rng.uniform(10, 70)), int(rng.integers(1, 7)))
    return np.clip(grey, 0, 255).astype(np.uint8)


def draw_radial(rng, picture, screen):
    """Lines through one point; this scan is any of them."""
    total = int(rng.choice([6, 6, 12]))
    number, thick = int(rng.integers(1, total + 1)), int(rng.integers(1, 3))
    centre = (FUNDUS_PX - 1) / 2 + rng.uniform(-60, 60, 2)
    half = rng.uniform(150, 330)
    directions = [np.array([np.sin(angle), -np.cos(angle)]) for angle in np.pi * np.arange(total) / total]
    lines = [(centre - half * along, centre + half * along) for along in directions]
    return _draw(rng, picture, screen, lines, number, thick, "radial", centre)


def draw_volume(rng, picture, screen):
    """Parallel lines; this scan is any of them."""
    total, thick = int(rng.choice([7, 13, 19, 25, 31])), int(rng.integers(1, 3))
    number = int(rng.integers(1, total + 1))
    spacing = rng.uniform(6, min(30, 440 / total))
    angle = rng.choice([0.0, 0.0, rng.uniform(-0.25, 0.25), np.pi / 2])
    along, centre = np.array([np.cos(angle), np.sin(angle)]), (FUNDUS_PX - 1) / 2 + rng.uniform(-60, 60, 2)
    half, across = rng.uniform(100, 250), np.array([along[1], -along[0]])       # upwards, or to the right
    if np.random.default_rng([3, total, number, int(half)]).random() < 0.5:     # on whole pixels, as a device may draw
        centre, half, spacing = np.rint(2 * centre) / 2, round(2 * half) / 2, round(spacing)
    lines = [(centre + (k - (total - 1) / 2) * spacing * across - half * along,
              centre + (k - (total - 1) / 2) * spacing * across + half * along) for k in range(total)]
    return _draw(rng, picture, screen, lines, number, thick, "volume", centre)


def _draw(rng, picture, screen, lines, number, thick, pattern, centre):
    for start, end in lines:
        _draw_line(picture, start, end, DARK, thick)
    start, end = lines[number - 1]
    if rng.random() < 0.3:
        start, end = end, start
    _draw_line(picture, start, end, BRIGHT, thick)
    along, has_arrow = (end - start) / np.hypot(*(end - start)), bool(rng.random() < 0.85)
    tip = _clip_end(start, end)
    across = np.array([-along[1], along[0]])
    if has_arrow:
        head = np.stack([tip, tip - 11 * along + 6 * across, tip - 11 * along - 6 * across])
        cv2.fillPoly(picture, [np.rint(head).astype(np.int32)], BRIGHT, cv2.LINE_AA)
    counter = _draw_counter(np.random.default_rng([2, number, int(100 * abs(centre[0]))]), screen, number, len(lines),
                            pattern)
    ends = np.array(lines).reshape(-1, 2)
    return Drawn(screen, pattern, float(np.degrees(np.arctan2(-along[1], along[0])) % 360),
                 float((centre - start) @ across) * FUNDUS_UM, has_arrow,
                 bool(((ends < 0) | (ends > FUNDUS_PX - 1)).any()), number, len(lines), counter)


def _draw_counter(rng, screen, number, total, pattern):
    """`1 / 6` in one of several fonts; radial lines are counted either way round. One in twelve tells another line."""
    shown = (1 - number) % total + 1 if pattern == "radial" and rng.random() < 0.5 else number
    is_right = bool(rng.random() < 11 / 12)
    if not is_right:
        known = {number, shown, (1 - number) % total + 1}
        shown = int(rng.choice([other for other in range(1, total + 1) if other not in known]))
    font, size = str(rng.choice(COUNTER_FONTS)), int(rng.integers(12, 17))
    picture = Image.new("L", (screen.shape[1], 40))
    ImageDraw.Draw(picture).text((int(rng.integers(3, 8)), int(rng.integers(2, 8))), f"{shown} / {total}", 255,
                                 ImageFont.truetype(FONTS / font, size))
    ink = np.asarray(picture)[..., None] / 255
    screen[:40] = np.rint(screen[:40] * (1 - ink) + ink * BRIGHT)
    return "agrees" if is_right else "differs"


def _clip_end(start, end):
    """Where a line leaves the picture, or ends."""
    along = np.linspace(0, 1, 2000)[:, None]
    inside = start + along * (end - start)
    inside = inside[((inside >= 0) & (inside <= FUNDUS_PX - 1)).all(axis=1)]
    return inside[-1] if len(inside) else end


def _draw_line(picture, start, end, color, thick):
    ends = (tuple(int(value) for value in np.rint(16 * place)) for place in (start, end))
    cv2.line(picture, *ends, color, thick, cv2.LINE_AA, 4)


def _write(screen, text, place, color):
    cv2.putText(screen, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.45, color, 1, cv2.LINE_AA)
