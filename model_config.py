"""How models are trained. Edit the values at the bottom, or give a flag (`python main.py 1 --epochs 5`).

A field of a config is declared once: its value where nothing else is said, which values it may have, and what it is.
Checks, flags and help follow from that (processing/flags.py). A bad value is refused when a config is built, with
the value in the message. Nothing changes a config later.
"""

import math
import re
from collections.abc import Callable, Collection
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Any, ClassVar, NamedTuple

from config import VIEWS

NO_WEIGHTS, FROM_RANDOM = "none", " from random numbers"        # of a trunk, and what its recipe is called then


class ConfigError(ValueError):
    """A value of the configuration that cannot be used."""


@dataclass(frozen=True)
class Recipe:
    """What sets one way of training apart from another."""

    model: str              # a key of model.registry.MODELS: what is trained
    backbone: str = ""      # "plain": convolution, batch norm, ReLU; "residual": ResidualBlock; empty: it has none
    heads: str = ""         # "sigmoid": classification heads end in a Sigmoid; "logits": they do not; empty: no heads
    has_epochs: bool = True     # whether it passes over the data again and again; trees are fitted once
    own: dict[str, Any] = field(default_factory=dict)   # what fields have that are left to the recipe; else as PLAIN
    joins: bool = False     # whether runs that differ in seed or fold alone answer together: it tells distributions
    help: str = ""          # for the command line


# What a recipe has where it says nothing else: B-scans alone, each by itself, as they are, Adam's step the same always
PLAIN: dict[str, Any] = {"views": ("bscan",), "pool": "image", "augment": "none", "normalise": "none",
                         "schedule": "constant", "weight_decay": 0.0, "precision": "float32"}

# The classification losses of the 2021 system expect logits and get Sigmoid outputs, so a finding's loss cannot fall
# below log(1 + 1/e) = 0.313 for a positive and log 2 = 0.693 for a negative label. The recipe seed leaves that so.
IMAGE_RECIPES = {
    "seed": Recipe("ImageNetwork", "plain", "sigmoid", help="as in 2021"),
    "fixed": Recipe("ImageNetwork", "plain", "logits", help="the same network, heads give logits"),
    "resnet": Recipe("ImageNetwork", "residual", "logits", help="fixed, with residual blocks"),
    "measured": Recipe("ImageTrees", has_epochs=False, joins=True,
                       help="trees over what option 11 measured on a visit's scans, which have no epochs and no start"),
    "best": Recipe("ImageTrees", has_epochs=False, joins=True,
                   help="measured, with what pretrained runs say of eyes that they left out"),
    "pretrained": Recipe("PretrainedNetwork", heads="distribution", joins=True,
                         help="a trunk that has seen pictures before",
                         own={"views": ("bscan_full",), "pool": "visit", "augment": "scan", "schedule": "warm",
                              "weight_decay": 0.05, "precision": "card"}),
}
CSV_RECIPES = {
    "seed": Recipe("CSVNetwork", heads="sigmoid", help="as in 2021"),
    "fixed": Recipe("CSVNetwork", heads="logits", help="the same network, heads give logits"),
    "best": Recipe("CSVTrees", has_epochs=False, help="trees, which have no epochs, learning rate, batches or start"),
}
SEGMENTATION_RECIPE = Recipe("SegmentationNetwork", help="the only one")
FIELDS_OF_EPOCHS = ("epochs", "learning_rate", "batch_size")        # of no use to a recipe that has no epochs
DEVICES = ("auto", "cuda", "mps", "cpu")            # auto: the first of the others that is there
PRECISIONS = ("float32", "bf16", "card")             # card: bf16 on a graphics card, float32 elsewhere
POOLS = {"image": "ImagePool", "visit": "GatedAttention"}      # name -> class of model/pooling.py
SCHEDULES = ("constant", "cosine", "warm")
AUTO = "auto"           # of a field: as the recipe has it
VISITS = ("before", "after", "all")
FOLDS = 5                                           # of the eyes, by person: data/processed/splits.json


# ---- Which values a field may have

