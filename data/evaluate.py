"""Option 8: how good are the models, on eyes that they have never seen?

Every eye of a fold is predicted by the runs that left that fold out, as options 4 and 5 predict test eyes.
Reads data/processed and finished runs; writes model/evaluation/<time>/: report.html and its pictures, scores.csv,
groups.csv, eyes.csv, images.csv, runs.json; and, where image models saw all folds,
data/processed/csv/out_of_fold.csv for the recipe best.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from config import PATHS
from data.predict import ALL, BEFORE_AFTER, CSV_MODEL, MODELS, Loaded, eye_features, predict_images
from data.report import draw_attention, draw_gallery_of_eyes, draw_learning, draw_pictures, write_report
from model.checkpoint import load_checkpoint
from model.choice import run_folders
from model.device import select_device
from model.heldout import apply_means, fit_means
from model.metrics import acuity_score, final_score, thickness_score, total_score
from model.origin import fingerprint_table
from model.run import read_config, read_record
from model.training import ROUND_NAMES
from processing.errors import PipelineError
from processing.files import new_timed_folder, write_csv, write_json
from processing.progress import say
from processing.splits import load_splits
from processing.tables import (
    AFTER,
    CONTINUE,
    CST,
    DATA_TYPE,
    DIAGNOSIS,
    DIAGNOSIS_NAMES,
    DRUG,
    DRUG_NAMES,
    EYE_COLUMNS,
    FINAL,
    FINDINGS,
    IMAGE,
    PATIENT,
    PRE_CST,
    PRE_FINDINGS,
    PRE_VA,
    PROCESSED,
    STAGE1,
    STAGE2_CASE,
    STAGE2_PIC,
    TRAIN_COLUMNS,
    UNTREATED,
    VA,
    build_case_table,
    person_of,
    read_processed,
)

DRAWS, SEED = 1000, 2021            # of the bootstrap
INTERVAL = (2.5, 97.5)              # percentiles
IMAGE_PIPELINES = {"before_after": BEFORE_AFTER, "all": ALL}
MEAN = "mean of the items"
CHANCE = 0.5                        # what any constant scores under the ROC curve


class Predictions(NamedTuple):
    """What a pipeline says of held-out eyes."""

    eyes: pd.DataFrame          # indexed by patient ID: fold, VA, continue injection, and what image models say
    images: pd.DataFrame        # of the final round: patient ID, after, image name, findings; none without image models
    runs: dict                  # "<model name>, fold <number>" -> run folder


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
    data = _read_data(paths)
    runs = find_fold_runs(paths)
    images = _choose_pipeline(images, runs, paths)
    newest = predict_held_out(paths, data, images, _newest(runs, images), device)
    methods = {"model": newest}
    seed = _of_recipe(runs, images, "seed")
    if seed and seed != _newest(runs, images):
        methods["seed recipe"] = predict_held_out(paths, data, images, seed, device)
    methods = methods | _references(data, newest)
    scores = score_methods(data, methods)
    groups = score_groups(data, newest)
    text = _describe(scores, groups, data, newest, images)
    with new_timed_folder(paths.evaluation) as folder:
        _write_tables(folder.path, scores, groups, methods, images)
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


class _Data(NamedTuple):
    table: pd.DataFrame     # train.csv
    eyes: pd.DataFrame      # eyes.csv, training eyes, indexed by patient ID
    folds: list             # sets of patient IDs


def _read_data(paths):
    table = read_processed(paths.train_table, TRAIN_COLUMNS)
    eyes = read_processed(paths.eye_table, EYE_COLUMNS)
    eyes = eyes[eyes[DATA_TYPE] == "train"].set_index(PATIENT)
    return _Data(table, eyes, load_splits(paths.splits, table.drop_duplicates(PATIENT)))


# ---- Runs

def find_fold_runs(paths):
    """Finished runs that left a fold of the present splits out.

    Args:
        paths: config.Paths.

    Returns:
        dict of model name -> dict of recipe -> dict of fold number -> folder of its newest run; the recipe of the
        newest run last.
    """
    splits, found = fingerprint_table(paths.splits), {}
    for name in [*dict.fromkeys([*BEFORE_AFTER.values(), *ALL.values()]), CSV_MODEL]:
        for folder in run_folders(paths, name):
            record = read_record(folder)
            if record.get("state") != "finished" or record.get("data", {}).get(paths.splits.name) != splits:
                continue
            config = read_config(folder)
            recipes = found.setdefault(name, {})
            recipes[config.recipe] = recipes.pop(config.recipe, {}) | {int(config.fold): folder}
    return found


def _choose_pipeline(wanted, runs, paths):
    """`wanted`, or for "auto" the first pipeline that has runs of one fold at least."""
    candidates = [*IMAGE_PIPELINES, "labels"] if wanted == "auto" else [wanted]
    for images in candidates:
        if _common_folds(_newest(runs, images)):
            return images
    raise PipelineError(
        f"No finished run in {paths.ckpt} has left a fold out that the others of its pipeline left out too. Train with "
        "--fold all (options 1, 2 or 3), or with fold=\"all\" in model_config.py; Model-CSV is needed in any case."
    )


def _names(images):
    return [*dict.fromkeys(IMAGE_PIPELINES.get(images, {}).values()), CSV_MODEL]


def _newest(runs, images):
    """dict of model name -> fold -> folder, each of the recipe trained last."""
    return {name: list(runs.get(name, {"": {}}).values())[-1] for name in _names(images)}


def _of_recipe(runs, images, recipe):
    """The same of a recipe, or nothing where no fold has it for all models."""
    chosen = {name: runs.get(name, {}).get(recipe, {}) for name in _names(images)}
    return chosen if _common_folds(chosen) else {}


def _common_folds(chosen):
    return sorted(set.intersection(*(set(folds) for folds in chosen.values())))


# ---- Predictions

def predict_held_out(paths, data, images, chosen, device):
    """Predict the held-out eyes of every fold for which each model of the pipeline has a run.

    Args:
        paths: config.Paths.
        data: of _read_data.
        images: "before_after", "all" or "labels".
        chosen: dict of model name -> fold -> run folder.
        device: "auto", "cuda", "mps" or "cpu".

    Returns:
        Predictions.
    """
    parts, runs = [], {}
    for fold in _common_folds(chosen):
        say(f"fold {fold}: predicting {len(data.folds[fold])} held-out eyes")
        models = {name: _load(folders[fold], name, device) for name, folders in chosen.items()}
        runs |= {f"{name}, fold {fold}": str(folders[fold]) for name, folders in chosen.items()}
        parts.append(_predict_fold(paths, data, images, fold, models))
    eyes, pictures = (pd.concat(part) for part in zip(*parts, strict=True))
    return Predictions(eyes, pictures, runs)


def _load(folder, name, device):
    file = folder / f"{name}.pt"
    module, content = load_checkpoint(file, ("CSVModule", "TreeModel") if name == CSV_MODEL else "ImageModule")
    return Loaded(MODELS[type(module).__name__](module, select_device(device)), content.get("values", {}), file)


def _predict_fold(paths, data, images, fold, models):
    """Per-eye and per-image predictions of a fold's eyes; missing clinical values take the means of the others."""
    held_out = data.folds[fold]
    raw = data.eyes.reset_index()
    means = fit_means(raw[~raw[PATIENT].isin(held_out)])
    rows = apply_means(data.table[data.table[PATIENT].isin(held_out)], raw, means)
    pictures = pd.DataFrame(columns=[PATIENT, AFTER, IMAGE, *FINDINGS])
    if images == "labels":
        features = build_case_table(rows).set_index(PATIENT)
        final = features.pop(FINAL)
        features = features.drop(columns=[VA, CONTINUE])
    else:
        once = rows.drop_duplicates(PROCESSED).drop(columns=[CST, *FINDINGS, PRE_CST])
        seen = once.join(predict_images(once, paths, IMAGE_PIPELINES[images], models))
        features, final = eye_features(seen), seen.groupby(PATIENT)[FINAL].first()
        pictures = seen.loc[seen[FINAL] == 1, pictures.columns]
    complete = features[features[[PRE_CST, CST]].notna().all(axis=1)]       # with images of both visits
    model = models[CSV_MODEL].model
    inputs = complete.assign(**{FINAL: final})
    if model.takes_missing:
        missing = data.eyes.reindex(complete.index)
        own = [PRE_VA, PRE_CST, *PRE_FINDINGS, CST, *FINDINGS] if images == "labels" else [PRE_VA]
        inputs[own] = inputs[own].where(missing[own].notna())
    answers = model.eval(inputs)
    eyes = features.drop(columns=[PRE_VA]).join(answers).assign(fold=fold)
    return eyes if images != "labels" else eyes[[VA, CONTINUE, "fold"]], pictures


