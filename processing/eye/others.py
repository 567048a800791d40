"""Pictures that hold no retina as a B-scan shows it, so that none is read out of them. Reads and writes no file.

Pictures are float32 H x W, greys 0 to 255.
"""

from collections.abc import Callable

import cv2
import numpy as np

from processing.eye.camera import compress
from processing.eye.curves import Rng, make_texture, pick, pick_count, pick_small, wave
from processing.eye.lesson import FLUIDS, Lesson, draw_lesson

Shape = tuple[int, int]


def draw_other(seed: int | list[int], *, rows: int = 496, columns: int = 768) -> Lesson:
    """Invent a picture without a retina; its truth is that nothing can be read. Arguments as of draw_lesson."""
    rng = np.random.default_rng(seed)
    kinds: list[Callable[[Rng, Shape], np.ndarray]] = [
        _draw_darkness, _draw_noise, _draw_texture, _draw_photograph, _draw_page, _draw_fundus, _draw_grating,
        _turn_scan,
    ]
    picture = kinds[rng.integers(len(kinds))](rng, (rows, columns))
    picture = picture + rng.standard_normal(picture.shape) * pick_small(rng, (0.5, 12))
    shown = compress(rng, np.clip(picture, 0, 255).astype(np.uint8))
    hidden = np.full(columns, np.nan, np.float32)
    return Lesson(shown, hidden, hidden, np.zeros((len(FLUIDS), rows, columns), bool), 3.87, 11.5)


def _draw_darkness(rng: Rng, shape: Shape) -> np.ndarray:
    """One grey all over, most often black."""
    grey = pick(rng, (0, 255)) if rng.random() < 0.3 else pick(rng, (0, 12))
    slope = np.linspace(-0.5, 0.5, shape[rng.integers(2)], dtype=np.float32) * pick(rng, (0, 60))
    return grey + np.broadcast_to(slope[:, None] if len(slope) == shape[0] else slope, shape)


def _draw_noise(rng: Rng, shape: Shape) -> np.ndarray:
    """Speckle of any grain."""
    noise = rng.standard_normal(shape, dtype=np.float32)
    sigma = pick_small(rng, (0.3, 4)), pick_small(rng, (0.3, 4))
    noise = np.asarray(cv2.GaussianBlur(noise, (0, 0), sigmaX=sigma[0], sigmaY=sigma[1]), np.float32)
    return pick(rng, (0, 160)) + noise / noise.std() * pick_small(rng, (3, 90))


def _draw_texture(rng: Rng, shape: Shape) -> np.ndarray:
    """Clouds, cloth, wood: noise of several grains, at times drawn out to one side."""
    stretch = pick_small(rng, (0.3, 4))
    picture = np.full(shape, pick(rng, (20, 180)), np.float32)
    for grain in (4, 12, 40, 130):
        picture += make_texture(rng, shape, (grain * stretch, grain / stretch)) * pick(rng, (0, 45))
    return picture


def _draw_photograph(rng: Rng, shape: Shape) -> np.ndarray:
    """Bodies before a background, sharp or not."""
    picture = _draw_texture(rng, shape) * pick(rng, (0.1, 0.6)) + _draw_darkness(rng, shape)
    picture = np.ascontiguousarray(picture, np.float32)
    for _ in range(pick_count(rng, (2, 30))):
        middle = int(pick(rng, (0, shape[1]))), int(pick(rng, (0, shape[0])))
        size = max(2, int(pick_small(rng, (4, 200)))), max(2, int(pick_small(rng, (4, 200))))
        if rng.random() < 0.5:
            cv2.ellipse(picture, middle, size, pick(rng, (0, 180)), 0, 360, pick(rng, (0, 255)), -1)
        else:
            corner = middle[0] + size[0], middle[1] + size[1]
            cv2.rectangle(picture, middle, corner, pick(rng, (0, 255)), -1 if rng.random() < 0.8 else 2)
    return cv2.GaussianBlur(picture, (0, 0), sigmaX=pick_small(rng, (0.3, 6)))


def _draw_page(rng: Rng, shape: Shape) -> np.ndarray:
    """Lines of writing, black on white or the other way."""
    picture = np.full(shape, int(pick(rng, (190, 255))), np.uint8)
    size = pick(rng, (0.3, 1.2))
    for row in range(int(pick(rng, (10, 60))), shape[0], max(10, int(size * pick(rng, (24, 60))))):
        letters = "".join(chr(code) for code in rng.integers(33, 122, rng.integers(0, 90)))
        cv2.putText(picture, letters, (int(pick(rng, (2, 60))), row), cv2.FONT_HERSHEY_SIMPLEX, size,
                    pick(rng, (0, 110)), 1 + int(size > 0.8), cv2.LINE_AA)
    picture = picture.astype(np.float32)
    return 255 - picture if rng.random() < 0.5 else picture


def _draw_fundus(rng: Rng, shape: Shape) -> np.ndarray:
    """The retina from the front: a bright field, the disc, vessels that wind."""
    rows, columns = np.mgrid[:shape[0], :shape[1]].astype(np.float32)
    middle = shape[0] * pick(rng, (0.3, 0.7)), shape[1] * pick(rng, (0.3, 0.7))
    away = np.hypot(rows - middle[0], columns - middle[1]) / min(shape)
    picture = pick(rng, (70, 200)) * np.exp(-away ** 2 * pick(rng, (0.1, 3))) + make_texture(rng, shape, (9, 9)) * 6
    if rng.random() < 0.4:
        picture *= away < pick(rng, (0.4, 0.7))
    picture = np.ascontiguousarray(picture, np.float32)
    disc = int(pick(rng, (0, shape[1]))), int(pick(rng, (0.2, 0.8)) * shape[0])
    for _ in range(rng.integers(4, 16)):
        turns = np.cumsum(rng.normal(0, pick(rng, (0.05, 0.25)), 60)) + pick(rng, (0, 2 * np.pi))
        path = np.cumsum(np.stack([np.cos(turns), np.sin(turns)], axis=1) * pick(rng, (4, 12)), axis=0) + disc
        cv2.polylines(picture, [path.astype(np.int32)], False, pick(rng, (20, 90)), int(rng.integers(1, 7)),
                      cv2.LINE_AA)
    cv2.circle(picture, disc, int(pick(rng, (15, 60))), pick(rng, (20, 255)), -1, cv2.LINE_AA)
    return cv2.GaussianBlur(picture, (0, 0), sigmaX=pick(rng, (0.4, 2)))


def _draw_grating(rng: Rng, shape: Shape) -> np.ndarray:
    """Stripes: even, at any slant, straight or wavy."""
    rows, columns = np.mgrid[:shape[0], :shape[1]].astype(np.float32)
    slant, period = pick(rng, (0, np.pi)), pick_small(rng, (4, 120))
    phase = rows * np.cos(slant) + columns * np.sin(slant) + wave(rng, shape[1], 90) * pick(rng, (0, 12))
    return pick(rng, (60, 180)) + pick(rng, (20, 120)) * np.sin(2 * np.pi * phase / period)


def _turn_scan(rng: Rng, shape: Shape) -> np.ndarray:
    """A B-scan upside down or on its side."""
    turns = int(rng.integers(1, 4))
    rows, columns = shape if turns == 2 else shape[::-1]
    own = [int(number) for number in rng.integers(0, 2**31, 3)]
    return np.rot90(draw_lesson(own, rows=rows, columns=columns).image, turns).astype(np.float32)
