"""Work on all cores, in order: threads suffice, since decoding, encoding and checksums let Python's lock go.

And which process this is, where torchrun started several (model/distributed.py).
"""

import ctypes
import os
import platform
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

CORES = os.cpu_count() or 1
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4     # glibc's malloc.h

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Process:
    """Which of several processes this one is."""

    rank: int           # among all, from 0
    local_rank: int     # among those on this machine, from 0
    count: int          # of all


def this_process() -> Process:
    """This process, as torchrun's variables say; the only one where torchrun did not start it."""
    values = [os.environ.get(name, "") for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE")]
    is_started_by_it = "MASTER_ADDR" in os.environ and all(value.isdecimal() for value in values)
    return Process(*map(int, values)) if is_started_by_it else Process(0, 0, 1)


def map_in_threads(function: Callable[[Item], Result], items: Iterable[Item], *, threads: int = CORES, ahead: int = 2
                   ) -> Generator[Result, None, None]:
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
    pool = ThreadPoolExecutor(threads)
    pending: deque[Future[Result]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > threads * ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def one_image_per_thread() -> Iterator[None]:
    """While images are worked on by many threads, let OpenCV take one thread for each: faster than many an image.

    The memory of one image is kept for the next (keep_freed_memory; that stays so afterwards).
    """
    import cv2  # here: the menu, too, imports this module

    keep_freed_memory()
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)


def keep_freed_memory() -> None:
    """Let glibc keep the memory that is freed, for the next image or step, instead of giving it back to the system.

    A step of the image model on a CPU takes and frees gigabytes, a screen megabytes; fetching them anew page by page
    costs more than the arithmetic (measured on 2 cores: 23 images a second are trained on without this, 56 with it).
    Does nothing where the C library is another.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
