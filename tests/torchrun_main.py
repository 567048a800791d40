"""The program under torchrun on a CPU, with batch norm shared over the processes as torch does it on cards only.

Its boxes are small, for short epochs.

    python -m torch.distributed.run --standalone --nproc_per_node=2 tests/torchrun_main.py train_image ...
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch import distributed, nn

import main
from config import VIEWS
from model import distributed as ours
from tests.helpers import SMALL_BOXES


class SharedBatchNorm2d(nn.BatchNorm2d):
    """What nn.SyncBatchNorm does, on a CPU, where torch has none.

    Args:
        num_features: channels.
        group: of the processes.
    """

    def __init__(self, num_features, group):
        super().__init__(num_features)
        self._group = group

    def forward(self, x):
        if not self.training:
            return super().forward(x)
        values = x.float()                                                      # B x C x H x W
        count = values.new_tensor([values.numel() / values.shape[1]])
        sums = _Sum.apply(torch.cat([values.sum((0, 2, 3)), count]), self._group)       # C + 1
        mean, count = sums[:-1] / sums[-1], sums[-1].detach()
        centred = values - mean[:, None, None]
        variance = _Sum.apply(centred.square().sum((0, 2, 3)), self._group) / count      # C
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)


class _Sum(torch.autograd.Function):
    """The sum over all processes, of values and backwards of gradients."""

    @staticmethod
    def forward(context, values, group):
        context.group = group
        values = values.clone()
        distributed.all_reduce(values, group=group)
        return values

    @staticmethod
    def backward(context, gradient):
        return _Sum.apply(gradient.contiguous(), context.group), None


def share_batch_norm(module, group):
    """In the place of model.distributed.share_batch_norm; the parameters stay the same tensors."""
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.BatchNorm2d:
                shared = SharedBatchNorm2d(child.num_features, group)
                shared.weight, shared.bias = child.weight, child.bias
                shared.load_state_dict(child.state_dict())
                setattr(parent, name, shared)


if __name__ == "__main__":
    VIEWS.update(SMALL_BOXES)
    ours.share_batch_norm = share_batch_norm
    sys.exit(main.main())
