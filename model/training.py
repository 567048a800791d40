"""Options 1-3 and 13: which rows, which config, in which order.

Reads data/processed/csv/train.csv and the crops; writes run folders under model/ckpt.
"""

from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch

from config import PATHS, Paths
from model.checkpoint import load_checkpoint, read_learned
from model.device import select_device
from model.distributed import first_process_first, join_processes
from model.folds import find_held_out, refill_means, refuse_learned, split_rows
from model.lessons import HELD_OUT_SCANS
from model.network import EpochNetwork
from model.provenance import fingerprint_table
from model.registry import Model, build_model, class_for, load_weights_of
from model.run import Run, read_behind, read_specification, read_unfinished
from model.runs import describe_runs, find_unfinished, resolve_checkpoint
from model_config import Config, SegmentationConfig, each_training
from processing import columns as c
from processing.errors import PipelineError
from processing.tables import read_processed
from processing.terminal import say

OTHER_STARTS = ("Start from a run that left the same fold of the same splits out (its last weights; the best ones were "
                "chosen by these eyes), without --init-from, or without --fold.")


class Job(NamedTuple):
    """A training that is ready to begin."""

    config: Config
    model: Model
    rows: pd.DataFrame      # images or cases
    held_out: pd.DataFrame  # the same of the eyes that are left out, maybe none
    data: dict[str, str]    # fingerprints of what it trains on
    learned: set[str] | None        # eyes that it and its start learn from, as patient IDs; None: not known
    run: Run | None         # a resumed one
    random: torch.Tensor    # state of torch's random numbers behind the first weights


def train(configs: list[Config], paths: Paths = PATHS, *, resume: str | None = None, unfinished: bool = False
          ) -> list[Path]:
    """Options 1 to 3 and 13: train the models of `configs`, one after the other.

    Everything that can be refused is refused before the first training begins.

    Args:
        configs: of model_config; all learn from eyes, or none does.
        paths: config.Paths.
        resume: None; or a run folder to resume, or "" for the newest unfinished run of these models. What was to
            follow it when it began, and is of these models, follows.
        unfinished: whether init_from may be a run that is not finished.

    Returns:
        list of run folders.

    Raises:
        PipelineError: no processed data, no rows for a model, a start that does not fit, no such device, nothing to
            resume.
    """
    if not configs:
        raise PipelineError("There is no model to train: model_config.IMAGE_MODELS is empty.")
    folders = []
    with join_processes():
        with first_process_first():
            jobs = _prepare_all(paths, configs, resume=resume, unfinished=unfinished)
        for number, job in enumerate(jobs, start=1):
            behind = [later.config for later in jobs[number:]]
            run = job.run or Run.start(paths, job.config, job.model, data=job.data, behind=behind)
            torch.manual_seed(job.config.seed)      # of a card, too
            torch.set_rng_state(job.random)         # whatever was trained before, it begins as it would alone
            run.note_eyes(job.learned, set(job.held_out.get(c.PATIENT, ())))     # drawn scans are of no eye
            with run:
                _say_start(job, run)
                job.model.fit(job.rows, run, paths, held_out=job.held_out)
            folders.append(run.folder)
    return folders


def _prepare_all(paths: Paths, configs: list[Config], *, resume: str | None, unfinished: bool) -> list[Job]:
    configs = [one for config in configs for one in each_training(config)]
    is_drawn = all(isinstance(config, SegmentationConfig) for config in configs)
    table = pd.DataFrame() if is_drawn else read_processed(paths.train_table, c.TRAIN_COLUMNS)
    jobs = []
    if resume is not None:
        names = list(dict.fromkeys(config.name for config in configs))
        folder = find_unfinished(paths, names, resume)
        own = read_unfinished(folder)
        if own.name not in names:
            raise PipelineError(f"{folder} is a run of {own.name}; this option resumes those of {', '.join(names)}.")
        jobs.append(_prepare(paths, table, own, folder=folder))
        configs = [config for config in read_behind(folder) if config.name in names]
        if configs:
            behind = ", ".join(config.name + ("" if config.fold == "none" else f" (fold {config.fold})")
                               for config in configs)
            say(f"{folder} is resumed; what was to follow it when it began follows: {behind}.")
    return jobs + [_prepare(paths, table, config, unfinished=unfinished) for config in configs]


