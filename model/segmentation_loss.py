"""What Model-Segmentation is to get right. Reads and writes no file. Shapes as in model/segmentation.py."""

import torch
import torch.nn.functional as functional
from torch import nn

from model.lessons import LessonBatch, Truth
from model.segmentation import Reading

SIGMA = 0.8                         # places: how sharp the membranes' targets are
FLUID_WEIGHTS = {"IRF": 1.0}        # of a fluid's part, beside each membrane's; cysts are what is hardest to read
FLUID_WEIGHT = 0.5                  # of the others


class SegmentationLoss(nn.Module):
    """Cross entropy of rows and columns; of each fluid cross entropy and Dice, the latter where there is some.

    Args:
        fluids: names of the fluids, for the parts.
    """

    def __init__(self, fluids: tuple[str, ...]):
        super().__init__()
        self.parts = ("ILM", "BM", "readable", *fluids)
        self.weights = [1.0, 1.0, 0.5, *(FLUID_WEIGHTS.get(name, FLUID_WEIGHT) for name in fluids)]

    def forward(self, reading: Reading, batch: LessonBatch) -> torch.Tensor:
        """1 + parts: the sum, then each part."""
        truth = batch.targets
        ilm, bm = _judge_rows(reading.membranes, truth.rows).unbind()
        readable = functional.binary_cross_entropy_with_logits(reading.readable, truth.readable)
        fluids = _judge_fluids(reading.fluids, truth)
        parts = torch.stack([ilm, bm, readable, *fluids.unbind()])
        weights = torch.tensor(self.weights, device=parts.device)
        return torch.cat([(parts * weights).sum()[None], parts])


def _judge_rows(membranes: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """2: cross entropy of ILM and BM, over the columns in which they are to be seen."""
    places = torch.arange(membranes.shape[2], device=rows.device).view(1, 1, -1, 1)
    is_known = rows.isfinite()
    middle = ((rows.nan_to_num() - 0.5) / 2).clamp(0, membranes.shape[2] - 1)       # out of the picture: its edge
    target = (-0.5 * ((places - middle[:, :, None]) / SIGMA) ** 2).exp()
    target = target / target.sum(dim=2, keepdim=True)
    entropy = -(target * membranes).sum(dim=2) * is_known                           # B x 2 x w
    return entropy.sum(dim=(0, 2)) / is_known.sum(dim=(0, 2)).clamp(min=1)


def _judge_fluids(logits: torch.Tensor, truth: Truth) -> torch.Tensor:
    """F: cross entropy in the tissue, and 1 - Dice of each scan that has this fluid."""
    tissue = truth.tissue[:, None]
    entropy = functional.binary_cross_entropy_with_logits(logits, truth.masks, reduction="none") * tissue
    entropy = entropy.sum(dim=(0, 2, 3)) / tissue.sum().clamp(min=1)
    chances, masks = logits.sigmoid() * tissue, truth.masks * tissue
    has = masks.sum(dim=(2, 3))                                                     # B x F
    shared = (chances * masks).sum(dim=(2, 3))
    dice = (2 * shared + 1) / (chances.square().sum(dim=(2, 3)) + masks.square().sum(dim=(2, 3)) + 1)
    is_there = (has > 0).float()
    missed = ((1 - dice) * is_there).sum(dim=0) / is_there.sum(dim=0).clamp(min=1)
    return 4 * entropy + missed
