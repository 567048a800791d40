"""Run folders: model/ckpt/<model name>/<YYYYmmddHHMM>/, one per training, self-sufficient for prediction.

    <model name>.pt     after the last complete epoch: weights, Adam's state, random states
    <model name>-best.pt    the same after the epoch of the smallest held-out loss, where eyes are held out
    config.json         the config it is trained with
    run.json            state (running, stopped, finished, failed), epochs done, versions, device, data
    history.csv, <model name>-loss-epoch(..)-eta(..)-<time>.png
    .lock               held while it is trained
"""

import dataclasses
import json
import shutil
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import nn

from config import Paths
from model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from model.distributed import share_from_first
from model.history import History
from model.pace import Pace
from model.provenance import describe_origin
from model.snapshots import NOTHING_YET, Snapshot, copy_states, restore_states
from model_config import Config, ConfigError, CSVConfig, ImageConfig, SegmentationConfig
from processing.errors import PipelineError
from processing.files import hold_lock, make_timed_folder, read_if_there, write_json
from processing.parallel import this_process
from processing.terminal import find_stop

# Of the time that a training takes, how much may go into writing its epochs and into drawing them. Epochs that are
# short beside that are not each written; the last complete one always is, when the run ends or is stopped.
SAVE_SHARE, DRAW_SHARE = 0.04, 0.02
FREE_TO_CHANGE = ("device", "workers")      # in the config.json of a run that is resumed


