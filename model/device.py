"""The machine that a model runs on."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from model_config import check_device
from processing.errors import PipelineError
from processing.parallel import this_process
from processing.terminal import say


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
        return str(error).splitlines()[0]
    return None


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread of the CPU: steps of so little work only lose by sharing it, and on a busy machine much."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
