"""On the real tables, names, image and checkpoints, where they are at hand."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from config import Paths
from data.predict import predict_before_after
from model.checkpoint import load_checkpoint
from model.metrics import acuity_score, auc_score
from model.registry import load_model
from model.trees import TreeModel
from model_config import CSV_MODEL, IMAGE_MODELS
from processing import columns as c
from processing import data_factory, tables
from processing.data_factory import processing_data
from processing.splits import draw_splits
from processing.tables import build_case_table
from tests.helpers import read_filled, train_csv, train_image

PLACES = {
    "TrainingAnnotation.csv": "preliminary/Train_set", "PreliminaryValidationSet_Info.csv": "preliminary/Test_set",
    "train_anno_case.csv": "final/Train_Set", "train_anno_pic.csv": "final/Train_Set",
    "test_info.csv": "final/Test_set",
}
CPU = torch.device("cpu")


def put_tables(real, paths):
    for name, place in PLACES.items():
        (paths.source / place).mkdir(parents=True, exist_ok=True)
        shutil.copy(real / "tables" / name, paths.source / place / name)


def published_image_model(real):
    return load_model(real / "checkpoints" / "Model-Image-After.pt", CPU, unit="images")


@pytest.fixture(scope="module")
def full_size(real, real_tree, tmp_path_factory):
    """Option 0 on the whole real tree of empty files: all but the pixels."""
    import config

    paths = config.Paths(tmp_path_factory.mktemp("real"))
    for name in real_tree:
        file = paths.source / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    put_tables(real, paths)
    cut = data_factory.crop_img
    data_factory.crop_img = lambda rows, *_: data_factory.Crops(
        pd.DataFrame(rows, columns=c.IMAGE_COLUMNS), [], 0, [], [])
    try:
        processing_data(paths)
    finally:
        data_factory.crop_img = cut
    return paths


def test_the_real_tree_and_tables_give_the_expected_counts(full_size, expected):
    for file, counts, columns in (
        ("csv/image_data.csv", "image_data.csv", c.IMAGE_COLUMNS),
        ("csv/train.csv", "train.csv", c.TRAIN_COLUMNS),
        ("csv/test.csv", "test.csv", c.TEST_COLUMNS),
    ):
        table = tables.read_processed(full_size.processed / file, columns)
        wanted = expected["processed"][counts]
        assert len(table) == wanted["rows"]
        assert table[c.PATIENT].nunique() == wanted["patients"]
        for key in wanted.keys() - {"rows", "patients"}:
            column, value = key.split("=")
            assert (table[column] == int(value)).sum() == wanted[key], key
    cases = build_case_table(tables.read_processed(full_size.train_table, c.TRAIN_COLUMNS))
    assert len(cases) == expected["processed"]["case table of train_csv"]["rows"]


def test_the_real_trees_sets(full_size, expected):
    images = tables.read_processed(full_size.image_table, c.IMAGE_COLUMNS)
    assert len(images) == expected["tree"]["paths"]
    for folder in expected["tree"].keys() - {"paths"}:
        under = images["source_path"].str.lower().str.startswith(f"data/source/{folder}/".lower())
        assert under.sum() == expected["tree"][folder], folder
    assert not images[c.PROCESSED].str.lower().duplicated().any()


def test_nlp_is_decimal_0_in_the_real_tables(real):
    case = read_filled(real / "tables" / "train_anno_case.csv", "case")
    assert (case["preVA"] == 0).sum() == 1


def test_csv_training_from_the_published_checkpoint_gives_the_originals_losses(real, full_size):
    start = str(real / "checkpoints" / "Model-CSV.pt")
    folder, = train_csv(full_size, replace(CSV_MODEL, epochs=5, learning_rate=1e-5, init_from=start, device="cpu"))
    losses = pd.read_csv(folder / "history.csv")["loss"]
    assert losses[0] == pytest.approx(0.4012, abs=1e-4)
    # By a second, independent reading of tables and recipe in plain pandas and torch, on the same machine
    assert losses.tolist() == pytest.approx([0.40124, 0.40054, 0.40027, 0.40012, 0.40001], abs=1e-4)


def test_the_published_csv_model_has_the_expected_size_and_predicts(real, expected, full_size):
    model = load_model(real / "checkpoints" / "Model-CSV.pt", CPU, unit="eyes")
    module = model.module
    wanted = expected["published checkpoints"]["Model-CSV.pt"]
    assert sum(parameter.numel() for parameter in module.parameters()) == wanted["parameters"]
    assert module.layers[0].in_features == wanted["features"] == len(c.CSV_FEATURES)
    cases = build_case_table(tables.read_processed(full_size.train_table, c.TRAIN_COLUMNS))
    predicted = model.predict(cases)
    assert np.corrcoef(predicted["VA"], cases["VA"])[0, 1] > 0.6


def test_the_published_image_model_on_the_real_image(real, expected, tmp_path):
    wanted = next(value for key, value in expected["published checkpoints"].items() if "Image" in key)
    (tmp_path / "screen.jpg").write_bytes((real / "images" / "radial_OS_normal.jpg").read_bytes())
    image = {c.PATIENT: "1L", c.SIDE: 0, c.FINAL: 0, c.AFTER: 1, c.IMAGE: "1", c.SOURCE: "screen.jpg",
             c.DATA_TYPE: "test"}
    row = published_image_model(real).predict(pd.DataFrame([image]), Paths(tmp_path)).iloc[0]
    assert row[c.CST] == pytest.approx(wanted["CST_um"], abs=wanted["tolerance_um"])
    assert (row[c.FINDINGS].astype(float) < wanted["IRF_SRF_PED_HRF_below"]).all()


def test_the_published_image_model_is_a_start_for_training(real, demo_copy):
    start = str(real / "checkpoints" / "Model-Image-After.pt")
    config = replace(IMAGE_MODELS[1], epochs=1, batch_size=4, learning_rate=1e-9, init_from=start, device="cpu")
    folder, = train_image(demo_copy, [config])
    trained, published = (load_checkpoint(file).state for file in (folder / "Model-Image-After.pt", Path(start)))
    torch.testing.assert_close(trained["layers.8.layers.0.weight"], published["layers.8.layers.0.weight"])


def test_the_published_checkpoints_predict_the_demonstration(real, demo_copy):
    image, csv = str(real / "checkpoints" / "Model-Image-After.pt"), str(real / "checkpoints" / "Model-CSV.pt")
    chosen = {"Model-Image-Before": image, "Model-Image-After": image, "Model-CSV": csv}
    folder = predict_before_after(demo_copy, checkpoints=chosen, device="cpu")
    assert pd.read_csv(folder / c.STAGE1)[c.CST].between(100, 800).all()


def test_the_demonstration_is_real_enough_for_the_published_model(real, tmp_path):
    """Realism as a figure: a model that never saw a synthetic eye must read CST off it."""
    import config
    from processing.demo import DemoSize, write_demo

    paths = config.Paths(tmp_path)
    write_demo(paths, DemoSize(44, 2, 2, 2, images=3), seed=34)
    processing_data(paths)
    rows = tables.read_processed(paths.train_table, c.TRAIN_COLUMNS)
    rows = rows[(rows[c.AFTER] == 1) & (rows[c.FINAL] == 0)]
    annotation = pd.read_csv(paths.source / "preliminary/Train_set/TrainingAnnotation.csv")
    known = annotation[annotation[c.CST].notna()][c.PATIENT]
    rows = rows[rows[c.PATIENT].isin(known)]
    assert len(rows) >= 100
    model = published_image_model(real)
    predicted = model.predict(rows, paths)[c.CST]
    assert rows[c.CST].min() < 220
    assert rows[c.CST].max() > 600
    assert np.corrcoef(predicted, rows[c.CST])[0, 1] >= 0.8


def test_the_recipe_best_beats_acuity_as_it_was_on_real_eyes_that_it_never_saw(full_size):
    """One fold of five; the mean over many is in the notes of the recipe."""
    eyes = tables.read_processed(full_size.eye_table, c.EYE_COLUMNS)
    cases = build_case_table(tables.read_processed(full_size.train_table, c.TRAIN_COLUMNS))
    eyes = eyes[eyes[c.PATIENT].isin(cases[c.PATIENT])].reset_index(drop=True)
    held_out = eyes[c.PATIENT].isin(draw_splits(eyes)[0])
    answers = TreeModel().fit(eyes[~held_out]).predict(eyes[held_out])
    scored = eyes[held_out & (eyes[c.DIAGNOSIS] != c.UNTREATED)]
    answers = answers.loc[scored.index]
    as_it_was = acuity_score(scored[c.VA], scored[c.PRE_VA])
    assert acuity_score(scored[c.VA], answers[c.VA]) > as_it_was + 0.03
    assert auc_score(scored[c.CONTINUE], answers[c.CONTINUE]) > 0.72
