"""The models of options 4, 5 and 8, one after the other: images -> answers per image -> per eye -> Model-CSV.

Reads checkpoints and crops; writes nothing.
"""

from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch

from config import Paths
from model.checkpoint import load_checkpoint
from model.dataset import check_finite
from model.model import CSVModel, CSVTrees, ImageModel
from processing import columns as c
from processing.acuity import convert_va
from processing.errors import PipelineError
from processing.visits import AFTER_TREATMENT, BEFORE_TREATMENT, join_visits

CSV_MODEL = "Model-CSV"
# The image models of before-images and of after-images, by the column after
PIPELINES = {
    "before_after": ("Model-Image-Before", "Model-Image-After"),
    "all": ("Model-Image-All", "Model-Image-All"),
}
VISITS = ("before", "after")
TRAIN_AGAIN = "A model predicted them: train it again, or name another run."
CLINICAL = [c.GENDER, c.AGE, c.DIAGNOSIS, c.DRUG, c.SIDE, c.PRE_VA]
MODELS = {"ImageModule": ImageModel, "CSVModule": CSVModel, "TreeModel": CSVTrees}      # what computes with a module


class Loaded(NamedTuple):
    """A model and where it came from."""

    model: ImageModel | CSVModel | CSVTrees
    values: dict        # kept beside its weights
    name: str | None    # as which it was trained, where its file says so
    file: Path


def load_model(file: Path, name: str, device: torch.device) -> Loaded:
    """Load a checkpoint file as the model `name`, ready to predict.

    Raises:
        PipelineError: it is damaged, or of another kind of model.
    """
    module, content = load_checkpoint(file, ("CSVModule", "TreeModel") if name == CSV_MODEL else "ImageModule")
    model = MODELS[type(module).__name__](module, device)
    return Loaded(model, content.get("values", {}), content.get("name"), file)


def predict_images(
    rows: pd.DataFrame, paths: Paths, image_models: tuple[str, str], models: dict[str, Loaded]
) -> pd.DataFrame:
    """Predict each image by the model of its visit.

    Args:
        rows: one row per image, with after and processed_path; what it holds of the answers is left out.
        paths: config.Paths.
        image_models: one of PIPELINES: the names of the before-images' and of the after-images' model.
        models: of load_model, by name.

    Returns:
        `rows` with CST (um) and FINDINGS (probabilities).

    Raises:
        PipelineError: a crop is missing or damaged, or an answer is no number.
    """
    rows = rows.drop(columns=[c.CST, *c.FINDINGS, c.PRE_CST], errors="ignore")
    parts = [
        models[name].model.eval(rows[rows[c.AFTER] == after], paths.root, label=f"{name}, {VISITS[after]}")
        for after, name in enumerate(image_models)
    ]
    answers = pd.concat(parts)
    images = rows.join(answers)
    check_finite(images, list(answers), c.PROCESSED, advice=TRAIN_AGAIN)
    return images


def average_eyes(images: pd.DataFrame) -> pd.DataFrame:
    """Make one row per eye of its images: clinical fields over all of them, the models' answers over each visit's.

    Args:
        images: of predict_images, with patient ID, final and the clinical columns.

    Returns:
        DataFrame indexed by patient ID: final and CSV_FEATURES; NaN where a visit has no image.
    """
    eyes = join_visits(images, eye=[c.FINAL, *CLINICAL], before=BEFORE_TREATMENT, after=AFTER_TREATMENT)
    return eyes[[c.FINAL, *c.CSV_FEATURES]]


def predict_eyes(eyes: pd.DataFrame, csv_model: Loaded, means: dict[str, dict[str, float]]) -> pd.DataFrame:
    """Predict VA and continue injection of eyes by Model-CSV.

    Args:
        eyes: DataFrame indexed by patient ID with final and CSV_FEATURES; NaN where unknown.
        csv_model: of load_model.
        means: dict of round name -> dict of column -> mean, which a network takes for what is unknown; trees take
            it as it is.

    Returns:
        DataFrame with the index of `eyes`: VA in the round's unit, and continue injection (a probability).

    Raises:
        PipelineError: something is unknown and there are no means, or an answer is no number.
    """
    if not csv_model.model.takes_missing:
        eyes = eyes.copy()
        for final in eyes[c.FINAL].unique():
            own = eyes[c.FINAL] == final
            eyes[own] = fill_missing(eyes[own], means, int(final))
    answers = csv_model.model.eval(eyes)
    check_finite(answers, [c.VA, c.CONTINUE], c.PATIENT, advice=TRAIN_AGAIN)
    return answers


def fill_missing(table: pd.DataFrame, means: dict[str, dict[str, float]], final: int) -> pd.DataFrame:
    """Put the mean of its column at each NaN.

    Args:
        table: rows of eyes or images of one round.
        means: dict of round name -> dict of column -> mean over training eyes. Where the round has none, the other
            round's are taken, with acuity in this round's unit.
        final: the round.

    Raises:
        PipelineError: something is missing and there are no means.
    """
    if not table.isna().any(axis=None):
        return table
    if not means:
        raise PipelineError(
            "Some eyes have no images, and Model-CSV does not carry the means of its training data. "
            "Train Model-CSV by option 2 (train_csv)."
        )
    own = means.get(c.ROUND_NAMES[final])
    if own is None:
        own = next(iter(means.values()))
        own = own | {name: float(convert_va(own[name], 1 - final, final)) for name in (c.PRE_VA, c.VA)}
    return table.fillna(own)
