"""Crops, features and labels as tensors, and an epoch of them as batches.

B batch, C channels, H and W pixels. A feed gives an epoch's batches: ImageFeed for crops, CaseFeed for a case table.
"""

from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch

from processing import columns as c
from processing.errors import PipelineError
from processing.images import ImageError, read_pixels
from processing.parallel import CORES, OWN_SHARE, map_in_threads

MAX_THREADS = 8             # that read; beyond this the disk or the model is the limit
BYTES_PER_PIXEL = 230       # of the card's memory, that a step in float32 takes for a crop: 60 MB for 400 x 650
SPARE_SHARE = 0.1           # of the card's free memory, left alone


class Batch(NamedTuple):
    """What a step takes."""

    inputs: torch.Tensor    # B x ...; of several processes each has its share
    targets: tuple          # of tensors, B first
    rows: Any               # indices of the whole batch's rows in the feed


class ImageDataset:
    """Crops of a table's rows, with their labels if the table has them.

    Args:
        rows: DataFrame with processed_path; for training also the target's column and FINDINGS.
        root: what processed_path is relative to.
        crop_size: H, W in pixels that every crop must have.
        target: "preCST" or "CST" (um), or None: no labels.
        cache: model.cache.PixelCache with decoded crops, or None.

    Raises:
        PipelineError: a label is no finite number.
    """

    def __init__(self, rows, root, crop_size, target=None, cache=None):
        self._names, self._root, self._cache = rows[c.PROCESSED].tolist(), root, cache
        self.crop_size = tuple(crop_size)
        self.labels = None      # N x 5 float32: CST in um, findings
        if target is not None:
            check_finite(rows, [target, *c.FINDINGS], c.PROCESSED)
            self.labels = torch.tensor(rows[[target, *c.FINDINGS]].to_numpy(np.float32))

    def __len__(self):
        return len(self._names)

    def read(self, index):
        """The pixels of one crop: C x H x W uint8 array, C 1 where it is grey, else 3, red first.

        Raises:
            PipelineError: it cannot be read, or has another size.
        """
        name = self._names[index]
        pixels = None if self._cache is None else self._cache.read(name)
        if pixels is None:
            try:
                pixels = read_pixels(self._root / name, 1)
            except ImageError as error:
                raise PipelineError(
                    f"{self._root / name}: {error}. Option 0 (processing_data) cuts it anew."
                ) from error
        if pixels.shape[1:] != self.crop_size:
            raise PipelineError(
                f"{self._root / name} has {pixels.shape[1]} x {pixels.shape[2]} rows and columns, the model wants "
                f"{self.crop_size[0]} x {self.crop_size[1]}. Cut the crops with the box that it was trained on."
            )
        return pixels

    def batch(self, rows):
        """The crops of `rows` (indices, maybe none): B x C x H x W uint8 array, C 1 where all of them are grey."""
        images = [self.read(row) for row in rows]
        channels = max(map(len, images), default=1)
        batch = np.empty((len(images), channels, *self.crop_size), np.uint8)
        for place, image in zip(batch, images, strict=True):
            place[:] = image        # a grey one fills every channel
        return batch

    def targets(self, rows, device):
        """The labels of `rows` on `device`: (B CST in um, B x 4 findings), or () where there are none."""
        if self.labels is None:
            return ()
        labels = self.labels[rows].to(device, non_blocking=True)
        return labels[:, 0], labels[:, 1:]

    def names(self, rows):
        """What the user knows the rows by: file names."""
        return [str(self._root / self._names[row]) for row in rows]


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


def epoch_order(count, seed, epoch):
    """All indices below `count` once, in an order that the seed and the epoch decide alone, whatever ran before."""
    return np.random.default_rng([seed, epoch]).permutation(count)


def read_batches(dataset, order, batch_size, device, *, workers=-1, share=slice(None)):
    """Batches of an ImageDataset on `device`, read ahead in threads; images become float32 in 0-1 there.

    Args:
        dataset: ImageDataset.
        order: array of indices.
        batch_size: crops per batch; the last may have fewer.
        device: torch.device.
        workers: reading threads; 0: none but the caller's; -1: one beside a CPU that computes, else up to MAX_THREADS.
        share: slice of each batch that is read.

    Yields:
        Batch.

    Raises:
        PipelineError: a crop could not be read.
    """
    if workers < 0:
        workers = 1 if device.type == "cpu" else min(MAX_THREADS, CORES)
    parts = (order[start:start + batch_size] for start in range(0, len(order), batch_size))
    read = map_in_threads(lambda rows: (torch.from_numpy(dataset.batch(rows[share])), rows), parts, threads=workers)
    for images, rows in _upload_ahead(read, device) if device.type == "cuda" else read:
        yield Batch(as_fractions(images.to(device)), dataset.targets(rows[share], device), rows)


