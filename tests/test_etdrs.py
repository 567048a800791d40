"""The thickness map and the ETDRS fields: of shapes whose means are known, and of faulty files."""

import json

import numpy as np
import pytest

from model.etdrs import FIELDS, Line, average_fields, map_thickness, place_columns, read_volume
from processing.errors import PipelineError

LINES = [{"bscan": f"{k}.jpg", "start_mm": [1, 1 + k], "end_mm": [7, 1 + k]} for k in range(7)]
VOLUME = {"eye": "right", "centre_mm": [4, 4], "lines": LINES}


def map_of(function, lines=25):
    """The map of what `function` says at mm from the centre, measured along horizontal lines."""
    y, x = np.meshgrid(np.linspace(-3.2, 3.2, lines), np.linspace(-3.2, 3.2, 200), indexing="ij")
    places = np.stack([x.ravel() + 4, y.ravel() + 4], axis=1)
    return map_thickness(places, function(x, y).ravel(), (4.0, 4.0))


def test_an_even_retina_has_even_fields():
    fields = average_fields(map_of(lambda x, y: np.full(x.shape, 300.0)), is_right=True)
    assert list(fields) == list(FIELDS) and fields == pytest.approx(dict.fromkeys(FIELDS, 300.0))


@pytest.mark.parametrize("is_right", [True, False])
def test_each_field_lies_where_it_belongs(is_right):
    """Thicker to the right by 10 um a mm, and downwards by 20: nasal is right in a right eye."""
    fields = average_fields(map_of(lambda x, y: 300 + 10 * x + 20 * y), is_right=is_right)
    nose = 1 if is_right else -1
    # The middle of a quarter of a ring lies 2 (R^3 - r^3) / (3 (R^2 - r^2)) sin(45 deg) / (pi / 4) from the centre
    middles = {ring: 2 * (far**3 - near**3) / (3 * (far**2 - near**2)) * np.sin(np.pi / 4) / (np.pi / 4)
               for ring, near, far in (("1", 0.5, 1.5), ("2", 1.5, 3.0))}
    wanted = {"C0": 300.0}
    for ring, away in middles.items():
        wanted |= {f"N{ring}": 300 + nose * 10 * away, f"T{ring}": 300 - nose * 10 * away,
                   f"S{ring}": 300 - 20 * away, f"I{ring}": 300 + 20 * away}
    assert fields == pytest.approx(wanted, abs=0.5)


