"""Where a scan lies, read from the screen's green lines."""

import warnings

import cv2
import numpy as np
import pytest

from processing.counter import check_counter
from processing.geometry import FUNDUS_UM, NOTHING, read_geometry
from processing.images import read_image
from tests.faults.geometry import judge
from tests.lines import draw_background, draw_screen


def test_lines_of_all_kinds_are_read():
    fates = [judge(draw_screen([7, seed])) for seed in range(60)]
    assert not [fate for fate in fates if fate.startswith("wrong")]
    assert fates.count("right") >= 52


@pytest.mark.parametrize("number", [210, 1287, 1561])
def test_faint_outermost_lines_and_too_dense_ones_leave_the_middle_unknown(number):
    """One line is hidden or half outside, and with it the middle lies elsewhere; of dense ones too many are seen."""
    assert judge(draw_screen([2000, number])) == "unknown distance"


def test_the_real_screen_is_the_first_of_a_radial_pattern(real):
    found = read_geometry(read_image(real / "images" / "radial_OS_normal.jpg"))
    assert found.pattern == "radial" and found.arrow == "end" and found.distance_um == 0
    assert (found.line, found.lines, found.counter) == (1, 6, "agrees")
    assert abs(found.angle_deg - 90) < 0.5 and abs(found.start_x - 248) < 1.5 and found.end_y < 2 < 490 < found.start_y


def test_the_demonstrations_screens_say_where_their_scans_lie(demo_root):
    """Radial lines turn by 30 degrees; those of a volume lie 240 um apart and are counted from below."""
    found = {file.name: read_geometry(read_image(file)) for file in sorted(demo_root.source.rglob("*.jpg"))}
    assert {geometry.pattern for geometry in found.values()} <= {"radial", "volume"}
    radial = [geometry for geometry in found.values() if geometry.pattern == "radial"]
    assert radial and all(min(one.angle_deg % 30, 30 - one.angle_deg % 30) < 1 for one in radial)
    volume = [geometry for geometry in found.values() if geometry.pattern == "volume"]
    assert volume and all(abs((one.distance_um + 120) % 240 - 120) < 20 for one in volume)
    assert {one.lines for one in radial} == {6} and {one.lines for one in volume} == {25}
    assert all(one.line == round((90 - one.angle_deg) / 30) % 6 + 1 for one in radial)
    assert all(one.line == round(13 + one.distance_um / 240) for one in volume)
    counters = [geometry.counter for geometry in found.values()]
    assert "differs" not in counters and counters.count("agrees") > len(counters) / 4


def draw_star(screen, turns, *, half=180):
    """Lines through the middle, turned clockwise from upright by so many degrees; the first of them is bright."""
    for number, turn in reversed(list(enumerate(turns))):
        along = half * np.array([np.sin(np.radians(turn)), -np.cos(np.radians(turn))])
        ends = [tuple(np.rint(248 + way * along).astype(int).tolist()) for way in (-1, 1)]
        cv2.line(screen, *ends, (0, 128 if number else 255, 0), 2, cv2.LINE_AA)


@pytest.mark.parametrize(("text", "said"), [
    ("3 / 6", "agrees"), ("1 / 6", "differs"), ("3 / 7", "differs"), ("3 / 12", "differs"), ("3", ""), ("", ""),
    ("n / n", ""), ("A / 6", ""), ("3   6", ""), ("3 1 6", ""), ("3 7 6", ""), ("3 / / 6", ""), ("3 / 1 2", ""),
    ("5 / 6", "agrees"),        # the third one the other way round
])
@pytest.mark.parametrize("ground", [40, 150, 160])
def test_the_counter_is_only_compared_and_only_where_it_is_legible(text, said, ground):
    """Green is as bright as a ground of 150."""
    screen = np.full((596, 1264, 3), ground, np.uint8)
    draw_star(screen, [60, 0, 30, 90, 120, 150])
    cv2.putText(screen, text, (5, 19), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 255, 0), 1, cv2.LINE_AA)
    screen = cv2.imdecode(cv2.imencode(".jpg", screen, [cv2.IMWRITE_JPEG_QUALITY, 90])[1], cv2.IMREAD_COLOR)
    found = read_geometry(screen)
    assert (found.line, found.lines) == (3, 6)
    assert found.counter == (said if ground == 40 else "")


@pytest.mark.parametrize(("behind", "left", "lines", "said"), [
    ([("6", 26, 0.45)], 5, 6, "agrees"), ([("6", 26, 0.7)], 5, 6, ""), ([("12", 26, 0.45)], 5, 12, "agrees"),
    ([("6", 38, 0.45)], 5, 6, ""), ([("12", 24, 0.45)], 44, 12, ""), ([("12", 24, 0.45)], 44, 1, "")])
