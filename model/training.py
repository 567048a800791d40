"""Options 1-3: which rows, which config, in which order.

Reads data/processed/train.csv and the crops; writes run folders under model/ckpt.
"""

import torch
from sklearn.utils import resample

import model_config
from config import CROP, PATHS
from model.device import select_device
from model.model import CSVModel, ImageModel
from model.module import CSVModule, ImageModule
from model.run import Run, load_start
from processing.errors import PipelineError
from processing.progress import say
from processing.tables import AFTER, FINAL, PROCESSED, build_case_table, read_processed

CASE_ORDER_SEED = 2021      # the 2021 system shuffled its cases once, by this seed
ROUND_NAMES = {0: "preliminary", 1: "final"}


def train_image(paths=PATHS, configs=None, box=CROP):
    """Option 1: train the image models of `configs` (default: model_config.IMAGE_MODELS), one after the other.

    Returns:
        list of run folders.

    Raises:
        PipelineError: no processed data, no images for a model, a start that does not fit, no such device.
    """
    return [_train_image_model(paths, config, box) for config in configs or model_config.IMAGE_MODELS]


def train_csv(paths=PATHS, config=None):
    """Option 2: train Model-CSV (default: model_config.CSV_MODEL) on the case table of train.csv.

    Returns:
        The run folder.

    Raises:
        PipelineError: no processed data, no eye with both visits, a start that does not fit, no such device.
    """
    config = config or model_config.CSV_MODEL
    cases = build_case_table(read_processed(paths.train_table))
    if cases.empty:
        raise PipelineError(f"{paths.train_table} has no eye with images of both visits: nothing to train on.")
    if len(cases) < config.batch_size:
        say(f"{len(cases)} eyes are fewer than a batch of {config.batch_size}: all of them make one batch.")
    device = select_device(config.device)
    module = _build(CSVModule, config)
    values = {"training_means": training_means(cases)}
    shuffled = resample(cases, replace=False, random_state=CASE_ORDER_SEED)
    with Run(paths, config, device=device, tables=[paths.train_table], values=values) as run:
        say(f"{config.name}: {len(cases)} eyes, {device}, {run.folder}")
        CSVModel(module, device).train(shuffled, config, run)
    return run.folder


def train_csv_and_image(paths=PATHS, csv_config=None, image_configs=None):
    """Option 3: option 2, then option 1. Returns the run folders."""
    return [train_csv(paths, csv_config), *train_image(paths, image_configs)]


def _train_image_model(paths, config, box):
    rows = select_rows(read_processed(paths.train_table), config.visit)
    if rows.empty:
        raise PipelineError(f"{paths.train_table} has no images of the visit {config.visit!r}, for {config.name}.")
    check_crops(rows, paths)
    device = select_device(config.device)
    module = _build(ImageModule, config, crop_size=(box.height, box.width))
    with Run(paths, config, device=device, tables=[paths.train_table]) as run:
        say(f"{config.name}: {len(rows)} images, {device}, {run.folder}")
        ImageModel(module, device).train(rows, paths.root, config, run)
    return run.folder


def select_rows(table, visit):
    """The rows of a processed table whose images are of the visit "before", "after" or "all"."""
    if visit == "all":
        return table
    return table[table[AFTER] == (visit == "after")]


def _build(module_class, config, **arguments):
    """A module with the first weights of the config's seed, or those of init_from."""
    torch.manual_seed(config.seed)
    module = module_class(config.recipe, **arguments)
    if config.init_from:
        load_start(module, config.init_from)
    return module


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
