"""Option 8 at full size, without the models: scores, references, groups, bootstrap, pictures, report.

    python -m tests.benchmarks.evaluate     2,400 eyes, 44,000 images of invented predictions: seconds and peak memory
"""

import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from data.folds import Data, Predictions
from data.page import write_page
from data.references import predict_references
from data.report import draw_pictures
from data.scores import describe_scores, describe_way, pair_truth, score_groups, score_methods
from processing import columns as c
from tests.benchmarks.stages import peak_bytes

EYES, IMAGES, FOLDS = 2400, 44_000, 5


def invent(rng):
    """Data and Predictions of that many eyes; every seventh person has two of them."""
    names = [f"{number // 2 if number % 7 == 0 else number:04d}{'LR'[number % 2]}" for number in range(EYES)]
    names = list(dict.fromkeys(names))
    eyes = pd.DataFrame({
        c.FINAL: rng.integers(0, 2, len(names)), c.AGE: 60, c.DIAGNOSIS: rng.integers(1, 6, len(names)),
        c.DRUG: rng.integers(1, 4, len(names)),
        c.PRE_VA: rng.random(len(names)).round(1), c.VA: rng.random(len(names)).round(1),
        c.PRE_CST: rng.uniform(200, 700, len(names)), c.CST: rng.uniform(200, 600, len(names)),
        c.CONTINUE: rng.integers(0, 2, len(names)),
    }, index=pd.Index(names, name=c.PATIENT))
    for name in (*c.PRE_FINDINGS, *c.FINDINGS):
        eyes[name] = rng.integers(0, 2, len(names))
    predicted = eyes[[c.PRE_CST, c.CST, c.VA, c.CONTINUE, *c.PRE_FINDINGS, *c.FINDINGS]] * rng.uniform(0.8, 1.2,
                                                                                                       (len(names), 12))
    predicted[[c.CONTINUE, *c.PRE_FINDINGS, *c.FINDINGS]] = rng.random((len(names), 9))
    predicted["fold"] = rng.integers(0, FOLDS, len(names))
    final = eyes.index[eyes[c.FINAL] == 1]
    images = pd.DataFrame({
        c.PATIENT: rng.choice(final, IMAGES), c.AFTER: rng.integers(0, 2, IMAGES),
        c.IMAGE: [str(n) for n in range(IMAGES)],
    })
    table = images.assign(**{c.FINAL: 1}, **{name: rng.integers(0, 2, IMAGES) for name in c.FINDINGS})
    images = images.assign(**{name: rng.random(IMAGES) for name in c.FINDINGS})
    folds = [set(predicted.index[predicted["fold"] == fold]) for fold in range(FOLDS)]
    return Data(table, eyes, folds), Predictions(predicted, images, {})


def main():
    """Run it once and say what it took."""
    data, newest = invent(np.random.default_rng(0))
    started = time.perf_counter()
    methods = {"model": newest, "seed recipe": newest} | predict_references(data, newest)
    scores = score_methods(data, methods)
    groups = score_groups(data, newest)
    text = describe_scores(scores, groups, data=data, newest=newest, pipeline="all")
    with tempfile.TemporaryDirectory() as folder:
        draw_pictures(Path(folder), pair_truth(data, newest))
        write_page(Path(folder), scores=scores, groups=groups, coverage=None, noise=None, notes=[], origin="",
                   how=describe_way(data, newest, "all"), commands="")
    seconds = time.perf_counter() - started
    print(text)
    print(f"{len(data.eyes)} eyes, {len(newest.images)} images: {seconds:.1f} s, {peak_bytes() / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
