"""VisitModule: the network of the recipe pretrained. A visit's scans and where they lie -> a distribution of thickness.

Shapes: B images, V visits (V = B where each image stands alone), C channels, H and W pixels, F features, K findings,
P numbers of a scan's place, N bins of thickness, w columns that a trunk reads. Reads and writes nothing.
"""

import copy
import math
from typing import cast

import torch
from torch import nn

from model.dataset import find_away, find_limit
from model.distribution import LEAST_UM, MOST_UM
from model.pooling import find_pool
from model.segmentation import FLUIDS
from model.specification import ImageSpecification
from model.trunks import COLUMNS, Read, Seen, build_trunk
from model.visit_features import USUAL_UM

BINS = 128              # of thickness, evenly in its logarithm, between LEAST_UM and MOST_UM
PLACE = ("known", "away_mm", "radial")          # of a scan: see model.dataset.read_places
PLACE_WIDTH, HIDDEN = 16, 128
LOOKS_MM = (0.1, 0.15, 0.25, 0.4, 0.6, 1.0, 1.5, 3.0)      # how far from a scan's middle a look at it reaches
THICKNESSES = 2         # the first of COLUMNS
QUICK = 5.0             # how much faster than other weights those of the looks' shares move
UNREAD = -5.0           # logit that a look reads nothing: more than that of columns which can hardly be read
MOST_SPREADS = 6.0      # of a feature that differs from all that were seen at first
STRAY = 0.01            # share of thickness that may be anywhere: of a label that is a slip, a scan that was misread
COMPONENTS = 4          # of a distribution
REACH = 0.1             # how far from a guess they lie at first, and how wide they are: in the logarithm of thickness
FAR_REACH = 0.3         # the same where the guess is USUAL_UM
LEAST_WIDTH = 0.02
WHOLE = math.log(MOST_UM / LEAST_UM)        # what the bins cover
NAMED = {"HRF": "foci"}     # a finding -> its fluid, where it has another name
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
        return ((seen - self.mean) / self.spread).clamp(-MOST_SPREADS, MOST_SPREADS)


class Looks(nn.Module):
    """What a trunk read of a scan, as means over columns around its middle, narrow to wide: CST is that of the fovea,
    or of 1 mm around it. Where else to look than at the middle it learns; columns that cannot be read hardly count, and
    where none can, a look sees USUAL_UM and no fluid.
    """

    def __init__(self) -> None:
        super().__init__()
        self.standard, self.where = Standard(len(COLUMNS)), nn.Linear(len(COLUMNS), len(LOOKS_MM))
        for parameter in self.where.parameters():
            nn.init.zeros_(parameter)
        self.widths: torch.Tensor
        self.register_buffer("widths", torch.tensor(LOOKS_MM), persistent=False)
        self.usual: torch.Tensor
        usual = torch.zeros(len(COLUMNS))
        usual[:THICKNESSES] = math.log(USUAL_UM)
        self.register_buffer("usual", usual, persistent=False)

    def forward(self, read: Read) -> torch.Tensor:
        """B x LOOKS_MM x COLUMNS."""
        readable = nn.functional.logsigmoid(read.readable)[:, :, None]
        middle = -0.5 * (read.away_mm[:, :, None] / self.widths) ** 2                                   # B x w x looks
        found = self.where(self.standard(read.columns)) + middle + readable
        weights = torch.cat([found, torch.full_like(found[:, :1], UNREAD)], dim=1).softmax(dim=1)
        columns = torch.cat([read.columns, self.usual.expand(len(found), 1, -1)], dim=1)
        return weights.transpose(1, 2) @ columns


