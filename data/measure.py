"""Option 11, without files: measure every image of the data set.

Reads data/processed/csv/image_data.csv and the screens; writes measures.csv with the columns of model/measures.py, and
measures.png.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from config import PATHS, Paths
from data.measuring import COLUMNS, NUMBERS, build_table, load_network, measure_each, say_problems, say_scale, tabulate
from model.pace import Pace
from model.segmentation_model import SegmentationNetwork
from processing import columns as c
from processing.bscans import read_bscan
from processing.errors import PipelineError
from processing.files import describe_file, try_to_write, write_csv
from processing.tables import read_measures, read_processed
from processing.terminal import find_stop, progress, say

SAVE_SHARE = 0.03                               # of the time, that may go into writing what was measured so far
SAVE_EACH = 100                                 # scans: not asked more often whether it is time
SHEET_SCANS = 12


def measure_all(paths: Paths = PATHS, *, run: str | None = None, device: str = "auto", unfinished: bool = False
                ) -> Path:
    """Option 11 without files: measure every image of image_data.csv; what is measured and unchanged is left alone.

    Args:
        paths: config.Paths.
        run: run folder or checkpoint file of Model-Segmentation; None: config.CHECKPOINTS', else the weights that come
            with the program.
        device: where it computes.
        unfinished: whether a run that is not finished will do.

    Returns:
        measures.csv.

    Raises:
        PipelineError: no processed data, no such run or device.
    """
    images = read_processed(paths.image_table, c.IMAGE_COLUMNS)
    files = images[c.SOURCE].tolist()
    network, weights = load_network(paths, run, device, unfinished)
    states = {file: [*describe_file(paths.root / file), weights] for file in files}
    rows = _read_known(_beside(paths.measures), states) | _read_known(paths.measures, states)
    missing = [file for file in files if file not in rows]
    try:
        _measure_missing(network, missing, paths, rows, states)
    except BaseException as error:
        (find_stop(error) or error).add_note(
            f"{len(rows)} of {len(files)} images are measured; option 11 goes on with the others.")
        raise
    finally:
        _save_at_last(paths, files, rows)
    table = build_table([rows[file] for file in files], [*COLUMNS, *c.MEASURED_STATE])
    if missing or not paths.measures_picture.is_file():
        names = dict(zip(files, images[c.PATIENT] + " " + images[c.INJECTION] + " " + images[c.IMAGE], strict=True))
        try_to_write(paths.measures_picture, lambda: _draw_sheet(paths, network, table, names))
    say_problems(table)
    say_scale(table)
    say(f"{len(table)} images are measured, {len(missing)} of them now: {paths.measures}; {paths.measures_picture}")
    return paths.measures


def _measure_missing(network: SegmentationNetwork, missing: list[str], paths: Paths, rows: dict[str, dict[str, Any]],
                     states: dict[str, list[str]]) -> None:
    """Measure files into `rows`, and write the table now and then."""
    pace = Pace(SAVE_SHARE)
    results = measure_each(network, missing, lambda file: read_bscan(paths.root / file))
    for done, measured in enumerate(progress(results, total=len(missing), label="measure", unit="scan"), start=1):
        rows[measured.file] = tabulate(measured) | dict(zip(c.MEASURED_STATE, states[measured.file], strict=True))
        if done % SAVE_EACH == 0 and pace.is_due():
            with pace:
                _try_to_save(paths.measures, list(states), rows)


def _try_to_save(table: Path, files: list[str], rows: dict[str, dict[str, Any]]) -> None:
    try:
        _save(table, files, rows)
    except PipelineError as error:          # a spreadsheet has it open, say
        say(f"{error} The measuring goes on, and it is tried again.")


def _save_at_last(paths: Paths, files: list[str], rows: dict[str, dict[str, Any]]) -> None:
    """Write the table; where that is refused, a file beside it, from which the next run goes on."""
    beside = _beside(paths.measures)
    try:
        _save(paths.measures, files, rows)
    except PipelineError as error:
        _save(beside, files, rows)
        raise PipelineError(f"{error} What was measured is kept in {beside}. Close what has the table open, and run "
                            "option 11 again.") from error
    beside.unlink(missing_ok=True)


def _beside(table: Path) -> Path:
    return table.with_stem(f"{table.stem}-unsaved")


def _save(table: Path, files: list[str], rows: dict[str, dict[str, Any]]) -> None:
    known = [rows[file] for file in files if file in rows]
    if known:
        write_csv(table, build_table(known, [*COLUMNS, *c.MEASURED_STATE]))


def _read_known(table: Path, states: dict[str, list[str]]) -> dict[str, dict[str, Any]]:
    """The rows of a measures.csv that hold still: the file could be read and has not changed, nor have the weights."""
    if not table.is_file():
        return {}
    try:
        known = read_measures(table, NUMBERS)
    except PipelineError as error:
        say(f"{error}\nAll scans are measured anew.")
        return {}
    return {row[c.FILE]: row for row in known.to_dict("records")
            if [row[name] for name in c.MEASURED_STATE] == states.get(row[c.FILE])
            and row[c.PROBLEM] in ("", c.NO_RETINA, c.CUT_OFF, c.NO_MIDDLE)}


def _draw_sheet(paths: Paths, network: SegmentationNetwork, table: pd.DataFrame, names: dict[str, str]) -> None:
    """A dozen scans, thin to thick; `names` of all files."""
    from processing.overlays import draw_sheet, paint_scan

    whole = table[(table[c.PROBLEM] == "") & table["thickness_fovea_um"].notna()].sort_values("thickness_fovea_um")
    if whole.empty:
        return
    chosen = whole.iloc[np.unique(np.linspace(0, len(whole) - 1, SHEET_SCANS).round().astype(int))]
    readings = network.read(read_bscan(paths.root / file) for file in chosen[c.FILE])
    pictures = [
        (f"{names[row[c.FILE]]}: {row['thickness_fovea_um']:.0f} µm",
         paint_scan(scan.pixels, reading.ilm_row, reading.bm_row, reading.fluids))
        for row, (scan, reading) in zip(chosen.to_dict("records"), readings, strict=True)
    ]
    draw_sheet(paths.measures_picture, pictures,
               f"{len(pictures)} of {len(table)} scans, by their thickness at the thinnest point near the middle")
