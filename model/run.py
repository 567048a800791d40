"""Run folders: model/ckpt/<model name>/<YYYYmmddHHMM>/, one per training, self-sufficient for prediction.

    <model name>.pt     after the last complete epoch: weights, Adam's state, random states
    <model name>-best.pt    the same after the epoch of the smallest held-out loss, where eyes are held out
    config.json         the config it is trained with
    run.json            state (running, stopped, finished, failed), epochs done, versions, device, data
    history.csv, <model name>-loss-epoch(..)-eta(..)-<time>.png
    .lock               held while it is trained
"""

import copy
import dataclasses
import json
import shutil
import time
from contextlib import ExitStack
from datetime import datetime
from typing import NamedTuple

import torch

from model.checkpoint import load_checkpoint, save_checkpoint
from model.distributed import from_first_process
from model.history import History
from model.origin import describe_origin
from model_config import ConfigError, CSVConfig, ImageConfig
from processing.errors import PipelineError
from processing.files import locked, make_timed_folder, write_json
from processing.parallel import PROCESSES, RANK

# Of the time that a training takes, how much may go into writing its epochs and into drawing them. Epochs that are
# short beside that are not each written; the last complete one always is, when the run ends or is stopped.
SAVE_SHARE, DRAW_SHARE = 0.04, 0.02
FREE_TO_CHANGE = ("device", "workers")      # in the config.json of a run that is resumed


