"""What networks have in common that learn in epochs of model.loop: weights in and out, and the epochs."""

import time
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

import pandas as pd
import torch
from torch import nn

from config import Paths
from model.device import halve_until_it_fits
from model.distributed import SharedLoss, share_network
from model.guard import build_guard, check_losses, check_weights
from model.loop import halve_batch, measure_losses, say_epoch, set_learning_rate, train_epoch
from model.run import Run
from model_config import PREDICT_BATCH_SIZE
from processing.errors import PipelineError, is_out_of_memory
from processing.parallel import this_process
from processing.terminal import progress


class EpochNetwork(ABC):
    """A network that passes over its data again and again; its kinds follow model.registry.Model.

    Attributes: module (on the device), device, plain_loss (of what the module gives for a batch, and the batch). While
    it is trained: network (the module, or what trains it together with other processes), loss_function, is_bf16.
    """

    kind: str
    unit: str
    module: Any
    device: torch.device
    plain_loss: Any
    means: dict[str, dict[str, float]] = {}

    @abstractmethod
    def open_data(self, rows: pd.DataFrame, run: Run, paths: Paths, held_out: pd.DataFrame) -> int:
        """Open what the epochs of a run read from, as `fit` was given it; returns how many visits an epoch has."""

    @abstractmethod
    def read_epoch(self, run: Run, epoch: int) -> Iterable[Any]:
        """The batches of a training epoch, which seed and epoch decide alone."""

    @abstractmethod
    def read_held_out(self, run: Run, batch_size: int) -> Iterable[Any]:
        """The held-out data in batches."""

    def begin(self, config: Any) -> None:
        """Make first weights of the random ones, or a start's, where a new training begins; most kinds leave them."""
        return

    def group_parameters(self, config: Any) -> list[dict[str, Any]]:
        """What is trained, for the optimizer; `scale`: of the learning rate."""
        return [{"params": list(self.module.parameters()), "scale": 1.0}]

    def finish_step(self) -> None:
        """What a step is followed by; of most kinds nothing."""
        return

    @abstractmethod
    def name_row(self, row: int) -> str:
        """What the user knows a row of the training data by."""

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The weights."""
        return self.module.state_dict()

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Take up weights; raises RuntimeError where they do not fit."""
        self.module.load_state_dict(state)

    def fit(self, rows: pd.DataFrame, run: Run, paths: Paths, *, held_out: pd.DataFrame) -> None:
        """The epochs of a run that are left: train, measure on held-out data, say, save.

        Args:
            rows: DataFrame as select_rows gives it; 1 row or more.
            run: a resumed one brings optimizer and epochs done.
            paths: config.Paths.
            held_out: as `rows`, whose losses are reported after each epoch; maybe none.

        Raises:
            PipelineError: NaN or infinity, too little memory, an image that cannot be read; the run keeps its last
                good epoch.
        """
        config = run.config.settle()
        visits = self.open_data(rows, run, paths, held_out)
        self.is_bf16 = config.precision == "bf16" or (config.precision == "card" and self.device.type == "cuda")
        self.loss_function = SharedLoss(self.plain_loss) if this_process().count > 1 else self.plain_loss
        groups = self.group_parameters(config)
        parameters: list[nn.Parameter] = [parameter for group in groups for parameter in group["params"]]
        optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True)
        run.restore(self, optimizer)
        self.network = share_network(self.module)
        guard = build_guard(parameters, optimizer)
        with progress(total=config.epochs * visits, label=config.name, unit="image", leave=False) as bar:
            while (epoch := run.epochs_done + 1) <= config.epochs:
                bar.update((epoch - 1) * visits - bar.n)
                started = time.monotonic()
                set_learning_rate(optimizer, config, epoch)
                try:
                    losses = train_epoch(self, self.read_epoch(run, epoch), optimizer, guard=guard, bar=bar)
                except (RuntimeError, MemoryError) as error:
                    if not is_out_of_memory(error):
                        raise
                    halve_batch(run, len(rows), self.device, error)
                    run.rewind(self.module, optimizer)
                    torch.cuda.empty_cache()
                    continue
                except PipelineError as error:
                    raise PipelineError(f"{run.name}, epoch {epoch}: {error}") from error
                check_weights(self.module, epoch)
                if len(held_out):
                    losses |= halve_until_it_fits(
                        lambda size: measure_losses(self, self.read_held_out(run, size)), PREDICT_BATCH_SIZE)
                check_losses(losses, epoch)
                run.finish_epoch(epoch, optimizer, losses)
                say_epoch(config, epoch, losses, time.monotonic() - started)
