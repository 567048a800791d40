"""The flags of each option. Those of a training are made from the fields of its config, and give it its values.

Reads and writes no file. model_config is imported when a function runs: users edit it, and an error in it is to be
said (processing.settings.check_settings), not raised where the program begins.
"""

import argparse
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable
from dataclasses import Field, fields, replace
from pathlib import Path
from typing import Any, get_args, get_origin

from processing.errors import PipelineError
from processing.pasted import read_paths, strip_pasted

CSV_PREFIX, IMAGE_PREFIX = "csv_", "image_"     # of flags for Model-CSV alone, for the image models alone
NOT_SHARED = ("init_from",)                     # no checkpoint fits both kinds
BEFORE_AFTER = {"image_before": "Model-Image-Before", "image_after": "Model-Image-After", "csv": "Model-CSV"}
ALL = {"image_all": "Model-Image-All", "csv": "Model-CSV"}
LEAST_EYES = 8                                  # of a demonstration: two for each of its four sets


class OptionParser(ArgumentParser):
    """The command line of an option; of a flag that it does not know, it says where the others are listed."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """As argparse's, which the main parser calls; ends the program where there are unknown flags."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)} ({self.prog} --help lists the flags)")
        return found, unknown


# ---- Trainings

def add_training_flags(parser: ArgumentParser, *, image: bool = False, csv: bool = False) -> None:
    """Flags of an option that trains image models, Model-CSV, or both."""
    from model_config import IMAGE_MODELS, CSVConfig, ImageConfig

    text = "go on with an unfinished run (that one, or the newest), then with what was to follow it; by its own config"
    parser.add_argument("--resume", nargs="?", const="", metavar="RUN", help=text)
    _add_unfinished_flag(parser)
    if image:
        names = [config.name for config in IMAGE_MODELS]
        parser.add_argument("--models", nargs="+", choices=names, default=names, help="image models to train (all)")
    if image and csv:
        _add_config_flags(parser, [CSVConfig, ImageConfig], "Model-CSV and the image models")
        _add_config_flags(parser, [CSVConfig], "Model-CSV alone", prefix=CSV_PREFIX)
        _add_config_flags(parser, [ImageConfig], "the image models alone", prefix=IMAGE_PREFIX)
    elif image:
        _add_config_flags(parser, [ImageConfig], "all image models that are trained")
    else:
        _add_config_flags(parser, [CSVConfig], "Model-CSV")


def add_segmentation_flags(parser: ArgumentParser) -> None:
    """Flags of option 13."""
    from model_config import SegmentationConfig

    text = "go on with an unfinished run (that one, or the newest), by its own config"
    parser.add_argument("--resume", nargs="?", const="", metavar="RUN", help=text)
    parser.set_defaults(allow_unfinished=False)
    _add_config_flags(parser, [SegmentationConfig], "Model-Segmentation")


def _add_config_flags(parser: ArgumentParser, kinds: list[type], models: str, *, prefix: str = "") -> None:
    """A flag for each field that the classes of configs `kinds` have in common."""
    group = parser.add_argument_group(f"config of {models} (what no flag says, model_config.py does)")
    for name, own in flag_fields(kinds[0]).items():
        alike = [flag_fields(kind)[name] for kind in kinds if name in flag_fields(kind)]
        if len(alike) < len(kinds) or (len(kinds) > 1 and name in NOT_SHARED):
            continue
        several = get_origin(own.type) is tuple
        group.add_argument(
            name_flags([prefix + name]), type=get_args(own.type)[0] if several else own.type, default=argparse.SUPPRESS,
            nargs="+" if several else None, help=" / ".join(dict.fromkeys(map(describe_field, alike))),
        )


def flag_fields(kind: type) -> dict[str, Field]:
    """The fields of a config, or of its class, that the command line has a flag for, by name."""
    return {one.name: one for one in fields(kind) if one.metadata["flag"]}


def describe_field(one: Field) -> str:
    """What a field is and which values it may have."""
    return f"{one.metadata['help']} ({one.metadata['rule'].wanted})"


def name_flags(names: Iterable[str]) -> str:
    """Fields as the flags that set them: "--epochs, --csv-recipe"."""
    return ", ".join("--" + name.replace("_", "-") for name in names)


def build_image_configs(arguments: Namespace, prefix: str = "") -> list:
    """The ImageConfigs of model_config.IMAGE_MODELS that flags ask for, with the values that flags give."""
    from model_config import IMAGE_MODELS

    return [_apply_flags(config, arguments, prefix) for config in IMAGE_MODELS if config.name in arguments.models]


