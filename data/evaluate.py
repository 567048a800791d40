"""Option 8: how good are the models, on eyes that they have never seen?

Every eye of a fold is predicted by the runs that left that fold out, as options 4 and 5 predict test eyes.
Reads data/processed and finished runs; writes model/evaluation/<time>/: report.html and its pictures, scores.csv,
groups.csv, noise.csv, eyes.csv, images.csv, runs.json; and, where image models saw all folds,
data/processed/csv/out_of_fold.csv for the recipe best.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from config import PATHS
from data.report import draw_attention, draw_gallery_of_eyes, draw_learning, draw_pictures, write_report
from data.unseen import (
    IMAGE_PIPELINES,
    Predictions,
    choose_pipeline,
    find_fold_runs,
    load_folds,
    load_model,
    newest_runs,
    predict_held_out,
    read_data,
    runs_of_recipe,
)
from model.metrics import FINAL_ITEMS, acuity_score, final_score, thickness_score, total_score
from processing import columns as c
from processing.files import new_timed_folder, write_csv, write_json
from processing.plots import draw_noise
from processing.terminal import say

DRAWS, SEED = 1000, 2021            # of the bootstrap
DRAWS_AT_ONCE = 50
INTERVAL = (2.5, 97.5)              # percentiles
NOISE_SHARES = (0.0, 0.5, 1.0, 1.5, 2.0)     # of the image models' noise
TOTAL = "total"
ITEM_COUNT = sum(len(items) for items in FINAL_ITEMS.values())
CHANCE = 0.5                        # what any constant scores under the ROC curve


def evaluate(paths=PATHS, *, images="auto", device="auto"):
    """Option 8.

    Args:
        paths: config.Paths.
        images: "before_after" or "all": which image models give thickness and findings; "labels": none, Model-CSV
            gets the doctor's; "auto": the first of these for which there are runs.
        device: "auto", "cuda", "mps" or "cpu".

    Returns:
        The folder with the results.

    Raises:
        PipelineError: no run that left a fold out.
    """
    data = read_data(paths)
    runs = find_fold_runs(paths)
    images = choose_pipeline(images, runs, paths)
    folds = load_folds(newest_runs(runs, images), device)
    newest = predict_held_out(paths, data, images, folds, label="newest runs")
    methods = {"model": newest}
    seed = runs_of_recipe(runs, images, "seed")
    if seed and seed != newest_runs(runs, images):
        of_seed = load_folds(seed, device)
        only = f" ({len(of_seed)} of {len(folds)} folds)" if len(of_seed) < len(folds) else ""
        methods[f"seed recipe{only}"] = predict_held_out(paths, data, images, of_seed, label="seed recipe")
    methods = methods | _references(data, newest)
    scores = score_methods(data, methods)
    groups = score_groups(data, newest)
    text = _describe(scores, groups, data, newest, images)
    noise = None
    if images == "labels":      # else the inputs are noisy as it is
        noise = score_under_noise(paths, data, folds)
        text += "\n\n" + _describe_noise(noise)
    with new_timed_folder(paths.evaluation) as folder:
        _write_tables(folder.path, scores, groups, methods, images)
        if noise is not None:
            write_csv(folder.path / "noise.csv", noise)
            draw_noise(folder.path / "noise.png", noise)
        draw_pictures(folder.path, _pair(data, newest))
        draw_learning(folder.path / "learning.png", newest.runs)
        if images != "labels":
            _draw_images(folder.path, paths, data, newest, images=images, device=device)
        write_report(folder.path, text=text, origin="\n".join(f"{name}: {run}" for name, run in newest.runs.items()),
                     commands=f"python main.py evaluate --images {images}")
    _write_out_of_fold(paths, newest, images, fold_count=len(data.folds))
    say(text)
    say(f"Tables, pictures and report.html: {folder.path}")
    return folder.path


# ---- References

def _references(data, newest):
    """What needs no model: the best constant of each fold's other eyes, and "as before treatment"."""
    eyes = data.eyes.loc[newest.eyes.index]
    constant, before = newest.eyes[["fold"]].copy(), newest.eyes[["fold"]].copy()
    for fold, part in newest.eyes.groupby("fold"):
        others = data.eyes[~data.eyes.index.isin(data.folds[fold]) & (data.eyes[c.DIAGNOSIS] != c.UNTREATED)]
        for final, own in eyes.loc[part.index].groupby(c.FINAL):
            known = others[others[c.FINAL] == final]
            for column, score in {c.PRE_CST: thickness_score, c.CST: thickness_score, c.VA: acuity_score}.items():
                constant.loc[own.index, column] = find_constant(known[column].dropna(), score)
            before.loc[own.index, c.VA] = own[c.PRE_VA].fillna(known[c.PRE_VA].mean())
    before[c.CST] = newest.eyes[c.PRE_CST] if c.PRE_CST in newest.eyes else eyes[c.PRE_CST].fillna(eyes[c.CST].mean())
    constant[[c.CONTINUE, *c.FINDINGS]] = CHANCE
    pictures = newest.images.assign(**dict.fromkeys(c.FINDINGS, CHANCE))
    none = newest.images.head(0)
    columns = newest.eyes.columns
    return {
        "best constant": Predictions(constant[[name for name in columns if name in constant]], pictures, {}),
        "as before": Predictions(before[[name for name in columns if name in before]], none, {}),
    }


