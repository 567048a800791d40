"""SegmentationNetwork: B-scans -> membranes and fluid. It learns from scans that are drawn for it.

B scans, H and W pixels, h = H / 2 and w = W / 2 places of an answer.
"""

import copy
import sys
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pandas as pd
import torch

from config import PATHS, Paths
from model.device import halve_until_it_fits, is_faster_in_bf16, one_thread
from model.lessons import HELD_OUT, TRAINING, WHOLE_EACH, LessonBatch, fingerprint_lessons, read_lessons
from model.measures import MEASURES, ScanReading, measure_scan
from model.module import fold_batch_norm
from model.network import EpochNetwork
from model.portable import Portable, build_portable_scans
from model.run import Run
from model.segmentation import DEPTHS, FLUIDS, WIDTHS, SegmentationModule, find_rows
from model.segmentation_loss import SegmentationLoss
from model_config import SegmentationConfig
from processing import columns as c
from processing.bscans import Bscan, read_bscan
from processing.eye.variety import UM_ACROSS, UM_DOWN
from processing.parallel import CORES, keep_freed_memory, map_in_threads
from processing.terminal import progress

WEIGHTS = Path(__file__).resolve().parent / "weights" / "Model-Segmentation.pt"      # they come with the program
CPU_BATCH, CARD_BATCH = 4, 32       # scans that are read at once
LARGEST_PX = 2048       # rows or columns that the network is shown; larger scans are made smaller


class Seen(NamedTuple):
    """A scan as the network sees it: at a scale that it has learned, with even sides."""

    pixels: np.ndarray      # uint8 H x W
    zoom_down: float        # its pixels for each pixel of the scan
    zoom_across: float


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
        self._most = sys.maxsize        # scans at once that the memory has been found to hold

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
        return read_lessons(stream, self._numbers, run.batch_size, self.device, workers=config.workers,
                            whole_each=WHOLE_EACH)

    def read_held_out(self, run: Run, batch_size: int) -> Iterable[LessonBatch]:
        """The scans that are measured on."""
        return read_lessons([HELD_OUT], self._unseen, batch_size, self.device, workers=run.config.workers)

    def name_row(self, row: int) -> str:
        """What a scan is called: its number within the epoch."""
        return f"scan {row}"

    def build_portable(self) -> Portable:
        """What runs without this program, on the CPU."""
        return build_portable_scans(copy.deepcopy(self.module).cpu())

    def predict(self, rows: pd.DataFrame, paths: Paths = PATHS, *, label: str = "measure") -> pd.DataFrame:
        """Measure the B-scan of each image's screen, in order.

        Args:
            rows: DataFrame of image_data.csv, train.csv or test.csv.
            paths: config.Paths.
            label: of the progress bar.

        Returns:
            DataFrame with the columns MEASURES and the index of `rows`.

        Raises:
            ImageError: a screen cannot be read.
        """
        scans = (read_bscan(paths.root / file) for file in rows[c.SOURCE])
        bar = progress(self.read(scans), total=len(rows), label=label, unit="scan")
        return pd.DataFrame([measure_scan(scan, reading) for scan, reading in bar], columns=MEASURES, index=rows.index)

    def read(self, scans: Iterable[Bscan], *, batch_size: int = 0) -> Iterator[tuple[Bscan, ScanReading]]:
        """Read scans, in order; any number of any sizes, in the memory of a batch.

        Args:
            scans: taken as fast as readings are.
            batch_size: how many neighbours of one size are read at once; 0: what suits the device.

        Yields:
            Each scan, and what was read of it.
        """
        keep_freed_memory()
        on_cpu = self.device.type == "cpu"
        module = fold_batch_norm(self.module).to(memory_format=torch.channels_last)
        portions = _cut_portions(scans, batch_size or (CPU_BATCH if on_cpu else CARD_BATCH))
        # On a CPU a batch for each core: they need not wait for one another as parts of a batch do
        with one_thread() if on_cpu else nullcontext():
            for readings in map_in_threads(partial(self._read_portion, module), portions, threads=CORES, ahead=1):
                yield from readings

    def _read_portion(self, module: SegmentationModule, portion: list[tuple[Bscan, Seen]]
                      ) -> list[tuple[Bscan, ScanReading]]:
        """All at once, or as many as the memory holds; that many from then on."""
        most = min(len(portion), self._most)

        def read(size: int) -> list[tuple[Bscan, ScanReading]]:
            starts = range(0, len(portion), size)
            found = [pair for start in starts for pair in self._read_batch(module, portion[start:start + size])]
            if size < most:
                self._most = size
            return found

        return halve_until_it_fits(read, most)

    def _read_batch(self, module: SegmentationModule, portion: list[tuple[Bscan, Seen]]
                    ) -> list[tuple[Bscan, ScanReading]]:
        images = torch.from_numpy(np.stack([seen.pixels for _, seen in portion]))[:, None].to(self.device)
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16,
                                                    enabled=is_faster_in_bf16(self.device)):
            answer = module(images.to(memory_format=torch.channels_last).float().div_(255))
            found = find_rows(answer.membranes)
            rows, spread, readable, fluids = (part.cpu().numpy() for part in (
                found.rows, found.spread, answer.readable, answer.fluids.sigmoid()))
        return [
            (scan, _build_reading(scan, seen, rows[number], spread[number], readable[number],
                                  dict(zip(module.fluids, fluids[number], strict=True))))
            for number, (scan, seen) in enumerate(portion)
        ]


