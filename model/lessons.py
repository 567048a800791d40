"""Scans that are drawn to learn from, as batches at half their size. Reads and writes no file.

B scans, H and W pixels, h = H / 2 and w = W / 2 places of an answer, F kinds of fluid.
"""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional

import processing.eye
from processing.eye.lesson import Lesson, draw_lesson
from processing.eye.others import draw_other
from processing.parallel import CORES, map_in_threads

TRAINING, HELD_OUT, TEST = 1, 2, 3      # streams of scans that share none; then the seed, the epoch, the number
HELD_OUT_SCANS = 96                     # measured on after each epoch, the same ones each time
OTHER_EACH = 16                         # the last of so many pictures holds no retina
ROWS, COLUMNS, HALF = 496, 768, 384      # of a scan, and of half of one: more of them in the same time
WHOLE_EACH = 4                          # the last of so many batches holds whole ones
MAX_THREADS = 8                         # that draw


class Truth(NamedTuple):
    """Of scans that were drawn, at half their size."""

    rows: torch.Tensor          # B x 2 x w: rows of the scan of ILM and BM; NaN: not to be seen
    readable: torch.Tensor      # B x w: 0 / 1
    masks: torch.Tensor         # B x F x h x w: shares of each place, 0 to 1
    tissue: torch.Tensor        # B x h x w: 1 between the membranes, where alone fluid counts


class LessonBatch(NamedTuple):
    """What a step takes, as model.dataset.Batch is for image models."""

    images: torch.Tensor        # B x 1 x H x W float32 in 0-1
    targets: Truth
    rows: np.ndarray            # numbers of the scans within their epoch
    visit_count: int            # of scans: each stands alone

    @property
    def arguments(self) -> tuple[Any, ...]:
        """What the network takes."""
        return (self.images,)


def read_lessons(stream: list[int], numbers: np.ndarray, batch_size: int, device: torch.device, *, workers: int = -1,
                 whole_each: int = 1) -> Iterator[LessonBatch]:
    """Scans of a stream in batches, drawn ahead in threads.

    Args:
        stream: whole numbers that determine the scans, with their own numbers.
        numbers: of the scans.
        batch_size: scans of a batch.
        device: where the batches are wanted.
        workers: drawing threads; 0: none but the caller's; -1: one beside a CPU that computes, else up to MAX_THREADS.
        whole_each: the last of so many batches holds whole scans, the others halves.

    Yields:
        LessonBatch.
    """
    if workers < 0:
        workers = 1 if device.type == "cpu" else min(MAX_THREADS, CORES)

    def draw(portion: tuple[int, np.ndarray]) -> LessonBatch:
        number, rows = portion
        columns = COLUMNS if number % whole_each == whole_each - 1 else HALF
        kinds = [draw_other if row % OTHER_EACH == OTHER_EACH - 1 else draw_lesson for row in rows]
        lessons = [kind([*stream, int(row)], rows=ROWS, columns=columns) for kind, row in zip(kinds, rows, strict=True)]
        return build_lessons(lessons, rows)

    portions = [numbers[start:start + batch_size] for start in range(0, len(numbers), batch_size)]
    for batch in map_in_threads(draw, enumerate(portions), threads=workers, ahead=4):
        yield batch._replace(images=batch.images.to(device),
                             targets=Truth(*(part.to(device) for part in batch.targets)))


def build_lessons(lessons: Iterable[Lesson], numbers: np.ndarray) -> LessonBatch:
    """Lessons of one size (even rows and columns) as a batch on the CPU."""
    lessons = list(lessons)
    images = torch.from_numpy(np.stack([lesson.image for lesson in lessons]))[:, None].float().div_(255)
    both = np.stack([[lesson.ilm_row, lesson.bm_row] for lesson in lessons])            # B x 2 x W
    rows = torch.from_numpy(both.reshape(*both.shape[:2], -1, 2).mean(axis=3))
    readable = torch.from_numpy(np.stack([lesson.is_readable.reshape(-1, 2).all(axis=1) for lesson in lessons]))
    masks = functional.avg_pool2d(torch.from_numpy(np.stack([lesson.masks for lesson in lessons])).float(), 2)
    places = 2 * torch.arange(images.shape[2] // 2).view(1, -1, 1) + 0.5
    tissue = (places >= rows[:, :1]) & (places <= rows[:, 1:])
    return LessonBatch(images, Truth(rows, readable.float(), masks, tissue.float()), numbers, len(numbers))


def fingerprint_lessons() -> str:
    """SHA-256 of the code that draws scans, in hexadecimal digits: other code draws others."""
    digest = hashlib.sha256()
    for file in sorted(Path(processing.eye.__file__).parent.glob("*.py")):
        digest.update(file.read_bytes().replace(b"\r\n", b"\n"))
    return digest.hexdigest()
