"""ImageNetwork: images of a visit -> thickness and findings. Its training is the epoch loop below.

Reads crops (or screens), and data/processed/pixels-<view>.bin; the run writes what comes of it.
"""

import copy
import time
from typing import Any

import numpy as np
import pandas as pd
import torch

import config as places
from config import Paths
from model.batches import read_batches
from model.cache import open_cache
from model.dataset import Batch, ImageData, plan_epoch, plan_in_order
from model.device import halve_until_it_fits
from model.distributed import SharedLoss, first_process_first, share_network
from model.guard import build_guard, check_losses, check_weights
from model.loop import augment_batches, halve_batch, measure_losses, say_epoch, set_learning_rate, train_epoch
from model.loss import ImageLoss, VisitLoss
from model.module import ImageModule, fold_batch_norm
from model.portable import Portable, build_portable_images
from model.provenance import fingerprint_images
from model.run import Run
from model.specification import ImageSpecification
from model_config import PREDICT_BATCH_SIZE, ImageConfig
from processing import columns as c
from processing.errors import PipelineError, is_out_of_memory
from processing.parallel import keep_freed_memory, this_process
from processing.tables import read_processed
from processing.terminal import progress
from processing.views import ViewReader

WHOLE_IN_ONE_PX = 256       # the blocks leave one pixel of a crop that is no larger


