"""The score of Model-Segmentation on drawn scans: what counts in it, and where."""

import numpy as np
import pytest

from model import lesson_score
from model.lesson_score import score_lessons
from model.measures import ScanReading
from processing.eye.lesson import FLUIDS, draw_lesson


def answer(lesson, masks, off=0.0):
    """A reading with `masks` (4 x H x W), and membranes that many rows below the true ones."""
    none = np.zeros_like(lesson.ilm_row)
    fluids = {name: mask.astype(np.float32) for name, mask in zip(FLUIDS, masks, strict=True)}
    return ScanReading(lesson.ilm_row + off, lesson.bm_row + off, none, none, none.astype(bool), fluids,
                       (lesson.um_down, lesson.um_across))


@pytest.fixture
def score(monkeypatch):
    """score(change, off) -> what it says where `change(lesson)` gives what is marked."""
    lessons = [draw_lesson([7, k], rows=496, columns=384) for k in range(40)]

    def run(change, off=0.0):
        pairs = [(lesson, answer(lesson, change(lesson), off)) for lesson in lessons]
        monkeypatch.setattr(lesson_score, "_read_test", lambda network, count: iter(pairs))
        return score_lessons(None, len(lessons))

    assert any(not lesson.is_readable.all() for lesson in lessons)
    return run


def test_the_truth_itself_is_perfect(score):
    found = score(lambda lesson: lesson.masks)
    assert all(found[f"{name}_dice"] == found[f"{name}_auc"] == 1 for name in FLUIDS)
    assert found["membranes_mean_um"] == 0 and found["membranes_within_10um"] == found["readable_read"] == 1


def test_what_is_marked_where_nothing_can_be_read_does_not_count(score):
    found = score(lambda lesson: lesson.masks | ~lesson.is_readable)
    assert all(found[f"{name}_dice"] == 1 for name in FLUIDS)


def test_what_is_missed_and_what_is_off_counts(score):
    found = score(lambda lesson: np.zeros_like(lesson.masks), off=1.0)
    assert all(found[f"{name}_dice"] == 0 and found[f"{name}_auc"] == 0.5 for name in FLUIDS)
    assert 3 < found["membranes_mean_um"] < 6          # a row
