"""Options 4 and 5: test images -> per eye -> Model-CSV -> the three submission files.

Reads data/processed/csv/test.csv, the crops, the templates and finished runs; writes model/result/<time>/.
"""

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from model.choice import describe_runs, find_checkpoint, fold_of
from model.model import CSVModel, CSVTrees, ImageModel

from config import CHECKPOINTS, PATHS, VIEWS
from data.submission import Submission, read_templates, write_submission
from model.checkpoint import load_checkpoint
from model.dataset import check_finite
from model.device import select_device
from model.training import check_crops, select_rows, training_means
from processing import columns as c
from processing.errors import PipelineError
from processing.tables import build_case_table, read_processed
from processing.terminal import say
from processing.views import describe_view

CSV_MODEL = "Model-CSV"
MODELS = {"ImageModule": ImageModel, "CSVModule": CSVModel, "TreeModel": CSVTrees}      # what computes with a module
BEFORE_AFTER = {"before": "Model-Image-Before", "after": "Model-Image-After"}
ALL = {"before": "Model-Image-All", "after": "Model-Image-All"}
CLINICAL = [c.GENDER, c.AGE, c.DIAGNOSIS, c.DRUG, c.SIDE, c.PRE_VA]
CROP_2021 = (50, 450, 550, 1200)
TRAIN_AGAIN = "A model predicted them: train it again, or name another run."
NO_IMAGES = "no images; the training mean"
NO_BEFORE = "no images before treatment; the training mean"
NO_AFTER = "no images after treatment; the training mean"
SOME_ABSENT = "some images of the template absent; the mean of the eye's visit, or else the training mean"
BEFORE_COLUMNS, AFTER_COLUMNS = [c.PRE_CST, *c.PRE_FINDINGS], [c.CST, *c.FINDINGS]


def predict_before_after(paths=PATHS, *, checkpoints=None, device="auto", unfinished=False):
    """Option 4: before-images by Model-Image-Before, after-images by Model-Image-After, then Model-CSV.

    Args:
        paths: config.Paths.
        checkpoints: dict of model name -> run folder or file; what it lacks, config.CHECKPOINTS decides.
        device: "auto", "cuda", "mps" or "cpu".
        unfinished: whether runs that are not finished will do.

    Returns:
        The result folder.

    Raises:
        PipelineError: no fitting checkpoint, no test images, crops missing or unreadable.
    """
    models = _load_models(paths, BEFORE_AFTER, checkpoints or {}, device=device, unfinished=unfinished)
    return _predict(paths, BEFORE_AFTER, models, "4 (predict_before_after)")


def predict_all(paths=PATHS, *, checkpoints=None, device="auto", unfinished=False):
    """Option 5: all images by Model-Image-All, then Model-CSV; as predict_before_after."""
    models = _load_models(paths, ALL, checkpoints or {}, device=device, unfinished=unfinished)
    return _predict(paths, ALL, models, "5 (predict_all)")


class Loaded(NamedTuple):
    """A model and where it came from."""

    model: ImageModel | CSVModel
    values: dict        # kept beside its weights
    file: Path


def _load_models(paths, image_models, checkpoints, *, device, unfinished):
    """Every model that is needed, before anything is predicted: dict of name -> Loaded."""
    device = select_device(device)
    loaded = {}
    for name in dict.fromkeys([*image_models.values(), CSV_MODEL]):
        file = find_checkpoint(paths, name, checkpoints.get(name) or CHECKPOINTS.get(name), unfinished=unfinished)
        try:
            module, content = load_checkpoint(file, ("CSVModule", "TreeModel") if name == CSV_MODEL else "ImageModule")
        except PipelineError as error:
            raise PipelineError(f"{error} {describe_runs(paths, name)}") from error
        other = content.get("name", name) != name
        left_out = "" if fold_of(file.parent) == "none" else f" (trained without fold {fold_of(file.parent)})"
        say(f"{name}: {file}" + (f" (trained as {content['name']}, not as {name})" if other else "") + left_out)
        model_class = MODELS[type(module).__name__]
        loaded[name] = Loaded(model_class(module, device), content.get("values", {}), file)
    return loaded


