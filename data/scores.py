"""Predictions beside the truth: every item with its interval, by group, under noise; and as tables for the terminal.

Reads and writes nothing.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from data.folds import LABELS, Data, Predictions
from data.references import CHANCE
from model.metrics import FINAL_ITEMS, Score, final_score, total_score
from model.run import read_config
from processing import columns as c
from processing.visits import VISIT

DRAWS, SEED = 1000, 2021            # of the bootstrap
DRAWS_AT_ONCE = 50                  # more, and the images' weights fill the memory
INTERVAL = (2.5, 97.5)              # percentiles
TOTAL = "total"
DIFFERENCE = ["difference", "difference_low", "difference_high", "difference_eyes"]
ITEM_COUNT = sum(len(items) for items in FINAL_ITEMS.values())
GROUPS = {      # column -> what it is called, and its values' names
    c.FINAL: ("round", c.ROUND_NAMES), c.DIAGNOSIS: ("diagnosis", c.DIAGNOSIS_NAMES), c.DRUG: ("drug", c.DRUG_NAMES),
}

Pairs = dict[str, tuple[pd.DataFrame, pd.DataFrame]]      # submission file -> (truth, prediction) of the same rows


# ---- Truth beside predictions

def select_treated(eyes: pd.DataFrame) -> pd.DataFrame:
    """Select the eyes that are scored: untreated fellow eyes are none."""
    return eyes[eyes[c.DIAGNOSIS] != c.UNTREATED]


def pair_truth(data: Data, predictions: Predictions) -> Pairs:
    """Lay truth and predictions of the treated eyes side by side.

    Args:
        data: of data.folds.read_data.
        predictions: of any pipeline or reference.

    Returns:
        Pairs, as model.metrics.final_score takes them. Thickness and VA that were not predicted (no images of a
        visit) are NaN, which scores as a miss; probabilities then are those of chance.
    """
    eyes = select_treated(data.eyes.loc[predictions.eyes.index])
    pairs = {}
    for file, final in ((c.STAGE1, 0), (c.STAGE2_CASE, 1)):
        true = eyes[eyes[c.FINAL] == final]
        if len(true):
            guessed = dict.fromkeys([c.CONTINUE, *c.FINDINGS], CHANCE)
            pairs[file] = true, predictions.eyes.loc[true.index].fillna(guessed)
    if len(predictions.images):
        keys = [*VISIT, c.IMAGE]
        true = data.table.loc[data.table[c.FINAL] == 1, [*keys, *c.FINDINGS]].drop_duplicates()
        true = true[~true.duplicated(keys, keep=False)].set_index(keys)         # contradicting labels are no truth
        images = predictions.images.set_index(keys)
        common = images.index.intersection(true.index)
        pairs[c.STAGE2_PIC] = true.loc[common], images.loc[common].fillna(CHANCE)
    return pairs


# ---- Scores

def score_methods(data: Data, methods: dict[str, Predictions]) -> pd.DataFrame:
    """Score every item and the total of each method, with its 95 % interval over persons.

    Args:
        data: of data.folds.read_data.
        methods: by name; the first one's items decide who has a total.

    Returns:
        DataFrame: method, file, item, score, low, high, rows (of the total or mean: how many items have a score); and
        difference, difference_low, difference_high: of the score from the first method's, both over the eyes that both
        answer, and over the same draws of persons; NaN where there are none; difference_eyes: how many (of an
            item per image, images).
    """
    rng, rows = np.random.default_rng(SEED), []
    persons = sorted({c.person_of(patient) for patient in data.eyes.index})
    drawn = rng.multinomial(len(persons), np.full(len(persons), 1 / len(persons)), DRAWS)
    counts = pd.DataFrame(drawn, columns=persons)       # how often each person is in each draw
    first: _Scored | None = None
    for method, predictions in methods.items():
        scored = _score(data, predictions, counts)
        first = first or scored
        off = {} if scored is first else _compare(data, scored, first, counts)
        none = [np.nan] * 4
        for (file, item), score in scored.items.items():
            rows.append((method, file, item, score, *_find_bounds(score, scored.draws[file, item]),
                         scored.rows[file, item], *off.get((file, item), none)))
        if _find_defined(scored.items) == _find_defined(first.items):      # a total over other items would not compare
            total = total_score(scored.items)
            rows.append((method, "", _name_mean(scored.items), total, *_find_bounds(total, total_score(scored.draws)),
                         len(_find_defined(first.items)), *off.get(TOTAL, none)))
    return pd.DataFrame(rows, columns=["method", "file", "item", "score", "low", "high", "rows", *DIFFERENCE])


class _Scored(NamedTuple):
    """Scores of a method, the same of each draw of persons, and how many rows have a truth."""

    predictions: Predictions
    items: dict[Any, Score]
    draws: dict[Any, Score]
    rows: dict[Any, int]


def _score(data: Data, predictions: Predictions, counts: pd.DataFrame) -> _Scored:
    pairs = pair_truth(data, predictions)
    items = final_score(pairs)
    rows = {(file, item): int(pairs[file][0][item].notna().sum()) for file, item in items}
    return _Scored(predictions, items, _score_draws(pairs, counts), rows)


def _compare(data: Data, scored: _Scored, first: _Scored, counts: pd.DataFrame) -> dict[Any, list[float]]:
    """How far each item, and the total, lies from the first method's over the eyes that both answer, with its interval
    and the number of these that are scored.
    """
    common = scored.predictions.eyes.index.intersection(first.predictions.eyes.index)
    own, other = (one if len(common) == len(one.predictions.eyes) else
                  _score(data, _choose(one.predictions, common), counts) for one in (scored, first))
    found = {key: (own.items[key] - other.items[key], own.draws[key] - other.draws[key])
             for key in own.items if key in other.items}
    if _find_defined(own.items) == _find_defined(other.items):
        found[TOTAL] = (total_score(own.items) - total_score(other.items),
                        total_score(own.draws) - total_score(other.draws))
    rows = own.rows | {TOTAL: len(select_treated(data.eyes.loc[common]))}
    return {key: [float(off), *_find_bounds(float(off), draws), rows[key]] for key, (off, draws) in found.items()}


def _choose(predictions: Predictions, eyes: pd.Index) -> Predictions:
    """What is said of some of the eyes."""
    images = predictions.images[predictions.images[c.PATIENT].isin(eyes)]
    return Predictions(predictions.eyes.loc[eyes], images, predictions.runs)


def _find_bounds(score: Score, draws: Score) -> tuple[float, float]:
    low, high = np.nanpercentile(draws, INTERVAL) if np.isfinite(score) else (np.nan, np.nan)
    return float(low), float(high)


def _find_defined(items):
    """The items that have a score: an AUC over one class, say, has none."""
    return {key for key, score in items.items() if np.isfinite(score)}


def _name_mean(items):
    """What the mean of items is called: of fewer than the final round's it is no total."""
    count = len(_find_defined(items))
    return TOTAL if count == ITEM_COUNT else f"mean of {count} items"


