"""Option 11: read B-scans, and measure them.

Reads data/processed/csv/image_data.csv and the screens, or files that are named; writes measures.csv with the columns
of model/measures.py, and pictures.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from config import CHECKPOINTS, PATHS, Paths
from model.device import select_device
from model.etdrs import Volume, average_fields, map_thickness, place_columns, read_volume
from model.measures import MEASURES, ScanReading, explain, measure_scan, measure_thickness
from model.pace import Pace
from model.registry import load_model
from model.runs import resolve_checkpoint
from model.segmentation_model import WEIGHTS, SegmentationNetwork
from processing import columns as c
from processing.bscans import UM_ACROSS, UM_DOWN, Bscan, read_bscan
from processing.errors import PipelineError
from processing.files import describe_file, try_to_write, write_csv
from processing.images import ImageError, read_image
from processing.parallel import map_in_threads
from processing.pasted import read_path, show
from processing.screens import SCREEN
from processing.source import is_image
from processing.tables import read_measures, read_processed
from processing.terminal import progress, say

NAME = "Model-Segmentation"
NUMBERS = [*MEASURES, "um_down", "um_across"]
PICTURE, MAP = "-measured.png", "etdrs.png"      # how the pictures' names end; what the map is called
COLUMNS = [c.FILE, *NUMBERS, "scale", c.PROBLEM]        # of measures.csv
SAVE_SHARE = 0.03                               # of the time, that may go into writing what was measured so far
SAVE_EACH = 100                                 # scans: not asked more often whether it is time
SHEET_SCANS = 12
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


# ---- Every image of the data set

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
    network, weights = _load_network(paths, run, device, unfinished)
    states = {file: [*describe_file(paths.root / file), weights] for file in files}
    rows = _read_known(paths.measures, states)
    missing = [file for file in files if file not in rows]
    try:
        _measure_missing(network, missing, paths, rows, states)
    finally:
        _save(paths, files, rows)
    table = _build_table([rows[file] for file in files], [*COLUMNS, *c.MEASURED_STATE])
    if missing or not paths.measures_picture.is_file():
        names = dict(zip(files, images[c.PATIENT] + " " + images[c.INJECTION] + " " + images[c.IMAGE], strict=True))
        try_to_write(paths.measures_picture, lambda: _draw_sheet(paths, network, table, names))
    _say_problems(table)
    _say_scale(table)
    say(f"{len(table)} images are measured, {len(missing)} of them now: {paths.measures}; {paths.measures_picture}")
    return paths.measures


def _measure_missing(network: SegmentationNetwork, missing: list[str], paths: Paths, rows: dict[str, dict[str, Any]],
                     states: dict[str, list[str]]) -> None:
    """Measure files into `rows`, and write the table now and then."""
    pace = Pace(SAVE_SHARE)
    results = measure_each(network, missing, lambda file: read_bscan(paths.root / file))
    for done, measured in enumerate(progress(results, total=len(missing), label="measure", unit="scan"), start=1):
        rows[measured.file] = _tabulate(measured) | dict(zip(c.MEASURED_STATE, states[measured.file], strict=True))
        if done % SAVE_EACH == 0 and pace.is_due():
            with pace:
                _try_to_save(paths, list(states), rows)


def _try_to_save(paths: Paths, files: list[str], rows: dict[str, dict[str, Any]]) -> None:
    try:
        _save(paths, files, rows)
    except PipelineError as error:          # a spreadsheet has it open, say
        say(f"{error} The measuring goes on, and it is tried again.")


def _save(paths: Paths, files: list[str], rows: dict[str, dict[str, Any]]) -> None:
    known = [rows[file] for file in files if file in rows]
    write_csv(paths.measures, _build_table(known, [*COLUMNS, *c.MEASURED_STATE]))


def _read_known(table: Path, states: dict[str, list[str]]) -> dict[str, dict[str, Any]]:
    """The rows of measures.csv that hold still: the file could be read and has not changed, nor have the weights."""
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


# ---- Files that a user names

def measure_files(files: Sequence[str], paths: Paths = PATHS, *, out: str | None = None, um_down: float | None = None,
                  um_across: float | None = None, lines: str | None = None, run: str | None = None,
                  device: str = "auto", unfinished: bool = False) -> Path:
    """Option 11 with files: measure anybody's screens or bare B-scans, and draw what was read on each.

    Args:
        files: files or folders as the user named them; none: those that `lines` names.
        paths: config.Paths.
        out: folder to write to; None: a folder `measured` beside the first.
        um_down, um_across: scale of a pixel; None: by a screen's scale bars, else the Spectralis'.
        lines: JSON file that says where the scans lie (model.etdrs.read_volume): a map and the nine fields are made.
        run, device, unfinished: as of measure_all.

    Returns:
        The folder with measures.csv and the pictures.

    Raises:
        PipelineError: a file that is not there, no image among them, no such run or device, a faulty `lines`, a folder
            that cannot be written to.
    """
    json_file = Path(read_path(lines)) if lines else None
    volume = read_volume(json_file) if json_file else None
    named = [Path(read_path(file)) for file in files]
    beside = named[0] if named else json_file or Path()
    folder = Path(read_path(out)) if out else (beside if beside.is_dir() else beside.parent) / "measured"
    found = _find_images(named)
    if volume and json_file:
        um_down, um_across = um_down or volume.um_down, um_across or volume.um_across
        found = found or [json_file.parent / line.bscan for line in volume.lines]
    if not found:
        raise PipelineError(f"No JPEG or PNG in {', '.join(map(show, files))}. Name scans, or a folder of them.")
    _try_folder(folder)
    network, _ = _load_network(paths, run, device, unfinished)
    names, rows, curves = _name_pictures(found), [], {}
    results = measure_each(network, map(str, found),
                            lambda file: read_bscan(Path(file), um_down=um_down, um_across=um_across))
    try:
        for measured in progress(results, total=len(found), label="measure", unit="scan"):
            rows.append(_tabulate(measured))
            if measured.scan is not None and measured.reading is not None:
                file, picture = Path(measured.file), folder / names[measured.file]
                curves[file.resolve()] = _find_curve(measured.scan, measured.reading, measured.problem)
                try_to_write(picture, partial(draw_picture, picture, file.name, measured.scan, measured.reading))
    finally:                                # what was measured before an interruption is not lost
        if rows:
            _tell_files(folder, _build_table(rows, COLUMNS))
    if volume and json_file:
        _write_volume(folder, volume, curves, json_file.parent)
    say(f"Measures and pictures: {folder}")
    return folder


def _tell_files(folder: Path, table: pd.DataFrame) -> None:
    _say_table(table)
    _say_problems(table)
    _say_scale(table)
    write_csv(folder / "measures.csv", table)


def _try_folder(folder: Path) -> None:
    """Make the folder, and see that files can be made in it, before the work."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise PipelineError(f"{show(folder)} cannot be written to: {error.strerror or error}. Name another folder with "
                            "--out.") from error


