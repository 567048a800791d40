"""Every kind of model, by name, and the one protocol that all of them follow.

Nobody else asks what kind a model is. A new kind: a class that follows the protocol, and its line in MODELS.
"""

from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
import torch

from config import PATHS, Paths
from model.checkpoint import Checkpoint, load_checkpoint
from model.portable import Portable
from model.run import Run
from model_config import Config
from processing.errors import PipelineError, is_out_of_memory


class Model(Protocol):
    """What a network, trees or measures offer."""

    kind: str                           # its name in MODELS
    unit: str                           # what a row of its data is: "images", "eyes" or "scans"
    specification: dict[str, Any]       # plain values that it is built from, units and names included
    device: torch.device
    means: dict[str, dict[str, float]]  # of its training eyes: round name -> column -> mean; empty for images

    @classmethod
    def specify(cls, config: Config, rows: pd.DataFrame) -> dict[str, Any]:
        """The specification of a new model that a config asks for, to be fitted to `rows`."""

    @classmethod
    def select_rows(cls, table: pd.DataFrame, config: Config) -> pd.DataFrame:
        """The rows that such a model learns from or is measured on, of train.csv's table."""

    def __init__(self, specification: dict[str, Any], device: torch.device):
        """A model with first weights."""

    def fingerprint(self, rows: pd.DataFrame, held_out: pd.DataFrame, paths: Paths) -> dict[str, str]:
        """What else than train.csv decides what is learned -> fingerprint; raises PipelineError where it is missing."""

    def fit(self, rows: pd.DataFrame, run: Run, paths: Paths, *, held_out: pd.DataFrame) -> None:
        """Learn from `rows`; measure on `held_out` (maybe none) after each epoch."""

    def predict(self, rows: pd.DataFrame, paths: Paths = PATHS, *, label: str = "predict") -> pd.DataFrame:
        """Answers for each row, in columns named as in processing.columns, with the index of `rows`."""

    def build_portable(self) -> Portable:
        """What runs without this program; raises NotPortable where no network of tensors can stand for the model."""

    def state_dict(self) -> dict[str, torch.Tensor]:
        """All that was learned."""

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Take up what state_dict gave; raises RuntimeError, ValueError or KeyError where it does not fit."""

    def describe(self) -> str:
        """One line for a person."""


# Module and class of each kind; imported when a stage needs it, as scikit-learn and skops take long to load
MODELS = {
    "ImageNetwork": "model.image_model",
    "ImageTrees": "model.image_trees",
    "PretrainedNetwork": "model.pretrained",
    "CSVNetwork": "model.csv_model",
    "CSVTrees": "model.csv_trees",
    "SegmentationNetwork": "model.segmentation_model",
}


def model_class(kind: str) -> type[Model]:
    """The class of a kind of MODELS; raises KeyError for any other."""
    return getattr(import_module(MODELS[kind]), kind)


def class_for(config: Config) -> type[Model]:
    """The class of the models that a config trains."""
    return model_class(config.recipe_of().model)


def build_model(kind: str, specification: dict[str, Any], device: torch.device, source: Path) -> Model:
    """A model of this kind; `source` names where the specification came from.

    Raises:
        PipelineError: this version of the program cannot build it.
    """
    try:
        return model_class(kind)(specification, device)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise PipelineError(
            f"{source} cannot be built by this version of the program: {kind}, {specification} ({error!r})."
        ) from error


def load_model(file: Path, device: torch.device, *, unit: str = "") -> Model:
    """The model in a checkpoint file, ready to predict.

    Args:
        file: of a run, or one that the 2021 system's author published.
        device: torch.device that it computes on.
        unit: what it must answer for: "images" or "eyes"; empty: either.

    Raises:
        PipelineError: unreadable, damaged, no checkpoint, of another unit, or of a version that cannot be built.
    """
    checkpoint = load_checkpoint(file)
    if unit and checkpoint.kind in MODELS and model_class(checkpoint.kind).unit != unit:
        raise PipelineError(f"{file} holds a {checkpoint.kind}, which answers for {model_class(checkpoint.kind).unit}; "
                            f"a model for {unit} is needed here.")
    model = build_model(checkpoint.kind, checkpoint.specification, device, file)
    load_weights_of(checkpoint, model, file)
    return model


def load_weights_of(checkpoint: Checkpoint, model: Model, file: Path) -> None:
    """Put a checkpoint's weights into a model of the same make.

    Raises:
        PipelineError: it is of another kind, or names or shapes differ; `file` names where it came from.
    """
    if checkpoint.kind != model.kind:
        raise PipelineError(f"{file} holds the weights of {checkpoint.kind}; those of {model.kind} are needed here.")
    try:
        model.load_state_dict(checkpoint.state)
    except (RuntimeError, TypeError, AttributeError, ValueError, KeyError) as error:
        if is_out_of_memory(error):
            raise
        first = str(error).strip().splitlines()[-1].strip()
        raise PipelineError(f"{file} does not fit {model.describe()}: {first}") from error
