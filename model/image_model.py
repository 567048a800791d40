"""ImageNetwork: images of a visit -> thickness and findings.

Reads crops (or screens), and data/processed/pixels-<view>.bin; the run writes what comes of it.
"""

import copy
from collections.abc import Iterable
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
from model.distributed import first_process_first
from model.loop import augment_batches
from model.loss import ImageLoss, VisitLoss
from model.module import ImageModule, fold_batch_norm
from model.network import EpochNetwork
from model.portable import Portable, build_portable_images
from model.provenance import fingerprint_images
from model.run import Run
from model.specification import ImageSpecification
from model_config import PREDICT_BATCH_SIZE, ImageConfig
from processing import columns as c
from processing.errors import PipelineError
from processing.parallel import keep_freed_memory, this_process
from processing.tables import read_processed
from processing.terminal import progress
from processing.views import ViewReader

WHOLE_IN_ONE_PX = 256       # the blocks leave one pixel of a crop that is no larger
# Where features have one column left, torch's weight gradients of a bf16 convolution of stride 2 are unset memory on a
# CPU that has bf16 (seen with torch 2.14, oneDNN 3.12): at the last block, from crops that are no wider
NARROW_PX = 128


class ImageNetwork(EpochNetwork):
    """Follows model.registry.Model.

    Args:
        specification: of ImageSpecification.to_plain; what it lacks is the published checkpoints'.
        device: torch.device.

    Attributes: those of EpochNetwork; its module is an ImageModule.
    """

    kind, unit = "ImageNetwork", "images"

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
        config, recipe = config.settle(), config.recipe_of()
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

    def fingerprint(self, rows: pd.DataFrame, held_out: pd.DataFrame, paths: Paths) -> dict[str, str]:
        """The images that it learns from; raises PipelineError where one, or a held-out one, is missing."""
        both = pd.concat([rows, held_out])
        names = []
        for view in self._what.views.values():
            ViewReader(paths, both, view).check()
            names += ViewReader(paths, rows, view).files
        return {"images": fingerprint_images(names, paths.root)}

    def open_data(self, rows: pd.DataFrame, run: Run, paths: Paths, held_out: pd.DataFrame) -> int:
        """Open what the epochs read from.

        Returns:
            How many visits an epoch has.

        Raises:
            PipelineError: batch norm could not learn from the last batch, or torch's bf16 not from such crops.
        """
        keep_freed_memory()
        # Whichever of them this model sees: the next model finds the same cache
        images = read_processed(paths.train_table, c.TRAIN_COLUMNS).drop_duplicates(c.SOURCE)
        with first_process_first():
            self._caches = {
                name: open_cache(paths, name, ViewReader(paths, images, view))
                for name, view in self._what.views.items()
            }
        self._data = self.read_images(rows, paths, labelled=True, caches=self._caches)
        self._unseen = self.read_images(held_out, paths, labelled=True, caches=self._caches)
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
            if run.config.precision == "bf16" and self.device.type == "cpu" and view.width <= NARROW_PX:
                raise PipelineError(f"From crops {view.width} pixels wide, torch computes wrong gradients in bf16 on a "
                                    "CPU. Choose --precision float32, or a wider box in config.VIEWS.")
        return int(self._data.visit_of_row.max()) + 1

    def read_images(self, rows: pd.DataFrame, paths: Paths, **how: Any) -> ImageData:
        """The images of rows; `how` as of ImageData."""
        return ImageData(rows, paths, self._what, **how)

    def read_epoch(self, run: Run, epoch: int) -> Iterable[Batch]:
        """The batches of a training epoch: all visits in an order of its own."""
        config: ImageConfig = run.config.settle()
        plan = plan_epoch(self._data.visit_of_row, seed=config.seed, epoch=epoch, batch_size=run.batch_size,
                          near=self._data.near)
        if self._resident is not None:
            return augment_batches(self._resident.batches(plan), config, epoch)
        batches = read_batches(self._data, plan, self.device, workers=config.workers, share=True)
        return augment_batches(batches, config, epoch)

    def read_held_out(self, run: Run, batch_size: int) -> Iterable[Batch]:
        """The held-out images in batches; of several processes, each has some of the batches."""
        process = this_process()
        plan = plan_in_order(self._unseen.visit_of_row, batch_size)[process.rank::process.count]
        return read_batches(self._unseen, plan, self.device, workers=run.config.workers)

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
