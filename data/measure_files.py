"""Option 11, with files: measure anybody's screens or bare B-scans, and draw what was read on each.

Writes measures.csv and a picture of each scan; for lines whose places are known also etdrs.csv and etdrs.png.
"""

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from itertools import count
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
import pandas as pd

from config import PATHS, Paths
from data.measuring import (
    COLUMNS,
    build_table,
    format_measure,
    load_network,
    measure_each,
    say_problems,
    say_scale,
    say_table,
    tabulate,
)
from model.etdrs import Volume, average_fields, map_thickness, place_columns, read_volume
from model.measures import ScanReading, explain, measure_scan, measure_thickness
from processing import columns as c
from processing.bscans import Bscan, read_bscan
from processing.errors import PipelineError
from processing.files import TIME_STAMP, try_to_write, write_csv
from processing.images import ImageError, read_image
from processing.pasted import read_path, show
from processing.screens import SCREEN
from processing.source import is_image
from processing.terminal import find_stop, progress, say

PICTURE, MAP = "-measured.png", "etdrs.png"      # how the pictures' names end; what the map is called


def measure_files(files: Sequence[str], paths: Paths = PATHS, *, out: str | None = None, um_down: float | None = None,
                  um_across: float | None = None, lines: str | None = None, run: str | None = None,
                  device: str = "auto", unfinished: bool = False) -> Path:
    """Option 11 with files: measure anybody's screens or bare B-scans, and draw what was read on each.

    Args:
        files: files or folders as the user named them; those that `lines` names are measured, too.
        paths: config.Paths.
        out: folder to write to; None: a folder `measured` beside the first.
        um_down, um_across: scale of a pixel where a screen's scale bars say no other; None: the Spectralis'.
        lines: JSON file that says where the scans lie (model.etdrs.read_volume): a map and the nine fields are made.
        run, device, unfinished: as of measure_all.

    Returns:
        The folder with measures.csv and the pictures.

    Raises:
        PipelineError: a file that is not there, no image among them, no such run or device, a faulty `lines`, a folder
            that cannot be written to, not one file that can be read.
    """
    json_file = Path(read_path(lines)) if lines else None
    volume = read_volume(json_file) if json_file else None
    named = [Path(read_path(file)) for file in files]
    beside = named[0] if named else json_file or Path()
    folder = Path(read_path(out)) if out else (beside if beside.is_dir() else beside.parent) / "measured"
    found = _find_images(named)
    if volume and json_file:
        um_down, um_across = um_down or volume.um_down, um_across or volume.um_across
        known = {file.resolve() for file in found}
        found += [file for line in volume.lines if (file := json_file.parent / line.bscan).resolve() not in known
                  and (file.is_file() or not named)]        # they may be among the named ones, from another folder
    if not found:
        raise PipelineError(f"No JPEG or PNG in {', '.join(map(show, files))}. Name scans, or a folder of them.")
    _try_folder(folder)
    network, _ = load_network(paths, run, device, unfinished)
    names, rows, curves = _name_pictures(found), [], {}
    results = measure_each(network, map(str, found),
                            lambda file: read_bscan(Path(file), um_down=um_down, um_across=um_across))
    table = folder / "measures.csv"
    try:
        for measured in progress(results, total=len(found), label="measure", unit="scan"):
            rows.append(tabulate(measured))
            if measured.scan is not None and measured.reading is not None:
                file, picture = Path(measured.file), folder / names[measured.file]
                curves[file.resolve()] = _find_curve(measured.scan, measured.reading, measured.problem)
                try_to_write(picture, partial(draw_picture, picture, file.name, measured.scan, measured.reading))
    except BaseException as error:
        (find_stop(error) or error).add_note(f"{len(rows)} of {len(found)} scans are measured: {folder}")
        raise
    finally:                                # what was measured before an interruption is not lost
        if rows:
            table = _tell_files(table, build_table(rows, COLUMNS), um_down, um_across)
    if not curves:
        raise PipelineError(f"None of the files can be read as a B-scan; {table} says why of each.")
    if volume and json_file:
        _write_volume(folder, volume, curves, json_file.parent)
    say(f"Measures and pictures: {folder}")
    return folder


def _tell_files(file: Path, table: pd.DataFrame, um_down: float | None, um_across: float | None) -> Path:
    """Say what was measured, and write it. Returns the file that was written."""
    say_table(table)
    say_problems(table)
    say_scale(table, " Another one is given by --um-down and --um-across.")
    others = [(table[name] - given).abs() > 1e-4 for name, given in (("um_down", um_down), ("um_across", um_across))
              if given is not None]
    contradicted = int((np.any(others, axis=0) & (table["scale"] == "scale bars")).sum()) if others else 0
    if contradicted:
        say(f"{contradicted} of {len(table)} scans have scale bars that say another scale than was given; the bars "
            "count.")
    try:
        write_csv(file, table)
    except PipelineError as error:          # a spreadsheet has it open, say
        file = file.with_stem(f"{file.stem}-{datetime.now().strftime(TIME_STAMP)}")
        write_csv(file, table)
        say(f"{error} The table is {file} instead.")
    return file


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
    if np.isnan(list(fields.values())).all():
        x, y = volume.centre_mm
        raise PipelineError(f"Within 3 mm of the centre ({x:g}, {y:g} mm) too little was read for any field; there is "
                            "no map. Is the centre right, and are there lines on both sides of it?")
    write_csv(folder / "etdrs.csv", pd.DataFrame(fields.items(), columns=["field", "thickness_um"]).round(1))
    picture, eye = folder / MAP, "right" if volume.is_right else "left"
    title = f"{len(drawn) - len(absent)} lines, {eye} eye: means of the ETDRS fields"
    fundus, edges = _find_fundus(volume, beside)
    try_to_write(picture, lambda: draw_map(picture, title, found, fields, is_right=volume.is_right, fundus=fundus,
                                           fundus_mm=edges))
    say("ETDRS fields (µm): " + ", ".join(f"{name} {format_measure(name, value)}" for name, value in fields.items())
        + f"; centre point {format_measure('', found[len(found) // 2, len(found) // 2])}")


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
