from unittest import mock

import cv2
import numpy as np
import pytest
import simplejpeg
from hypothesis import given
from hypothesis import strategies as st

from config import VIEWS, View
from processing.images import (
    ImageError,
    crop_image,
    cut_view,
    decode_image,
    encode_jpeg,
    read_image,
    read_pixels,
    read_size,
    write_image,
)
from tests.helpers import make_screen

BSCAN = VIEWS["bscan"]


def test_crop_cuts_the_rows_and_columns_of_the_box():
    screen = make_screen()
    np.testing.assert_array_equal(crop_image(screen, BSCAN), screen[50:450, 550:1200])


def test_a_narrow_screen_is_padded_with_black_on_the_right():
    screen = np.full((596, 1008, 3), 200, np.uint8)
    crop = crop_image(screen, BSCAN)
    assert crop.shape == (400, 650, 3)
    assert (crop[:, :458] == 200).all()
    assert (crop[:, 458:] == 0).all()


@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 50), st.integers(0, 50), st.integers(1, 30),
       st.integers(1, 30))
def test_a_crop_has_the_size_of_the_box_whatever_the_image(height, width, top, left, rows, columns):
    box = View(top, top + rows, left, left + columns)
    image = np.full((height, width, 3), 7, np.uint8)
    if top >= height or left >= width:
        with pytest.raises(ImageError, match="too small"):
            crop_image(image, box)
    else:
        crop = crop_image(image, box)
        assert crop.shape == (rows, columns, 3)
        inside = max(0, min(height, box.bottom) - top) * max(0, min(width, box.right) - left)
        assert int((crop[..., 0] == 7).sum()) == inside


def test_a_grey_image_decodes_to_the_same_pixels_as_if_stored_in_colour():
    screen = make_screen(seed=3)
    in_colour = cv2.imdecode(cv2.imencode(".jpg", screen)[1], cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(decode_image(encode_jpeg(screen)), in_colour)


def test_a_coloured_image_stays_coloured(tmp_path):
    screen = make_screen(seed=4, grey=False)
    write_image(tmp_path / "彩色.jpg", screen)
    back = read_image(tmp_path / "彩色.jpg").astype(int)
    assert np.abs(back - screen).mean() < 12
    assert np.abs(back[..., 0] - back[..., 2]).mean() > 20


@pytest.mark.parametrize("share", [0.01, 0.3, 0.7, 0.99])
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_truncated_image_is_refused(tmp_path, share, suffix):
    file = tmp_path / f"cut{suffix}"
    file.write_bytes(cv2.imencode(suffix, make_screen())[1].tobytes())
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ImageError, match="damaged"):
        read_image(file)


def test_damage_within_the_picture_is_refused():
    """Half of the entropy-coded data away, the end still there: libjpeg only warns of it."""
    data = cv2.imencode(".jpg", make_screen())[1].tobytes()
    middle = len(data) // 2
    assert cv2.imdecode(np.frombuffer(data[:middle] + data[-2:], np.uint8), cv2.IMREAD_COLOR) is not None
    with pytest.raises(ImageError, match="damaged"):
        decode_image(data[:middle] + data[-2:])


def test_the_strict_decoder_gives_opencvs_pixels():
    for grey in (True, False):
        data = cv2.imencode(".jpg", make_screen(seed=5, grey=grey))[1]
        np.testing.assert_array_equal(decode_image(data.tobytes()), cv2.imdecode(data, cv2.IMREAD_COLOR))


@pytest.mark.parametrize("content", [b"", b"text, no image", b"\xff\xd8\xff"])
def test_what_is_no_image_is_refused(content):
    with pytest.raises(ImageError, match="empty|damaged"):
        decode_image(content)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_the_size_is_read_from_the_header(suffix):
    assert read_size(cv2.imencode(suffix, make_screen(50, 70))[1].tobytes()) == (70, 50)


