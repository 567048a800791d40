"""Weights on disk: save, verified load, and the format in which the 2021 system published its models.

A checkpoint file is what torch.save writes (plain values and tensors only), with the SHA-256 of its bytes as
the comment of the zip archive that it is: any zip tool and torch.load still read it.
"""

import hashlib
import io
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from model.backbones import BasicConv2d
from model.module import CSVModule, ImageModule
from processing.errors import PipelineError, is_out_of_memory
from processing.files import write_bytes

FORMAT = 2                              # raised when the content changes its meaning
_COMMENT = b"sha256:"                   # then 64 hexadecimal digits
_COMMENT_BYTES = len(_COMMENT) + 64
_FIELDS = {"kind": str, "specification": dict, "state": dict}

# All that a published checkpoint may hold: whole pickled modules of torch 1.9, nothing else is built
PUBLISHED_CLASSES: list[Callable | tuple[Callable, str]] = [
    ImageModule, CSVModule, (BasicConv2d, "model.module.BasicConv2d"), set,
    nn.Sequential, nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.Flatten, nn.Linear, nn.Sigmoid,
]
PUBLISHED_KINDS = {ImageModule: "ImageNetwork", CSVModule: "CSVNetwork"}


class Checkpoint(NamedTuple):
    """What a checkpoint file holds."""

    kind: str                       # a key of model.registry.MODELS
    specification: dict[str, Any]   # plain values that the model is built from; empty: the published one's
    state: dict[str, torch.Tensor]  # its weights, on the CPU
    values: dict[str, Any]          # what save_checkpoint was given beside; empty for a published file


def save_checkpoint(path: Path, model: Any, state: dict[str, torch.Tensor], **values: Any) -> None:
    """Write a model's weights and what is needed to build it again, whole or not at all.

    Args:
        path: the file.
        model: its kind and specification say what it is.
        state: its weights, as from state_dict.
        values: tensors and plain values to keep beside the weights.
    """
    content = values | {
        "format": FORMAT,
        "kind": model.kind,
        "specification": model.specification,
        "state": {name: value.detach().cpu() for name, value in state.items()},
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_bytes(path, _seal(buffer.getvalue()))


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint file: of save_checkpoint, or one that the 2021 system's author published.

    Raises:
        PipelineError: unreadable, damaged, no checkpoint, or of an earlier version. Code in it is never run.
    """
    path = Path(path)
    content, is_sealed = _read(path)
    if isinstance(content, dict) and "format" in content:
        if not is_sealed:
            raise PipelineError(f"{path} is damaged: its content does not match its SHA-256. Use another checkpoint.")
        if content["format"] != FORMAT:
            raise PipelineError(f"{path} was made by another version of this program. Train the model again.")
    is_ours = isinstance(content, dict) and is_sealed and all(
        isinstance(content.get(name), kind) for name, kind in _FIELDS.items())
    if is_ours and all(isinstance(value, torch.Tensor) for value in content["state"].values()):
        found = Checkpoint(content.pop("kind"), content.pop("specification"), content.pop("state"), content)
    elif type(content) in PUBLISHED_KINDS:
        found = Checkpoint(PUBLISHED_KINDS[type(content)], {}, _read_published(path, content), {})
    else:
        raise PipelineError(f"{path} is no checkpoint of this program.")
    wrong = [name for name, value in found.state.items() if value.is_floating_point() and not value.isfinite().all()]
    if wrong:
        raise PipelineError(f"{path} has weights that are no finite numbers ({wrong[0]}). Use another checkpoint.")
    return found


def read_learned(checkpoint: Checkpoint) -> set[str] | None:
    """The eyes that a checkpoint's weights come from, starts included, as patient IDs; None where it does not say."""
    learned = checkpoint.values.get("learned")
    return None if learned is None else set(learned)


def _read_published(path: Path, module: nn.Module) -> dict[str, torch.Tensor]:
    """The weights of a module that was pickled whole; only its tensors are used, never the object."""
    try:
        return dict(module.state_dict())
    except Exception as error:      # whatever a module without insides, or one that holds itself, raises
        raise PipelineError(f"{path} is no checkpoint, or a damaged one; nothing of it was used.") from error


def _read(path: Path) -> tuple[Any, bool]:
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
        if is_out_of_memory(error):
            raise
        raise PipelineError(f"{path} is no checkpoint, or a damaged one; nothing of it was used.") from error
    return content, original is not None


def _seal(data: bytes) -> bytes:
    """Put the SHA-256 of a zip archive into its comment (the last two bytes hold the comment's length, 0)."""
    digest = hashlib.sha256(data).hexdigest().encode()
    return data[:-2] + struct.pack("<H", _COMMENT_BYTES) + _COMMENT + digest


def _unseal(data: bytes) -> bytes | None:
    """The archive as it was before _seal, or None where there is no seal or it does not hold."""
    comment = data[-_COMMENT_BYTES:]
    original = data[: -_COMMENT_BYTES - 2] + b"\0\0"
    digest = hashlib.sha256(original).hexdigest().encode()
    return original if comment == _COMMENT + digest else None
