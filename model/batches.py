"""Batches on their device: images read ahead in threads while the model computes. Reads what ImageData reads."""

from collections.abc import Iterator

import torch

from model.card import upload_ahead
from model.dataset import MAX_THREADS, Batch, ImageData, Portion, build_batch, scale_pixels
from processing.parallel import CORES, map_in_threads, this_process


def read_batches(data: ImageData, portions: list[Portion], device: torch.device, *, workers: int = -1,
                 share: bool = False) -> Iterator[Batch]:
    """Batches on `device`, read ahead in threads; images become float32 in 0-1 there.

    Args:
        data: ImageData.
        portions: of plan_epoch or plan_in_order.
        device: torch.device.
        workers: reading threads; 0: none but the caller's; -1: one beside a CPU that computes, else up to MAX_THREADS.
        share: whether several processes share each batch out.

    Yields:
        Batch.

    Raises:
        PipelineError: an image could not be read.
    """
    if workers < 0:
        workers = 1 if device.type == "cpu" else min(MAX_THREADS, CORES)
    process = this_process()
    rank, count = (process.rank, process.count) if share else (0, 1)

    def read(portion: Portion) -> tuple[dict[str, torch.Tensor], Portion, Portion]:
        own = portion.share(rank, count)
        return data.read(own.rows), own, portion

    loaded: Iterator[tuple[dict[str, torch.Tensor], Portion, Portion]] = map_in_threads(read, portions, threads=workers)
    if device.type == "cuda":
        loaded = upload_ahead(loaded, device)
    for images, own, whole in loaded:
        inputs = {view: scale_pixels(pixels.to(device)) for view, pixels in images.items()}
        yield build_batch(data, inputs, own, whole)
