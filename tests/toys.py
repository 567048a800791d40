"""Small tables of images and eyes, and what stands in for a run: for tests of the models alone."""

import numpy as np
import pandas as pd
import torch

from config import View
from model.image_model import ImageNetwork
from model.specification import ImageSpecification
from model_config import ImageConfig
from processing import columns as c
from processing.crop_record import BOX, CHANNELS, CROP, RECORD_COLUMNS, CropRecord
from processing.files import write_csv
from processing.views import describe_view, view_paths
from tests.helpers import put_screen

CPU = torch.device("cpu")
SMALL = {"bscan": View(0, 64, 0, 96, channels=1, folder="img")}
TWO = SMALL | {"fundus": View(0, 48, 0, 40, channels=3, folder="fundus")}


class Recorder:
    """Stands in for a Run: remembers the losses, keeps nothing."""

    epochs_done = halvings = 0

    def __init__(self, config):
        self.config, self.name, self.batch_size, self.losses = config, config.name, config.batch_size, []

    def restore(self, model, optimizer):
        self.optimizer = optimizer

    def finish_epoch(self, epoch, _optimizer, losses):
        assert epoch == len(self.losses) + 1
        self.losses.append(losses)
        self.epochs_done = epoch


def make_images(paths, count, views=SMALL, *, visits=None, final=1):
    """`count` crops of noise for each view, with labels that differ from one to the next; the table of their rows.

    Args:
        visits: number of the visit of each image, of which the odd ones are after treatment; None: all after
            treatment, each of an eye of its own.
        final: the round, or one for each image.
    """
    eyes = np.arange(count) if visits is None else np.array(visits) // 2
    rows = pd.DataFrame({
        c.PATIENT: [f"{eye}L" for eye in eyes], c.IMAGE: [str(number) for number in range(count)],
        c.AFTER: 1 if visits is None else np.array(visits) % 2, c.FINAL: final, c.SIDE: 0, c.DATA_TYPE: "train",
        c.CST: 200.0 + 25 * eyes, c.PRE_CST: 300.0 + 25 * eyes, c.INJECTION: c.POST,
    })
    for bit, finding in enumerate(c.FINDINGS):
        rows[finding] = [float(number >> bit & 1) for number in range(count)]
    rows[c.SOURCE] = [f"data/source/{number}.jpg" for number in range(count)]
    rows[c.PROCESSED] = view_paths(rows, views["bscan"])
    rows = rows.reindex(columns=c.TRAIN_COLUMNS).fillna(0)
    record = CropRecord(paths.crop_record)
    for number, view in enumerate(views.values()):
        for row, name in enumerate(view_paths(rows, view)):
            put_screen(paths.root / name, seed=100 * number + row, height=view.height, width=view.width,
                       grey=view.channels == 1)
            record.add(dict.fromkeys(RECORD_COLUMNS, 0) | {
                CROP: name, BOX: describe_view(view), CHANNELS: view.channels,
            })
    record.save()
    write_csv(paths.train_table, rows)
    return rows


def image_config(**values):
    """A config of a model for the after-images."""
    return ImageConfig(**{"name": "Model-Image-After", "visit": "after", "target": c.CST} | values).settle()


def build_images(views=SMALL, device=CPU, **values):
    """An untrained ImageNetwork for small images."""
    settings = image_config(**values)
    recipe = settings.recipe_of()
    what = ImageSpecification(recipe.backbone, views, settings.pool, recipe.heads, tuple(c.FINDINGS), settings.target,
                              settings.normalise)
    torch.manual_seed(settings.seed)
    return ImageNetwork(what.to_plain(), device)


def train_images(rows, paths, views=SMALL, held_out=None, **values):
    """A model that learned `rows` as a config of these values says, and the losses of its epochs."""
    model, recorder = build_images(views, **values), Recorder(image_config(**values))
    model.fit(rows, recorder, paths, held_out=rows.head(0) if held_out is None else held_out)
    return model, recorder.losses


def make_cases(count, seed=0):
    """So many eyes of the final round whose outcome follows from their features."""
    rng = np.random.default_rng(seed)
    cases = pd.DataFrame(rng.random((count, len(c.CSV_FEATURES))), columns=c.CSV_FEATURES)
    cases[c.VA] = cases[c.PRE_VA]
    cases[c.CONTINUE] = (cases["IRF"] > 0.5).astype(float)
    cases[c.PATIENT] = [f"{number}L" for number in range(count)]
    return cases.assign(**{c.FINAL: 1})
