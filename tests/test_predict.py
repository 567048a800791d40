import json
import shutil
import zipfile
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import config
from config import Paths
from data import predict
from data.confidence import COLUMNS, NOT_MEASURED
from data.predict import predict_all, predict_before_after
from data.submission import Sheet, Submission, write_submission
from model.checkpoint import save_checkpoint
from model.csv_model import CSVNetwork
from model.image_model import ImageNetwork
from model.means import fill_missing, fit_case_means
from model.registry import load_model
from model.runs import find_checkpoint
from model_config import CSV_MODEL
from processing import columns as c
from processing.data_factory import processing_data
from processing.errors import PipelineError
from tests.helpers import train_csv

CPU = torch.device("cpu")
NAMES = [c.STAGE1, c.STAGE2_CASE, c.STAGE2_PIC]


def read(folder):
    return [pd.read_csv(folder / name, dtype={c.PATIENT: str, c.IMAGE: str}) for name in NAMES]


def template(paths, name):
    return pd.read_csv(paths.submit / name, dtype={c.PATIENT: str, c.IMAGE: str})


@pytest.fixture(scope="module")
def trained(trained_root, tmp_path_factory):
    """A trained demonstration for all tests of this file that only add results."""
    root = tmp_path_factory.mktemp("predict") / "root"
    shutil.copytree(trained_root.root, root)
    return Paths(root)


@pytest.fixture(scope="module")
def result(trained):
    return predict_before_after(trained)


def test_the_files_have_the_templates_rows_in_their_order(trained, result):
    for table, name in zip(read(result), NAMES, strict=True):
        wanted = template(trained, name)
        keys = [key for key in ("image number", c.PATIENT, c.INJECTION, c.IMAGE) if key in wanted]
        assert table.columns.tolist() == wanted.columns.tolist()
        pd.testing.assert_frame_equal(table[keys], wanted[keys])


def test_every_value_is_finite_and_in_range(result):
    for table in read(result):
        numbers = table.select_dtypes("number").drop(columns="image number", errors="ignore")
        assert np.isfinite(numbers.to_numpy()).all()
        assert (numbers >= 0).all(axis=None)
        probabilities = numbers[numbers.columns.intersection([c.CONTINUE, *c.FINDINGS])]
        assert (probabilities <= 1).all(axis=None)


def test_what_is_doubtful_stands_beside_the_files(trained, result):
    """The seed recipe tells no distribution; nothing has been measured in this demonstration."""
    table, stage1 = pd.read_csv(result / "confidence.csv", dtype={c.PATIENT: str}), read(result)[0]
    assert list(table) == COLUMNS and not table.duplicated([c.PATIENT, "item"]).any()
    assert set(table[c.PATIENT]) == {*stage1[c.PATIENT], *read(result)[1][c.PATIENT]}
    assert table[["chance", "low", "high"]].isna().all(axis=None)
    assert set(table["remarks"]) == {NOT_MEASURED}
    answers = table[table["item"] == c.CST].set_index(c.PATIENT)["answer"]
    assert np.allclose(answers[stage1[c.PATIENT]], stage1[c.CST])


def test_the_zip_holds_the_three_files_and_runs_json_says_where_they_came_from(result):
    with zipfile.ZipFile(result / "submit.zip") as archive:
        assert sorted(archive.namelist()) == sorted(NAMES)
        for name in NAMES:
            assert archive.read(name) == (result / name).read_bytes()
    runs = json.loads((result / "runs.json").read_text(encoding="utf-8"))
    assert set(runs["checkpoints"]) == {"Model-Image-Before", "Model-Image-After", "Model-CSV"}
    assert runs["means"] == {}


