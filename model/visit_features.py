"""What was measured on a visit's scans, as features: thickness by place, fluid, quality; of other visits and eyes, too.

Reads data/processed/csv/{image_data,eyes,measures,geometry}.csv; writes nothing. N images, V visits.
"""

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from config import Paths
from model.eye_features import OF_SCANS, SCANNED
from model.measures import MEASURES
from processing import columns as c
from processing.crop_record import GeometryRecord
from processing.errors import PipelineError
from processing.files import describe_file
from processing.tables import read_measures, read_processed
from processing.visits import VISIT

NEAR_UM = 300                   # from the pattern's middle: scans that speak for the central subfield
USUAL_UM = 300.0                # where nothing was measured
PLAUSIBLE_UM = (60, 1500)       # thickness; what lies beyond is no measurement
THICKNESS = [name for name in MEASURES if name.startswith("thickness_")]
ANY_FLUID = {f"fluid_{which}": [f"{one}_{which}" for one in ("irf", "srf", "ped")] for which in ("area_mm2", "chance")}
FLUID = [name for name in MEASURES if name.split("_")[0] in ("irf", "srf", "ped", "foci")] + [*ANY_FLUID]
QUALITY = ["readable_share", "cut_share", "spread_um", "signal_grey"]
BASE = "near thickness_0_5mm_um"        # what a visit's thickness is compared with
BASES = (BASE, "near thickness_fovea_um", "mean thickness_1_5mm_um")      # the first of them that is known
TO_RPE = "near thickness_to_rpe_0_5mm_um"
OTHERS = [BASE, "near thickness_fovea_um", "most irf_chance", "most srf_chance", "most ped_chance"]
COMPARED = ("near ", "least ", "mean thickness")    # lengths that are features as shares of BASE, too
CLINICAL = [c.FINAL, c.AFTER, c.SIDE, c.GENDER, c.AGE, c.DIAGNOSIS, c.DRUG, c.PRE_VA]
FILLED = [c.AGE, c.PRE_VA]              # of these: where nothing is given, the rows hold a mean over others


