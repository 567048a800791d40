"""The training loop of networks, and what its epochs say. Whatever is for graphics cards only stands beside it."""

import math
from collections.abc import Iterable
from typing import Any

import torch

from model.augment import VARY
from model.dataset import Batch
from model.distributed import average_over_processes, sum_over_processes
from model.guard import Guard
from processing.errors import PipelineError
from processing.parallel import this_process
from processing.terminal import say

MAX_LINES = 200         # a run of more epochs than this says only about every so many-th epoch's loss, and the last
MAX_HALVINGS = 3        # of the batch size, where the memory does not suffice
PLACES = {              # of memory, and where else one may train
    "cpu": ("this computer", ""), "cuda": ("the graphics card", ", or train on another device (--device cpu)"),
}
LEAST_RATE = 0.01       # of the learning rate, that the cosine schedule ends at
WARM_SHARE, WARM_RATE = 0.05, 0.2       # of the epochs, with a smaller rate; the first one at least


def train_epoch(model: Any, batches: Iterable[Batch], optimizer: torch.optim.Optimizer, *, guard: Guard, bar: Any
                ) -> dict[str, float]:
    """One pass over `batches`, a step each. Nothing waits for the device before the end, but the guard on a CPU.

    Args:
        model: model.network.EpochNetwork, ready to train.
        batches: of Batch, or the like, on the model's device.
        optimizer: of the model's parameters.
        guard: of the same parameters.
        bar: to be updated by visits.

    Returns:
        dict: "loss" and "loss <part>" of each part -> mean over the visits of the epoch.

    Raises:
        PipelineError: the loss or a gradient is not finite; that step has not changed the weights.
    """
    model.network.train()
    guard.begin()
    sums, rows = LossSums(model.loss_function.parts, model.device), []
    for batch in batches:
        optimizer.zero_grad()
        with torch.autocast(model.device.type, torch.bfloat16, enabled=model.is_bf16):
            outputs = model.network(*batch.arguments)
        losses = model.loss_function(outputs, batch)                # 1 + parts, the total first
        losses[0].backward()
        losses = average_over_processes(losses.detach())
        rows.append(batch.rows)
        if not guard.allows(losses[0]):
            break
        optimizer.step()
        model.finish_step()
        sums.add(losses, batch.visit_count)
        bar.update(batch.visit_count)
    guard.check(rows, model.name_row)
    return sums.means("loss")


def measure_losses(model: Any, batches: Iterable[Batch]) -> dict[str, float]:
    """The losses over `batches`, which change nothing: dict of "held-out loss" and its parts, as train_epoch gives.

    Of several processes each has some of the batches; all get the losses over all of them.
    """
    model.module.eval()
    sums = LossSums(model.plain_loss.parts, model.device)
    with torch.inference_mode():
        for batch in batches:
            sums.add(model.plain_loss(model.module(*batch.arguments), batch), batch.visit_count)
    sums.gather()
    return sums.means("held-out loss")


class LossSums:
    """Losses added up over an epoch, to be divided once. They stay in one small tensor on the device.

    Args:
        parts: names of the loss's parts.
        device: torch.device.
    """

    def __init__(self, parts: tuple[str, ...], device: torch.device):
        self._parts, self._count = parts, 0
        kind = torch.float32 if device.type == "mps" else torch.float64     # mps has no float64
        self._sums = torch.zeros(1 + len(parts), dtype=kind, device=device)

    def add(self, losses: torch.Tensor, count: int) -> None:
        """Add the means over `count` rows: tensor of 1 + parts, the total first."""
        self._sums.add_(losses.to(self._sums), alpha=count)      # of several processes, they come from the CPU
        self._count += count

    def gather(self) -> None:
        """Add up what all processes have."""
        both = torch.cat([self._sums.cpu(), torch.tensor([self._count], dtype=self._sums.dtype)])
        both = sum_over_processes(both)
        self._sums, self._count = both[:-1], int(both[-1])

    def means(self, name: str) -> dict[str, float]:
        """Means over all rows: dict of `name` and "`name` <part>"; waits for the device."""
        names = [name, *(f"{name} {part}" for part in self._parts)]
        means = self._sums.tolist()
        return {key: value / self._count if self._count else math.nan for key, value in zip(names, means, strict=True)}


def augment_batches(batches: Iterable[Batch], config: Any, epoch: int) -> Iterable[Batch]:
    """The batches as the config's `augment` wants them."""
    if config.augment not in VARY:
        return batches
    vary = VARY[config.augment]
    return (batch._replace(inputs=vary(batch.inputs, batch.own_rows, seed=config.seed, epoch=epoch))
            for batch in batches)


def set_learning_rate(optimizer: torch.optim.Optimizer, config: Any, epoch: int) -> None:
    """Give the optimizer the rate of an epoch; it depends on nothing else, so that a resumed run goes on alike."""
    rate, done = config.learning_rate, (epoch - 1) / max(1, config.epochs - 1)
    if config.schedule in ("cosine", "warm"):
        rate *= LEAST_RATE + (1 - LEAST_RATE) * (1 + math.cos(math.pi * done)) / 2
    if config.schedule == "warm" and done < WARM_SHARE and config.epochs > 1:
        rate *= WARM_RATE
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("scale", 1.0)


def halve_batch(run: Any, count: int, device: torch.device, error: BaseException) -> None:
    """Go on with half the batch where the memory of the card, or of the computer, does not suffice.

    Args:
        run: model.run.Run.
        count: of the images in all; a larger batch than that is one of them all.
        device: that has too little memory.
        error: what it said.

    Raises:
        PipelineError: it was halved often enough, or several processes wait for one another.
    """
    run.batch_size = min(run.batch_size, count)
    place, other = PLACES.get(device.type, PLACES["cuda"])
    if run.halvings == MAX_HALVINGS or run.batch_size == 1 or this_process().count > 1:
        raise PipelineError(f"{run.name}: {place} has too little memory even for batches of {run.batch_size}. Close "
                            f"other programs, or choose smaller batches (--batch-size){other}.") from error
    run.halve_batch()
    say(f"{run.name}: {place} has too little memory; going on with batches of {run.batch_size}.")


def say_epoch(config: Any, epoch: int, losses: dict[str, float], seconds: float) -> None:
    """One line of an epoch's losses; of a run of many epochs only now and then."""
    if epoch % -(-config.epochs // MAX_LINES) and epoch != config.epochs:
        return
    parts = ", ".join(f"{name[5:]} {value:.4f}" for name, value in losses.items() if name.startswith("loss "))
    unseen = f", held-out {losses['held-out loss']:.4f}" if "held-out loss" in losses else ""
    say(f"{config.name} epoch {epoch}/{config.epochs}: loss {losses['loss']:.4f} ({parts}){unseen}, {seconds:.2g} s")
