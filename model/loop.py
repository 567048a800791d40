"""The training loop: epochs, steps, and what stops them before harm is done."""

import math
import time

import torch

from model.backward import Autograd
from model.distributed import sum_over_processes
from processing.errors import PipelineError
from processing.parallel import PROCESSES
from processing.terminal import progress, say

MAX_LINES = 200         # a run of more epochs than this says only about every so many-th epoch's loss, and the last
WARM_UPS = 3            # epochs, before a CUDA graph is recorded
MAX_HALVINGS = 3        # of the batch size, where the memory of a graphics card does not suffice


def fit(module, loss_function, feed, run, held_out=None, *, backward=None):
    """The epochs of a run that are left: train, measure on held-out rows, say, save.

    Args:
        module: on its device.
        loss_function: ImageLoss or CSVLoss.
        feed: ImageFeed or CaseFeed.
        run: model.run.Run; a resumed one brings optimizer and epochs done.
        held_out: function that gives the batches of rows that are not trained on, or None.
        backward: as for Steps.

    Raises:
        PipelineError: NaN or infinity, or too little memory; the run keeps its last good epoch.
    """
    config = run.config
    backward = backward or Autograd(module)
    optimizer = torch.optim.Adam(backward.parameters, lr=config.learning_rate, fused=True)
    run.restore(module, optimizer)
    in_one_graph = feed.is_fixed and backward.parameters[0].device.type == "cuda"
    steps = (GraphedSteps if in_one_graph else Steps)(module, loss_function, optimizer, backward)
    total = config.epochs * feed.steps(run.batch_size)
    with progress(total=total, label=config.name, unit="step", leave=False) as bar:
        bar.update(run.epochs_done * feed.steps(run.batch_size))
        for epoch in range(run.epochs_done + 1, config.epochs + 1):
            started = time.monotonic()
            losses = _train_epoch_in_memory(steps, feed, epoch=epoch, run=run, bar=bar)
            _check_weights(module, backward.parameters, epoch)
            if held_out is not None:
                losses |= measure_losses(module, loss_function, held_out())
            run.finish_epoch(epoch, module, optimizer, losses)
            if epoch % -(-config.epochs // MAX_LINES) == 0 or epoch == config.epochs:
                say(_line(config, epoch, losses, time.monotonic() - started))


def train_epoch(steps, batches, names=list):
    """One pass over `batches`.

    Args:
        steps: Steps.
        batches: iterable of Batch, on the module's device.
        names: function from a batch's rows to what the user knows them by.

    Returns:
        dict: "loss" and "loss <part>" of each part -> mean over the rows of the epoch.

    Raises:
        PipelineError: the loss or a gradient is not finite; that step has not changed the weights.
    """
    steps.module.train()
    losses, rows = steps.take(batches)
    if steps.guard.found():
        raise steps.guard.complaint(losses, rows, names)
    parts = steps.loss_function.parts
    return _means("loss", parts, _sums(losses, [_count(part) for part in rows]))


class Steps:
    """What is done with a batch. Nothing waits for the device before an epoch ends, but the guard on a CPU.

    Args:
        module: ImageModule or CSVModule.
        loss_function: gives (total, parts) of (outputs, targets).
        optimizer: of the parameters of `backward`.
        backward: model.backward.Autograd or CSVBackward, or model.distributed.SharedBackward; None: Autograd.
    """

    def __init__(self, module, loss_function, optimizer, backward=None):
        self.module, self.loss_function, self.optimizer = module, loss_function, optimizer
        self.backward = backward or Autograd(module)
        parameters = self.backward.parameters
        is_near = parameters[0].device.type == "cpu"
        self.guard = Guard(parameters) if is_near else LateGuard(parameters, optimizer)

    def take(self, batches):
        """A step for each batch; the first that is not finite is the last.

        Returns:
            losses: tensor, N steps x (1 + parts): the total and its parts.
            rows: of each step.
        """
        self.guard.reset()
        losses, rows = [], []
        for batch in batches:
            loss = self.backward(self.module, self.loss_function, batch)
            losses.append(_kept(loss))
            rows.append(batch.rows)
            if not self.guard.judge(loss[0]):
                break
            self.optimizer.step()
        return _stacked(losses), rows


class GraphedSteps(Steps):
    """Steps over batches that are the same in every epoch, as one CUDA graph: no Python between them.

    Where the graph cannot be made, the steps are taken one by one, which is said.
    """

    _batches = _graph = _taken = None
    _is_possible = True

    def take(self, batches):
        """As Steps.take; `batches` is a list."""
        if self._is_possible and batches is not self._batches:
            before = self._copy_state()
            try:
                self._capture(batches, before)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                self._is_possible = False
                self._restore_state(before)
                say(f"The steps cannot be made one CUDA graph ({str(error).splitlines()[0]}); they are taken one by "
                    "one: slower, with the same results.")
        if not self._is_possible:
            return super().take(batches)
        self._graph.replay()
        return self._taken

    def _capture(self, batches, before):
        """Record the steps, after a few taken for the libraries to settle, which are taken back."""
        for group in self.optimizer.param_groups:
            group["capturable"] = True
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                super().take(batches)
        torch.cuda.current_stream().wait_stream(stream)
        self._restore_state(before)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._taken = super().take(batches)
        self._graph, self._batches = graph, batches

    def _copy_state(self):
        """Copies of the weights and of Adam's state, by parameter."""
        return [
            (parameter.detach().clone(), {name: value.clone() for name, value in self._adam_of(parameter).items()})
            for parameter in self.backward.parameters
        ]

    @torch.no_grad()
    def _restore_state(self, before):
        """Give both their values again, in place; what Adam had not yet is 0."""
        for parameter, (weights, adam) in zip(self.backward.parameters, before, strict=True):
            parameter.copy_(weights)
            for name, value in self._adam_of(parameter).items():
                value.copy_(adam[name]) if name in adam else value.zero_()

    def _adam_of(self, parameter):
        return self.optimizer.state.get(parameter, {})


class Guard:
    """Refuses a step whose loss or gradient is not finite, before it is taken.

    Args:
        parameters: list, whose gradients are looked at.
    """

    def __init__(self, parameters):
        self._parameters, self._good_steps, self._is_found = parameters, 0, False

    def reset(self):
        """Begin an epoch."""
        self._good_steps, self._is_found = 0, False

    def judge(self, loss):
        """Look at a step's loss and at the gradients that the parameters hold. Returns whether to take the step."""
        self._is_found = not math.isfinite(self._total(loss).item())
        self._good_steps += not self._is_found
        return not self._is_found

    def found(self):
        """Whether a step was refused; waits for the device."""
        return self._is_found

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

    def _total(self, loss):
        """A number that is finite where the loss and all gradients are."""
        gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        if len(gradients) == 1:
            return loss + torch.linalg.vector_norm(gradients[0])
        return loss + torch.nn.utils.get_total_norm(gradients)


class LateGuard(Guard):
    """The same where an answer is waited for (a graphics card): it is asked for once an epoch.

    From the first refused step on, the optimizer takes none: a fused Adam leaves out a step where found_inf is 1.

    Args:
        parameters: as for Guard.
        optimizer: Adam, fused.
    """

    def __init__(self, parameters, optimizer):
        super().__init__(parameters)
        self._good_steps, self._bad = (torch.zeros((), device=parameters[0].device) for _ in range(2))
        optimizer.grad_scale, optimizer.found_inf = None, self._bad

    def reset(self):
        """As Guard.reset."""
        self._bad.zero_()
        self._good_steps.zero_()

    def judge(self, loss):
        """As Guard.judge; returns True, since the optimizer knows."""
        torch.maximum(self._bad, (~torch.isfinite(self._total(loss))).float(), out=self._bad)
        self._good_steps += 1 - self._bad
        return True

    def found(self):
        """As Guard.found."""
        return bool(self._bad)


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
            losses.append(_kept(torch.stack([total, *parts])))
            counts.append(len(batch.inputs))
    losses = _stacked(losses) if losses else torch.zeros(0, 1 + len(loss_function.parts))
    return _means("held-out loss", loss_function.parts, sum_over_processes(_sums(losses, counts)))


def _kept(loss):
    """A step's losses until the epoch ends: on a CPU as numbers. A small tensor would lie amid the memory that a step's
    large ones take and leave, so that there is no room for the next ones, and more is taken with each step.
    """
    return loss.tolist() if loss.device.type == "cpu" else loss


def _stacked(losses):
    return torch.tensor(losses) if isinstance(losses[0], list) else torch.stack(losses)


def _sums(losses, counts):
    """Sums over rows of the total, each part, and 1.

    Args:
        losses: tensor, N batches x (1 + parts), N maybe 0.
        counts: how many rows each batch has.
    """
    counts = torch.tensor(counts, dtype=torch.float64)
    return torch.cat([counts @ losses.cpu().double(), counts.sum()[None]])


def _means(name, parts, sums):
    """Means over rows, of what _sums gives."""
    means = (sums[:-1] / sums[-1]).tolist()
    return dict(zip([name, *(f"{name} {part}" for part in parts)], means, strict=True))


def _train_epoch_in_memory(steps, feed, *, epoch, run, bar):
    """train_epoch, begun anew with half the batch where the graphics card's memory does not suffice."""
    while True:
        try:
            batches = feed.epoch(epoch, run.batch_size)
            losses = train_epoch(steps, batches if feed.is_fixed else _counted(batches, bar), feed.names)
            bar.update(len(batches) if feed.is_fixed else 0)
            return losses
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
        run.rewind(steps.module, steps.optimizer)
        torch.cuda.empty_cache()


def _check_weights(module, parameters, epoch):
    """Raise PipelineError if a weight, or a batch norm's statistic, is not finite; `parameters`: all weights."""
    values = [value.detach() for value in (*parameters, *module.buffers()) if value.is_floating_point()]
    if torch.isfinite(torch.nn.utils.get_total_norm(values)):       # one look at all; it is infinite for huge ones, too
        return
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
