"""What an image model is, in plain values: enough to build it and to read its images, whatever config.py says today.

Reads and writes nothing; checkpoints and config.json hold it.
"""

from dataclasses import asdict, dataclass, field
from typing import Any

from config import View
from processing import columns as c

OWN_VISIT = "thickness of its visit"
PUBLISHED_FINDINGS = ("IRF", "SRF", "PED", "HRF")
# What the published Model-CSV sees of an eye, in this order
PUBLISHED_FEATURES = (
    c.GENDER, c.AGE, c.DIAGNOSIS, c.DRUG, c.SIDE, c.PRE_VA, c.PRE_CST, "preIRF", "preSRF", "prePED", "preHRF", c.CST,
    *PUBLISHED_FINDINGS,
)
PUBLISHED_VIEWS = {"bscan": View(50, 450, 550, 1200, channels=1, folder="img")}


@dataclass(frozen=True)
class ImageSpecification:
    """An image model. The defaults are the checkpoints that the 2021 system's author published."""

    backbone: str = "plain"             # a function build_<name> of model/backbones.py
    views: dict[str, View] = field(default_factory=lambda: PUBLISHED_VIEWS)     # what it sees of a screen, by name
    pool: str = "image"                 # a key of model_config.POOLS
    # "sigmoid": classification heads end in a Sigmoid; "logits": not so; "distribution": not so, and that of thickness
    # gives a distribution
    heads: str = "sigmoid"
    findings: tuple[str, ...] = PUBLISHED_FINDINGS   # in the order of the heads' outputs
    target: str = c.CST                 # which thickness, um: preCST, CST, or OWN_VISIT: that of the image's own visit
    normalise: str = "none"             # "image": each image's mean becomes 0 and its spread 1

    def __post_init__(self):
        views = {name: view if isinstance(view, View) else View(**view) for name, view in self.views.items()}
        object.__setattr__(self, "views", views)
        object.__setattr__(self, "findings", tuple(self.findings))

    def to_plain(self) -> dict[str, Any]:
        """The same as dicts, lists, texts and numbers; `ImageSpecification(**it)` gives it back."""
        views = {name: view._asdict() for name, view in self.views.items()}
        return asdict(self) | {"views": views, "findings": list(self.findings)}