def build_csv_config(arguments: Namespace, prefix: str = "") -> Any:
    """model_config.CSV_MODEL, with the values that flags give."""
    from model_config import CSV_MODEL

    return _apply_flags(CSV_MODEL, arguments, prefix)


def build_segmentation_config(arguments: Namespace) -> Any:
    """model_config.SEGMENTATION_MODEL, with the values that flags give."""
    from model_config import SEGMENTATION_MODEL

    return _apply_flags(SEGMENTATION_MODEL, arguments, "")


def _apply_flags(config: Any, arguments: Namespace, prefix: str) -> Any:
    """`config` with the values of its flags; one with the prefix wins over one without.

    Raises:
        ConfigError: a value that a field may not have, or of no use to the recipe.
    """
    from model_config import FIELDS_OF_EPOCHS, ConfigError

    values = vars(arguments)
    given = {name: values[name] for name in flag_fields(config) if name in values}
    given |= {name: values[prefix + name] for name in flag_fields(config) if prefix + name in values}
    config = replace(config, **given)
    useless = [prefix + name for name in FIELDS_OF_EPOCHS if prefix + name in values]
    if useless and not config.recipe_of().has_epochs:
        raise ConfigError(f"The recipe {config.recipe} has no epochs, learning rate and batches; "
                          f"leave out {name_flags(useless)}.")
    return config


def read_start(arguments: Namespace) -> dict[str, Any]:
    """What a training starts from, as arguments of model.training.train.

    Raises:
        ConfigError: flags for a run that is resumed, which has its own config: they would be lost.
    """
    from model_config import ConfigError, CSVConfig, ImageConfig, SegmentationConfig

    names = {name for kind in (ImageConfig, CSVConfig, SegmentationConfig) for name in flag_fields(kind)}
    given = [name for name in vars(arguments) if name.removeprefix(CSV_PREFIX).removeprefix(IMAGE_PREFIX) in names]
    if arguments.resume is not None and given:
        raise ConfigError(f"--resume takes the run's own config; leave out {name_flags(given)}.")
    return {"resume": arguments.resume, "unfinished": arguments.allow_unfinished}


# ---- The other options

def add_no_flags(_parser: ArgumentParser) -> None:
    """None."""


def add_processing_flags(parser: ArgumentParser) -> None:
    """Flags of option 0."""
    text = "stop before any table is written if a single image is unreadable or unknown to the tables"
    parser.add_argument("--strict", action="store_true", help=text)


def add_predict_flags(parser: ArgumentParser, checkpoints: dict[str, str]) -> None:
    """Flags of options 4 and 5: BEFORE_AFTER or ALL name the runs that predict."""
    for flag, name in checkpoints.items():
        text = f"run folder or checkpoint file of {name}; default: its newest finished run"
        parser.add_argument(name_flags([flag]), metavar="PATH", help=text)
    _add_device_flag(parser)
    _add_unfinished_flag(parser)


def read_prediction(arguments: Namespace, checkpoints: dict[str, str]) -> dict[str, Any]:
    """The values of add_predict_flags, as arguments of data.predict.predict_all and the like."""
    named = {name: getattr(arguments, flag) for flag, name in checkpoints.items()}
    return {"checkpoints": named, "device": arguments.device, "unfinished": arguments.allow_unfinished}


def add_import_flags(parser: ArgumentParser) -> None:
    """Flags of option 7."""
    text = "folders, zip files or tables as downloaded; without any, the program asks"
    parser.add_argument("sources", nargs="*", metavar="PATH", help=text)
    parser.add_argument("--yes", action="store_true", help="do it without asking")


def read_sources(sources: list[str]) -> list[Path]:
    """What is to be imported, of the command line or typed.

    Raises:
        ConfigError: an empty name.
        PipelineError: no name at all.
    """
    from model_config import ConfigError

    if not sources:
        raise PipelineError("Nothing was named; nothing is imported.")
    if "" in map(strip_pasted, sources):
        raise ConfigError("An empty name was given; name folders, zip files or tables.")
    return [Path(path) for source in sources for path in read_paths(source)]


