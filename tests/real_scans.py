"""How well Model-Segmentation reads scans: drawn ones that no training saw, and real ones, where those are at hand.

    python -m tests.real_scans                      one table, on the terminal
    python -m tests.real_scans --out FOLDER         overlays of every real scan as well, to be looked at
    python -m tests.real_scans --docs               the table into docs/measure.md as well
    python -m tests.real_scans --run RUN            of a run in place of the weights that come with the program

Nothing is fitted to the real scans (../shared/oct_real, ../shared/aptos2021); where they are not at hand, their rows
say so.
"""

import argparse
import csv
import json
import re
import sys
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch

from config import PATHS
from data.measure_files import draw_picture
from model.etdrs import FIELDS, average_fields, map_thickness, place_columns, read_volume
from model.lesson_score import measure_dice, score_lessons, stretch
from model.measures import LIKELY, explain, find_chance, measure_scan, measure_thickness
from model.metrics import auc_score
from model.registry import load_model
from model.runs import resolve_checkpoint
from model.segmentation_model import WEIGHTS
from processing.bscans import read_bscan
from processing.files import write_text
from processing.terminal import say
from tests.helpers import REPOSITORY

SHARED = REPOSITORY.parent / "shared"
DOCS = REPOSITORY / "docs" / "measure.md"
# Of the device of masks/, whose scale nobody says: 420 rows for about 2 mm, 630 columns for about 6
OTHER_UM = (4.9, 9.5)


class Kind(NamedTuple):
    """What an annotator marked, and what of Model-Segmentation is laid beside it."""

    on: str
    marks: tuple[str, ...]      # columns of masks/index.csv, taken together; the first says which scans count
    fluids: tuple[str, ...]
    dice: str = ""              # wanted
    auc: str = ""


KINDS = (
    Kind("cysts (IRF)", ("cysts",), ("IRF",), "≥ 0.65", "≥ 0.97"),
    Kind("fluid (SRF)", ("fluid",), ("SRF",), "≥ 0.50", "≥ 0.95"),
    # In half of these scans it is (also) a cavity within the retina that he calls fluid; 21 show cysts as well
    Kind("fluid and cysts where fluid is marked (IRF/SRF/PED)", ("fluid", "cysts"), ("IRF", "SRF", "PED"),
         auc="≥ 0.95"),
    Kind("foci", ("foci",), ("foci",)),
)


class Row(NamedTuple):
    """A line of the table."""

    on: str
    what: str
    wanted: str
    found: str


def judge_drawn(network, count):
    """Scans that were drawn."""
    found = score_lessons(network, count)
    on = f"{count} drawn scans"
    yield Row(on, "membranes: mean error", "≤ 4 µm", f"{found['membranes_mean_um']:.2f} µm "
              f"(ILM {found['ilm_mean_um']:.2f}, BM {found['bm_mean_um']:.2f})")
    yield Row(on, "membranes: columns within 10 µm", "≥ 95 %", f"{found['membranes_within_10um']:.1%}")
    yield Row(on, "readable columns that were read; others that were", "", f"{found['readable_read']:.1%}; "
              f"{found['unreadable_read']:.1%}")
    for name, least in (("IRF", "≥ 0.85"), ("SRF", "≥ 0.85"), ("PED", "≥ 0.80"), ("foci", "")):
        yield Row(on, f"Dice of {name}", least, f"{found[f'{name}_dice']:.3f}")
    for name in ("IRF", "SRF", "PED", "foci"):
        yield Row(on, f"is there {name}? AUC", "≥ 0.97", f"{found[f'{name}_auc']:.3f}")


