"""What pretrained runs see of images that they have not learned from, for the recipe best of image models.

Reads run folders, data/processed/splits.json and what these runs read; writes nothing. N images, K findings, B bins of
thickness (model.distribution).
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from config import Paths
from model.distribution import BINS, MIDDLES_UM, Judgement, find_interval
from model.registry import load_model
from model.runs import find_fold_runs
from model_config import FOLDS, FROM_RANDOM
from processing import columns as c
from processing.files import describe_file
from processing.splits import load_splits
from processing.tables import read_processed
from processing.terminal import say

PRETRAINED = "pretrained"

_ANSWERED: dict[tuple, Judgement] = {}      # what runs were asked last, and what they answered

# Fold, as text -> the run that left it out ("run", its folder relative to model/ckpt) and whom ("eyes", patient IDs)
Seers = dict[str, dict[str, Any]]


def find_seers(paths: Paths, name: str, *, tell: bool = False) -> Seers:
    """The pretrained runs of a model that left each fold out; none where one is missing.

    Args:
        paths: config.Paths.
        name: the model's.
        tell: whether it is said that one is missing.

    Returns:
        Seers of one trunk: of those with runs of all folds the one trained last, rather one that began with weights.
    """
    folds: list[set[str]] = []
    if paths.splits.is_file():
        eyes = read_processed(paths.train_table, c.TRAIN_COLUMNS).drop_duplicates(c.PATIENT)
        folds = load_splits(paths.splits, eyes)
    found = find_fold_runs(paths, name) if folds else {}
    variants = sorted(found, key=lambda variant: not variant.endswith(FROM_RANDOM))
    of_trunks = [found[variant] for variant in variants if variant.split()[0] == PRETRAINED] or [{}]
    runs = next((runs for runs in reversed(of_trunks) if len(runs) == FOLDS), of_trunks[-1])
    absent = sorted(set(range(max(FOLDS, len(folds)))) - set(runs))        # of a file of folds that the user made
    if absent:
        if tell:
            say(f"{name}: no pretrained run has left out fold {', '.join(map(str, absent))}; the recipe best is the "
                "recipe measured without them, which is well enough. With a card they can be had: train_image --recipe "
                "pretrained --fold all.")
        return {}
    return {str(fold): {"run": folder.relative_to(paths.ckpt).as_posix(), "eyes": sorted(folds[fold])}
            for fold, folder in sorted(runs.items())}


def see_images(rows: pd.DataFrame, paths: Paths, seers: Seers, device: torch.device
               ) -> tuple[pd.DataFrame, np.ndarray]:
    """What the runs see of images: each by the run that left its person out; persons of no fold by all of them, on
    average.

    Args:
        rows: N rows of train.csv or test.csv.
        paths: config.Paths.
        seers: of find_seers.
        device: that the runs compute on.

    Returns:
        table: DataFrame with the index of `rows`: mean and spread of log thickness, its interval, and K findings.
        chances: N x B, of the thickness of each image's visit.

    Raises:
        PipelineError: a run is no longer there or cannot be loaded, or an image cannot be read.
    """
    of_person = {c.person_of(patient): int(fold) for fold, seer in seers.items() for patient in seer["eyes"]}
    fold_of_row = rows[c.PATIENT].map(c.person_of).map(of_person)
    by_fold: dict[int, Judgement] = {}
    for fold, seer in seers.items():
        own = rows[(fold_of_row == int(fold)) | fold_of_row.isna()]
        if len(own):
            by_fold[int(fold)] = _ask(Path(paths.ckpt / seer["run"]), own, paths, device)
    described = {number: _describe(judgement) for number, judgement in by_fold.items()}
    names = next(iter(described.values())).columns
    chances, seen = np.zeros((len(rows), BINS)), np.zeros((len(rows), len(names)))
    for number, judgement in by_fold.items():
        at = rows.index.get_indexer(judgement.findings.index)
        is_own = (fold_of_row.iloc[at] == number).to_numpy()
        shares = np.where(is_own, 1.0, 1 / len(by_fold))[:, None]       # of a person of no fold each run says its share
        # Each run's own spread, not that of all runs together: trees learned from such
        seen[at] += shares * described[number].reindex(columns=names).to_numpy(float)
        chances[at] += shares * judgement.chances
    return pd.DataFrame(seen, columns=names, index=rows.index), chances


def _ask(run: Path, rows: pd.DataFrame, paths: Paths, device: torch.device) -> Judgement:
    """What a run sees of images; of the same images it is asked once, by all models of a training or an ensemble."""
    file = run / f"{run.parent.name}.pt"
    asked = (file, *describe_file(file), *describe_file(paths.geometry_table), tuple(rows[c.SOURCE]),
             tuple(rows[c.PATIENT]), tuple(rows[c.AFTER]))
    if asked not in _ANSWERED:
        model: Any = load_model(file, device, unit="images")
        answer = model.judge(rows, paths, label=f"{run.relative_to(paths.ckpt).as_posix()} sees")
        while len(_ANSWERED) >= FOLDS:
            _ANSWERED.pop(next(iter(_ANSWERED)))
        _ANSWERED[asked] = answer
    answer = _ANSWERED[asked]
    return Judgement(answer.chances, answer.findings.set_axis(rows.index))


def _describe(judgement: Judgement) -> pd.DataFrame:
    logs = np.log(MIDDLES_UM)
    mean = judgement.chances @ logs
    spread = np.sqrt(np.maximum(judgement.chances @ logs ** 2 - mean ** 2, 0))
    low, high = find_interval(judgement.chances).T
    table = judgement.findings.add_prefix("seen ").add_suffix("_chance")
    return table.assign(**{"seen log thickness": mean, "seen spread": spread, "seen low_um": low, "seen high_um": high,
                           "seen thickness_um": np.exp(mean)})
