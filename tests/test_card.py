"""What only graphics cards have use for: on stand-ins, and on a card where there is one."""

import contextlib
from unittest import mock

import numpy as np
import pytest
import torch

from model import card
from model.batches import read_batches
from model.card import put_on_card, upload_ahead
from model.dataset import ImageData, plan_epoch
from model.specification import ImageSpecification
from processing import columns as c
from tests.toys import CPU, TWO, make_images


@pytest.mark.parametrize("count", [0, 1, 3])
def test_batches_are_copied_to_a_card_ahead_and_given_in_order(monkeypatch, count):
    """On stand-ins: what is copied when, and that nobody gets a batch before its copy is waited for."""
    told = []
    monkeypatch.setattr(torch.cuda, "Stream", lambda _: "its own")
    monkeypatch.setattr(torch.cuda, "stream", lambda _: contextlib.nullcontext())
    now = mock.Mock(wait_stream=lambda _: told.append("wait"))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: now)

    def images(number):
        copied = mock.Mock(name=f"copy {number}", record_stream=lambda _: None, number=number)
        return mock.Mock(pin_memory=lambda: mock.Mock(to=lambda *_, **__: told.append(f"copy {number}") or copied))

    for given, rows, whole in upload_ahead((({"bscan": images(n)}, [n], n) for n in range(count)), "card"):
        told.append(f"use {given['bscan'].number}")
        assert rows == [given["bscan"].number] == [whole]
    wanted = ["copy 0", "wait", "copy 1", "use 0", "wait", "copy 2", "use 1", "wait", "use 2"]
    assert told == {0: [], 1: ["copy 0", "wait", "use 0"], 3: wanted}[count]


@pytest.mark.parametrize("pool", ["image", "visit"])
def test_images_that_stay_on_the_card_make_the_same_batches(paths, monkeypatch, pool):
    rows = make_images(paths, 9, TWO, visits=[1, 1, 1, 3, 3, 5, 7, 7, 9])
    what = ImageSpecification(views=TWO, pool=pool, findings=c.FINDINGS)
    data = ImageData(rows, paths, what, labelled=True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (10**9, 10**9))
    plan = plan_epoch(data.visit_of_row, seed=1, epoch=1, batch_size=4)
    stay, read = (list(batches) for batches in (put_on_card(data, 4, CPU).batches(plan), read_batches(data, plan, CPU)))
    assert len(stay) == len(read) > 1
    for ours, theirs in zip(stay, read, strict=True):
        for name in TWO:
            assert torch.equal(ours.inputs[name], theirs.inputs[name])
        assert all(map(torch.equal, ours.targets, theirs.targets))
        assert (ours.visits is None) == (theirs.visits is None) == (pool == "image")
        assert pool == "image" or torch.equal(ours.visits, theirs.visits)
        assert np.array_equal(ours.rows, theirs.rows) and ours.visit_count == theirs.visit_count


def test_images_stay_on_the_card_only_where_they_leave_room_for_the_training(paths, monkeypatch):
    rows = make_images(paths, 3, TWO)
    data = ImageData(rows, paths, ImageSpecification(views=TWO))
    pixels = 64 * 96 + 48 * 40
    needed = 3 * (64 * 96 + 3 * 48 * 40) + 2 * pixels * card.BYTES_PER_PIXEL
    for free, fits in ((int(needed / 0.9) + 2, True), (int(needed / 0.9) - 2, False)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _, free=free: (free, 10**12))
        assert (put_on_card(data, 2, CPU) is not None) == fits
