"""Predictions beside the truth: every item with its interval, by group, under noise; and as tables for the terminal.

Reads and writes nothing.
"""

import numpy as np
import pandas as pd

from data.folds import LABELS, Data, Predictions
from data.references import CHANCE
from model.metrics import FINAL_ITEMS, Score, final_score, total_score
from processing import columns as c
from processing.visits import VISIT

DRAWS, SEED = 1000, 2021            # of the bootstrap
DRAWS_AT_ONCE = 50                  # more, and the images' weights fill the memory
INTERVAL = (2.5, 97.5)              # percentiles
TOTAL = "total"
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
        DataFrame: method, file, item, score, low, high, rows (of the total or mean: how many items have a score).
    """
    rng, rows = np.random.default_rng(SEED), []
    persons = sorted({c.person_of(patient) for patient in data.eyes.index})
    drawn = rng.multinomial(len(persons), np.full(len(persons), 1 / len(persons)), DRAWS)
    counts = pd.DataFrame(drawn, columns=persons)       # how often each person is in each draw
    comparable = _find_defined(final_score(pair_truth(data, next(iter(methods.values())))))
    for method, predictions in methods.items():
        pairs = pair_truth(data, predictions)
        items, draws = final_score(pairs), _score_draws(pairs, counts)
        for (file, item), score in items.items():
            low, high = np.nanpercentile(draws[file, item], INTERVAL) if np.isfinite(score) else (np.nan, np.nan)
            rows.append((method, file, item, score, low, high, int(pairs[file][0][item].notna().sum())))
        if _find_defined(items) == comparable:      # a total over other items would not compare
            low, high = np.nanpercentile(total_score(draws), INTERVAL)
            rows.append((method, "", _name_mean(items), total_score(items), low, high, len(comparable)))
    return pd.DataFrame(rows, columns=["method", "file", "item", "score", "low", "high", "rows"])


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
            images = predictions.images[predictions.images[c.PATIENT].isin(part.index)]
            items = final_score(pair_truth(data, Predictions(predictions.eyes.loc[part.index], images, {})))
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
    how = f"images by the pipeline {pipeline}"
    if pipeline == LABELS:
        how = "the doctor's thickness and findings as inputs"
    methods = list(dict.fromkeys(scores["method"]))
    folds = f"{newest.eyes[c.FOLD].nunique()} of {len(data.folds)} folds"
    lines = [f"Held-out treated eyes of {folds}; {how}. In brackets: 95 % over persons.",
             f"{'':14}{'item':20}{'rows':>6}  " + "".join(f"{method:28}" for method in methods)]
    for (file, item), part in scores.groupby(["file", "item"], sort=False):
        cells = part.set_index("method").reindex(methods)
        shown = "".join(f"{f'{row.score:.3f} [{row.low:.3f}, {row.high:.3f}]' if np.isfinite(row.score) else '-':28}"
                        for row in cells.itertuples())
        lines.append(f"{_shorten(file):14}{item:20}{int(cells['rows'].max()) if file else '':6}  {shown}")
    lines += ["", f"{'':14}{'':24}{'eyes':>6}"]
    for (group, value), part in groups.groupby(["group", "value"], sort=False):
        mean = part.iloc[-1]
        lines.append(f"{GROUPS[group][0]:14}{value:24}{mean['eyes']:6}  {_format(mean['score'])}  {mean['item']}")
    return "\n".join(lines)


def describe_noise(noise: pd.DataFrame) -> str:
    """Lay the scores of score_noise out as a table for the terminal."""
    shares = noise["noise"].unique()
    lines = ["The same with noise laid over the doctor's thickness and findings (1: as much as the image models' is "
             "taken to be):", f"{'':42}" + "".join(f"{share:<8g}" for share in shares)]
    for (file, item), part in noise.groupby(["file", "item"], sort=False):
        lines.append(f"{_shorten(file):14}{item:28}" + "".join(f"{_format(score):8}" for score in part["score"]))
    return "\n".join(lines)


def _shorten(file):
    return file.removesuffix(".csv").removeprefix("submit_")


def _format(score):
    return "-" if np.isnan(score) else f"{score:.3f}"