class Run:
    """One training and its folder. Use as a context manager: leaving it writes the state it ended in.

    Made by `start` or `resume`. Where several processes train one run, only the first writes. Attributes: folder,
    name, config, batch_size, halvings (how often the batch was halved for want of memory), epochs_done.
    """

    def __init__(self, folder: Path, config: Config, record: dict[str, Any]):
        self.folder, self.name = folder, config.name
        self.config: Any = config       # of the kind that the model trains by
        self.batch_size = record.get("batch_size", config.batch_size)
        self.halvings = record.get("halvings", 0)
        eta = f"{config.learning_rate:g}"
        plot = f"{config.name}-loss-epoch({config.epochs})-eta({eta})-{folder.name}.png"
        self._history = History(folder / "history.csv", folder / plot)
        self._record, self._last, self._saved_epoch = record, NOTHING_YET, 0
        self._model: Any = None
        self._learned: set[str] | None = None
        self._held_out: set[str] = set()
        self._restored: Checkpoint | None = None
        self._saved_best: tuple[int, float] | None = None
        self._saving, self._drawing = Pace(SAVE_SHARE), Pace(DRAW_SHARE)
        self._writes = this_process().rank == 0
        self._open = ExitStack()

    @classmethod
    def start(cls, paths: Paths, config: Config, model: Any, *, data: dict[str, str],
              behind: Sequence[Config] = ()) -> "Run":
        """Make a run folder.

        Args:
            paths: config.Paths.
            config: of model_config.
            model: of model.registry; its specification is kept in config.json, its device in run.json.
            data: dict of what it trains on -> fingerprint (model.provenance); kept in run.json.
            behind: configs of the trainings that are to follow this one; kept in run.json for resuming.
        """
        writes = this_process().rank == 0
        folder = share_from_first(make_timed_folder(paths.ckpt / config.name) if writes else None)
        try:
            record = describe_origin(config, model.device, data) | {
                "config": _to_plain(config), "behind": [_to_plain(one) for one in behind],
            }
            run = cls(folder, config, record)
            if writes:
                write_json(folder / "config.json", _to_plain(config) | {"specification": model.specification})
            run._write_state("stopped")         # until it is entered
        except BaseException:       # a folder that does not say what it is would be no run
            if writes:
                shutil.rmtree(folder, ignore_errors=True)
            raise
        return run

    @classmethod
    def resume(cls, folder: Path, data: dict[str, str]) -> tuple["Run", Checkpoint | None]:
        """Take up a run that is not finished, after its last complete epoch.

        Args:
            folder: the run folder.
            data: as for start; it must be what it was.

        Returns:
            run: its config and record are those of the folder.
            checkpoint: of the last complete epoch, or None where there is none.

        Raises:
            PipelineError: finished, no run folder, damaged, or the data or the config has changed.
        """
        config, record = read_unfinished(folder), read_record(folder)
        _refuse_changes(folder, _find_differences(record.get("data") or {}, data))
        file, checkpoint = folder / f"{config.name}.pt", None
        if record.get("epochs_done") and not file.is_file():
            raise PipelineError(f"{folder} cannot be resumed: {file.name} is gone, and with it the "
                                f"{record['epochs_done']} epochs that were done. Start a new run.")
        run = cls(folder, config, record)
        if file.is_file() and config.recipe_of().has_epochs:
            checkpoint = load_checkpoint(file)
            run._restored, run._saved_epoch = checkpoint, checkpoint.values["epoch"]
            run._history.load(run._saved_epoch)
            run._saved_best = checkpoint.values.get("best")
            run._last = Snapshot(run._saved_epoch, {}, run._saved_best, {})
        return run, checkpoint

    @property
    def epochs_done(self) -> int:
        """How many epochs are complete."""
        return self._last.epoch

    def __enter__(self) -> "Run":
        if self._writes:
            self._open.enter_context(hold_lock(self.folder / ".lock"))
            for leftover in self.folder.glob(".*.tmp.*"):       # of a program that was killed while it wrote
                leftover.unlink()
        self._record.pop("error", None)
        self._record["processes"] = this_process().count
        try:
            self._write_state("running")
        except BaseException as problem:        # __exit__ would not be called
            self._write_state(_name_end(problem), problem)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 _traceback: TracebackType | None) -> None:
        with self._open:
            try:
                self._save()
                self._draw()
                self._write_state("finished" if error is None else _name_end(error), error)
                if error is not None and self._writes and self._saved_epoch:
                    (find_stop(error) or error).add_note(
                        f"{self.folder} keeps what it learned up to epoch {self._saved_epoch}: --resume goes on.")
            except BaseException as problem:
                try:
                    if _is_stop(problem):      # Ctrl-C or SIGTERM in the midst of it: once more
                        self._save()
                finally:
                    self._write_state(_name_end(problem), problem)
                raise

    def note_eyes(self, learned: set[str] | None, held_out: set[str]) -> None:
        """Which eyes the weights come from; kept in the checkpoint.

        Args:
            learned: patient IDs of the eyes that this run and its start learn from; None: not known.
            held_out: of those that are measured on; they choose the best epoch.
        """
        self._learned, self._held_out = learned, held_out

    def restore(self, model: Any, optimizer: torch.optim.Optimizer) -> None:
        """Take up the model that is trained; give `optimizer` and torch's random numbers the last epoch's state."""
        self._model = model
        if self._restored is not None:
            values = self._restored.values
            restore_states({"state": self._restored.state, "optimizer": values["optimizer"],
                            "random": values["random"]}, model.module, optimizer)
            self._restored = None
        self._last = self._last._replace(states=copy_states(model.module, optimizer))

    def rewind(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Give both the state that they had after the last complete epoch."""
        restore_states(self._last.states, module, optimizer)

    def halve_batch(self) -> None:
        """Go on with half the batch, and record it."""
        self.batch_size, self.halvings = max(1, self.batch_size // 2), self.halvings + 1
        self._record |= {"batch_size": self.batch_size, "halvings": self.halvings}

    def finish_epoch(self, epoch: int, optimizer: torch.optim.Optimizer, losses: dict[str, float]) -> None:
        """Note a complete epoch; write weights, history and plot, unless that was done a moment ago.

        Args:
            epoch: its number, from 1.
            optimizer: as it is now.
            losses: dict of "loss" and "loss <part>" -> mean of the epoch; with held-out eyes the same with
                "held-out " before it. Only a strictly smaller held-out loss makes an epoch the best.
        """
        self._history.add(epoch=epoch, **losses)
        states, best, best_states = copy_states(self._model.module, optimizer), self._last.best, self._last.best_states
        unseen = losses.get("held-out loss")
        if unseen is not None and (best is None or unseen < best[1]):
            best, best_states = (epoch, unseen), states
        self._last = Snapshot(epoch, states, best, best_states)
        if self._saving.is_due():
            with self._saving:
                self._save()
        if self._drawing.is_due():
            with self._drawing:
                self._draw()

    def save_fitted(self, model: Any) -> None:
        """Write a model that is fitted at once, without epochs."""
        if self._writes:
            save_checkpoint(self.folder / f"{self.name}.pt", model, model.state_dict(), name=self.name,
                            learned=self._list_learned())

    def _save(self) -> None:
        """Write the last complete epoch. The history first: a run killed in between has a row too many, not too few."""
        if self.epochs_done == self._saved_epoch or not self._writes:
            return
        epoch, states, best, best_states = self._last
        self._history.save(epoch)
        if best is not None and best != self._saved_best:
            save_checkpoint(self.folder / f"{self.name}-best.pt", self._model, **best_states, name=self.name,
                            epoch=best[0], learned=self._list_learned(self._held_out))
            self._saved_best, self._record["best_epoch"] = best, best[0]
        save_checkpoint(self.folder / f"{self.name}.pt", self._model, **states, name=self.name, epoch=epoch, best=best,
                        learned=self._list_learned())
        self._record["epochs_done"] = epoch
        self._write_state("running")
        self._saved_epoch = epoch

    def _list_learned(self, chosen_by: Collection[str] = ()) -> list[str] | None:
        return None if self._learned is None else sorted(self._learned.union(chosen_by))

    def _draw(self) -> None:
        if self._writes:
            self._history.draw()

    def _write_state(self, state: str, error: BaseException | None = None) -> None:
        if not self._writes:
            return
        self._record |= {"state": state, "written": datetime.now(UTC).isoformat(timespec="seconds")}
        if error is not None:
            self._record["error"] = f"{type(error).__name__}: {error}"
        write_json(self.folder / "run.json", self._record)


def read_unfinished(folder: Path) -> Config:
    """The config of a run that is to be resumed.

    Raises:
        PipelineError: the run is finished, no run folder, damaged, or its config.json has changed since it began.
    """
    config, record = read_config(folder), read_record(folder)
    if record.get("state") == "finished":
        raise PipelineError(f"{folder} is finished; there is nothing to resume.")
    now = {name: value for name, value in _to_plain(config).items() if name not in FREE_TO_CHANGE}
    then = record.get("config") or now
    changed = _find_differences({name: then.get(name) for name in now}, now)
    _refuse_changes(folder, [f"{name} in config.json" for name in changed])
    return config


def _refuse_changes(folder: Path, changed: list[str]) -> None:
    if changed:
        raise PipelineError(f"{folder} cannot be resumed: {', '.join(changed)} changed since it began. "
                            "Put that back, or start a new run.")


def _to_plain(config: Config) -> dict[str, Any]:
    """A config as JSON gives it back."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def _find_differences(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """The names whose values differ, or that only one of two dicts has."""
    return [name for name in {**now, **then} if then.get(name) != now.get(name)]


def _name_end(error: BaseException) -> str:
    return "stopped" if _is_stop(error) else "failed"


def _is_stop(error: BaseException) -> bool:
    return not isinstance(error, Exception) or find_stop(error) is not None


def read_record(folder: Path) -> dict[str, Any]:
    """What run.json says; empty where it is not there or damaged.

    Raises:
        PipelineError: it is there and cannot be read.
    """
    try:
        record = json.loads(read_if_there(folder / "run.json") or b"")
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def read_config(folder: Path) -> Any:
    """The config of a run folder.

    Raises:
        PipelineError: it is not there, damaged, or no longer valid.
    """
    return _read_config_file(folder)[0]


def read_specification(folder: Path) -> dict[str, Any]:
    """What the model of a run folder is built from; raises PipelineError as read_config does."""
    return _read_config_file(folder)[1]


def _read_config_file(folder: Path) -> tuple[Config, dict[str, Any]]:
    try:
        fields = json.loads(read_if_there(folder / "config.json") or b"")
        if "specification" not in fields:
            raise PipelineError(f"{folder} was made by an earlier version of this program. Start a new run.")
        specification = fields.pop("specification")
        return _build_config(fields), dict(specification)
    except (ValueError, TypeError) as error:
        raise PipelineError(f"{folder} is no run folder, or its config.json is damaged: {error}") from error


def read_behind(folder: Path) -> list[Config]:
    """Configs of the trainings that were to follow a run when it began.

    Raises:
        PipelineError: no longer valid.
    """
    try:
        return [_build_config(fields) for fields in read_record(folder).get("behind", [])]
    except (TypeError, ConfigError) as error:
        raise PipelineError(f"{folder}: what run.json says is to follow it cannot be used: {error}") from error


def _build_config(fields: dict[str, Any]) -> Config:
    kind = ImageConfig if "visit" in fields else SegmentationConfig if "scans" in fields else CSVConfig
    return kind(**fields)
