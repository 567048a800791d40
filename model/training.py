"""Options 1-3: which rows, which config, in which order.

Reads data/processed/csv/train.csv and the crops; writes run folders under model/ckpt.
"""

from typing import NamedTuple

import pandas as pd
import torch

import model_config
from config import PATHS, VIEWS
from model.cache import open_cache
from model.choice import find_unfinished, load_start
from model.device import select_device
from model.distributed import first_process_first, joined
from model.heldout import held_out_eyes, refill, split_rows
from model.model import CSVModel, ImageModel
from model.module import CSVModule, ImageModule
from model.origin import fingerprint_images, fingerprint_table
from model.run import Run, read_behind, read_config
from model_config import ImageConfig
from processing import columns as c
from processing.crop_record import CropRecord
from processing.errors import PipelineError
from processing.files import stat_files
from processing.tables import build_case_table, read_processed
from processing.terminal import say
from processing.views import describe_view

CASE_ORDER_SEED = 2021      # the 2021 system shuffled its cases once, by this seed
SEEN_COLUMNS = [c.PRE_CST, *c.PRE_FINDINGS, c.CST, *c.FINDINGS]     # of an eye, by the image models


def train_image(paths=PATHS, configs=None, *, resume=None, unfinished=False, box=VIEWS["bscan"]):
    """Option 1: train the image models of `configs` (default: model_config.IMAGE_MODELS), one after the other.

    Args:
        paths: config.Paths.
        configs: list of ImageConfig.
        resume: None; or a run folder to resume, or "" for the newest unfinished run of these models. What was to
            follow it when it began, and is of these models, follows.
        unfinished: whether init_from may be a run that is not finished.
        box: config.View that the crops were cut with.

    Returns:
        list of run folders.

    Raises:
        PipelineError: no processed data, no images for a model, a start that does not fit, no such device,
            nothing to resume.
    """
    configs = model_config.IMAGE_MODELS if configs is None else configs
    return _train(paths, configs, resume=resume, unfinished=unfinished, box=box)


def train_csv(paths=PATHS, config=None, *, resume=None, unfinished=False):
    """Option 2: train Model-CSV (default: model_config.CSV_MODEL) on the case table of train.csv.

    Returns:
        list of the one run folder. Arguments and errors are those of train_image.
    """
    return _train(paths, [config or model_config.CSV_MODEL], resume=resume, unfinished=unfinished)


def train_csv_and_image(paths=PATHS, csv_config=None, image_configs=None, *, resume=None, unfinished=False):
    """Option 3: option 2, then option 1. Returns the run folders; arguments and errors as for train_image."""
    images = model_config.IMAGE_MODELS if image_configs is None else image_configs
    configs = [csv_config or model_config.CSV_MODEL, *images]
    return _train(paths, configs, resume=resume, unfinished=unfinished)


class _Job(NamedTuple):
    """A training that is ready to begin."""

    crops: list             # processed_path of all training images, whichever the model sees
    rows: pd.DataFrame      # images or cases
    held_out: pd.DataFrame  # the same of the eyes that are left out, maybe none
    module: torch.nn.Module
    device: torch.device
    data: dict              # fingerprints of what it trains on
    values: dict            # to keep beside the weights
    run: Run | None         # a resumed one


def _train(paths, configs, *, resume, unfinished, box=VIEWS["bscan"]):
    """Train each config's model in its order, from the start or from where `resume` says.

    Everything that can be refused is refused before the first training begins.
    """
    if not configs:
        raise PipelineError("There is no model to train: model_config.IMAGE_MODELS is empty.")
    with joined():
        with first_process_first():
            jobs = _prepare_all(paths, configs, resume=resume, unfinished=unfinished, box=box)
        return [
            _train_model(paths, config, job, [after for after, _ in jobs[number:]])
            for number, (config, job) in enumerate(jobs, start=1)
        ]


def _prepare_all(paths, configs, *, resume, unfinished, box):
    """(config, _Job) of each training; arguments as for _train."""
    configs = [one for config in configs for one in model_config.each_fold(config)]
    table = read_processed(paths.train_table, c.TRAIN_COLUMNS)
    jobs = []
    if resume is not None:
        names = list(dict.fromkeys(config.name for config in configs))
        folder = find_unfinished(paths, names, resume)
        own = read_config(folder)
        if own.name not in names:
            raise PipelineError(f"{folder} is a run of {own.name}; this option resumes those of {', '.join(names)}.")
        jobs.append((own, _prepare(paths, table, own, box=box, folder=folder)))
        configs = [config for config in read_behind(folder) if config.name in names]
        if configs:
            behind = ", ".join(_named(config) for config in configs)
            say(f"{folder} is resumed; what was to follow it when it began follows: {behind}.")
    return jobs + [(config, _prepare(paths, table, config, box=box, unfinished=unfinished)) for config in configs]


def _named(config):
    return config.name if config.fold == "none" else f"{config.name} (fold {config.fold})"


