"""Options 1-3: which rows, which config, in which order.

Reads data/processed/train.csv and the crops; writes run folders under model/ckpt.
"""

import torch
from sklearn.utils import resample

import model_config
from config import CROP, PATHS
from model.choice import find_unfinished, load_start
from model.device import select_device
from model.model import CSVModel, ImageModel
from model.module import CSVModule, ImageModule
from model.run import Run
from model_config import ImageConfig
from processing.errors import PipelineError
from processing.progress import say
from processing.tables import AFTER, FINAL, PROCESSED, build_case_table, read_processed

CASE_ORDER_SEED = 2021      # the 2021 system shuffled its cases once, by this seed
ROUND_NAMES = {0: "preliminary", 1: "final"}


def train_image(paths=PATHS, configs=None, *, resume=None, unfinished=False, box=CROP):
    """Option 1: train the image models of `configs` (default: model_config.IMAGE_MODELS), one after the other.

    Args:
        paths: config.Paths.
        configs: list of ImageConfig.
        resume: None; or a run folder to resume, or "" for the newest unfinished run of these models; the models
            behind it in the list follow.
        unfinished: whether init_from may be a run that is not finished.
        box: config.CropBox that the crops were cut with.

    Returns:
        list of run folders.

    Raises:
        PipelineError: no processed data, no images for a model, a start that does not fit, no such device,
            nothing to resume.
    """
    return _train(paths, configs or model_config.IMAGE_MODELS, resume=resume, unfinished=unfinished, box=box)


def train_csv(paths=PATHS, config=None, *, resume=None, unfinished=False):
    """Option 2: train Model-CSV (default: model_config.CSV_MODEL) on the case table of train.csv.

    Returns:
        list of the one run folder. Arguments and errors are those of train_image.
    """
    return _train(paths, [config or model_config.CSV_MODEL], resume=resume, unfinished=unfinished)


def train_csv_and_image(paths=PATHS, csv_config=None, image_configs=None, *, resume=None, unfinished=False):
    """Option 3: option 2, then option 1. Returns the run folders; arguments and errors as for train_image."""
    configs = [csv_config or model_config.CSV_MODEL, *(image_configs or model_config.IMAGE_MODELS)]
    return _train(paths, configs, resume=resume, unfinished=unfinished)


def _train(paths, configs, *, resume, unfinished, box=CROP):
    """Train each config's model in its order, from the start or from where `resume` says."""
    table = read_processed(paths.train_table)
    folders = []
    if resume is not None:
        names = [config.name for config in configs]
        folder = find_unfinished(paths, names, resume)
        run, module = Run.resume(folder, [paths.train_table])
        say(f"{run.name}: {folder} goes on after epoch {run.epochs_done} of {run.config.epochs}.")
        folders.append(_train_model(paths, table, run.config, module=module, run=run, box=box))
        configs = configs[names.index(run.name) + 1:] if run.name in names else []
    for config in configs:
        folders.append(_train_model(paths, table, config, unfinished=unfinished, box=box))
    return folders


def _train_model(paths, table, config, *, module=None, run=None, unfinished=False, box=CROP):
    """Train one model: a new run, or `run` with the weights of `module`. Returns its folder."""
    rows, values = _select(paths, table, config)
    device = select_device(config.device)
    is_image = isinstance(config, ImageConfig)
    if module is None:
        torch.manual_seed(config.seed)
        module = ImageModule(config.recipe, (box.height, box.width)) if is_image else CSVModule(config.recipe)
        if config.init_from:
            load_start(paths, module, config, unfinished=unfinished)
    run = run or Run.start(paths, config, device=device, tables=[paths.train_table], values=values)
    with run:
        say(f"{config.name}: {len(rows)} {'images' if is_image else 'eyes'}, {device}, {run.folder}")
        if is_image:
            ImageModel(module, device).train(rows, paths.root, run)
        else:
            CSVModel(module, device).train(rows, run)
    return run.folder


def _select(paths, table, config):
    """The rows that a config's model is trained on, and the values to keep beside its weights.

    Raises:
        PipelineError: none, or crops that are not there.
    """
    if isinstance(config, ImageConfig):
        rows = select_rows(table, config.visit)
        if rows.empty:
            raise PipelineError(f"{paths.train_table} has no images of the visit {config.visit!r}, for {config.name}.")
        check_crops(rows, paths)
        return rows, {}
    cases = build_case_table(table)
    if cases.empty:
        raise PipelineError(f"{paths.train_table} has no eye with images of both visits: nothing to train on.")
    if len(cases) < config.batch_size:
        say(f"{len(cases)} eyes are fewer than a batch of {config.batch_size}: all of them make one batch.")
    shuffled = resample(cases, replace=False, random_state=CASE_ORDER_SEED)
    return shuffled, {"training_means": training_means(cases)}


def select_rows(table, visit):
    """The rows of a processed table whose images are of the visit "before", "after" or "all"."""
    if visit == "all":
        return table
    return table[table[AFTER] == (visit == "after")]


def check_crops(rows, paths):
    """Raise PipelineError unless the crop of every row is there."""
    absent = [name for name in rows[PROCESSED] if not (paths.root / name).is_file()]
    if absent:
        raise PipelineError(
            f"{len(absent)} of {len(rows)} crops are not there, the first is {paths.root / absent[0]}. "
            "Option 0 (processing_data) cuts them."
        )


def training_means(cases):
    """Means of each round's training eyes: dict of round name -> dict of column -> mean."""
    return {
        ROUND_NAMES[final]: rows.mean().to_dict() for final, rows in cases.select_dtypes("number").groupby(FINAL)
    }
