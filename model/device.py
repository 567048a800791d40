"""The machine that a model runs on."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

from model_config import check_device
from processing.errors import PipelineError, is_out_of_memory
from processing.parallel import this_process
from processing.terminal import say

T = TypeVar("T")


def select_device(wanted: str = "auto") -> torch.device:
    """The torch.device of that name; "auto" takes cuda, then mps, then cpu. Of several processes each takes a card.

    Raises:
        ConfigError: no such name.
        PipelineError: this machine does not have it, or this build of torch cannot use it.
    """
    check_device(wanted)
    process = this_process()
    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    for name in [name for name, is_there in there.items() if is_there] if wanted == "auto" else [wanted]:
        own_card = name == "cuda" and process.count > 1
        device = torch.device("cuda", process.local_rank) if own_card else torch.device(name)
        if not there[device.type] or (device.index or 0) >= max(1, torch.cuda.device_count()):
            names = ", ".join(name for name, is_there in there.items() if is_there)
            cards = f" ({torch.cuda.device_count()} cards)" if there["cuda"] else ""
            raise PipelineError(f"This machine (or this build of torch) has no {device}; it has {names}{cards}.")
        fault = _find_fault(device)
        if fault is None:
            return device
        if wanted != "auto":
            raise PipelineError(f"This build of torch cannot use {device}: {fault}. Choose another (--device cpu).")
        say(f"This build of torch cannot use {device}: {fault}. Another device is taken: slower, the same results.")
    raise PipelineError("torch cannot compute on this machine; install it anew.")


def _find_fault(device: torch.device) -> str | None:
    """Why torch cannot compute on a device that is there (a card that is too old, say); None where it can."""
    try:
        torch.ones(8, device=device).sum().item()
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise PipelineError(f"{device} has no memory left. Close other programs that use it, or choose another "
                                "device (--device cpu).") from error
        return str(error).splitlines()[0]
    return None


def is_faster_in_bf16(device: torch.device) -> bool:
    """Whether networks answer faster in bfloat16: on an NVIDIA card, and on a CPU that computes in it itself."""
    if device.type == "cpu":        # torch tells it by no public name; one that does not know it says no
        return bool(getattr(torch.cpu, "_is_avx512_bf16_supported", bool)())
    return device.type == "cuda"


def halve_until_it_fits(work: Callable[[int], T], size: int) -> T:
    """What `work` returns, called with `size` images a batch, and with half as many while the memory does not suffice.

    Raises:
        Exception: what `work` raises, for want of memory only from batches of one image.
    """
    while True:
        try:
            return work(size)
        except (RuntimeError, MemoryError) as error:
            if size == 1 or not is_out_of_memory(error):
                raise
        size //= 2
        say(f"There is too little memory; going on with batches of {size}.")


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread of the CPU: steps of so little work only lose by sharing it, and on a busy machine much."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
