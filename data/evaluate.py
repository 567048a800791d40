"""Option 8: how good are the models, on eyes that they have never seen?

Every eye of a fold is predicted by the runs that left that fold out, as options 4 and 5 predict test eyes.
Reads data/processed and finished runs; writes model/evaluation/<time>/: report.html and its pictures, scores.csv,
groups.csv, noise.csv, coverage.csv, eyes.csv, images.csv, runs.json; and, where image models saw all folds,
data/processed/csv/out_of_fold.csv for the recipe best.
"""

from pathlib import Path

import pandas as pd

from config import PATHS, Paths
from data.confidence import (
    describe_coverage,
    describe_doubtful,
    mark_doubtful,
    pair_sure,
    score_coverage,
    trace_chances,
)
from data.folds import (
    LABELS,
    Data,
    FoldModels,
    Predictions,
    choose_pipeline,
    find_runs,
    load_folds,
    predict_held_out,
    read_data,
    select_newest,
    select_recipes,
)
from data.page import write_page
from data.pipeline import CSV_MODEL, PIPELINES, predict_images
from data.references import predict_references
from data.report import draw_attention, draw_gallery_of_eyes, draw_learning, draw_pictures
from data.scores import (
    describe_differences,
    describe_noise,
    describe_scores,
    describe_way,
    find_newest,
    pair_truth,
    score_groups,
    score_methods,
    score_noise,
    select_treated,
)
from model.csv_trees import SEEN_COLUMNS, SURE_COLUMNS, TOLD_BY
from model.module import ImageModule
from model.run import read_config
from processing import columns as c
from processing.errors import PipelineError
from processing.files import new_timed_folder, try_to_write, write_csv, write_json
from processing.plots import draw_coverage, draw_noise
from processing.terminal import say

NOISE_SHARES = (0.0, 0.5, 1.0, 1.5, 2.0)     # of the image models' noise
READ_BY_SEGMENTATION = {"measured", "best", "pretrained"}   # recipes that rest on Model-Segmentation, or may
MODEL = "model"             # what the newest runs are called among the methods
DOCTOR = "the doctor's labels"      # Model-CSV of the newest runs with these as inputs


def evaluate(paths: Paths = PATHS, *, images: str = "auto", device: str = "auto") -> Path:
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
    data, runs = read_data(paths), find_runs(paths)
    pipeline = choose_pipeline(images, runs, paths)
    folds = load_folds(select_newest(runs, pipeline), device, data)
    methods = _predict_methods(paths, data, pipeline, folds=folds, runs=runs, device=device)
    newest, doubtful = methods[MODEL], []
    if pipeline != LABELS:
        own = data.table[data.table[c.PATIENT].isin(newest.eyes.index)].drop_duplicates(c.SOURCE)
        newest = newest._replace(eyes=newest.eyes.join(mark_doubtful(newest.eyes.index, own, paths)))
        doubtful = [text for text in [describe_doubtful(newest.eyes["remarks"])] if text]
    scores, groups, noise = score_methods(data, methods), score_groups(data, newest), None
    text = describe_scores(scores, groups, data=data, newest=newest, pipeline=pipeline)
    if differences := describe_differences(scores):
        text += "\n\n" + differences
    if pipeline == LABELS:      # else the inputs are noisy as it is
        noise = score_noise(data, {share: predict_held_out(paths, data, pipeline, folds, noise=share)
                                   for share in NOISE_SHARES})
        text += "\n\n" + describe_noise(noise)
    sure = pair_sure(data, newest)
    coverage = score_coverage(sure) if len(sure) else None
    if coverage is not None:
        text += "\n\n" + describe_coverage(coverage)
    text = "\n\n".join([text, *doubtful])
    with new_timed_folder(paths.evaluation) as folder:
        _write_tables(folder.path, {"scores": scores, "groups": groups, "noise": noise, "coverage": coverage},
                      methods | {MODEL: newest}, pipeline)
        _draw(folder.path, paths, data, newest=newest, folds=folds, pipeline=pipeline)
        if noise is not None:
            picture = folder.path / "noise.png"
            try_to_write(picture, lambda: draw_noise(picture, noise))
        if coverage is not None:
            shown = folder.path / "coverage.png"
            try_to_write(shown, lambda: draw_coverage(shown, coverage, trace_chances(sure)))
        origin = "\n".join(f"{_name_run(key)}: {run}" for key, runs in newest.runs.items() for run in runs)
        write_page(folder.path, scores=scores, groups=groups, coverage=coverage, noise=noise,
                   how=describe_way(data, newest, pipeline), notes=[*find_notes(paths, methods), *doubtful],
                   origin=origin, commands=f"python main.py evaluate --images {pipeline}")
    if pipeline != LABELS and newest.eyes[c.FOLD].nunique() == len(data.folds):
        told_by = "; ".join(f"{name} {read_config(folders[-1]).variant()}" for name, folders
                            in find_newest(newest).items() if name != CSV_MODEL)
        seen = newest.eyes.reset_index().assign(**{TOLD_BY: told_by})
        write_csv(paths.out_of_fold, seen.reindex(columns=[c.PATIENT, c.FOLD, *SEEN_COLUMNS, *SURE_COLUMNS, TOLD_BY]))
    say(text)
    say(f"Tables, pictures and report.html: {folder.path}")
    return folder.path


