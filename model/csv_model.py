"""CSVNetwork: features of an eye -> VA and continue injection. Its training is the epoch loop below.

Reads and writes nothing; the run writes what comes of it.
"""

import copy
import time
from typing import Any

import numpy as np
import pandas as pd
import torch

from config import PATHS, Paths
from model.csv_steps import CSVBackward, build_case_batches, take_steps
from model.dataset import check_finite
from model.device import one_thread
from model.guard import build_guard, check_losses, check_weights
from model.loop import say_epoch
from model.loss import CSVLoss
from model.means import fill_rounds, fit_case_means
from model.module import CSVModule
from model.portable import Portable, build_portable_eyes
from model.run import Run
from model_config import CSVConfig
from processing import columns as c
from processing.errors import PipelineError
from processing.tables import build_case_table
from processing.terminal import progress

CASE_ORDER_SEED = 2021      # the 2021 system shuffled its cases once, by this seed


class CSVNetwork:
    """Follows model.registry.Model.

    Args:
        specification: heads, features, means; what it lacks is the published checkpoint's.
        device: torch.device.

    Attributes: module (CSVModule on the device), device, means.
    """

    kind, unit = "CSVNetwork", "eyes"

    def __init__(self, specification: dict[str, Any], device: torch.device):
        what = dict(specification)
        self.means = what.pop("means", {})
        what.pop("outputs", None)
        self.module, self.device = CSVModule(**what).to(device), device

    @property
    def specification(self) -> dict[str, Any]:
        """Plain values that it is built from."""
        return {
            "heads": self.module.heads, "features": list(self.module.features), "means": self.means,
            "outputs": {c.VA: "logMAR (preliminary round) or decimal (final)", c.CONTINUE: "probability"},
        }

    @classmethod
    def specify(cls, config: CSVConfig, rows: pd.DataFrame) -> dict[str, Any]:
        """The specification of a new model: the config's, with today's features and the means of its eyes."""
        return {"heads": config.recipe_of().heads, "features": list(c.CSV_FEATURES), "means": fit_case_means(rows)}

    @classmethod
    def select_rows(cls, table: pd.DataFrame, config: CSVConfig) -> pd.DataFrame:
        """The eyes that have images of both visits."""
        return build_case_table(table)

    def describe(self) -> str:
        """One line for a person."""
        return f"CSVNetwork of {len(self.module.features)} features, heads {self.module.heads}"

    def build_portable(self) -> Portable:
        """What runs without this program, on the CPU; the means go along as a fact."""
        return build_portable_eyes(copy.deepcopy(self.module).cpu(), self.means)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The weights."""
        return self.module.state_dict()

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Take up weights; raises RuntimeError where they do not fit."""
        self.module.load_state_dict(state)

    def fingerprint(self, rows: pd.DataFrame, held_out: pd.DataFrame, paths: Paths) -> dict[str, str]:
        """Nothing beside train.csv decides what it learns."""
        return {}

    def fit(self, rows: pd.DataFrame, run: Run, paths: Paths, *, held_out: pd.DataFrame) -> None:
        """The epochs of a run that are left, over the eyes in the 2021 system's order: train, measure, say, save.

        Args:
            rows: DataFrame of build_case_table; 1 row or more.
            run: a resumed one brings optimizer and epochs done.
            paths: config.Paths.
            held_out: as `rows`, whose losses are reported after each epoch; maybe none.

        Raises:
            PipelineError: NaN or infinity; the run keeps its last good epoch.
        """
        from sklearn.utils import resample  # takes long to load, and the image models need none of it

        config: CSVConfig = run.config
        features = self.module.features
        cases = resample(rows, replace=False, random_state=CASE_ORDER_SEED)
        batches = build_case_batches(cases, features, run.batch_size, self.device)
        unseen = build_case_batches(held_out, features, len(held_out), self.device) if len(held_out) else []
        backward = CSVBackward(self.module)
        optimizer = torch.optim.Adam(backward.parameters, lr=config.learning_rate, fused=True)
        run.restore(self, optimizer)
        guard = build_guard(backward.parameters, optimizer)
        take = self._choose_steps(backward, batches, optimizer, guard)
        patients = cases[c.PATIENT].tolist()
        with one_thread(), progress(total=config.epochs, label=config.name, unit="epoch", leave=False) as bar:
            bar.update(run.epochs_done)
            for epoch in range(run.epochs_done + 1, config.epochs + 1):
                started = time.monotonic()
                try:
                    sums = take()
                    guard.check([batch.rows for batch in batches], patients.__getitem__)
                except torch.OutOfMemoryError as error:     # a step takes next to nothing: smaller ones would not help
                    raise PipelineError(f"{run.name}: the graphics card has too little memory left. Close other "
                                        "programs that use it, or train on another device (--device cpu).") from error
                except PipelineError as error:
                    raise PipelineError(f"{run.name}, epoch {epoch}: {error}") from error
                check_weights(self.module, epoch, backward.parameters)
                means = (sums / len(batches)).tolist()
                losses = dict(zip(("loss", *(f"loss {part}" for part in CSVLoss.parts)), means, strict=True))
                losses |= self._measure(unseen)
                check_losses(losses, epoch)
                run.finish_epoch(epoch, optimizer, losses)
                bar.update()
                say_epoch(config, epoch, losses, time.monotonic() - started)

    def _choose_steps(self, backward: CSVBackward, batches: list, optimizer: torch.optim.Optimizer, guard: Any) -> Any:
        """What takes an epoch's steps: one CUDA graph on a graphics card."""
        if self.device.type == "cuda":
            from model.csv_graph import GraphedSteps

            return GraphedSteps(backward, batches, optimizer, guard).take
        return lambda: take_steps(backward, batches, optimizer, guard)

    def _measure(self, batches: list) -> dict[str, float]:
        """The losses of held-out eyes, in one batch or none: dict of "held-out loss" and its parts."""
        if not batches:
            return {}
        with torch.inference_mode():
            losses = CSVLoss()(self.module(batches[0].inputs), batches[0].targets).tolist()
        return dict(zip(("held-out loss", *(f"held-out loss {part}" for part in CSVLoss.parts)), losses, strict=True))

    def predict(self, rows: pd.DataFrame, paths: Paths = PATHS, *, label: str = "predict") -> pd.DataFrame:
        """Predict each eye; any number of rows.

        Args:
            rows: DataFrame with final and the model's features, NaN where unknown: its round's training mean then
                stands in. Patient ID as a column or the index.
            paths, label: not needed.

        Returns:
            DataFrame with the index of `rows`: VA (0 or more) and continue injection, the probability of class 1.

        Raises:
            PipelineError: something is not known, and the model carries no means; or it is infinite.
        """
        features = list(self.module.features)
        known = fill_rounds(rows[[c.FINAL, *features]], self.means)
        check_finite(known, features, list(rows.get(c.PATIENT, rows.index)))
        self.module.eval()
        with torch.inference_mode():
            inputs = torch.tensor(known[features].to_numpy(np.float32), device=self.device)
            both = torch.stack(self.module.answer(inputs), dim=1)       # B x 2
        return pd.DataFrame(both.cpu().numpy(), columns=[c.VA, c.CONTINUE], index=rows.index)
