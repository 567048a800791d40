"""The machine that a model runs on."""

from contextlib import contextmanager

import torch

from model_config import check_device
from processing.errors import PipelineError


def select_device(wanted="auto"):
    """The torch.device of that name; "auto" takes cuda, then mps, then cpu.

    Raises:
        ConfigError: no such name.
        PipelineError: this machine does not have it.
    """
    check_device(wanted)
    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if wanted == "auto":
        return torch.device(next(name for name, is_there in there.items() if is_there))
    device = torch.device(wanted)
    if not there[device.type] or (device.index or 0) >= max(1, torch.cuda.device_count()):
        names = ", ".join(name for name, is_there in there.items() if is_there)
        raise PipelineError(f"This machine (or this build of torch) has no {wanted}; it has {names}.")
    return device


@contextmanager
def one_thread():
    """Compute on one thread of the CPU: steps of so little work only lose by sharing it, and on a busy machine much."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
