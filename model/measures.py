"""What was read of a B-scan, and the numbers that follow from it. Reads and writes no file.

W columns of the scan; h x w places of the fluid's probabilities, each two pixels of what the network saw high and wide;
F kinds of fluid. The middle is that of the scan's columns; a distance is along the scan. Of `measure_scan`:

    thickness_middle_um         ILM to BM, mean of the columns within 25 um of the middle
    thickness_fovea_um          at the thinnest point within 750 um of the middle, of the mean over 50 um
    thickness_0_5mm_um, thickness_1_5mm_um, thickness_3mm_um    mean within 0.5, 1.5 and 3 mm of the middle; of a scan
                                that does not reach nine tenths as far: none
    thickness_largest_um, thickness_smallest_um     of the mean over 50 um, anywhere
    thickness_to_rpe_fovea_um, thickness_to_rpe_0_5mm_um    as above, but ILM to RPE: less the height of a PED, which
                                lies between the RPE and BM; some devices' CST ends there
    irf_area_mm2, srf_area_mm2, ped_area_mm2        where the fluid is more likely there than not
    irf_chance, srf_chance, ped_chance, foci_chance     how likely it is at its likeliest place (mean of 2 x 2 places);
                                for ranking scans by whether there is any
    irf_height_um, srf_height_um, ped_height_um     largest height in one column; of cysts over one another, together
    irf_distance_um, srf_distance_um, ped_distance_um   of the nearest such fluid from the middle; empty without any
    foci_count, foci_area_mm2   hyperreflective foci
    readable_share              of the columns, in which both membranes were found
    cut_share                   of the columns, in which the retina leaves the picture at the top
    spread_um                   median of how uncertain the thickness is: standard deviation
    signal_grey                 mean grey of the retina less that of what lies above it, 0 to 255

A mean counts where half of its columns or more were read. Fluid counts between the membranes only. Nothing is measured
of a picture of whose columns fewer than a fifth were read, or with more uncertainty than 40 um: it holds no retina. (Of
250 drawn scans none reached 26 um; of 400 drawn pictures without one all but one had fewer columns or more than 50 um.)
"""

from typing import NamedTuple

import cv2
import numpy as np

from processing import columns as c
from processing.bscans import Bscan

AREAS = ("IRF", "SRF", "PED")               # fluids of which area, height and distance are told
FOCI = "foci"
NEAR_MIDDLE_UM, NEAR_FOVEA_UM, SMOOTH_UM = 25, 750, 50
LEAST_REACH = 0.9                           # of a distance from the middle, that a scan has within it
WITHIN_MM = {"thickness_0_5mm_um": 0.5, "thickness_1_5mm_um": 1.5, "thickness_3mm_um": 3.0}
TO_RPE = {"thickness_to_rpe_fovea_um": "thickness_fovea_um", "thickness_to_rpe_0_5mm_um": "thickness_0_5mm_um"}
LEAST_READABLE = 0.2                        # of the columns: fewer, and there is no retina
MOST_SPREAD_UM = 40                         # of the thickness, median: with more, there is no retina
LEAST_CUT = 0.1                             # of the columns: as many, and the scan is said to be cut off
LIKELY = 0.5                                # probability from which on fluid is there

AREA_MEASURES = ("area_mm2", "chance", "height_um", "distance_um")
MEASURES = (
    "thickness_middle_um", "thickness_fovea_um", *WITHIN_MM, "thickness_largest_um", "thickness_smallest_um", *TO_RPE,
    *(f"{fluid.lower()}_{what}" for fluid in AREAS for what in AREA_MEASURES),
    "foci_count", "foci_area_mm2", "foci_chance", "readable_share", "cut_share", "spread_um", "signal_grey",
)


class ScanReading(NamedTuple):
    """What the network says of one scan, in its own pixels."""

    ilm_row: np.ndarray         # float32 W: inner limiting membrane; NaN: not read
    bm_row: np.ndarray          # float32 W: Bruch's membrane; NaN where ILM is
    ilm_spread: np.ndarray      # float32 W: standard deviation, rows
    bm_spread: np.ndarray
    is_cut: np.ndarray          # bool W: the retina leaves the picture at the top
    fluids: dict[str, np.ndarray]   # name -> float32 h x w: probability, 0 outside the membranes
    place_um: tuple[float, float]   # how high and wide a place is

    @property
    def is_readable(self) -> np.ndarray:
        """bool W."""
        return np.isfinite(self.ilm_row)


def explain(measures: dict[str, float]) -> str:
    """What keeps a scan from being measured, or from being whole; empty where nothing does."""
    if measures["readable_share"] < LEAST_READABLE or measures["spread_um"] > MOST_SPREAD_UM:
        return c.CUT_OFF if measures["cut_share"] > 0.5 else c.NO_RETINA
    if measures["cut_share"] >= LEAST_CUT:
        return c.CUT_OFF
    is_read = np.isfinite([measures["thickness_middle_um"], measures["thickness_fovea_um"]]).all()
    return "" if is_read else c.NO_MIDDLE


def measure_thickness(reading: ScanReading, um_down: float) -> np.ndarray:
    """float32 W: ILM to BM, um; NaN where not read."""
    return (reading.bm_row - reading.ilm_row) * np.float32(um_down)


