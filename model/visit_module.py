"""VisitModule: the network of the recipe pretrained. A visit's scans and where they lie -> a distribution of thickness.

Shapes: B images, V visits (V = B where each image stands alone), C channels, H and W pixels, F features, K findings,
P numbers of a scan's place, N bins of thickness. Reads and writes nothing.
"""

import copy

import torch
from torch import nn

from model.dataset import find_near
from model.distribution import LEAST_UM, MOST_UM
from model.pooling import find_pool
from model.specification import ImageSpecification
from model.trunks import build_trunk

BINS = 128              # of thickness, evenly in its logarithm, between LEAST_UM and MOST_UM
PLACE = ("known", "away_mm", "radial")          # of a scan: see model.dataset.read_places
PLACE_WIDTH, HIDDEN = 16, 128
LEAST_SPREAD = 1e-3     # of a feature: what is less is rounding
DROPPED = 0.2           # of the features, while it learns
MOST_AVERAGE = 0.998    # share of the averaged weights that a step leaves; less in the first steps


def find_bins() -> torch.Tensor:
    """N float32: the middles of the bins, um."""
    edges = torch.linspace(0, 1, BINS + 1, dtype=torch.float64)
    middles = (edges[:-1] + edges[1:]) / 2
    return (LEAST_UM * (MOST_UM / LEAST_UM) ** middles).float()


class VisitModule(nn.Module):
    """Trunks of views, a scan's place beside their features, pooling over the visit, and heads.

    While it learns, the network itself answers; else the average of the weights that it had in its steps.

    Args:
        specification: its backbone is the trunk's name.
    """

    def __init__(self, specification: ImageSpecification):
        super().__init__()
        self.specification = specification
        self.learning = VisitNetwork(specification)
        self.averaged = copy.deepcopy(self.learning).requires_grad_(False)
        self.steps: torch.Tensor
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, inputs: dict[str, torch.Tensor], visits: torch.Tensor | None, places: torch.Tensor
                ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What the loss wants.

        Args:
            inputs: by view, B x C x H x W float32 in 0-1.
            visits: V x B bool, which images are of which visit; None where each stands alone.
            places: B x P float32, of model.dataset.read_places.

        Returns:
            V x N logits of thickness, B x K logits of the images' findings, V x K of the visits'.
        """
        return (self.learning if self.training else self.averaged)(inputs, visits, places)

    @property
    def pool(self) -> nn.Module:
        """How the images of a visit become one."""
        return self.learning.pool

    @torch.no_grad()
    def fit_standard(self, seen: torch.Tensor) -> None:
        """Take the mean and spread of features, N x F as `see` gives them, for what follows."""
        self.learning.standard.fit(seen)
        self.averaged.standard.fit(seen)

    @torch.no_grad()
    def begin_average(self) -> None:
        """Before the first step: the average is the network."""
        self.steps.zero_()
        self.averaged.load_state_dict(self.learning.state_dict())

    @torch.no_grad()
    def average(self) -> None:
        """After a step: move the average a little towards the network."""
        self.steps.add_(1)
        moved = (9 / (10 + self.steps)).clamp(min=1 - MOST_AVERAGE)      # a tensor: no step waits for the card
        for average, own in zip(self.averaged.parameters(), self.learning.parameters(), strict=True):
            average.lerp_(own, moved)
        for copied, counted in zip(self.averaged.buffers(), self.learning.buffers(), strict=True):
            if copied.is_floating_point():      # batch norm's means belong to the weights, and are averaged alike
                copied.lerp_(counted, moved)
            else:
                copied.copy_(counted)


class Standard(nn.Module):
    """Features, each less its mean and in units of its spread over images of the training data.

    A trunk's features hardly differ between scans beside how much they differ from one another: what normalises each
    scan by itself hides what tells a thick retina from a thin one.
    """

    def __init__(self, features: int):
        super().__init__()
        self.mean: torch.Tensor
        self.spread: torch.Tensor
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("spread", torch.ones(features))

    def fit(self, seen: torch.Tensor) -> None:
        """Take mean and spread of N x F."""
        self.mean.copy_(seen.mean(dim=0))
        self.spread.copy_(seen.std(dim=0, correction=0).clamp(min=LEAST_SPREAD))

    def forward(self, seen: torch.Tensor) -> torch.Tensor:
        """B x F -> the same shape."""
        return (seen - self.mean) / self.spread


class VisitNetwork(nn.Module):
    """The layers of VisitModule; arguments and answers are the same."""

    def __init__(self, specification: ImageSpecification):
        super().__init__()
        trunks = {name: build_trunk(specification.backbone, view) for name, view in specification.views.items()}
        self.trunks = nn.ModuleDict(trunks)
        seen = sum(trunk.features for trunk in trunks.values())
        joined = seen + PLACE_WIDTH
        self.standard = Standard(seen)
        self.place = nn.Sequential(nn.Linear(len(PLACE), PLACE_WIDTH), nn.ReLU())
        self.pool = find_pool(specification.pool)(joined)
        self.thickness = self._build_head(joined, BINS)
        self.findings = self._build_head(joined, len(specification.findings))

    def forward(self, inputs: dict[str, torch.Tensor], visits: torch.Tensor | None, places: torch.Tensor
                ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        features = torch.cat([self.standard(self.see(inputs)), self.place(places)], dim=1)          # B x F
        findings = self.findings(features)
        if not self.pool.takes_visits or visits is None:
            return self.thickness(features), findings, findings
        near = self.pool(features, visits & find_speakers(places, visits))                  # V x F
        return self.thickness(near), findings, self.findings(self.pool(features, visits))

    def see(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """B x F float32: what the trunks make of images."""
        return torch.cat([trunk(inputs[name]) for name, trunk in self.trunks.items()], dim=1).float()

    @staticmethod
    def _build_head(features: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(nn.Dropout(DROPPED), nn.Linear(features, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, outputs))


def find_speakers(places: torch.Tensor, visits: torch.Tensor) -> torch.Tensor:
    """V x B bool: which images speak for a visit's thickness: those near the fovea; all where none is, or is known to.

    Args:
        places: B x P.
        visits: V x B bool.
    """
    near = find_near(places)
    has_near = (visits & near).any(dim=1, keepdim=True)
    return torch.where(has_near, near[None], torch.ones_like(visits))

