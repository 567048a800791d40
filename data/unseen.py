"""Held-out eyes, predicted by the runs that did not see them; the fold's part of option 8.

Reads data/processed and finished runs.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from model.choice import run_folders
from model.heldout import apply_means, fit_means
from model.origin import fingerprint_table

from data.predict import ALL, BEFORE_AFTER, CSV_MODEL, MODELS, Loaded, eye_features, predict_images
from model.checkpoint import load_checkpoint
from model.device import select_device
from model.run import read_config, read_record
from model.trees import add_noise
from processing import columns as c
from processing.errors import PipelineError
from processing.splits import load_splits
from processing.tables import build_case_table, read_processed
from processing.terminal import say

IMAGE_PIPELINES = {"before_after": BEFORE_AFTER, "all": ALL}
NOISE_SEED = 2021


class Predictions(NamedTuple):
    """What a pipeline says of held-out eyes."""

    eyes: pd.DataFrame          # indexed by patient ID: fold, VA, continue injection, and what image models say
    images: pd.DataFrame        # of the final round: patient ID, after, image name, findings; none without image models
    runs: dict                  # "<model name>, fold <number>" -> run folder


class Data(NamedTuple):
    """What is known of the eyes."""

    table: pd.DataFrame     # train.csv
    eyes: pd.DataFrame      # eyes.csv, training eyes, indexed by patient ID
    folds: list             # sets of patient IDs


def read_data(paths):
    """Tables and folds; raises PipelineError where they cannot be read or drawn."""
    table = read_processed(paths.train_table, c.TRAIN_COLUMNS)
    eyes = read_processed(paths.eye_table, c.EYE_COLUMNS)
    eyes = eyes[eyes[c.DATA_TYPE] == "train"].set_index(c.PATIENT)
    return Data(table, eyes, load_splits(paths.splits, table.drop_duplicates(c.PATIENT)))


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


def choose_pipeline(wanted, runs, paths):
    """The pipeline `wanted`, or for "auto" the first pipeline that has runs of one fold at least."""
    candidates = [*IMAGE_PIPELINES, "labels"] if wanted == "auto" else [wanted]
    for images in candidates:
        if _common_folds(newest_runs(runs, images)):
            return images
    raise PipelineError(
        f"No finished run in {paths.ckpt} has left a fold out that the others of its pipeline left out too. Train with "
        "--fold all (options 1, 2 or 3), or with fold=\"all\" in model_config.py; Model-CSV is needed in any case."
    )


def _names(images):
    return [*dict.fromkeys(IMAGE_PIPELINES.get(images, {}).values()), CSV_MODEL]


def newest_runs(runs, images):
    """dict of model name -> fold -> folder, each of the recipe trained last."""
    return {name: list(runs.get(name, {"": {}}).values())[-1] for name in _names(images)}


def runs_of_recipe(runs, images, recipe):
    """The same of a recipe, or nothing where no fold has it for all models."""
    chosen = {name: runs.get(name, {}).get(recipe, {}) for name in _names(images)}
    return chosen if _common_folds(chosen) else {}


def _common_folds(chosen):
    return sorted(set.intersection(*(set(folds) for folds in chosen.values())))


# ---- Predictions

class FoldModels(NamedTuple):
    """The models that left a fold out."""

    fold: int
    models: dict            # model name -> Loaded
    runs: dict              # "<model name>, fold <number>" -> run folder


def load_folds(chosen, device):
    """Load the models of every fold for which each of a pipeline's models has a run.

    Args:
        chosen: dict of model name -> fold -> run folder.
        device: "auto", "cuda", "mps" or "cpu".

    Returns:
        list of FoldModels.
    """
    return [
        FoldModels(
            fold, {name: load_model(folders[fold], name, device) for name, folders in chosen.items()},
            {f"{name}, fold {fold}": str(folders[fold]) for name, folders in chosen.items()},
        )
        for fold in _common_folds(chosen)
    ]


def predict_held_out(paths, data, images, folds, *, noise=0.0, label=""):
    """Predict the held-out eyes of every fold.

    Args:
        paths: config.Paths.
        data: of read_data.
        images: "before_after", "all" or "labels".
        folds: of load_folds.
        noise: share of the image models' noise (model.trees) that is laid over thickness and findings.
        label: what is told of it; nothing without one.

    Returns:
        Predictions.
    """
    parts, runs = [], {}
    for fold, models, folders in folds:
        if label:
            say(f"{label}, fold {fold}: predicting {len(data.folds[fold])} held-out eyes")
        runs |= folders
        parts.append(_predict_fold(paths, data, images, fold, models, noise=noise))
    eyes, pictures = (pd.concat(part) for part in zip(*parts, strict=True))
    return Predictions(eyes, pictures, runs)


def load_model(folder, name, device):
    """The Loaded model of a run folder; raises PipelineError as load_checkpoint does."""
    file = folder / f"{name}.pt"
    module, content = load_checkpoint(file, ("CSVModule", "TreeModel") if name == CSV_MODEL else "ImageModule")
    return Loaded(MODELS[type(module).__name__](module, select_device(device)), content.get("values", {}), file)


def _predict_fold(paths, data, images, fold, models, *, noise):
    """Per-eye and per-image predictions of a fold's eyes; missing clinical values take the means of the others."""
    held_out = data.folds[fold]
    raw = data.eyes.reset_index()
    means = fit_means(raw[~raw[c.PATIENT].isin(held_out)])
    rows = apply_means(data.table[data.table[c.PATIENT].isin(held_out)], raw, means)
    pictures = pd.DataFrame(columns=[c.PATIENT, c.AFTER, c.IMAGE, *c.FINDINGS])
    if images == "labels":
        features = build_case_table(rows).set_index(c.PATIENT)
        final = features.pop(c.FINAL)
        features = features.drop(columns=[c.VA, c.CONTINUE])
    else:
        once = rows.drop_duplicates(c.PROCESSED).drop(columns=[c.CST, *c.FINDINGS, c.PRE_CST])
        seen = once.join(predict_images(once, paths, IMAGE_PIPELINES[images], models))
        features, final = eye_features(seen), seen.groupby(c.PATIENT)[c.FINAL].first()
        pictures = seen.loc[seen[c.FINAL] == 1, pictures.columns]
    complete = features[features[[c.PRE_CST, c.CST]].notna().all(axis=1)]       # with images of both visits
    model = models[CSV_MODEL].model
    inputs = complete.assign(**{c.FINAL: final})
    if model.takes_missing:
        missing = data.eyes.reindex(complete.index)
        own = [c.PRE_VA, c.PRE_CST, *c.PRE_FINDINGS, c.CST, *c.FINDINGS] if images == "labels" else [c.PRE_VA]
        inputs[own] = inputs[own].where(missing[own].notna())
    inputs = add_noise(inputs, np.random.default_rng([NOISE_SEED, fold]), noise)
    answers = model.eval(inputs)
    eyes = features.drop(columns=[c.PRE_VA]).join(answers).assign(fold=fold)
    return eyes if images != "labels" else eyes[[c.VA, c.CONTINUE, "fold"]], pictures
