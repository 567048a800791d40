"""The losses. Each gives the total and, for the record, its parts; all are means over the batch."""

from torch import nn
from torch.nn import functional

FINDINGS_WEIGHT = 2.0       # the 2021 system's weight of the findings against CST
UM_PER_UNIT = 100.0         # ImageModule's CST is in hundreds of um


class ImageLoss(nn.Module):
    """MSE of CST in hundreds of um + 2 x binary cross entropy of the findings' logits.

    Under the seed recipe the findings went through a Sigmoid already and are taken for logits all the same.
    """

    parts = ("CST", "findings")

    def forward(self, outputs, targets):
        """Outputs of ImageModule; targets: (B CST in um, B x 4 findings 0 / 1). Returns (total, parts)."""
        cst, findings = outputs
        true_cst, true_findings = targets
        regression = functional.mse_loss(cst, true_cst / UM_PER_UNIT)
        classification = functional.binary_cross_entropy_with_logits(findings, true_findings)
        return regression + FINDINGS_WEIGHT * classification, (regression, classification)


class CSVLoss(nn.Module):
    """MSE of VA + cross entropy of continue injection over two classes.

    Under the seed recipe the scores went through a Sigmoid already and are taken for logits all the same.
    """

    parts = ("VA", "continue injection")

    def forward(self, outputs, targets):
        """Outputs of CSVModule; targets: (B VA, B classes as int64). Returns (total, parts)."""
        va, scores = outputs
        true_va, true_class = targets
        regression = functional.mse_loss(va, true_va)
        classification = functional.cross_entropy(scores, true_class)
        return regression + classification, (regression, classification)
