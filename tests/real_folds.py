"""Are findings told on real scans of another device, persons kept apart? Trees over measures, and trunks.

    python -m tests.real_folds                  one table, on the terminal
    python -m tests.real_folds --docs           into docs/training.md as well
    python -m tests.real_folds --root FOLDER    where the data root is made, and kept; what was judged there stays
    python -m tests.real_folds --precision bf16 networks in half the time, where the processor has bfloat16

The scans of ../shared/oct_real/masks are laid into screens, their marks become the findings of images (cysts IRF, fluid
SRF, foci HRF), and the program's own recipes learn from four fifths of the persons and judge the others. Each scan is
an eye of its own: neither how many scans there are of an eye nor how its fellow looks tells anything. A finding is
scored on the scans where it was marked and those of eyes without disease: in diseased eyes what is not marked may still
be there. The trees do not learn from these either; networks need a label of each image, and take them for free of it.
Nothing that is learned is kept by the program.

AUC is the share of pairs of scans that are put in the right order, of those that the same run judges; beside it, of all
pairs. Those of two runs say less of either: a run that leaves out many scans with a finding has learned from few, and
says less of all that it judges, however well it ranks them (Airola et al., Computational Statistics and Data Analysis
2011, on pooling in cross-validation).
"""

import argparse
import csv
import re
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from config import VIEWS, Paths
from data.measure import measure_all
from data.pipeline import load_models
from model.device import select_device
from model.metrics import auc_score
from model.training import train
from model_config import FOLDS, IMAGE_MODELS, PRECISIONS
from processing import columns as c
from processing.bscans import FUNDUS_PX, SCAN_ROWS
from processing.files import write_bytes, write_csv, write_json, write_text
from processing.screens import SCREEN
from processing.splits import draw_splits, load_splits
from processing.tables import read_processed
from processing.terminal import say
from processing.views import view_paths
from tests.helpers import REPOSITORY

MASKS = REPOSITORY.parent / "shared" / "oct_real" / "masks"
DOCS = REPOSITORY / "docs" / "training.md"
FINDINGS = {"cysts": "IRF", "fluid": "SRF", "foci": "HRF"}     # masks/ -> a finding of the competition
WANTED = {"cysts": 0.97, "fluid": 0.97, "foci": 0.85}
DRAWS, SEED = 2000, 2021            # of persons, for the intervals
USUAL_UM = 300.0                    # nobody says how thick these retinas are, and nobody asks
EPOCHS = 20
CONFIG = replace(IMAGE_MODELS[2], fold="all", device="cpu", batch_size=4, learning_rate=1e-3, pool="image")
PRETRAINED = {"recipe": "pretrained", "learning_rate": 3e-3}        # as was best on synthetic eyes
VARIANTS = {
    "measured": {"recipe": "measured"},
    "pretrained, trunk segmentation": PRETRAINED,
    "best": {"recipe": "best"},         # it asks those before it
    "pretrained, random weights": PRETRAINED | {"weights": "none"},
    "resnet": {"recipe": "resnet", "augment": "mild", "schedule": "warm", "epochs": 8},   # as long as the trunks take
}


