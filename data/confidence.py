"""How sure the answers are: beside a submission, and against the truth of held-out eyes.

Reads data/processed/csv/{geometry,measures}.csv; writes nothing. Each answer of an eye (preCST, CST, VA) comes with the
probability of a hit and an interval that is to hold the truth of 80 % (processing.columns.sure_columns), where the
recipes that gave it tell a distribution: `measured`, `pretrained` and `best` of the image models, `best` of Model-CSV.
"""

from typing import Any

import numpy as np
import pandas as pd

from config import Paths
from data.folds import Data, Predictions
from data.scores import select_treated
from model.metrics import hits_acuity, hits_thickness
from processing import columns as c
from processing.acuity import UNITS
from processing.crop_record import GeometryRecord
from processing.errors import PipelineError
from processing.geometry import NEAR_FOVEA_UM
from processing.tables import read_measures
from processing.terminal import say
from processing.visits import VISIT

ITEMS = {c.PRE_CST: (0,), c.CST: (1,), c.VA: (0, 1)}    # answer -> the visits that it rests on
COLUMNS = [c.PATIENT, "round", "item", "answer", "chance", "low", "high", "remarks"]
NO_IMAGES, FAR, UNKNOWN_PLACE = "no images", "no scan near the fovea", "where the scans lie is not known"
POOR, NOT_MEASURED = "poor signal", "signal not measured"
LEAST_READABLE = 0.7        # of a visit's scans, median share of the columns that were read: less is a poor signal
PARTS = ("all", "lowest third", "middle third", "highest third")       # of the eyes, by the truth
SHARE = "share"             # unit of a width
BINS, LEAST_IN_BIN = 6, 12  # of the chances of a hit


def describe_confidence(eyes: pd.DataFrame, images: pd.DataFrame, paths: Paths) -> pd.DataFrame:
    """How sure the answers of a submission are.

    Args:
        eyes: one row per eye with patient ID, final, the answers, and how sure they are.
        images: what they rest on: one row per image, with patient ID, after and source_path.
        paths: config.Paths.

    Returns:
        DataFrame with COLUMNS, a row for each eye and answer; NaN where a recipe tells no distribution.
    """
    remarks, rows = find_remarks(images, paths), []
    for eye in eyes.to_dict("records"):
        for item, visits in ITEMS.items():
            sure = [eye.get(name, np.nan) for name in c.sure_columns(item)]
            rows.append([eye[c.PATIENT], c.ROUND_NAMES[int(eye[c.FINAL])], item, eye[item], *sure,
                         _join(remarks, eye[c.PATIENT], visits)])
    return pd.DataFrame(rows, columns=COLUMNS)


def find_remarks(images: pd.DataFrame, paths: Paths) -> dict[tuple[str, int], list[str]]:
    """What makes each visit's answers doubtful: (patient ID, after) -> remarks, maybe none.

    Args:
        images: one row per image, with patient ID, after and source_path.
        paths: config.Paths.
    """
    places = GeometryRecord(paths.geometry_table).table(images[c.SOURCE]).set_index(c.SOURCE)["distance_um"]
    readable = pd.Series(dtype=float)
    try:
        if paths.measures.is_file():
            readable = read_measures(paths.measures, ["readable_share"]).set_index(c.FILE)["readable_share"]
    except PipelineError as error:      # answers do not wait for what is said of them
        say(f"{error}\nWhose signal is poor is not told.")
    table = images[[*VISIT]].assign(away=places.reindex(images[c.SOURCE]).abs().to_numpy(),
                                    readable=readable.reindex(images[c.SOURCE]).to_numpy())
    found = {}
    for visit, scans in table.groupby(VISIT):
        remarks = []
        if not (scans["away"] <= NEAR_FOVEA_UM).any():
            remarks.append(FAR if scans["away"].notna().all() else UNKNOWN_PLACE)
        if scans["readable"].isna().all():
            remarks.append(NOT_MEASURED)
        elif scans["readable"].median() < LEAST_READABLE:
            remarks.append(POOR)
        found[visit] = remarks
    return found


def mark_doubtful(patients: pd.Index, images: pd.DataFrame, paths: Paths) -> pd.Series:
    """The remarks on both visits of eyes, as text; empty where there are none.

    Args:
        patients: IDs of the eyes.
        images: of find_remarks.
        paths: config.Paths.
    """
    remarks = find_remarks(images, paths)
    said = [_join(remarks, patient, (0, 1)) for patient in patients]
    return pd.Series(said, index=patients, name="remarks", dtype=object)