class ImageNetwork:
    """Follows model.registry.Model.

    Args:
        specification: of ImageSpecification.to_plain; what it lacks is the published checkpoints'.
        device: torch.device.

    Attributes: module (ImageModule on the device), device. While it is trained: network (the module, or what trains it
    together with other processes), loss_function, is_bf16.
    """

    kind, unit = "ImageNetwork", "images"
    means: dict[str, dict[str, float]] = {}

    def __init__(self, specification: dict[str, Any], device: torch.device):
        layout = torch.channels_last if device.type == "cuda" else torch.preserve_format
        self._what = ImageSpecification(**specification)
        self.module, self.device = ImageModule(self._what).to(device).to(memory_format=layout), device
        self.plain_loss = VisitLoss() if self.module.pool.takes_visits else ImageLoss()

    @property
    def specification(self) -> dict[str, Any]:
        """Plain values that it is built from."""
        return self._what.to_plain()

    @classmethod
    def specify(cls, config: ImageConfig, rows: pd.DataFrame) -> dict[str, Any]:
        """The specification of a new model: the config's, with the boxes of config.VIEWS and today's findings."""
        recipe = config.recipe_of()
        views = {name: places.VIEWS[name] for name in config.views}
        return ImageSpecification(recipe.backbone, views, config.pool, recipe.heads, tuple(c.FINDINGS), config.target,
                                  config.normalise).to_plain()

    @classmethod
    def select_rows(cls, table: pd.DataFrame, config: ImageConfig) -> pd.DataFrame:
        """The images of the config's visit."""
        return select_visit(table, config.visit)

    def describe(self) -> str:
        """One line for a person."""
        what = self._what
        return (f"ImageNetwork of {' and '.join(what.views)}, backbone {what.backbone}, pooling {what.pool}, heads "
                f"{what.heads}, findings {' '.join(what.findings)}")

    def build_portable(self) -> Portable:
        """What runs without this program, on the CPU."""
        return build_portable_images(copy.deepcopy(self.module).cpu())

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The weights."""
        return self.module.state_dict()

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Take up weights; raises RuntimeError where they do not fit."""
        self.module.load_state_dict(state)

    def fingerprint(self, rows: pd.DataFrame, held_out: pd.DataFrame, paths: Paths) -> dict[str, str]:
        """The images that it learns from; raises PipelineError where one, or a held-out one, is missing."""
        both = pd.concat([rows, held_out])
        names = []
        for view in self._what.views.values():
            ViewReader(paths, both, view).check()
            names += ViewReader(paths, rows, view).files
        return {"images": fingerprint_images(names, paths.root)}

    def fit(self, rows: pd.DataFrame, run: Run, paths: Paths, *, held_out: pd.DataFrame) -> None:
        """The epochs of a run that are left: train, measure on held-out images, say, save.

        Args:
            rows: DataFrame of train.csv with the target (um) and findings (0 / 1); 1 row or more.
            run: a resumed one brings optimizer and epochs done.
            paths: config.Paths.
            held_out: as `rows`, whose losses are reported after each epoch; maybe none.

        Raises:
            PipelineError: NaN or infinity, too little memory, an image that cannot be read; the run keeps its last
                good epoch.
        """
        config: ImageConfig = run.config
        self._prepare(rows, run, paths)
        unseen = ImageData(held_out, paths, self._what, labelled=True, caches=self._caches)
        optimizer = torch.optim.AdamW(self.module.parameters(), lr=config.learning_rate,
                                      weight_decay=config.weight_decay, fused=True)
        run.restore(self, optimizer)
        self.network = share_network(self.module)
        guard = build_guard(list(self.module.parameters()), optimizer)
        visits = int(self._data.visit_of_row.max()) + 1
        with progress(total=config.epochs * visits, label=config.name, unit="image", leave=False) as bar:
            while (epoch := run.epochs_done + 1) <= config.epochs:
                bar.update((epoch - 1) * visits - bar.n)
                started = time.monotonic()
                set_learning_rate(optimizer, config, epoch)
                try:
                    losses = train_epoch(self, self._read_epoch(run, epoch), optimizer, guard=guard, bar=bar)
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
                if len(unseen):
                    losses |= halve_until_it_fits(
                        lambda size: measure_losses(self, self._read_in_order(unseen, config.workers, size)),
                        PREDICT_BATCH_SIZE)
                check_losses(losses, epoch)
                run.finish_epoch(epoch, optimizer, losses)
                say_epoch(config, epoch, losses, time.monotonic() - started)

    def _prepare(self, rows: pd.DataFrame, run: Run, paths: Paths) -> None:
        """Open what the epochs read from; raises PipelineError where batch norm could not learn."""
        keep_freed_memory()
        # Whichever of them this model sees: the next model finds the same cache
        images = read_processed(paths.train_table, c.TRAIN_COLUMNS).drop_duplicates(c.SOURCE)
        with first_process_first():
            self._caches = {
                name: open_cache(paths, name, ViewReader(paths, images, view))
                for name, view in self._what.views.items()
            }
        self._data = ImageData(rows, paths, self._what, labelled=True, caches=self._caches)
        self.is_bf16 = run.config.precision == "bf16"
        self.loss_function = SharedLoss(self.plain_loss) if this_process().count > 1 else self.plain_loss
        self._resident = None
        if self.device.type == "cuda":
            from model.card import put_on_card

            self._resident = put_on_card(self._data, run.batch_size, self.device)
        for view in self._what.views.values():
            last = len(plan_epoch(self._data.visit_of_row, seed=0, epoch=1, batch_size=run.batch_size)[-1].rows)
            if max(view.height, view.width) <= WHOLE_IN_ONE_PX and last == 1:
                raise PipelineError(
                    f"The last of {len(rows)} images would make a batch of its own, and from crops of {view.height} x "
                    f"{view.width} batch norm cannot learn of one image. Choose another batch size (--batch-size)."
                )

    def _read_epoch(self, run: Run, epoch: int) -> Any:
        """The batches of a training epoch: all visits in an order of its own."""
        config: ImageConfig = run.config
        plan = plan_epoch(self._data.visit_of_row, seed=config.seed, epoch=epoch, batch_size=run.batch_size)
        if self._resident is not None:
            return augment_batches(self._resident.batches(plan), config, epoch)
        batches = read_batches(self._data, plan, self.device, workers=config.workers, share=True)
        return augment_batches(batches, config, epoch)

    def _read_in_order(self, data: ImageData, workers: int, batch_size: int) -> Any:
        """All of the images in batches for measuring; of several processes, each has some of the batches."""
        process = this_process()
        plan = plan_in_order(data.visit_of_row, batch_size)[process.rank::process.count]
        return read_batches(data, plan, self.device, workers=workers)

    def name_row(self, row: int) -> str:
        """What the user knows a training image by."""
        return self._data.name(row)

    def predict(self, rows: pd.DataFrame, paths: Paths = places.PATHS, *, label: str = "predict") -> pd.DataFrame:
        """Predict each image, in order; any number of rows.

        Args:
            rows: DataFrame of train.csv or test.csv, labels not needed.
            paths: config.Paths.
            label: of the progress bar.

        Returns:
            DataFrame with the index of `rows`: CST in um (0 or more), and the findings that the model knows as
            probabilities, 0-1. Of a model that pools visits, the images of a visit share their CST; findings that are
            labelled by eye (preliminary round) too.
        """
        keep_freed_memory()
        data, module = ImageData(rows, paths, self._what), fold_batch_norm(self.module)
        for reader in data.readers.values():
            reader.check()
        answers = np.zeros((len(data), 1 + len(self._what.findings)), np.float32)

        def predict(batch_size: int) -> None:
            plan = plan_in_order(data.visit_of_row, batch_size)
            batches = read_batches(data, plan, self.device)
            with torch.inference_mode(), progress(total=len(data), label=label, unit="image", leave=False) as bar:
                for portion, batch in zip(plan, batches, strict=True):
                    answers[batch.rows] = self._answer(module, batch, portion.visits, data.is_final[batch.rows])
                    bar.update(len(batch.rows))

        halve_until_it_fits(predict, PREDICT_BATCH_SIZE)
        return pd.DataFrame(answers, columns=[c.CST, *self._what.findings], index=rows.index)

    def _answer(self, module: ImageModule, batch: Batch, visits: np.ndarray, is_final: np.ndarray) -> np.ndarray:
        """B x (1 + K) answers of a batch, given the visit number and the round of each image."""
        cst, findings, visit_findings = (part.cpu().numpy() for part in module.answer(batch.inputs, batch.visits))
        findings = np.where(is_final[:, None], findings, visit_findings[visits])
        return np.concatenate([cst[visits][:, None], findings], axis=1)


def select_visit(table: pd.DataFrame, visit: str) -> pd.DataFrame:
    """The rows of a processed table whose images are of the visit "before", "after" or "all"."""
    if visit == "all":
        return table
    return table[table[c.AFTER] == (visit == "after")]
