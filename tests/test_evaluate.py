"""Option 8: eyes are predicted by runs that never saw them, and scored by the official rules."""

import base64
import json
import re
import shutil
import subprocess
from dataclasses import asdict, replace
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import torch

from config import Paths
from data import evaluate as evaluate_module
from data.evaluate import evaluate
from data.folds import Data, Predictions, find_runs, select_newest, select_recipes
from data.references import find_constant
from data.report import draw_pictures
from data.scores import describe_noise, pair_truth, score_methods
from model.checkpoint import load_checkpoint, save_checkpoint
from model.csv_trees import read_out_of_fold
from model.metrics import FINAL_ITEMS, acuity_score, final_score, thickness_score
from model.provenance import fingerprint_table
from model.registry import build_model
from model_config import CSV_MODEL, FOLDS, IMAGE_MODELS
from processing import columns as c
from processing.errors import PipelineError
from tests.helpers import run_warm, train_csv, train_image

CSV = replace(CSV_MODEL, epochs=3, batch_size=4, learning_rate=1e-3, fold="all", device="cpu", recipe="fixed")


@pytest.fixture(scope="module")
def fold_root(demo_root, tmp_path_factory):
    """Runs of Model-CSV and Model-Image-All that leave out each fold."""
    root = tmp_path_factory.mktemp("folds") / "root"
    shutil.copytree(demo_root.root, root)
    paths = Paths(root)
    train_csv(paths, CSV)
    train_image(paths, [replace(IMAGE_MODELS[2], epochs=1, batch_size=16, fold="all", recipe="fixed", device="cpu")])
    return paths


@pytest.fixture
def fold_copy(fold_root, tmp_path):
    shutil.copytree(fold_root.root, tmp_path / "folds")
    return Paths(tmp_path / "folds")


def read(folder, name):
    return pd.read_csv(folder / name, dtype={c.PATIENT: str}, keep_default_na=False, na_values=[""])


def test_every_eye_is_predicted_once_by_the_run_that_left_it_out(fold_copy):
    folder = evaluate(fold_copy, images="all")
    eyes = read(folder, "eyes.csv")
    folds = json.loads(fold_copy.splits.read_text())["folds"]
    assert not eyes[c.PATIENT].duplicated().any()
    for patient, fold in zip(eyes[c.PATIENT], eyes["fold"], strict=True):
        assert patient in folds[fold]
    runs = json.loads((folder / "runs.json").read_text())["model"]
    assert len(runs) == 2 * FOLDS
    for name, (run,) in runs.items():
        assert json.loads(Path(run, "config.json").read_text())["fold"] == name[-1]


def test_all_fourteen_items_have_a_score_an_interval_and_references(fold_copy, capsys):
    folder = evaluate(fold_copy)                    # no Before and After: takes All by itself
    scores = read(folder, "scores.csv")
    model = scores[scores["method"] == "model"]
    wanted = {(file, item) for file, items in FINAL_ITEMS.items() for item in items}
    shown = set(zip(model["file"].dropna(), model["item"], strict=False))
    assert shown == wanted
    mean = model[model["file"].isna()]["item"].item()
    count = model["score"][model["file"].notna()].notna().sum()
    assert mean == ("total" if count == 14 else f"mean of {count} items")
    known = scores.dropna(subset="score")
    assert known["score"].between(0, 1).all()
    assert (known["low"] <= known["score"] + 1e-9).all() and (known["score"] <= known["high"] + 1e-9).all()
    assert set(scores["method"]) == {"model", "the doctor's labels", "best constant", "as before"}
    constant = scores[(scores["method"] == "best constant") & (scores["item"] == "IRF")]
    assert constant["score"].dropna().eq(0.5).all()
    shown = capsys.readouterr().out
    assert "images by the pipeline all; recipes of the newest runs: Model-Image-All fixed, Model-CSV" in shown
    assert "Doubtful" in shown and "signal not measured: " in shown and "attention.png is left out" not in shown
    eyes = read(folder, "eyes.csv")
    assert eyes["remarks"].str.contains("signal not measured").all()
    assert mean in shown and "best constant" in shown
    fall = scores[(scores["method"] == "the doctor's labels") & (scores["item"] == c.VA)]
    assert len(fall) and fall["difference"].notna().all() and (fall["difference_low"] <= fall["difference_high"]).all()
    assert re.search(r"the doctor's labels: stage1 VA [+-]0\.\d+ \[", shown)


