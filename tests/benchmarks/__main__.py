"""Time each stage against a plain baseline on the same data, in turn, several times.

    python -m tests.benchmarks                                  the table for this machine
    python -m tests.benchmarks crop train_csv --repeats 5       some stages
    python -m tests.benchmarks predict --sizes 1000 5000 20000  cost against size, with a plot
    python -m tests.benchmarks train_image predict --device cuda --sizes 21715 --batch-size 100
    python -m tests.benchmarks train_image --device cuda --sizes 21715 --batch-size 100 --epochs 50 --only-ours
    python -m tests.benchmarks train_csv --device cuda --epochs 50000 --only-ours --repeats 1

The exit status is 1 if the two sides' answers differ: then no time of theirs is believed.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from config import VIEWS, Paths
from model.device import select_device
from model_config import PRECISIONS, ConfigError
from processing.errors import PipelineError
from tests.benchmarks.data import make_crops, make_screens
from tests.benchmarks.limits import estimate
from tests.helpers import REPOSITORY

# At the seed recipe's rate of 1e-3, Adam's first steps are the signs of gradients: from rounding alone, two float32
# programs part by 1e-2 within 20 steps. The default rate here is so small that what differs is what is computed.
# Stage -> default size, batch size, epochs; what the size counts; how far the answers may differ, relatively
STAGES = {
    "crop": (1000, 1, 1, "screens", 0.0),
    "crop_views": (1000, 1, 1, "screens", 0.0),
    "train_image": (320, 16, 1, "crops", 1e-4),
    "predict": (640, 16, 1, "crops", 1e-4),
    "measure": (300, 1, 1, "screens", 2e-3),
    "train_csv": (2400, 100, 200, "eyes", 1e-5),
    "start_up": (2400, 100, 1, "eyes", 1e-5),
    "start": (2000, 16, 1, "crops", 1e-5),
}
# Where the crops of earlier measurements wait for the end: for a minute, Linux's ext4 passes over the places of deleted
# files one by one whenever it makes a file, which takes longer than the file
AWAY = "away"


def main():
    """Measure, print a line per stage and size, write CSV and plot."""
    options = _parse()
    try:
        select_device(options.device)
    except (PipelineError, ConfigError) as error:
        print(error, file=sys.stderr)
        return 2
    good, table = True, []
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.data or Path(temporary)
        limits = estimate(make_screens(folder), select_device(options.device))
        for stage in options.stages or STAGES:
            for count in options.sizes or [STAGES[stage][0]]:
                settings = _settings(stage, count, options)
                row = (measure_ours if options.only_ours else measure)(stage, folder, settings, options.repeats)
                row |= _compare_with_limit(limits.get(stage), row)
                good &= row["answers agree"]
                table.append(row)
                print(describe(row), flush=True)
        shutil.rmtree(folder / AWAY, ignore_errors=True)
    table = pd.DataFrame(table)
    options.out.mkdir(parents=True, exist_ok=True)
    table.to_csv(options.out / "benchmarks.csv", index=False)
    draw(table, options.out / "benchmarks.png")
    print(f"Table and plot: {options.out.resolve()}")
    return 0 if good else 1


def _parse():
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks")
    parser.add_argument("stages", nargs="*", metavar="STAGE", help=f"some of {', '.join(STAGES)}")
    parser.add_argument("--sizes", type=_count, nargs="+", help="of the data; several: cost against size")
    parser.add_argument("--batch-size", type=_count, help="images or eyes per step")
    parser.add_argument("--epochs", type=_count, help="of the trainings")
    parser.add_argument("--learning-rate", type=float, default=1e-5, help="of the image training")
    parser.add_argument("--repeats", type=_count, default=3, help="of each measurement")
    parser.add_argument("--device", default="cpu", help="auto, cuda, mps or cpu")
    parser.add_argument("--precision", choices=PRECISIONS, default="float32", help="of this program's image training")
    parser.add_argument("--only-ours", action="store_true", help="no baseline, so no ratio and no comparison")
    parser.add_argument("--baseline-workers", type=int, default=0, help="processes of the baseline's DataLoader")
    parser.add_argument("--data", type=Path, help="folder for the synthetic data, to be used again")
    parser.add_argument("--out", type=Path, default=Path("benchmarks"), help="folder for benchmarks.csv and .png")
    options = parser.parse_args()
    unknown = set(options.stages) - set(STAGES)
    if unknown:
        parser.error(f"no such stage: {', '.join(sorted(unknown))}")
    return options


def _count(text):
    """A whole number, 1 or more."""
    if not (text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number, 1 or more")
    return int(text)


def _settings(stage, count, options):
    _, batch_size, epochs, _, _ = STAGES[stage]
    return {
        "count": count, "batch_size": options.batch_size or batch_size, "epochs": options.epochs or epochs,
        "learning_rate": options.learning_rate,
        "device": options.device, "precision": options.precision, "baseline_workers": options.baseline_workers,
    }


def measure(stage, folder, settings, repeats):
    """Both sides in turn: dict of medians, ratio and its spread, peak memory, and whether the answers agree."""
    _prepare(stage, folder, settings)
    pairs = []
    for _ in range(repeats):
        pairs.append([_run(stage, side, folder, settings) for side in ("baseline", "ours")])
    ratios = [baseline["seconds"] / ours["seconds"] for baseline, ours in pairs]
    theirs, own = np.array(pairs[0][0]["answer"]), np.array(pairs[0][1]["answer"])
    same_shape = len(own) == len(theirs)
    differ = float(np.max(np.abs(own - theirs) / np.maximum(np.abs(theirs), 1e-2))) if same_shape else np.inf
    tolerance = STAGES[stage][4] if settings["precision"] == "float32" else np.inf
    return _describe_ours(stage, settings, [ours for _, ours in pairs]) | {
        "baseline s": statistics.median(baseline["seconds"] for baseline, _ in pairs),
        "ratio": statistics.median(ratios), "ratio least": min(ratios), "ratio most": max(ratios),
        "baseline MB": max(baseline["peak_bytes"] for baseline, _ in pairs) / 1e6,
        "largest difference": differ, "answers agree": differ <= tolerance,
    }


def measure_ours(stage, folder, settings, repeats):
    """The same of this program alone: nothing to compare with."""
    _prepare(stage, folder, settings)
    return _describe_ours(stage, settings, [_run(stage, "ours", folder, settings) for _ in range(repeats)]) | {
        "answers agree": True,
    }


def _prepare(stage, folder, settings):
    if stage not in ("crop", "crop_views", "measure", "train_csv", "start_up"):
        make_crops(folder, settings["count"])


def _describe_ours(stage, settings, runs):
    return {
        "stage": stage, "size": settings["count"], "device": settings["device"], "precision": settings["precision"],
        "batch size": settings["batch_size"], "epochs": settings["epochs"],
        "ours s": statistics.median(run["seconds"] for run in runs),
        "ours MB": max(run["peak_bytes"] for run in runs) / 1e6,
        "card MB": max(run["card_bytes"] for run in runs) / 1e6,
        "card busy": statistics.median(run["card_busy"] for run in runs),
    }


def _run(stage, side, folder, settings):
    if stage.startswith("crop"):        # each time anew
        for view in VIEWS.values():
            _put_away(Paths(folder).view_folder(view), folder / AWAY)
    words = [sys.executable, "-m", "tests.benchmarks.stages", stage, side, str(folder), json.dumps(settings)]
    answer = subprocess.run(words, cwd=REPOSITORY, stdout=subprocess.PIPE, check=True, encoding="utf-8").stdout
    return json.loads(answer.strip().splitlines()[-1])


def _put_away(folder, away):
    away.mkdir(exist_ok=True)
    if folder.is_dir():
        folder.rename(away / str(len(list(away.iterdir()))))


def _compare_with_limit(limit, row):
    if limit is None:
        return {}
    rate = row["size"] * row["epochs"] / row["ours s"]
    return {"limit a second": limit[0], "share of the limit": rate / limit[0], "limit from": limit[1]}


def describe(row):
    """A row of the table as a line."""
    unit = STAGES[row["stage"]][3]
    work = row["size"] * row["epochs"]
    text = f"{row['stage']} {row['size']} {unit} x {row['epochs']} ({row['device']}, {row['precision']}): "
    ours = f"ours {row['ours s']:.2f} s ({work / row['ours s']:.0f}/s, {row['ours MB']:.0f} MB)"
    if "ratio" in row:
        text += (
            f"baseline {row['baseline s']:.2f} s ({work / row['baseline s']:.0f}/s, {row['baseline MB']:.0f} MB), "
            f"{ours}: {row['ratio']:.2f} times ({row['ratio least']:.2f}-{row['ratio most']:.2f}); answers differ by "
            f"{row['largest difference']:.1e}" + ("" if row["answers agree"] else ": TOO MUCH")
        )
    else:
        text += ours
    if row["card MB"]:
        text += f"; on the card {row['card MB']:.0f} MB, busy {row['card busy']:.0f} % of the time"
    if "limit a second" in row:
        text += (f"; limit {row['limit a second']:.0f}/s ({row['limit from']}), "
                 f"{100 * row['share of the limit']:.0f} % of it reached")
    return text


def draw(table, path):
    """Plot seconds against size, one panel per stage."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    stages = list(dict.fromkeys(table["stage"]))
    figure, axes = pyplot.subplots(1, len(stages), figsize=(4 * len(stages), 3.6), squeeze=False, layout="constrained")
    for axis, stage in zip(axes[0], stages, strict=True):
        rows = table[table["stage"] == stage].sort_values("size")
        for side, colour, mark in (("baseline", "tab:orange", "s--"), ("ours", "tab:blue", "o-")):
            if f"{side} s" in rows:
                axis.plot(rows["size"], rows[f"{side} s"], mark, color=colour, label=side)
        axis.set(title=stage, xlabel=STAGES[stage][3], ylabel="seconds", xscale="log", yscale="log")
        axis.grid(alpha=0.3)
        axis.legend()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


if __name__ == "__main__":
    sys.exit(main())