def _join(remarks: dict[tuple[str, int], list[str]], patient: str, visits: tuple[int, ...]) -> str:
    """The remarks on visits of an eye, each once."""
    return "; ".join(dict.fromkeys(
        remark for after in visits for remark in remarks.get((patient, after), [NO_IMAGES])))


def describe_doubtful(remarks: pd.Series) -> str:
    """How many eyes have which remark, as a sentence; empty where none has any."""
    count = remarks[remarks != ""].str.split("; ").explode().value_counts()
    if count.empty:
        return ""
    said = ", ".join(f"{remark}: {number}" for remark, number in count.items())
    return f"Doubtful 存疑: {int((remarks != '').sum())} of {len(remarks)} eyes ({said}); see remarks in eyes.csv."


# ---- Against the truth

def pair_sure(data: Data, predictions: Predictions) -> pd.DataFrame:
    """Every answer of held-out treated eyes that comes with how sure it is, beside the truth.

    Returns:
        DataFrame: item, round, truth, answer, chance, low, high, hit (bool).
    """
    eyes, parts = select_treated(data.eyes.loc[predictions.eyes.index]), []
    for item in ITEMS:
        names = [item, *c.sure_columns(item)]
        answers = predictions.eyes.loc[eyes.index].reindex(columns=names).set_axis(
            ["answer", "chance", "low", "high"], axis=1)
        hits = hits_acuity if item == c.VA else hits_thickness
        part = answers.assign(item=item, round=eyes[c.FINAL].map(c.ROUND_NAMES), truth=eyes[item])
        part["hit"] = hits(part["truth"], part["answer"])
        parts.append(part)
    both = pd.concat(parts)
    return both[both[["truth", "chance"]].notna().all(axis=1)]


def score_coverage(sure: pd.DataFrame) -> pd.DataFrame:
    """How often intervals hold the truth, and hits come true: per item and round, of PARTS of the eyes.

    Args:
        sure: of pair_sure.

    Returns:
        DataFrame: item, round, part (of PARTS), rows, covered (share), hits (share), chance (mean), width (median, of
        the intervals) and its unit: a share of the answer, or for VA, which may be 0, that of the round.
    """
    rows: list[list[Any]] = []
    for (item, round_name), part in sure.groupby(["item", "round"], sort=False):
        groups = [(PARTS[0], part)]
        if len(part) >= len(PARTS):
            groups += part.groupby(pd.cut(part["truth"].rank(method="first"), 3, labels=PARTS[1:]), observed=True)
        for name, group in groups:
            covered = group["truth"].between(group["low"] - 1e-9, group["high"] + 1e-9).mean()
            width, unit = group["high"] - group["low"], UNITS[[*c.ROUND_NAMES.values()].index(round_name)]
            if item != c.VA:
                width, unit = width / group["answer"], SHARE
            rows.append([item, round_name, name, len(group), covered, group["hit"].mean(), group["chance"].mean(),
                         width.median(), unit])
    return pd.DataFrame(rows, columns=["item", "round", "part", "rows", "covered", "hits", "chance", "width", "unit"])


def format_width(row: Any) -> str:
    """The width of a row of score_coverage, as a person reads it."""
    return f"{row.width:.0%}" if row.unit == SHARE else f"{row.width:.2f} {row.unit}"


def trace_chances(sure: pd.DataFrame) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Of each item a curve: mean chance of a hit in bins of equally many answers, and the share of hits there."""
    curves = []
    for item, part in sure.groupby("item", sort=False):
        count = max(1, min(BINS, len(part) // LEAST_IN_BIN))
        bins = pd.qcut(part["chance"].rank(method="first"), count, labels=False)
        means = part.groupby(bins)[["chance", "hit"]].mean()
        curves.append((f"{item}, {len(part)} answers", means["chance"].to_numpy(), means["hit"].to_numpy(float)))
    return curves


def describe_coverage(coverage: pd.DataFrame) -> str:
    """Lay score_coverage out as a table for the terminal."""
    lines = ["How sure: intervals that are to hold the truth of 80 %, and hits beside the chances that were told.",
             f"{'item':8}{'round':14}{'':16}{'rows':>6}{'held':>8}{'hits':>8}{'told':>8}{'width':>14}"]
    for row in coverage.itertuples():
        lines.append(f"{row.item:8}{row.round:14}{row.part:16}{row.rows:6}{row.covered:8.0%}{row.hits:8.0%}"
                     f"{row.chance:8.0%}{format_width(row):>14}")
    return "\n".join(lines)