def _upload_ahead(read, device):
    """(images on the card, rows): copied on a stream of their own while the batch before is computed on."""
    stream, ahead = torch.cuda.Stream(device), None
    for images, rows in chain(read, [(None, None)]):
        ready, ahead = ahead, None
        if ready is not None:
            torch.cuda.current_stream(device).wait_stream(stream)
            ready[0].record_stream(torch.cuda.current_stream(device))
        if images is not None:
            with torch.cuda.stream(stream):
                ahead = images.pin_memory().to(device, non_blocking=True), rows
        if ready is not None:
            yield ready


def as_fractions(images):
    """uint8 images as float32 in 0-1."""
    return images.float().div_(255)


class ImageFeed:
    """Epochs of an ImageDataset, shuffled by the config's seed and the epoch.

    On a graphics card with room for them, the crops are put there once for all epochs. Of several processes, each reads
    its share of a batch.

    Args:
        dataset: ImageDataset with labels.
        config: ImageConfig.
        device: torch.device.
    """

    is_fixed = False        # whether every epoch has the very same batches, as a list

    def __init__(self, dataset, config, device):
        self._dataset, self._config, self._device = dataset, config, device
        self.names = dataset.names
        self._resident = _put_on_card(dataset, config.batch_size, device) if device.type == "cuda" else None

    def steps(self, batch_size):
        """How many batches an epoch has."""
        return -(-len(self._dataset) // batch_size)

    def epoch(self, number, batch_size):
        """The batches of epoch `number` (from 1); every image once, the last batch may be smaller."""
        order = epoch_order(len(self._dataset), self._config.seed, number)
        if self._resident is None:
            return read_batches(
                self._dataset, order, batch_size, self._device, workers=self._config.workers, share=OWN_SHARE
            )
        return self._resident_batches(order, batch_size)

    def _resident_batches(self, order, batch_size):
        images, labels = self._resident
        places = torch.from_numpy(order).to(self._device)
        for start in range(0, len(order), batch_size):
            here = places[start:start + batch_size][OWN_SHARE]
            chosen = labels[here]
            yield Batch(as_fractions(images[here]), (chosen[:, 0], chosen[:, 1:]), order[start:start + batch_size])


def _put_on_card(dataset, batch_size, device):
    """All crops and labels on the card, if they are grey and leave room for the training; else None."""
    pixels = dataset.crop_size[0] * dataset.crop_size[1]
    free = torch.cuda.mem_get_info(device)[0] * (1 - SPARE_SHARE)
    if pixels * (len(dataset) + batch_size * BYTES_PER_PIXEL) > free:
        return None
    images = torch.empty((len(dataset), 1, *dataset.crop_size), dtype=torch.uint8, device=device)
    parts = np.array_split(np.arange(len(dataset)), -(-len(dataset) // batch_size))
    read = map_in_threads(dataset.batch, parts, threads=min(MAX_THREADS, CORES))
    for rows, part in zip(parts, read, strict=True):
        if part.shape[1] != 1:
            return None
        images[rows[0]:rows[-1] + 1] = torch.from_numpy(part).to(device)
    return images, dataset.labels.to(device)


class CaseFeed:
    """Epochs of a case table: fixed batches in its order, the last partial one left out as in 2021.

    A table of fewer rows than a batch makes one batch.

    Args:
        cases: DataFrame with CSV_FEATURES, VA and continue injection (0 / 1); 1 row or more.
        device: torch.device.

    Raises:
        PipelineError: a value is no finite number.
    """

    is_fixed = True

    def __init__(self, cases, device):
        check_finite(cases, [*c.CSV_FEATURES, c.VA, c.CONTINUE], c.PATIENT)
        self._patients = cases[c.PATIENT].tolist()
        self._features = case_features(cases, device)
        self._va = torch.tensor(cases[c.VA].to_numpy(np.float32), device=device)
        self._classes = torch.tensor(cases[c.CONTINUE].to_numpy(np.int64), device=device)
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
    return torch.tensor(cases[c.CSV_FEATURES].to_numpy(np.float32), device=device)