class FirstSight(nn.Module):
    """What trunks read of scans -> a guess of thickness, what tells more of it, and the findings' logits by fluid.

    Args:
        views: whose trunks read.
        findings: names.

    Attributes: features: F, how many numbers tell more of thickness.
    """

    def __init__(self, views: list[str], findings: tuple[str, ...]):
        super().__init__()
        self.looks = nn.ModuleDict({view: Looks() for view in views})
        self.features = len(views) * len(LOOKS_MM) * len(COLUMNS)
        self.standard = Standard(self.features)
        self.shares = nn.Parameter(torch.zeros(len(views), len(LOOKS_MM), THICKNESSES))
        self.marks = nn.Linear(len(FLUIDS), len(findings))
        own = [[float(NAMED.get(finding, finding) == fluid) for fluid in FLUIDS] for finding in findings]
        with torch.no_grad():       # at first a finding is its fluid
            self.marks.weight.copy_(torch.tensor(own))
            self.marks.bias.zero_()

    def forward(self, read: dict[str, Read]) -> tuple[torch.Tensor, torch.Tensor]:
        """B guesses of log thickness, B x F."""
        looks = self._look(read)
        shares = (QUICK * self.shares).flatten().softmax(dim=0).view_as(self.shares)
        return (looks[..., :THICKNESSES] * shares).sum(dim=(1, 2, 3)), self.standard(looks.flatten(1))

    def find(self, read: dict[str, Read], visits: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits of findings by those of fluid: B x K of images, and V x K of the most that a visit's images show."""
        marks = torch.stack([one.marks for one in read.values()]).amax(dim=0)               # B x FLUIDS
        if visits is None or not len(marks):
            return self.marks(marks), self.marks(marks)
        most = marks[None].masked_fill(~visits[:, :, None], -torch.inf).amax(dim=1)
        return self.marks(marks), self.marks(most)

    def fit_standard(self, parts: list[dict[str, Read]]) -> None:
        """As VisitModule's."""
        for name, looks in self.looks.items():
            cast(Standard, looks.standard).fit(torch.cat([read[name].columns for read in parts]))
        self.standard.fit(torch.cat([self._look(read).flatten(1) for read in parts]))

    def _look(self, read: dict[str, Read]) -> torch.Tensor:
        """B x views x LOOKS_MM x COLUMNS."""
        return torch.stack([looks(read[name]) for name, looks in self.looks.items()], dim=1)


class Thickness(nn.Module):
    """Features and a guess of log thickness -> a distribution over the bins: a few normal ones of the logarithm, around
    the guess at first, and a little anywhere. A few numbers are learned of few eyes where 128 are not.

    Args:
        features: F.
        reach: how far from the guess, in the logarithm.
    """

    def __init__(self, features: int, reach: float):
        super().__init__()
        self.reach, self.head = reach, _build_head(features, 3 * COMPONENTS)
        self.logs: torch.Tensor
        self.register_buffer("logs", find_bins().log(), persistent=False)

    def forward(self, features: torch.Tensor, guess: torch.Tensor) -> torch.Tensor:
        """V x F, V -> V x N logits."""
        share, place, width = self.head(features).chunk(3, dim=1)
        place = guess[:, None] + self.reach * (place + torch.linspace(-1, 1, COMPONENTS, device=place.device))
        width = LEAST_WIDTH + self.reach * width.clamp(-3, 3).exp()
        away = (self.logs[None, :, None] - place[:, None]) / width[:, None]             # V x N x COMPONENTS
        scale = share.log_softmax(dim=1) - width.log() - math.log(math.tau) / 2
        near = torch.logsumexp(scale[:, None] - 0.5 * away ** 2, dim=2) + math.log(1 - STRAY)
        return torch.logaddexp(near, torch.full_like(near, math.log(STRAY / WHOLE)))


class VisitNetwork(nn.Module):
    """The layers of VisitModule; arguments and answers are the same."""

    def __init__(self, specification: ImageSpecification):
        super().__init__()
        trunks = {name: build_trunk(specification.backbone, view) for name, view in specification.views.items()}
        reading = [name for name, trunk in trunks.items() if trunk.reads]
        self.trunks = nn.ModuleDict(trunks)
        self.first_sight = FirstSight(reading, specification.findings) if reading else None
        seen = sum(trunk.features for trunk in trunks.values())
        self.standard = Standard(seen)
        self.place = nn.Sequential(nn.Linear(len(PLACE), PLACE_WIDTH), nn.ReLU())
        features = seen + PLACE_WIDTH
        thick = features if self.first_sight is None else self.first_sight.features + PLACE_WIDTH
        self.pool, self.thick_pool = find_pool(specification.pool)(features), find_pool(specification.pool)(thick + 1)
        self.thickness = Thickness(thick, REACH if reading else FAR_REACH)
        self.findings = _build_head(features, len(specification.findings))

    def forward(self, inputs: dict[str, torch.Tensor], visits: torch.Tensor | None, places: torch.Tensor
                ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        seen = self.see(inputs)
        with torch.autocast(places.device.type, enabled=False):     # bf16 would round thickness to 3 %
            return self._answer(seen, visits if self.pool.takes_visits else None, places)

    def _answer(self, seen: dict[str, Seen], visits: torch.Tensor | None, places: torch.Tensor
                ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        place = self.place(places)
        features = torch.cat([self.standard(_join_features(seen)), place], dim=1)                       # B x F
        findings = self.findings(features)
        of_visits = findings if visits is None else self.findings(self.pool(features, visits))          # V x K
        if self.first_sight is None:
            thick, guess = features, torch.full_like(features[:, 0], math.log(USUAL_UM))
        else:
            read = _find_read(seen)
            guess, looks = self.first_sight(read)
            marked, most_marked = self.first_sight.find(read, visits)
            thick, findings, of_visits = torch.cat([looks, place], dim=1), findings + marked, of_visits + most_marked
        if visits is not None:
            both = torch.cat([thick, guess[:, None]], dim=1)
            near = self.thick_pool(both, visits & find_speakers(places, visits))                        # V x ...
            thick, guess = near[:, :-1], near[:, -1]
        return self.thickness(thick, guess), findings, of_visits

    def see(self, inputs: dict[str, torch.Tensor]) -> dict[str, Seen]:
        """What the trunks make of images, by view, as float32."""
        found = {name: trunk(inputs[name]) for name, trunk in self.trunks.items()}
        return {name: Seen(one.features.float(), one.read and Read(*(part.float() for part in one.read)))
                for name, one in found.items()}

    def fit_standard(self, parts: list[dict[str, Seen]]) -> None:
        """As VisitModule's."""
        self.standard.fit(torch.cat([_join_features(part) for part in parts]))
        if self.first_sight is not None:
            self.first_sight.fit_standard([_find_read(part) for part in parts])


def _find_read(seen: dict[str, Seen]) -> dict[str, Read]:
    """What was read, by view, where the trunk reads."""
    return {name: one.read for name, one in seen.items() if one.read is not None}


def _join_features(seen: dict[str, Seen]) -> torch.Tensor:
    """B x F of all views."""
    return torch.cat([one.features for one in seen.values()], dim=1)


def _build_head(features: int, outputs: int) -> nn.Sequential:
    """It says 0 at first."""
    last = nn.Linear(HIDDEN, outputs)
    for parameter in last.parameters():
        nn.init.zeros_(parameter)
    return nn.Sequential(nn.Dropout(DROPPED), nn.Linear(features, HIDDEN), nn.ReLU(), last)


def find_speakers(places: torch.Tensor, visits: torch.Tensor) -> torch.Tensor:
    """V x B bool: which images speak for a visit's thickness, as model.dataset.find_near has it; all where it is not
    known of any where it lies. Images of other visits are not meant.

    Args:
        places: B x P.
        visits: V x B bool.
    """
    if not len(places):
        return visits
    away = find_away(places)
    nearest = away[None].masked_fill(~visits, torch.inf).amin(dim=1)                    # V
    return away[None] <= find_limit(nearest)[:, None]
