"""Which images a batch has, in which order, and their pixels and labels."""

import numpy as np
import pytest
import torch

from model.batches import read_batches
from model.dataset import ImageData, Portion, check_finite, plan_epoch, plan_in_order
from model.specification import ImageSpecification
from processing import columns as c
from processing.errors import PipelineError
from processing.images import read_image
from tests.toys import CPU, SMALL, TWO, make_images

SIZES = [1, 2, 3, 7, 8, 9, 61]


def visits_of(*sizes):
    """Visit numbers of tables with visits of these sizes, their images interleaved."""
    numbers = np.repeat(np.arange(len(sizes)), sizes)
    return np.random.default_rng(0).permutation(numbers)


def image_data(paths, rows, views=SMALL, pool="image", **how):
    return ImageData(rows, paths, ImageSpecification(views=views, pool=pool, findings=c.FINDINGS), **how)


@pytest.mark.parametrize("count", SIZES)
@pytest.mark.parametrize("batch_size", [1, 8, 100])
def test_images_alone_are_a_permutation_in_chunks_that_seed_and_epoch_decide(count, batch_size):
    plan = plan_epoch(np.arange(count), seed=3, epoch=2, batch_size=batch_size)
    order = np.random.default_rng([3, 2]).permutation(count)
    chunks = [order[start:start + batch_size] for start in range(0, count, batch_size)]
    assert [portion.rows.tolist() for portion in plan] == [chunk.tolist() for chunk in chunks]
    assert [portion.visits.tolist() for portion in plan] == [list(range(len(chunk))) for chunk in chunks]


def test_each_epoch_and_seed_has_an_order_of_its_own():
    def order(seed, epoch):
        return np.concatenate([part.rows for part in plan_epoch(np.arange(20), seed=seed, epoch=epoch, batch_size=6)])

    assert sorted(order(1, 1)) == sorted(order(1, 2)) == list(range(20))
    assert order(1, 1).tolist() == order(1, 1).tolist()
    assert order(1, 1).tolist() != order(1, 2).tolist()
    assert order(1, 1).tolist() != order(2, 1).tolist()


@pytest.mark.parametrize("largest", range(1, 62, 6))
@pytest.mark.parametrize("batch_size", [1, 8, 61])
def test_visits_are_never_torn_and_come_once_an_epoch_with_some_of_their_images(largest, batch_size):
    sizes = np.random.default_rng(largest).integers(1, largest + 1, 20)
    visit_of_row, seen = visits_of(*sizes), []
    for portion in plan_epoch(visit_of_row, seed=1, epoch=1, batch_size=batch_size):
        assert len(portion.rows) <= batch_size or portion.visit_count == 1      # one that is larger stands alone
        assert np.unique(portion.visits).tolist() == list(range(portion.visit_count))
        assert (np.diff(portion.visits) >= 0).all()
        for number in range(portion.visit_count):
            rows = portion.rows[portion.visits == number]
            visit, = set(visit_of_row[rows])
            assert len(set(rows)) == len(rows)
            seen.append(visit)
    assert sorted(seen) == list(range(20))


def test_how_many_images_of_a_visit_are_seen_differs_and_reaches_one_and_all():
    counts = {len(plan_epoch(np.zeros(4, int), seed=1, epoch=epoch, batch_size=9)[0].rows) for epoch in range(60)}
    assert counts == {1, 2, 3, 4}


def test_of_a_visit_with_scans_near_the_fovea_one_is_always_among_the_chosen():
    visit_of_row = visits_of(25, 6, 1)
    near = np.zeros(32, bool)
    near[[12, 31]] = True                   # of the second visit none
    for epoch in range(200):
        plan = plan_epoch(visit_of_row, seed=1, epoch=epoch, batch_size=40, near=near)
        rows = np.concatenate([portion.rows for portion in plan])
        assert {12, 31} <= set(rows) and len(set(rows)) == len(rows) and set(visit_of_row[rows]) == {0, 1, 2}


def test_a_batch_takes_visits_as_long_as_there_is_room():
    plan = plan_in_order(np.array([0, 0, 0, 1, 1, 2, 3, 3, 3, 3, 3, 4]), 4)
    assert [portion.rows.tolist() for portion in plan] == [[0, 1, 2], [3, 4, 5], [6, 7, 8, 9, 10], [11]]
    assert [portion.visits.tolist() for portion in plan] == [[0, 0, 0], [0, 0, 1], [0] * 5, [0]]


@pytest.mark.parametrize("batch_size", [1, 8, 61])
@pytest.mark.parametrize("count", [0, *SIZES])
def test_in_order_every_image_comes_once(count, batch_size):
    alone = plan_in_order(np.arange(count), batch_size)
    assert [row for portion in alone for row in portion.rows] == list(range(count))
    visit_of_row = visits_of(*range(1, count + 1)) if count < 10 else visits_of(count)
    together = plan_in_order(visit_of_row, batch_size)
    rows = [row for portion in together for row in portion.rows]
    assert sorted(rows) == list(range(len(visit_of_row)))
    assert visit_of_row[rows].tolist() == sorted(visit_of_row)


@pytest.mark.parametrize("processes", [1, 2, 3, 4])
@pytest.mark.parametrize("sizes", [[1] * 9, [3, 1, 4, 1, 5], [2]])
def test_processes_share_out_whole_visits(processes, sizes):
    whole, = plan_in_order(visits_of(*sizes), 100)
    shares = [whole.share(rank, processes) for rank in range(processes)]
    assert sorted(row for own in shares for row in own.rows) == sorted(whole.rows)
    assert sum(own.visit_count for own in shares) == whole.visit_count == len(sizes)
    visit_of_row = dict(zip(whole.rows, whole.visits, strict=True))
    for own in shares:
        visits = [{visit_of_row[row] for row in own.rows[own.visits == number]} for number in range(own.visit_count)]
        assert all(len(visit) == 1 for visit in visits)
        for visit, in visits:
            assert list(visit_of_row.values()).count(visit) == sum(visit_of_row[row] == visit for row in own.rows)


