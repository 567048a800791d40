"""A model as tensors in and tensors out, with names, units and all that a stranger must know to run it elsewhere.

Reads and writes nothing. B images (or eyes), V visits, C channels, H and W pixels, K findings.
"""

from typing import Any, NamedTuple

import torch
from torch import nn

from config import View
from model.module import CSVModule, ImageModule
from model.segmentation import SegmentationModule
from processing import columns as c
from processing.errors import PipelineError
from processing.views import describe_view

SCAN_ROWS, SCAN_COLUMNS = 496, 768      # of a B-scan of the Spectralis
EXAMPLE_IMAGES = 4      # of the batch by which a network is traced; other than 1, which would be taken for a constant


class NotPortable(PipelineError):
    """A model that no network of tensors can stand for."""


class Port(NamedTuple):
    """An input or output."""

    name: str
    axes: tuple[str | int, ...]     # a letter: of any size
    meaning: str                    # with its unit


class Portable(NamedTuple):
    """A model to be run elsewhere, or drawn."""

    module: nn.Module                   # forward(*tensors): takes the inputs and gives the outputs, in this order
    inputs: list[Port]
    outputs: list[Port]
    example: tuple[torch.Tensor, ...]   # inputs that it can be traced by
    facts: dict[str, Any]               # what else is to be known: plain values
    trunks: dict[str, nn.Module]        # by input: its layers, one after the other
    pool: nn.Module | None              # what the trunks' features go through; None: nothing that computes
    heads: dict[str, nn.Module]         # by output: the layers that lead to it


class PortableImages(nn.Module):
    """Pixels -> answers in um and probabilities: scaling, units and the Sigmoid are inside.

    forward takes B x C x H x W uint8 of each view, then V x B bool where visits are pooled, and gives B or V
    thicknesses, B x K findings of the images and, where visits are pooled, V x K of the visits.
    """

    def __init__(self, network: ImageModule):
        super().__init__()
        self.network = network

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        views = self.network.specification.views
        inputs = {name: pixels.float() / 255 for name, pixels in zip(views, tensors, strict=False)}
        if not self.network.pool.takes_visits:
            return self.network.answer(inputs)[:2]
        return self.network.answer(inputs, tensors[-1])


class PortableEyes(nn.Module):
    """B x F float32 features -> B VA and B probabilities of continue injection."""

    def __init__(self, network: CSVModule):
        super().__init__()
        self.network = network

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self.network.answer(*tensors)


class PortableScans(nn.Module):
    """B x 1 x H x W uint8 B-scans -> where the membranes are, which columns can be read, fluid; at half the size."""

    def __init__(self, network: SegmentationModule):
        super().__init__()
        self.network = network

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        reading = self.network(tensors[0].float() / 255)
        return reading.membranes, reading.readable.sigmoid(), reading.fluids.sigmoid()


def build_portable_images(network: ImageModule) -> Portable:
    """An image model to be run elsewhere; `network` is on the CPU."""
    what, takes_visits = network.specification, network.pool.takes_visits
    known = ", ".join(what.findings)
    when = {c.PRE_CST: "before treatment", c.CST: "after treatment"}[what.target]
    one = "V" if takes_visits else "B"
    inputs = [Port(name, ("B", view.channels, view.height, view.width), _describe_pixels(view))
              for name, view in what.views.items()]
    outputs = [Port("CST_um", (one,), f"central subfield thickness in um, 0 or more; learned as {what.target}, {when}"),
               Port("findings", ("B", len(what.findings)), f"probabilities (0 to 1) of each image: {known}")]
    example = [torch.zeros((EXAMPLE_IMAGES, view.channels, view.height, view.width), dtype=torch.uint8)
               for view in what.views.values()]
    if takes_visits:
        meaning = "which images are of which visit: row v is true at the images of visit v, one or more"
        inputs.append(Port("visits", ("V", "B"), meaning))
        outputs.append(Port("visit_findings", ("V", len(what.findings)),
                            f"probabilities (0 to 1) of each visit, for labels that name no image: {known}"))
        example.append(torch.arange(EXAMPLE_IMAGES)[None] % 2 == torch.arange(2)[:, None])
    facts = {
        "views": {name: view._asdict() for name, view in what.views.items()}, "findings": list(what.findings),
        "pixels": "uint8, 0 to 255, red first, of the crop as the program keeps it (JPEG); division by 255 and "
                  "normalise are part of the network",
        "normalise": what.normalise,
        "units": {"CST_um": "um", **{port.name: "probability" for port in outputs[1:]}},
    }
    trunks = dict(zip(what.views, [network.layers, *network.others.values()], strict=True))
    return Portable(PortableImages(network), inputs, outputs, tuple(example), facts, trunks,
                    network.pool if takes_visits else None,
                    {"CST_um": network.regression, "findings": network.classify})


