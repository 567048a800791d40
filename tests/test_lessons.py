"""Scans to learn from as batches: the same for a seed, none twice, their truth at half the size."""

import numpy as np
import pytest
import torch

from model import lessons as own
from model.lessons import HELD_OUT, TEST, TRAINING, build_lessons, fingerprint_lessons, read_lessons
from processing.eye.lesson import draw_lesson
from processing.eye.others import draw_other

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(own, "ROWS", 256)
    monkeypatch.setattr(own, "COLUMNS", 128)
    monkeypatch.setattr(own, "HALF", 64)


def read(stream, count=5, **how):
    return list(read_lessons(stream, np.arange(count), 2, CPU, **how))


def test_a_stream_gives_the_same_scans_however_many_threads_draw_them():
    first, again = read([TRAINING, 7, 1], workers=0), read([TRAINING, 7, 1], workers=3)
    assert [batch.visit_count for batch in first] == [2, 2, 1]
    assert [batch.rows.tolist() for batch in first] == [[0, 1], [2, 3], [4]]
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one.images, other.images)
        assert all(torch.allclose(a, b, equal_nan=True) for a, b in zip(one.targets, other.targets, strict=True))


def test_no_scan_is_in_two_streams_or_epochs():
    streams = [[TRAINING, 7, 1], [TRAINING, 7, 2], [TRAINING, 8, 1], [HELD_OUT], [TEST]]
    images = [batch.images[0].numpy().tobytes() for stream in streams for batch in read(stream)]
    assert len(set(images)) == len(images)


def test_some_batches_hold_whole_scans():
    widths = [batch.images.shape[3] for batch in read([TRAINING, 7, 1], 8, whole_each=3)]
    assert widths == [64, 64, 128, 64]
    assert {batch.images.shape[3] for batch in read([HELD_OUT], 8)} == {128}


def test_some_pictures_hold_no_retina(monkeypatch):
    monkeypatch.setattr(own, "OTHER_EACH", 4)
    readable = np.concatenate([batch.targets.readable.numpy() for batch in read([TRAINING, 7, 1], 8)])
    assert not readable[[3, 7]].any() and readable[[0, 1, 2, 4, 5, 6]].any(axis=1).all()


def test_the_truth_is_at_half_the_size():
    lesson = draw_lesson([7, 3], rows=96, columns=128)
    batch = build_lessons([lesson, draw_other([7, 4], rows=96, columns=128)], np.arange(2))
    truth = batch.targets
    assert batch.images.shape == (2, 1, 96, 128) and 0 <= float(batch.images.min()) < float(batch.images.max()) <= 1
    assert truth.rows.shape == (2, 2, 64) and truth.masks.shape == (2, 4, 48, 64)
    assert truth.tissue.shape == (2, 48, 64) and truth.readable.shape == (2, 64)
    pairs = lesson.ilm_row.reshape(-1, 2).mean(axis=1)
    assert np.allclose(truth.rows[0, 0].numpy(), pairs, equal_nan=True)
    assert float(truth.masks[0].sum()) * 4 == pytest.approx(lesson.masks.sum())
    # Fluid lies in the tissue, up to the places that a membrane crosses
    outside = float((truth.masks[0, :3].sum(dim=0) * (1 - truth.tissue[0])).sum())
    assert outside <= 0.05 * float(truth.masks[0].sum()) + 1
    assert truth.rows[1].isnan().all() and not truth.readable[1].any() and not truth.tissue[1].any()


def test_the_fingerprint_is_of_the_code_that_draws(tmp_path, monkeypatch):
    before = fingerprint_lessons()
    assert before == fingerprint_lessons() and len(before) == 64
    (tmp_path / "__init__.py").write_text("")
    monkeypatch.setattr("processing.eye.__file__", str(tmp_path / "__init__.py"))
    assert fingerprint_lessons() != before