def test_what_is_uneven_or_leaves_the_corner_is_no_counter(behind, left, lines, said):
    screen = np.full((596, 1264, 3), 40, np.uint8)
    for text, column, size in [("3", 0, 0.45), ("/", 13, 0.45), *behind]:
        cv2.putText(screen, text, (left + column, 19), cv2.FONT_HERSHEY_SIMPLEX, size, (0, 255, 0), 1, cv2.LINE_AA)
    assert check_counter(screen, [3], lines) == said


def test_specks_are_no_counter():
    screen = np.full((596, 1264, 3), 40, np.uint8)
    screen[10, [10, 20, 30]] = 0, 255, 0
    assert check_counter(screen, [3], 6) == check_counter(screen, [1], 1) == ""


@pytest.mark.parametrize("length", [320, 321, 400])
@pytest.mark.parametrize("thick", [1, 2])
@pytest.mark.parametrize("quality", [None, 95, 80])
def test_level_lines_of_any_length_are_seen(length, thick, quality):
    """Places at whole and at half pixels are the same."""
    screen = np.full((596, 1264, 3), 60, np.uint8)
    for number in range(1, 20):
        row = 248 + 12 * (10 - number)
        screen[row:row + thick, 50:50 + length] = 0, 255 if number == 7 else 128, 0
    if quality:
        screen = cv2.imdecode(cv2.imencode(".jpg", screen, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)
    found = read_geometry(screen)
    assert (found.pattern, found.line, found.lines) == ("volume", 7, 19) and found.angle_deg == pytest.approx(0)
    assert found.distance_um == pytest.approx(-36 * FUNDUS_UM, abs=10)


def test_radial_lines_that_are_too_short_to_count_have_no_numbers_and_no_warning():
    screen = np.full((596, 1264, 3), 60, np.uint8)
    draw_star(screen, range(0, 180, 30), half=45)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = read_geometry(screen)
    assert np.isnan(found.line) and found.counter == ""


@pytest.mark.parametrize("lines", [5, 6])
def test_uneven_lines_have_no_numbers(lines):
    """Lines at 0, 30, 60 ... degrees, but for the last: it is turned by a third of that, or not there."""
    screen = np.full((596, 1264, 3), 60, np.uint8)
    draw_star(screen, [0, 30, 60, 90, 120, 140][:lines])
    found = read_geometry(screen)
    assert found.pattern == "radial" and found.distance_um == 0
    assert np.isnan(found.line) and np.isnan(found.lines) and found.counter == ""


@pytest.mark.parametrize("draw", [
    lambda rng, screen: None,                                                               # no line
    lambda rng, screen: screen.__setitem__(slice(None), rng.integers(0, 256, screen.shape)),
    lambda rng, screen: screen.__setitem__(slice(None), (40, 200, 60)),                     # green all over
    lambda rng, screen: cv2.circle(screen, (250, 250), 120, (0, 255, 0), 2),                # a ring
    lambda rng, screen: cv2.line(screen, (200, 200), (220, 205), (0, 255, 0), 2),           # too short
])
def test_where_there_is_no_line_nothing_is_said(draw):
    rng = np.random.default_rng(0)
    screen = np.zeros((596, 1264, 3), np.uint8)
    screen[:496, :496] = draw_background(rng)[..., None]
    draw(rng, screen)
    assert read_geometry(screen) == pytest.approx(NOTHING, nan_ok=True)


def test_a_picture_without_room_for_a_fundus_has_no_lines():
    assert read_geometry(np.zeros((300, 400, 3), np.uint8)) == pytest.approx(NOTHING, nan_ok=True)


@pytest.mark.parametrize("factor", [0.8, 1.25])
def test_a_screen_of_another_size_has_no_scale_and_so_no_distances(factor):
    drawn = draw_screen([7, 1])
    assert judge(drawn) == "right"
    resized = cv2.resize(drawn.screen, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    assert read_geometry(resized) == pytest.approx(NOTHING, nan_ok=True)


def test_one_line_alone_has_a_place_but_no_pattern():
    screen = np.full((596, 1264, 3), 120, np.uint8)
    cv2.line(screen, (50, 300), (450, 200), (0, 255, 0), 2, cv2.LINE_AA)
    found = read_geometry(screen)
    assert found.pattern == "unknown" and np.isnan(found.distance_um) and found.arrow == ""
    assert found.angle_deg == pytest.approx(np.degrees(np.arctan2(100, 400)), abs=0.3)
    assert (found.start_x, found.start_y) == pytest.approx((50, 300), abs=1.5)
