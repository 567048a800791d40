"""VisitModule: the network of the recipe pretrained. A visit's scans and where they lie -> a distribution of thickness.

Shapes: B images, V visits (V = B where each image stands alone), C channels, H and W pixels, F features, K findings,
P numbers of a scan's place, N bins of thickness; D, h, w of what a trunk says where. Reads and writes nothing.
"""

import copy
from typing import cast

import torch
from torch import nn

from model.dataset import find_near
from model.distribution import LEAST_UM, MOST_UM
from model.pooling import find_pool
from model.specification import ImageSpecification
from model.trunks import Seen, build_trunk

BINS = 128              # of thickness, evenly in its logarithm, between LEAST_UM and MOST_UM
PLACE = ("known", "away_mm", "radial")          # of a scan: see model.dataset.read_places
PLACE_WIDTH, HIDDEN = 16, 128
COURSES = 32            # things whose depth is followed across a scan
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
    def fit_standard(self, parts: list[dict[str, Seen]]) -> None:
        """Take from what the trunks saw, as `see` gives it, what is usual of it, for what follows."""
        self.learning.fit_standard(parts)
        self.averaged.fit_standard(parts)

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
        """Take mean and spread of ... x F."""
        seen = seen.flatten(end_dim=-2)
        self.mean.copy_(seen.mean(dim=0))
        self.spread.copy_(seen.std(dim=0, correction=0).clamp(min=LEAST_SPREAD))

    def forward(self, seen: torch.Tensor) -> torch.Tensor:
        """... x F -> the same shape."""
        return (seen - self.mean) / self.spread


class Courses(nn.Module):
    """How deep COURSES things lie that it learns to find, column by column: of each its mean row, by how much each row
    looks like it. Thickness is the distance of two such courses; in means over a scan it is hardly to be seen.

    Args:
        channels, rows, columns: D, h, w.

    Attributes: features: how many it gives.
    """

    def __init__(self, channels: int, rows: int, columns: int):
        super().__init__()
        self.features = COURSES * columns
        self.standard = Standard(channels)
        self.find = nn.Linear(channels, COURSES)
        self.rows: torch.Tensor
        self.register_buffer("rows", torch.linspace(-3, 3, rows), persistent=False)     # they spread about 1

    def forward(self, layout: torch.Tensor) -> torch.Tensor:
        """B x D x h x w -> B x F."""
        likeness = self.find(self.standard(layout.movedim(1, 3))).softmax(dim=1)            # B x h x w x COURSES
        return (likeness * self.rows[:, None, None]).sum(dim=1).flatten(1)


class VisitNetwork(nn.Module):
    """The layers of VisitModule; arguments and answers are the same."""

    def __init__(self, specification: ImageSpecification):
        super().__init__()
        trunks = {name: build_trunk(specification.backbone, view) for name, view in specification.views.items()}
        self.trunks = nn.ModuleDict(trunks)
        courses = {name: Courses(*trunk.layout) for name, trunk in trunks.items() if trunk.layout}
        self.courses = nn.ModuleDict(courses)
        seen = sum(trunk.features for trunk in trunks.values())
        thick = sum(one.features for one in courses.values()) or seen       # what the trunk says where, if it does
        self.standard = Standard(seen)
        self.place = nn.Sequential(nn.Linear(len(PLACE), PLACE_WIDTH), nn.ReLU())
        self.pool, self.thick_pool = (find_pool(specification.pool)(count + PLACE_WIDTH) for count in (seen, thick))
        self.thickness = self._build_head(thick + PLACE_WIDTH, BINS)
        self.findings = self._build_head(seen + PLACE_WIDTH, len(specification.findings))

    def forward(self, inputs: dict[str, torch.Tensor], visits: torch.Tensor | None, places: torch.Tensor
                ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        seen, place = self.see(inputs), self.place(places)
        features = self.standard(torch.cat([one.features for one in seen.values()], dim=1))         # B x F
        courses = [self.courses[name](one.layout) for name, one in seen.items() if one.layout is not None]
        features, thick = (torch.cat([*parts, place], dim=1) for parts in ([features], courses or [features]))
        findings = self.findings(features)
        if not self.pool.takes_visits or visits is None:
            return self.thickness(thick), findings, findings
        near = self.thick_pool(thick, visits & find_speakers(places, visits))               # V x F
        return self.thickness(near), findings, self.findings(self.pool(features, visits))

    def see(self, inputs: dict[str, torch.Tensor]) -> dict[str, Seen]:
        """What the trunks make of images, by view, as float32."""
        found = {name: trunk(inputs[name]) for name, trunk in self.trunks.items()}
        return {name: Seen(one.features.float(), None if one.layout is None else one.layout.float())
                for name, one in found.items()}

    def fit_standard(self, parts: list[dict[str, Seen]]) -> None:
        """As VisitModule's."""
        self.standard.fit(torch.cat([torch.cat([one.features for one in part.values()], dim=1) for part in parts]))
        for name, courses in self.courses.items():
            layouts = [one.layout for one in (part[name] for part in parts) if one.layout is not None]
            cast(Standard, courses.standard).fit(torch.cat(layouts).movedim(1, 3))

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