def judge_volume(network, folder, out):
    """Lines of an eye beside what the device itself measured."""
    truth = json.loads((folder / "volume.json").read_text())
    volume = read_volume(folder / "volume.json")
    places, thickness = [], []
    for line in volume.lines:
        scan = read_bscan(folder / line.bscan, um_down=volume.um_down, um_across=volume.um_across)
        (_, reading), = network.read([scan])
        show(out, line.bscan, scan, reading)
        thickness.append(measure_thickness(reading, scan.um_down))
        places.append(place_columns(line, len(thickness[-1])))
    found = map_thickness(np.concatenate(places), np.concatenate(thickness), volume.centre_mm)
    fields, device = average_fields(found, is_right=volume.is_right), truth["etdrs_mean_thickness_um"]
    off = {name: fields[name] / device[name] - 1 for name in FIELDS}
    on = "volume, a device's own grid"
    yield Row(on, "each field", "within 8 %", ", ".join(f"{name} {fields[name]:.0f} ({off[name]:+.1%})"
                                                        for name in FIELDS))
    yield Row(on, "mean of the nine deviations", "within 4 %", f"{np.mean(np.abs(list(off.values()))):.1%}; of the "
              f"nine fields' mean {np.mean(list(fields.values())) / np.mean(list(device.values())) - 1:+.1%}")
    point, own = found[len(found) // 2, len(found) // 2], truth["centre_point_thickness_um"]
    yield Row(on, "centre point", "within 7 %", f"{point:.0f} µm, the device {own} ({point / own - 1:+.1%})")


def judge_masks(network, folder, out):
    """Scans of another device beside an annotator's masks."""
    with (folder / "index.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    found = []
    for row in rows:
        place = next(folder.rglob(row["image"]))
        scan = read_bscan(place, um_down=OTHER_UM[0], um_across=OTHER_UM[1])
        (_, reading), = network.read([scan])
        show(out, f"{row['kind']}-{place.name}", scan, reading)
        found.append((row, scan, reading))
    for kind in KINDS:
        values, scores = [], []
        for row, _, reading in found:
            chances = np.minimum(sum(reading.fluids[name] for name in kind.fluids), 1)
            if row[kind.marks[0]]:
                masks = [cv2.imread(str(folder / row[mark]), cv2.IMREAD_GRAYSCALE) > 127
                         for mark in kind.marks if row[mark]]
                if masks[0].any():
                    mask = np.any(masks, axis=0)
                    values.append(measure_dice(mask, stretch(chances, mask.shape) >= LIKELY))
                    scores.append((1, find_chance(chances)))
            elif row["kind"] != "diseased":
                scores.append((0, find_chance(chances)))
        on = f"masks, {kind.on}"
        yield Row(on, f"Dice, mean over {len(values)} marked scans", kind.dice, f"{np.mean(values):.3f}")
        controls = sum(label == 0 for label, _ in scores)
        yield Row(on, f"AUC against {controls} scans of eyes without disease", kind.auc,
                  f"{auc_score(*np.array(scores).T):.3f}")
    unread = sum(bool(explain(measure_scan(scan, reading))) for _, scan, reading in found)
    yield Row("masks", f"scans not measured, or not wholly, of {len(found)}", "", f"{unread}")


def judge_screen(network, folder, out):
    """A whole screen of APTOS."""
    for file in sorted(folder.glob("*.jpg")):
        scan = read_bscan(file)
        (_, reading), = network.read([scan])
        show(out, file.name, scan, reading)
        found = measure_scan(scan, reading)
        on = f"APTOS screen {file.stem}"
        yield Row(on, "centre point", "216 to 228 µm", f"{found['thickness_fovea_um']:.0f} µm")
        fluid = sum(found[f"{name}_area_mm2"] for name in ("irf", "srf", "ped"))
        yield Row(on, "fluid", "none", f"{fluid:.3f} mm²")


def show(out, name, scan, reading):
    """Write the picture of a scan, if pictures are wanted."""
    if out:
        draw_picture(Path(out) / f"{Path(name).stem}.png", name, scan, reading)


def write_docs(rows):
    """Put the table between the marks in docs/measure.md."""
    lines = ["| on | what | wanted | found |", "|---|---|---|---|"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    marked = re.compile(r"(<!-- tests.real_scans -->\n).*?(<!-- end -->)", re.DOTALL)
    write_text(DOCS, marked.sub(lambda match: match[1] + "\n".join(lines) + "\n" + match[2],
                                DOCS.read_text(encoding="utf-8")))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run")
    parser.add_argument("--out")
    parser.add_argument("--docs", action="store_true")
    parser.add_argument("--drawn", type=int, default=500, help="how many drawn scans")
    arguments = parser.parse_args()
    file = resolve_checkpoint(PATHS, arguments.run, unfinished=True) if arguments.run else WEIGHTS
    network = load_model(file, torch.device("cpu"), unit="scans")
    rows = list(judge_drawn(network, arguments.drawn)) if arguments.drawn else []
    for judge, folder in ((judge_volume, SHARED / "oct_real" / "volume"), (judge_masks, SHARED / "oct_real" / "masks"),
                          (judge_screen, SHARED / "aptos2021" / "images")):
        if folder.is_dir():
            rows += judge(network, folder, arguments.out)
        else:
            rows.append(Row(folder.name, "not at hand", "", ""))
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    if arguments.docs:
        write_docs(rows)


if __name__ == "__main__":
    sys.exit(main())
