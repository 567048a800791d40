"""One row per epoch -> history.csv -> loss plot. Stores and draws; computes no metric."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from processing.errors import PipelineError
from processing.files import write_csv
from processing.tables import read_history
from processing.terminal import raise_stop, say


class History:
    """The epochs of a run.

    Args:
        table: path of history.csv.
        plot: path of the loss plot, drawn from history.csv.
    """

    def __init__(self, table: Path, plot: Path):
        self._table, self._plot = table, plot
        self._failed: set[Path] = set()         # what could not be written last time
        self._epochs = 0                        # how many are to be in the table
        self._rows: list[dict[str, float]] = []

    def load(self, epochs: int) -> None:
        """Take up the rows of the history.csv that is there, up to that epoch; without it the curves begin anew."""
        try:
            table = read_history(self._table)
        except PipelineError as error:
            say(f"{error}\nThe run goes on from its checkpoint; its curves begin with epoch {epochs + 1}.")
        else:
            self._rows = table[table["epoch"] <= epochs].to_dict("records")

    def add(self, **row: float) -> None:
        """Note an epoch: `epoch`, `loss`, `loss <part>` for each part."""
        self._rows.append(row)

    def save(self, epochs: int) -> None:
        """Write the rows up to that epoch to history.csv. Where that fails, it is said, once."""
        self._epochs = epochs
        rows = [row for row in self._rows if row["epoch"] <= epochs]
        self._try(self._table, lambda: write_csv(self._table, pd.DataFrame(rows)))

    def draw(self) -> None:
        """Draw the loss plot from history.csv, if there is an epoch in it. Where that fails, it is said, once."""
        if self._table in self._failed:
            self.save(self._epochs)

        def draw() -> None:
            from processing.plots import plot_log  # matplotlib takes long to load; the first batch need not wait

            plot_log(self._table, self._plot)

        if self._table.is_file() and self._table not in self._failed:
            self._try(self._plot, draw)

    def _try(self, file: Path, write: Callable[[], None]) -> None:
        """What is for looking at is no reason to end a training, whatever fails."""
        try:
            write()
            self._failed.discard(file)
        except Exception as error:
            raise_stop(error)
            if file not in self._failed:
                say(f"{file} is not written ({error}); it is tried again later, and the training goes on.")
            self._failed.add(file)
