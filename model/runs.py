"""Which run is meant: the newest of a model, or one that the user named."""

import json
import os
from datetime import datetime
from pathlib import Path
from typing import Any

from config import Paths
from model.provenance import fingerprint_table
from model.run import read_config, read_record
from processing.errors import PipelineError
from processing.files import TIME_STAMP, read_if_there
from processing.pasted import read_path, show

RUNS_SHOWN = 5


def find_path(paths: Paths, chosen: str | Path) -> Path:
    """What a user named, from the current folder, the root or model/ckpt; from the current folder if it is nowhere."""
    def places(text: str) -> list[Path]:
        return [Path(text), paths.root / text, paths.ckpt / text]

    text = read_path(str(chosen), lambda text: any(map(os.path.exists, places(text))))
    return next(filter(os.path.exists, places(text)), Path(text))


def find_checkpoint(paths: Paths, name: str, chosen: str | Path | None = None, *, unfinished: bool = False) -> Path:
    """The checkpoint file of a model: of the newest run that was trained on all eyes, else of the newest of a fold.

    Args:
        paths: config.Paths.
        name: the model's name, e.g. Model-CSV.
        chosen: a run folder or checkpoint file that the user named, or None: the newest run.
        unfinished: whether a run that is not finished will do.

    Raises:
        PipelineError: none is there; says which option makes one and which runs exist.
    """
    if chosen:
        return resolve_checkpoint(paths, chosen, unfinished=unfinished)
    files = [
        folder / f"{name}.pt" for folder in run_folders(paths, name)
        if unfinished or read_record(folder).get("state") == "finished"
    ]
    files = [file for file in files if file.is_file()]
    if not files:
        option = "2 (train_csv)" if name == "Model-CSV" else "1 (train_image)"
        raise PipelineError(
            f"{name} has no finished run in {paths.ckpt / name}. Option {option} makes one; "
            f"or name a checkpoint in config.py or by a flag. {describe_runs(paths, name)}"
        )
    of_all_eyes = [file for file in files if fold_of(file.parent) == "none"]
    return (of_all_eyes or files)[-1]


def find_newer(paths: Paths, name: str, file: Path) -> list[Path]:
    """The finished runs of a model that were begun after that of a checkpoint file, oldest first."""
    folders = run_folders(paths, name)
    later = folders[folders.index(file.parent) + 1:] if file.parent in folders else []
    return [folder for folder in later if read_record(folder).get("state") == "finished"]


def find_members(file: Path) -> list[Path]:
    """The checkpoint files that answer together with this one of an image model, itself among them.

    They are the newest of the finished runs that learned from the same tables by the same config but for the seed; and,
    of a run that left a fold out, for the fold. A recipe whose runs do not join has itself alone.

    Raises:
        PipelineError: a run's files cannot be read.
    """
    folder = file.parent
    if read_record(folder).get("state") != "finished" or not read_config(folder).recipe_of().joins:
        return [file]
    own, members = _describe_training(folder), {}
    for other in run_folders_beside(folder):
        is_there = read_record(other).get("state") == "finished" and (other / file.name).is_file()
        if is_there and _describe_training(other) == own:
            is_whole = fold_of(other) == "none"
            if is_whole == (fold_of(folder) == "none"):
                members[fold_of(other), read_config_field(other, "seed", "")] = other / file.name
    return [*members.values()] or [file]


def _describe_training(folder: Path) -> dict[str, Any] | None:
    """What decides a run's result, but for seed, fold and machine; None where its config is damaged."""
    try:
        fields = json.loads(read_if_there(folder / "config.json") or b"")
        built = {name: value for name, value in fields.pop("specification", {}).items() if name != "seed"}
    except (ValueError, AttributeError):
        return None
    same = {name: value for name, value in fields.items() if name not in ("seed", "fold", "device", "workers")}
    data = {name: value for name, value in read_record(folder).get("data", {}).items() if name != "images"}
    return same | {"specification": built, "data": data}


def find_fold_runs(paths: Paths, name: str) -> dict[str, dict[int, Path]]:
    """The finished runs of a model that left a fold of the present splits out: recipe -> fold -> the newest folder.

    Runs of other trunks are of other recipes (ImageConfig.variant). The recipe of the newest run comes last.
    """
    splits = fingerprint_table(paths.splits)
    found: dict[str, dict[int, Path]] = {}
    for folder in run_folders(paths, name):
        record = read_record(folder)
        if record.get("state") == "finished" and record.get("data", {}).get(paths.splits.name) == splits:
            config = read_config(folder)
            found[config.variant()] = found.pop(config.variant(), {}) | {int(config.fold): folder}
    return found