def _prepare(paths, table, config, *, box, folder=None, unfinished=False):
    """Select rows, device and first weights; `folder` is that of a run to resume.

    Raises:
        PipelineError: no rows, crops missing or cut with another box, a start that does not fit, no such device,
            a run that cannot be resumed.
    """
    device = select_device(config.device)
    is_image = isinstance(config, ImageConfig)
    data = {paths.train_table.name: fingerprint_table(paths.train_table)}
    held_out = held_out_eyes(paths, table, config.fold)
    if held_out:
        table = refill(table, paths, held_out)
        data |= {file.name: fingerprint_table(file) for file in (paths.splits, paths.eye_table)}
    select = _select_images if is_image else _select_cases
    rows, unseen, values = select(paths, *split_rows(table, held_out), config=config, box=box)
    if is_image:
        data["images"] = fingerprint_images(rows[c.PROCESSED], paths.root)
    if config.recipe == "best":
        data |= {file.name: fingerprint_table(file) for file in (paths.eye_table, paths.out_of_fold) if file.is_file()}
    run, module = Run.resume(folder, data) if folder else (None, None)
    if module is None:
        torch.manual_seed(config.seed)
        module = _build_module(config, box)
        if config.init_from:
            load_start(paths, module, config, unfinished=unfinished)
    return _Job(table[c.PROCESSED].tolist(), rows, unseen, module, device, data, values, run)


def _train_model(paths, config, job, behind):
    """Train, in a new run or the resumed one; the configs `behind` follow. Returns the run's folder."""
    run = job.run or Run.start(paths, config, device=job.device, data=job.data, values=job.values, behind=behind)
    is_image = isinstance(config, ImageConfig)
    with run:
        goes_on = f", goes on after epoch {run.epochs_done} of {config.epochs}" if job.run else ""
        left_out = f" ({len(job.held_out)} of fold {config.fold} held out)" if config.fold != "none" else ""
        rows = f"{len(job.rows)} {'images' if is_image else 'eyes'}{left_out}"
        say(f"{config.name}: {rows}, {job.device}, {run.folder}{goes_on}")
        if is_image:
            with first_process_first():
                cache = open_cache(paths, job.crops, job.module.crop_size)
            ImageModel(job.module, job.device).train(job.rows, paths.root, run, job.held_out, cache)
        elif config.recipe == "best":
            _fit_trees(paths, job, run)
        else:
            CSVModel(job.module, job.device).train(job.rows, run, job.held_out)
    return run.folder


def _build_module(config, box):
    if isinstance(config, ImageConfig):
        return ImageModule(config.recipe, (box.height, box.width))
    if config.recipe == "best":
        from model.trees import TreeModel  # as in model/checkpoint.py
        return TreeModel(config.seed)
    return CSVModule(config.recipe)


def _fit_trees(paths, job, run):
    """Recipe best: learn from the same eyes as the network would, but from their rows as the tables give them."""
    eyes = read_processed(paths.eye_table, c.EYE_COLUMNS)
    eyes = eyes[eyes[c.PATIENT].isin(job.rows[c.PATIENT])].reset_index(drop=True)
    seen = None
    if paths.out_of_fold.is_file():
        predicted = read_processed(paths.out_of_fold, [c.PATIENT, *SEEN_COLUMNS]).set_index(c.PATIENT)
        seen = eyes.assign(**predicted[SEEN_COLUMNS].reindex(eyes[c.PATIENT]).reset_index(drop=True))
    run.save_fitted(job.module.fit(eyes, seen))
    how = "with noise of the image models' size" if seen is None else f"as image models saw them ({paths.out_of_fold})"
    say(f"{run.name}: trees fitted to {len(eyes)} eyes, as labelled and {how}")


def _select_images(paths, table, unseen, *, config, box):
    """Images to train on, images held out, and what is kept beside the weights."""
    rows, unseen = select_rows(table, config.visit), select_rows(unseen, config.visit)
    if rows.empty:
        raise PipelineError(f"{paths.train_table} has no images of the visit {config.visit!r}, for {config.name}.")
    check_crops([*rows[c.PROCESSED], *unseen[c.PROCESSED]], paths, box)
    return rows, unseen, {"crop_box": list(box[:4])}


def check_crops(names, paths, view):
    """Make sure that crops are there and were all cut with `view`.

    Args:
        names: processed_path of each.
        paths: config.Paths.
        view: config.View.

    Raises:
        PipelineError: a crop is missing, or was cut with another box.
    """
    absent = [name for name, state in zip(names, stat_files(paths.root, names), strict=True) if state is None]
    if absent:
        raise PipelineError(
            f"{len(absent)} of {len(names)} crops are not there, the first is {paths.root / absent[0]}. "
            "Option 0 (processing_data) cuts them."
        )
    cut = CropRecord(paths.crop_record).views()
    wanted = describe_view(view), str(view.channels)
    other = [name for name in names if cut.get(name) != wanted]
    if other:
        raise PipelineError(
            f"{len(other)} of {len(names)} crops were not cut with the box {wanted[0]} of config.py, the first is "
            f"{paths.root / other[0]} ({cut.get(other[0], ('unknown',))[0]}). "
            "Option 0 (processing_data) cuts them anew."
        )


def _select_cases(paths, table, unseen, **_):
    """The same of cases; the order is the 2021 system's."""
    from sklearn.utils import resample  # takes long to load, and the image models need none of it
    cases = build_case_table(table)
    if cases.empty:
        raise PipelineError(f"{paths.train_table} has no eye with images of both visits: nothing to train on.")
    shuffled = resample(cases, replace=False, random_state=CASE_ORDER_SEED)
    return shuffled, build_case_table(unseen), {"training_means": training_means(cases)}


def select_rows(table, visit):
    """The rows of a processed table whose images are of the visit "before", "after" or "all"."""
    if visit == "all":
        return table
    return table[table[c.AFTER] == (visit == "after")]


def training_means(cases):
    """Means of each round's training eyes: dict of round name -> dict of column -> mean."""
    if cases.empty:
        return {}
    return {
        c.ROUND_NAMES[final]: rows.mean().to_dict() for final, rows in cases.select_dtypes("number").groupby(c.FINAL)
    }
