"""Random changes of training images."""

import numpy as np
import pytest
import torch

from model.augment import BRIGHTNESS, CONTRAST, vary_images
from model.dataset import Batch
from model.loop import augment_batches
from tests.toys import image_config

ROWS = np.arange(40)


def make_inputs(count=40):
    torch.manual_seed(0)
    return {"bscan": torch.rand(count, 1, 4, 6), "fundus": torch.rand(count, 3, 5, 7)}


def is_mirrored(before, after):
    """Whether each image is nearer to its mirror image than to itself."""
    def distance(one):
        one, other = (part - part.mean(dim=(1, 2, 3), keepdim=True) for part in (one, after))
        return (one - other).square().sum(dim=(1, 2, 3))

    return distance(before.flip(3)) < distance(before)


def test_seed_epoch_and_row_alone_decide_what_an_image_gets():
    inputs = make_inputs()
    whole = vary_images(inputs, ROWS, seed=1, epoch=2)
    some = np.array([7, 30, 2])
    part = vary_images({name: images[some] for name, images in inputs.items()}, some, seed=1, epoch=2)
    for name in inputs:
        assert torch.equal(part[name], whole[name][some])
        for other in ({"seed": 1, "epoch": 3}, {"seed": 2, "epoch": 2}):
            assert not torch.equal(vary_images(inputs, ROWS, **other)[name], whole[name])
        assert not torch.equal(vary_images(inputs, ROWS[::-1], seed=1, epoch=2)[name], whole[name])


def test_half_of_the_images_are_mirrored_in_all_views_alike():
    inputs = make_inputs()
    varied = vary_images(inputs, ROWS, seed=1, epoch=1)
    of_bscan, of_fundus = (is_mirrored(inputs[name], varied[name]) for name in inputs)
    assert torch.equal(of_bscan, of_fundus)
    assert 10 < of_bscan.sum() < 30


def test_contrast_and_brightness_change_a_little_and_shapes_and_range_not_at_all():
    inputs = make_inputs()
    varied = vary_images(inputs, ROWS, seed=1, epoch=1)
    for name, images in varied.items():
        assert images.shape == inputs[name].shape and images.dtype == torch.float32
        assert images.min() >= 0 and images.max() <= 1
    grey = vary_images({"bscan": torch.full((40, 1, 2, 2), 0.5)}, ROWS, seed=1, epoch=1)["bscan"][:, 0, 0, 0]
    largest = 0.5 * CONTRAST + BRIGHTNESS
    assert (grey - 0.5).abs().max() <= largest + 1e-6
    assert (grey - 0.5).abs().max() > largest / 2 and len(grey.unique()) > 30
    black = vary_images({"bscan": torch.zeros(40, 1, 2, 2)}, ROWS, seed=1, epoch=1)["bscan"]
    assert 0 < black.max() <= BRIGHTNESS


def test_no_image_at_all_stays_none():
    assert vary_images({"bscan": torch.rand(0, 1, 4, 6)}, ROWS[:0], seed=1, epoch=1)["bscan"].shape == (0, 1, 4, 6)


@pytest.mark.parametrize("augment", ["none", "mild"])
def test_batches_are_left_as_they_are_or_each_gets_what_its_own_rows_get(augment):
    inputs, config = make_inputs(4), image_config(augment=augment, seed=5)
    own = np.array([8, 3, 11, 5])
    batches = [Batch(inputs, None, None, np.arange(20), own, 20)]
    batch, = given = list(augment_batches(batches, config, 3))
    if augment == "none":
        assert given[0] is batches[0] and augment_batches(batches, config, 3) is batches
    else:
        wanted = vary_images(inputs, own, seed=5, epoch=3)
        assert all(torch.equal(batch.inputs[name], wanted[name]) for name in inputs)
        assert batch.rows is batches[0].rows and batch.visit_count == 20
