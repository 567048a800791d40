"""How well a network reads scans that were drawn, whose truth is known to the pixel. Reads and writes no file.

H x W pixels of a scan.
"""

from collections.abc import Iterator

import cv2
import numpy as np

from model.lessons import COLUMNS, ROWS, TEST
from model.measures import LIKELY, ScanReading, find_chance
from model.metrics import auc_score
from model.segmentation_model import SegmentationNetwork
from processing.bscans import Bscan
from processing.eye.lesson import FLUIDS, Lesson, draw_lesson
from processing.parallel import map_in_threads
from processing.terminal import progress

FAR_UM = 10                     # how far off a membrane is wrong
LEAST_PX = 40                   # of a fluid in a scan: with fewer it is left out where shapes are compared


def score_lessons(network: SegmentationNetwork, count: int = 500) -> dict[str, float]:
    """Read scans of the stream that no training sees, and compare with the truth.

    Args:
        network: that reads them.
        count: of the scans.

    Returns:
        membranes_mean_um: mean distance of both membranes from the truth, over the columns that are readable and were
        read; ilm_mean_um, bm_mean_um; membranes_within_10um: share of these columns and membranes; readable_read: share
        of the readable columns that were read; unreadable_read: of the others; and for each fluid dice (in the columns
        that are readable; mean over the scans that have LEAST_PX of it there) and auc (is there any? ranked by
        model.measures.find_chance).
    """
    off: dict[str, list[np.ndarray]] = {"ilm": [], "bm": []}
    read = []
    dice: dict[str, list[float]] = {name: [] for name in FLUIDS}
    presence: dict[str, list[tuple[bool, float]]] = {name: [] for name in FLUIDS}
    for lesson, reading in progress(_read_test(network, count), total=count, label="score", unit="scan"):
        both = lesson.is_readable & reading.is_readable
        for name, truth, found in (("ilm", lesson.ilm_row, reading.ilm_row), ("bm", lesson.bm_row, reading.bm_row)):
            off[name].append(np.abs(found - truth)[both] * lesson.um_down)
        read.append(np.stack([lesson.is_readable, reading.is_readable]))
        for name, mask in zip(FLUIDS, lesson.masks, strict=True):
            presence[name].append((bool(mask.any()), find_chance(reading.fluids[name])))
            if mask[:, lesson.is_readable].sum() >= LEAST_PX:
                marked = stretch(reading.fluids[name], mask.shape) >= LIKELY
                dice[name].append(measure_dice(mask[:, lesson.is_readable], marked[:, lesson.is_readable]))
    ilm, bm = np.concatenate(off["ilm"]), np.concatenate(off["bm"])
    true, found = np.concatenate(read, axis=1)
    return {
        "membranes_mean_um": float((ilm.mean() + bm.mean()) / 2), "ilm_mean_um": float(ilm.mean()),
        "bm_mean_um": float(bm.mean()), "membranes_within_10um": float((np.concatenate([ilm, bm]) <= FAR_UM).mean()),
        "readable_read": float(found[true].mean()), "unreadable_read": float(found[~true].mean()),
        **{f"{name}_dice": float(np.mean(values)) for name, values in dice.items()},
        **{f"{name}_auc": float(auc_score(*np.array(values).T)) for name, values in presence.items()},
    }


def _read_test(network: SegmentationNetwork, count: int) -> Iterator[tuple[Lesson, ScanReading]]:
    """Lessons of the test stream, and what the network reads in them."""
    drawn: list[Lesson] = []

    def show() -> Iterator[Bscan]:
        numbers = range(count)
        for lesson in map_in_threads(lambda k: draw_lesson([TEST, k], rows=ROWS, columns=COLUMNS), numbers, threads=1):
            drawn.append(lesson)
            yield Bscan(lesson.image, lesson.um_down, lesson.um_across, "given")

    for _, reading in network.read(show()):
        yield drawn.pop(0), reading


def stretch(chances: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Probabilities of h x w places as H x W pixels."""
    return np.asarray(cv2.resize(chances.astype(np.float32), shape[::-1], interpolation=cv2.INTER_LINEAR))


def measure_dice(true: np.ndarray, found: np.ndarray) -> float:
    """Twice what two masks share, as a share of both (Dice 1945); 1 where both are empty."""
    size = int(true.sum() + found.sum())
    return float(2 * (true & found).sum() / size) if size else 1.0
