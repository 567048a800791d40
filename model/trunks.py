"""Trunks of the recipe pretrained, by name: what turns a scan into features, with weights that have seen pictures.

`segmentation` is the encoder of Model-Segmentation, whose weights come with the program. Any other name is that of a
classification model of torchvision; its weights are those in torchvision's cache, or in a file of yours. Nothing is
downloaded, and no code in a file is run. B images, C channels, H and W pixels, F features, D channels of a map of h
rows and w columns.
"""

from pathlib import Path
from typing import NamedTuple

import torch
import torchvision
from torch import nn

from config import View
from model.checkpoint import load_checkpoint
from model.segmentation import LEAST_SPREAD, MULTIPLE, SegmentationModule
from model.segmentation_model import WEIGHTS
from processing.errors import PipelineError

SEGMENTATION, NO_WEIGHTS = "segmentation", "none"
LEVELS = 3                  # of the encoder, the coarsest, that give features
GREY_MEAN, GREY_SPREAD = 0.449, 0.226       # of ImageNet's pictures: means of torchvision's three numbers


class Seen(NamedTuple):
    """What a trunk makes of images."""

    features: torch.Tensor              # B x F
    layout: torch.Tensor | None         # B x D x h x w: where on the scan it sees what; None: the trunk does not say


class SegmentationTrunk(nn.Module):
    """The way down of Model-Segmentation; the means and largest values of its coarse levels, and their middle's means.

    Args:
        view: of one channel.

    Attributes: features: F; layout: D, h, w, of the last level but one.
    """

    def __init__(self, view: View):
        super().__init__()
        whole = SegmentationModule()
        self.stem, self.downs = whole.stem, whole.downs
        self.features = 3 * sum(whole.widths[-LEVELS:])
        rows, columns = (2 * -(-length // MULTIPLE) for length in (view.height, view.width))
        self.layout: tuple[int, int, int] | None = whole.widths[-2], rows, columns

    def forward(self, images: torch.Tensor) -> Seen:
        """See B x 1 x H x W float32 in 0-1."""
        fill = (0, -images.shape[3] % MULTIPLE, 0, -images.shape[2] % MULTIPLE)
        spread, mean = torch.std_mean(images, dim=(1, 2, 3), keepdim=True)
        levels = [self.stem((nn.functional.pad(images, fill) - mean) / (spread + LEAST_SPREAD))]
        for down in self.downs:
            levels.append(down(levels[-1]))
        found = []
        for x in levels[-LEVELS:]:
            third = max(1, x.shape[3] // 3)
            middle = x[..., third:x.shape[3] - third] if x.shape[3] > 2 * third else x
            found += [x.mean(dim=(2, 3)), x.amax(dim=(2, 3)), middle.mean(dim=(2, 3))]
        return Seen(torch.cat(found, dim=1), levels[-2])


class TorchvisionTrunk(nn.Module):
    """A classification model of torchvision without its last layer; of one channel where the view is grey.

    Args:
        name: of torchvision.models.
        view: what it sees.

    Attributes: features: F; layout: None.

    Raises:
        ValueError: torchvision has no such model; or it takes no pictures of this size, or ends in no linear layer.
    """

    layout: tuple[int, int, int] | None = None

    def __init__(self, name: str, view: View):
        super().__init__()
        if name not in torchvision.models.list_models(module=torchvision.models):   # others fetch a part of their own
            raise ValueError("Unknown model: torchvision has no classification model of that name")
        self.network = torchvision.models.get_model(name, weights=None)
        self.features = _cut_head(self.network, name)
        if view.channels == 1:
            _make_grey(self.network, name)
        try:
            with torch.inference_mode():
                self.network.eval()(torch.zeros(1, view.channels, view.height, view.width))
        except (RuntimeError, AssertionError) as error:
            raise ValueError(f"{name} takes no pictures of {view.height} x {view.width}: {error}") from error

    def forward(self, images: torch.Tensor) -> Seen:
        """See B x C x H x W float32 in 0-1."""
        found = self.network((images - GREY_MEAN) / GREY_SPREAD)
        return Seen(getattr(found, "logits", found), None)      # inception and googlenet give more while they learn


def _cut_head(network: nn.Module, name: str) -> int:
    """Put nothing in the place of the last linear layer; returns how many features came there."""
    linear = [(path, part) for path, part in network.named_modules() if isinstance(part, nn.Linear)]
    if not linear:
        raise ValueError(f"{name} ends in no linear layer; choose another trunk")
    path, last = linear[-1]
    parent, _, own = path.rpartition(".")
    setattr(network.get_submodule(parent), own, nn.Identity())
    return last.in_features


def _make_grey(network: nn.Module, name: str) -> None:
    """Make the first convolution one of a single channel: its weights added up, as three equal ones would have it."""
    first = next((part for part in network.modules() if isinstance(part, nn.Conv2d)), nn.Conv2d(1, 1, 1))
    if first.in_channels != 3:
        raise ValueError(f"{name} begins with no convolution of three channels; choose another trunk")
    first.in_channels = 1
    first.weight = nn.Parameter(first.weight.data.sum(dim=1, keepdim=True))


def build_trunk(name: str, view: View) -> SegmentationTrunk | TorchvisionTrunk:
    """The trunk of that name with random weights; raises ValueError where it cannot be built for this view."""
    if name != SEGMENTATION:
        return TorchvisionTrunk(name, view)
    if view.channels != 1:
        raise ValueError("the trunk segmentation sees grey views only; choose a model of torchvision")
    return SegmentationTrunk(view)


def load_trunk_weights(trunk: SegmentationTrunk | TorchvisionTrunk, name: str, weights: str) -> str:
    """Put weights into a trunk.

    Args:
        trunk: of build_trunk.
        name: of it.
        weights: a file; NO_WEIGHTS: it stays random; empty: those that come with the program, or torchvision's cache.

    Returns:
        Where they came from, for a person.

    Raises:
        PipelineError: they are not there, or do not fit.
    """
    if weights == NO_WEIGHTS:
        return "random numbers, as was asked for"
    if name == SEGMENTATION:
        file = Path(weights).expanduser() if weights else WEIGHTS
        state = load_checkpoint(file).state
        wanted = trunk.state_dict()
        _load(trunk, {key: value for key, value in state.items() if key in wanted}, file)
        return str(file)
    file = Path(weights).expanduser() if weights else find_cached(name)
    if not file.is_file():
        raise PipelineError(
            f"There are no weights of {name}: {file} is not there. Where there is a network, python -c \"import "
            f"torchvision; torchvision.models.get_model('{name}', weights='DEFAULT')\" downloads them; else name a "
            "file (--weights FILE), take the trunk segmentation, or start from random numbers (--weights none).")
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:      # whatever is wrong with the file
        raise PipelineError(f"{file} holds no weights that can be read safely: {error}") from error
    if not (isinstance(state, dict) and all(isinstance(value, torch.Tensor) for value in state.values())):
        raise PipelineError(f"{file} holds no weights: it must be a dict of tensors, as state_dict() gives it.")
    network = trunk.get_submodule("network")
    _load(network, _fit_state(state, network), file)
    return str(file)


def find_cached(name: str) -> Path:
    """Where torchvision keeps the default weights of one of its models; raises PipelineError where it has none."""
    try:
        weights = torchvision.models.get_model_weights(name).DEFAULT
    except (ValueError, AttributeError) as error:
        raise PipelineError(f"torchvision has no weights of {name}: {error}") from error
    return Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rpartition("/")[2]


def _fit_state(state: dict[str, torch.Tensor], network: nn.Module) -> dict[str, torch.Tensor]:
    """torchvision's weights as the trunk has them: without the last layer, those of a grey stem added up."""
    wanted = network.state_dict()
    return {key: value.sum(dim=1, keepdim=True) if value.ndim == 4 and value.shape[1] == 3 and wanted[key].shape[1] == 1
            else value for key, value in state.items() if key in wanted}


def _load(module: nn.Module, state: dict[str, torch.Tensor], file: Path) -> None:
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise PipelineError(f"{file} holds other weights than this trunk's: {' '.join(str(error).split())[:300]}"
                            ) from error