def _prepare(paths: Paths, table: pd.DataFrame, config: Config, *, folder: Path | None = None,
             unfinished: bool = False) -> Job:
    """Select rows, device and first weights; `folder` is that of a run to resume.

    Raises:
        PipelineError: no rows, images missing, a start that does not fit, no such device, a run that cannot be resumed.
    """
    kind, device = class_for(config), select_device(config.device)
    if isinstance(config, SegmentationConfig):
        return _prepare_scans(paths, config, device, folder, unfinished=unfinished)
    data = {paths.train_table.name: fingerprint_table(paths.train_table)}
    held_out = find_held_out(paths, table, config.fold)
    if held_out:
        table = refill_means(table, paths, held_out)
        data |= {file.name: fingerprint_table(file) for file in (paths.splits, paths.eye_table)}
    rows, unseen = (kind.select_rows(part, config) for part in split_rows(table, held_out))
    if rows.empty:
        raise PipelineError(f"{paths.train_table} has nothing to train {config.name} on: no {kind.unit} of the visits "
                            "that it wants.")
    model = _build_first(paths, config, device, rows, folder)
    data |= model.fingerprint(rows, unseen, paths)
    run, checkpoint = Run.resume(folder, data) if folder else (None, None)
    learned: set[str] | None
    learned = own = set(table[c.PATIENT]) - held_out     # all of them: their means are in the rows, too
    if folder and checkpoint:
        load_weights_of(checkpoint, model, folder)
        learned = read_learned(checkpoint)
    elif config.init_from:
        start = _load_start(paths, model, config, unfinished=unfinished)
        refuse_learned(start, held_out, whose=config.init_from, advice=OTHER_STARTS)
        learned = None if start is None else own | start
    if isinstance(model, EpochNetwork) and checkpoint is None:      # also of a run that has no epoch done
        model.begin(config)
    return Job(config, model, rows, unseen, data, learned, run, torch.get_rng_state())


def _prepare_scans(paths: Paths, config: SegmentationConfig, device: torch.device, folder: Path | None, *,
                   unfinished: bool) -> Job:
    """The same of a model that learns from scans which are drawn for it, and so from no eyes."""
    rows, unseen = pd.DataFrame(index=range(config.scans)), pd.DataFrame(index=range(HELD_OUT_SCANS))
    model = _build_first(paths, config, device, rows, folder)
    data = model.fingerprint(rows, unseen, paths)
    run, checkpoint = Run.resume(folder, data) if folder else (None, None)
    if folder and checkpoint:
        load_weights_of(checkpoint, model, folder)
    elif config.init_from:
        _load_start(paths, model, config, unfinished=unfinished)
    return Job(config, model, rows, unseen, data, set(), run, torch.get_rng_state())


def _build_first(paths: Paths, config: Config, device: torch.device, rows: pd.DataFrame, folder: Path | None) -> Model:
    """A model with first weights, which the config's seed decides; `folder` is that of a run to resume."""
    kind = class_for(config)
    specification = read_specification(folder) if folder else kind.specify(config, rows)
    torch.manual_seed(config.seed)
    return build_model(kind.kind, specification, device, folder / "config.json" if folder else paths.ckpt / config.name)


def _load_start(paths: Paths, model: Model, config: Config, *, unfinished: bool) -> set[str] | None:
    """Put the weights of config.init_from (a run folder or checkpoint file) into `model`.

    Returns:
        The eyes that they come from, as patient IDs, or None where that is not known.

    Raises:
        PipelineError: it does not fit; says which runs exist.
    """
    with_runs = describe_runs(paths, config.name)
    try:
        file = resolve_checkpoint(paths, config.init_from, unfinished=unfinished)
        checkpoint = load_checkpoint(file)
        build_model(checkpoint.kind, checkpoint.specification, torch.device("cpu"), file)   # one that we know of
        load_weights_of(checkpoint, model, file)
        return read_learned(checkpoint)
    except PipelineError as error:
        raise PipelineError(f"{error} {with_runs}") from error


def _say_start(job: Job, run: Run) -> None:
    config, unit = job.config, job.model.unit
    goes_on = f", goes on after epoch {run.epochs_done} of {config.epochs}" if job.run else ""
    fold = "" if config.fold == "none" else f" of fold {config.fold}"
    left_out = f" ({len(job.held_out)}{fold} held out)" if len(job.held_out) else ""
    say(f"{config.name}: {len(job.rows)} {unit}{left_out}, {job.model.device}, {run.folder}{goes_on}")