def _describe_pixels(view: View) -> str:
    colour = "grey" if view.channels == 1 else "colours, red first"
    return f"pixels 0 to 255 ({colour}): rows and columns {describe_view(view)} of the device's screen"


def build_portable_eyes(network: CSVModule, means: dict[str, dict[str, float]]) -> Portable:
    """Model-CSV to be run elsewhere; `means` of its training eyes, by round, stand in for what is not known."""
    names = network.features
    inputs = [Port("features", ("B", len(names)), f"of each eye, in this order: {', '.join(names)}; no NaN")]
    outputs = [Port("VA", ("B",), "visual acuity after treatment, 0 or more: logMAR (preliminary round) or decimal "
                                  "(final round), as preVA was given"),
               Port("continue_injection", ("B",), "probability (0 to 1) that injections go on")]
    facts = {
        "features": list(names), "means": means,
        "units": {"age": "years", "preVA, VA": "logMAR (preliminary round) or decimal (final round)",
                  "preCST, CST": "um", "findings": "0 to 1", "continue_injection": "probability"},
        "codes": {c.GENDER: {1: "male", 2: "female"}, c.SIDE: {0: "left eye", 1: "right eye"},
                  c.DIAGNOSIS: c.DIAGNOSIS_NAMES, c.DRUG: c.DRUG_NAMES},
    }
    example = (torch.zeros(EXAMPLE_IMAGES, len(names)),)
    return Portable(PortableEyes(network), inputs, outputs, example, facts, {"features": network.layers}, None,
                    {"VA": network.regression, "continue_injection": network.classify})


def build_portable_scans(network: SegmentationModule) -> Portable:
    """Model-Segmentation to be run elsewhere; `network` is on the CPU."""
    size, fluids = (SCAN_ROWS // 2, SCAN_COLUMNS // 2), network.fluids
    inputs = [Port("bscan", ("B", 1, SCAN_ROWS, SCAN_COLUMNS), "grey values 0 to 255 of the whole B-scan; place i of "
                   "an answer is the middle of its pixels 2 i and 2 i + 1")]
    outputs = [
        Port("membranes", ("B", 2, *size), "log-probability of each row, in each column, that the inner limiting "
             "membrane, and that Bruch's membrane, lies there"),
        Port("readable", ("B", size[1]), "probability (0 to 1) that both can be seen in a column"),
        Port("fluids", ("B", len(fluids), *size), f"probabilities (0 to 1): {', '.join(fluids)}; they count between "
             "the membranes only"),
    ]
    facts = {
        "fluids": list(fluids), "scale": "um of a pixel: 3.87 down and 11.5 across, and others like it",
        "units": {"membranes": "log-probability", "readable": "probability", "fluids": "probability"},
    }
    example = (torch.zeros((EXAMPLE_IMAGES, 1, SCAN_ROWS, SCAN_COLUMNS), dtype=torch.uint8),)
    return Portable(PortableScans(network), inputs, outputs, example, facts,
                    {"bscan": nn.Sequential(network.stem, *network.downs, *reversed(network.ups))}, None,
                    {"membranes": network.membranes, "fluids": network.marks})