def test_a_header_that_claims_a_giant_is_refused_before_anything_is_decoded(monkeypatch):
    data = bytearray(cv2.imencode(".jpg", make_screen(64, 64))[1].tobytes())
    frame = data.index(b"\xff\xc0")
    data[frame + 5:frame + 9] = (20000).to_bytes(2, "big") * 2
    monkeypatch.setattr(cv2, "imdecode", None)
    monkeypatch.setattr(simplejpeg, "decode_jpeg", None)
    with pytest.raises(ImageError, match="20000 x 20000 pixels"):
        decode_image(bytes(data))


@pytest.mark.parametrize("suffix", [".bmp", ".tiff", ".webp"])
def test_other_formats_under_an_images_name_are_refused(suffix):
    with pytest.raises(ImageError, match="neither JPEG nor PNG"):
        decode_image(cv2.imencode(suffix, make_screen(64, 64))[1].tobytes())


@pytest.mark.parametrize("kind", ["16-bit", "12 of 16 bits", "10 of 16 bits", "with alpha", "grey"])
def test_other_depths_and_channels_decode_to_the_same_eight_bits(kind):
    screen = make_screen(64, 96)
    stored = {
        "16-bit": screen.astype(np.uint16) * 257,
        "12 of 16 bits": screen.astype(np.uint16) * 16 + 7,
        "10 of 16 bits": screen.astype(np.uint16) * 4 + 1,
        "with alpha": np.dstack([screen, np.full((64, 96), 7, np.uint8)]),
        "grey": screen[..., 0],
    }[kind]
    np.testing.assert_array_equal(decode_image(cv2.imencode(".png", stored)[1].tobytes()), screen)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("grey", [True, False])
def test_pixels_come_with_the_channels_that_are_wanted_red_first(tmp_path, suffix, grey):
    screen = make_screen(64, 96, seed=6, grey=grey)
    for stored in (screen, screen[..., 0]) if grey else (screen,):
        file = tmp_path / f"image{suffix}"
        file.write_bytes(cv2.imencode(suffix, stored)[1].tobytes())
        image = read_image(file)
        np.testing.assert_array_equal(read_pixels(file, 3), image[..., ::-1].transpose(2, 0, 1))
        luma = read_pixels(file, 1)
        assert luma.shape == (1, 64, 96)
        assert np.abs(luma[0] - image @ [0.114, 0.587, 0.299]).max() <= (1e-9 if grey else 1)


def test_a_cut_view_is_grey_or_coloured_as_the_view_says_and_tells_of_lost_colours():
    coloured, grey = make_screen(seed=7, grey=False), make_screen(seed=7)
    cases = [(coloured, 1, True), (grey, 1, False), (coloured, 3, False), (grey, 3, False)]
    for screen, channels, turned_grey in cases:
        data, told = cut_view(screen, BSCAN._replace(channels=channels))
        stored = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        assert stored.shape == ((400, 650) if channels == 1 else (400, 650, 3))
        assert told == turned_grey
    assert cut_view(grey, BSCAN)[0] == encode_jpeg(crop_image(grey, BSCAN))


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(ImageError, match="cannot be read"):
        read_image(tmp_path / "absent.jpg")
    with pytest.raises(ImageError, match="cannot be read"):
        read_image(tmp_path)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_an_image_is_not_said_to_be_damaged_for_want_of_memory(monkeypatch, suffix):
    def run_short(*_, **__):
        raise cv2.error("OpenCV(4.10.0) alloc.cpp:73: error: (-4:Insufficient memory) Failed to allocate 9 bytes")

    data = cv2.imencode(suffix, make_screen())[1].tobytes()
    monkeypatch.setattr(cv2, "imdecode", run_short)
    monkeypatch.setattr(simplejpeg, "decode_jpeg", mock.Mock(side_effect=MemoryError))
    with pytest.raises((cv2.error, MemoryError)):
        decode_image(data)