def _predict(paths, image_models, models, option):
    test = read_processed(paths.test_table, c.TEST_COLUMNS)
    if test.empty:
        raise PipelineError(f"{paths.test_table} has no images to predict. Put test images into {paths.source}.")
    _check_once(test, paths)
    check_crops(test[c.PROCESSED].tolist(), paths, VIEWS["bscan"])
    _check_boxes(models)
    templates = read_templates(paths, test)
    csv_model, values, _ = models[CSV_MODEL]
    filler = Filler(values.get("training_means") or _means_of_train_table(paths))
    images = test.join(predict_images(test, paths, image_models, models))
    check_finite(images, [c.CST, *c.FINDINGS], c.PROCESSED, advice=TRAIN_AGAIN)
    submission = Submission(
        stage1=_predict_eyes(templates.stage1, images[images[c.FINAL] == 0], csv_model, filler.of_round(0)),
        stage2_case=_predict_eyes(templates.stage2_case, images[images[c.FINAL] == 1], csv_model, filler.of_round(1)),
        stage2_pic=_predict_pics(templates.stage2_pic, images[images[c.FINAL] == 1], filler.of_round(1)),
    )
    filler.warn()
    runs = {name: _identity(loaded.file) for name, loaded in models.items()}
    folder = write_submission(paths, submission, {"option": option, "checkpoints": runs, "means": filler.gaps})
    say(f"{len(images)} images of {images[c.PATIENT].nunique()} eyes predicted. The submission lies in {folder}")
    return folder


def _check_once(test, paths):
    """Refuse an image that stands in test.csv twice: it would count twice in its eye's means."""
    doubled = test[c.PROCESSED][test[c.PROCESSED].duplicated()].tolist()
    if doubled:
        raise PipelineError(
            f"{paths.test_table} has {len(doubled)} images twice, the first is {doubled[0]}. "
            "Option 0 (processing_data) makes it anew."
        )


def _check_boxes(models):
    """Refuse an image model that was trained on crops of another box (the published ones are of the 2021 box)."""
    view = VIEWS["bscan"]
    for name, loaded in models.items():
        box = view._replace(**dict(zip(view._fields, loaded.values.get("crop_box", CROP_2021), strict=False)))
        if name != CSV_MODEL and box != view:
            raise PipelineError(
                f"{loaded.file} was trained on crops of the box {describe_view(box)}; config.py says "
                f"{describe_view(view)}. Set that box and run option 0, or train the model anew."
            )


