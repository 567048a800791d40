"""Options 4 and 5: test images -> per eye -> Model-CSV -> the three submission files.

Reads data/processed/csv/test.csv, the crops, the templates and finished runs; writes model/result/<time>/: the three
files, submit.zip, confidence.csv (how sure they are) and runs.json.
"""

import hashlib
from pathlib import Path

import pandas as pd

from config import CHECKPOINTS, PATHS, Paths
from data.confidence import describe_confidence
from data.pipeline import (
    CSV_MODEL,
    PIPELINES,
    Loaded,
    average_eyes,
    load_models,
    predict_eyes,
    predict_images,
)
from data.submission import Sheet, Submission, read_templates, write_submission
from model.device import select_device
from model.means import fill_missing, fit_case_means
from model.runs import describe_runs, find_checkpoint, find_members, find_newer, fold_of, read_config_field
from processing import columns as c
from processing.errors import PipelineError
from processing.tables import build_case_table, read_processed
from processing.terminal import say
from processing.visits import VISIT, visit_means

NO_IMAGES = "no images; the training mean"
NO_BEFORE = "no images before treatment; the training mean"
NO_AFTER = "no images after treatment; the training mean"
UNKNOWN = "a visit's model that does not know {}; the training mean"
SOME_ABSENT = "some images of the template absent; the mean of the eye's visit, or else the training mean"
PATIENTS_SHOWN = 5      # of a gap, in its warning

Gaps = dict[str, list[str]]             # what is missing, and what stands in -> patient IDs


def predict_before_after(
    paths: Paths = PATHS, *, checkpoints: dict | None = None, device: str = "auto", unfinished: bool = False
) -> Path:
    """Option 4: before-images by Model-Image-Before, after-images by Model-Image-After, then Model-CSV.

    Args:
        paths: config.Paths.
        checkpoints: dict of model name -> run folder or file; what it lacks, config.CHECKPOINTS decides.
        device: "auto", "cuda", "mps" or "cpu".
        unfinished: whether runs that are not finished will do.

    Returns:
        The result folder.

    Raises:
        PipelineError: no fitting checkpoint, no test images, crops missing or unreadable, a faulty template.
    """
    image_models = PIPELINES["before_after"]
    models = _load_models(paths, image_models, checkpoints or {}, device=device, unfinished=unfinished)
    return _predict(paths, image_models, models, "4 (predict_before_after)")


def predict_all(
    paths: Paths = PATHS, *, checkpoints: dict | None = None, device: str = "auto", unfinished: bool = False
) -> Path:
    """Option 5: all images by Model-Image-All, then Model-CSV. Arguments and errors are those of option 4."""
    image_models = PIPELINES["all"]
    models = _load_models(paths, image_models, checkpoints or {}, device=device, unfinished=unfinished)
    return _predict(paths, image_models, models, "5 (predict_all)")


def _load_models(paths, image_models, checkpoints, *, device, unfinished):
    """Every model that is needed, before anything is predicted: dict of name -> Loaded."""
    device = select_device(device)
    models = {}
    for name in dict.fromkeys([*image_models, CSV_MODEL]):
        chosen = checkpoints.get(name) or CHECKPOINTS.get(name)
        file = find_checkpoint(paths, name, chosen, unfinished=unfinished)
        files = [file] if chosen or name == CSV_MODEL else find_members(file)
        try:
            models[name] = load_models(files, name, device)
        except PipelineError as error:
            raise PipelineError(f"{error} {describe_runs(paths, name)}") from error
        for file in files:
            trained_as, fold = read_config_field(file.parent, "name", name), fold_of(file.parent)
            say(f"{name}: {file}" + (f" (trained as {trained_as}, not as {name})" if trained_as != name else "")
                + ("" if fold == "none" else f" (trained without fold {fold})"))
        if len(files) > 1:
            say(f"{name}: these {len(files)} answer together")
        if not chosen and (passed := find_newer(paths, name, file)):
            say(f"{name}: {len(passed)} newer runs are passed over, as each left a fold out; name one to ask it instead"
                f" (the newest: {passed[-1]})")
    return models


