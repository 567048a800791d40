"""The two config modules as a user left them: can the program use them?

Reads config.py and model_config.py; prints what is wrong with them. Neither is imported before that.
"""

import ast
import contextlib
import importlib
import importlib.util
import os
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from processing.pasted import read_path

LONGEST_VALUE = 60      # letters of it in a message
ADVICE = {              # what Python's words for a fault do not say to people who do not know it
    "unicodeescape": r'write the path with /, or with an r before it: r"C:\Users\me"',
    "'utf-8' codec": "save the file as UTF-8",
    "Non-UTF-8 code": "save the file as UTF-8",
    "null bytes": "save the file as UTF-8",
    "escape sequence": 'write a path with /, or with an r before it: r"D:\\eyes"',
}


class Setting(NamedTuple):
    """What a name of a config module must hold: as a function of the module and the value, and in words."""

    holds: Callable[[Any, Any], bool]
    wanted: str


# By options 4, 5 and 11
CHOSEN = ("Model-Image-Before", "Model-Image-After", "Model-Image-All", "Model-CSV", "Model-Segmentation")
A_CLASS = Setting(lambda _, value: isinstance(value, type), "the class that this file came with")
SETTINGS = {
    "config": {
        "Paths": A_CLASS,
        "View": A_CLASS,
        "PATHS": Setting(lambda config, value: isinstance(value, config.Paths), "Paths(a folder)"),
        "VIEWS": Setting(lambda config, value: _holds_all(value, dict, config.View), "a dict of name: View(...)"),
        "EXCLUDED_IMAGES": Setting(lambda _, value: _holds_all(value, (tuple, list, set), str),
                                   "names of images, with a comma after each: (\"a.jpg\",)"),
        "CHECKPOINTS": Setting(lambda _, value: _holds_all(value, dict, (str, os.PathLike, type(None)))
                               and set(value) <= set(CHOSEN) and not any(map(_holds_control, value.values())),
                               f"a dict of name: path or None, with the names {', '.join(CHOSEN)}, and paths with /"),
    },
    "model_config": {
        "ImageConfig": A_CLASS,
        "CSVConfig": A_CLASS,
        "IMAGE_MODELS": Setting(lambda own, value: _holds_all(value, (list, tuple), own.ImageConfig),
                                "a list of ImageConfig(...)"),
        "CSV_MODEL": Setting(lambda own, value: isinstance(value, own.CSVConfig), "CSVConfig(...)"),
        "SegmentationConfig": A_CLASS,
        "SEGMENTATION_MODEL": Setting(lambda own, value: isinstance(value, own.SegmentationConfig),
                                      "SegmentationConfig(...)"),
        "PREDICT_BATCH_SIZE": Setting(lambda _, value: type(value) is int and value > 0, "a whole number, 1 or more"),
        "DEMO_IMAGE_MODELS": Setting(lambda own, value: _holds_all(value, (list, tuple), own.ImageConfig),
                                     "a list of ImageConfig(...)"),
        "DEMO_CSV_MODEL": Setting(lambda own, value: isinstance(value, own.CSVConfig), "CSVConfig(...)"),
    },
}


def _holds_all(value, collection, kind):
    items = value.values() if isinstance(value, dict) else value
    return isinstance(value, collection) and all(isinstance(item, kind) for item in items)


def _holds_control(path):
    """Whether a path has a tab or line break in it, as "D:\\new" without an r before it."""
    return any(ord(letter) < 0x20 for letter in str(path or ""))


def check_settings() -> bool:
    """Whether config.py and model_config.py can be used; what a user's edit broke there is said, with its place."""
    if root := os.environ.get("APTOS_ROOT"):
        os.environ["APTOS_ROOT"] = read_path(root)
    for name in ("config", "model_config"):
        try:
            with warnings.catch_warnings():     # "D:\\eyes": it would do, "D:\\new" would not
                warnings.filterwarnings("error", ".*invalid escape sequence")
                module = importlib.import_module(name)
            fault = _find_wrong_setting(module)
        except (Exception, SystemExit) as error:
            fault = _describe_fault(name, error)
        if fault:
            print(fault, file=sys.stderr)
            return False
    return True


def _describe_fault(module: str, error: BaseException) -> str:
    """File, line and reason, in one line, of what was raised while a config module was read."""
    spec = importlib.util.find_spec(module)
    file, line = (spec and spec.origin) or f"{module}.py", None
    if isinstance(error, SyntaxError):
        file, line, reason = error.filename or file, error.lineno, str(error.msg)
    else:
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if frame.filename.endswith("config.py") and frame.name == "<module>"]
        file, line = (own[-1].filename, own[-1].lineno) if own else (file, line)
        is_said_by_us = type(error).__module__ == "model_config"
        reason = f"{error}" if is_said_by_us else f"{type(error).__name__}: {error}"
    line = line or _find_odd_line(file)
    reason += next((f"; {advice}" for words, advice in ADVICE.items() if words in reason), "")
    return f"{file}, line {line}: {' '.join(reason.split())}" if line else f"{file}: {' '.join(reason.split())}"


def _find_odd_line(file: str) -> int | None:
    """The first line that is no UTF-8 or holds a null byte, where Python names none."""
    with contextlib.suppress(OSError):
        for number, line in enumerate(Path(file).read_bytes().split(b"\n"), start=1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return number
            if b"\0" in line:
                return number
    return None


def _find_wrong_setting(module: ModuleType) -> str | None:
    """What is said of the first setting that is gone, or no longer of the kind that the program uses."""
    for name, setting in SETTINGS[module.__name__].items():
        if not hasattr(module, name):
            return f"{module.__file__}: {name} is not there; it must be {setting.wanted}."
        value = getattr(module, name)
        if not setting.holds(module, value):
            text = " ".join(repr(value).split())
            text = text if len(text) <= LONGEST_VALUE else text[:LONGEST_VALUE] + "..."
            return f"{module.__file__}, line {_find_assignment(module, name)}: {name} is {text}; " \
                   f"it must be {setting.wanted}."
    return None


def _find_assignment(module: ModuleType, name: str) -> int:
    """The last line that gives that name of a module a value."""
    tree = ast.parse(Path(str(module.__file__)).read_bytes())
    return max((node.lineno for node in ast.walk(tree)
                if isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Store)), default=1)