class Rule(NamedTuple):
    """Which values a field may have, as a function and as words that follow "it must be"."""

    holds: Callable[[Any], bool]
    wanted: str


def setting(default: Any, rule: Rule, help: str, *, flag: bool = True) -> Any:
    """A field of a config.

    Args:
        default: its value where nothing else is said; MISSING: it must be given.
        rule: which values it may have.
        help: what it is, for the command line.
        flag: whether the command line has a flag for it.
    """
    return field(default=default, metadata={"rule": rule, "help": help, "flag": flag})


def check_fields(config: Any) -> None:
    """Raise ConfigError, with the value in the message, unless every field of `config` has a value that it may have."""
    for one in fields(config):
        value, rule = getattr(config, one.name), one.metadata["rule"]
        if not rule.holds(value):
            raise ConfigError(f"{type(config).__name__}: {one.name} is {value!r}; it must be {rule.wanted}.")


def _refuse_start(config: Any) -> None:
    """Raise ConfigError where a recipe that is fitted at once is to start from another run."""
    if config.init_from and not config.recipe_of().has_epochs:
        name, recipe = type(config).__name__, config.recipe
        raise ConfigError(f"{name}: init_from is {config.init_from!r}; it must be empty for the recipe {recipe}.")


def check_device(device: str) -> None:
    """Raise ConfigError unless `device` is one of DEVICES or cuda:<number>."""
    if not DEVICE.holds(device):
        raise ConfigError(f"device is {device!r}; it must be {DEVICE.wanted}.")


def whole(low: int) -> Rule:
    """Whole numbers, `low` or more."""
    return Rule(lambda value: _is_int(value) and value >= low, f"a whole number, {low} or more")


def one_of(names: Collection[str]) -> Rule:
    """One of these names."""
    return Rule(lambda value: value in tuple(names), f"one of {', '.join(names)}")


def some_of(names: Collection[str]) -> Rule:
    """A tuple of some of these names, or of AUTO alone."""
    def holds(value: Any) -> bool:
        return value == (AUTO,) or (isinstance(value, tuple)
                                    and 0 < len(value) == sum(name in value for name in names))

    return Rule(holds, f"one or more of {', '.join(names)}, none twice; or {AUTO}")


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return (_is_int(value) or isinstance(value, float)) and abs(value) < math.inf


FOLDER_NAME = Rule(lambda value: isinstance(value, str) and bool(value.strip()) and not set(value) & set('/\\:*?"<>|')
                   and value[0] != ".", "a plain folder name")
PATH = Rule(lambda value: isinstance(value, str), "a path as text, or empty")
SEED = Rule(lambda value: _is_int(value) and 0 <= value < 2**32, "a whole number, 0 to 2**32 - 1")
STEP = Rule(lambda value: _is_number(value) and value > 0, "a number above 0")
RECIPES_OWN = -1.0      # of a number: as the recipe has it
DECAY = Rule(lambda value: _is_number(value) and (value >= 0 or value == RECIPES_OWN), "a number, 0 or more")
TRUNK = Rule(lambda value: isinstance(value, str) and value.isidentifier(), "the name of a model, as convnext_tiny")
DEVICE = Rule(lambda value: isinstance(value, str) and (value in DEVICES or bool(re.fullmatch(r"cuda:\d+", value))),
              f"one of {', '.join(DEVICES)}, or cuda:<number>")
FOLD = one_of(("none", "all", *map(str, range(FOLDS))))


def _describe_recipes(recipes: dict[str, Recipe]) -> str:
    return "way of training; " + "; ".join(f"{name}: {recipe.help}" for name, recipe in recipes.items())


# ---- The configs