def test_pixels_are_red_first_and_in_order_as_fractions(paths):
    rows = make_images(paths, 3, TWO)
    batch, = read_batches(image_data(paths, rows, TWO, labelled=True), [Portion(np.array([2, 0]), np.arange(2))], CPU)
    assert {name: tuple(images.shape) for name, images in batch.inputs.items()} == {
        "bscan": (2, 1, 64, 96), "fundus": (2, 3, 48, 40)}
    screen = read_image(paths.root / "data/processed/fundus/train/2L_1_1_0_2.jpg")
    np.testing.assert_allclose(batch.inputs["fundus"][0].permute(1, 2, 0) * 255, screen[..., ::-1], atol=1e-3)
    assert batch.rows.tolist() == batch.own_rows.tolist() == [2, 0]
    assert batch.targets.cst_um.tolist() == [250, 200]
    assert batch.targets.findings.tolist() == [[0, 1, 0, 0], [0, 0, 0, 0]]
    assert batch.visits is None and batch.visit_count == 2


def test_a_batch_of_visits_says_which_images_are_of_which_visit_and_where_their_labels_are(paths):
    rows = make_images(paths, 5, visits=[1, 3, 1, 5, 3], final=[1, 0, 1, 0, 0])
    data = image_data(paths, rows, pool="visit", labelled=True)
    batch, = read_batches(data, plan_in_order(data.visit_of_row, 9), CPU)
    assert batch.rows.tolist() == [0, 2, 1, 4, 3]
    assert batch.visits.int().tolist() == [[1, 1, 0, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 0, 1]]
    assert batch.visit_count == 3
    assert batch.targets.cst_um.tolist() == [200, 225, 250]
    assert batch.targets.findings.tolist() == rows[c.FINDINGS].iloc[[0, 2, 1, 4, 3]].to_numpy().tolist()
    assert batch.targets.visit_findings.tolist() == rows[c.FINDINGS].iloc[[0, 1, 3]].to_numpy().tolist()
    assert batch.targets.has_image_labels.tolist() == [True, False, False]


@pytest.mark.parametrize("workers", [1, 3])
def test_reading_threads_give_the_same_batches(paths, workers):
    data = image_data(paths, make_images(paths, 7), labelled=True)

    def batches(workers):
        plan = plan_epoch(data.visit_of_row, seed=3, epoch=1, batch_size=2)
        return [(batch.inputs["bscan"], *batch.targets, torch.from_numpy(batch.rows))
                for batch in read_batches(data, plan, CPU, workers=workers)]

    alone, threaded = batches(0), batches(workers)
    assert len(alone) == len(threaded) == 4
    for ours, theirs in zip(alone, threaded, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize(("pool", "count"), [("image", 3), ("visit", 2)])
def test_each_process_gets_its_share_and_one_without_a_visit_gets_none(paths, monkeypatch, pool, count):
    rows = make_images(paths, 3, visits=[1, 1, 3])
    data, seen = image_data(paths, rows, pool=pool, labelled=True), []
    for rank in range(4):
        for name, value in {"RANK": rank, "LOCAL_RANK": 0, "WORLD_SIZE": 4, "MASTER_ADDR": "x"}.items():
            monkeypatch.setenv(name, str(value))
        batch, = read_batches(data, plan_in_order(data.visit_of_row, 9), CPU, share=True)
        assert batch.rows.tolist() == [0, 1, 2] and batch.visit_count == count
        assert batch.inputs["bscan"].shape == (len(batch.own_rows), 1, 64, 96)
        assert len(batch.targets.findings) == len(batch.own_rows)
        if pool == "visit":
            assert batch.visits.shape == (len(batch.targets.cst_um), len(batch.own_rows))
        seen += batch.own_rows.tolist()
    assert sorted(seen) == [0, 1, 2]


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_image_is_named_not_guessed(paths, workers):
    data = image_data(paths, make_images(paths, 3))
    (paths.root / data.readers["bscan"].names[1]).write_bytes(b"gone")
    with pytest.raises(PipelineError, match=r"1L_1_1_0_1\.jpg: cannot be decoded.*Option 0"):
        list(read_batches(data, plan_in_order(data.visit_of_row, 2), CPU, workers=workers))


def test_a_crop_of_another_size_is_named(paths):
    other = {"bscan": SMALL["bscan"]._replace(right=95)}
    rows = make_images(paths, 1, other)
    record = paths.crop_record.read_text()
    paths.crop_record.write_text(record.replace("0:95", "0:96"))
    data = image_data(paths, rows)
    with pytest.raises(PipelineError, match="has 64 x 95 rows and columns, the box 0:64,0:96 has 64 x 96"):
        data.read(np.arange(1))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_label_that_is_no_number_is_named_by_file_and_column(paths, value):
    rows = make_images(paths, 3)
    rows.loc[1, c.CST] = value
    with pytest.raises(PipelineError, match=f"1 values are no finite numbers .*1L_1_1_0_1.jpg: CST is {value}"):
        image_data(paths, rows, labelled=True)
    image_data(paths, rows)                     # without labels nothing is wrong


def test_many_values_that_are_no_numbers_are_counted_and_the_first_five_shown(paths):
    rows = make_images(paths, 7).assign(CST=np.nan)
    with pytest.raises(PipelineError, match=r"^7 values .*a: CST.*e: CST is nan\)\. Do this\.$"):
        check_finite(rows, [c.CST], list("abcdefg"), advice="Do this.")
