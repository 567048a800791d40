"""The numbers of a scan: on readings whose shape is known, each has the value that its definition says."""

import numpy as np
import pytest

from model.measures import MEASURES, ScanReading, explain, measure_scan, measure_thickness
from processing import columns as c
from processing.bscans import Bscan

ROWS, COLUMNS, DOWN, ACROSS = 200, 401, 4.0, 10.0       # the middle is column 200; 2 mm to either side


def make_scan():
    pixels = np.full((ROWS, COLUMNS), 20, np.uint8)
    pixels[50:150] = 120
    return Bscan(pixels, DOWN, ACROSS, "given")


def make_reading(ilm=50.0, bm=150.0, **parts):
    """Membranes at these rows (numbers, or one for each column), and fluids of which there are none."""
    rows = [np.broadcast_to(np.asarray(row, np.float32), (COLUMNS,)).copy() for row in (ilm, bm)]
    nothing = np.zeros((ROWS // 2, COLUMNS // 2), np.float32)
    fluids = {name: parts.get(name, nothing) for name in ("IRF", "SRF", "PED", "foci")}
    return ScanReading(*rows, np.full(COLUMNS, 0.3, np.float32), np.full(COLUMNS, 0.4, np.float32),
                       parts.get("is_cut", np.zeros(COLUMNS, bool)), fluids, (2 * DOWN, 2 * ACROSS))


def test_an_even_retina_is_as_thick_everywhere():
    found = measure_scan(make_scan(), make_reading())
    assert list(found) == list(MEASURES)
    for name in ("middle", "fovea", "0_5mm", "1_5mm", "largest", "smallest"):
        assert found[f"thickness_{name}_um"] == pytest.approx(400)
    assert np.isnan(found["thickness_3mm_um"])      # the scan reaches 2 of the 3 mm
    assert found["readable_share"] == 1 and found["cut_share"] == 0 and explain(found) == ""
    assert found["spread_um"] == pytest.approx(0.5 * DOWN) and found["signal_grey"] == pytest.approx(100, abs=2)
    assert found["irf_area_mm2"] == found["foci_count"] == 0 and np.isnan(found["irf_distance_um"])


def test_the_fovea_is_the_thinnest_point_near_the_middle():
    x = np.arange(COLUMNS)
    ilm = 50 + 40 * np.exp(-((x - 240) / 15) ** 2) + 60 * np.exp(-((x - 20) / 15) ** 2)     # 400 um aside; 1,800 um
    found = measure_scan(make_scan(), make_reading(ilm))
    assert found["thickness_fovea_um"] == pytest.approx(240, abs=8)
    assert found["thickness_smallest_um"] == pytest.approx(160, abs=8)
    assert found["thickness_middle_um"] == pytest.approx(400, abs=2)


def test_means_are_of_the_columns_within_their_distance():
    ilm = np.where(np.abs(np.arange(COLUMNS) - 200) <= 50, 75.0, 50.0)     # 300 um within 0.5 mm, 400 um beyond
    found = measure_scan(make_scan(), make_reading(ilm))
    assert found["thickness_0_5mm_um"] == pytest.approx(300)
    assert found["thickness_1_5mm_um"] == pytest.approx((101 * 300 + 200 * 400) / 301, abs=0.1)


def test_thickness_to_the_rpe_ends_above_a_detachment():
    ped = np.zeros((ROWS // 2, COLUMNS // 2), np.float32)
    ped[55:75, 94:106] = 0.5                # 160 um high where it is sure; 240 um wide around the middle
    ilm = 50 + 10 * np.exp(-((np.arange(COLUMNS) - 240) / 15) ** 2)             # the fovea lies beside it
    found = measure_scan(make_scan(), make_reading(ilm, PED=ped))
    assert found["thickness_0_5mm_um"] == pytest.approx(393, abs=2)
    assert found["thickness_to_rpe_0_5mm_um"] == pytest.approx(found["thickness_0_5mm_um"] - 80 * 240 / 1000, abs=1.5)
    assert found["thickness_fovea_um"] == pytest.approx(360, abs=2)
    assert found["thickness_to_rpe_fovea_um"] == pytest.approx(320, abs=2)      # above it
    none = measure_scan(make_scan(), make_reading(ilm))
    assert none["thickness_to_rpe_fovea_um"] == none["thickness_fovea_um"]


def test_what_was_not_read_is_left_out_and_too_little_gives_no_number():
    ilm = np.full(COLUMNS, 50.0)
    ilm[:150] = np.nan
    found = measure_scan(make_scan(), make_reading(ilm, np.where(np.isnan(ilm), np.nan, 150.0)))
    assert found["thickness_middle_um"] == found["thickness_0_5mm_um"] == pytest.approx(400)
    assert found["readable_share"] == pytest.approx(251 / 401)
    ilm[150:290] = np.nan
    found = measure_scan(make_scan(), make_reading(ilm, np.where(np.isnan(ilm), np.nan, 150.0)))
    assert np.isnan([found[f"thickness_{name}_um"] for name in ("middle", "fovea", "0_5mm", "1_5mm")]).all()
    assert found["thickness_largest_um"] == pytest.approx(400)


def test_without_a_retina_there_is_no_number_and_a_reason():
    ilm = np.full(COLUMNS, np.nan)
    ilm[:60] = 50.0
    found = measure_scan(make_scan(), make_reading(ilm, ilm + 100))
    assert explain(found) == "no retina found"
    told = {name for name, value in found.items() if not np.isnan(value)}
    assert told == {"readable_share", "cut_share"}


def test_a_mean_wants_a_scan_that_reaches_as_far():
    columns = 241                           # 2.76 mm of 11.5 um: 1.38 to either side
    ilm = np.full(columns, 50.0, np.float32)
    reading = make_reading()._replace(ilm_row=ilm, bm_row=ilm + 100, ilm_spread=ilm * 0 + 1, bm_spread=ilm * 0 + 1,
                                      is_cut=ilm < 0)
    pixels = np.zeros((200, columns), np.uint8)
    found = measure_scan(make_scan()._replace(pixels=pixels, um_across=11.5), reading)
    assert np.isfinite(found["thickness_1_5mm_um"]) and np.isnan(found["thickness_3mm_um"])
    found = measure_scan(make_scan()._replace(pixels=pixels[:, :240], um_across=60.0),
                         reading._replace(**{name: getattr(reading, name)[:240] for name in (
                             "ilm_row", "bm_row", "ilm_spread", "bm_spread", "is_cut")}))
    assert np.isfinite([found["thickness_3mm_um"], found["thickness_middle_um"]]).all()     # no column at the middle


def test_membranes_that_may_be_anywhere_are_no_retina():
    reading = make_reading()
    found = measure_scan(make_scan(), reading._replace(bm_spread=np.full(COLUMNS, 12, np.float32)))      # 48 um
    assert explain(found) == "no retina found" and found["spread_um"] == pytest.approx(48, abs=1)
    assert np.isnan([value for name, value in found.items() if name.startswith("thickness")]).all()
    assert explain(measure_scan(make_scan(), reading._replace(bm_spread=np.full(COLUMNS, 8, np.float32)))) == ""


def test_a_retina_that_leaves_the_picture_is_said():
    is_cut = np.arange(COLUMNS) < 60
    ilm = np.where(is_cut, np.nan, 50.0)
    found = measure_scan(make_scan(), make_reading(ilm, np.where(is_cut, np.nan, 150.0), is_cut=is_cut))
    assert explain(found) == "cut off at the top" and found["thickness_middle_um"] == pytest.approx(400)


def test_a_retina_that_leaves_the_picture_nearly_everywhere_is_not_said_to_be_missing():
    is_cut = np.arange(COLUMNS) > 20
    ilm = np.where(is_cut, np.nan, 50.0)
    found = measure_scan(make_scan(), make_reading(ilm, np.where(is_cut, np.nan, 150.0), is_cut=is_cut))
    assert explain(found) == "cut off at the top" and np.isnan(found["thickness_largest_um"])


def test_a_retina_that_is_not_read_near_its_middle_is_said():
    hole = np.full(COLUMNS, 50.0)
    hole[125:276] = np.nan
    found = measure_scan(make_scan(), make_reading(ilm=hole))
    assert found["readable_share"] > 0.5 and np.isnan(found["thickness_middle_um"])
    assert explain(found) == c.NO_MIDDLE


def test_areas_heights_and_distances_of_fluid():
    chances = np.zeros((ROWS // 2, COLUMNS // 2), np.float32)
    chances[40:50, 110:120] = 0.9           # 80 um high, 200 um wide
    chances[30, 150] = 0.4                  # less likely there than not
    alone = np.zeros_like(chances)
    alone[30, 150] = 0.8                    # one place of four
    found = measure_scan(make_scan(), make_reading(SRF=chances, PED=alone))
    place_mm2 = 8 * 20 / 1e6
    assert found["srf_area_mm2"] == pytest.approx(100 * place_mm2)
    assert found["srf_chance"] == pytest.approx(0.9) and found["irf_chance"] == 0
    assert found["srf_height_um"] == pytest.approx(80)
    assert found["srf_distance_um"] == pytest.approx((110 - 99.5) * 20)
    assert found["irf_area_mm2"] == 0 and found["ped_chance"] == pytest.approx(0.2)


def test_foci_are_counted_apart():
    chances = np.zeros((ROWS // 2, COLUMNS // 2), np.float32)
    chances[40:42, 20:22] = chances[42, 22] = chances[60, 90] = 0.8        # the first two touch at a corner
    found = measure_scan(make_scan(), make_reading(foci=chances))
    assert found["foci_count"] == 2 and found["foci_area_mm2"] == pytest.approx(6 * 8 * 20 / 1e6)


def test_thickness_is_in_um():
    assert measure_thickness(make_reading(10.5, 30.0), 3.87).tolist() == pytest.approx([19.5 * 3.87] * COLUMNS)
