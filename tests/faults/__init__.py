"""The long counts: faults made by the hundred, and how many of them the program withstood.

    python -m tests.faults              all of them, one line per figure
    python -m tests.faults images menu  those of these modules
    python -m tests.faults --share 0.05 a twentieth of each count

Each module has FIGURES, a list of functions of a count's share (0-1) and a temporary folder that return a Figure.
"""

from typing import NamedTuple

from tests.warm import CONTEXT as CLEAN  # noqa: F401 - none of its processes has threads of this one


class Figure(NamedTuple):
    """One line of the report."""

    text: str       # what was done
    cases: int      # how often
    held: int       # how often the program did what it must
    detail: str = ""

    @property
    def good(self):
        """Whether every case held, and there was one."""
        return self.held == self.cases > 0

    def __str__(self):
        return f"{'ok  ' if self.good else 'FAIL'} {self.text}: {self.held} of {self.cases}" + (
            f" ({self.detail})" if self.detail else ""
        )


def scaled(count, share):
    """`count` cases, or the share of them that is asked for, at least one."""
    return max(1, round(count * share))