def test_the_pictures_show_treated_eyes_only_as_those_that_are_scored(fold_copy, monkeypatch):
    shown = []
    monkeypatch.setattr("data.evaluate.draw_gallery_of_eyes",
                        lambda _path, eyes, _predictions, **_images: shown.append(eyes[c.DIAGNOSIS]))
    evaluate(fold_copy, images="all")
    diagnoses, = shown
    eyes = read(fold_copy.processed / "csv", "eyes.csv")
    assert c.UNTREATED in set(eyes[c.DIAGNOSIS]) and len(diagnoses)
    assert c.UNTREATED not in set(diagnoses)


def test_untreated_eyes_do_not_count_and_a_mean_says_of_how_many_items(fold_copy, capsys):
    scores = read(evaluate(fold_copy, images="labels"), "scores.csv")
    eyes = read(fold_copy.processed / "csv", "eyes.csv").set_index(c.PATIENT)
    predicted = read(sorted(fold_copy.evaluation.iterdir())[-1], "eyes.csv")[c.PATIENT]
    treated = eyes.loc[predicted][lambda part: (part["final"] == 0) & (part[c.DIAGNOSIS] != c.UNTREATED)]
    model = scores[scores["method"] == "model"]
    row = model[(model["file"] == c.STAGE1) & (model["item"] == c.VA)]
    assert row["rows"].item() == treated[c.VA].notna().sum()
    count = model[model["file"].notna()]["score"].notna().sum()         # items that have a score, not those listed
    assert set(model["item"]) == {c.VA, "continue injection", f"mean of {count} items"}
    assert model[model["file"].isna()]["rows"].item() == count <= 4
    assert re.search(rf"\n +mean of {count} items ", capsys.readouterr().out)


def test_predictions_do_not_depend_on_the_truth_of_held_out_eyes(fold_copy):
    first = evaluate(fold_copy, images="all")
    eyes = pd.read_csv(fold_copy.eye_table, dtype={c.PATIENT: str})
    eyes[[c.VA, c.CST]] *= 2
    eyes.to_csv(fold_copy.eye_table, index=False)
    second = evaluate(fold_copy, images="all")
    assert (first / "eyes.csv").read_bytes() == (second / "eyes.csv").read_bytes()
    assert (first / "scores.csv").read_bytes() != (second / "scores.csv").read_bytes()


def test_the_recipe_best_learns_from_out_of_fold_predictions(fold_copy, capsys):
    evaluate(fold_copy, images="all")
    table = read(fold_copy.out_of_fold.parent, "out_of_fold.csv")
    assert len(table) == len(read(sorted(fold_copy.evaluation.iterdir())[-1], "eyes.csv"))
    folder, = train_csv(fold_copy, replace(CSV_MODEL, recipe="best", fold="none"))
    assert "as image models saw them" in capsys.readouterr().out
    assert "out_of_fold.csv" in json.loads((folder / "run.json").read_text())["data"]


