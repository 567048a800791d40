"""Held-out eyes, predicted by the runs that left them out: the models' part of option 8.

Reads data/processed and finished runs; writes nothing.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from config import Paths
from data.pipeline import CSV_MODEL, PIPELINES, Loaded, average_eyes, load_models, predict_eyes, predict_images
from model.checkpoint import load_checkpoint, read_learned
from model.device import select_device
from model.eye_features import add_noise
from model.folds import refuse_learned
from model.run import read_config
from model.runs import find_fold_runs, find_members, fold_of
from processing import columns as c
from processing.errors import PipelineError
from processing.splits import load_splits
from processing.tables import build_case_table, read_processed
from processing.terminal import say

NOISE_SEED = 2021
LABELS = "labels"           # the pipeline without image models: the doctor's thickness and findings

Folders = dict[int, Path]               # fold number -> folder of the run that left it out
Runs = dict[str, dict[str, Folders]]    # model name -> recipe -> Folders


class Predictions(NamedTuple):
    """What a pipeline says of held-out eyes; NaN where an eye lacks the images of a visit."""

    eyes: pd.DataFrame      # indexed by patient ID: fold, VA, continue injection, and what image models say
    images: pd.DataFrame    # of the final round: patient ID, after, image name, findings; none without image models
    runs: dict[tuple[str, int], list[Path]]     # (model name, fold number) -> folders of the runs that answer together


class Data(NamedTuple):
    """What is known of the eyes."""

    table: pd.DataFrame     # train.csv
    eyes: pd.DataFrame      # eyes.csv, training eyes, indexed by patient ID
    folds: list[set[str]]   # patient IDs


class FoldModels(NamedTuple):
    """The models that left a fold out."""

    fold: int
    models: dict[str, Loaded]       # by name


def read_data(paths: Paths) -> Data:
    """Read tables and folds; raises PipelineError where they cannot be read or drawn."""
    table = read_processed(paths.train_table, c.TRAIN_COLUMNS)
    eyes = read_processed(paths.eye_table, c.EYE_COLUMNS)
    eyes = eyes[eyes[c.DATA_TYPE] == "train"].set_index(c.PATIENT)
    return Data(table, eyes, load_splits(paths.splits, table.drop_duplicates(c.PATIENT)))


# ---- Runs

def find_runs(paths: Paths) -> Runs:
    """Find the finished runs that left a fold of the present splits out.

    Args:
        paths: config.Paths.

    Returns:
        The newest run of each model, recipe and fold; the recipe of a model's newest run last.
    """
    names = [*dict.fromkeys(name for names in PIPELINES.values() for name in names), CSV_MODEL]
    return {name: runs for name in names if (runs := find_fold_runs(paths, name))}


def choose_pipeline(wanted: str, runs: Runs, paths: Paths) -> str:
    """Choose the pipeline `wanted`, or for "auto" the first one that has runs of one fold at least.

    Raises:
        PipelineError: it has none.
    """
    for pipeline in ([*PIPELINES, LABELS] if wanted == "auto" else [wanted]):
        if _common_folds(select_newest(runs, pipeline)):
            return pipeline
    raise PipelineError(
        f"There are no held-out eyes to score: no runs in {paths.ckpt} of Model-CSV, and of the image models that it "
        "builds on, have left out the same fold. Train all models so: python main.py 3 --fold all."
    )


def select_newest(runs: Runs, pipeline: str) -> dict[str, Folders]:
    """Select the runs of each of a pipeline's models that are of the recipe trained last: by model name."""
    return {name: list(runs.get(name, {"": {}}).values())[-1] for name in _model_names(pipeline)}


def select_recipes(runs: Runs, pipeline: str) -> dict[str, dict[str, Folders]]:
    """Select the runs of each recipe but those that select_newest gives: what it is called -> model name -> Folders.

    Of a recipe that Model-CSV lacks, its newest runs answer; of one that only Model-CSV has, the image models' newest.
    """
    newest, chosen = select_newest(runs, pipeline), {}
    names = _model_names(pipeline)
    for recipe in dict.fromkeys(recipe for name in names for recipe in runs.get(name, {})):
        of_images = any(recipe in runs.get(name, {}) for name in names if name != CSV_MODEL)
        own = {name: runs.get(name, {}).get(recipe, newest[name] if of_images == (name == CSV_MODEL) else {})
               for name in names}
        if _common_folds(own) and own != newest:
            chosen[f"{recipe} recipe" if of_images else f"{CSV_MODEL} {recipe}"] = own
    return chosen


