"""One row per epoch -> history.csv -> loss plot. Stores and draws; computes no metric."""

import pandas as pd

from processing.files import write_csv
from processing.plots import plot_log


class History:
    """The epochs of a run.

    Args:
        table: path of history.csv.
        plot: path of the loss plot, drawn from history.csv.
    """

    def __init__(self, table, plot):
        self._table, self._plot = table, plot
        self._rows = []

    def add(self, **row):
        """Note an epoch: `epoch`, `loss`, `loss <part>` for each part."""
        self._rows.append(row)

    def save(self):
        """Write history.csv and redraw the plot from it."""
        write_csv(self._table, pd.DataFrame(self._rows))
        plot_log(self._table, self._plot)