def _find_images(named: list[Path]) -> list[Path]:
    """The images that are meant: files as they are, folders with all that is in them but pictures of this option."""
    found: list[Path] = []
    for path in named:
        if path.is_dir():
            found += [file for file in sorted(path.rglob("*")) if is_image(file) and file.is_file()
                      and not file.name.endswith(PICTURE) and file.name != MAP]
        elif path.is_file():
            found.append(path)
        else:
            raise PipelineError(f"{show(path)} is not there; name scans, or a folder of them.")
    return list(dict.fromkeys(found))


def _name_pictures(files: list[Path]) -> dict[str, str]:
    """A name of its own for the picture of each file, which none of the files has."""
    names: dict[str, str] = {}
    taken = {file.name.lower() for file in files}
    for file in files:
        free = (f"{file.stem}{'' if number == 1 else f'-{number}'}{PICTURE}" for number in count(1))
        names[str(file)] = next(name for name in free if name.lower() not in taken)
        taken.add(names[str(file)].lower())
    return names


def _find_curve(scan: Bscan, reading: ScanReading, problem: str) -> np.ndarray:
    """Thickness along a scan (W, um); NaN where it was not read, everywhere where no retina was found."""
    curve = measure_thickness(reading, scan.um_down)
    return np.full_like(curve, np.nan) if problem == c.NO_RETINA else curve


def draw_picture(file: Path, name: str, scan: Bscan, reading: ScanReading) -> None:
    """Draw a scan with what was read of it, and its thickness.

    Args:
        file: the PNG to write.
        name: of the scan.
        scan, reading: of the network.
    """
    from processing.overlays import draw_scan, paint_scan

    measures = measure_scan(scan, reading)
    problem = explain(measures)
    said = problem or (f"thinnest near the middle {measures['thickness_fovea_um']:.0f} µm, middle "
                       f"{measures['thickness_middle_um']:.0f} µm")
    curve = _find_curve(scan, reading, problem)
    if problem == c.NO_RETINA:
        reading = reading._replace(ilm_row=curve, bm_row=curve, fluids={})
    draw_scan(file, f"{name}: {said}", paint_scan(scan.pixels, reading.ilm_row, reading.bm_row, reading.fluids),
              curve, scan.um_across)


