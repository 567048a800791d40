"""Option 9: the loss curves of runs over one another, labelled by what differs between their configs.

Reads run folders (config.json, history.csv); writes model/ckpt/compare-<time>.png.
"""

import dataclasses
import os
import re
from datetime import datetime
from itertools import count
from pathlib import Path

from config import PATHS, Paths
from model.run import read_config, read_record
from model.runs import find_path, run_folders
from processing.errors import PipelineError
from processing.files import TIME_STAMP
from processing.pasted import show
from processing.plots import draw_comparison
from processing.source import printable
from processing.tables import read_history
from processing.terminal import say

RUNS_EACH = 2       # of a model, where none are named


def compare_runs(paths: Paths = PATHS, runs: list[str] | None = None) -> Path:
    """Option 9.

    Args:
        paths: config.Paths.
        runs: run folders as the user named them; None: the newest two of each model that have an epoch.

    Returns:
        Path of the picture.

    Raises:
        PipelineError: no run with an epoch, or one of those named is none.
    """
    folders = [_find_run(paths, run) for run in runs] if runs else _list_newest(paths)
    histories = {folder: history for folder in dict.fromkeys(folders) if (history := _read_curve(folder)) is not None}
    if not histories:
        raise PipelineError(f"No run in {paths.ckpt} has an epoch to compare. Options 1 to 3 train.")
    groups: dict[str, list[Path]] = {}
    for folder in histories:
        groups.setdefault(read_config(folder).name, []).append(folder)
    panels = [(name, _label_runs(group, histories)) for name, group in groups.items()]
    picture = paths.ckpt / f"compare-{datetime.now().strftime(TIME_STAMP)}.png"
    if picture.exists():        # an earlier one of the same minute stays
        names = (picture.with_stem(f"{picture.stem}-{number}") for number in count(2))
        picture = next(name for name in names if not name.exists())
    draw_comparison(picture, [(name, [(label, history) for label, _, history in rows]) for name, rows in panels])
    say("\n".join(_tabulate(panels)))
    say(f"Loss curves: {picture}")
    return picture


def _list_newest(paths):
    names = sorted(folder.name for folder in paths.ckpt.iterdir() if folder.is_dir()) if paths.ckpt.is_dir() else []
    runs = [run_folders(paths, name) for name in names]
    newest = [folder for each in runs
              for folder in [run for run in each if (run / "history.csv").is_file()][-RUNS_EACH:]]
    others = sum(map(len, runs)) - len(newest)
    if newest and others:
        say(f"{others} runs are left out: of each model the newest {RUNS_EACH} that have epochs are drawn, and trees "
            "have none. Name runs to draw others.")
    return newest


def _find_run(paths, run):
    """The run folder that a user named."""
    folder = find_path(paths, run)
    if not os.path.isfile(folder / "history.csv"):
        if read_record(folder) and not (config := read_config(folder)).recipe_of().has_epochs:
            raise PipelineError(f"{folder} has no loss curve: the recipe {config.recipe} has no epochs. "
                                "Option 8 scores it.")
        if not read_record(folder):
            raise PipelineError(f"{show(folder)} is no run folder with an epoch in it; name one below {paths.ckpt}.")
    return folder.resolve()


def _read_curve(folder):
    """The history of a run; None, and said, where its files cannot be read."""
    try:
        read_config(folder)
        return read_history(folder / "history.csv")
    except PipelineError as error:
        say(f"{error}\nThe curve of {folder} is left out.")
        return None


def _label_runs(folders, histories):
    """(label, folder, history) of each run of a model; its label is its time, and what differs from the others."""
    configs = [dataclasses.asdict(read_config(folder)) for folder in folders]
    fields = [field for field in configs[0] if len({str(config.get(field)) for config in configs}) > 1]
    rows = []
    for folder, config in zip(folders, configs, strict=True):
        differs = ", ".join(f"{field} {_format(config[field])}" for field in fields)
        alone = "" if len(folders) == 1 else ": the same config"
        label = printable(f"{folder.name}: {differs}" if differs else folder.name + alone)
        rows.append((label, folder, histories[folder]))
    return rows


def _tabulate(panels):
    """Best figures of each run, as lines."""
    lines = []
    for name, rows in panels:
        lines += [name, f"  {'epochs':>7}{'least loss':>13}{'at':>7}{'least held-out':>16}{'at':>7}  run"]
        for label, folder, history in rows:
            best = [_find_least(history, column) for column in ("loss", "held-out loss")]
            state = read_record(folder).get("state", "damaged")
            lines.append(f"  {len(history):7}{best[0][0]:>13}{best[0][1]:>7}{best[1][0]:>16}{best[1][1]:>7}  "
                         + label + ("" if state == "finished" else f" ({state})"))
    return lines


def _find_least(history, column):
    """The least value of a column and its epoch, as text."""
    if column not in history or history[column].isna().all():
        return "-", "-"
    row = history.loc[history[column].idxmin()]
    return f"{row[column]:.4f}", f"{int(row['epoch'])}"


def _format(value):
    """A value of a config, short; of a path its last two parts."""
    if isinstance(value, str) and ("/" in value or "\\" in value):
        parts = re.split(r"[/\\]", value.rstrip("/\\"))
        return "/".join(["...", *parts[-2:]]) if len(parts) > 2 else value
    if isinstance(value, tuple):
        return " ".join(value)
    return f"{value:g}" if isinstance(value, float) else str(value) or "none"