def write_root(root):
    """The scans as screens, and the tables that options 0 and 11 would leave: paths, and whether each is a control."""
    paths = Paths(root)
    with (MASKS / "index.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    images = []
    for place, row in enumerate(rows):
        is_control = row["kind"] != "diseased"
        patient = f"{int(row['subject']):04}-{place:04}R"       # its subject first
        source = f"data/source/{patient}_{Path(row['image']).stem}.jpg"
        if not (paths.root / source).is_file():
            write_screen(paths.root / source, next(MASKS.rglob(row["image"])))
        unmarked = 0.0 if is_control else np.nan
        marks = {finding: 1.0 if row[kind] and is_marked(MASKS / row[kind]) else unmarked
                 for kind, finding in FINDINGS.items()}
        images.append({
            # No clinical value tells which eye is diseased
            c.PATIENT: patient, c.SIDE: 0, c.FINAL: 1, c.AFTER: 1, c.INJECTION: c.POST,
            c.IMAGE: Path(row["image"]).stem, c.SOURCE: source, c.DATA_TYPE: "train", "PED": 0.0, **marks,
            **dict.fromkeys((c.GENDER, c.AGE, c.DIAGNOSIS, c.DRUG, c.PRE_VA, c.VA, c.CONTINUE), 1.0),
            **dict.fromkeys((c.PRE_CST, c.CST), USUAL_UM), **dict.fromkeys(c.PRE_FINDINGS, 0.0)})
    table = pd.DataFrame(images)
    table[c.PROCESSED] = view_paths(table, VIEWS["bscan"])
    eyes = table.drop_duplicates(c.PATIENT)
    for file, part, columns in ((paths.eye_table, eyes, c.EYE_COLUMNS), (paths.image_table, table, c.IMAGE_COLUMNS),
                                (paths.train_table, table, c.TRAIN_COLUMNS)):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_csv(file, part[columns])
    persons = eyes.assign(**{c.PATIENT: eyes[c.PATIENT].str[:4]}).drop_duplicates(c.PATIENT)
    folds = [sorted(eyes[c.PATIENT][eyes[c.PATIENT].str[:4].isin(fold)]) for fold in draw_splits(persons)]
    write_json(paths.splits, {"seed": SEED, "folds": folds})
    return paths, np.array([row["kind"] != "diseased" for row in rows])


def write_screen(file, scan):
    """A scan where a screen has its own, stretched to its size."""
    screen = np.zeros((SCREEN[1], SCREEN[0], 3), np.uint8)
    grey = cv2.imread(str(scan), cv2.IMREAD_GRAYSCALE)
    whole = cv2.resize(grey, (SCREEN[0] - FUNDUS_PX, SCAN_ROWS), interpolation=cv2.INTER_LINEAR)
    screen[:SCAN_ROWS, FUNDUS_PX:] = whole[..., None]
    file.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(file, cv2.imencode(".jpg", screen)[1].tobytes())


def is_marked(mask):
    """Whether an annotator marked anything."""
    return bool((cv2.imread(str(mask), cv2.IMREAD_GRAYSCALE) > 127).any())


def judge(paths, rows, folds, name, precision):
    """Findings of every image by the run that left its person out: N x K; kept in the root."""
    kept, variant = paths.root / f"{name}, {precision}.csv", VARIANTS[name]
    if kept.is_file():
        return pd.read_csv(kept).set_axis(rows.index)
    are_trees = variant["recipe"] in ("measured", "best")
    write_csv(paths.train_table, rows if are_trees else rows.fillna(dict.fromkeys(c.FINDINGS, 0)))
    of_networks = {} if are_trees else {"epochs": EPOCHS, "precision": precision}
    folders = train([replace(CONFIG, **of_networks | variant)], paths)
    parts = []
    for fold, folder in enumerate(folders):
        own = rows[rows[c.PATIENT].isin(folds[fold])]
        model = load_models([folder / f"{CONFIG.name}.pt"], CONFIG.name, select_device("cpu")).model
        parts.append(model.predict(own, paths)[list(FINDINGS.values())])
    answers = pd.concat(parts).loc[rows.index]
    write_csv(kept, answers)
    return answers


def score(rows, is_control, answers, parts):
    """AUC of each kind by pairs of scans of the same part, of all persons and of DRAWS draws of them.

    Args:
        rows, answers: N rows.
        is_control: N bool.
        parts: N, who was judged by which run.
    """
    persons = rows[c.PATIENT].str[:4]
    names = sorted(set(persons))
    rng = np.random.default_rng(SEED)
    draws = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), DRAWS)
    number = persons.map({name: place for place, name in enumerate(names)}).to_numpy()
    found = {}
    for kind, finding in FINDINGS.items():
        label, told = rows[finding].to_numpy() > 0, answers[finding].to_numpy()
        right, pairs = np.zeros((2, 1 + DRAWS))
        for part in np.unique(parts):
            used = (label | is_control) & (parts == part)
            weights = np.vstack([np.ones(used.sum(), int), draws[:, number[used]]])     # all persons first
            own = (weights * label[used]).sum(axis=1) * (weights * ~label[used]).sum(axis=1)
            right += np.where(own > 0, auc_score(label[used], told[used], weights) * own, 0)
            pairs += own
        found[kind] = float(right[0] / pairs[0]), right[1:] / pairs[1:]
    return found


def tell(scores, other=None):
    """An AUC with its interval, or how far it lies from another's, as text."""
    whole, draws = scores if other is None else (scores[0] - other[0], scores[1] - other[1])
    low, high = np.nanpercentile(draws, (2.5, 97.5))
    sign = "" if other is None else "+"
    return f"{whole:{sign}.3f} ({low:{sign}.3f} to {high:{sign}.3f})"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", help="a folder of its own")
    parser.add_argument("--docs", action="store_true")
    parser.add_argument("--only", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--precision", choices=PRECISIONS, default="card")
    arguments = parser.parse_args()
    if not MASKS.is_dir():
        say(f"{MASKS} is not at hand.")
        return 1
    with tempfile.TemporaryDirectory() as folder:
        paths, is_control = write_root(arguments.root or folder)
        measure_all(paths, device="cpu")
        rows = read_processed(paths.train_table, c.TRAIN_COLUMNS)
        folds = load_splits(paths.splits, rows.drop_duplicates(c.PATIENT))
        assert len(folds) == FOLDS
        run_of = rows[c.PATIENT].map({patient: fold for fold, own in enumerate(folds) for patient in own}).to_numpy()
        answers = {name: judge(paths, rows, folds, name, arguments.precision) for name in arguments.only}
    scores = {name: score(rows, is_control, told, run_of) for name, told in answers.items()}
    of_all = {name: score(rows, is_control, told, np.zeros(len(rows))) for name, told in answers.items()}
    lines = [f"| {' | '.join(['', *(f'{kind} (wanted {WANTED[kind]:.2f})' for kind in FINDINGS)])} |",
             "|---" * (1 + len(FINDINGS)) + "|"]
    for name, found in scores.items():
        lines += [f"| {called} | {' | '.join(tell(auc[kind]) for kind in FINDINGS)} |"
                  for called, auc in ((name, found), (f"{name}, all pairs", of_all[name]))]
    trunk = "pretrained, trunk segmentation"
    for other in [name for name in scores if trunk in scores and name not in (trunk, "measured", "best")]:
        cells = " | ".join(tell(scores[trunk][kind], scores[other][kind]) for kind in FINDINGS)
        lines.append(f"| the trunk segmentation's gain on {other} | {cells} |")
    say("\n".join(lines))
    if arguments.docs:
        marked = re.compile(r"(<!-- tests.real_folds -->\n).*?(<!-- end -->)", re.DOTALL)
        text = DOCS.read_text(encoding="utf-8")
        write_text(DOCS, marked.sub(lambda match: match[1] + "\n".join(lines) + "\n" + match[2], text))
    return 0


if __name__ == "__main__":
    sys.exit(main())