def test_an_eyes_values_are_the_means_over_its_visits_images(trained, result):
    _, case, pic = read(result)
    test = pd.read_csv(trained.test_table, dtype={c.PATIENT: str, c.IMAGE: str})
    test = test[test[c.FINAL] == 1]
    assert set(case[c.PATIENT]) == set(test[c.PATIENT])

    for name, after, column in (("Model-Image-Before", 0, c.PRE_CST), ("Model-Image-After", 1, c.CST)):
        rows = test[test[c.AFTER] == after]
        model = load_model(find_checkpoint(trained, name), CPU, unit="images")
        predicted = rows.join(model.predict(rows, trained))
        means = predicted.groupby(c.PATIENT)[c.CST].mean()
        np.testing.assert_allclose(case.set_index(c.PATIENT)[column], means[case[c.PATIENT]], rtol=1e-4)
        merged = pic.merge(predicted, on=[c.PATIENT, c.IMAGE, c.INJECTION], suffixes=("", "_image"))
        assert len(merged) == len(rows)
        np.testing.assert_allclose(merged["PED"], merged["PED_image"], atol=1e-5)


def test_option_5_takes_model_image_all_for_both_visits(trained, result):
    other = predict_all(trained)
    assert other != result
    runs = json.loads((other / "runs.json").read_text(encoding="utf-8"))
    assert set(runs["checkpoints"]) == {"Model-Image-All", "Model-CSV"}
    assert not np.allclose(read(other)[1][c.PRE_CST], read(result)[1][c.PRE_CST])


def test_without_templates_the_test_table_gives_the_rows(trained_copy):
    for name in NAMES:
        (trained_copy.submit / name).unlink()
    stage1, case, pic = tables = read(predict_all(trained_copy))
    assert [table.columns.tolist() for table in tables] == list(c.SUBMISSION_COLUMNS.values())      # as in 2021
    test = pd.read_csv(trained_copy.test_table, dtype={c.PATIENT: str, c.IMAGE: str})
    assert stage1[c.PATIENT].tolist() == test[test[c.FINAL] == 0][c.PATIENT].drop_duplicates().tolist()
    assert case[c.PATIENT].tolist() == test[test[c.FINAL] == 1][c.PATIENT].drop_duplicates().tolist()
    assert pic[c.IMAGE].tolist() == test[test[c.FINAL] == 1][c.IMAGE].tolist()
    assert pic["image number"].tolist() == list(range(1, len(pic) + 1))


def test_eyes_and_visits_without_images_take_training_means_and_are_named(trained_copy, capsys):
    test = pd.read_csv(trained_copy.test_table, dtype={c.PATIENT: str, c.IMAGE: str})
    eyes = test[test[c.FINAL] == 1][c.PATIENT].unique()
    kept = test[~((test[c.PATIENT] == eyes[0]) & (test[c.AFTER] == 1))]
    kept.to_csv(trained_copy.test_table, index=False)
    unknown = template(trained_copy, c.STAGE1)
    unknown.loc[len(unknown)] = ["0000-9999L"] + [0] * (unknown.shape[1] - 1)
    unknown.to_csv(trained_copy.submit / c.STAGE1, index=False)

    folder = predict_before_after(trained_copy)
    stage1, case, pic = read(folder)
    said = capsys.readouterr().out
    gaps = json.loads((folder / "runs.json").read_text(encoding="utf-8"))["means"]
    assert gaps[predict.NO_IMAGES] == ["0000-9999L"]
    assert gaps[predict.NO_AFTER] == [eyes[0]]
    assert gaps[predict.SOME_ABSENT] == [eyes[0]]
    assert "0000-9999L" in said
    assert eyes[0] in said

    from processing.tables import build_case_table, read_processed

    means = fit_case_means(build_case_table(read_processed(trained_copy.train_table, c.TRAIN_COLUMNS)))
    last = stage1.iloc[-1]
    assert last[[c.PRE_CST, c.CST, c.VA, c.CONTINUE]].tolist() == pytest.approx(
        [means["preliminary"][name] for name in (c.PRE_CST, c.CST, c.VA, c.CONTINUE)], rel=1e-6, abs=1e-5
    )
    row = case[case[c.PATIENT] == eyes[0]].iloc[0]
    assert row[c.CST] == pytest.approx(means["final"][c.CST], abs=1e-5)
    assert row[c.PRE_CST] != pytest.approx(means["final"][c.PRE_CST], abs=1)
    absent = pic[(pic[c.PATIENT] == eyes[0]) & (pic[c.INJECTION] == "Post injection")]
    assert absent["IRF"].unique().tolist() == [pytest.approx(means["final"]["IRF"], abs=1e-5)]