def _score_draws(pairs: Pairs, counts: pd.DataFrame) -> dict[tuple[str, str], Score]:
    """The items of each draw, a few draws at a time."""
    persons = {file: true.index.get_level_values(c.PATIENT).map(c.person_of) for file, (true, _) in pairs.items()}
    parts = []
    for start in range(0, len(counts), DRAWS_AT_ONCE):
        some = counts.iloc[start:start + DRAWS_AT_ONCE]
        parts.append(final_score(pairs, {file: some[names].to_numpy() for file, names in persons.items()}))
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def score_groups(data: Data, predictions: Predictions) -> pd.DataFrame:
    """Score the items and their mean by round, diagnosis and drug.

    Args:
        data: of data.folds.read_data.
        predictions: of any pipeline.

    Returns:
        DataFrame: group, value, eyes, item, score.
    """
    eyes, rows = select_treated(data.eyes.loc[predictions.eyes.index]), []
    for group, (_, names) in GROUPS.items():
        for value, part in eyes.groupby(eyes[group].map(names)):
            items = final_score(pair_truth(data, _choose(predictions, part.index)))
            rows += [(group, value, len(part), f"{file}: {item}", score) for (file, item), score in items.items()]
            rows.append((group, value, len(part), _name_mean(items), total_score(items)))
    return pd.DataFrame(rows, columns=["group", "value", "eyes", "item", "score"])


def score_noise(data: Data, methods: dict[float, Predictions]) -> pd.DataFrame:
    """Score predictions that were made under noise.

    Args:
        data: of data.folds.read_data.
        methods: dict of noise (1: what the image models' is taken to be, model.trees) -> Predictions.

    Returns:
        DataFrame: noise, file, item, score.
    """
    rows = [(noise, *key, score) for noise, predictions in methods.items()
            for key, score in final_score(pair_truth(data, predictions)).items()]
    return pd.DataFrame(rows, columns=["noise", "file", "item", "score"])