def measure_scan(scan: Bscan, reading: ScanReading) -> dict[str, float]:
    """The numbers of a scan, as the head of this module defines them; NaN where there is none.

    Args:
        scan: as recorded.
        reading: what was read of it.

    Returns:
        dict with the keys MEASURES.
    """
    readable = reading.is_readable
    found: dict[str, float] = dict.fromkeys(MEASURES, np.nan)
    found |= {"readable_share": float(readable.mean()), "cut_share": float(reading.is_cut.mean())}
    if found["readable_share"] < LEAST_READABLE:
        return found
    both = np.hypot(reading.ilm_spread, reading.bm_spread)[readable]
    found["spread_um"] = float(np.median(both) * scan.um_down)
    if found["spread_um"] > MOST_SPREAD_UM:
        return found
    thickness, from_middle_um = measure_thickness(reading, scan.um_down), _place_columns(len(readable), scan.um_across)
    found |= _measure_curve(thickness, from_middle_um, scan.um_across)
    to_rpe = _measure_curve(thickness - _find_ped_um(reading, scan.um_across), from_middle_um, scan.um_across)
    found |= {name: to_rpe[to_bm] for name, to_bm in TO_RPE.items()}
    for fluid in AREAS:
        found |= {f"{fluid.lower()}_{what}": value for what, value in _measure_fluid(reading, fluid).items()}
    likely = (reading.fluids[FOCI] >= LIKELY).astype(np.uint8)
    place_mm2 = np.prod(reading.place_um) / 1e6
    found["foci_count"] = cv2.connectedComponents(likely, connectivity=8)[0] - 1
    found["foci_area_mm2"] = float(likely.sum() * place_mm2)
    found["foci_chance"] = find_chance(reading.fluids[FOCI])
    found["signal_grey"] = _measure_signal(scan.pixels, reading)
    return found


def _place_columns(count: int, um_across: float) -> np.ndarray:
    """Distance of each column from the middle, um."""
    return np.abs(np.arange(count) - (count - 1) / 2) * um_across


def _measure_curve(thickness: np.ndarray, from_middle_um: np.ndarray, um_across: float) -> dict[str, float]:
    smooth = _smooth(thickness, SMOOTH_UM / um_across)
    near = smooth[from_middle_um <= NEAR_FOVEA_UM]
    return {
        "thickness_middle_um": _mean_of(thickness, from_middle_um <= max(NEAR_MIDDLE_UM, um_across / 2)),
        "thickness_fovea_um": float(np.nanmin(near)) if np.isfinite(near).mean() >= 0.5 else np.nan,
        **{name: _mean_of(thickness, from_middle_um <= 1000 * mm) for name, mm in WITHIN_MM.items()
           if from_middle_um[0] >= LEAST_REACH * 1000 * mm},
        "thickness_largest_um": float(np.nanmax(smooth)), "thickness_smallest_um": float(np.nanmin(smooth)),
    }


def _find_ped_um(reading: ScanReading, um_across: float) -> np.ndarray:
    """float W: how high a PED is in each column, um: the sum of its probability."""
    chances, (down_um, across_um) = reading.fluids["PED"], reading.place_um
    columns, places = np.arange(len(reading.ilm_row)) + 0.5, np.arange(chances.shape[1]) + 0.5
    return np.interp(columns * um_across, places * across_um, chances.sum(axis=0) * down_um)


def _mean_of(values: np.ndarray, chosen: np.ndarray) -> float:
    """Mean of the chosen ones that are known, if half of them or more are."""
    values = values[chosen]
    return float(np.nanmean(values)) if len(values) and np.isfinite(values).mean() >= 0.5 else np.nan


def _smooth(values: np.ndarray, columns: float) -> np.ndarray:
    """Running mean over about so many columns of what is known; NaN where the column itself is not."""
    wide = max(1, 2 * round((columns - 1) / 2) + 1)
    known = np.isfinite(values)
    window = np.ones(wide)
    count = np.convolve(known, window, "same")[:len(values)]
    total = np.convolve(np.where(known, values, 0), window, "same")[:len(values)]
    return np.where(known, total / np.maximum(count, 1), np.nan)


def find_chance(chances: np.ndarray) -> float:
    """How likely a fluid is at its likeliest place: h x w probabilities -> largest mean of 2 x 2 places."""
    return float(cv2.blur(chances, (2, 2)).max())


def _measure_fluid(reading: ScanReading, fluid: str) -> dict[str, float]:
    chances, (down_um, across_um) = reading.fluids[fluid], reading.place_um
    likely = chances >= LIKELY
    columns = likely.sum(axis=0)
    from_middle_um = _place_columns(len(columns), across_um)[columns > 0]
    return {
        "area_mm2": float(likely.sum() * down_um * across_um / 1e6),
        "chance": find_chance(chances),
        "height_um": float(columns.max() * down_um),
        "distance_um": float(from_middle_um.min()) if len(from_middle_um) else np.nan,
    }


def _measure_signal(pixels: np.ndarray, reading: ScanReading) -> float:
    rows = np.arange(len(pixels))[:, None]
    with np.errstate(invalid="ignore"):
        retina, above = (rows > reading.ilm_row) & (rows < reading.bm_row), rows < reading.ilm_row - 2
    return float(pixels[retina].mean() - pixels[above].mean()) if retina.any() and above.any() else np.nan
