"""The models of options 4, 5 and 8, one after the other: images -> answers per image -> per eye -> Model-CSV.

Reads checkpoints and crops; writes nothing.
"""

from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch

from config import Paths
from model import registry
from model.dataset import check_finite
from model.ensemble import Ensemble
from model.registry import Model
from processing import columns as c
from processing.visits import AFTER_TREATMENT, BEFORE_TREATMENT, join_visits

CSV_MODEL = "Model-CSV"
# The image models of before-images and of after-images, by the column after
PIPELINES = {
    "before_after": ("Model-Image-Before", "Model-Image-After"),
    "all": ("Model-Image-All", "Model-Image-All"),
}
VISITS = ("before", "after")
TRAIN_AGAIN = "A model predicted them: train it again, or name another run."
SURE_BEFORE = dict(zip(c.sure_columns(c.CST), c.sure_columns(c.PRE_CST), strict=True))
SURE_AFTER = {name: name for name in SURE_BEFORE}
CLINICAL = [c.GENDER, c.AGE, c.DIAGNOSIS, c.DRUG, c.SIDE, c.PRE_VA]


class Loaded(NamedTuple):
    """A model, or several that answer as one, and where they came from."""

    model: Model | Ensemble
    files: list[Path]


def load_models(files: list[Path], name: str, device: torch.device) -> Loaded:
    """Load a checkpoint file as the model `name`, or several as one, ready to predict.

    Raises:
        PipelineError: one is damaged, or of another kind of model.
    """
    models = [registry.load_model(file, device, unit="eyes" if name == CSV_MODEL else "images") for file in files]
    return Loaded(models[0] if len(models) == 1 else Ensemble(models), files)


def predict_images(
    rows: pd.DataFrame, paths: Paths, image_models: tuple[str, str], models: dict[str, Loaded]
) -> pd.DataFrame:
    """Predict each image by the model of its visit.

    Args:
        rows: one row per image, of train.csv or test.csv; what it holds of the answers is left out.
        paths: config.Paths.
        image_models: one of PIPELINES: the names of the before-images' and of the after-images' model.
        models: of load_models, by name.

    Returns:
        `rows` with CST (um), how sure it is (c.sure_columns; NaN where the model tells no distribution), and FINDINGS
        (probabilities; NaN where the model does not know one).

    Raises:
        PipelineError: an image is missing or damaged, or an answer is no number.
    """
    rows = rows.drop(columns=[c.CST, *c.FINDINGS, c.PRE_CST], errors="ignore")
    parts = []
    for after, name in enumerate(image_models):
        own = rows[rows[c.AFTER] == after]
        answers = models[name].model.predict(own, paths, label=f"{name}, {VISITS[after]}")
        check_finite(answers, list(answers), own[c.SOURCE].tolist(), advice=TRAIN_AGAIN)
        parts.append(answers)
    return rows.join(pd.concat(parts).reindex(columns=[c.CST, *SURE_AFTER, *c.FINDINGS]))


def average_eyes(images: pd.DataFrame) -> pd.DataFrame:
    """Make one row per eye of its images: clinical fields over all of them, the models' answers over each visit's.

    Args:
        images: of predict_images, with patient ID, final and the clinical columns.

    Returns:
        DataFrame indexed by patient ID: final, CSV_FEATURES, and how sure preCST and CST are; NaN where a visit has no
        image.
    """
    eyes = join_visits(images, eye=[c.FINAL, *CLINICAL], before=BEFORE_TREATMENT | SURE_BEFORE,
                       after=AFTER_TREATMENT | SURE_AFTER)
    return eyes[[c.FINAL, *c.CSV_FEATURES, *SURE_BEFORE.values(), *SURE_AFTER]]


def predict_eyes(eyes: pd.DataFrame, csv_model: Loaded, paths: Paths) -> pd.DataFrame:
    """Predict VA and continue injection of eyes by Model-CSV.

    Args:
        eyes: DataFrame indexed by patient ID with final and CSV_FEATURES, NaN where unknown, and how sure thickness
            is, where that is told.
        csv_model: of load_models.
        paths: config.Paths.

    Returns:
        DataFrame with the index of `eyes`: VA in the round's unit, continue injection (a probability), and how sure VA
        is, where the model tells.

    Raises:
        PipelineError: something is unknown and the model has no means for it, or an answer is no number.
    """
    answers = csv_model.model.predict(eyes, paths)
    check_finite(answers, [c.VA, c.CONTINUE], answers.index.tolist(), advice=TRAIN_AGAIN)
    return answers