def test_a_finding_that_no_model_knows_is_named(trained_copy, monkeypatch, capsys):
    def forget(*arguments):
        images = predict_images(*arguments)
        return images.assign(SRF=images["SRF"].where(images[c.AFTER] == 0))

    predict_images = predict.predict_images
    monkeypatch.setattr(predict, "predict_images", forget)
    folder = predict_all(trained_copy)
    gaps = json.loads((folder / "runs.json").read_text(encoding="utf-8"))["means"]
    test = pd.read_csv(trained_copy.test_table, dtype={c.PATIENT: str})
    assert gaps[predict.UNKNOWN.format("SRF")] == sorted(test[c.PATIENT].unique())
    assert "does not know SRF; the training mean stands in: " in capsys.readouterr().out


def test_an_image_that_is_missing_takes_the_mean_of_its_visit(trained_copy):
    pic = template(trained_copy, c.STAGE2_PIC)
    pic.loc[len(pic)] = [len(pic) + 1, pic[c.PATIENT][0], pic[c.INJECTION][0], "lost image", 0, 0, 0]
    pic.to_csv(trained_copy.submit / c.STAGE2_PIC, index=False)
    table = read(predict_all(trained_copy))[2]
    same_visit = table[(table[c.PATIENT] == pic[c.PATIENT][0]) & (table[c.INJECTION] == pic[c.INJECTION][0])]
    assert same_visit["SRF"].iloc[-1] == pytest.approx(same_visit["SRF"].iloc[:-1].mean(), abs=1e-5)


def test_nothing_is_predicted_without_a_finished_run(demo_root):
    for option, name in ((predict_before_after, "Model-Image-Before"), (predict_all, "Model-Image-All")):
        with pytest.raises(PipelineError, match=rf"{name} has no finished run .*Option 1 \(train_image\) makes one"):
            option(demo_root)
    assert not demo_root.result.exists()


def test_an_unfinished_run_is_not_taken(trained_copy):
    record, = (trained_copy.ckpt / "Model-CSV").glob("*/run.json")
    record.write_text(record.read_text().replace("finished", "stopped"))
    with pytest.raises(PipelineError, match="Model-CSV has no finished run"):
        predict_all(trained_copy)


def test_a_named_checkpoint_is_taken_and_a_wrong_one_refused(trained_copy, capsys):
    csv, = (trained_copy.ckpt / "Model-CSV").iterdir()
    image, = (trained_copy.ckpt / "Model-Image-Before").iterdir()
    predict_all(trained_copy, checkpoints={"Model-Image-All": str(image)})
    assert str(image) in capsys.readouterr().out
    message = "holds a CSVNetwork, which answers for eyes; a model for images is needed here. Runs of Model-Image-All: "
    with pytest.raises(PipelineError, match=message):
        predict_all(trained_copy, checkpoints={"Model-Image-All": str(csv)})


def test_the_recipe_best_answers_in_the_place_of_the_network(trained_copy):
    run, = train_csv(trained_copy, replace(CSV_MODEL, recipe="best"))
    folder = predict_all(trained_copy)
    assert json.loads((folder / "runs.json").read_text())["checkpoints"]["Model-CSV"]["file"].startswith(str(run))
    answers = pd.read_csv(folder / c.STAGE2_CASE)
    assert answers[c.VA].between(0, 1).all()                      # decimal
    assert answers[c.CONTINUE].between(0, 1).all()
    assert np.isfinite(pd.read_csv(folder / c.STAGE1).select_dtypes("number")).all(axis=None)


def test_a_run_that_left_a_fold_out_is_taken_only_where_there_is_no_other(trained_copy, capsys):
    whole = find_checkpoint(trained_copy, "Model-CSV")
    train_csv(trained_copy, replace(CSV_MODEL, epochs=1, fold="0"))
    assert find_checkpoint(trained_copy, "Model-CSV") == whole
    predict_all(trained_copy)
    assert "Model-CSV: 1 newer runs are passed over, as each left a fold out" in capsys.readouterr().out
    shutil.rmtree(whole.parent)
    predict_all(trained_copy)
    out = capsys.readouterr().out
    assert "(trained without fold 0)" in out and "passed over" not in out