def _predict(paths, image_models, models, option):
    test = read_processed(paths.test_table, c.TEST_COLUMNS)
    if test.empty:
        raise PipelineError(f"{paths.test_table} has no images to predict. Put test images into {paths.source}; why "
                            f"any there are not used stands in {paths.problems}.")
    doubled = test[c.SOURCE][test[c.SOURCE].duplicated()].tolist()
    if doubled:     # each would count twice in its eye's means
        raise PipelineError(
            f"{paths.test_table} has {len(doubled)} images twice, the first is {doubled[0]}. "
            "Option 0 (processing_data) makes it anew."
        )
    templates = read_templates(paths, test)
    csv_model = models[CSV_MODEL]
    if not csv_model.model.means and paths.train_table.is_file():       # the published one carries none
        csv_model.model.means = fit_case_means(build_case_table(read_processed(paths.train_table, c.TRAIN_COLUMNS)))
    images = predict_images(test, paths, image_models, models)
    submission, gaps = _answer(templates, images, csv_model, paths)
    known = (images.groupby(c.AFTER)[c.FINDINGS].count() > 0).all()
    if not known.all():
        gaps[UNKNOWN.format(", ".join(known.index[~known]))] = sorted(images[c.PATIENT].unique())
    for gap, patients in gaps.items():
        more = ", ..., all named in runs.json" if len(patients) > PATIENTS_SHOWN else ""
        say(f"Warning: eyes with {gap} stands in: {len(patients)}: {', '.join(patients[:PATIENTS_SHOWN])}{more}")
    runs = {name: _describe_files(model.files) for name, model in models.items()}
    eyes = pd.concat(sheet.rows.assign(**{c.FINAL: final}) for final, sheet in enumerate(submission[:2]))
    confidence = describe_confidence(eyes, images, paths)
    folder = write_submission(paths, submission, {"option": option, "checkpoints": runs, "means": gaps},
                              beside={"confidence.csv": confidence})
    say(f"{len(images)} images of {images[c.PATIENT].nunique()} eyes predicted. The submission lies in {folder}")
    return folder


def _describe_files(files):
    """A checkpoint's file and SHA-256, and those of others that answered with it."""
    first, *others = ({"file": str(file), "sha256": hashlib.sha256(file.read_bytes()).hexdigest()} for file in files)
    return first | ({"with": others} if others else {})


# ---- Rows that are asked for -> answers, and whose answers are means

def _answer(templates: Submission, images: pd.DataFrame, csv_model: Loaded, paths: Paths) -> tuple[Submission, Gaps]:
    """The templates with every answer, and the gaps that means fill."""
    preliminary, final = (images[images[c.FINAL] == number] for number in (0, 1))
    answered, means = [], csv_model.model.means
    gaps: Gaps = {}
    for sheet, (rows, gaps_of_sheet) in zip(templates, (
        _answer_eyes(templates.stage1.rows, preliminary, csv_model, paths, final=0),
        _answer_eyes(templates.stage2_case.rows, final, csv_model, paths, final=1),
        _answer_pics(templates.stage2_pic.rows, final, means),
    ), strict=True):
        answered.append(Sheet(rows, sheet.header))
        for gap, patients in gaps_of_sheet.items():
            if len(patients):
                gaps[gap] = [*gaps.get(gap, []), *patients]
    return Submission(*answered), gaps


def _answer_eyes(rows, images, csv_model, paths, *, final):
    """Answer one row per eye.

    Args:
        rows: DataFrame with patient ID, one row per eye.
        images: of predict_images, of that round.
        csv_model: Loaded; its means stand in for an eye without images, or a visit without.
        paths: config.Paths.
        final: the round.

    Returns:
        rows: with CSV_FEATURES, VA and continue injection, in the same order.
        gaps: dict of what is missing -> patient IDs.
    """
    eyes = rows.set_index(c.PATIENT).join(average_eyes(images))
    seen, no_before, no_after = eyes[c.FINAL].notna(), eyes[c.PRE_CST].isna(), eyes[c.CST].isna()
    answers = predict_eyes(eyes[seen], csv_model, paths)
    answered = eyes.drop(columns=c.FINAL).join(answers)
    sure = answered.columns.intersection(c.SURE)            # of a mean that stands in nothing is known
    filled = fill_missing(answered.drop(columns=sure), csv_model.model.means, final)
    return filled.join(answered[sure]).reset_index(), {
        NO_IMAGES: eyes.index[~seen], NO_BEFORE: eyes.index[seen & no_before], NO_AFTER: eyes.index[seen & no_after],
    }


def _answer_pics(rows, images, means):
    """Answer one row per image: its findings; without the image, the mean of the eye's visit, or else of training.

    Args:
        rows: DataFrame with patient ID, after and image name.
        images: of predict_images, of the final round.
        means: dict of round name -> dict of column -> mean.

    Returns:
        rows: with FINDINGS, in the same order.
        gaps: dict of what is missing -> patient IDs.
    """
    pics = rows.merge(images[[*VISIT, c.IMAGE, *c.FINDINGS]], on=[*VISIT, c.IMAGE], how="left")
    absent = pics[c.FINDINGS].isna().all(axis=1)
    of_visit = pics[VISIT].join(visit_means(images, c.FINDINGS), on=VISIT)[c.FINDINGS]
    found = pics[c.FINDINGS].fillna(of_visit)
    before = fill_missing(found.set_axis(c.PRE_FINDINGS, axis=1), means, 1).set_axis(c.FINDINGS, axis=1)
    after = fill_missing(found, means, 1)
    answered = pics.assign(**before.where(pics[c.AFTER] == 0, after))
    return answered, {SOME_ABSENT: pics[c.PATIENT][absent].unique()}
