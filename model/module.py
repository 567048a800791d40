"""The networks.

Shapes: B images, V visits (V = B where each image stands alone), C channels, H and W pixels, F features, K findings.
State names and layer order are those of the 2021 system, so that its published checkpoints load.
"""

import copy
from typing import TypeVar

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from model.backbones import find_backbone
from model.pooling import find_pool
from model.specification import PUBLISHED_FEATURES, ImageSpecification

UM_PER_UNIT = 100.0         # ImageModule's CST is in hundreds of um

Module = TypeVar("Module", bound=nn.Module)


class ImageModule(nn.Module):
    """Views of images -> thickness and findings.

    Args:
        specification: what it is made of; the default is the 2021 system's.
    """

    def __init__(self, specification: ImageSpecification | None = None):
        super().__init__()
        self.specification = specification = specification or ImageSpecification()
        (self.layers, features), *others = (find_backbone(specification.backbone)(view)
                                            for view in specification.views.values())
        joined = features + sum(count for _, count in others)
        self.regression = nn.Sequential(nn.Flatten(), *_build_head(joined, joined // 2, joined // 4, 1))
        self.classify = nn.Sequential(
            nn.Flatten(), *_build_head(joined, joined // 2, joined // 4, len(specification.findings))
        )
        if specification.heads == "sigmoid":
            self.classify.append(nn.Sigmoid())
        names = list(specification.views)
        self.others = nn.ModuleDict({name: trunk for name, (trunk, _) in zip(names[1:], others, strict=True)})
        self.pool = find_pool(specification.pool)(joined)

    def forward(self, inputs: dict[str, torch.Tensor], visits: torch.Tensor | None = None
                ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What the losses want.

        Args:
            inputs: by view, B x C x H x W float32 in 0-1; one channel may stand for three equal ones.
            visits: V x B bool, which images are of which visit, one or more of each; None where each stands alone.

        Returns:
            V thicknesses in hundreds of um, B x K findings of the images, V x K of the visits, as the heads give them.
        """
        features = self.extract_features(inputs)                    # B x F
        pooled = self.pool(features, visits)                        # V x F
        findings = self.classify(features)
        visit_findings = findings if pooled is features else self.classify(pooled)
        return self.regression(pooled)[:, 0], findings, visit_findings

    def extract_features(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """B x F features of the views, side by side."""
        trunks = zip(self.specification.views, [self.layers, *self.others.values()], strict=True)
        return torch.cat([trunk(self.normalise(inputs[name])).flatten(1) for name, trunk in trunks], dim=1)

    def answer(self, inputs: dict[str, torch.Tensor], visits: torch.Tensor | None = None
               ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What a person wants; arguments as for forward.

        Returns:
            V thicknesses in um, 0 or more; B x K findings of the images and V x K of the visits as probabilities.
        """
        cst, findings, visit_findings = self(inputs, visits)
        is_probability = self.specification.heads == "sigmoid"
        findings, visit_findings = (found.float() if is_probability else torch.sigmoid(found.float())
                                    for found in (findings, visit_findings))
        return (cst.float() * UM_PER_UNIT).clamp(min=0), findings, visit_findings

    def normalise(self, images: torch.Tensor) -> torch.Tensor:
        """Images as the trunks get them: as they are, or each with mean 0 and spread 1."""
        if self.specification.normalise == "none":
            return images
        centred = images - _find_mean(images)
        return centred / (_find_mean(centred.square()).sqrt() + 1e-3)      # 1e-3: a black image


class CSVModule(nn.Module):
    """16 features of an eye -> VA and continue injection.

    Args:
        heads: "sigmoid" (2021): the scores end in a Sigmoid; "logits": they do not.
        features: names of the features, in their order; the default is the 2021 system's.
    """

    def __init__(self, heads: str = "sigmoid", features: tuple[str, ...] = PUBLISHED_FEATURES):
        super().__init__()
        self.heads, self.features = heads, tuple(features)
        self.layers = nn.Sequential(*_build_head(len(self.features), 32, 64, 128, 32, 8), nn.ReLU())
        self.regression = nn.Sequential(*_build_head(8, 4, 1))
        self.classify = nn.Sequential(*_build_head(8, 4, 2))
        if heads == "sigmoid":
            self.classify.append(nn.Sigmoid())

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """B x 16 float32 -> (B VA, B x 2 scores of stop and continue)."""
        features = self.layers(x)                   # B x 8
        return self.regression(features)[:, 0], self.classify(features)

    def answer(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """B x 16 float32 -> B VA, 0 or more, and B probabilities of continue injection.

        The probability is the softmax that CSVLoss trains.
        """
        va, scores = self(x)
        return va.clamp(min=0), torch.softmax(scores, dim=1)[:, 1]


def _find_mean(images: torch.Tensor) -> torch.Tensor:
    """Each image's mean, B x 1 x 1 x 1: of its rows' means, as onnxruntime loses digits in sums of 100,000 pixels."""
    return images.mean(dim=3, keepdim=True).mean(dim=(1, 2), keepdim=True)


def fold_batch_norm(module: Module) -> Module:
    """A copy for prediction: each batch norm becomes part of the convolution before it."""
    folded = copy.deepcopy(module).eval()
    for part in [part for part in folded.modules() if isinstance(part, nn.Sequential)]:
        for number in range(1, len(part)):
            before, norm = part[number - 1], part[number]
            if isinstance(before, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                part[number - 1] = fuse_conv_bn_eval(before, norm)
                part[number] = nn.Identity()
    return folded


def _build_head(*widths: int) -> list[nn.Module]:
    """Linear layers of these widths with ReLU between them."""
    layers: list[nn.Module] = []
    for before, after in zip(widths, widths[1:], strict=False):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return layers[:-1]