def test_a_field_that_the_lines_do_not_reach_has_no_mean():
    y, x = np.meshgrid(np.linspace(-0.9, 0.9, 9), np.linspace(-3.2, 3.2, 100), indexing="ij")
    found = map_thickness(np.stack([x.ravel(), y.ravel()], axis=1), np.full(x.size, 300.0), (0.0, 0.0))
    fields = average_fields(found, is_right=True)
    assert np.isnan([fields["S2"], fields["I2"]]).all() and fields["C0"] == pytest.approx(300)
    found[abs(np.arange(len(found)) - len(found) // 2) > 90] = np.nan       # 1.8 mm: a small part of S2 and I2 is left
    found[abs(np.arange(len(found)) - len(found) // 2) <= 90] = 300
    fields = average_fields(found, is_right=True)
    assert np.isnan([fields["S2"], fields["I2"]]).all() and fields["S1"] == fields["N2"] == 300


def test_a_hole_in_the_reading_is_not_filled_from_its_rim():
    """Where swelling swallows the light nothing is known; a line that is missing is, from its neighbours."""
    def swollen(x, y):
        return np.where(np.hypot(x, y) < 0.9, np.nan, 300.0)
    fields = average_fields(map_of(swollen), is_right=True)
    assert np.isnan(fields["C0"]) and fields["S2"] == pytest.approx(300)
    fields = average_fields(map_of(lambda x, y: np.where(np.abs(y) < 0.1, np.nan, 300 + 10 * y)), is_right=True)
    assert fields["C0"] == pytest.approx(300, abs=0.1)


def test_radial_lines_make_a_map_too():
    angles, along = np.arange(6) * np.pi / 6, np.linspace(-3.3, 3.3, 200)
    places = np.concatenate([np.outer(along, [np.cos(angle), np.sin(angle)]) for angle in angles])
    fields = average_fields(map_thickness(places, 300 + 10 * places[:, 0], (0.0, 0.0)), is_right=True)
    assert fields["C0"] == pytest.approx(300, abs=1) and fields["N1"] > 307 and fields["T2"] < 285


def test_columns_lie_between_the_ends():
    places = place_columns(Line("a", (1.0, 2.0), (3.0, 6.0)), 5)
    assert places.tolist() == [[1, 2], [1.5, 3], [2, 4], [2.5, 5], [3, 6]]


def write(tmp_path, content):
    file = tmp_path / "lines.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


def test_a_file_of_lines_is_read(tmp_path):
    volume = read_volume(write(tmp_path, VOLUME | {"um_per_pixel_down": 3.9, "um_per_pixel_across": 11}))
    assert volume.is_right and volume.centre_mm == (4, 4) and (volume.um_down, volume.um_across) == (3.9, 11)
    assert volume.lines[2] == Line("2.jpg", (1, 3), (7, 3)) and volume.fundus_um is None
    pixels = {name: value for name, value in VOLUME.items() if name != "centre_mm"}
    pixels |= {"eye": "left", "centre_px": [400, 300], "fundus_um_per_pixel": 10}
    by_pixels = read_volume(write(tmp_path, pixels))
    assert by_pixels.centre_mm == (4, 3) and not by_pixels.is_right


@pytest.mark.parametrize(("content", "message"), [
    ("{", "is no JSON"), ("[]", "does not say where the lines lie"), ({}, "does not say where the lines lie"),
    (VOLUME | {"eye": "OD"}, "lie: the eye must be left or right"),
    (VOLUME | {"lines": LINES[:1] * 3}, "the same bscan"),
    ({name: VOLUME[name] for name in VOLUME if name != "eye"}, "lie: no 'eye'"),
    (VOLUME | {"lines": LINES[:2]}, "has 2 lines; .* needs 3 or more"),
    (VOLUME | {"lines": [{"bscan": "1.jpg"}] * 3}, "start_mm"), (VOLUME | {"centre_mm": [1]}, "does not say"),
    (VOLUME | {"centre_mm": ["x", 2]}, "does not say"), (VOLUME | {"um_per_pixel_down": 0}, "um_per_pixel_down is 0"),
    (VOLUME | {"lines": [LINES[0] | {"end_mm": [float("nan"), 1]}] * 3}, "is no place"),
    (VOLUME | {"lines": 7}, "does not"), (VOLUME | {"centre_mm": [10**400, 1]}, "does not say"),
    (VOLUME | {"lines": [LINES[0] | {"bscan": "a\0.jpg"}] * 3}, "is no file"), ("[" * 100_000, "is no JSON"),
    ({name: VOLUME[name] for name in ("eye", "lines")} | {"centre_px": [1, 2]}, "the centre known"),
])
def test_a_faulty_file_of_lines_is_refused_with_what_it_must_hold(tmp_path, content, message):
    with pytest.raises(PipelineError, match=f'(?s){message}.*' if "needs 3" in message else f'(?s){message}.*"eye"'):
        read_volume(write(tmp_path, content))


def test_a_file_that_is_not_there_is_said(tmp_path):
    with pytest.raises(PipelineError, match="none.json cannot be read: No such file"):
        read_volume(tmp_path / "none.json")


def test_lines_that_span_no_map_are_refused():
    places = np.stack([np.linspace(0, 6, 50), np.full(50, 3.0)], axis=1)
    with pytest.raises(PipelineError, match="do not span a map"):
        map_thickness(places, np.full(50, 300.0), (3.0, 3.0))
