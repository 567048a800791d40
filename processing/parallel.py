"""Work on all cores, in order: threads suffice, since decoding, encoding and checksums let Python's lock go."""

import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor

CORES = os.cpu_count() or 1


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
