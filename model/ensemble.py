"""Several image models that answer as one: runs that differ in their seed, or in the fold that they left out."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from config import PATHS, Paths
from model.distribution import Judgement, answer_images, join_judgements


class Ensemble:
    """Image models that tell distributions; answers as one of them does.

    Args:
        members: of model.registry, with `judge`; one or more.
    """

    def __init__(self, members: Sequence[Any]):
        self.members = list(members)

    @property
    def means(self) -> dict[str, dict[str, float]]:
        """Those of the first."""
        return self.members[0].means

    def judge(self, rows: pd.DataFrame, paths: Paths = PATHS, *, label: str = "predict") -> Judgement:
        """The mean of the members' distributions, and of their findings' logits. Arguments as of a model's predict."""
        count = len(self.members)
        return join_judgements([member.judge(rows, paths, label=f"{label}, {number} of {count}")
                                for number, member in enumerate(self.members, start=1)])

    def predict(self, rows: pd.DataFrame, paths: Paths = PATHS, *, label: str = "predict") -> pd.DataFrame:
        """The answers of `judge`, as of one model."""
        return answer_images(self.judge(rows, paths, label=label))