def _predict_methods(paths, data, pipeline, *, folds, runs, device) -> dict[str, Predictions]:
    """What the newest runs say, those of every other recipe for which there are runs, and the references."""
    methods = {MODEL: predict_held_out(paths, data, pipeline, folds, label="newest runs")}
    for recipes, chosen in select_recipes(runs, pipeline).items():
        try:
            others = load_folds(chosen, device, data)
            only = f" ({len(others)} of {len(data.folds)} folds)" if len(others) < len(folds) else ""
            name = f"{recipes}{only}"
            methods[name] = predict_held_out(paths, data, pipeline, others, label=name)
        except PipelineError as error:      # of an earlier version of this program, say
            say(f"{recipes} is not compared: {error}")
    if pipeline != LABELS:      # how far Model-CSV falls when image models tell it what a doctor would
        eyes, newest = predict_held_out(paths, data, LABELS, folds).eyes, methods[MODEL].eyes
        eyes = eyes.loc[eyes.index.intersection(newest.index)]
        methods[DOCTOR] = Predictions(eyes, methods[MODEL].images.head(0), {})
    return methods | predict_references(data, methods[MODEL])


def find_notes(paths: Paths, methods: dict[str, Predictions]) -> list[str]:
    """What a reader of the scores should know."""
    recipes = {read_config(run).recipe for predictions in methods.values()
               for (name, _), runs in predictions.runs.items() if name != CSV_MODEL for run in runs}
    if paths.truth.is_dir() and recipes & READ_BY_SEGMENTATION:
        return ["These eyes are synthetic, of the kind that Model-Segmentation learned to read: the figures flatter "
                "what rests on it. 这些是合成的眼，与 Model-Segmentation 学习所用同类：得分偏高。"]
    return []


def _name_run(key):
    """A run's (model name, fold) as text."""
    return f"{key[0]}, fold {key[1]}"


def _write_tables(folder: Path, tables: dict[str, pd.DataFrame | None], methods: dict, pipeline: str) -> None:
    tables |= {"eyes": methods[MODEL].eyes.reset_index(), "images": methods[MODEL].images}
    for name, table in tables.items():
        if table is not None:
            write_csv(folder / f"{name}.csv", table)
    runs = {method: {_name_run(key): list(map(str, runs)) for key, runs in predictions.runs.items()}
            for method, predictions in methods.items() if predictions.runs}
    write_json(folder / "runs.json", {"images": pipeline} | runs)


def _draw(folder: Path, paths: Paths, data: Data, *, newest: Predictions, folds: list[FoldModels], pipeline: str):
    """Draw how predictions agree with the truth, how the runs learned, and what the image models saw.

    A picture that cannot be drawn is left out, and said.
    """
    learning, gallery, attention = (folder / name for name in ("learning.png", "gallery.png", "attention.png"))
    draw_pictures(folder, pair_truth(data, newest))
    try_to_write(learning, lambda: draw_learning(learning, newest.runs))
    if pipeline == LABELS:
        return
    eyes = select_treated(data.eyes.loc[newest.eyes.index])
    after = data.table[(data.table[c.AFTER] == 1) & data.table[c.PATIENT].isin(eyes.index)]
    after = after.drop_duplicates(c.SOURCE)
    try_to_write(gallery, lambda: draw_gallery_of_eyes(
        gallery, eyes, newest.eyes.loc[eyes.index], images=after, paths=paths))
    fold, models = folds[0]
    held_out = after[after[c.PATIENT].isin(data.folds[fold])]
    model = models[PIPELINES[pipeline][1]].model
    if not isinstance(getattr(model, "module", None), ImageModule):
        say("attention.png is left out: only networks of the recipes seed, fixed and resnet have a map.")
    elif len(held_out):
        seen = predict_images(held_out, paths, PIPELINES[pipeline], models)
        try_to_write(attention, lambda: draw_attention(attention, seen, model, paths=paths))
