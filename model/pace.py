"""Something that is done again and again, kept to a share of the time. Reads and writes nothing."""

import time
from typing import Any


class Pace:
    """Says when it is due again; a context manager around the doing.

    Args:
        share: of the time, that it may take.
    """

    def __init__(self, share: float):
        self._share, self._next = share, 0.0

    def is_due(self) -> bool:
        """Whether enough time has passed since it was done last."""
        return time.monotonic() >= self._next

    def __enter__(self) -> None:
        self._started = time.monotonic()

    def __exit__(self, *_: Any) -> None:
        ended = time.monotonic()
        self._next = ended + (ended - self._started) / self._share