def test_an_image_that_stands_in_the_test_table_twice_is_refused(trained_copy):
    table = pd.read_csv(trained_copy.test_table, dtype=str, keep_default_na=False)
    pd.concat([table, table[:1]]).to_csv(trained_copy.test_table, index=False)
    with pytest.raises(PipelineError, match="test.csv has 1 images twice, the first is "):
        predict_all(trained_copy)


def test_a_faulty_template_is_named(trained_copy):
    file = trained_copy.submit / c.STAGE1
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines, lines[1]]))
    with pytest.raises(PipelineError, match=rf"{c.STAGE1} cannot be used.*\n.*it stands in row 2 already"):
        predict_all(trained_copy)


def test_a_value_that_is_none_writes_nothing(paths):
    tables = Submission(*(Sheet(pd.DataFrame([dict.fromkeys(columns, 0.5)]), {column: column for column in columns})
                          for columns in c.SUBMISSION_COLUMNS.values()))
    rows, header = tables.stage2_case
    for column, value in ((c.CST, np.nan), (c.VA, np.inf), (c.CONTINUE, 1.5), (c.PRE_CST, -1)):
        broken = tables._replace(stage2_case=Sheet(rows.assign(**{column: value}), header))
        with pytest.raises(PipelineError, match=f"{c.STAGE2_CASE}: {column} of"):
            write_submission(paths, broken, {})
    assert not paths.result.exists()
    folder = write_submission(paths, tables, {})
    assert sorted(file.name for file in folder.iterdir()) == sorted([*NAMES, "runs.json", "submit.zip"])


def test_a_run_predicts_with_its_own_box_whatever_config_says_now(trained_copy, monkeypatch, capsys):
    before = read(predict_all(trained_copy))
    other = config.VIEWS["bscan"]._replace(left=500, right=1150)
    monkeypatch.setitem(config.VIEWS, "bscan", other)
    processing_data(trained_copy)
    after = read(predict_all(trained_copy))
    assert "these images are cut from their screens" in capsys.readouterr().out
    for one, two in zip(before, after, strict=True):
        pd.testing.assert_frame_equal(one, two)


def test_means_of_the_other_round_come_in_this_rounds_unit_of_acuity():
    unknown = pd.DataFrame([dict.fromkeys([c.VA, c.PRE_VA, c.CST], np.nan)])
    filled = fill_missing(unknown, {"preliminary": {c.VA: 1.0, c.PRE_VA: 0.3, c.CST: 300.0}}, 1)
    assert filled.loc[0].tolist() == pytest.approx([0.1, 0.501, 300], abs=1e-3)
    filled = fill_missing(unknown, {"final": {c.VA: 0.1, c.PRE_VA: 0.5, c.CST: 300.0}}, 0)
    assert filled.loc[0].tolist() == pytest.approx([1.0, 0.301, 300], abs=1e-3)


def test_a_model_without_training_means_still_predicts_where_none_is_needed(trained_copy):
    file = next((trained_copy.ckpt / "Model-CSV").glob("*/*.pt"))
    model = load_model(file, CPU, unit="eyes")
    model.means = {}
    save_checkpoint(file, model, model.state_dict(), name="Model-CSV")
    pd.read_csv(trained_copy.train_table).head(0).to_csv(trained_copy.train_table, index=False)
    assert predict_all(trained_copy).is_dir()
    wanted = template(trained_copy, c.STAGE1)
    wanted.loc[len(wanted)] = ["0000-9999L"] + [0] * (wanted.shape[1] - 1)
    wanted.to_csv(trained_copy.submit / c.STAGE1, index=False)
    with pytest.raises(PipelineError, match="does not carry the means of its training data"):
        predict_all(trained_copy)


