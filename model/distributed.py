"""Training in several processes or on several machines, started by torchrun: each computes its share of every batch.

torch's DistributedDataParallel averages the gradients. On graphics cards batch norm takes its statistics over the whole
batch, not over a process's share of it, so that losses and weights are those of one process, whatever the number. All
processes see the same root; the first one (rank 0) writes. Without torchrun everything here does nothing.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from model.loss import ImageLoss
from processing.errors import PipelineError
from processing.parallel import this_process
from processing.terminal import say

STEP_TIMEOUT = timedelta(seconds=50)    # within a step all processes meet again and again
PATIENCE = timedelta(hours=1)           # between trainings they wait for the first one, which may decode all crops
_LOST = ("gloo", "nccl", "connection", "timed out", "timeout", "socket", "peer")     # in words of torch's errors
_GO_ON = "A run that had begun keeps its last complete epoch: --resume goes on, with any number of processes."


@contextmanager
def join_processes() -> Iterator[None]:
    """Join the other processes for the block.

    Raises:
        PipelineError: another process ended, or cannot be reached.
    """
    process = this_process()
    if process.count == 1:
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
        print(f"Process {process.rank + 1} of {process.count}: ended from outside, as when another one ended. {_GO_ON}",
              file=sys.stderr)
        raise
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()


@contextmanager
def first_process_first() -> Iterator[None]:
    """Let the first process do the block, then the others: they find what it wrote."""
    process = this_process()
    if process.rank > 0:
        distributed.barrier()
    yield
    if process.rank == 0 and process.count > 1:
        distributed.barrier()


def share_from_first(value: Any) -> Any:
    """The first process's `value`, in all of them."""
    if this_process().count == 1:
        return value
    values = [value]
    distributed.broadcast_object_list(values, src=0)
    return values[0]


def sum_over_processes(values: torch.Tensor) -> torch.Tensor:
    """The sum of all processes' `values`, a tensor on the CPU; in place."""
    if this_process().count > 1:
        distributed.all_reduce(values)
    return values


def average_over_processes(values: torch.Tensor) -> torch.Tensor:
    """The mean of all processes' `values`, on the CPU where there are several; itself in one process."""
    count = this_process().count
    return values if count == 1 else sum_over_processes(values.cpu()) / count


class SharedLoss(nn.Module):
    """A loss of which each process computes its share: the mean over the processes is that of the whole batch.

    Args:
        loss: of model.loss, for image models.
    """

    def __init__(self, loss: ImageLoss):
        super().__init__()
        self._loss, self.parts = loss, loss.parts

    def forward(self, outputs: tuple[torch.Tensor, ...], batch: Any) -> torch.Tensor:
        """Losses of ImageModule's outputs for this process's part of `batch`, a model.dataset.Batch: 1 + parts."""
        own = len(outputs[0])
        if own:
            return this_process().count * own / batch.visit_count * self._loss(outputs, batch)
        # More processes than visits: zeros that hang together with the weights, so that all processes do the same
        zeros = torch.zeros(1 + len(self.parts), device=outputs[0].device)
        return sum(output.float().sum() for output in outputs) * zeros


def share_network(module: nn.Module) -> nn.Module:
    """The module, ready to be trained by all processes together; itself in one process."""
    if this_process().count == 1:
        return module
    device = next(module.parameters()).device
    is_cuda = device.type == "cuda"
    backend = "nccl" if is_cuda and distributed.is_nccl_available() else "gloo"
    group = distributed.new_group(backend=backend, timeout=STEP_TIMEOUT)
    share_batch_norm(module, group)
    return DistributedDataParallel(module, device_ids=[device] if is_cuda else None, process_group=group)


def share_batch_norm(module: nn.Module, group: Any) -> None:
    """Let the module's batch norms take their statistics over the batches of all processes, where torch can."""
    if next(module.parameters()).device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(module, group)
    elif any(layer.training for layer in module.train().modules() if isinstance(layer, nn.BatchNorm2d)):
        say("On a CPU each process takes batch norm's statistics over its own share of a batch: the weights are not "
            "quite those of one process. On graphics cards they are taken over the whole batch.")
