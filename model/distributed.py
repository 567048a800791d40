"""Training in several processes or on several machines, started by torchrun: each computes its share of every batch.

torch's DistributedDataParallel averages the gradients. Batch norm takes its statistics over the whole batch, not over
a process's share of it, so that losses and weights are those of one process, whatever the number. All processes see
the same root; the first one (rank 0) writes. Without torchrun everything here does nothing.
"""

import sys
from contextlib import contextmanager
from datetime import timedelta

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from model.backward import run_forward
from processing.errors import PipelineError
from processing.parallel import PROCESSES, RANK

STEP_TIMEOUT = timedelta(seconds=50)    # within a step all processes meet again and again
PATIENCE = timedelta(hours=1)           # between trainings they wait for the first one, which may decode all crops
_LOST = ("gloo", "nccl", "connection", "timed out", "timeout", "socket", "peer")     # in words of torch's errors
_GO_ON = "A run that had begun keeps its last complete epoch: --resume goes on, with any number of processes."


@contextmanager
def joined():
    """Join the other processes for the block.

    Raises:
        PipelineError: another process ended, or cannot be reached.
    """
    if PROCESSES == 1:
        yield
        return
    try:
        distributed.init_process_group("gloo", timeout=PATIENCE)
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        if not any(word in str(error).lower() for word in _LOST):
            raise
        raise PipelineError(
            f"Another process of this training ended, or cannot be reached; this one ends too. {_GO_ON} "
            f"({str(error).splitlines()[0][:200]})"
        ) from error
    except SystemExit:          # SIGTERM: torchrun may notice sooner than this process that another one has ended
        print(f"Process {RANK + 1} of {PROCESSES}: ended from outside, as when another one ended. {_GO_ON}",
              file=sys.stderr)
        raise
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()


@contextmanager
def first_process_first():
    """Let the first process do the block, then the others: they find what it wrote."""
    if RANK > 0:
        _wait_for_all()
    yield
    if RANK == 0:
        _wait_for_all()


def from_first_process(value):
    """The first process's `value`, in all of them."""
    if PROCESSES == 1:
        return value
    values = [value]
    distributed.broadcast_object_list(values, src=0)
    return values[0]


def sum_over_processes(values):
    """The sum of all processes' `values`, a tensor on the CPU; in place."""
    if PROCESSES > 1:
        distributed.all_reduce(values)
    return values


def _wait_for_all():
    if PROCESSES > 1:
        distributed.barrier()


class SharedBackward:
    """model.backward.Autograd over all processes: each has its share of the batch's inputs, all have the same result.

    Args:
        module: ImageModule, on its device. Its batch norms become shared ones.
        precision: as for Autograd.

    Attributes: parameters: as for Autograd.
    """

    def __init__(self, module, precision):
        self._precision, device = precision, next(module.parameters()).device
        is_cuda = device.type == "cuda"
        backend = "nccl" if is_cuda and distributed.is_nccl_available() else "gloo"
        self._group = distributed.new_group(backend=backend, timeout=STEP_TIMEOUT)
        share_batch_norm(module, self._group)
        self.parameters = list(module.parameters())     # those of the shared batch norms too
        self._shared = DistributedDataParallel(
            module, device_ids=[device] if is_cuda else None, process_group=self._group
        )

    def __call__(self, module, loss_function, batch):
        """The total and its parts over the whole batch, as one detached tensor."""
        module.zero_grad()
        outputs = run_forward(self._shared, batch.inputs, self._precision)
        share = len(batch.inputs) / len(batch.rows)
        if share:
            total, parts = loss_function(outputs, batch.targets)
            losses = share * torch.stack([total, *parts])
        else:       # more processes than rows: zeros that hang together with the weights, so that all do the same
            losses = sum(output.sum() for output in outputs) * torch.zeros(
                1 + len(loss_function.parts), device=batch.inputs.device
            )
        (PROCESSES * losses[0]).backward()          # the gradients' mean over the processes is then that of the batch
        losses = losses.detach()
        distributed.all_reduce(losses, group=self._group)
        return losses


def share_batch_norm(module, group):
    """Let the module's batch norms take their statistics over the batches of all processes; state names stay."""
    if next(module.parameters()).device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(module, group)
        return
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.BatchNorm2d:
                shared = SharedBatchNorm2d(child.num_features, group)
                shared.load_state_dict(child.state_dict())
                setattr(parent, name, shared)


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
