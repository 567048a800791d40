"""Work on all cores, in order: threads suffice, since decoding, encoding and checksums let Python's lock go.

And which process this is, where torchrun started several (model/distributed.py).
"""

import ctypes
import os
import platform
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

CORES = os.cpu_count() or 1
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4     # glibc's malloc.h


class Process(NamedTuple):
    """Which of several processes this one is."""

    rank: int           # among all, from 0
    local_rank: int     # among those on this machine, from 0
    count: int          # of all


def this_process() -> Process:
    """This process, as torchrun's variables say; the only one where torchrun did not start it."""
    values = [os.environ.get(name, "") for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE")]
    is_started_by_it = "MASTER_ADDR" in os.environ and all(value.isdecimal() for value in values)
    return Process(*map(int, values)) if is_started_by_it else Process(0, 0, 1)


RANK, LOCAL_RANK, PROCESSES = this_process()
OWN_SHARE = slice(RANK, None, PROCESSES)    # of a list that all processes have


def map_in_threads(function, items, *, threads=CORES, ahead=2):
    """`function` of each item, in the order of the items.

    Args:
        function: of one item; an exception of it is raised where its result would come.
        items: iterable, taken only as fast as results are; so memory does not grow with their number.
        threads: how many work at once; 0: none but the caller's, when a result is asked for.
        ahead: results per thread that are computed before they are asked for.

    Yields:
        Results. When the consumer stops early, what has not begun is not done.
    """
    if threads == 0:
        yield from map(function, items)
        return
    pool, pending = ThreadPoolExecutor(threads), deque()
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > threads * ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def keep_freed_memory():
    """Let glibc keep the memory that is freed, for the next image or step, instead of giving it back to the system.

    A step of the image model on a CPU takes and frees gigabytes, a screen megabytes; fetching them anew page by page
    costs more than the arithmetic (measured on 2 cores: 23 images a second are trained on without this, 56 with it).
    Does nothing where the C library is another.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
