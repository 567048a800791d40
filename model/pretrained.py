"""PretrainedNetwork: the recipe pretrained. As ImageNetwork, with a trunk that has seen pictures before, scans by their
place, and a distribution of thickness.

Reads crops (or screens), data/processed/pixels-<view>.bin and geometry.csv; the run writes what comes of it.
"""

from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

import config as places
from config import Paths
from model import distribution
from model.batches import read_batches
from model.dataset import Batch, ImageData, Portion, plan_in_order
from model.device import halve_until_it_fits
from model.distribution import Judgement, answer_images
from model.image_model import ImageNetwork
from model.loss import DistributionLoss
from model.module import fold_batch_norm
from model.portable import NotPortable, Portable
from model.provenance import fingerprint_tables
from model.run import Run
from model.specification import OWN_VISIT, ImageSpecification
from model.trunks import build_trunk, load_trunk_weights
from model.visit_module import BINS, VisitModule, find_bins
from model_config import NO_WEIGHTS, PREDICT_BATCH_SIZE, ImageConfig
from processing import columns as c
from processing.errors import PipelineError
from processing.parallel import keep_freed_memory
from processing.terminal import progress, say
from processing.visits import number_visits

STANDARD_IMAGES = 256   # that tell what is usual of the trunks' features
TRUNK_RATE = 0.1        # of the learning rate, for weights that have learned before


