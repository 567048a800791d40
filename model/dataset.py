"""Crops and labels as tensors."""

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate
from torchvision.transforms.v2.functional import to_dtype, to_image

from processing.errors import PipelineError
from processing.images import ImageError, read_image
from processing.tables import FINDINGS, PROCESSED

MAX_WORKERS = 8     # reading processes beyond this gain nothing: the disk or the model is the limit


class ImageDataset(Dataset):
    """Crops of a table's rows, with their labels if the table has them.

    Args:
        rows: DataFrame with processed_path; for training also the target's column and FINDINGS.
        root: what processed_path is relative to.
        crop_size: H, W in pixels that every crop must have.
        target: "preCST" or "CST" (um), or None: no labels.

    An item is (3 x H x W uint8 image, (float32 CST in um, 4 float32 findings)), or (image, ()) without labels;
    or the PipelineError that says what is wrong with the crop, for `check` to raise: an exception
    raised in a reading process would reach the user as a traceback.
    """

    def __init__(self, rows, root, crop_size, target=None):
        self.files = [str(root / name) for name in rows[PROCESSED]]
        self.crop_size = tuple(crop_size)
        self.labels = None
        if target is not None:
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
        return to_image(np.ascontiguousarray(image)).data, labels           # 3 x H x W


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
    """Batches of an ImageDataset, in the order of its rows or of `sampler`.

    Args:
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
    """Move batches to `device`; images become float32 in 0-1 there.

    Raises:
        PipelineError: a crop of the batch could not be read.
    """
    for batch in batches:
        if isinstance(batch, PipelineError):
            raise batch
        images, labels = batch
        images = to_dtype(images.to(device, non_blocking=True), torch.float32, scale=True)
        yield images, tuple(label.to(device, non_blocking=True) for label in labels)


def _collate(items):
    wrong = next((item for item in items if isinstance(item, PipelineError)), None)
    return wrong if wrong is not None else default_collate(items)
