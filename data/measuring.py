"""Scans read and measured one after the other, and their table; for data.measure and data.measure_files."""

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from config import CHECKPOINTS, Paths
from model.device import select_device
from model.measures import MEASURES, ScanReading, explain, measure_scan
from model.registry import load_model
from model.runs import resolve_checkpoint
from model.segmentation_model import WEIGHTS, SegmentationNetwork
from processing import columns as c
from processing.bscans import UM_ACROSS, UM_DOWN, Bscan
from processing.images import ImageError
from processing.parallel import CORES, map_in_threads
from processing.terminal import say

NAME = "Model-Segmentation"
NUMBERS = [*MEASURES, "um_down", "um_across"]
COLUMNS = [c.FILE, *NUMBERS, "scale", c.PROBLEM]        # of measures.csv
CARD_READERS = 8                                # threads that read files for a card
SHOWN_ROWS, SHOWN_PROBLEMS = 40, 5              # on the terminal
SHOWN = {"middle µm": "thickness_middle_um", "fovea µm": "thickness_fovea_um", "IRF mm²": "irf_area_mm2",
         "SRF mm²": "srf_area_mm2", "PED mm²": "ped_area_mm2", "foci": "foci_count", "read %": "readable_share"}


class Measured(NamedTuple):
    """A file, and what came of it."""

    file: str
    problem: str                            # why it could not be measured, or not wholly; empty: it was
    measures: dict[str, float]              # of measure_scan; empty where the file could not be read
    scan: Bscan | None = None
    reading: ScanReading | None = None


def load_network(paths: Paths, run: str | None, device: str, unfinished: bool) -> tuple[SegmentationNetwork, str]:
    """The network, and what its weights are known by."""
    chosen = run or CHECKPOINTS.get(NAME)
    file = resolve_checkpoint(paths, chosen, unfinished=unfinished) if chosen else WEIGHTS
    network: Any = load_model(file, select_device(device), unit="scans")
    return network, hashlib.sha256(file.read_bytes()).hexdigest()[:16]


def measure_each(network: SegmentationNetwork, files: Iterable[str], read: Callable[[str], Bscan]
                  ) -> Iterator[Measured]:
    """Read and measure files, in order; any number, in the memory of a few.

    Args:
        network: that reads the scans.
        files: names.
        read: the B-scan of a name; it may raise ImageError.

    Yields:
        Measured.
    """
    waiting: deque[tuple[str, Bscan | ImageError]] = deque()        # read ahead of the network

    def try_to_read(file: str) -> tuple[str, Bscan | ImageError]:
        try:
            return file, read(file)
        except ImageError as error:
            return file, error

    def read_all() -> Iterator[Bscan]:
        # A CPU's cores read them as scans; a card waits for whoever reads files
        threads = 1 if network.device.type == "cpu" else min(CARD_READERS, CORES)
        for file, scan in map_in_threads(try_to_read, files, threads=threads, ahead=8):
            waiting.append((file, scan))
            if isinstance(scan, Bscan):
                yield scan

    for scan, reading in network.read(read_all()):
        yield from _pass_unread(waiting)
        measures = measure_scan(scan, reading)
        yield Measured(waiting.popleft()[0], explain(measures), measures, scan, reading)
    yield from _pass_unread(waiting)


def _pass_unread(waiting: deque[tuple[str, Bscan | ImageError]]) -> Iterator[Measured]:
    """Those at the front that could not be read."""
    while waiting and not isinstance(waiting[0][1], Bscan):
        file, error = waiting.popleft()
        yield Measured(file, str(error), {})


def tabulate(measured: Measured) -> dict[str, Any]:
    """A row of measures.csv."""
    scan = measured.scan
    numbers = {name: round(value, 4) for name, value in measured.measures.items()}
    row = dict.fromkeys(COLUMNS, np.nan) | numbers | {c.FILE: measured.file, "scale": "", c.PROBLEM: measured.problem}
    if scan:
        row |= {"um_down": round(scan.um_down, 4), "um_across": round(scan.um_across, 4), "scale": scan.scale}
    return row


def build_table(rows: list[dict[str, Any]], columns: list[str]) -> pd.DataFrame:
    """Rows of tabulate as a table with these columns."""
    return pd.DataFrame(rows, columns=columns).astype({"foci_count": "Int64"})


def say_table(table: pd.DataFrame) -> None:
    """Print what matters most of a table of COLUMNS, as far as it goes on a terminal."""
    shown = table.head(SHOWN_ROWS)
    width = min(48, max(len(Path(file).name) for file in shown[c.FILE]))
    say(f"{'file':<{width}} " + " ".join(f"{name:>10}" for name in SHOWN))
    for row in shown.to_dict("records"):
        cells = (format_measure(name, row[column]) for name, column in SHOWN.items())
        say(f"{Path(row[c.FILE]).name[-width:]:<{width}} " + " ".join(f"{cell:>10}" for cell in cells)
            + (f"  {row[c.PROBLEM]}" if row[c.PROBLEM] else ""))
    if len(table) > SHOWN_ROWS:
        say(f"... and {len(table) - SHOWN_ROWS} more")


def format_measure(name: str, value: float) -> str:
    """A number as a person reads it: `name` is of SHOWN, or empty for a thickness."""
    if pd.isna(value):
        return "-"
    return f"{100 * value:.0f}" if name == "read %" else f"{value:.3f}" if "mm²" in name else f"{value:.0f}"


def say_problems(table: pd.DataFrame) -> None:
    """Say how many scans of a table of COLUMNS are not measured wholly, and the first of them."""
    odd = table[table[c.PROBLEM] != ""]
    if len(odd):
        say(f"{len(odd)} of {len(table)} scans are not measured, or not wholly; see the column {c.PROBLEM}:")
        for file, problem in odd[[c.FILE, c.PROBLEM]].head(SHOWN_PROBLEMS).itertuples(index=False):
            say(f"  {file}: {problem}")


def say_scale(table: pd.DataFrame, remedy: str = "") -> None:
    """Say where a scale was assumed, which, and what can be done."""
    assumed = int(table["scale"].isin(["assumed", "given in part"]).sum())
    if assumed:
        say(f"{assumed} of {len(table)} scans have no scale bars: what is not given of their scale is assumed to be "
            f"that of the Spectralis, {UM_DOWN} µm a pixel down and {UM_ACROSS} across.{remedy}")