def test_out_of_fold_answers_of_other_folds_teach_no_fold(fold_copy):
    evaluate(fold_copy, images="all")
    answers = read(fold_copy.out_of_fold.parent, "out_of_fold.csv")
    folds = [pd.Series(fold) for fold in json.loads(fold_copy.splits.read_text())["folds"]]
    left = pd.concat(folds[1:])
    assert len(read_out_of_fold(fold_copy, "0", left, folds[0])) == len(answers)
    assert len(read_out_of_fold(fold_copy, "none", pd.concat(folds), folds[0][:0])) == len(answers)
    for fold in ("1", "0"):     # as if fold 0 had been drawn as today's fold 1, or with one more eye
        with pytest.raises(PipelineError, match="out_of_fold.csv was made with other folds.*Delete it"):
            read_out_of_fold(fold_copy, fold, left, folds[0] if fold == "1" else pd.concat([folds[0], folds[1][:1]]))
    answers.drop(columns=c.FOLD).to_csv(fold_copy.out_of_fold, index=False)        # of an earlier version
    with pytest.raises(PipelineError, match="out_of_fold.csv was made with other folds"):
        train_csv(fold_copy, replace(CSV_MODEL, recipe="best", fold="0"))


@pytest.mark.parametrize("learned", ["all", None])
def test_a_run_that_saw_what_it_left_out_is_not_scored(fold_copy, learned):
    folder = sorted((fold_copy.ckpt / "Model-CSV").iterdir())[2]
    file = folder / "Model-CSV.pt"
    checkpoint = load_checkpoint(file)
    model = build_model(checkpoint.kind, checkpoint.specification, torch.device("cpu"), file)
    eyes = sorted(set(read(fold_copy.train_table.parent, "train.csv")[c.PATIENT]))
    checkpoint.values["learned"] = learned and eyes
    save_checkpoint(file, model, checkpoint.state, **checkpoint.values)
    if learned is None:
        evaluate(fold_copy, images="labels")        # of an earlier version, from random weights: it saw none
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"init_from": "elsewhere.pt"}))
    with pytest.raises(PipelineError, match=rf"{folder.name}.Model-CSV.pt .*Train that fold again, or delete"):
        evaluate(fold_copy, images="labels")


def test_runs_of_other_splits_or_none_are_not_taken(fold_copy, demo_copy):
    splits = json.loads(fold_copy.splits.read_text())
    fold_copy.splits.write_text(json.dumps(splits | {"seed": 1}))
    assert find_runs(fold_copy) == {}
    with pytest.raises(PipelineError, match="no held-out eyes to score.*python main.py 3 --fold all"):
        evaluate(fold_copy)
    with pytest.raises(PipelineError, match="no held-out eyes to score.*python main.py 3 --fold all"):
        evaluate(demo_copy)


def test_noise_on_the_doctors_labels_is_scored_and_drawn(fold_copy, capsys):
    folder = evaluate(fold_copy, images="labels")
    noise = pd.read_csv(folder / "noise.csv")
    assert sorted(noise["noise"].unique()) == [0, 0.5, 1, 1.5, 2]
    scores = pd.read_csv(folder / "scores.csv").query("method == 'model'").dropna(subset="file")
    clean = noise[noise["noise"] == 0].set_index(["file", "item"])["score"]
    pd.testing.assert_series_equal(clean, scores.set_index(["file", "item"])["score"])
    assert "noise laid over the doctor's thickness" in capsys.readouterr().out
    unknown = describe_noise(noise.assign(score=np.nan)).splitlines()[2:]
    assert unknown and all(line.split()[-5:] == ["-"] * 5 for line in unknown)
    assert "noise.png" not in str(list(evaluate(fold_copy, images="all").iterdir()))


def test_a_seed_run_of_one_fold_is_named_so_and_has_a_total_only_over_the_same_items(fold_copy, capsys):
    for recipe in ("seed", "fixed"):        # the recipe that was trained last is the one that is evaluated
        train_csv(fold_copy, replace(CSV, fold="0", recipe=recipe))
    folder = evaluate(fold_copy, images="labels")
    assert "Model-CSV seed (1 of 5 folds)" in capsys.readouterr().out
    scores = pd.read_csv(folder / "scores.csv", keep_default_na=False, na_values=[""])
    defined = {method: set(part.dropna(subset="score")["item"] + part["file"].astype(str))
               for method, part in scores[scores["file"].notna()].groupby("method")}
    with_total = set(scores[scores["file"].isna()]["method"])
    assert with_total == {method for method, items in defined.items() if items == defined["model"]}
    assert "as before" not in with_total and "best constant" in with_total


