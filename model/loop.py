"""The training loop: epochs, steps, and what stops them before harm is done."""

import time

import torch

from processing.errors import PipelineError
from processing.progress import progress, say

MAX_LINES = 200         # a run of more epochs than this says only about every so many-th epoch's loss, and the last
MAX_HALVINGS = 3        # of the batch size, where the memory of a graphics card does not suffice


def fit(module, loss_function, feed, run, held_out=None):
    """The epochs of a run that are left: train, measure on held-out rows, say, save.

    Args:
        module: on its device.
        loss_function: ImageLoss or CSVLoss.
        feed: ImageFeed or CaseFeed.
        run: model.run.Run; a resumed one brings optimizer and epochs done.
        held_out: function that gives the batches of rows that are not trained on, or None.

    Raises:
        PipelineError: NaN or infinity, or too little memory; the run keeps its last good epoch.
    """
    config = run.config
    optimizer = torch.optim.Adam(module.parameters(), lr=config.learning_rate)
    run.restore(module, optimizer)
    total = config.epochs * feed.steps(run.batch_size)
    with progress(total=total, label=config.name, unit="step", leave=False) as bar:
        bar.update(run.epochs_done * feed.steps(run.batch_size))
        for epoch in range(run.epochs_done + 1, config.epochs + 1):
            started = time.monotonic()
            losses = _train_epoch_in_memory(module, loss_function, feed, optimizer, epoch=epoch, run=run, bar=bar)
            _check_weights(module, epoch)
            if held_out is not None:
                losses |= measure_losses(module, loss_function, held_out())
            run.finish_epoch(epoch, module, optimizer, losses)
            if epoch % -(-config.epochs // MAX_LINES) == 0 or epoch == config.epochs:
                say(_line(config, epoch, losses, time.monotonic() - started))


def train_epoch(module, loss_function, batches, optimizer, names=list):
    """One pass over `batches`.

    Args:
        module: ImageModule or CSVModule.
        loss_function: gives (total, parts) of (outputs, targets).
        batches: iterable of Batch, on the module's device.
        optimizer: of the module's parameters.
        names: function from a batch's rows to what the user knows them by.

    Returns:
        dict: "loss" and "loss <part>" of each part -> mean over the rows of the epoch.

    Raises:
        PipelineError: the loss or a gradient is not finite; that step has not changed the weights.
    """
    module.train()
    sums, count = [], 0     # of each batch: total and parts, times its rows
    for number, batch in enumerate(batches, start=1):
        total, parts = loss_function(module(batch.inputs), batch.targets)
        optimizer.zero_grad()
        total.backward()
        _check_step(module, total, number, names=lambda batch=batch: names(batch.rows))
        optimizer.step()
        sums.append(torch.stack([total, *parts]).detach() * len(batch.inputs))
        count += len(batch.inputs)
    return _means("loss", loss_function.parts, sums, count)


def measure_losses(module, loss_function, batches):
    """The losses over `batches`, which change nothing: dict of "held-out loss" and its parts, as train_epoch gives."""
    module.eval()
    sums, count = [], 0
    with torch.inference_mode():
        for batch in batches:
            total, parts = loss_function(module(batch.inputs), batch.targets)
            sums.append(torch.stack([total, *parts]) * len(batch.inputs))
            count += len(batch.inputs)
    return _means("held-out loss", loss_function.parts, sums, count)


def _means(name, parts, sums, count):
    means = torch.stack(sums).cpu().double().sum(0) / count
    return dict(zip([name, *(f"{name} {part}" for part in parts)], means.tolist(), strict=True))


def _train_epoch_in_memory(module, loss_function, feed, optimizer, *, epoch, run, bar):
    """train_epoch, begun anew with half the batch where the graphics card's memory does not suffice."""
    while True:
        try:
            batches = _counted(feed.epoch(epoch, run.batch_size), bar)
            return train_epoch(module, loss_function, batches, optimizer, feed.names)
        except torch.OutOfMemoryError as error:
            if run.halvings == MAX_HALVINGS or run.batch_size == 1:
                raise PipelineError(
                    f"{run.name}: the graphics card has too little memory even for batches of {run.batch_size}. "
                    "Close other programs that use it, or train on another device (--device cpu)."
                ) from error
            run.halve_batch()
            say(f"{run.name}: too little memory on the graphics card; going on with batches of {run.batch_size}.")
        except PipelineError as error:
            raise PipelineError(f"{run.name}, epoch {epoch}: {error}") from error
        run.rewind(module, optimizer)
        torch.cuda.empty_cache()


def _check_step(module, loss, number, names):
    """Refuse a step whose loss or gradient is not finite."""
    gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    if not torch.isfinite(loss + norm):
        what = "the loss" if not torch.isfinite(loss) else "a gradient"
        rows = names()
        shown = ", ".join(map(str, rows[:5])) + (f" and {len(rows) - 5} more" if len(rows) > 5 else "")
        raise PipelineError(
            f"{what} is not finite in batch {number} ({shown}). The step was not taken; the run keeps its last "
            "complete epoch. A smaller learning rate helps most often (--learning-rate)."
        )


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