def add_evaluate_flags(parser: ArgumentParser) -> None:
    """Flags of option 8."""
    text = "result folder or CSV files to score, anyone's; without it, held-out eyes are predicted and scored"
    parser.add_argument("--submission", nargs="+", metavar="PATH", help=text)
    parser.add_argument("--truth", nargs="+", metavar="PATH", help="folder or CSV files with the true values")
    text = "which image models give thickness and findings; labels: the doctor's instead; auto: the first with runs"
    parser.add_argument("--images", choices=("auto", "before_after", "all", "labels"), default="auto", help=text)
    _add_device_flag(parser)


def check_evaluate_flags(arguments: Namespace) -> None:
    """Raise ConfigError where flags of option 8 do not belong together."""
    from model_config import ConfigError

    if bool(arguments.submission) != bool(arguments.truth):
        raise ConfigError("--submission and --truth belong together: what was predicted, and what is true.")
    if arguments.submission and (arguments.images, arguments.device) != ("auto", "auto"):
        raise ConfigError("A submission is scored without any model; leave out --images and --device.")


def add_compare_flags(parser: ArgumentParser) -> None:
    """Flags of option 9."""
    text = "run folders to compare; without any, the newest two of each model"
    parser.add_argument("runs", nargs="*", metavar="RUN", help=text)


def add_demo_flags(parser: ArgumentParser) -> None:
    """Flags of option 10."""
    text = "how much data it makes (default)"
    parser.add_argument("--size", choices=("smallest", "default"), default="default", help=text)
    text = f"how many eyes it invents in all, {LEAST_EYES} or more, in place of the size's number"
    parser.add_argument("--eyes", type=_whole_from(LEAST_EYES), metavar="N", help=text)
    parser.add_argument("--seed", type=_whole_from(0), default=2021, help="the eyes that it invents (2021)")


def add_measure_flags(parser: ArgumentParser) -> None:
    """Flags of option 11."""
    text = "screens or bare B-scans, or folders of them; without any, every image of the data set"
    parser.add_argument("files", nargs="*", metavar="PATH", help=text)
    parser.add_argument("--out", metavar="FOLDER", help="where to write; default: a folder measured beside the first")
    parser.add_argument("--um-down", type=_number_above_0, metavar="UM", help="scale of a bare B-scan's pixel (3.87)")
    parser.add_argument("--um-across", type=_number_above_0, metavar="UM", help="the same to the side (11.5)")
    text = "where a visit's lines lie: a thickness map and the nine ETDRS fields are made"
    parser.add_argument("--lines", metavar="JSON", help=text)
    text = "run folder or checkpoint file of Model-Segmentation; default: the weights that come with the program"
    parser.add_argument("--run", metavar="PATH", help=text)
    _add_device_flag(parser)
    _add_unfinished_flag(parser)


def read_measure(arguments: Namespace) -> tuple[list[str], dict[str, Any], dict[str, Any]]:
    """The files that are named, the flags that are for them alone, and the others; for option 11.

    Raises:
        ConfigError: flags for files without any file.
    """
    from model_config import ConfigError

    own = {name: getattr(arguments, name) for name in ("out", "um_down", "um_across", "lines")}
    if not arguments.files and not arguments.lines and any(own.values()):
        given = name_flags([name for name, value in own.items() if value])
        raise ConfigError(f"{given} belongs to files; name scans, or a folder of them.")
    if "" in map(strip_pasted, arguments.files):
        raise ConfigError("An empty name was given; name scans, or a folder of them.")
    shared = {"run": arguments.run, "device": arguments.device, "unfinished": arguments.allow_unfinished}
    return arguments.files, own, shared


def add_export_flags(parser: ArgumentParser) -> None:
    """Flags of option 12."""
    text = "run folders or checkpoint files; without any, the newest finished run of each model"
    parser.add_argument("runs", nargs="*", metavar="RUN", help=text)
    parser.add_argument("--out", metavar="FOLDER", help="where to write; default: beside each checkpoint")
    parser.add_argument("--pictures", action="store_true", help="draw each network, too")
    _add_unfinished_flag(parser)


def _whole_from(low: int) -> Callable[[str], int]:
    """What reads a whole number, `low` or more."""
    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < low:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number, {low} or more")
        return int(text)

    return read


def _number_above_0(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of um above 0")
    return value


def _add_unfinished_flag(parser: ArgumentParser) -> None:
    text = "take checkpoints of runs that are not finished too"
    parser.add_argument("--allow-unfinished", action="store_true", help=text)


def _add_device_flag(parser: ArgumentParser) -> None:
    from model_config import ImageConfig

    parser.add_argument("--device", default="auto", help=describe_field(flag_fields(ImageConfig)["device"]))
