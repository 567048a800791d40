"""How models are trained. Edit the values at the bottom, or give a flag (`python main.py 1 --epochs 5`).

A bad value is refused when a config is built, with the value in the message. Nothing changes a config later.
"""

import math
import re
from dataclasses import dataclass, replace


class ConfigError(ValueError):
    """A value of the configuration that cannot be used."""


@dataclass(frozen=True)
class Recipe:
    """What sets one way of training apart from another."""

    blocks: str     # "plain": convolution, batch norm, ReLU; "residual": ResidualBlock
    heads: str      # "sigmoid": classification heads end in a Sigmoid; "logits": they do not


# seed:   the 2021 system. Its classification losses expect logits and get Sigmoid outputs, so a finding's loss
#         cannot fall below log(1 + 1/e) = 0.313 for a positive and log 2 = 0.693 for a negative label.
# fixed:  the same network, heads give logits.
# resnet: fixed, with residual blocks.
RECIPES = {
    "seed": Recipe(blocks="plain", heads="sigmoid"),
    "fixed": Recipe(blocks="plain", heads="logits"),
    "resnet": Recipe(blocks="residual", heads="logits"),
}
# Of Model-CSV, which has no blocks to exchange; best: an ensemble of trees (model/trees.py) in place of the network
CSV_RECIPES = ("seed", "fixed", "best")
FIELDS_OF_EPOCHS = ("epochs", "learning_rate", "batch_size")        # which the recipe best has no use for
DEVICES = ("auto", "cuda", "mps", "cpu")            # auto: the first of the others that is there
PRECISIONS = ("float32", "bf16")
VISITS = ("before", "after", "all")
FOLDS = 5                                           # of the eyes, by person: data/processed/splits.json


@dataclass(frozen=True)
class ImageConfig:
    """How one image model is trained: B-scan crop -> CST and IRF, SRF, PED, HRF."""

    name: str                       # folder under model/ckpt
    visit: str                      # which images: before or after treatment, or all
    target: str                     # which thickness it learns: preCST or CST
    epochs: int = 50                # passes over the images, 1 or more
    learning_rate: float = 1e-3     # Adam's step, above 0
    batch_size: int = 100           # images per step, 1 or more; 100 take about 10 GB on a CPU
    seed: int = 2021                # first weights and shuffling, 0 or more
    recipe: str = "seed"            # one of RECIPES
    init_from: str = ""             # run folder or checkpoint file to start from; empty: random weights
    fold: str = "none"              # eyes left out and measured on: none, one of 0 to 4, or all five in turn
    device: str = "auto"            # auto, cuda, mps or cpu (cuda:1 names a card)
    workers: int = -1               # threads that read images beside the training; -1: chosen for the machine
    precision: str = "float32"      # float32, or bf16: half the memory, faster where the processor or card has it

    def __post_init__(self):
        _check_training(self, RECIPES)
        _check(self, "visit", self.visit in VISITS, f"one of {', '.join(VISITS)}")
        _check(self, "target", self.target in ("preCST", "CST"), "preCST or CST")
        _check(self, "precision", self.precision in PRECISIONS, f"one of {', '.join(PRECISIONS)}")
        _check(self, "workers", _is_int(self.workers) and self.workers >= -1, "a whole number, -1 or more")


@dataclass(frozen=True)
class CSVConfig:
    """How Model-CSV is trained: 16 features of an eye -> VA and continue injection."""

    name: str = "Model-CSV"         # folder under model/ckpt
    epochs: int = 50_000            # passes over the eyes, 1 or more
    learning_rate: float = 1e-5     # Adam's step, above 0
    batch_size: int = 100           # eyes per step, 1 or more
    seed: int = 2021                # first weights and the order of the eyes, 0 or more
    recipe: str = "seed"            # seed, fixed or best (trees: no epochs, rate, batches or start)
    init_from: str = ""             # run folder or checkpoint file to start from; empty: random weights
    fold: str = "none"              # eyes left out and measured on: none, one of 0 to 4, or all five in turn
    device: str = "auto"            # auto, cuda, mps or cpu (cuda:1 names a card)

    def __post_init__(self):
        _check_training(self, CSV_RECIPES)
        _check(self, "init_from", self.recipe != "best" or not self.init_from, "empty for the recipe best")


def _check_training(config, recipes):
    """What both configs share."""
    _check(config, "name", _is_folder_name(config.name), "a plain folder name")
    _check(config, "epochs", _is_int(config.epochs) and config.epochs >= 1, "a whole number, 1 or more")
    rate = config.learning_rate
    _check(config, "learning_rate", _is_number(rate) and 0 < rate < math.inf, "a number above 0")
    size = config.batch_size
    _check(config, "batch_size", _is_int(size) and size >= 1, "a whole number, 1 or more")
    _check(config, "seed", _is_int(config.seed) and 0 <= config.seed < 2**32, "a whole number, 0 to 2**32 - 1")
    _check(config, "recipe", config.recipe in recipes, f"one of {', '.join(recipes)}")
    folds = ("none", "all", *map(str, range(FOLDS)))
    _check(config, "fold", config.fold in folds, f"one of {', '.join(folds)}")
    check_device(config.device)


def each_fold(config):
    """The configs that `fold="all"` stands for, or the config itself."""
    return [replace(config, fold=str(fold)) for fold in range(FOLDS)] if config.fold == "all" else [config]


def check_device(device):
    """Raise ConfigError unless `device` is one of DEVICES or cuda:<number>."""
    known = device in DEVICES or (isinstance(device, str) and re.fullmatch(r"cuda:\d+", device))
    if not known:
        raise ConfigError(f"device is {device!r}; it must be one of {', '.join(DEVICES)}, or cuda:<number>.")


def _check(config, field, holds, wanted):
    if not holds:
        value = getattr(config, field)
        raise ConfigError(f"{type(config).__name__}: {field} is {value!r}; it must be {wanted}.")


def _is_int(value):
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value):
    return _is_int(value) or isinstance(value, float)


def _is_folder_name(value):
    return isinstance(value, str) and bool(value.strip()) and not set(value) & set('/\\:*?"<>|') and value[0] != "."


# ---- The values. Option 1 trains the models of this list, in its order.

IMAGE_MODELS = [
    ImageConfig(name="Model-Image-Before", visit="before", target="preCST"),
    ImageConfig(name="Model-Image-After", visit="after", target="CST"),
    ImageConfig(name="Model-Image-All", visit="all", target="CST"),
]

CSV_MODEL = CSVConfig()

# Images that a model sees at once when it predicts; more is not faster on a CPU.
PREDICT_BATCH_SIZE = 16

# ---- The demonstration: few images and little time, so fewer images a step, more passes, and mended losses

DEMO_IMAGE_MODELS = [
    replace(config, recipe="fixed", epochs=12, batch_size=8, learning_rate=1e-3) for config in IMAGE_MODELS
]
DEMO_CSV_MODEL = replace(CSV_MODEL, recipe="fixed", epochs=300, batch_size=16, learning_rate=1e-3)
