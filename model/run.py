"""Run folders: model/ckpt/<model name>/<YYYYmmddHHMM>/, one per training, self-sufficient for prediction.

    <model name>.pt     weights after the last complete epoch
    config.json         the config it was trained with
    run.json            state (running, stopped, finished, failed), epochs done, versions, device, data
    history.csv, <model name>-loss-epoch(..)-eta(..)-<time>.png
"""

import copy
import dataclasses
import hashlib
import json
import platform
import subprocess
import time
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from model.checkpoint import load_checkpoint, load_weights, save_checkpoint
from model.history import History
from processing.errors import PipelineError
from processing.files import make_timed_folder, write_json

# Epochs that take less than this are not each written to disk, but the last complete one always is
SAVE_EVERY_S = 2.0
SAVE_SHARE = 0.05       # of the time may go into writing and drawing
PACKAGES = ("torch", "torchvision", "opencv-python", "numpy", "pandas", "scikit-learn")


class Run:
    """One training and its folder. Use as a context manager: leaving it writes the state it ended in."""

    def __init__(self, paths, config, *, device, tables, values=None):
        """Make the folder.

        Args:
            paths: config.Paths.
            config: ImageConfig or CSVConfig.
            device: torch.device that it trains on.
            tables: paths of the tables that it trains on; their SHA-256 is kept.
            values: plain values to keep beside the weights.
        """
        self.folder = make_timed_folder(paths.ckpt / config.name)
        self.name, self._values = config.name, values or {}
        eta = f"{config.learning_rate:g}"
        plot = f"{config.name}-loss-epoch({config.epochs})-eta({eta})-{self.folder.name}.png"
        self.history = History(self.folder / "history.csv", self.folder / plot)
        self._record = _describe(config, device, tables)
        self._unsaved, self._save_from = None, 0.0
        write_json(self.folder / "config.json", dataclasses.asdict(config))
        self._write_state("running")

    def __enter__(self):
        return self

    def __exit__(self, kind, error, _traceback):
        try:
            self._save()
        except BaseException as problem:
            self._write_state("failed", problem)
            raise
        if kind is None:
            self._write_state("finished")
        else:
            self._write_state("failed" if issubclass(kind, Exception) else "stopped", error)

    def finish_epoch(self, epoch, module, losses):
        """Note a complete epoch; write weights, history and plot, unless that was done a moment ago.

        Args:
            epoch: its number, from 1.
            module: the module as it is now.
            losses: dict of "loss" and "loss <part>" -> mean of the epoch.
        """
        self.history.add(epoch=epoch, **losses)
        self._record["epochs_done"] = epoch
        self._unsaved = copy.deepcopy(module)      # later steps leave it alone
        if time.monotonic() >= self._save_from:
            self._save()

    def _save(self):
        if self._unsaved is None:
            return
        started = time.monotonic()
        save_checkpoint(self.folder / f"{self.name}.pt", self._unsaved, name=self.name, **self._values)
        self.history.save()
        self._write_state("running")
        self._unsaved, ended = None, time.monotonic()
        self._save_from = ended + max(SAVE_EVERY_S, (ended - started) / SAVE_SHARE)

    def _write_state(self, state, error=None):
        self._record |= {"state": state, "written": datetime.now().isoformat(timespec="seconds")}
        if error is not None:
            self._record["error"] = f"{type(error).__name__}: {error}"
        write_json(self.folder / "run.json", self._record)


def find_checkpoint(paths, name, chosen=None):
    """The checkpoint file of a model.

    Args:
        paths: config.Paths.
        name: the model's name, e.g. Model-CSV.
        chosen: a run folder or checkpoint file that the user named, or None: the newest finished run.

    Raises:
        PipelineError: none is there; says which option makes one.
    """
    if chosen:
        return resolve_checkpoint(chosen)
    finished = [folder for folder in _run_folders(paths.ckpt / name) if _read_record(folder).get("state") == "finished"]
    if not finished:
        option = "2 (train_csv)" if name == "Model-CSV" else "1 (train_image)"
        raise PipelineError(
            f"{name} has no finished run in {paths.ckpt / name}. Option {option} makes one; "
            "or name a checkpoint in config.py or by a flag."
        )
    return finished[-1] / f"{name}.pt"


def resolve_checkpoint(chosen):
    """The checkpoint file of a run folder or file that the user named.

    Raises:
        PipelineError: not there, or a run that is not finished.
    """
    path = Path(chosen).expanduser()
    if path.is_file():
        return path
    if not path.is_dir():
        raise PipelineError(f"The checkpoint {path} is not there: name a run folder or a .pt file.")
    state = _read_record(path).get("state", "no run folder")
    files = sorted(path.glob("*.pt"))
    if state != "finished" or not files:
        raise PipelineError(f"{path} is no finished run (state: {state}); name a finished one or a .pt file.")
    return files[0]


def load_start(module, chosen):
    """Put the weights of a run folder or checkpoint file (`--init-from`) into `module`."""
    file = resolve_checkpoint(chosen)
    start, _ = load_checkpoint(file, type(module).__name__)
    load_weights(module, start.state_dict(), file)


def _run_folders(parent):
    """Run folders, oldest first (by the time in the name, then the number behind it)."""
    if not parent.is_dir():
        return []
    folders = [folder for folder in parent.iterdir() if folder.is_dir()]
    return sorted(folders, key=lambda folder: (folder.name[:12], len(folder.name), folder.name))


def _read_record(folder):
    try:
        return json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _describe(config, device, tables):
    """What decides a result, beside the config."""
    return {
        "state": "running",
        "started": datetime.now().isoformat(timespec="seconds"),
        "epochs_done": 0,
        "seed": config.seed,
        "device": str(device),
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "git_commit": _git_commit(),
        "data": {table.name: hashlib.sha256(table.read_bytes()).hexdigest() for table in tables},
    }


def _version(package):
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git_commit():
    """Commit of this program's checkout, or None outside one."""
    try:
        answer = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None if answer.returncode == 0 else None
