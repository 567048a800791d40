"""The network that reads a B-scan: shapes, sub-pixel rows, and that it learns what its loss asks for."""

import numpy as np
import pytest
import torch

from model.lessons import build_lessons
from model.segmentation import FLUIDS, SegmentationModule, find_rows
from model.segmentation_loss import SegmentationLoss
from processing.eye.lesson import FLUIDS as DRAWN
from processing.eye.lesson import draw_lesson

SMALL = (8, 8, 8, 8, 8)


def peaks(rows, *, height=64):
    """Log-probabilities of membranes at these rows of the scan (2 x w), as a trained network gives them."""
    places = torch.arange(height, dtype=torch.float32).view(1, 1, -1, 1)
    middle = (torch.as_tensor(rows, dtype=torch.float32) - 0.5) / 2
    return (-0.5 * ((places - middle[None, :, None]) / 0.8) ** 2).log_softmax(dim=2)


def test_the_fluids_of_lessons_are_those_of_the_network():
    assert FLUIDS == DRAWN


def test_few_weights():
    assert sum(p.numel() for p in SegmentationModule().parameters()) <= 2_000_000


@pytest.mark.parametrize(("height", "width"), [(64, 64), (496, 512), (100, 334)])
def test_shapes_of_any_size(height, width):
    module = SegmentationModule(SMALL).eval()
    with torch.inference_mode():
        reading = module(torch.rand(2, 1, height, width))
    assert reading.membranes.shape == (2, 2, height // 2, width // 2)
    assert reading.readable.shape == (2, width // 2)
    assert reading.fluids.shape == (2, len(FLUIDS), height // 2, width // 2)
    assert torch.allclose(reading.membranes.exp().sum(dim=2), torch.ones(2, 2, width // 2), atol=1e-5)


def test_rows_are_found_between_the_pixels():
    rows = [[10.0, 12.3, 15.7, 20.1], [60.5, 66.2, 69.0, 68.9]]
    found = find_rows(peaks(rows))
    assert np.abs(found.rows[0].numpy() - rows).max() < 0.05
    assert 1 < float(found.spread.min()) <= float(found.spread.max()) < 2     # 0.8 places are 1.6 rows


def test_membranes_never_cross():
    upper, lower = [60.0] * 40, [20.0] * 10 + [90.0] * 30       # the network says BM above ILM at first
    found = find_rows(peaks([upper, lower]))
    assert (found.rows[0, 0] <= found.rows[0, 1]).all()
    assert abs(float(found.rows[0, 1, -1]) - 90) < 0.1


def test_a_membrane_does_not_leap():
    """A few columns say that it lies elsewhere, a little more surely; its neighbours do not."""
    rows = np.full((2, 60), 100.0)
    rows[0] = 20
    there = rows.copy()
    there[1, 25:30] = 108       # as far as one step reaches
    steady, elsewhere = peaks(rows), peaks(there)
    found = find_rows(torch.logaddexp(steady + np.log(0.4), elsewhere + np.log(0.6)))
    assert np.abs(found.rows[0].numpy() - rows).max() < 3
    assert float(found.spread[0, 1, 27]) > 3


def test_what_two_peaks_say_is_uncertain():
    one, other = peaks([[20.0], [100.0]]), peaks([[80.0], [100.0]])
    found = find_rows(torch.logaddexp(one, other) - np.log(2))
    assert float(found.spread[0, 0, 0]) > 20 > 2 > float(found.spread[0, 1, 0])


def test_the_loss_ignores_columns_that_cannot_be_seen_and_what_is_no_tissue():
    lesson = draw_lesson(4, rows=128, columns=128)
    batch, loss = build_lessons([lesson], np.arange(1)), SegmentationLoss(FLUIDS)
    truth = batch.targets
    torch.manual_seed(0)
    reading = SegmentationModule(SMALL)(torch.rand(1, 1, 128, 128))
    rows, tissue = truth.rows.clone(), truth.tissue.clone()
    rows[:, :, 10:20], tissue[:, :20] = torch.nan, 0
    partly = batch._replace(targets=truth._replace(rows=rows, tissue=tissue))
    before = loss(reading, partly)
    membranes, fluids = reading.membranes.clone(), reading.fluids.clone()
    membranes[:, :, :, 10:20] = membranes[:, :, :, 10:20].roll(7, dims=2)
    fluids[:, :, :20] += 3
    after = loss(reading._replace(membranes=membranes, fluids=fluids), partly)
    assert before.isfinite().all() and torch.equal(before, after)
    assert not torch.equal(before, loss(reading._replace(membranes=membranes, fluids=fluids), batch))


def test_the_loss_is_smallest_at_the_truth():
    lesson = draw_lesson([7, 0], rows=128, columns=128)
    batch, loss = build_lessons([lesson], np.arange(1)), SegmentationLoss(FLUIDS)
    truth = batch.targets
    right = SegmentationModule(SMALL)(torch.rand(1, 1, 128, 128))._replace(
        membranes=peaks(truth.rows[0].nan_to_num(nan=5.0).clamp(0, 127)),
        readable=20 * truth.readable - 10, fluids=20 * truth.masks - 10,
    )
    best = loss(right, batch)
    for part, name in enumerate(loss.parts, start=1):
        wrong = {"ILM": right._replace(membranes=right.membranes.roll(4, dims=2)),
                 "BM": right._replace(membranes=right.membranes.roll(4, dims=2)),
                 "readable": right._replace(readable=-right.readable)}
        found = wrong.get(name, right._replace(fluids=-right.fluids))
        assert loss(found, batch)[part] > best[part] + 0.1, name


def test_it_learns_one_scan():
    """Thirty steps on one scan: both membranes to a few rows."""
    torch.manual_seed(0)
    lesson = draw_lesson([7, 3], rows=128, columns=128)
    module, loss = SegmentationModule((16,) * 5), SegmentationLoss(FLUIDS)
    batch = build_lessons([lesson], np.arange(1))
    optimizer = torch.optim.AdamW(module.parameters(), lr=5e-3)
    for _ in range(30):
        optimizer.zero_grad()
        loss(module(batch.images), batch)[0].backward()
        optimizer.step()
    found = find_rows(module(batch.images).membranes.detach()).rows[0].numpy()
    off = np.abs(found - batch.targets.rows[0].numpy())
    assert np.nanmedian(off, axis=1).max() < 4
