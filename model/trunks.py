"""Trunks of the recipe pretrained, by name: what turns a scan into features, with weights that have seen pictures.

`segmentation` is Model-Segmentation, whose weights come with the program. Any other name is that of a classification
model of torchvision; its weights are those in torchvision's cache, or in a file of yours. Nothing is downloaded, and no
code in a file is run. B images, C channels, H and W pixels, F features; h = H / 2 rows and w = W / 2 columns of what is
read.
"""

import re
from pathlib import Path
from typing import NamedTuple

import torch
import torchvision
from torch import nn

from config import View
from model.checkpoint import load_checkpoint
from model.distribution import LEAST_UM
from model.segmentation import FLUIDS, Reading, SegmentationModule, find_rows
from model.segmentation_model import WEIGHTS
from model_config import NO_WEIGHTS
from processing.bscans import UM_ACROSS, UM_DOWN
from processing.errors import PipelineError

SEGMENTATION = "segmentation"
LEVELS = 3                  # of its way down, the coarsest, that give features
GREY_MEAN, GREY_SPREAD = 0.449, 0.226       # of ImageNet's pictures: means of torchvision's three numbers
COLUMNS = ("log thickness", "log thickness above a PED", *FLUIDS)       # of a column; of fluids their height
HEIGHT_UM = 50              # of fluid, that counts as 1
BLACK = 0.05                # grey of a column that is no part of a scan, at most
# What torchvision's files of densenets call layers whose names have one dot less now
OLD_DENSE = re.compile(r"^(.*denselayer\d+\.(?:norm|conv))\.([12]\..*)$")
UNMARKED = -12.0            # logit of fluid where there is no retina


class Read(NamedTuple):
    """What a trunk reads of scans that knows membranes and fluid."""

    columns: torch.Tensor       # B x w x COLUMNS, thickness in um, heights in units of HEIGHT_UM
    away_mm: torch.Tensor       # B x w: how far to the right of the scan's middle the columns lie
    readable: torch.Tensor      # B x w: logit that a column can be read
    marks: torch.Tensor         # B x FLUIDS: the largest logit of each in the retina


class Seen(NamedTuple):
    """What a trunk makes of images."""

    features: torch.Tensor      # B x F
    read: Read | None           # None: the trunk reads nothing


class SegmentationTrunk(nn.Module):
    """Model-Segmentation: what it reads of a scan; and of its coarse levels the means, the largest values and the means
    of their middle.

    Where its weights have learned before, batch norm keeps the statistics that they learned with: those of a few scans
    of one eye would spoil what it reads.

    Args:
        view: of one channel.

    Attributes: features: F; reads: whether it gives a Read.
    """

    reads = True

    def __init__(self, view: View):
        super().__init__()
        self.network = SegmentationModule()
        self.features = 3 * sum(self.network.widths[-LEVELS:])
        self._across_mm = UM_ACROSS / 1000 * (view.right - view.left) / view.width
        self.has_learned: torch.Tensor
        self.register_buffer("has_learned", torch.zeros((), dtype=torch.bool))

    def train(self, mode: bool = True) -> "SegmentationTrunk":
        """As of any module, but for batch norm."""
        super().train(mode)
        self.network.train(mode and not bool(self.has_learned))
        return self

    def forward(self, images: torch.Tensor) -> Seen:
        """See B x 1 x H x W float32 in 0-1; even H and W."""
        levels, found = self.network.descend(images), []
        for x in levels[-LEVELS:]:
            third = max(1, x.shape[3] // 3)
            middle = x[..., third:x.shape[3] - third] if x.shape[3] > 2 * third else x
            found += [x.mean(dim=(2, 3)), x.amax(dim=(2, 3)), middle.mean(dim=(2, 3))]
        reading = self.network.ascend(levels, images.shape[2] // 2, images.shape[3] // 2)
        return Seen(torch.cat(found, dim=1), describe_columns(reading, self._across_mm * find_away(images)))


def find_away(images: torch.Tensor) -> torch.Tensor:
    """How many pixels to the right of the scan's middle the columns of an answer lie, of B x 1 x H x W in 0-1: B x w.

    The middle is that of the columns that are not black, as a view holds black beside a narrow screen's scan; so it is
    the scan's middle if the view holds all of the scan.
    """
    places = torch.arange(images.shape[3], device=images.device) + 0.5
    is_lit = (images[:, 0].amax(dim=1) > BLACK).float()                             # B x W
    middle = (is_lit * places).sum(dim=1) / is_lit.sum(dim=1).clamp(min=1)
    return 2 * torch.arange(images.shape[3] // 2, device=images.device) + 1 - middle[:, None]


def describe_columns(reading: Reading, away_mm: torch.Tensor) -> Read:
    """Thickness and fluid by column. CST counts from the ILM to Bruch's membrane, or to the RPE above a detachment.

    Args:
        reading: of B scans.
        away_mm: B x w, of Read.
    """
    rows = find_rows(reading.membranes).rows                                        # B x 2 x w
    places = 2 * torch.arange(reading.fluids.shape[2], device=rows.device)[:, None] + 0.5
    is_retina = (places >= rows[:, :1]) & (places <= rows[:, 1:]) & (reading.readable[:, None] > 0)     # B x h x w
    logits = reading.fluids.where(is_retina[:, None], torch.full_like(reading.fluids, UNMARKED))
    heights_um = 2 * UM_DOWN * logits.sigmoid().sum(dim=2)                          # B x FLUIDS x w
    thickness_um = UM_DOWN * (rows[:, 1] - rows[:, 0])
    above_um = thickness_um - heights_um[:, FLUIDS.index("PED")]
    logs = torch.stack([thickness_um, above_um], dim=1).clamp(min=LEAST_UM).log()
    columns = torch.cat([logs, heights_um / HEIGHT_UM], dim=1).transpose(1, 2)
    return Read(columns, away_mm, reading.readable, logits.amax(dim=(2, 3)))


class TorchvisionTrunk(nn.Module):
    """A classification model of torchvision without its last layer; of one channel where the view is grey.

    Args:
        name: of torchvision.models.
        view: what it sees.

    Attributes: features: F; reads: whether it gives a Read.

    Raises:
        ValueError: torchvision has no such model; or it takes no pictures of this size, or ends in no linear layer.
    """

    reads = False

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
    network = trunk.get_submodule("network")
    if isinstance(trunk, SegmentationTrunk):
        file = Path(weights).expanduser() if weights else WEIGHTS
        _load(network, load_checkpoint(file).state, file)
        trunk.has_learned.fill_(True)
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
    state = {OLD_DENSE.sub(r"\1\2", key): value for key, value in state.items()}
    return {key: value.sum(dim=1, keepdim=True) if value.ndim == 4 and value.shape[1] == 3 and wanted[key].shape[1] == 1
            else value for key, value in state.items() if key in wanted}


def _load(module: nn.Module, state: dict[str, torch.Tensor], file: Path) -> None:
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise PipelineError(f"{file} holds other weights than this trunk's: {' '.join(str(error).split())[:300]}"
                            ) from error
