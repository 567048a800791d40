"""SegmentationNetwork: B-scans -> membranes and fluid. It learns from scans that are drawn for it."""

from collections.abc import Iterable
from typing import Any

import pandas as pd
import torch

from config import Paths
from model.lessons import HELD_OUT, TRAINING, LessonBatch, fingerprint_lessons, read_lessons
from model.network import EpochNetwork
from model.run import Run
from model.segmentation import DEPTHS, FLUIDS, WIDTHS, SegmentationModule
from model.segmentation_loss import SegmentationLoss
from model_config import SegmentationConfig
from processing.parallel import keep_freed_memory


class SegmentationNetwork(EpochNetwork):
    """Follows model.registry.Model.

    Args:
        specification: widths, depths and fluids of SegmentationModule.
        device: torch.device.

    Attributes: those of EpochNetwork; its module is a SegmentationModule.
    """

    kind, unit = "SegmentationNetwork", "scans"

    def __init__(self, specification: dict[str, Any], device: torch.device):
        self.specification, self.device = dict(specification), device
        parts = {name: tuple(values) for name, values in specification.items()}
        self.module = SegmentationModule(**parts).to(device).to(memory_format=torch.channels_last)
        self.plain_loss = SegmentationLoss(self.module.fluids)

    @classmethod
    def specify(cls, config: SegmentationConfig, rows: pd.DataFrame) -> dict[str, Any]:
        """The specification of a new model: that of this version of the program."""
        return {"widths": list(WIDTHS), "depths": list(DEPTHS), "fluids": list(FLUIDS)}

    @classmethod
    def select_rows(cls, table: pd.DataFrame, config: SegmentationConfig) -> pd.DataFrame:
        """All of them: it is no matter of eyes."""
        return table

    def describe(self) -> str:
        """One line for a person."""
        return f"SegmentationNetwork of {' '.join(self.module.fluids)}, widths {self.module.widths}"

    def fingerprint(self, rows: pd.DataFrame, held_out: pd.DataFrame, paths: Paths) -> dict[str, str]:
        """The code that draws its scans."""
        return {"scans": fingerprint_lessons()}

    def open_data(self, rows: pd.DataFrame, run: Run, paths: Paths, held_out: pd.DataFrame) -> int:
        """Nothing is read; returns how many scans an epoch has."""
        keep_freed_memory()
        self._numbers, self._unseen = rows.index.to_numpy(), held_out.index.to_numpy()
        return len(rows)

    def read_epoch(self, run: Run, epoch: int) -> Iterable[LessonBatch]:
        """Scans that no other epoch has."""
        config: SegmentationConfig = run.config
        stream = [TRAINING, config.seed, epoch]
        return read_lessons(stream, self._numbers, run.batch_size, self.device, workers=config.workers)

    def read_held_out(self, run: Run, batch_size: int) -> Iterable[LessonBatch]:
        """The scans that are measured on."""
        return read_lessons([HELD_OUT], self._unseen, batch_size, self.device, workers=run.config.workers)

    def name_row(self, row: int) -> str:
        """What a scan is called: its number within the epoch."""
        return f"scan {row}"
