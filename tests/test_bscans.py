"""A B-scan out of a picture, and its scale."""

import cv2
import numpy as np
import pytest

from processing.bscans import UM_ACROSS, UM_DOWN, find_bscan, read_bscan, read_scale_bars
from processing.eye import screen as demo_screen
from processing.images import ImageError, read_image

WHITE = (255, 255, 255)


def make_screen(um_down=UM_DOWN, um_across=UM_ACROSS, *, wide=1264, grey=0):
    """A screen whose bars are drawn as the device draws them: 2 px thick, as long as they look."""
    screen = np.full((596, wide, 3), grey, np.uint8)
    down, across = round(200 / um_down), round(200 / um_across)
    screen[487 - down:487, 506:508] = 255
    screen[485:487, 506:506 + across] = 255
    return screen


@pytest.mark.parametrize("wide", [1264, 1008])
def test_the_scan_of_a_screen_stands_right_of_the_fundus_picture(wide):
    screen = make_screen(wide=wide)
    screen[:496, :496], screen[100, 700] = 90, 200
    scan = find_bscan(screen)
    assert scan.pixels.shape == (496, wide - 496) and scan.pixels.dtype == np.uint8
    assert scan.pixels[100, 700 - 496] == 200 and scan.pixels[200, 0] == 0
    assert scan[1:4] == (UM_DOWN, UM_ACROSS, "scale bars")


@pytest.mark.parametrize(("um_down", "um_across"), [(2.6, 6.0), (3.2, 8.0), (5.0, 14.0), (3.87, 5.7), (6.0, 17.0)])
@pytest.mark.parametrize("draw", ["device", "demonstration"])
@pytest.mark.parametrize("quality", [None, 60, 95])
def test_the_bars_tell_the_scale_to_a_pixel_of_their_length(um_down, um_across, draw, quality):
    screen = make_screen(um_down, um_across)
    if draw == "demonstration":
        screen[:] = 0
        demo_screen._draw_scale(screen, 506, (um_across, um_down))
    if quality:
        screen = cv2.imdecode(cv2.imencode(".jpg", screen, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)
    scan = find_bscan(screen)
    assert scan.scale == "scale bars"
    assert abs(scan.um_down - um_down) <= scan.um_down_off <= 0.05 * um_down
    assert abs(scan.um_across - um_across) <= scan.um_across_off <= 0.08 * um_across


@pytest.mark.parametrize(("um_down", "um_across"), [(3.87, 11.5), (3.79, 11.9), (3.95, 11.45)])
def test_what_a_bar_cannot_tell_from_the_usual_scale_is_taken_for_it_and_said_to_be_unsure(um_down, um_across):
    """A bar of 17 whole pixels may mean 16.5 to 18 of them, one of 51 50.5 to 52."""
    scan = find_bscan(make_screen(um_down, um_across))
    assert scan.um_across == UM_ACROSS and scan.um_across_off == pytest.approx(200 / 16.5 - 11.5)
    assert abs(scan.um_down - um_down) <= scan.um_down_off < 0.026 * um_down


def test_what_is_given_counts_as_far_as_the_bars_may_mean_it():
    usual = find_bscan(make_screen())
    assert find_bscan(make_screen(), um_down=5.0, um_across=9.0)[1:] == usual[1:]
    finer = find_bscan(make_screen(), um_down=3.9, um_across=11.7)
    assert finer[1:] == (3.9, 11.7, "scale bars", 0, 0)
    assert find_bscan(make_screen(), um_across=11.7)[1:] == (UM_DOWN, 11.7, "scale bars", usual.um_down_off, 0)


def test_on_the_real_screen_they_are_found(real):
    scan = read_bscan(real / "images" / "radial_OS_normal.jpg")
    assert scan[1:4] == (UM_DOWN, UM_ACROSS, "scale bars") and scan.pixels.shape == (496, 768)


def test_what_is_no_corner_is_no_scale():
    for draw in (
        lambda picture: cv2.line(picture, (10, 300), (10, 480), 255, 2),                    # no foot
        lambda picture: cv2.line(picture, (10, 480), (60, 480), 255, 2),                    # lying
        lambda picture: cv2.rectangle(picture, (10, 400), (60, 480), 255, -1),              # filled
        lambda picture: [picture.__setitem__((slice(400, 480), column), 255) for column in (10, 12)]
        + [picture.__setitem__((slice(478, 480), slice(10, 40)), 255)],                     # not alone
        lambda picture: cv2.line(picture, (500, 420), (500, 480), 255, 2),                  # at the right
        lambda picture: picture.__setitem__(slice(None), 255),
        lambda picture: picture.__setitem__(slice(None), np.random.default_rng(0).integers(0, 256, picture.shape)),
    ):
        picture = np.zeros((496, 768), np.uint8)
        draw(picture)
        assert read_scale_bars(picture) is None
    without = np.zeros((596, 1264, 3), np.uint8)
    assert find_bscan(without)[1:4] == (UM_DOWN, UM_ACROSS, "assumed")
    assert np.isnan([find_bscan(without).um_down_off, find_bscan(without).um_across_off]).all()


def test_a_bare_scan_is_all_of_the_picture_and_its_scale_is_given_or_assumed():
    picture = np.random.default_rng(0).integers(0, 256, (420, 630, 3), np.uint8)
    scan = find_bscan(picture)
    assert scan.pixels.shape == (420, 630) and scan[1:4] == (UM_DOWN, UM_ACROSS, "assumed")
    assert find_bscan(picture, um_down=5.0)[1:4] == (5.0, UM_ACROSS, "given in part")
    assert find_bscan(picture, um_across=9.0)[1:4] == (UM_DOWN, 9.0, "given in part")
    assert find_bscan(picture, um_down=5.0, um_across=9.0)[1:] == (5.0, 9.0, "given", 0, 0)
    assert np.array_equal(scan.pixels, cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY))


@pytest.mark.parametrize("change", [
    lambda screen: screen[:-1], lambda screen: screen[:, 4:], lambda screen: cv2.resize(screen, None, fx=0.5, fy=0.5),
    lambda screen: cv2.copyMakeBorder(screen, 5, 5, 5, 5, cv2.BORDER_CONSTANT),
])
@pytest.mark.parametrize("wide", [1264, 1008])
def test_a_screen_that_was_cut_or_resized_is_refused_rather_than_measured_with_its_fundus_picture(change, wide):
    screen = make_screen(wide=wide, grey=40)
    cv2.arrowedLine(screen, (248, 400), (248, 90), (0, 255, 0), 2)
    with pytest.raises(ImageError, match="looks like a screen of the device, cut or resized"):
        find_bscan(change(screen))
    assert find_bscan(screen).scale == "scale bars" and find_bscan(screen[:496, 496:]).scale == "assumed"


def test_the_real_screen_cut_by_a_row_is_refused(real):
    with pytest.raises(ImageError, match="looks like a screen of the device"):
        find_bscan(read_image(real / "images" / "radial_OS_normal.jpg")[:-1])


@pytest.mark.parametrize("shape", [(63, 700), (700, 63), (1, 1), (4097, 100), (100, 8193)])
def test_what_is_too_small_or_too_high_for_a_scan_is_said(shape):
    with pytest.raises(ImageError, match=rf"{shape[1]} x {shape[0]} pixels are no B-scan"):
        find_bscan(np.zeros((*shape, 3), np.uint8))