def read_config_field(folder: Path, field: str, default: str) -> str:
    """A field of a run's config.json, `default` where there is none (or the file is damaged, or no run's).

    Raises:
        PipelineError: the file is there and cannot be read.
    """
    try:
        return json.loads(read_if_there(folder / "config.json") or b"").get(field, default)
    except (ValueError, AttributeError):
        return default


def fold_of(folder: Path) -> str:
    """The fold that a run left out, "none" where it trained on all eyes."""
    return read_config_field(folder, "fold", "none")


def resolve_checkpoint(paths: Paths, chosen: str | Path, *, unfinished: bool = False) -> Path:
    """The checkpoint file of a run folder or file that the user named, from the current folder or the root.

    Raises:
        PipelineError: not there, or of a run that is not finished.
    """
    if not isinstance(chosen, (str, Path)):
        raise PipelineError(f"{chosen!r} is no path of a checkpoint: name a run folder or a .pt file.")
    path = find_path(paths, chosen)
    if not os.path.exists(path):
        raise PipelineError(f"The checkpoint {show(path)} is not there: name a run folder or a .pt file.")
    record = read_record(path if path.is_dir() else path.parent)
    if record and not (unfinished or record.get("state") == "finished"):
        raise PipelineError(
            f"{path} is of a run that is not finished (state: {record.get('state')}). Name a finished one, resume it "
            "(--resume), or take it as it is (--allow-unfinished)."
        )
    # A hidden file is what a killed program left of a checkpoint that it was writing
    files = [file for file in sorted(path.glob("[!.]*.pt")) if not file.stem.endswith("-best")]
    files = files if path.is_dir() else [path]
    if not files or (path.is_dir() and not record):
        raise PipelineError(f"{path} is no run folder; name one with a .pt file in it, or such a file.")
    return files[0]


def find_unfinished(paths: Paths, names: list[str], chosen: str | None = None) -> Path:
    """The run folder to resume: `chosen`, or the newest unfinished run of the models `names`.

    Raises:
        PipelineError: there is none; says which runs exist.
    """
    if chosen:
        path = find_path(paths, chosen)
        if not os.path.isfile(path / "run.json"):
            runs = " ".join(describe_runs(paths, name) for name in names)
            raise PipelineError(f"{show(path)} is no run folder: it is not there, or has no run.json. {runs}")
        return path
    folders = [
        folder for name in names for folder in run_folders(paths, name)
        if read_record(folder).get("state", "finished") != "finished"
    ]
    if not folders:
        raise PipelineError(f"There is no unfinished run of {', '.join(names)} in {paths.ckpt}; nothing to resume.")
    return max(folders, key=_age)


def describe_runs(paths: Paths, name: str) -> str:
    """One sentence on which runs of a model there are."""
    runs = [f"{folder.name} ({read_record(folder).get('state', 'damaged')})" for folder in run_folders(paths, name)]
    if not runs:
        return f"There are no runs of {name} yet."
    newest = f"The newest {RUNS_SHOWN} of {len(runs)} runs" if len(runs) > RUNS_SHOWN else "Runs"
    return f"{newest} of {name}: {', '.join(runs[-RUNS_SHOWN:])}."


def run_folders(paths: Paths, name: str) -> list[Path]:
    """Run folders of a model, oldest first, by run.json: clocks and time zones differ where folders are named."""
    return run_folders_beside(paths.ckpt / name / "any")


def run_folders_beside(run: Path) -> list[Path]:
    """The run folders in the folder that this one lies in (or would lie in), oldest first."""
    parent = run.parent
    if not parent.is_dir():
        return []
    return sorted((folder for folder in parent.iterdir() if folder.is_dir()), key=_age)


def _age(folder: Path) -> tuple:
    """When a run was started, as seconds (UTC); without run.json, as its name says. Then by name."""
    try:
        started = datetime.fromisoformat(read_record(folder)["started"])
    except (KeyError, TypeError, ValueError):
        try:
            started = datetime.strptime(folder.name[:12], TIME_STAMP)
        except ValueError:
            return 0.0, len(folder.name), folder.name
    return started.timestamp(), len(folder.name), folder.name