def test_every_recipe_with_runs_of_its_own_is_compared(tmp_path):
    """One that only Model-CSV has, too, beside the newest image models; and each trunk for itself."""
    paths = Paths(tmp_path)
    paths.splits.parent.mkdir(parents=True)
    paths.splits.write_text("{}")
    data = {paths.splits.name: fingerprint_table(paths.splits)}
    images = [replace(IMAGE_MODELS[2], recipe=recipe, trunk=trunk, fold="1") for recipe, trunk in (
        ("pretrained", "resnet18"), ("pretrained", "segmentation"), ("measured", "segmentation"))]
    for number, config in enumerate([*images, *(replace(CSV, recipe=recipe, fold="1") for recipe in ("seed", "best"))]):
        folder = paths.ckpt / config.name / f"20261129000{number}"
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps(asdict(config) | {"specification": {}}))
        (folder / "run.json").write_text(json.dumps({
            "state": "finished", "data": data, "started": f"2026-11-29T00:0{number}:00+00:00"}))
    runs = find_runs(paths)
    newest = select_newest(runs, "all")
    assert [folders[1].name[-1] for folders in newest.values()] == ["2", "4"]
    assert {name: [folders[1].name[-1] for folders in own.values()] for name, own in select_recipes(
        runs, "all").items()} == {
            "pretrained resnet18 recipe": ["0", "4"], "pretrained recipe": ["1", "4"], "Model-CSV seed": ["2", "3"]}
    assert list(select_recipes(runs, "labels")) == ["Model-CSV seed"]


def test_a_recipe_whose_runs_cannot_be_read_is_left_out_and_said(fold_copy, monkeypatch, capsys):
    def load_folds(chosen, *arguments):
        if chosen == "of yore":
            raise PipelineError("an earlier version made it")
        return load(chosen, *arguments)

    load = evaluate_module.load_folds
    monkeypatch.setattr(evaluate_module, "load_folds", load_folds)
    monkeypatch.setattr(evaluate_module, "select_recipes", lambda *_: {"yore": "of yore"})
    folder = evaluate(fold_copy, images="all")
    assert "yore is not compared: an earlier version made it" in capsys.readouterr().out
    assert "model" in set(read(folder, "scores.csv")["method"])


def test_an_eye_without_a_prediction_is_a_miss_and_takes_part_in_no_picture(tmp_path):
    """Its thickness and acuity are NaN, not a number that stands for it; its probabilities are those of chance."""
    eyes = pd.DataFrame(
        {c.FINAL: 1, c.DIAGNOSIS: 1, c.CST: [300.0, 300.0], c.PRE_CST: 300.0, c.VA: 0.5, c.CONTINUE: [0.0, 1.0]},
        index=pd.Index(["1L", "2L"], name=c.PATIENT),
    )
    answers = pd.DataFrame({c.CST: [300, np.nan], c.PRE_CST: 300.0, c.VA: [0.5, np.nan], c.CONTINUE: [0.1, np.nan]},
                           index=eyes.index)
    pairs = pair_truth(Data(pd.DataFrame(), eyes, []), Predictions(answers, pd.DataFrame(), {}))
    items = final_score(pairs)
    assert [items[c.STAGE2_CASE, name] for name in (c.CST, c.VA, c.PRE_CST)] == [0.5, 0.5, 1]
    assert np.isnan(pairs[c.STAGE2_CASE][1][c.CST].iloc[1]) and pairs[c.STAGE2_CASE][1][c.CONTINUE].iloc[1] == 0.5
    shown = []
    with mock.patch("data.report.draw_agreement", lambda _path, panels: shown.append(panels)):
        draw_pictures(tmp_path, pairs)
    assert [panel[2].tolist() for panel in shown[0]] == [[300, 300], [300]]      # preCST, CST: true values


