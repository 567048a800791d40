"""What an evaluation looks like: its pictures. Writes PNG files into the evaluation's folder."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.calibration import calibration_curve
from sklearn.metrics import roc_curve

from config import VIEWS, Paths, View
from data.painted import paint_views
from model.gradcam import grad_cam
from model.metrics import (
    FINAL_ITEMS,
    RULES,
    acuity_tolerance,
    auc_score,
    hits_acuity,
    hits_thickness,
    thickness_tolerance,
)
from model.run import read_config
from processing import columns as c
from processing.acuity import UNITS
from processing.crop_record import GeometryRecord
from processing.errors import PipelineError
from processing.files import try_to_write
from processing.overlays import explain_colors
from processing.plots import draw_agreement, draw_comparison, draw_curves, draw_gallery
from processing.tables import read_history
from processing.terminal import say
from processing.views import ViewReader

BINS, LEAST_IN_BIN = 8, 10      # of a calibration curve, of equally many rows each: fewer rows make a share of noise
ROUND_OF = {c.STAGE1: "preliminary round", c.STAGE2_CASE: "final round"}
GALLERY = 4             # eyes at either end


def draw_pictures(folder: Path, pairs: dict[str, tuple[pd.DataFrame, pd.DataFrame]]) -> None:
    """Draw agreement, ROC and calibration, as far as the pairs have them.

    Args:
        folder: to write into.
        pairs: dict of submission file -> (truth, prediction), as metrics.final_score takes them.
    """
    thickness = [_compare_values(pairs, file, column, "um", hits=hits_thickness, tolerance=thickness_tolerance)
                 for file in ROUND_OF for column in (c.PRE_CST, c.CST)]
    acuity = [_compare_values(pairs, file, c.VA, unit, hits=hits_acuity, tolerance=acuity_tolerance)
              for file, unit in zip(ROUND_OF, UNITS, strict=True)]
    for name, panels in (("thickness.png", thickness), ("acuity.png", acuity)):
        if any(panels):
            shown = [panel for panel in panels if panel]
            try_to_write(folder / name, partial(draw_agreement, folder / name, shown))
    rows = {file: list(_select_classes(*pair, file)) for file, pair in pairs.items()}
    titled = [(ROUND_OF.get(file, "final round, per image"), part) for file, part in rows.items() if part]
    if titled:
        roc, calibration = folder / "roc.png", folder / "calibration.png"
        try_to_write(roc, lambda: draw_curves(
            roc, [(title, [_trace_roc(*row) for row in part]) for title, part in titled],
            xlabel="false positive rate", ylabel="true positive rate", diagonal="chance"))
        try_to_write(calibration, lambda: draw_curves(
            calibration, [(title, [_trace_calibration(*row) for row in part]) for title, part in titled],
            xlabel="predicted probability", ylabel="share that is positive", diagonal="perfect"))


def draw_gallery_of_eyes(
    path: Path, eyes: pd.DataFrame, predictions: pd.DataFrame, *, images: pd.DataFrame, paths: Paths
) -> None:
    """Draw a crop of the eyes whose thickness after treatment was predicted best and worst.

    Args:
        path: the PNG to write.
        eyes: DataFrame of the truth, indexed by patient ID.
        predictions: DataFrame of the same index, with CST and VA.
        images: DataFrame of train.csv's after-images.
        paths: config.Paths.
    """
    known = eyes.index[eyes[c.CST].notna() & predictions[c.CST].notna() & eyes.index.isin(images[c.PATIENT])]
    off = (predictions[c.CST].loc[known] / eyes[c.CST].loc[known] - 1).abs().sort_values()
    count = min(GALLERY, len(off) // 2)
    if not count:
        return
    scans = _choose_scans(images, paths)
    shown = scans.loc[[*off.index[:count], *off.index[::-1][:count]]].reset_index()
    pictures, legend = _paint(paths, shown, VIEWS["bscan"])
    picture_of, rows = dict(zip(shown[c.PATIENT], pictures, strict=True)), []
    for title, chosen in (("best", off.index[:count]), ("worst", off.index[::-1][:count])):
        row = [
            (f"{eye}: CST {predictions[c.CST][eye]:.0f} um, true {eyes[c.CST][eye]:.0f}\n"
             f"VA {predictions[c.VA][eye]:.2f}, "
             f"true {eyes[c.VA][eye]:.2f} ({UNITS[eyes[c.FINAL][eye]]})".replace("nan", "unknown"),
             picture_of[eye], None)
            for eye in chosen
        ]
        rows.append((f"{title}: thickness off by {off[chosen].mean():.0%} on average", row))
    draw_gallery(path, rows, legend=legend)


def _choose_scans(images: pd.DataFrame, paths: Paths) -> pd.DataFrame:
    """Of each eye the image nearest the fovea, or, where that is not known, the middle one: indexed by patient ID."""
    images = images.sort_values(c.SOURCE)
    places = GeometryRecord(paths.geometry_table).table(images[c.SOURCE]).set_index(c.SOURCE)["distance_um"]
    away = places.reindex(images[c.SOURCE]).abs().set_axis(images.index)
    nearest = away.dropna().groupby(images[c.PATIENT]).idxmin()
    middle = {patient: part.index[len(part) // 2] for patient, part in images.groupby(c.PATIENT)}
    return images.loc[list((middle | nearest.to_dict()).values())].set_index(c.PATIENT)


def _paint(paths: Paths, images: pd.DataFrame, view: View) -> tuple[list[np.ndarray], list[Any]]:
    """A view of images with what was read of their scans drawn on it, and a legend; or, said, the view alone."""
    try:
        return paint_views(paths, images[c.SOURCE].tolist(), view), explain_colors()
    except PipelineError as error:
        say(f"{error}\nThe pictures show these crops without membranes and fluid.")
        reader = ViewReader(paths, images, view)
        return [to_picture(reader.read(place)) for place in range(len(images))], []


def draw_attention(path: Path, images: pd.DataFrame, model: Any, *, paths: Paths) -> None:
    """Draw Grad-CAM maps over the images that a model is surest of, for each finding; over its first view.

    Args:
        path: the PNG to write.
        images: DataFrame of train.csv's images, with the findings as the model predicts them.
        model: of model.registry, for images: with an ImageModule.
        paths: config.Paths.
    """
    views, rows = model.module.specification.views, []
    legend: list[Any] = []
    for number, finding in enumerate(model.module.specification.findings):
        surest = images.sort_values(finding, ascending=False).drop_duplicates(c.PATIENT).head(GALLERY)
        readers = {name: ViewReader(paths, surest, view) for name, view in views.items()}
        painted, legend = _paint(paths, surest, next(iter(views.values())))
        pictures = []
        for place, row in enumerate(surest.to_dict("records")):
            pixels = {name: reader.read(place) for name, reader in readers.items()}          # C x H x W each
            inputs = {name: torch.tensor(array[None].copy(), device=model.device) / 255
                      for name, array in pixels.items()}
            attention = grad_cam(model.module, inputs)[0, number].cpu().numpy()
            caption = f"{row[c.PATIENT]}: {finding} {row[finding]:.2f}"
            pictures.append((caption, painted[place], attention))
        rows.append((finding, pictures))
    draw_gallery(path, rows, legend=legend)


def to_picture(pixels: np.ndarray) -> np.ndarray:
    """C x H x W pixels, red first, as a picture: H x W x 3, blue first."""
    return np.broadcast_to(pixels[::-1].transpose(1, 2, 0), (*pixels.shape[1:], 3))


def draw_learning(path: Path, runs: dict[tuple[str, int], list[Path]]) -> None:
    """Draw the loss curves of runs that have any, one panel per model.

    Args:
        path: the PNG to write.
        runs: dict of (model name, fold number) -> run folders.
    """
    panels: dict[str, list[tuple[str, pd.DataFrame]]] = {}
    for name, fold, folder in ((*key, folder) for key, folders in runs.items() for folder in folders):
        config = read_config(folder)
        if not config.recipe_of().has_epochs:
            continue
        label = f"fold {fold}" + (f", seed {config.seed}" if len(runs[name, fold]) > 1 else "")
        try:
            panels.setdefault(name, []).append((label, read_history(folder / "history.csv")))
        except PipelineError as error:
            say(f"{error}\nThe curve of {folder} is left out.")
    if panels:
        draw_comparison(path, list(panels.items()))


def _compare_values(pairs, file, column, unit, *, hits, tolerance):
    """A panel of draw_agreement, or None without such predictions."""
    if file not in pairs or column not in pairs[file][1]:
        return None
    true, predicted = (table[column].to_numpy(float) for table in pairs[file])
    known = ~np.isnan(true) & ~np.isnan(predicted)      # an eye without images of both visits has no prediction
    true, predicted = true[known], predicted[known]
    return f"{column}, {ROUND_OF[file]}", unit, true, predicted, hits(true, predicted), tolerance


def _select_classes(true, predicted, file):
    """(column, truth, probability) of the columns scored by AUC whose truth has both classes."""
    for column, rule in FINAL_ITEMS[file].items():
        if RULES[rule] is auc_score and column in predicted:
            known = true[column].isin([0, 1])
            answer = true[column][known].to_numpy(int)
            if len(set(answer)) == 2:
                yield column, answer, predicted[column][known].to_numpy(float)


def _trace_roc(column, answer, probability):
    false_positive, true_positive, _ = roc_curve(answer, probability)
    return f"{column}: AUC {auc_score(answer, probability):.3f}, {len(answer)} rows", false_positive, true_positive


def _trace_calibration(column, answer, probability):
    bins = min(BINS, max(1, len(answer) // LEAST_IN_BIN))
    share, mean = calibration_curve(answer, probability, n_bins=bins, strategy="quantile")
    return f"{column}, {len(answer)} rows", mean, share
