"""Decoded images in one file: the same pixels, and nothing stale, cut short, foreign or damaged is ever used."""

import errno
import os
import shutil
from dataclasses import replace
from unittest import mock

import numpy as np
import pandas as pd
import pytest

from config import View
from model import cache as cache_module
from model.cache import open_cache
from model_config import IMAGE_MODELS
from processing import columns as c
from processing.crop_record import BOX, CHANNELS, CROP, RECORD_COLUMNS, CropRecord
from processing.errors import PipelineError
from processing.images import read_image
from processing.views import ViewReader, describe_view
from tests.helpers import put_screen, train_image

IMAGE = replace(IMAGE_MODELS[1], epochs=2, batch_size=3, device="cpu")
VIEWS = {"bscan": View(0, 64, 0, 96), "fundus": View(0, 64, 0, 96, channels=3, folder="fundus")}
IMAGES = pd.DataFrame({
    c.PATIENT: "7L", c.IMAGE: ["0", "1", "2", "3"], c.AFTER: 1, c.FINAL: 1, c.SIDE: 0, c.DATA_TYPE: "train",
    c.SOURCE: [f"data/source/{number}.jpg" for number in range(4)],
})
LOCK = "pixels-bscan.lock"


@pytest.fixture
def crops(paths):
    """A root with four crops of each view, as the record says."""
    record = CropRecord(paths.crop_record)
    for view in VIEWS.values():
        for number, name in enumerate(ViewReader(paths, IMAGES, view).names):
            put_screen(paths.root / name, seed=number, height=64, width=96, grey=view.channels == 1)
            record.add(dict.fromkeys(RECORD_COLUMNS, 0) | {
                CROP: name, BOX: describe_view(view), CHANNELS: view.channels,
            })
    record.save()
    return paths


def open_it(paths, view="bscan", rows=IMAGES):
    return open_cache(paths, view, ViewReader(paths, rows, VIEWS[view]))


def crop(paths, number):
    return paths.root / ViewReader(paths, IMAGES, VIEWS["bscan"]).names[number]


def cache_file(paths, suffix=".bin"):
    return paths.processed / f"pixels-bscan{suffix}"


def forbid_building(monkeypatch):
    def build(*_):
        raise AssertionError("built anew")

    monkeypatch.setattr(cache_module, "_build", build)


def check_pixels(paths, cache, view="bscan", *, may_lack=False):
    for name in ViewReader(paths, IMAGES, VIEWS[view]).names:
        pixels, image = cache.read(name), read_image(paths.root / name)
        if may_lack and pixels is None:
            continue
        assert pixels.shape == (VIEWS[view].channels, 64, 96)
        np.testing.assert_array_equal(np.broadcast_to(pixels, (3, 64, 96)).transpose(1, 2, 0), image[..., ::-1])


@pytest.mark.parametrize("view", VIEWS)
def test_every_crop_has_its_own_pixels_grey_or_coloured(crops, view):
    check_pixels(crops, open_it(crops, view), view)
    size = (crops.processed / f"pixels-{view}.bin").stat().st_size
    assert size == 4 * VIEWS[view].channels * 64 * 96


def test_each_view_has_a_file_of_its_own(crops, monkeypatch):
    caches = {view: open_it(crops, view) for view in VIEWS}
    forbid_building(monkeypatch)
    for view in VIEWS:
        check_pixels(crops, caches[view], view)
        check_pixels(crops, open_it(crops, view), view)


def test_what_is_there_is_taken_again(crops, monkeypatch):
    open_it(crops)
    forbid_building(monkeypatch)
    check_pixels(crops, open_it(crops))


def test_images_of_another_box_come_from_their_screens_and_the_cache_knows(crops, capsys):
    """The crops stay as they are; a training of another box, with its screens at hand, decodes those."""
    open_it(crops)
    other = View(8, 48, 16, 80)
    screens = [put_screen(crops.root / name, seed=20 + number) for number, name in enumerate(IMAGES[c.SOURCE])]
    reader = ViewReader(crops, IMAGES, other)
    cache = open_cache(crops, "bscan", reader)
    assert "is of other images; decoding 4 images." in capsys.readouterr().out
    for index, (name, screen) in enumerate(zip(reader.names, screens, strict=True)):
        np.testing.assert_array_equal(cache.read(name), reader.read(index))
        assert np.abs(cache.read(name)[0].astype(int) - screen[8:48, 16:80, 0]).mean() < 5
    put_screen(crops.root / IMAGES[c.SOURCE][2], seed=30)
    os.utime(crops.root / IMAGES[c.SOURCE][2], ns=(1, 1))
    np.testing.assert_array_equal(open_cache(crops, "bscan", reader).read(reader.names[2]), reader.read(2))
    assert "is of other images" in capsys.readouterr().out


def change_a_crop(paths):
    put_screen(crop(paths, 1), seed=9, height=64, width=96)
    os.utime(crop(paths, 1), ns=(1, 1))


def cut_it_short(paths):
    os.truncate(cache_file(paths), cache_file(paths).stat().st_size - 1)


