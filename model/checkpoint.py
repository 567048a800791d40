"""Weights on disk: save, verified load, and the format in which the 2021 system published its models.

A checkpoint file is what torch.save writes (plain values and tensors only), with the SHA-256 of its bytes as
the comment of the zip archive that it is: any zip tool and torch.load still read it.
"""

import hashlib
import io
import struct
import warnings
from pathlib import Path

import torch
from torch import nn

from model.module import BasicConv2d, CSVModule, ImageModule
from processing.errors import PipelineError
from processing.files import write_bytes

FORMAT = 1                              # raised when the content changes its meaning
_COMMENT = b"sha256:"                   # then 64 hexadecimal digits
_COMMENT_BYTES = len(_COMMENT) + 64
_FIELDS = {"kind", "arguments", "state"}

MODULES = {"ImageModule": ImageModule, "CSVModule": CSVModule}
# All that a published checkpoint may hold: whole pickled modules of torch 1.9, nothing else is built
PUBLISHED_CLASSES = [
    ImageModule, CSVModule, BasicConv2d, set,
    nn.Sequential, nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.Flatten, nn.Linear, nn.Sigmoid,
]


def save_checkpoint(path, module, state=None, **values):
    """Write a module's weights and what is needed to build it again, whole or not at all.

    Args:
        path: the file.
        module: ImageModule, CSVModule or TreeModel.
        state: its weights at another time than now, as from state_dict; None: now.
        values: tensors and plain values to keep beside the weights.
    """
    state = module.state_dict() if state is None else state
    content = values | {
        "format": FORMAT,
        "kind": type(module).__name__,
        "arguments": _arguments(module),
        "state": {name: value.detach().cpu() for name, value in state.items()},
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_bytes(path, _seal(buffer.getvalue()))


def load_checkpoint(path, kind):
    """Build the module that a checkpoint file holds.

    Args:
        path: a file of save_checkpoint, or one that the 2021 system's author published.
        kind: what it must hold: "ImageModule", "CSVModule" or "TreeModel", or a tuple of those that will do.

    Returns:
        module: in eval mode, on the CPU.
        values: what save_checkpoint was given beside it; empty for a published file.

    Raises:
        PipelineError: unreadable, damaged, no checkpoint, or of another kind. Code in it is never run.
    """
    path = Path(path)
    content, sealed = _read(path)
    is_ours = isinstance(content, dict) and content.get("format") == FORMAT
    if is_ours and not sealed:
        raise PipelineError(f"{path} is damaged: its content does not match its SHA-256. Use another checkpoint.")
    if is_ours and content.keys() >= _FIELDS:
        found = _check_kind(path, content["kind"], kind)
        module, state = _build(path, found, content.pop("arguments")), content.pop("state")
    elif type(content) in PUBLISHED_CLASSES[:2]:
        found = _check_kind(path, type(content).__name__, kind)
        module, state, content = MODULES[found](), _published_state(path, content), {}
    else:
        raise PipelineError(f"{path} is no checkpoint of this program.")
    load_weights(module, state, path)
    wrong = [name for name, value in module.state_dict().items() if not torch.isfinite(value).all()]
    if wrong:
        raise PipelineError(f"{path} has weights that are no finite numbers ({wrong[0]}). Use another checkpoint.")
    return module.eval() if isinstance(module, nn.Module) else module, content


def load_weights(module, state, path):
    """Put `state` (name -> tensor) into `module`.

    Raises:
        PipelineError: names or shapes differ; `path` names where the state came from.
    """
    try:
        module.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError, ValueError, KeyError) as error:
        first = str(error).strip().splitlines()[-1].strip()
        wanted = f"{type(module).__name__} of recipe {module.recipe}"
        raise PipelineError(f"{path} does not fit {wanted}: {first}") from error


def _build(path, kind, arguments):
    try:
        return _class_of(kind)(**arguments)
    except (KeyError, TypeError, ValueError) as error:
        raise PipelineError(f"{path} cannot be built by this version of the program: {arguments}.") from error


def _class_of(kind):
    if kind == "TreeModel":
        from model.trees import TreeModel  # scikit-learn and skops take long to load, and few runs need them
        return TreeModel
    return MODULES[kind]


def _published_state(path, module):
    """The weights of a module that was pickled whole; only its tensors are used, never the object."""
    try:
        return module.state_dict()
    except Exception as error:      # whatever a module without insides, or one that holds itself, raises
        raise PipelineError(f"{path} is no checkpoint, or a damaged one; nothing of it was used.") from error


def _arguments(module):
    """What the module's class needs to build it again."""
    if isinstance(module, ImageModule):
        return {"recipe": module.recipe, "crop_size": list(module.crop_size)}
    if type(module).__name__ == "TreeModel":
        return {"seed": module.seed}
    return {"recipe": module.recipe}


def _check_kind(path, found, wanted):
    """`found`, if it is wanted."""
    wanted = (wanted,) if isinstance(wanted, str) else wanted
    if found not in wanted:
        raise PipelineError(f"{path} holds the weights of {found}; those of {' or '.join(wanted)} are needed here.")
    return found


def _read(path):
    """What torch's weights-only loader makes of a file, and whether its SHA-256 holds."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PipelineError(f"The checkpoint {path} cannot be read: {error.strerror or error}.") from error
    original = _unseal(data)
    try:
        with torch.serialization.safe_globals(PUBLISHED_CLASSES), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(io.BytesIO(original or data), map_location="cpu", weights_only=True)
    except Exception as error:      # whatever a damaged or hostile file makes the loader raise
        raise PipelineError(f"{path} is no checkpoint, or a damaged one; nothing of it was used.") from error
    return content, original is not None


def _seal(data):
    """Put the SHA-256 of a zip archive into its comment (the last two bytes hold the comment's length, 0)."""
    digest = hashlib.sha256(data).hexdigest().encode()
    return data[:-2] + struct.pack("<H", _COMMENT_BYTES) + _COMMENT + digest


def _unseal(data):
    """The archive as it was before _seal, or None where there is no seal or it does not hold."""
    comment = data[-_COMMENT_BYTES:]
    original = data[: -_COMMENT_BYTES - 2] + b"\0\0"
    digest = hashlib.sha256(original).hexdigest().encode()
    return original if comment == _COMMENT + digest else None