def build_features(rows: pd.DataFrame, paths: Paths) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Features of images and of their visits. Other visits of the eye and the fellow eye are looked up, too.

    Args:
        rows: N rows of train.csv or test.csv.
        paths: config.Paths.

    Returns:
        images: DataFrame with the index of `rows`: the image's own measures, then its visit's features.
        visits: DataFrame indexed by VISIT: features of the visits of `rows`; NaN where unknown.

    Raises:
        PipelineError: option 11 has not measured all of the images.
    """
    everything = read_processed(paths.image_table, c.IMAGE_COLUMNS)
    persons = set(rows[c.PATIENT].map(c.person_of))
    kin = everything[everything[c.PATIENT].map(c.person_of).isin(persons)].drop_duplicates(c.SOURCE)
    measures = _read_measures(paths, pd.concat([rows[c.SOURCE], kin[c.SOURCE]]).drop_duplicates(), rows[c.SOURCE])
    kin = kin[kin[c.SOURCE].isin(measures.index)]
    visits = _describe_visits(kin[VISIT], measures.loc[kin[c.SOURCE]].set_axis(kin.index))
    compared = visits[[name for name in visits if name.startswith(COMPARED) and name.endswith("_um") and name != BASE]]
    visits = visits.join(compared.div(find_base(visits), axis=0).add_suffix(" / base"))
    visits = visits.join(_look_up(visits, lambda patient, after: (patient, 1 - after), "other "))
    visits = visits.join(_look_up(visits, lambda patient, after: (c.fellow_of(patient), after), "fellow "))
    clinical = hide_filled(rows, paths).groupby(VISIT)[CLINICAL].first().astype(float)
    visits = visits.reindex(clinical.index).join(clinical.add_prefix("clinical "))
    own = measures.loc[rows[c.SOURCE], [*THICKNESS, *FLUID, *QUALITY, "distance_um"]].add_prefix("own ")
    of_visit = visits.reindex(pd.MultiIndex.from_frame(rows[VISIT]))
    return pd.concat([own.set_axis(rows.index), of_visit.set_axis(rows.index)], axis=1), visits


def hide_filled(rows: pd.DataFrame, paths: Paths) -> pd.DataFrame:
    """Rows of eyes or images with NaN where eyes.csv tells no age or preVA and option 0 filled in a mean."""
    if not paths.eye_table.is_file():       # a file of weights alone, say, asked about eyes of one's own
        return rows
    given = read_processed(paths.eye_table, c.EYE_COLUMNS).drop_duplicates(c.PATIENT).set_index(c.PATIENT)[FILLED]
    is_filled = rows[c.PATIENT].isin(given.index).to_numpy()[:, None] & given.reindex(rows[c.PATIENT]).isna().to_numpy()
    return rows.assign(**rows[FILLED].mask(is_filled))


def describe_eyes(patients: pd.Series, paths: Paths) -> pd.DataFrame:
    """What was measured on the scans of eyes' visits (model.eye_features.SCANNED).

    Args:
        patients: N IDs.
        paths: config.Paths; where measures.csv is not there, nothing was measured.

    Returns:
        DataFrame with the index of `patients`; NaN where unknown.
    """
    images = pd.DataFrame(columns=[*VISIT, c.SOURCE])
    if paths.measures.is_file() and paths.image_table.is_file():
        images = read_processed(paths.image_table, c.IMAGE_COLUMNS).drop_duplicates(c.SOURCE)
        images = images[images[c.PATIENT].isin(patients)]
        measures = _read_measures(paths, images[c.SOURCE])
        images = images[images[c.SOURCE].isin(measures.index)]
    if images.empty:
        return pd.DataFrame(np.nan, index=patients.index, columns=SCANNED)
    visits = _describe_visits(images[VISIT], measures.loc[images[c.SOURCE]].set_axis(images.index))[[*OF_SCANS]]
    of_visit = visits.index.get_level_values(c.AFTER)
    parts = [visits[of_visit == after].droplevel(c.AFTER).reindex(patients).add_prefix(f"{name} ")
             for after, name in enumerate(("before", "after"))]
    return pd.concat(parts, axis=1).set_axis(patients.index)


def read_labels(paths: Paths) -> pd.DataFrame:
    """What the tables say of each visit of the training eyes: CST (um) and FINDINGS, indexed by VISIT; NaN where
    nothing is given.

    The findings of a visit whose images have labels of their own are the share of these.
    """
    eyes = read_processed(paths.eye_table, c.EYE_COLUMNS)
    eyes = eyes[eyes[c.DATA_TYPE] == "train"].set_index(c.PATIENT)
    before = eyes[[c.PRE_CST, *c.PRE_FINDINGS]].set_axis([c.CST, *c.FINDINGS], axis=1)
    visits = pd.concat({0: before, 1: eyes[[c.CST, *c.FINDINGS]]}, names=[c.AFTER])
    return visits.astype(float).swaplevel()


def require_measures(paths: Paths, wanted: pd.Series | None = None) -> pd.DataFrame:
    """What option 11 measured.

    Args:
        paths: config.Paths.
        wanted: source_path of images that must all be there, measured by this version of the program; None: so be it.

    Returns:
        DataFrame indexed by source_path, with MEASURES.

    Raises:
        PipelineError: it has not measured anything yet, or not all of `wanted`.
    """
    if not paths.measures.is_file():
        raise PipelineError(f"{paths.measures} is not there; the recipe measured needs it. Option 11 makes it.")
    try:
        table = _read_all(paths.measures, () if wanted is not None else MEASURES, *describe_file(paths.measures))
    except PipelineError as error:
        raise PipelineError(f"{error}\nOr let option 11 (measure) make it anew.") from error
    wanted = pd.Series(dtype=str) if wanted is None else wanted
    absent = wanted[~wanted.isin(table.index)]
    if len(absent):
        raise PipelineError(f"{paths.measures} lacks {len(absent)} of {len(wanted)} images, as {absent.iloc[0]}. "
                            "Option 11 (measure) measures what is new.")
    return table


@functools.lru_cache(maxsize=1)     # each model of a training wants it, and each fold
def _read_all(path: Path, optional: tuple[str, ...], *_state: str) -> pd.DataFrame:
    return read_measures(path, MEASURES, optional=optional).set_index(c.FILE)


def _read_measures(paths: Paths, sources: pd.Series, wanted: pd.Series | None = None) -> pd.DataFrame:
    """MEASURES and distance_um of those of `sources` that are measured, indexed by them; `wanted` as above."""
    table = require_measures(paths, wanted)
    table = table.loc[table.index.isin(sources), list(MEASURES)].astype(float)
    places = GeometryRecord(paths.geometry_table).table(table.index).set_index(c.SOURCE)["distance_um"]
    thickness = table[THICKNESS]
    table[THICKNESS] = thickness.where((thickness >= PLAUSIBLE_UM[0]) & (thickness <= PLAUSIBLE_UM[1]))
    any_fluid = {name: table[kinds].max(axis=1) for name, kinds in ANY_FLUID.items()}     # kinds may be mistaken
    return table.assign(distance_um=places.reindex(table.index), **any_fluid)


def _describe_visits(visit_of: pd.DataFrame, measures: pd.DataFrame) -> pd.DataFrame:
    """V rows of what was measured on the scans of each visit; `visit_of`: N x VISIT, the index of `measures`."""
    keys = [visit_of[name] for name in VISIT]
    away = measures["distance_um"].abs()
    nearest = away.groupby(keys).transform("min")
    is_near = (away <= NEAR_UM) | (away == nearest) | nearest.isna()        # the nearest there is, at least
    near = measures.where(is_near)
    parts = [
        near[THICKNESS].groupby(keys).median().add_prefix("near "),
        near[["thickness_fovea_um"]].groupby(keys).min().add_prefix("least "),
        measures[["thickness_smallest_um"]].groupby(keys).min(), measures[["thickness_largest_um"]].groupby(keys).max(),
        measures[[*THICKNESS, *FLUID]].groupby(keys).mean().add_prefix("mean "),
        measures[FLUID].groupby(keys).max().add_prefix("most "), near[FLUID].groupby(keys).mean().add_prefix("near "),
        measures[QUALITY].groupby(keys).mean().add_prefix("mean "), away.groupby(keys).min().rename("nearest_um"),
        away.groupby(keys).max().rename("furthest_um"), measures.groupby(keys).size().rename("scans"),
    ]
    return pd.concat(parts, axis=1)


def _look_up(visits: pd.DataFrame, find: Callable[[str, int], tuple[str, int]], prefix: str) -> pd.DataFrame:
    """OTHERS of the visit that `find` names for each row, where it is there."""
    wanted = pd.MultiIndex.from_tuples([find(*visit) for visit in visits.index], names=VISIT)
    return visits[OTHERS].reindex(wanted).set_axis(visits.index).add_prefix(prefix)


def find_base(visits: pd.DataFrame, to: str = BASE) -> np.ndarray:
    """V thicknesses (um) that a visit's answer is a multiple of: `to`, else one of BASES, else the usual one."""
    return visits[[to, *BASES]].bfill(axis=1).iloc[:, 0].fillna(USUAL_UM).to_numpy()


def knows_thickness(visits: pd.DataFrame) -> np.ndarray:
    """V bool: whether one of BASES was measured; else find_base gives the usual thickness."""
    return visits[list(BASES)].notna().any(axis=1).to_numpy()