# ---- As text

def describe_scores(scores: pd.DataFrame, groups: pd.DataFrame, *, data: Data, newest: Predictions,
                    pipeline: str) -> str:
    """Lay scores out as a table for the terminal.

    Args:
        scores: of score_methods.
        groups: of score_groups.
        data: of data.folds.read_data.
        newest: the predictions that were scored first.
        pipeline: where they come from.
    """
    methods = list(dict.fromkeys(scores["method"]))
    lines = [f"{describe_way(data, newest, pipeline)[0]} In brackets: 95 % over persons.",
             f"{'':14}{'item':20}{'rows':>6}  " + "".join(f"{method:28}" for method in methods)]
    for (file, item), part in scores.groupby(["file", "item"], sort=False):
        cells = part.set_index("method").reindex(methods)
        shown = "".join(f"{f'{row.score:.3f} [{row.low:.3f}, {row.high:.3f}]' if np.isfinite(row.score) else '-':28}"
                        for row in cells.itertuples())
        lines.append(f"{shorten(file):14}{item:20}{int(cells['rows'].max()) if file else '':6}  {shown}")
    lines += ["", f"{'':14}{'':24}{'eyes':>6}"]
    for (group, value), part in groups.groupby(["group", "value"], sort=False):
        mean = part.iloc[-1]
        lines.append(f"{GROUPS[group][0]:14}{value:24}{mean['eyes']:6}  {_format(mean['score'])}  {mean['item']}")
    return "\n".join(lines)


def describe_way(data: Data, newest: Predictions, pipeline: str) -> tuple[str, str]:
    """What was scored, in English and Chinese."""
    folds, of = newest.eyes[c.FOLD].nunique(), len(data.folds)
    how = f"images by the pipeline {pipeline}", f"图像流程 {pipeline}"
    if pipeline == LABELS:
        how = "the doctor's thickness and findings as inputs", "以医生标注的厚度和征象为输入"
    recipes = ", ".join(f"{name} {read_config(runs[-1]).variant()}" for name, runs in find_newest(newest).items())
    return (f"Held-out treated eyes of {folds} of {of} folds; {how[0]}; recipes of the newest runs: {recipes}.",
            f"{of} 折中 {folds} 折未参与训练的治疗眼；{how[1]}；最新训练的方案：{recipes}。")


def find_newest(newest: Predictions) -> dict[str, list[Path]]:
    """Runs of each model of predictions: name -> those of its last fold."""
    return {name: runs for (name, _), runs in newest.runs.items()}


def describe_differences(scores: pd.DataFrame) -> str:
    """One line for each other method: how far its total lies from the first's, of one without a total each item; empty
    where none compares.
    """
    has_total = scores["method"].isin(scores.loc[scores["file"] == "", "method"])
    known = scores[scores["difference"].notna() & ((scores["file"] == "") | ~has_total)]
    first = scores["method"].iloc[0]
    lines = []
    for row in known.itertuples():
        item = f"{shorten(row.file)} {row.item}" if row.file else row.item
        may_be_chance = row.difference_low <= 0 <= row.difference_high
        lines.append(f"{row.method}: {item} {row.difference:+.3f} [{row.difference_low:+.3f}, "
                     f"{row.difference_high:+.3f}] against {first}, {row.difference_eyes:.0f} eyes"
                     + (" (may be chance)" if may_be_chance else ""))
    return "\n".join(lines)


def describe_noise(noise: pd.DataFrame) -> str:
    """Lay the scores of score_noise out as a table for the terminal."""
    shares = noise["noise"].unique()
    lines = ["The same with noise laid over the doctor's thickness and findings (1: as much as the image models' is "
             "taken to be):", f"{'':42}" + "".join(f"{share:<8g}" for share in shares)]
    for (file, item), part in noise.groupby(["file", "item"], sort=False):
        lines.append(f"{shorten(file):14}{item:28}" + "".join(f"{_format(score):8}" for score in part["score"]))
    return "\n".join(lines)


def shorten(file: str) -> str:
    """The name of a submission file without what all have."""
    return file.removesuffix(".csv").removeprefix("submit_")


def _format(score):
    return "-" if np.isnan(score) else f"{score:.3f}"