class PretrainedNetwork(ImageNetwork):
    """Follows model.registry.Model.

    Args:
        specification: of ImageSpecification.to_plain.
        device: torch.device.

    Raises:
        ValueError: there is no such trunk, or it cannot see these views.
    """

    kind = "PretrainedNetwork"

    def __init__(self, specification: dict[str, Any], device: torch.device):
        layout = torch.channels_last if device.type == "cuda" else torch.preserve_format
        self._what = ImageSpecification(**specification)
        self.module, self.device = VisitModule(self._what).to(device).to(memory_format=layout), device
        self.plain_loss = DistributionLoss(find_bins())

    @classmethod
    def specify(cls, config: ImageConfig, rows: pd.DataFrame) -> dict[str, Any]:
        """The specification of a new model: the config's, with the boxes of config.VIEWS and today's findings.

        Raises:
            PipelineError: there is no such trunk, it cannot see these views, or images are to be normalised.
        """
        config = config.settle()
        if config.normalise != "none":
            raise PipelineError(f"{config.name}: normalise is {config.normalise}; it must be none for the recipe "
                                "pretrained, whose trunks see images as those that they learned from.")
        views = {name: places.VIEWS[name] for name in config.views}
        try:
            for view in views.values():
                build_trunk(config.trunk, view)
        except ValueError as error:
            raise PipelineError(f"{config.name}: the trunk {config.trunk} cannot be used: {error}. Choose "
                                "segmentation, or a classification model of torchvision, as convnext_tiny.") from error
        return ImageSpecification(config.trunk, views, config.pool, config.recipe_of().heads, tuple(c.FINDINGS),
                                  OWN_VISIT, config.normalise).to_plain()

    def begin(self, config: ImageConfig) -> None:
        """Load the trunks' first weights, unless there is a start, and let the average begin with the first weights.

        Raises:
            PipelineError: there are none, or they do not fit.
        """
        if not config.init_from:
            for trunk in self.module.learning.trunks.values():
                origin = load_trunk_weights(trunk, config.trunk, config.weights)
            say(f"{config.name}: the trunk {config.trunk} starts from {origin}")
        self.module.begin_average()

    def group_parameters(self, config: ImageConfig) -> list[dict[str, Any]]:
        """A smaller step for the trunks, unless they start from random numbers."""
        trunks = list(self.module.learning.trunks.parameters())
        own = {id(parameter) for parameter in trunks}
        others = [parameter for parameter in self.module.learning.parameters() if id(parameter) not in own]
        scale = 1.0 if config.weights == NO_WEIGHTS else TRUNK_RATE
        return [{"params": others, "scale": 1.0}, {"params": trunks, "scale": scale}]

    def fingerprint(self, rows: pd.DataFrame, held_out: pd.DataFrame, paths: Paths) -> dict[str, str]:
        """The images that it learns from, where they lie, and the labels of their visits."""
        tables = fingerprint_tables([paths.eye_table, paths.geometry_table])
        return super().fingerprint(rows, held_out, paths) | tables

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Take up weights; raises ValueError where a network of an earlier version had them, else as EpochNetwork's."""
        if "learning.thickness.head.1.weight" not in state:
            raise ValueError("an earlier version of this program made it, whose network was another; train anew")
        super().load_state_dict(state)

    def finish_step(self) -> None:
        """Average the weights."""
        self.module.average()

    def build_portable(self) -> Portable:
        """Raises NotPortable: where scans lie is looked up in a table."""
        raise NotPortable("The recipe pretrained makes no ONNX file: its network asks where each scan lies, which is "
                          "looked up in a table. Train with --recipe fixed for one.")

    def open_data(self, rows: pd.DataFrame, run: Run, paths: Paths, held_out: pd.DataFrame) -> int:
        """As ImageNetwork's; a run that begins takes from its images what is usual of the trunks' features."""
        visits = super().open_data(rows, run, paths, held_out)
        if not run.epochs_done and not run.config.init_from:
            self._fit_standard()
        return visits

    def _fit_standard(self) -> None:
        some = np.unique(np.linspace(0, len(self._data) - 1, STANDARD_IMAGES).round().astype(int))
        parts = [some[start:start + PREDICT_BATCH_SIZE] for start in range(0, len(some), PREDICT_BATCH_SIZE)]
        plan = [Portion(part, np.arange(len(part))) for part in parts]
        self.module.eval()
        with torch.inference_mode():
            batches = read_batches(self._data, plan, self.device)
            self.module.fit_standard([self.module.learning.see(batch.inputs) for batch in batches])

    def read_images(self, rows: pd.DataFrame, paths: Paths, **how: Any) -> ImageData:
        """The images of rows, and where the scans lie."""
        return super().read_images(rows, paths, placed=True, **how)

    def predict(self, rows: pd.DataFrame, paths: Paths = places.PATHS, *, label: str = "predict") -> pd.DataFrame:
        """Predict each image, in order; any number of rows. Arguments as ImageNetwork's.

        Returns:
            DataFrame as answer_images gives it.
        """
        return answer_images(self.judge(rows, paths, label=label))

    def judge(self, rows: pd.DataFrame, paths: Paths = places.PATHS, *, label: str = "predict") -> Judgement:
        """What the network makes of each image: a distribution of its visit's thickness, and findings."""
        keep_freed_memory()
        data, module = self.read_images(rows, paths), fold_batch_norm(self.module)
        for reader in data.readers.values():
            reader.check()
        chances = np.zeros((len(data), BINS), np.float32)
        findings = np.zeros((len(data), len(self._what.findings)), np.float32)

        def ask(batch_size: int) -> None:
            plan = plan_in_order(data.visit_of_row, batch_size)
            batches = read_batches(data, plan, self.device)
            with torch.inference_mode(), progress(total=len(data), label=label, unit="image", leave=False) as bar:
                for portion, batch in zip(plan, batches, strict=True):
                    thickness, of_images, of_visits = (
                        part.float().cpu().numpy() for part in self._ask(module, batch))
                    chances[batch.rows] = thickness[portion.visits]
                    is_final = data.is_final[batch.rows][:, None]
                    findings[batch.rows] = np.where(is_final, of_images, of_visits[portion.visits])
                    bar.update(len(batch.rows))

        halve_until_it_fits(ask, PREDICT_BATCH_SIZE)
        if not data.takes_visits and data.near is not None:
            chances = _share_near(chances, number_visits(rows), data.near)
        finer = distribution.BINS // BINS       # bins of a distribution for each of the network's
        chances = np.repeat(chances / finer, finer, axis=1)
        return Judgement(chances, pd.DataFrame(findings, columns=list(self._what.findings), index=rows.index))

    @staticmethod
    def _ask(module: nn.Module, batch: Batch) -> tuple[torch.Tensor, ...]:
        """Chances of thickness, and probabilities of the images' and the visits' findings."""
        thickness, findings, visit_findings = module(*batch.arguments)
        return thickness.float().softmax(dim=1), findings.float().sigmoid(), visit_findings.float().sigmoid()


def _share_near(chances: np.ndarray, visit_of_row: np.ndarray, near: np.ndarray) -> np.ndarray:
    """One distribution for all images of a visit, where each was judged alone (N x BINS): the mean of those near the
    fovea; of all where none is, or is known to.
    """
    speaks = near | ~np.isin(visit_of_row, visit_of_row[near])
    sums = np.zeros((visit_of_row.max(initial=-1) + 1, chances.shape[1]))
    np.add.at(sums, visit_of_row[speaks], chances[speaks])
    return (sums / np.bincount(visit_of_row[speaks], minlength=len(sums))[:, None])[visit_of_row].astype(np.float32)