def find_constant(values, score):
    """The one answer that scores best on known values; NaN without any.

    Args:
        values: Series.
        score: thickness_score or acuity_score.
    """
    near = [values, values * 0.93, values * 1.07, values - 0.05, values + 0.05]
    candidates = np.unique(np.concatenate(near).round(4))
    scores = [score(values, np.full(len(values), candidate)) for candidate in candidates]
    return candidates[int(np.argmax(scores))] if len(values) else np.nan


# ---- Scores

def score_methods(data, methods):
    """Every item and the total of each method, with its 95 % interval over persons.

    Args:
        data: of data.unseen.read_data.
        methods: dict of name -> Predictions; the first one's items decide who has a total.

    Returns:
        DataFrame: method, file, item, score, low, high, rows (of the total or mean: how many items have a score).
    """
    rng, rows = np.random.default_rng(SEED), []
    persons = sorted({c.person_of(patient) for patient in data.eyes.index})
    drawn = rng.multinomial(len(persons), np.full(len(persons), 1 / len(persons)), DRAWS)
    counts = pd.DataFrame(drawn, columns=persons)       # how often each person is in each draw
    comparable = _defined(final_score(_pair(data, next(iter(methods.values())))))
    for method, predictions in methods.items():
        pairs = _pair(data, predictions)
        items, draws = final_score(pairs), _score_draws(pairs, counts)
        for key, score in items.items():
            low, high = np.nanpercentile(draws[key], INTERVAL) if np.isfinite(score) else (np.nan, np.nan)
            known = int(pairs[key[0]][0][key[1]].notna().sum())
            rows.append((method, *key, score, low, high, known))
        if _defined(items) == comparable:       # a total over other items would not compare
            low, high = np.nanpercentile(total_score(draws), INTERVAL)
            rows.append((method, "", _mean_of(items), total_score(items), low, high, len(comparable)))
    return pd.DataFrame(rows, columns=["method", "file", "item", "score", "low", "high", "rows"])


def _defined(items):
    """The items that have a score: an AUC over one class, say, has none."""
    return {key for key, score in items.items() if np.isfinite(score)}


