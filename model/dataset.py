"""Crops, features and labels as tensors, and an epoch of them as batches.

B batch, H and W pixels. A feed gives an epoch's batches: ImageFeed for crops, CaseFeed for a case table.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate
from torchvision.transforms.v2.functional import to_dtype, to_image

from processing.errors import PipelineError
from processing.images import ImageError, read_image
from processing.tables import CONTINUE, CSV_FEATURES, FINDINGS, PATIENT, PROCESSED, VA

MAX_WORKERS = 8     # reading processes beyond this gain nothing: the disk or the model is the limit


class Batch(NamedTuple):
    """What a step takes."""

    inputs: torch.Tensor    # B x ...
    targets: tuple          # of tensors, B first
    rows: Any               # indices of the batch's rows in the feed


class ImageDataset(Dataset):
    """Crops of a table's rows, with their labels if the table has them.

    Args:
        rows: DataFrame with processed_path; for training also the target's column and FINDINGS.
        root: what processed_path is relative to.
        crop_size: H, W in pixels that every crop must have.
        target: "preCST" or "CST" (um), or None: no labels.

    An item is (3 x H x W uint8 image, (float32 CST in um, 4 float32 findings), index), with () for labels where
    there are none; or the PipelineError that says what is wrong with the crop, for `to_device` to raise: an
    exception raised in a reading process would reach the user as a traceback.

    Raises:
        PipelineError: a label is no finite number.
    """

    def __init__(self, rows, root, crop_size, target=None):
        self.files = [str(root / name) for name in rows[PROCESSED]]
        self.crop_size = tuple(crop_size)
        self.labels = None
        if target is not None:
            check_finite(rows, [target, *FINDINGS], PROCESSED)
            self.labels = torch.tensor(rows[[target, *FINDINGS]].to_numpy(np.float32))

    def __len__(self):
        return len(self.files)

    def __getitem__(self, index):
        try:
            image = read_image(self.files[index])[..., ::-1]                # H x W x 3, red first
        except ImageError as error:
            return PipelineError(f"{self.files[index]}: {error}. Option 0 (processing_data) cuts it anew.")
        if image.shape[:2] != self.crop_size:
            return PipelineError(
                f"{self.files[index]} has {image.shape[0]} x {image.shape[1]} rows and columns, the model wants "
                f"{self.crop_size[0]} x {self.crop_size[1]}. Cut the crops with the box that it was trained on."
            )
        labels = () if self.labels is None else (self.labels[index, 0], self.labels[index, 1:])
        return to_image(np.ascontiguousarray(image)).data, labels, index    # 3 x H x W


def check_finite(table, columns, name_column, *, advice="Option 0 (processing_data) makes the processed tables anew."):
    """Refuse NaN and infinity before they are trained on, predicted from or handed in.

    Args:
        table: DataFrame.
        columns: those that must hold finite numbers only.
        name_column: the column (or the index) that names a row to the user.
        advice: what the user can do.

    Raises:
        PipelineError: names the first rows, columns and values at fault.
    """
    values = table[columns].to_numpy(np.float64)
    wrong = np.argwhere(~np.isfinite(values))
    if len(wrong):
        names = list(table.get(name_column, table.index))
        shown = "; ".join(f"{names[row]}: {columns[column]} is {values[row, column]}" for row, column in wrong[:5])
        raise PipelineError(f"{len(wrong)} values are no finite numbers ({shown}). {advice}")


class EpochShuffle(Sampler):
    """All indices once, in an order that the seed and the epoch decide alone, whatever ran before.

    Args:
        count: how many rows.
        seed: the config's.
    """

    def __init__(self, count, seed):
        self._count, self._seed = count, seed
        self.epoch = 1      # set before an epoch's batches are taken

    def __len__(self):
        return self._count

    def __iter__(self):
        return iter(np.random.default_rng([self._seed, self.epoch]).permutation(self._count).tolist())


def image_loader(dataset, batch_size, device, *, workers=-1, sampler=None):
    """Batches of an ImageDataset, as a DataLoader.

    Args:
        dataset: ImageDataset.
        batch_size: items per batch; the last may have fewer.
        device: torch.device that the batches will go to.
        sampler: gives the order of the indices; None: the order of the rows.
        workers: reading processes; -1: none beside a CPU that trains (it needs the cores), else up to MAX_WORKERS.
    """
    if workers < 0:
        workers = 0 if device.type == "cpu" else min(MAX_WORKERS, torch.get_num_threads(), len(dataset))
    return DataLoader(
        dataset,
        batch_size,
        sampler=sampler,
        num_workers=workers,
        persistent_workers=workers > 0,
        collate_fn=_collate,
        pin_memory=device.type == "cuda",
    )


def to_device(batches, device):
    """Batches of an image_loader on `device`; images become float32 in 0-1 there.

    Yields:
        Batch.

    Raises:
        PipelineError: a crop of the batch could not be read.
    """
    for batch in batches:
        if isinstance(batch, PipelineError):
            raise batch
        images, labels, rows = batch
        images = to_dtype(images.to(device, non_blocking=True), torch.float32, scale=True)
        yield Batch(images, tuple(label.to(device, non_blocking=True) for label in labels), rows)


def _collate(items):
    wrong = next((item for item in items if isinstance(item, PipelineError)), None)
    return wrong if wrong is not None else default_collate(items)


class ImageFeed:
    """Epochs of an ImageDataset, shuffled by the config's seed and the epoch.

    Args:
        dataset: ImageDataset with labels.
        config: ImageConfig.
        device: torch.device.
    """

    def __init__(self, dataset, config, device):
        self._dataset, self._config, self._device = dataset, config, device
        self._shuffle = EpochShuffle(len(dataset), config.seed)
        self._loaders = {}      # batch size -> DataLoader

    def steps(self, batch_size):
        """How many batches an epoch has."""
        return -(-len(self._dataset) // batch_size)

    def epoch(self, number, batch_size):
        """The batches of epoch `number` (from 1); every image once, the last batch may be smaller."""
        if batch_size not in self._loaders:
            self._loaders = {batch_size: image_loader(
                self._dataset, batch_size, self._device, workers=self._config.workers, sampler=self._shuffle
            )}
        self._shuffle.epoch = number
        return to_device(self._loaders[batch_size], self._device)

    def names(self, rows):
        """What the user knows the rows by: file names."""
        return [self._dataset.files[row] for row in rows]


class CaseFeed:
    """Epochs of a case table: fixed batches in its order, the last partial one left out as in 2021.

    A table of fewer rows than a batch makes one batch.

    Args:
        cases: DataFrame with CSV_FEATURES, VA and continue injection (0 / 1); 1 row or more.
        device: torch.device.

    Raises:
        PipelineError: a value is no finite number.
    """

    def __init__(self, cases, device):
        check_finite(cases, [*CSV_FEATURES, VA, CONTINUE], PATIENT)
        self._patients = cases[PATIENT].tolist()
        self._features = case_features(cases, device)
        self._va = torch.tensor(cases[VA].to_numpy(np.float32), device=device)
        self._classes = torch.tensor(cases[CONTINUE].to_numpy(np.int64), device=device)
        self._epochs = {}       # batch size -> list of Batch

    def steps(self, batch_size):
        """How many batches an epoch has."""
        return max(1, len(self._patients) // batch_size)

    def epoch(self, _number, batch_size):
        """The batches, the same in every epoch."""
        if batch_size not in self._epochs:
            size = min(batch_size, len(self._patients))
            starts = range(0, len(self._patients) - size + 1, size)
            self._epochs = {batch_size: [self._batch(slice(start, start + size)) for start in starts]}
        return self._epochs[batch_size]

    def names(self, rows):
        """What the user knows the rows by: patient IDs."""
        return self._patients[rows]

    def _batch(self, rows):
        return Batch(self._features[rows], (self._va[rows], self._classes[rows]), rows)


def case_features(cases, device):
    """The CSV_FEATURES of a case table as an N x 16 float32 tensor."""
    return torch.tensor(cases[CSV_FEATURES].to_numpy(np.float32), device=device)