@dataclass(frozen=True)
class ImageConfig:
    """How one image model is trained: B-scan, fundus picture or both -> CST and IRF, SRF, PED, HRF."""

    name: str = setting(MISSING, FOLDER_NAME, "folder under model/ckpt", flag=False)
    visit: str = setting(MISSING, one_of(VISITS), "which images it sees, by treatment", flag=False)
    target: str = setting(MISSING, one_of(("preCST", "CST")), "which thickness it learns", flag=False)
    epochs: int = setting(50, whole(1), "passes over the images")
    learning_rate: float = setting(1e-3, STEP, "Adam's step")
    batch_size: int = setting(100, whole(1), "images per step; 100 B-scans take about 10 GB on a CPU")
    seed: int = setting(2021, SEED, "first weights and order of the data")
    seeds: int = setting(1, whole(1), "trainings that differ in the seed alone, from this one on; they answer together")
    recipe: str = setting("seed", one_of(IMAGE_RECIPES), _describe_recipes(IMAGE_RECIPES))
    init_from: str = setting("", PATH, "run folder or checkpoint file to start from; empty: random weights")
    fold: str = setting("none", FOLD, "eyes to leave out and measure on; all: five trainings")
    device: str = setting("auto", DEVICE, "where it runs; auto: on a card where there is one")
    workers: int = setting(-1, whole(-1), "threads that read images; -1: chosen for the machine")
    trunk: str = setting("segmentation", TRUNK, "of the recipe pretrained: segmentation, or a classification model of "
                         "torchvision, as convnext_tiny")
    weights: str = setting("", PATH, "that the trunk starts from: a file; none: random numbers; empty: those that come "
                           "with the program, or torchvision's cache")
    # What the recipe decides where nothing is said here
    views: tuple[str, ...] = setting((AUTO,), some_of(VIEWS), "parts of the screen that it sees (config.VIEWS)")
    pool: str = setting(AUTO, one_of((AUTO, *POOLS)), "what is judged: each image, or a visit's images together")
    augment: str = setting(AUTO, one_of((AUTO, "none", "mild", "scan")), "small random changes of the images in "
                           "training; scan: such as leave the thickness of a B-scan true")
    normalise: str = setting(AUTO, one_of((AUTO, "none", "image")), "image: each by its own mean and deviation")
    schedule: str = setting(AUTO, one_of((AUTO, *SCHEDULES)), "of Adam's step; cosine: it falls to the end; warm: so, "
                            "after a slow start")
    weight_decay: float = setting(RECIPES_OWN, DECAY, "how much each step pulls the weights towards 0; -1: as the "
                                  "recipe has it")
    precision: str = setting(AUTO, one_of((AUTO, *PRECISIONS)), "bf16: half the memory, faster where the machine has "
                             "it; card: so on a graphics card only")

    def __post_init__(self) -> None:
        if isinstance(self.views, list):        # as JSON and the command line give it
            object.__setattr__(self, "views", tuple(self.views))
        check_fields(self)
        _refuse_start(self)
        if self.seeds > 1 and not self.recipe_of().joins:
            raise ConfigError(f"ImageConfig: seeds is {self.seeds}; it must be 1 for the recipe {self.recipe}, whose "
                              "runs do not answer together.")

    def recipe_of(self) -> Recipe:
        """What the recipe's name stands for."""
        return IMAGE_RECIPES[self.recipe]

    def variant(self) -> str:
        """The recipe's name, the trunk's where it is another than the program's own, and whether it began at random."""
        trunk = "" if self.trunk == type(self).trunk else f" {self.trunk}"
        return self.recipe + trunk + (FROM_RANDOM if self.weights == NO_WEIGHTS else "")

    def settle(self) -> "ImageConfig":
        """The same with what was left to the recipe."""
        left = {name: value for name, value in (PLAIN | self.recipe_of().own).items()
                if getattr(self, name) in (AUTO, (AUTO,), RECIPES_OWN)}
        return replace(self, **left)