def _score_draws(pairs, counts):
    """The items of each draw: dict of key -> array; a few draws at a time, or the images' weights fill the memory."""
    persons = {file: [c.person_of(_patient(key)) for key in true.index] for file, (true, _) in pairs.items()}
    parts = []
    for start in range(0, len(counts), DRAWS_AT_ONCE):
        some = counts.iloc[start:start + DRAWS_AT_ONCE]
        parts.append(final_score(pairs, {file: some[names].to_numpy() for file, names in persons.items()}))
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def score_under_noise(paths, data, folds):
    """How the items that Model-CSV answers fall when thickness and findings are no longer the doctor's.

    Args:
        paths: config.Paths.
        data: of data.unseen.read_data.
        folds: of data.unseen.load_folds.

    Returns:
        DataFrame: noise (1: what the image models' is taken to be, model.trees), file, item, score.
    """
    rows = []
    for noise in NOISE_SHARES:
        predicted = predict_held_out(paths, data, "labels", folds, noise=noise)
        rows += [(noise, *key, score) for key, score in final_score(_pair(data, predicted)).items()]
    return pd.DataFrame(rows, columns=["noise", "file", "item", "score"])


def score_groups(data, predictions):
    """The items and their mean by round, diagnosis and drug.

    Args:
        data: of data.unseen.read_data.
        predictions: Predictions.

    Returns:
        DataFrame: group, value, eyes, item, score.
    """
    eyes, rows = data.eyes.loc[predictions.eyes.index], []
    eyes = eyes[eyes[c.DIAGNOSIS] != c.UNTREATED]
    for group, names in {c.FINAL: c.ROUND_NAMES, c.DIAGNOSIS: c.DIAGNOSIS_NAMES, c.DRUG: c.DRUG_NAMES}.items():
        for value, part in eyes.groupby(eyes[group].map(names)):
            chosen = predictions._replace(
                eyes=predictions.eyes.loc[part.index],
                images=predictions.images[predictions.images[c.PATIENT].isin(part.index)],
            )
            items = final_score(_pair(data, chosen))
            rows += [(group, value, len(part), f"{file}: {item}", score) for (file, item), score in items.items()]
            rows.append((group, value, len(part), _mean_of(items), total_score(items)))
    return pd.DataFrame(rows, columns=["group", "value", "eyes", "item", "score"])


def _pair(data, predictions):
    """Truth and prediction of the treated eyes, by submission file, as final_score takes them."""
    eyes = data.eyes.loc[predictions.eyes.index]
    pairs = {}
    for file, final in ((c.STAGE1, 0), (c.STAGE2_CASE, 1)):
        chosen = eyes[(eyes[c.FINAL] == final) & (eyes[c.DIAGNOSIS] != c.UNTREATED)]
        if len(chosen):
            # An eye without a prediction (no images of a visit) is a miss, not a gap in the truth
            predicted = predictions.eyes.loc[chosen.index].fillna({c.PRE_CST: -1, c.CST: -1, c.VA: -1,
                                                                   c.CONTINUE: CHANCE})
            pairs[file] = chosen, predicted.fillna(dict.fromkeys(c.FINDINGS, CHANCE))
    if len(predictions.images):
        pairs[c.STAGE2_PIC] = _pair_images(data, predictions.images)
    return pairs


def _pair_images(data, images):
    keys = [c.PATIENT, c.AFTER, c.IMAGE]
    true = data.table.loc[data.table[c.FINAL] == 1, [*keys, *c.FINDINGS]].drop_duplicates()
    true = true[~true.duplicated(keys, keep=False)].set_index(keys)         # contradicting labels are no truth
    images = images.set_index(keys)
    common = images.index.intersection(true.index)
    return true.loc[common], images.loc[common]


def _patient(key):
    return key[0] if isinstance(key, tuple) else key


# ---- What is left of it

def _write_tables(folder, scores, groups, methods, images):
    newest = methods["model"]
    write_csv(folder / "scores.csv", scores)
    write_csv(folder / "groups.csv", groups)
    write_csv(folder / "eyes.csv", newest.eyes.reset_index())
    write_csv(folder / "images.csv", newest.images)
    runs = {name: part.runs for name, part in methods.items() if part.runs}
    write_json(folder / "runs.json", {"images": images} | runs)


