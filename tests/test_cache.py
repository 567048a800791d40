"""Decoded crops in one file: the same pixels, and nothing stale, cut short, foreign or damaged is ever used."""

import os
import shutil
from dataclasses import replace

import numpy as np
import pytest

from model import cache as cache_module
from model.cache import open_cache
from model_config import IMAGE_MODELS
from processing.errors import PipelineError
from processing.images import read_image
from tests.helpers import put_screen, train_image

IMAGE = replace(IMAGE_MODELS[1], epochs=2, batch_size=3, device="cpu")
SIZE = (64, 96)
GREY = ["0.jpg", "1.jpg", "3.jpg"]
NAMES = ["0.jpg", "1.jpg", "coloured.jpg", "3.jpg"]


@pytest.fixture
def crops(paths):
    """A root with three grey crops and a coloured one."""
    for number, name in enumerate(NAMES):
        put_screen(paths.root / name, seed=number, height=64, width=96, grey=name in GREY)
    paths.processed.mkdir(parents=True)
    return paths


def forbid_building(monkeypatch):
    def build(*_):
        raise AssertionError("built anew")

    monkeypatch.setattr(cache_module, "_build", build)


def check_pixels(paths, cache, *, may_lack=False):
    for name in NAMES:
        pixels, image = cache.read(name), read_image(paths.root / name)
        if may_lack and pixels is None:
            continue
        assert pixels.shape == (1 if name in GREY else 3, *SIZE)
        np.testing.assert_array_equal(np.broadcast_to(pixels, (3, *SIZE)).transpose(1, 2, 0), image[..., ::-1])


def test_every_crop_has_its_own_pixels_grey_or_coloured(crops):
    check_pixels(crops, open_cache(crops, NAMES, SIZE))
    assert crops.pixel_cache.stat().st_size == (3 + 3) * 64 * 96


def test_what_is_there_is_taken_again(crops, monkeypatch):
    open_cache(crops, NAMES, SIZE)
    forbid_building(monkeypatch)
    check_pixels(crops, open_cache(crops, NAMES, SIZE))


def change_a_crop(paths):
    put_screen(paths.root / "1.jpg", seed=9, height=64, width=96)
    os.utime(paths.root / "1.jpg", ns=(1, 1))


def cut_it_short(paths):
    os.truncate(paths.pixel_cache, paths.pixel_cache.stat().st_size - 1)


def put_a_foreign_one(paths):
    paths.pixel_cache.with_suffix(".npz").write_bytes(b"PK, but not really")


def empty_it(paths):
    paths.pixel_cache.write_bytes(b"")


def put_another_array(paths):
    with open(paths.pixel_cache.with_suffix(".npz"), "wb") as file:
        np.save(file, np.arange(3))


def name_another_compression(paths):
    index = paths.pixel_cache.with_suffix(".npz")
    data = bytearray(index.read_bytes())
    data[data.find(b"PK\x01\x02") + 10] ^= 1
    index.write_bytes(data)


def name_other_crops_in_it(paths):
    index = paths.pixel_cache.with_suffix(".npz")
    with np.load(index) as content:
        arrays = dict(content)
    np.savez(index, **arrays | {"names": np.array([name + "x" for name in arrays["names"].tolist()])})


def take_its_index(paths):
    paths.pixel_cache.with_suffix(".npz").unlink()


@pytest.mark.parametrize(
    ("harm", "reason"),
    [(change_a_crop, "is of other crops"), (cut_it_short, "is not whole"), (put_a_foreign_one, "is damaged"),
     (put_another_array, "is damaged"), (name_another_compression, "is damaged"), (empty_it, "is not whole"),
     (name_other_crops_in_it, "is damaged"), (take_its_index, "is not there yet")],
)
def test_a_cache_that_does_not_fit_is_made_anew_and_that_is_said(crops, capsys, harm, reason):
    open_cache(crops, NAMES, SIZE)
    harm(crops)
    capsys.readouterr()
    check_pixels(crops, open_cache(crops, NAMES, SIZE))
    assert f"{reason}; decoding 4 crops." in capsys.readouterr().out


def test_an_index_with_a_byte_flipped_gives_the_right_pixels_or_says_that_it_is_damaged(crops, capsys):
    open_cache(crops, NAMES, SIZE)
    index = crops.pixel_cache.with_suffix(".npz")
    data = index.read_bytes()
    for place in range(0, len(data), 11):
        index.write_bytes(data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1:])
        capsys.readouterr()
        cache = open_cache(crops, NAMES, SIZE)
        check_pixels(crops, cache, may_lack=True)
        if any(cache.read(name) is None for name in NAMES):
            assert "is damaged" in capsys.readouterr().out


def test_damaged_pixels_are_never_given_and_the_next_cache_is_whole(crops, capsys):
    open_cache(crops, NAMES, SIZE)
    data = bytearray(crops.pixel_cache.read_bytes())
    data[64 * 96 + 7] ^= 1
    crops.pixel_cache.write_bytes(data)
    cache = open_cache(crops, NAMES, SIZE)
    assert cache.read("1.jpg") is None
    assert cache.read("0.jpg") is not None
    assert capsys.readouterr().out.count("is damaged; the crops that are hit are decoded") == 1
    check_pixels(crops, open_cache(crops, NAMES, SIZE))


def test_a_full_disk_leaves_nothing_and_the_slower_way_is_said(crops, monkeypatch, capsys):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 0))
    assert open_cache(crops, NAMES, SIZE) is None
    out = capsys.readouterr().out
    assert "would need" in out and "decoded anew in each epoch" in out
    assert [file.name for file in crops.processed.iterdir()] == ["pixels.lock"]


def test_a_disk_that_fills_up_while_it_is_built_leaves_nothing(crops, monkeypatch, capsys):
    def fail(*_):
        raise PipelineError("pixels.bin could not be written: No space left on device.")

    monkeypatch.setattr(cache_module.zlib, "crc32", fail)
    assert open_cache(crops, NAMES, SIZE) is None
    assert "No space left on device. Crops are decoded anew" in capsys.readouterr().out
    assert [file.name for file in crops.processed.iterdir()] == ["pixels.lock"]


def test_a_crop_that_cannot_be_read_is_not_in_the_cache(crops):
    (crops.root / "1.jpg").write_bytes(b"gone")
    put_screen(crops.root / "3.jpg", height=10, width=10)
    cache = open_cache(crops, NAMES, SIZE)
    assert [cache.read(name) is None for name in NAMES] == [False, True, False, True]


def test_with_and_without_a_cache_a_training_ends_with_the_same_weights(demo_copy, monkeypatch, one_thread):
    with_one, = train_image(demo_copy, [IMAGE])
    assert demo_copy.pixel_cache.is_file()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 0))
    demo_copy.pixel_cache.unlink()
    without, = train_image(demo_copy, [IMAGE])
    assert (with_one / "history.csv").read_bytes() == (without / "history.csv").read_bytes()
