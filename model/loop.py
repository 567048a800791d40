"""The training loop: epochs, steps, and what stops them before harm is done."""

import time
from functools import partial

import torch

from model.backward import Autograd
from model.distributed import sum_over_processes
from processing.errors import PipelineError
from processing.parallel import PROCESSES
from processing.progress import progress, say

MAX_LINES = 200         # a run of more epochs than this says only about every so many-th epoch's loss, and the last
MAX_HALVINGS = 3        # of the batch size, where the memory of a graphics card does not suffice


def fit(module, loss_function, feed, run, held_out=None, *, backward=None):
    """The epochs of a run that are left: train, measure on held-out rows, say, save.

    Args:
        module: on its device.
        loss_function: ImageLoss or CSVLoss.
        feed: ImageFeed or CaseFeed.
        run: model.run.Run; a resumed one brings optimizer and epochs done.
        held_out: function that gives the batches of rows that are not trained on, or None.
        backward: as for train_epoch.

    Raises:
        PipelineError: NaN or infinity, or too little memory; the run keeps its last good epoch.
    """
    config = run.config
    backward = backward or Autograd(module)
    optimizer = torch.optim.Adam(backward.parameters, lr=config.learning_rate, fused=True)
    run.restore(module, optimizer)
    total = config.epochs * feed.steps(run.batch_size)
    with progress(total=total, label=config.name, unit="step", leave=False) as bar:
        bar.update(run.epochs_done * feed.steps(run.batch_size))
        for epoch in range(run.epochs_done + 1, config.epochs + 1):
            started = time.monotonic()
            epoch_of = partial(_train_epoch_in_memory, module, loss_function, feed, optimizer, backward=backward)
            losses = epoch_of(epoch=epoch, run=run, bar=bar)
            _check_weights(module, epoch)
            if held_out is not None:
                losses |= measure_losses(module, loss_function, held_out())
            run.finish_epoch(epoch, module, optimizer, losses)
            if epoch % -(-config.epochs // MAX_LINES) == 0 or epoch == config.epochs:
                say(_line(config, epoch, losses, time.monotonic() - started))


def train_epoch(module, loss_function, batches, optimizer, names=list, backward=None):
    """One pass over `batches`. Nothing waits for the device before the end, but the guard on a CPU.

    Args:
        module: ImageModule or CSVModule.
        loss_function: gives (total, parts) of (outputs, targets).
        batches: iterable of Batch, on the module's device.
        optimizer: of the module's parameters.
        names: function from a batch's rows to what the user knows them by.
        backward: model.backward.Autograd or CSVBackward, whose parameters the optimizer is for; None: Autograd.

    Returns:
        dict: "loss" and "loss <part>" of each part -> mean over the rows of the epoch.

    Raises:
        PipelineError: the loss or a gradient is not finite; that step has not changed the weights.
    """
    module.train()
    backward = backward or Autograd(module)
    guard = _Guard(backward.parameters, optimizer)
    losses, rows = [], []   # of each batch; losses: total and parts
    for batch in batches:
        losses.append(backward(module, loss_function, batch))
        rows.append(batch.rows)
        guard.judge(losses[-1][0])
        if guard.is_near and guard.found():
            break
        optimizer.step()
    if guard.found():
        raise guard.complaint(losses, rows, names)
    return _means("loss", loss_function.parts, _sums(loss_function.parts, losses, [_count(part) for part in rows]))


class _Guard:
    """Refuses steps whose loss or gradient is not finite, without waiting for the device.

    From the first such step on, the optimizer takes none: a fused Adam leaves out a step where found_inf is 1.

    Attributes: is_near: the device is a CPU, asking costs nothing.
    """

    def __init__(self, parameters, optimizer):
        self._parameters, device = parameters, parameters[0].device
        self.is_near = device.type == "cpu"
        self._bad, self._good_steps = torch.zeros((), device=device), torch.zeros((), device=device)
        optimizer.grad_scale, optimizer.found_inf = None, self._bad

    def judge(self, loss):
        """Look at the loss, and at the gradients that the parameters hold."""
        gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        finite = torch.isfinite(loss + torch.nn.utils.get_total_norm(gradients))
        torch.maximum(self._bad, (~finite).float(), out=self._bad)
        self._good_steps += 1 - self._bad

    def found(self):
        """Whether a step was refused; waits for the device."""
        return bool(self._bad)

    def complaint(self, losses, rows, names):
        """The PipelineError that names the first refused step; arguments of all steps, as in train_epoch."""
        first = int(self._good_steps)
        what = "a gradient" if torch.isfinite(losses[first][0]) else "the loss"
        named = names(rows[first])
        shown = ", ".join(map(str, named[:5])) + (f" and {len(named) - 5} more" if len(named) > 5 else "")
        return PipelineError(
            f"{what} is not finite in batch {first + 1} ({shown}). The step was not taken; the run keeps its last "
            "complete epoch. A smaller learning rate helps most often (--learning-rate)."
        )


def _count(rows):
    return rows.stop - rows.start if isinstance(rows, slice) else len(rows)


def measure_losses(module, loss_function, batches):
    """The losses over `batches`, which change nothing: dict of "held-out loss" and its parts, as train_epoch gives.

    Of several processes each has some of the batches; all get the losses over all of them.
    """
    module.eval()
    losses, counts = [], []
    with torch.inference_mode():
        for batch in batches:
            total, parts = loss_function(module(batch.inputs), batch.targets)
            losses.append(torch.stack([total, *parts]))
            counts.append(len(batch.inputs))
    return _means("held-out loss", loss_function.parts, sum_over_processes(_sums(loss_function.parts, losses, counts)))


def _sums(parts, losses, counts):
    """Sums over rows of the total, each part, and 1; of each batch, maybe of none: losses and how many rows."""
    if not losses:
        return torch.zeros(2 + len(parts), dtype=torch.float64)
    counts = torch.tensor(counts, dtype=torch.float64)
    return torch.cat([counts @ torch.stack(losses).cpu().double(), counts.sum()[None]])


def _means(name, parts, sums):
    """Means over rows, of what _sums gives."""
    means = (sums[:-1] / sums[-1]).tolist()
    return dict(zip([name, *(f"{name} {part}" for part in parts)], means, strict=True))


def _train_epoch_in_memory(module, loss_function, feed, optimizer, *, backward, epoch, run, bar):
    """train_epoch, begun anew with half the batch where the graphics card's memory does not suffice."""
    while True:
        try:
            batches = _counted(feed.epoch(epoch, run.batch_size), bar)
            return train_epoch(module, loss_function, batches, optimizer, feed.names, backward)
        except torch.OutOfMemoryError as error:
            if run.halvings == MAX_HALVINGS or run.batch_size == 1 or PROCESSES > 1:     # these wait for one another
                raise PipelineError(
                    f"{run.name}: the graphics card has too little memory even for batches of {run.batch_size}. "
                    "Close other programs that use it, choose smaller ones (--batch-size), or train on another device "
                    "(--device cpu)."
                ) from error
            run.halve_batch()
            say(f"{run.name}: too little memory on the graphics card; going on with batches of {run.batch_size}.")
        except PipelineError as error:
            raise PipelineError(f"{run.name}, epoch {epoch}: {error}") from error
        run.rewind(module, optimizer)
        torch.cuda.empty_cache()


def _check_weights(module, epoch):
    wrong = [name for name, value in module.state_dict().items() if not torch.isfinite(value).all()]
    if wrong:
        raise PipelineError(
            f"The weights are not finite after epoch {epoch} ({wrong[0]}); the run keeps the epoch before. "
            "A smaller learning rate helps most often (--learning-rate)."
        )


def _counted(batches, bar):
    for batch in batches:
        yield batch
        bar.update()


def _line(config, epoch, losses, seconds):
    parts = ", ".join(f"{name[5:]} {value:.4f}" for name, value in losses.items() if name.startswith("loss "))
    unseen = f", held-out {losses['held-out loss']:.4f}" if "held-out loss" in losses else ""
    return f"{config.name} epoch {epoch}/{config.epochs}: loss {losses['loss']:.4f} ({parts}){unseen}, {seconds:.2g} s"