def _draw_images(folder, paths, data, newest, *, images, device):
    """Eyes with their crops, and where the model of after-images looks on those of its held-out fold."""
    eyes = data.eyes.loc[newest.eyes.index]
    eyes = eyes[eyes[c.DIAGNOSIS] != c.UNTREATED]           # as those that are scored
    after = data.table[(data.table[c.AFTER] == 1) & data.table[c.PATIENT].isin(eyes.index)]
    after = after.drop_duplicates(c.PROCESSED)
    draw_gallery_of_eyes(folder / "gallery.png", eyes, newest.eyes.loc[eyes.index], after, paths.root)
    name = IMAGE_PIPELINES[images]["after"]
    fold = newest.eyes["fold"].iloc[0]
    model = load_model(Path(newest.runs[f"{name}, fold {fold}"]), name, device).model
    unseen = after[after[c.PATIENT].isin(data.folds[fold])].drop(columns=[c.CST, *c.FINDINGS])
    seen = unseen.join(model.eval(unseen, paths.root, label=f"{name}, attention"))
    if len(seen):
        draw_attention(folder / "attention.png", seen, model, paths.root)


def _write_out_of_fold(paths, newest, images, *, fold_count):
    """Keep what image models say of eyes that they never saw, where all folds were evaluated."""
    seen = newest.eyes.reset_index()
    if images != "labels" and seen["fold"].nunique() == fold_count:
        write_csv(paths.out_of_fold, seen[[c.PATIENT, c.PRE_CST, *c.PRE_FINDINGS, c.CST, *c.FINDINGS]])


def _describe(scores, groups, data, newest, images):
    """The scores as a table for the terminal."""
    how = {"labels": "the doctor's thickness and findings as inputs"}.get(images, f"images by the pipeline {images}")
    table = scores.assign(key=scores["file"].str.removesuffix(".csv").str.removeprefix("submit_"))
    methods = list(dict.fromkeys(scores["method"]))
    folds = f"{newest.eyes['fold'].nunique()} of {len(data.folds)} folds"
    lines = [f"Held-out treated eyes of {folds}; {how}. In brackets: 95 % over persons.",
             f"{'':14}{'item':20}{'rows':>6}  " + "".join(f"{method:28}" for method in methods)]
    for (key, item), part in table.groupby(["key", "item"], sort=False):
        cells = part.set_index("method").reindex(methods)
        shown = "".join(f"{_interval(row):28}" for row in cells.itertuples())
        count = int(cells["rows"].max())
        lines.append(f"{key:14}{item:20}{count if key else '':6}  {shown}")
    labels = {c.FINAL: "round", c.DIAGNOSIS: "diagnosis", c.DRUG: "drug"}
    lines += ["", f"{'':14}{'':24}{'eyes':>6}"]
    for (group, value), part in groups.groupby(["group", "value"], sort=False):
        mean = part.iloc[-1]
        lines.append(f"{labels[group]:14}{value:24}{mean['eyes']:6}  {_shown(mean['score'])}  {mean['item']}")
    return "\n".join(lines)


def _mean_of(items):
    """What the mean of items is called: of fewer than the final round's it is no total."""
    count = len(_defined(items))
    return TOTAL if count == ITEM_COUNT else f"mean of {count} items"


def _describe_noise(noise):
    """The scores under noise as a table for the terminal."""
    lines = ["The same with noise laid over the doctor's thickness and findings (1: as much as the image models' is "
             "taken to be):", f"{'':42}" + "".join(f"{share:<8g}" for share in NOISE_SHARES)]
    for (file, item), part in noise.groupby(["file", "item"], sort=False):
        key = file.removesuffix(".csv").removeprefix("submit_")
        lines.append(f"{key:14}{item:28}" + "".join(f"{_shown(score):8}" for score in part["score"]))
    return "\n".join(lines)


def _shown(score):
    return "-" if np.isnan(score) else f"{score:.3f}"


def _interval(row):
    return "-" if not np.isfinite(row.score) else f"{row.score:.3f} [{row.low:.3f}, {row.high:.3f}]"