# ---- References

def _references(data, newest):
    """What needs no model: the best constant of each fold's other eyes, and "as before treatment"."""
    eyes = data.eyes.loc[newest.eyes.index]
    constant, before = newest.eyes[["fold"]].copy(), newest.eyes[["fold"]].copy()
    for fold, part in newest.eyes.groupby("fold"):
        others = data.eyes[~data.eyes.index.isin(data.folds[fold]) & (data.eyes[DIAGNOSIS] != UNTREATED)]
        for final, own in eyes.loc[part.index].groupby(FINAL):
            known = others[others[FINAL] == final]
            for column, score in {PRE_CST: thickness_score, CST: thickness_score, VA: acuity_score}.items():
                constant.loc[own.index, column] = find_constant(known[column].dropna(), score)
            before.loc[own.index, VA] = own[PRE_VA].fillna(known[PRE_VA].mean())
    before[CST] = newest.eyes[PRE_CST] if PRE_CST in newest.eyes else eyes[PRE_CST].fillna(eyes[CST].mean())
    constant[[CONTINUE, *FINDINGS]] = CHANCE
    pictures = newest.images.assign(**dict.fromkeys(FINDINGS, CHANCE))
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
        data: of _read_data.
        methods: dict of name -> Predictions.

    Returns:
        DataFrame: method, file, item, score, low, high, rows.
    """
    rng, rows = np.random.default_rng(SEED), []
    persons = sorted({person_of(patient) for patient in data.eyes.index})
    drawn = rng.multinomial(len(persons), np.full(len(persons), 1 / len(persons)), DRAWS)
    counts = pd.DataFrame(drawn, columns=persons)       # how often each person is in each draw
    most = max(len(final_score(_pair(data, predictions))) for predictions in methods.values())
    for method, predictions in methods.items():
        pairs = _pair(data, predictions)
        weights = {file: counts[[person_of(_patient(key)) for key in true.index]].to_numpy()
                   for file, (true, _) in pairs.items()}
        items, draws = final_score(pairs), final_score(pairs, weights)
        for key, score in items.items():
            low, high = np.nanpercentile(draws[key], INTERVAL) if np.isfinite(score) else (np.nan, np.nan)
            known = int(pairs[key[0]][0][key[1]].notna().sum())
            rows.append((method, *key, score, low, high, known))
        if len(items) == most:      # a total over other items would not compare
            low, high = np.nanpercentile(total_score(draws), INTERVAL)
            rows.append((method, "", "total", total_score(items), low, high, len(items)))
    return pd.DataFrame(rows, columns=["method", "file", "item", "score", "low", "high", "rows"])


def score_groups(data, predictions):
    """The items and their mean by round, diagnosis and drug.

    Args:
        data: of _read_data.
        predictions: Predictions.

    Returns:
        DataFrame: group, value, eyes, item, score.
    """
    eyes, rows = data.eyes.loc[predictions.eyes.index], []
    eyes = eyes[eyes[DIAGNOSIS] != UNTREATED]
    for group, names in {FINAL: ROUND_NAMES, DIAGNOSIS: DIAGNOSIS_NAMES, DRUG: DRUG_NAMES}.items():
        for value, part in eyes.groupby(eyes[group].map(names)):
            chosen = predictions._replace(
                eyes=predictions.eyes.loc[part.index],
                images=predictions.images[predictions.images[PATIENT].isin(part.index)],
            )
            items = final_score(_pair(data, chosen))
            rows += [(group, value, len(part), f"{file}: {item}", score) for (file, item), score in items.items()]
            rows.append((group, value, len(part), MEAN, total_score(items)))
    return pd.DataFrame(rows, columns=["group", "value", "eyes", "item", "score"])


def _pair(data, predictions):
    """Truth and prediction of the treated eyes, by submission file, as final_score takes them."""
    eyes = data.eyes.loc[predictions.eyes.index]
    pairs = {}
    for file, final in ((STAGE1, 0), (STAGE2_CASE, 1)):
        chosen = eyes[(eyes[FINAL] == final) & (eyes[DIAGNOSIS] != UNTREATED)]
        if len(chosen):
            # An eye without a prediction (no images of a visit) is a miss, not a gap in the truth
            predicted = predictions.eyes.loc[chosen.index].fillna({PRE_CST: -1, CST: -1, VA: -1, CONTINUE: CHANCE})
            pairs[file] = chosen, predicted.fillna(dict.fromkeys(FINDINGS, CHANCE))
    if len(predictions.images):
        pairs[STAGE2_PIC] = _pair_images(data, predictions.images)
    return pairs


def _pair_images(data, images):
    keys = [PATIENT, AFTER, IMAGE]
    true = data.table.loc[data.table[FINAL] == 1, [*keys, *FINDINGS]].drop_duplicates()
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
    after = data.table[(data.table[AFTER] == 1) & data.table[PATIENT].isin(newest.eyes.index)]
    after = after.drop_duplicates(PROCESSED)
    draw_gallery_of_eyes(folder / "gallery.png", data.eyes.loc[newest.eyes.index], newest.eyes, after, paths.root)
    name = IMAGE_PIPELINES[images]["after"]
    fold = newest.eyes["fold"].iloc[0]
    model = _load(Path(newest.runs[f"{name}, fold {fold}"]), name, device).model
    unseen = after[after[PATIENT].isin(data.folds[fold])].drop(columns=[CST, *FINDINGS])
    seen = unseen.join(model.eval(unseen, paths.root, label=f"{name}, attention"))
    if len(seen):
        draw_attention(folder / "attention.png", seen, model, paths.root)


def _write_out_of_fold(paths, newest, images, *, fold_count):
    """Keep what image models say of eyes that they never saw, where all folds were evaluated."""
    seen = newest.eyes.reset_index()
    if images != "labels" and seen["fold"].nunique() == fold_count:
        write_csv(paths.out_of_fold, seen[[PATIENT, PRE_CST, *PRE_FINDINGS, CST, *FINDINGS]])


def _describe(scores, groups, data, newest, images):
    """The scores as a table for the terminal."""
    how = {"labels": "the doctor's thickness and findings as inputs"}.get(images, f"images by the pipeline {images}")
    table = scores.assign(key=scores["file"].str.removesuffix(".csv").str.removeprefix("submit_"))
    methods = list(dict.fromkeys(scores["method"]))
    folds = f"{newest.eyes['fold'].nunique()} of {len(data.folds)} folds"
    lines = [f"Held-out treated eyes of {folds}; {how}. In brackets: 95 % over persons.",
             f"{'':14}{'item':20}{'rows':>6}  " + "".join(f"{method:24}" for method in methods)]
    for (key, item), part in table.groupby(["key", "item"], sort=False):
        cells = part.set_index("method").reindex(methods)
        shown = "".join(f"{_interval(row):24}" for row in cells.itertuples())
        lines.append(f"{key:14}{item:20}{int(cells['rows'].max()):6}  {shown}")
    labels = {FINAL: "round", DIAGNOSIS: "diagnosis", DRUG: "drug"}
    lines += ["", f"{'':14}{'':24}{'eyes':>6}  {MEAN}"]
    lines += [f"{labels[row.group]:14}{row.value:24}{row.eyes:6}  {row.score:.3f}"
              for row in groups[groups["item"] == MEAN].itertuples()]
    return "\n".join(lines)


def _interval(row):
    return "-" if not np.isfinite(row.score) else f"{row.score:.3f} [{row.low:.3f}, {row.high:.3f}]"

