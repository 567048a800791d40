"""What only graphics cards have use for: images that stay there, copies beside the computing. B, C, H and W as ever."""

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import numpy as np
import torch

from model.dataset import MAX_THREADS, Batch, ImageData, Portion, build_batch, scale_pixels
from processing.parallel import CORES, map_in_threads, this_process

BYTES_PER_PIXEL = 230       # of the card's memory, that a step in float32 takes for a crop: 60 MB for 400 x 650
SPARE_SHARE = 0.1           # of the card's free memory, left alone


class ResidentImages:
    """All images of a training on the card, for all epochs. Made by `put_on_card`."""

    def __init__(self, data: ImageData, images: dict[str, torch.Tensor], device: torch.device):
        self._data, self._images, self._device = data, images, device

    def batches(self, portions: list[Portion]) -> Iterator[Batch]:
        """Batches of these portions, each process with its share."""
        process = this_process()
        for whole in portions:
            own = whole.share(process.rank, process.count)
            rows = torch.from_numpy(own.rows).to(self._device)
            inputs = {view: scale_pixels(images[rows]) for view, images in self._images.items()}
            yield build_batch(self._data, inputs, own, whole)


def put_on_card(data: ImageData, batch_size: int, device: torch.device) -> ResidentImages | None:
    """All images on the card, if they leave room for the training; else None."""
    boxes = [reader.view for reader in data.readers.values()]
    stored = sum(box.channels * box.height * box.width for box in boxes)
    step = sum(box.height * box.width for box in boxes) * BYTES_PER_PIXEL * batch_size
    if stored * len(data) + step > torch.cuda.mem_get_info(device)[0] * (1 - SPARE_SHARE):
        return None
    images = {
        view: torch.empty((len(data), box.channels, box.height, box.width), dtype=torch.uint8, device=device)
        for view, box in zip(data.readers, boxes, strict=True)
    }
    parts = np.array_split(np.arange(len(data)), -(-len(data) // batch_size))
    for rows, part in zip(parts, map_in_threads(data.read, parts, threads=min(MAX_THREADS, CORES)), strict=True):
        for view, pixels in part.items():
            images[view][rows[0]:rows[-1] + 1] = pixels.to(device)
    return ResidentImages(data, images, device)


def upload_ahead(loaded: Iterable[tuple[dict[str, torch.Tensor], Any, Any]], device: torch.device
                 ) -> Iterator[tuple[dict[str, torch.Tensor], Any, Any]]:
    """The same with the images on the card: copied on a stream of their own while the batch before is computed on."""
    stream, ahead = torch.cuda.Stream(device), None
    for item in chain(loaded, [None]):
        ready, ahead = ahead, None
        if ready is not None:
            torch.cuda.current_stream(device).wait_stream(stream)
            for pixels in ready[0].values():
                pixels.record_stream(torch.cuda.current_stream(device))
        if item is not None:
            with torch.cuda.stream(stream):
                images = {view: pixels.pin_memory().to(device, non_blocking=True) for view, pixels in item[0].items()}
                ahead = images, *item[1:]
        if ready is not None:
            yield ready