def test_a_difference_is_told_of_the_eyes_that_both_answer_and_holds_its_interval():
    known = {c.FINAL: 1, c.DIAGNOSIS: 1, c.CST: 300.0, c.PRE_CST: 300.0, c.VA: 0.5, c.CONTINUE: [0.0, 1.0] * 20}
    eyes = pd.DataFrame(known, index=pd.Index([f"{number}L" for number in range(40)], name=c.PATIENT))
    right = eyes[[c.CST, c.PRE_CST, c.VA, c.CONTINUE]]
    half = right.assign(**{c.CST: [300.0, 900.0] * 20})
    others = half.tail(10).rename(lambda patient: f"9{patient}")
    eyes = pd.concat([eyes, eyes.tail(10).set_axis(others.index)])
    none = pd.DataFrame(columns=[c.PATIENT])
    methods = {name: Predictions(answers, none, {}) for name, answers in (
        ("first", right), ("half", half), ("few", half.iloc[1:21:2]), ("others", others))}
    scores = score_methods(Data(pd.DataFrame(), eyes, []), methods).set_index(["method", "item"])
    assert scores.loc[["first", "others"], "difference"].isna().all()
    assert scores.loc[("few", c.CST), ["difference", "difference_eyes"]].tolist() == [-1, 10]       # all of them missed
    few = {"first": methods["half"], "few": methods["few"]}      # the same answers
    assert score_methods(Data(pd.DataFrame(), eyes, []), few).set_index(["method", "item"]).loc[
        ("few", c.CST), "difference"] == 0
    row = scores.loc[("half", c.CST)]
    assert row["difference"] == -0.5 and -0.75 < row["difference_low"] < -0.5 < row["difference_high"] < -0.25
    assert scores.loc[("half", c.VA), "difference"] == scores.loc[("half", c.VA), "difference_high"] == 0
    total = scores.loc["half"][lambda part: part["file"] == ""].iloc[0]
    assert total["difference"] == pytest.approx(-0.5 / 4) and total["difference_high"] < 0


def test_an_eye_with_images_of_one_visit_is_answered_as_options_4_and_5_do(fold_copy):
    table = pd.read_csv(fold_copy.train_table, dtype={c.PATIENT: str})
    eyes = read(fold_copy.eye_table.parent, fold_copy.eye_table.name)
    known = eyes[c.PATIENT][(eyes[c.DIAGNOSIS] != c.UNTREATED) & eyes[c.VA].notna()]
    patient = table[c.PATIENT][table[c.PATIENT].isin(known)].iloc[0]
    table[~((table[c.PATIENT] == patient) & (table[c.AFTER] == 1))].to_csv(fold_copy.train_table, index=False)
    folder = evaluate(fold_copy, images="all")
    answers = read(folder, "eyes.csv").set_index(c.PATIENT).loc[patient]
    assert np.isnan(answers[c.CST]) and answers[c.PRE_CST] > 0 and answers[c.VA] >= 0 and 0 <= answers[c.CONTINUE] <= 1
    scores = read(folder, "scores.csv")         # the doctor's labels answer eyes of both visits only
    rows = scores[scores["item"] == c.VA].groupby("method")["rows"].sum()
    assert rows["the doctor's labels"] == rows["model"] - 1


def test_the_best_constant():
    values = pd.Series([0.1, 0.18, 0.5, 1.0])
    assert acuity_score(values, np.full(4, find_constant(values, acuity_score))) == 0.5
    values = pd.Series([200.0, 210, 400])
    assert thickness_score(values, np.full(3, find_constant(values, thickness_score))) == pytest.approx(2 / 3)
    assert np.isnan(find_constant(values.head(0), thickness_score))