def _write_volume(folder: Path, volume: Volume, curves: dict[Path, np.ndarray], beside: Path) -> None:
    """etdrs.csv and etdrs.png of lines whose places are known."""
    from processing.overlays import draw_map

    drawn = [(line, _find_line(beside / line.bscan, curves)) for line in volume.lines]
    absent = [line.bscan for line, curve in drawn if np.isnan(curve).all()]
    if len(absent) == len(drawn):
        raise PipelineError("No line has a scan that could be read; there is no map.")
    if absent:
        say(f"{len(absent)} of {len(drawn)} lines have no scan that could be read ({absent[0]}); the map is made "
            "without them.")
    places = np.concatenate([place_columns(line, len(curve)) for line, curve in drawn])
    found = map_thickness(places, np.concatenate([curve for _, curve in drawn]), volume.centre_mm)
    fields = average_fields(found, is_right=volume.is_right)
    write_csv(folder / "etdrs.csv", pd.DataFrame(fields.items(), columns=["field", "thickness_um"]).round(1))
    picture, eye = folder / MAP, "right" if volume.is_right else "left"
    title = f"{len(drawn) - len(absent)} lines, {eye} eye: means of the ETDRS fields"
    fundus, edges = _find_fundus(volume, beside)
    try_to_write(picture, lambda: draw_map(picture, title, found, fields, is_right=volume.is_right, fundus=fundus,
                                           fundus_mm=edges))
    say("ETDRS fields (µm): " + ", ".join(f"{name} {_format(name, value)}" for name, value in fields.items())
        + f"; centre point {_format('', found[len(found) // 2, len(found) // 2])}")


def _find_line(file: Path, curves: dict[Path, np.ndarray]) -> np.ndarray:
    """The curve of a line's scan: that file, or the only one of its name wherever it lies; NaN where there is none."""
    namesakes = [path for path in curves if path.name == file.name]
    chosen = file.resolve() if file.resolve() in curves else namesakes[0] if len(namesakes) == 1 else None
    return curves[chosen] if chosen else np.full(SCREEN[0], np.nan)


def _find_fundus(volume: Volume, folder: Path) -> tuple[np.ndarray | None, tuple[float, float, float, float] | None]:
    """The fundus picture beside the JSON file, red first, and its edges from the grid's middle, mm."""
    file = next((file for name in ("fundus.png", "fundus.jpg") if (file := folder / name).is_file()), None)
    if file is None or volume.fundus_um is None:
        return None, None
    try:
        image, (x, y) = read_image(file)[..., ::-1], volume.centre_mm
    except ImageError as error:
        say(f"{file}: {error}. The map is drawn without it.")
        return None, None
    high, wide = (length * volume.fundus_um / 1000 for length in image.shape[:2])
    return image, (-x, wide - x, high - y, -y)


# ---- Both

def _load_network(paths: Paths, run: str | None, device: str, unfinished: bool) -> tuple[SegmentationNetwork, str]:
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
        for file, scan in map_in_threads(try_to_read, files, threads=1, ahead=8):
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


def _tabulate(measured: Measured) -> dict[str, Any]:
    """A row of measures.csv."""
    scan = measured.scan
    numbers = {name: round(value, 4) for name, value in measured.measures.items()}
    row = dict.fromkeys(COLUMNS, np.nan) | numbers | {c.FILE: measured.file, "scale": "", c.PROBLEM: measured.problem}
    if scan:
        row |= {"um_down": round(scan.um_down, 4), "um_across": round(scan.um_across, 4), "scale": scan.scale}
    return row


def _build_table(rows: list[dict[str, Any]], columns: list[str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=columns).astype({"foci_count": "Int64"})


def _say_table(table: pd.DataFrame) -> None:
    shown = table.head(SHOWN_ROWS)
    width = min(48, max(len(Path(file).name) for file in shown[c.FILE]))
    say(f"{'file':<{width}} " + " ".join(f"{name:>10}" for name in SHOWN))
    for row in shown.to_dict("records"):
        cells = (_format(name, row[column]) for name, column in SHOWN.items())
        say(f"{Path(row[c.FILE]).name[-width:]:<{width}} " + " ".join(f"{cell:>10}" for cell in cells)
            + (f"  {row[c.PROBLEM]}" if row[c.PROBLEM] else ""))
    if len(table) > SHOWN_ROWS:
        say(f"... and {len(table) - SHOWN_ROWS} more")


def _format(name: str, value: float) -> str:
    if pd.isna(value):
        return "-"
    return f"{100 * value:.0f}" if name == "read %" else f"{value:.3f}" if "mm²" in name else f"{value:.0f}"


def _say_problems(table: pd.DataFrame) -> None:
    odd = table[table[c.PROBLEM] != ""]
    if len(odd):
        say(f"{len(odd)} of {len(table)} scans are not measured, or not wholly; see the column {c.PROBLEM}:")
        for file, problem in odd[[c.FILE, c.PROBLEM]].head(SHOWN_PROBLEMS).itertuples(index=False):
            say(f"  {file}: {problem}")


def _say_scale(table: pd.DataFrame) -> None:
    assumed = int(table["scale"].isin(["assumed", "given in part"]).sum())
    if assumed:
        say(f"{assumed} scans have no scale bars; the Spectralis' scale is assumed where none is given, {UM_DOWN} µm a "
            f"pixel down and {UM_ACROSS} across. Another one is given by --um-down and --um-across.")