def _cut_portions(scans: Iterable[Bscan], batch_size: int) -> Iterator[list[tuple[Bscan, Seen]]]:
    """Neighbours of one size, as they come."""
    portion: list[tuple[Bscan, Seen]] = []
    for scan in scans:
        seen = _prepare(scan)
        if portion and (len(portion) == batch_size or seen.pixels.shape != portion[0][1].pixels.shape):
            yield portion
            portion = []
        portion.append((scan, seen))
    if portion:
        yield portion


def _prepare(scan: Bscan) -> Seen:
    """Bring a scan to a scale that the network has learned, and to even sides."""
    rows, columns = scan.pixels.shape
    down = min(scan.um_down / np.clip(scan.um_down, *UM_DOWN), LARGEST_PX / rows)
    across = min(scan.um_across / np.clip(scan.um_across, *UM_ACROSS), LARGEST_PX / columns)
    size = [max(64, 2 * round(length * zoom / 2)) for length, zoom in ((rows, down), (columns, across))]
    pixels = scan.pixels
    if size != [rows, columns]:
        pixels = np.asarray(cv2.resize(pixels, size[::-1], interpolation=cv2.INTER_AREA if min(down, across) < 1
                                       else cv2.INTER_LINEAR))
    return Seen(pixels, size[0] / rows, size[1] / columns)


def _build_reading(scan: Bscan, seen: Seen, rows: np.ndarray, spread: np.ndarray, readable: np.ndarray,
                   fluids: dict[str, np.ndarray]) -> ScanReading:
    """A scan's part of a batch, in the scan's own pixels.

    Args:
        rows, spread: 2 x w, of find_rows, in pixels of `seen`.
        readable: w logits.
        fluids: name -> h x w probabilities.
    """
    is_cut = (rows[0] < 2) & (readable < 0) & (rows[1] > 10) & (spread[1] < 6)
    read = (readable > 0) & (rows[0] >= 1) & (rows[1] <= len(seen.pixels) - 2)
    places = 2 * np.arange(len(seen.pixels) // 2, dtype=np.float32)[:, None] + 0.5
    tissue = (places >= rows[0]) & (places <= rows[1]) & read
    columns = ((np.arange(scan.pixels.shape[1]) + 0.5) * seen.zoom_across - 1) / 2       # in places of the answer
    nearest = np.clip(np.rint(columns), 0, len(read) - 1).astype(int)

    def spread_out(values: np.ndarray) -> np.ndarray:
        known = np.interp(columns, np.flatnonzero(read), values[read]) if read.any() else np.nan
        return np.where(read[nearest], known, np.nan).astype(np.float32)

    return ScanReading(
        ilm_row=spread_out((rows[0] + 0.5) / seen.zoom_down - 0.5),
        bm_row=spread_out((rows[1] + 0.5) / seen.zoom_down - 0.5),
        ilm_spread=spread_out(spread[0] / seen.zoom_down), bm_spread=spread_out(spread[1] / seen.zoom_down),
        is_cut=is_cut[nearest], fluids={name: chances * tissue for name, chances in fluids.items()},
        place_um=(2 * scan.um_down / seen.zoom_down, 2 * scan.um_across / seen.zoom_across),
    )