@dataclass(frozen=True)
class CSVConfig:
    """How Model-CSV is trained: 16 features of an eye -> VA and continue injection."""

    name: str = setting("Model-CSV", FOLDER_NAME, "folder under model/ckpt", flag=False)
    epochs: int = setting(50_000, whole(1), "passes over the eyes")
    learning_rate: float = setting(1e-5, STEP, "Adam's step")
    batch_size: int = setting(100, whole(1), "eyes per step")
    seed: int = setting(2021, SEED, "first weights and order of the data")
    recipe: str = setting("seed", one_of(CSV_RECIPES), _describe_recipes(CSV_RECIPES))
    init_from: str = setting("", PATH, "run folder or checkpoint file to start from; empty: random weights")
    fold: str = setting("none", FOLD, "eyes to leave out and measure on; all: five trainings")
    device: str = setting("auto", DEVICE, "where it runs; auto: on a card where there is one")

    def __post_init__(self) -> None:
        check_fields(self)
        _refuse_start(self)

    def recipe_of(self) -> Recipe:
        """What the recipe's name stands for."""
        return CSV_RECIPES[self.recipe]

    def variant(self) -> str:
        """The recipe's name."""
        return self.recipe

    def settle(self) -> "CSVConfig":
        """The same: it leaves nothing to the recipe."""
        return self


@dataclass(frozen=True)
class SegmentationConfig:
    """How Model-Segmentation is trained: scans that are drawn for it -> membranes and fluid."""

    name: str = setting("Model-Segmentation", FOLDER_NAME, "folder under model/ckpt", flag=False)
    epochs: int = setting(90, whole(1), "passes; each draws scans of its own")
    scans: int = setting(1200, whole(1), "scans of an epoch")
    learning_rate: float = setting(3e-3, STEP, "AdamW's step")
    batch_size: int = setting(8, whole(1), "scans per step")
    seed: int = setting(2021, SEED, "first weights, and the scans")
    init_from: str = setting("", PATH, "run folder or checkpoint file to start from; empty: random weights")
    device: str = setting("auto", DEVICE, "where it runs; auto: on a card where there is one")
    workers: int = setting(-1, whole(-1), "threads that draw scans; -1: chosen for the machine")
    precision: str = setting("float32", one_of(PRECISIONS), "bf16: half the memory, faster where the machine has it; "
                             "card: so on a graphics card only")
    schedule: str = setting("cosine", one_of(SCHEDULES), "of AdamW's step; cosine: it falls to the end")
    weight_decay: float = setting(1e-4, DECAY, "how much each step pulls the weights towards 0")
    fold: ClassVar[str] = "none"        # it learns from no eyes, so none is to be left out

    def __post_init__(self) -> None:
        check_fields(self)

    def recipe_of(self) -> Recipe:
        """How it is trained: there is one way only."""
        return SEGMENTATION_RECIPE

    def settle(self) -> "SegmentationConfig":
        """The same: it leaves nothing to the recipe."""
        return self


Config = ImageConfig | CSVConfig | SegmentationConfig


def each_training(config: Any) -> list:
    """The configs that `fold="all"` and `seeds` stand for, with what was left to the recipe; or the config itself."""
    config = config.settle()
    folds = [str(fold) for fold in range(FOLDS)] if config.fold == "all" else [config.fold]
    if config.fold != "none":
        config = replace(config, fold="none")
    several = [replace(config, seed=config.seed + number, seeds=1) for number in range(config.seeds)] if isinstance(
        config, ImageConfig) else [config]
    return [replace(one, fold=fold) if fold != "none" else one for one in several for fold in folds]


# ---- The values. Option 1 trains the models of this list, in its order.

IMAGE_MODELS = [
    ImageConfig(name="Model-Image-Before", visit="before", target="preCST"),
    ImageConfig(name="Model-Image-After", visit="after", target="CST"),
    ImageConfig(name="Model-Image-All", visit="all", target="CST"),
]

CSV_MODEL = CSVConfig()

# It comes trained; option 13 trains it anew.
SEGMENTATION_MODEL = SegmentationConfig()

# Images that a model sees at once when it predicts; more is not faster on a CPU.
PREDICT_BATCH_SIZE = 16

# ---- The demonstration: few images and little time, so fewer images a step, more passes, and mended losses

DEMO_IMAGE_MODELS = [
    replace(config, recipe="fixed", epochs=12, batch_size=8, learning_rate=1e-3) for config in IMAGE_MODELS
]
DEMO_CSV_MODEL = replace(CSV_MODEL, recipe="fixed", epochs=300, batch_size=16, learning_rate=1e-3)