def _identity(file):
    return {"file": str(file), "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}


def _means_of_train_table(paths):
    """The training means for a Model-CSV that does not carry its own (the published one)."""
    if not paths.train_table.is_file():
        return {}
    return training_means(build_case_table(read_processed(paths.train_table, c.TRAIN_COLUMNS)))


def predict_images(test, paths, image_models, models):
    """CST (um) and the findings' probabilities of each image, by the model of its visit.

    Args:
        test: DataFrame with processed_path and after.
        paths: config.Paths.
        image_models: BEFORE_AFTER or ALL.
        models: dict of model name -> Loaded.
    """
    parts = []
    for visit, name in image_models.items():
        model = models[name].model
        parts.append(model.eval(select_rows(test, visit), paths.root, label=f"{name}, {visit}"))
    return pd.concat(parts)


class Filler:
    """Training means where eyes or visits of a template have no images; notes which.

    Args:
        means: dict of round name -> dict of column -> mean, maybe empty.
    """

    def __init__(self, means):
        self._means = means
        self.gaps = {}      # what is missing -> patient IDs

    def of_round(self, final):
        """The same filler with that round's means first (the other round's where it has none)."""
        own = self._means.get(c.ROUND_NAMES[final])
        if own is None and self._means:
            own = _in_units_of(final, next(iter(self._means.values())))
        return _RoundFiller(final, own, self.gaps)

    def warn(self):
        """Say whose values are means."""
        for gap, patients in self.gaps.items():
            shown = ", ".join(patients[:5]) + (", ..., all named in runs.json" if len(patients) > 5 else "")
            say(f"Warning: eyes with {gap} stands in: {len(patients)}: {shown}")


def _in_units_of(final, means):
    """The other round's means with acuity in this round's unit: logMAR (preliminary) or decimal (final)."""
    convert = (lambda logmar: 10**-logmar) if final else (lambda decimal: -np.log10(max(decimal, 1e-3)))
    return means | {name: float(convert(means[name])) for name in (c.PRE_VA, c.VA)}


class _RoundFiller:
    def __init__(self, final, means, gaps):
        self.final, self._means, self._gaps = final, means, gaps

    def fill(self, table):
        """`table` with the mean of its column at each NaN."""
        if not table.isna().any(axis=None):
            return table
        if self._means is None:
            raise PipelineError(
                "Some eyes have no images, and Model-CSV does not carry the means of its training data. "
                "Train Model-CSV by option 2 (train_csv)."
            )
        return table.fillna(self._means)

    def note(self, gap, patients):
        if len(patients):
            self._gaps[gap] = [*self._gaps.get(gap, []), *patients]


def _predict_eyes(template, images, csv_model, filler):
    """One row per eye of a template.

    Args:
        template: DataFrame with patient ID.
        images: test.csv's table of that round, with CST (um) and FINDINGS (0-1) as predicted for each image.
        csv_model: CSVModel.
        filler: _RoundFiller.

    Returns:
        DataFrame with patient ID, CSV_FEATURES, VA and continue injection, in the template's order. An eye
        without images takes the training means; a visit without images too, and Model-CSV goes on from there.
    """
    eyes = template.set_index(c.PATIENT).join(eye_features(images))
    seen = eyes[c.GENDER].notna()
    filler.note(NO_IMAGES, eyes.index[~seen])
    filler.note(NO_BEFORE, eyes.index[seen & eyes[c.PRE_CST].isna()])
    filler.note(NO_AFTER, eyes.index[seen & eyes[c.CST].isna()])
    filled = filler.fill(eyes)
    answers = csv_model.eval((eyes if csv_model.takes_missing else filled).assign(**{c.FINAL: filler.final}))
    check_finite(answers, [c.VA, c.CONTINUE], c.PATIENT, advice=TRAIN_AGAIN)
    answers = answers.where(seen, np.nan)
    return filler.fill(filled.join(answers)).reset_index()


def eye_features(images):
    """Per eye: clinical fields over all its images, the model's answers over the images of each visit.

    Args:
        images: DataFrame with patient ID, after, the clinical columns, and CST and FINDINGS as predicted.

    Returns:
        DataFrame indexed by patient ID with CSV_FEATURES; NaN where a visit has no image.
    """
    before = images[images[c.AFTER] == 0].groupby(c.PATIENT)[AFTER_COLUMNS].mean()
    after = images[images[c.AFTER] == 1].groupby(c.PATIENT)[AFTER_COLUMNS].mean()
    clinical = images.groupby(c.PATIENT)[CLINICAL].mean()
    return clinical.join(before.set_axis(BEFORE_COLUMNS, axis=1)).join(after)[c.CSV_FEATURES]


def _predict_pics(template, images, filler):
    """One row per image of the template: its findings; without the image, the mean of the eye's visit."""
    keys = [c.PATIENT, c.AFTER, c.IMAGE]
    pics = template.merge(images[[*keys, *c.FINDINGS]], on=keys, how="left")
    filler.note(SOME_ABSENT, pics[c.PATIENT][pics[c.FINDINGS[0]].isna()].unique())
    visits = images.groupby([c.PATIENT, c.AFTER])[c.FINDINGS].mean()
    pics[c.FINDINGS] = pics[c.FINDINGS].fillna(pics[[c.PATIENT, c.AFTER]].join(visits, on=[c.PATIENT,
                                                                                           c.AFTER])[c.FINDINGS])
    before = filler.fill(pics[c.FINDINGS].set_axis(c.PRE_FINDINGS, axis=1)).set_axis(c.FINDINGS, axis=1)
    after = filler.fill(pics[c.FINDINGS])
    return pics.assign(**before.where(pics[c.AFTER] == 0, after))
