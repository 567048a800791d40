"""The machine that a model runs on."""

import ctypes
import platform
from contextlib import contextmanager

import torch

from model_config import check_device
from processing.errors import PipelineError

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4     # glibc's malloc.h


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


def keep_freed_memory():
    """Let glibc keep the memory that torch frees, for the next step, instead of giving it back to the system.

    A step of the image model on a CPU takes and frees gigabytes; fetching them anew page by page costs more
    than the arithmetic (measured on 2 cores at batch 16: 20 images a second without, 60 with this).
    Does nothing where the C library is another.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