def test_a_submission_and_a_truth_belong_together(fold_root, tmp_path):
    answer = run_warm("evaluate", "--submission", fold_root.truth, root=tmp_path)
    assert answer.returncode == 2
    assert "belong together" in answer.stderr
    both = ("8", "--truth", fold_root.truth, "--submission")
    answer = run_warm(*both, fold_root.truth, root=tmp_path)
    assert answer.returncode == 1
    assert "named as the submission and as its truth" in answer.stderr
    shutil.copytree(fold_root.truth, tmp_path / "copy")
    answer = run_warm(*both, tmp_path / "copy", "--device", "cpu", root=tmp_path)
    assert (answer.returncode, "leave out --images and --device" in answer.stderr) == (2, True)
    answer = run_warm(*both, tmp_path / "copy", root=tmp_path)
    assert answer.returncode == 0
    assert "total, final round" in answer.stdout


def test_the_report_holds_every_picture_itself(fold_copy):
    folder = evaluate(fold_copy, images="all")
    page = (folder / "report.html").read_text(encoding="utf-8")
    pictures = sorted(folder.glob("*.png"))
    assert {picture.name for picture in pictures} >= {
        "thickness.png", "acuity.png", "gallery.png", "attention.png", "learning.png"
    }
    assert page.count('src="data:image/png;base64,') == len(pictures)
    assert not re.findall(r"(?:src|href)=\"(?!data:)", page)
    assert "<script" not in page
    assert "python main.py evaluate --images all" in page and "Model-CSV, fold 0" in page


@pytest.mark.parametrize("drawer", ["draw_agreement", "draw_curves", "draw_gallery", "draw_comparison"])
def test_a_picture_that_cannot_be_drawn_is_left_out_and_said(fold_copy, monkeypatch, capsys, drawer):
    monkeypatch.setattr(f"data.report.{drawer}", mock.Mock(side_effect=ValueError("odd numbers")))
    folder = evaluate(fold_copy, images="all")
    drawn = {picture.name for picture in folder.glob("*.png")}
    left_out = {"draw_agreement": {"thickness.png", "acuity.png"}, "draw_curves": {"roc.png", "calibration.png"},
                "draw_gallery": {"gallery.png", "attention.png"}, "draw_comparison": {"learning.png"}}
    assert drawn == set().union(*left_out.values()) - left_out[drawer]
    said = capsys.readouterr().out
    assert all(f"{name} is not written: odd numbers" in said for name in left_out[drawer])
    assert (folder / "report.html").is_file() and (folder / "scores.csv").is_file()


CHECK = """<script>addEventListener("load", () => {
  const pictures = [...document.images].map(picture => {
    const box = picture.getBoundingClientRect();
    return {complete: picture.complete, pixels: picture.naturalWidth, width: box.width, height: box.height};
  });
  const fetched = performance.getEntriesByType("resource").map(entry => entry.name);
  document.body.dataset.seen = btoa(JSON.stringify({pictures, fetched}));
});</script>"""


@pytest.mark.skipif(not shutil.which("chromium"), reason="Chromium is not installed")
def test_a_browser_shows_every_picture_and_fetches_nothing(fold_copy, tmp_path):
    folder = evaluate(fold_copy, images="all")
    page = tmp_path / "page.html"
    page.write_text((folder / "report.html").read_text(encoding="utf-8") + CHECK, encoding="utf-8")
    answer = subprocess.run(
        ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync", "--enable-logging=stderr",
         f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000", "--dump-dom", page.as_uri()],
        capture_output=True, encoding="utf-8", timeout=120,
    )
    seen = json.loads(base64.b64decode(re.search('data-seen="([^"]+)"', answer.stdout).group(1)))
    assert len(seen["pictures"]) == len(list(folder.glob("*.png")))
    small = [one for one in seen["pictures"] if not (one["complete"] and one["width"] > 300 and one["height"] > 200)]
    assert small == []
    assert seen["fetched"] == []
    assert "CONSOLE" not in answer.stderr
