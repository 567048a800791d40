"""How the images of a visit become one answer, by name. Reads and writes nothing.

A new way: a class as these, and its line in model_config.POOLS.

B images, V visits, F features.
"""

import torch
from torch import nn

from model_config import POOLS


class ImagePool(nn.Module):
    """Each image alone, as in 2021: the identity. It has no weights, and features are F of each image."""

    takes_visits = False        # whether the images of a visit are answered together

    def __init__(self, features: int):
        super().__init__()

    def forward(self, features: torch.Tensor, visits: torch.Tensor | None) -> torch.Tensor:
        return features


class GatedAttention(nn.Module):
    """A weighted mean over a visit's images; what an image shows decides its weight.

    The gated attention of Ilse, Tomczak and Welling 2018 (https://arxiv.org/abs/1802.04712), equation 9: the weights
    are a softmax, over the visit's images, of w' (tanh(V h) * sigmoid(U h)).
    """

    takes_visits = True
    WIDTH = 64

    def __init__(self, features: int):
        super().__init__()
        self.content = nn.Linear(features, self.WIDTH)
        self.gate = nn.Linear(features, self.WIDTH)
        self.weight = nn.Linear(self.WIDTH, 1, bias=False)

    def forward(self, features: torch.Tensor, visits: torch.Tensor) -> torch.Tensor:
        hidden = torch.tanh(self.content(features)) * torch.sigmoid(self.gate(features))    # B x WIDTH
        scores = self.weight(hidden)[:, 0].float()                                          # B
        of_visit = scores[None].masked_fill(~visits, float("-inf"))                         # V x B
        return torch.softmax(of_visit, dim=1).to(features.dtype) @ features                 # V x F


def find_pool(name: str) -> type[ImagePool | GatedAttention]:
    """The class of this module that model_config.POOLS names; raises KeyError for an unknown name."""
    return globals()[POOLS[name]]
