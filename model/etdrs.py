"""A visit's parallel or radial lines -> a map of the retina's thickness, and the nine fields of the ETDRS grid.

Reads the JSON file that says where the lines lie; writes no file. Places are mm on the retina, x to the right and y
downwards in the fundus picture; the map has G x G points.

The grid (Early Treatment Diabetic Retinopathy Study, Arch Ophthalmol 1985;103:1796-1806): C0 within 0.5 mm of its
middle; S1, N1, I1, T1 the quarters of the ring to 1.5 mm, superior, nasal, inferior and temporal; S2 ... those of the
ring to 3 mm.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from processing.errors import PipelineError

RADII_MM = (0.5, 1.5, 3.0)
FIELDS = ("C0", "S1", "N1", "I1", "T1", "S2", "N2", "I2", "T2")
STEP_MM = 0.02                  # between the points of the map
FAR_MM = 0.3                    # by which what was read lies farther than the nearest column: as if no line were there
LEAST_COVERED = 0.5             # of a field's points: with fewer it has no mean
WANTED = ('{"eye": "right", "centre_mm": [x, y], "lines": [{"bscan": "1.jpg", "start_mm": [x, y], "end_mm": [x, y]}, '
          '...]}')


class Line(NamedTuple):
    """Where a B-scan lies."""

    bscan: str                          # its file, beside the JSON file
    start_mm: tuple[float, float]       # of its first column
    end_mm: tuple[float, float]         # of its last


class Volume(NamedTuple):
    """The lines of a visit."""

    is_right: bool
    centre_mm: tuple[float, float]      # of the grid
    lines: list[Line]
    um_down: float | None               # scale of the B-scans; None: it does not say
    um_across: float | None
    fundus_um: float | None             # of a pixel of the fundus picture


def read_volume(file: Path) -> Volume:
    """Read the JSON file of a visit's lines.

    Its keys: eye ("left" or "right"), lines (bscan, start_mm, end_mm), centre_mm or centre_px with fundus_um_per_pixel;
    maybe um_per_pixel_down and um_per_pixel_across.

    Raises:
        PipelineError: it cannot be read, or something is not as it must be.
    """
    try:
        content = json.loads(file.read_bytes())
    except OSError as error:
        raise PipelineError(f"{file} cannot be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise PipelineError(f"{file} is no JSON: {error}. It must hold {WANTED}.") from error
    try:
        fundus_um = _read_scale(content, "fundus_um_per_pixel")
        centre = _read_place(content["centre_mm"]) if "centre_mm" in content else tuple(
            value * float(fundus_um or np.nan) / 1000 for value in _read_place(content["centre_px"]))
        lines = [Line(_read_name(line["bscan"]), _read_place(line["start_mm"]), _read_place(line["end_mm"]))
                 for line in content["lines"]]
        um_down, um_across = (_read_scale(content, f"um_per_pixel_{way}") for way in ("down", "across"))
        volume = Volume(content["eye"] == "right", (centre[0], centre[1]), lines, um_down, um_across, fundus_um)
        if content["eye"] not in ("left", "right") or not np.isfinite(centre).all():
            raise ValueError("the eye must be left or right, and the centre known")
        if len({line.bscan for line in lines}) < len(lines):
            raise ValueError("two lines have the same bscan")
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        why = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise PipelineError(f"{file} does not say where the lines lie: {why}. It must hold {WANTED}.") from error
    if len(volume.lines) < 3:
        raise PipelineError(f"{file} has {len(volume.lines)} lines; a map of the thickness needs 3 or more.")
    return volume


def _read_name(value: Any) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise ValueError(f"{value!r} is no file")
    return value


def _read_place(value: Any) -> tuple[float, float]:
    x, y = (float(number) for number in value)
    if not np.isfinite([x, y]).all():
        raise ValueError(f"{value} is no place")
    return x, y


def _read_scale(content: dict[str, Any], name: str) -> float | None:
    if name not in content:
        return None
    value = float(content[name])
    if not 0 < value < np.inf:
        raise ValueError(f"{name} is {content[name]}")
    return value


def place_columns(line: Line, count: int) -> np.ndarray:
    """count x 2: where each column of a B-scan lies, mm."""
    return np.linspace(line.start_mm, line.end_mm, count)


def map_thickness(places_mm: np.ndarray, thickness_um: np.ndarray, centre_mm: tuple[float, float]) -> np.ndarray:
    """Interpolate what was measured along the lines, linearly in triangles (Delaunay).

    Args:
        places_mm: N x 2, of all columns.
        thickness_um: N; NaN: not read.
        centre_mm: of the map.

    Returns:
        G x G float64, um, 3 mm around the centre; NaN where no line is around, or what was read of it lies FAR_MM or
        more beyond the nearest column: a hole in the reading is none in the retina, and is not filled from its rim.

    Raises:
        PipelineError: all lie on one line, or there are too few.
    """
    from scipy.interpolate import LinearNDInterpolator  # comes with scikit-learn
    from scipy.spatial import KDTree, QhullError

    steps = np.arange(-RADII_MM[-1], RADII_MM[-1] + STEP_MM / 2, STEP_MM)
    points = np.stack(np.meshgrid(centre_mm[0] + steps, centre_mm[1] + steps), axis=-1)
    known = places_mm[np.isfinite(thickness_um)]
    try:
        found = np.asarray(LinearNDInterpolator(known, thickness_um[np.isfinite(thickness_um)])(points))
        beyond = KDTree(known).query(points)[0] - KDTree(places_mm).query(points)[0]
        return np.where(beyond < FAR_MM, found, np.nan)
    except (QhullError, ValueError) as error:
        raise PipelineError("The lines do not span a map of the thickness: too few of their columns could be read, or "
                            "all lie on one line.") from error


def average_fields(thickness_map: np.ndarray, *, is_right: bool) -> dict[str, float]:
    """Means of the nine fields, um; NaN of one of which less than half is covered.

    Args:
        thickness_map: G x G, of map_thickness.
        is_right: whether it is a right eye: nasal is to the right then.
    """
    steps = np.arange(-RADII_MM[-1], RADII_MM[-1] + STEP_MM / 2, STEP_MM)
    x, y = np.meshgrid(steps if is_right else -steps, steps)        # x grows towards the nose
    radius = np.hypot(x, y)
    upright = np.abs(y) > np.abs(x)
    quarters = {"S": upright & (y < 0), "I": upright & (y > 0), "N": ~upright & (x > 0), "T": ~upright & (x <= 0)}
    within = {"C0": radius <= RADII_MM[0]}
    for ring in (1, 2):
        inside = (radius > RADII_MM[ring - 1]) & (radius <= RADII_MM[ring])
        within |= {f"{quarter}{ring}": inside & chosen for quarter, chosen in quarters.items()}
    return {field: _mean(thickness_map[within[field]]) for field in FIELDS}


def _mean(values: np.ndarray) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).mean() >= LEAST_COVERED else float("nan")
