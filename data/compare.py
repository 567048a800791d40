"""Option 9: the loss curves of runs over one another, labelled by what differs between their configs.

Reads run folders (config.json, history.csv); writes model/ckpt/compare-<time>.png.
"""

import dataclasses
from datetime import datetime
from itertools import count

import pandas as pd
from model.choice import find_path, run_folders

from config import PATHS
from model.run import read_config, read_record
from processing.errors import PipelineError
from processing.files import TIME_STAMP
from processing.plots import draw_comparison
from processing.terminal import say

RUNS_EACH = 2       # of a model, where none are named


def compare_runs(paths=PATHS, runs=None):
    """Option 9.

    Args:
        paths: config.Paths.
        runs: run folders as the user named them; None: the newest two of each model that have an epoch.

    Returns:
        Path of the picture.

    Raises:
        PipelineError: no run with an epoch, or one of those named is none.
    """
    folders = [_resolve(paths, run) for run in runs] if runs else _newest(paths)
    if not folders:
        raise PipelineError(f"No run in {paths.ckpt} has an epoch to compare. Options 1 to 3 train.")
    panels = [_describe_model(name, group) for name, group in _by_model(folders).items()]
    picture = _free_name(paths.ckpt / f"compare-{datetime.now().strftime(TIME_STAMP)}.png")
    draw_comparison(picture, [(name, [(label, history) for label, _, history in rows]) for name, rows in panels])
    say("\n".join(_table(panels)))
    say(f"Loss curves: {picture}")
    return picture


def _free_name(path):
    """`path`, or the same with -2, -3, ... behind it: an earlier picture of the same minute stays."""
    names = (path.with_stem(f"{path.stem}-{number}") for number in count(2))
    return path if not path.exists() else next(name for name in names if not name.exists())


def _newest(paths):
    names = sorted(folder.name for folder in paths.ckpt.iterdir() if folder.is_dir()) if paths.ckpt.is_dir() else []
    return [
        folder for name in names
        for folder in [run for run in run_folders(paths, name) if (run / "history.csv").is_file()][-RUNS_EACH:]
    ]


def _resolve(paths, run):
    """The run folder that a user named."""
    folder = find_path(paths, run)
    if not (folder / "history.csv").is_file():
        if read_record(folder) and read_config(folder).recipe == "best":
            raise PipelineError(f"{folder} has no loss curve: the recipe best has no epochs. Option 8 scores it.")
        raise PipelineError(f"{folder} is no run folder with an epoch in it; name one below {paths.ckpt}.")
    return folder.resolve()


def _by_model(folders):
    groups = {}
    for folder in dict.fromkeys(folders):
        groups.setdefault(read_config(folder).name, []).append(folder)
    return groups


def _describe_model(name, folders):
    """The model's name, and (label, folder, history) of each run: what differs from the others, or its time."""
    configs = [dataclasses.asdict(read_config(folder)) for folder in folders]
    fields = [field for field in configs[0] if len({str(config.get(field)) for config in configs}) > 1]
    rows = []
    for folder, config in zip(folders, configs, strict=True):
        differs = ", ".join(f"{field} {_shown(config[field])}" for field in fields)
        alone = "" if len(folders) == 1 else ": the same config"
        label = f"{folder.name}: {differs}" if differs else folder.name + alone
        rows.append((label, folder, pd.read_csv(folder / "history.csv")))
    return name, rows


def _table(panels):
    """Best figures of each run, as lines."""
    lines = []
    for name, rows in panels:
        lines += [name, f"  {'epochs':>7}{'least loss':>13}{'at':>7}{'least held-out':>16}{'at':>7}  run"]
        for label, folder, history in rows:
            best = [_best(history, column) for column in ("loss", "held-out loss")]
            state = read_record(folder).get("state", "damaged")
            lines.append(f"  {len(history):7}{best[0][0]:>13}{best[0][1]:>7}{best[1][0]:>16}{best[1][1]:>7}  "
                         + label + ("" if state == "finished" else f" ({state})"))
    return lines


def _best(history, column):
    """The least value of a column and its epoch, as text."""
    if column not in history or history[column].isna().all():
        return "-", "-"
    row = history.loc[history[column].idxmin()]
    return f"{row[column]:.4f}", f"{int(row['epoch'])}"


def _shown(value):
    return f"{value:g}" if isinstance(value, float) else str(value) or "none"