def test_real_templates_are_answered_with_exactly_their_columns_in_their_order(real, trained_copy):
    for name in NAMES:
        shutil.copy(real / "tables" / name, trained_copy.submit / name)
    folder = predict_all(trained_copy)
    for name, table in zip(NAMES, read(folder), strict=True):
        wanted = (real / "tables" / name).read_text(encoding="utf-8-sig").splitlines()
        assert (folder / name).read_text().splitlines()[0] == wanted[0].strip()
        assert len(table) == len(wanted) - 1
        assert np.isfinite(table.select_dtypes("number")).all(axis=None)
    assert "HRF" not in wanted[0]       # of stage2_pic, though the 2021 system's own file has it


def test_a_templates_order_and_spelling_stay_and_any_finding_may_be_asked_for(trained_copy):
    wanted = template(trained_copy, c.STAGE2_CASE)[[c.PATIENT]].assign(**{"cst": 0, "preIRF": 0, "va": 0})
    wanted[["va", "cst", c.PATIENT, "preIRF"]].to_csv(trained_copy.submit / c.STAGE2_CASE, index=False)
    table = pd.read_csv(predict_all(trained_copy) / c.STAGE2_CASE)
    assert list(table) == ["va", "cst", c.PATIENT, "preIRF"]
    assert (table["cst"] > 10).all() and table["preIRF"].between(0, 1).all()


@pytest.mark.parametrize(("columns", "message"), [
    ({"note": ""}, "no model answers the column 'note'; take it out of the template. Answered are .*CST"),
    ({"": 0, "IRF.1": 0}, "no model answers the column '', 'IRF.1'"),
    ({"irf": 0}, "the column 'IRF' is there 2 times; keep one"),
])
def test_a_template_that_asks_for_what_no_model_answers_is_refused(trained_copy, columns, message):
    file = trained_copy.submit / c.STAGE1
    template(trained_copy, c.STAGE1).assign(**columns, CST=0).to_csv(file, index=False)
    with pytest.raises(PipelineError, match=f"{c.STAGE1}: {message}"):
        predict_all(trained_copy)
    template(trained_copy, c.STAGE2_CASE)[[c.PATIENT]].to_csv(file, index=False)
    with pytest.raises(PipelineError, match=f"{c.STAGE1} asks for nothing: it has no column to be answered"):
        predict_all(trained_copy)
    assert not trained_copy.result.exists()


def test_a_template_is_found_in_any_case(trained_copy):
    wanted = template(trained_copy, c.STAGE1).iloc[::-1]
    (trained_copy.submit / c.STAGE1).unlink()
    wanted.to_csv(trained_copy.submit / c.STAGE1.upper(), index=False)
    assert read(predict_all(trained_copy))[0][c.PATIENT].tolist() == wanted[c.PATIENT].tolist()


def test_paths_in_config_are_taken_from_the_root(trained_copy, monkeypatch, capsys):
    name = "Model-Image-Before"
    folder, = (trained_copy.ckpt / name).iterdir()
    monkeypatch.setitem(predict.CHECKPOINTS, "Model-Image-All", f"model/ckpt/{name}/{folder.name}")
    predict_all(trained_copy)
    assert f"{folder / name}.pt (trained as {name}, not as Model-Image-All)" in capsys.readouterr().out
    monkeypatch.setitem(predict.CHECKPOINTS, "Model-Image-All", 123)
    with pytest.raises(PipelineError, match="123 is no path of a checkpoint"):
        predict_all(trained_copy)


@pytest.mark.parametrize("kind", ["image", "eye"])
def test_a_prediction_that_is_no_number_is_never_filled_with_a_mean(trained_copy, monkeypatch, kind):
    target, column, named = {
        "image": (ImageNetwork, c.CST, r"\.(jpg|JPG): CST is nan"), "eye": (CSVNetwork, c.VA, r"[LR]: VA is nan"),
    }[kind]
    evaluate = target.predict

    def spoil(self, rows, *arguments, **named_arguments):
        predicted = evaluate(self, rows, *arguments, **named_arguments)
        predicted.iloc[0, predicted.columns.get_loc(column)] = np.nan
        return predicted

    monkeypatch.setattr(target, "predict", spoil)
    with pytest.raises(PipelineError, match=f"{named}.*train it again"):
        predict_all(trained_copy)
    assert not trained_copy.result.exists()
