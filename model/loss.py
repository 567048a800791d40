"""The losses. Each gives one tensor, the total first and then its parts; all are means over the batch.

B images, V visits (V = B where each image stands alone), K findings.
"""

from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional

from model.module import UM_PER_UNIT

FINDINGS_WEIGHT = 2.0       # the 2021 system's weight of the findings against CST
LABEL_SPREAD = 0.045        # standard deviation of a thickness label, as a share of it


class ImageTargets(NamedTuple):
    """What is true of a batch of images."""

    cst_um: torch.Tensor                # V; of the recipe pretrained NaN where none is given, as the following
    findings: torch.Tensor              # B x K, 0 / 1
    visit_findings: torch.Tensor        # V x K, 0 / 1
    has_image_labels: torch.Tensor      # V bool: whether findings are labelled for each image, not for the eye


class ImageLoss(nn.Module):
    """MSE of CST in hundreds of um + 2 x binary cross entropy of the findings' logits, image by image.

    Under the seed recipe the findings went through a Sigmoid already and are taken for logits all the same.
    """

    parts = ("CST", "findings")

    def forward(self, outputs: tuple[torch.Tensor, ...], batch: Any) -> torch.Tensor:
        """The losses of ImageModule's outputs for a model.dataset.Batch: tensor of 1 + 2."""
        cst, findings, _ = outputs
        regression = functional.mse_loss(cst.float(), batch.targets.cst_um / UM_PER_UNIT)
        classification = functional.binary_cross_entropy_with_logits(findings.float(), batch.targets.findings)
        return torch.stack([regression + FINDINGS_WEIGHT * classification, regression, classification])


class VisitLoss(ImageLoss):
    """The same with one CST for a visit, and its findings where the labels are: of each image, or of the eye."""

    def forward(self, outputs: tuple[torch.Tensor, ...], batch: Any) -> torch.Tensor:
        """The losses of ImageModule's outputs for a model.dataset.Batch: tensor of 1 + 2."""
        cst, findings, visit_findings = (output.float() for output in outputs)
        regression = functional.mse_loss(cst, batch.targets.cst_um / UM_PER_UNIT)
        classification = self.judge_findings(findings, visit_findings, batch)
        return torch.stack([regression + FINDINGS_WEIGHT * classification, regression, classification])

    def judge_findings(self, findings: torch.Tensor, visit_findings: torch.Tensor, batch: Any) -> torch.Tensor:
        """Mean cross entropy over the visits: of a visit's images where these are labelled, else of the visit. A label
        that is not given costs nothing.
        """
        targets = batch.targets
        of_images = _find_entropy(findings, targets.findings)                   # B
        of_visits = _find_entropy(visit_findings, targets.visit_findings)       # V
        if batch.visits is None:        # each image stands alone
            return of_images.mean()
        member = batch.visits.float()
        mean_of_images = member @ of_images / member.sum(dim=1)                                     # V
        return torch.where(targets.has_image_labels, mean_of_images, of_visits).mean()


def _find_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean cross entropy of each row (N x K -> N); 0 of a label that is NaN."""
    entropy = functional.binary_cross_entropy_with_logits(logits, labels.nan_to_num(), reduction="none")
    return (entropy * labels.isfinite()).mean(dim=1)


class DistributionLoss(VisitLoss):
    """How far the distribution of thickness is from the label's, and the findings as VisitLoss has them.

    The label's distribution is a normal one of log thickness, as wide as labels are uncertain (LABEL_SPREAD); the
    distance is Kullback's and Leibler's (1951), 0 at best. Thickness beyond the bins counts as the outermost; one that
    is not given costs nothing.

    Args:
        bins_um: N middles of the bins, evenly spaced in their logarithm.
    """

    def __init__(self, bins_um: torch.Tensor):
        super().__init__()
        self._logs = bins_um.log()

    def forward(self, outputs: tuple[torch.Tensor, ...], batch: Any) -> torch.Tensor:
        """The losses of VisitModule's outputs for a model.dataset.Batch: tensor of 1 + 2."""
        thickness, findings, visit_findings = (output.float() for output in outputs)
        logs = self._logs.to(thickness.device)
        cst_um = batch.targets.cst_um
        label = cst_um.nan_to_num().clamp(logs[0].exp(), logs[-1].exp()).log()[:, None]
        target = torch.softmax(-0.5 * ((logs - label) / LABEL_SPREAD) ** 2, dim=1)              # V x N
        distances = functional.kl_div(thickness.log_softmax(dim=1), target, reduction="none").sum(dim=1)
        distance = (distances * cst_um.isfinite()).mean()
        classification = self.judge_findings(findings, visit_findings, batch)
        return torch.stack([distance + FINDINGS_WEIGHT * classification, distance, classification])


class CSVLoss(nn.Module):
    """MSE of VA + cross entropy of continue injection over two classes.

    Under the seed recipe the scores went through a Sigmoid already and are taken for logits all the same.
    """

    parts = ("VA", "continue injection")

    def forward(self, outputs: tuple[torch.Tensor, ...], targets: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """The losses of CSVModule's outputs, given B VA and B classes as int64: tensor of 1 + 2."""
        va, scores = outputs
        true_va, true_class = targets
        regression = functional.mse_loss(va, true_va)
        classification = functional.cross_entropy(scores, true_class)
        return torch.stack([regression + classification, regression, classification])
