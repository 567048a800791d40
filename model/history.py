"""One row per epoch -> history.csv -> loss plot. Stores and draws; computes no metric."""

import csv
from pathlib import Path

import pandas as pd

from processing.files import write_csv
from processing.terminal import say


class History:
    """The epochs of a run.

    Args:
        table: path of history.csv.
        plot: path of the loss plot, drawn from history.csv.
    """

    def __init__(self, table: Path, plot: Path):
        self._table, self._plot, self._is_drawn = table, plot, True
        self._rows: list[dict[str, float]] = []

    def load(self, epochs: int) -> None:
        """Take up the first `epochs` rows of the history.csv that is there."""
        with open(self._table, encoding="utf-8", newline="") as file:
            rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
        self._rows = [row | {"epoch": int(row["epoch"])} for row in rows if row["epoch"] <= epochs]

    def add(self, **row: float) -> None:
        """Note an epoch: `epoch`, `loss`, `loss <part>` for each part."""
        self._rows.append(row)

    def best(self) -> tuple[int, float] | None:
        """Epoch and held-out loss of the row where that is smallest, the earliest of equals; None without any."""
        rows = [(int(row["epoch"]), row["held-out loss"]) for row in self._rows if "held-out loss" in row]
        return min(rows, key=lambda row: row[1]) if rows else None

    def save(self, epochs: int) -> None:
        """Write the first `epochs` rows to history.csv."""
        write_csv(self._table, pd.DataFrame(self._rows[:epochs]))

    def draw(self) -> None:
        """Draw the loss plot from history.csv, if there is an epoch in it. Where that fails, it is said, once."""
        if not self._table.is_file():
            return
        try:
            from processing.plots import plot_log  # matplotlib takes long to load; the first batch need not wait

            plot_log(self._table, self._plot)
        except Exception as error:      # whatever it is, a picture is no reason to end a training
            if self._is_drawn:
                say(f"{self._plot} is not drawn ({error}); it is tried again later, and the training goes on.")
            self._is_drawn = False
        else:
            self._is_drawn = True