class Run:
    """One training and its folder. Use as a context manager: leaving it writes the state it ended in.

    Made by `start` or `resume`. Where several processes train one run, only the first writes. Attributes: folder,
    name, config, batch_size, halvings (how often the batch was halved for want of memory), epochs_done.
    """

    def __init__(self, folder, config, record, values):
        self.folder, self.name, self.config = folder, config.name, config
        self.batch_size = record.get("batch_size", config.batch_size)
        self.halvings = record.get("halvings", 0)
        eta = f"{config.learning_rate:g}"
        plot = f"{config.name}-loss-epoch({config.epochs})-eta({eta})-{folder.name}.png"
        self._history = History(folder / "history.csv", folder / plot)
        self._record, self._values = record, values
        self._complete = _Complete(epoch=0, module=None, states=None, best=None, best_states=None)
        self._saved_epoch, self._saved_best = 0, None
        self._saving, self._drawing = _Pace(SAVE_SHARE), _Pace(DRAW_SHARE)
        self._restored = None
        self._open = ExitStack()

    @classmethod
    def start(cls, paths, config, *, device, data, values=None, behind=()):
        """Make a run folder.

        Args:
            paths: config.Paths.
            config: ImageConfig or CSVConfig.
            device: torch.device that it trains on.
            data: dict of what it trains on -> fingerprint (model.origin); kept in run.json.
            values: plain values to keep beside the weights.
            behind: configs of the trainings that are to follow this one; kept in run.json for resuming.
        """
        folder = from_first_process(make_timed_folder(paths.ckpt / config.name) if RANK == 0 else None)
        try:
            record = describe_origin(config, device, data) | {
                "config": dataclasses.asdict(config), "behind": [dataclasses.asdict(one) for one in behind],
            }
            run = cls(folder, config, record, values or {})
            if RANK == 0:
                write_json(folder / "config.json", dataclasses.asdict(config))
            run._write_state("stopped")         # until it is entered
        except BaseException:       # a folder that does not say what it is would be no run
            if RANK == 0:
                shutil.rmtree(folder, ignore_errors=True)
            raise
        return run

    @classmethod
    def resume(cls, folder, data):
        """Take up a run that is not finished, after its last complete epoch.

        Args:
            folder: the run folder.
            data: as for start; it must be what it was.

        Returns:
            run: its config and record are those of the folder.
            module: with the weights of the last complete epoch, or None where there is none.

        Raises:
            PipelineError: finished, no run folder, damaged, or the data or the config has changed.
        """
        config, record = read_config(folder), read_record(folder)
        if record.get("state") == "finished":
            raise PipelineError(f"{folder} is finished; there is nothing to resume.")
        now = json.loads(json.dumps(dataclasses.asdict(config)))        # as the record has it: tuples become lists
        now = {name: value for name, value in now.items() if name not in FREE_TO_CHANGE}
        then = record.get("config") or now          # runs of earlier versions did not keep it there
        changed = _differing(record.get("data") or {}, data)
        changed += [f"{name} in config.json" for name in _differing({name: then.get(name) for name in now}, now)]
        if changed:
            raise PipelineError(f"{folder} cannot be resumed: {', '.join(changed)} changed since it began. "
                                "Put that back, or start a new run.")
        file, module, values = folder / f"{config.name}.pt", None, {}
        if record.get("epochs_done") and not file.is_file():
            raise PipelineError(f"{folder} cannot be resumed: {file.name} is gone, and with it the "
                                f"{record['epochs_done']} epochs that were done. Start a new run.")
        if file.is_file() and config.recipe != "best":      # which has no epochs to go on after
            module, values = load_checkpoint(file, "CSVModule" if isinstance(config, CSVConfig) else "ImageModule")
        run = cls(folder, config, record, values.get("values", {}))
        if module is not None:
            run._restored, run._saved_epoch = values, values["epoch"]
            run._history.load(run._saved_epoch)
            run._saved_best = run._history.best()
            run._complete = _Complete(run._saved_epoch, module, None, run._saved_best, None)
        return run, module

    @property
    def epochs_done(self):
        """How many epochs are complete."""
        return self._complete.epoch

    def __enter__(self):
        if RANK == 0:
            self._open.enter_context(locked(self.folder / ".lock"))
            for leftover in self.folder.glob(".*.tmp.*"):       # of a program that was killed while it wrote
                leftover.unlink()
        self._record.pop("error", None)
        self._record["processes"] = PROCESSES
        try:
            self._write_state("running")
        except BaseException as problem:        # __exit__ would not be called
            self._write_state(_state_after(problem), problem)
            raise
        return self

    def __exit__(self, kind, error, _traceback):
        with self._open:
            try:
                self._save()
                self._draw()
                self._write_state("finished" if kind is None else _state_after(error), error)
            except BaseException as problem:
                try:
                    if not isinstance(problem, Exception):      # Ctrl-C or SIGTERM in the midst of it: once more
                        self._save()
                finally:
                    self._write_state(_state_after(problem), problem)
                raise

    def restore(self, module, optimizer):
        """Give `optimizer` and torch's random numbers the state of the last complete epoch; keep it as a snapshot."""
        if self._restored is not None:
            optimizer.load_state_dict(self._restored["optimizer"])
            _set_random_states(self._restored["random"])
            self._restored = None
        self._complete = self._complete._replace(module=module, states=_copy_states(module, optimizer))

    def rewind(self, module, optimizer):
        """Give both the state that they had after the last complete epoch."""
        states = self._complete.states
        module.load_state_dict(states["state"])
        optimizer.load_state_dict(copy.deepcopy(states["optimizer"]))
        _set_random_states(states["random"])

    def halve_batch(self):
        """Go on with half the batch, and record it."""
        self.batch_size, self.halvings = max(1, self.batch_size // 2), self.halvings + 1
        self._record |= {"batch_size": self.batch_size, "halvings": self.halvings}

    def finish_epoch(self, epoch, module, optimizer, losses):
        """Note a complete epoch; write weights, history and plot, unless that was done a moment ago.

        Args:
            epoch: its number, from 1.
            module, optimizer: as they are now.
            losses: dict of "loss" and "loss <part>" -> mean of the epoch; with held-out eyes the same with
                "held-out " before it. Only a strictly smaller held-out loss makes an epoch the best.
        """
        self._history.add(epoch=epoch, **losses)
        states, best, best_states = _copy_states(module, optimizer), self._complete.best, self._complete.best_states
        unseen = losses.get("held-out loss")
        if unseen is not None and (best is None or unseen < best[1]):
            best, best_states = (epoch, unseen), states
        self._complete = _Complete(epoch, module, states, best, best_states)
        if self._saving.is_due():
            with self._saving:
                self._save()
        if self._drawing.is_due():
            with self._drawing:
                self._draw()

    def save_fitted(self, model):
        """Write a model that is fitted at once, without epochs."""
        save_checkpoint(self.folder / f"{self.name}.pt", model, name=self.name, values=self._values)

    def _save(self):
        """Write the last complete epoch. The history first: a run killed in between has a row too many, not too few."""
        if self.epochs_done == self._saved_epoch or RANK > 0:
            return
        epoch, module, states, best, best_states = self._complete
        self._history.save(epoch)
        if best != self._saved_best:
            self._save_states(f"{self.name}-best.pt", module, best_states, best[0])
            self._saved_best, self._record["best_epoch"] = best, best[0]
        self._save_states(f"{self.name}.pt", module, states, epoch)
        self._record["epochs_done"] = epoch
        self._write_state("running")
        self._saved_epoch = epoch

    def _save_states(self, file, module, states, epoch):
        save_checkpoint(self.folder / file, module, **states, name=self.name, epoch=epoch, values=self._values)

    def _draw(self):
        if RANK == 0:
            self._history.draw()

    def _write_state(self, state, error=None):
        if RANK > 0:
            return
        self._record |= {"state": state, "written": datetime.now().isoformat(timespec="seconds")}
        if error is not None:
            self._record["error"] = f"{type(error).__name__}: {error}"
        write_json(self.folder / "run.json", self._record)


def _differing(then, now):
    """The names whose values differ, or that only one of two dicts has."""
    return [name for name in {**now, **then} if then.get(name) != now.get(name)]


def _state_after(error):
    return "failed" if isinstance(error, Exception) else "stopped"      # Ctrl-C and SIGTERM are no Exception


class _Complete(NamedTuple):
    """A complete epoch. It takes the place of the one before in one step: a signal falls before it or behind it."""

    epoch: int                  # 0: none yet
    module: torch.nn.Module
    states: dict                # as _copy_states gives
    best: tuple | None          # epoch and held-out loss of the best so far
    best_states: dict | None    # of that epoch; None where they are on disk


class _Pace:
    """Keeps something that is done again and again to a share of the time."""

    def __init__(self, share):
        self._share, self._next = share, 0.0

    def is_due(self):
        return time.monotonic() >= self._next

    def __enter__(self):
        self._started = time.monotonic()

    def __exit__(self, *_):
        ended = time.monotonic()
        self._next = ended + (ended - self._started) / self._share


def read_record(folder):
    """What run.json says; empty where it is not there or damaged."""
    try:
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def read_config(folder):
    """The config of a run folder.

    Raises:
        PipelineError: it is not there, damaged, or no longer valid.
    """
    try:
        fields = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return _config_of(fields)
    except (OSError, ValueError, TypeError, ConfigError) as error:
        raise PipelineError(f"{folder} is no run folder, or its config.json is damaged: {error}") from error


def read_behind(folder):
    """Configs of the trainings that were to follow a run when it began.

    Raises:
        PipelineError: no longer valid.
    """
    try:
        return [_config_of(fields) for fields in read_record(folder).get("behind", [])]
    except (TypeError, ConfigError) as error:
        raise PipelineError(f"{folder}: what run.json says is to follow it cannot be used: {error}") from error


def _config_of(fields):
    return (ImageConfig if "visit" in fields else CSVConfig)(**fields)


def _copy_states(module, optimizer):
    """Weights, Adam's state and random states, that later steps leave alone."""
    state = {name: value.detach().clone() for name, value in module.state_dict().items()}
    adam = optimizer.state_dict()
    adam["state"] = {
        number: {name: value.clone() for name, value in own.items()} for number, own in adam["state"].items()
    }
    return {"state": state, "optimizer": adam, "random": _random_states()}


def _random_states():
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"torch": torch.get_rng_state(), "cuda": cuda}


def _set_random_states(states):
    torch.set_rng_state(states["torch"])
    if len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])