def _model_names(pipeline):
    return [*dict.fromkeys(PIPELINES.get(pipeline, ())), CSV_MODEL]


def _common_folds(chosen):
    return sorted(set.intersection(*(set(folders) for folders in chosen.values())))


# ---- Predictions

def load_folds(chosen: dict[str, Folders], device: str, data: Data) -> list[FoldModels]:
    """Load the models of every fold for which each of a pipeline's models has a run.

    Args:
        chosen: dict of model name -> fold -> run folder.
        device: "auto", "cuda", "mps" or "cpu".
        data: of read_data.

    Raises:
        PipelineError: no such device, a checkpoint that is damaged, or one that has learned from a held-out eye.
    """
    place = select_device(device)
    members = {(name, fold): [file for file in find_members(folders[fold] / f"{name}.pt")
                              if fold_of(file.parent) == str(fold)]
               for name, folders in chosen.items() for fold in _common_folds(chosen)}
    for (_, fold), files in members.items():
        for file in files:
            _refuse_run(file, data.folds[fold])
    return [FoldModels(fold, {name: load_models(members[name, fold], name, place) for name in chosen})
            for fold in _common_folds(chosen)]


def _refuse_run(file: Path, held_out: set[str]) -> None:
    """Raise PipelineError where a run has learned from a held-out eye, or may have."""
    folder = file.parent
    learned = read_learned(load_checkpoint(file))
    if learned is None and not read_config(folder).init_from:
        return      # of an earlier version of this program: it left out what it held out, and had no start
    refuse_learned(learned, held_out, whose=file, advice="Train that fold again, or delete that run's folder.")


def predict_held_out(
    paths: Paths, data: Data, pipeline: str, folds: list[FoldModels], *, noise: float = 0.0, label: str = ""
) -> Predictions:
    """Predict the held-out eyes of every fold, as options 4 and 5 predict test eyes.

    Args:
        paths: config.Paths.
        data: of read_data.
        pipeline: one of PIPELINES, or LABELS.
        folds: of load_folds.
        noise: share of the image models' noise (model.eye_features) that is laid over the doctor's thickness and
            findings.
        label: what is told of it; nothing without one.

    Returns:
        Predictions, without truth.
    """
    parts = []
    runs: dict[tuple[str, int], list[Path]] = {}
    for fold, models in folds:
        if label:
            say(f"{label}, fold {fold}: predicting {len(data.folds[fold])} held-out eyes")
        runs |= {(name, fold): [file.parent for file in model.files] for name, model in models.items()}
        rows = data.table[data.table[c.PATIENT].isin(data.folds[fold])]
        if pipeline == LABELS:
            eyes, images = build_case_table(rows).drop(columns=[c.VA, c.CONTINUE]).set_index(c.PATIENT), rows.head(0)
        else:
            images = predict_images(rows.drop_duplicates(c.SOURCE), paths, PIPELINES[pipeline], models)
            eyes, images = average_eyes(images), images[images[c.FINAL] == 1]
        inputs = _hide_filled(eyes, data, pipeline)
        if pipeline == LABELS:
            inputs = add_noise(inputs, np.random.default_rng([NOISE_SEED, fold]), noise)
        answers = predict_eyes(inputs, models[CSV_MODEL], paths)
        eyes = eyes.iloc[:, :0] if pipeline == LABELS else eyes.drop(columns=[c.FINAL, c.PRE_VA])
        parts.append((eyes.join(answers).assign(**{c.FOLD: fold}), images[[c.PATIENT, c.AFTER, c.IMAGE, *c.FINDINGS]]))
    eyes, images = (pd.concat(part) for part in zip(*parts, strict=True))
    return Predictions(eyes, images, runs)


def _hide_filled(eyes, data, pipeline):
    """The eyes with NaN where option 0 filled in a mean or 0: it may have taken it from held-out eyes."""
    measured = [c.PRE_CST, *c.PRE_FINDINGS, c.CST, *c.FINDINGS] if pipeline == LABELS else []
    known = data.eyes.reindex(eyes.index)[[c.AGE, c.PRE_VA, *measured]].notna()
    return eyes.assign(**eyes[known.columns].where(known))