def put_a_foreign_one(paths):
    cache_file(paths, ".npz").write_bytes(b"PK, but not really")


def empty_it(paths):
    cache_file(paths).write_bytes(b"")


def put_another_array(paths):
    with open(cache_file(paths, ".npz"), "wb") as file:
        np.save(file, np.arange(3))


def name_another_compression(paths):
    index = cache_file(paths, ".npz")
    data = bytearray(index.read_bytes())
    data[data.find(b"PK\x01\x02") + 10] ^= 1
    index.write_bytes(data)


def name_other_crops_in_it(paths):
    index = cache_file(paths, ".npz")
    with np.load(index) as content:
        arrays = dict(content)
    np.savez(index, **arrays | {"names": np.array([name + "x" for name in arrays["names"].tolist()])})


def take_its_index(paths):
    cache_file(paths, ".npz").unlink()


@pytest.mark.parametrize(
    ("harm", "reason"),
    [(change_a_crop, "is of other images"), (cut_it_short, "is not whole"), (put_a_foreign_one, "is damaged"),
     (put_another_array, "is damaged"), (name_another_compression, "is damaged"), (empty_it, "is not whole"),
     (name_other_crops_in_it, "is damaged"), (take_its_index, "is not there yet")],
)
def test_a_cache_that_does_not_fit_is_made_anew_and_that_is_said(crops, capsys, harm, reason):
    open_it(crops)
    harm(crops)
    capsys.readouterr()
    check_pixels(crops, open_it(crops))
    assert f"{reason}; decoding 4 images." in capsys.readouterr().out


def test_a_cache_that_cannot_be_opened_is_not_said_to_be_damaged(crops, monkeypatch, capsys):
    open_it(crops)
    capsys.readouterr()
    monkeypatch.setattr(np, "memmap", mock.Mock(side_effect=OSError(errno.ENOMEM, "Cannot allocate memory")))
    assert open_it(crops) is None
    said = capsys.readouterr().out
    assert "cannot be read (Cannot allocate memory); decoding 4 images." in said
    assert said.endswith("cannot be read (Cannot allocate memory). " + cache_module.SLOWER + "\n")


def test_an_index_with_a_byte_flipped_gives_the_right_pixels_or_says_that_it_is_damaged(crops, capsys):
    open_it(crops)
    index = cache_file(crops, ".npz")
    data = index.read_bytes()
    for place in range(0, len(data), 11):
        index.write_bytes(data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1:])
        capsys.readouterr()
        cache = open_it(crops)
        check_pixels(crops, cache, may_lack=True)
        if any(cache.read(name) is None for name in ViewReader(crops, IMAGES, VIEWS["bscan"]).names):
            assert "is damaged" in capsys.readouterr().out


def test_damaged_pixels_are_never_given_and_the_next_cache_is_whole(crops, capsys):
    open_it(crops)
    data = bytearray(cache_file(crops).read_bytes())
    data[64 * 96 + 7] ^= 1
    cache_file(crops).write_bytes(data)
    cache = open_it(crops)
    assert cache.read(crops.relative(crop(crops, 1))) is None
    assert cache.read(crops.relative(crop(crops, 0))) is not None
    assert capsys.readouterr().out.count("is damaged; the images that are hit are decoded") == 1
    check_pixels(crops, open_it(crops))


def test_a_full_disk_leaves_nothing_and_the_slower_way_is_said(crops, monkeypatch, capsys):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 0))
    assert open_it(crops) is None
    out = capsys.readouterr().out
    assert "would need" in out and "decoded anew in each epoch" in out
    assert [file.name for file in crops.processed.iterdir() if file.is_file()] == [LOCK]


def test_a_disk_that_fills_up_while_it_is_built_leaves_nothing(crops, monkeypatch, capsys):
    def fail(*_):
        raise PipelineError("pixels-bscan.bin could not be written: No space left on device.")

    monkeypatch.setattr(cache_module.zlib, "crc32", fail)
    assert open_it(crops) is None
    assert "No space left on device. Images are decoded anew" in capsys.readouterr().out
    assert [file.name for file in crops.processed.iterdir() if file.is_file()] == [LOCK]


def test_a_crop_that_cannot_be_read_is_not_in_the_cache(crops):
    crop(crops, 1).write_bytes(b"gone")
    put_screen(crop(crops, 3), height=10, width=10)
    cache = open_it(crops)
    names = ViewReader(crops, IMAGES, VIEWS["bscan"]).names
    assert [cache.read(name) is None for name in names] == [False, True, False, True]


def test_with_and_without_a_cache_a_training_ends_with_the_same_weights(demo_copy, monkeypatch, one_thread):
    with_one, = train_image(demo_copy, [IMAGE])
    assert cache_file(demo_copy).is_file()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 0))
    cache_file(demo_copy).unlink()
    without, = train_image(demo_copy, [IMAGE])
    assert (with_one / "history.csv").read_bytes() == (without / "history.csv").read_bytes()
