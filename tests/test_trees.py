"""Recipe best: candidates, units, fellow eyes, storage, and that it learns."""

from contextlib import suppress
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import skops.io
import torch
from sklearn.base import BaseEstimator
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_info, threadpool_limits

from config import Paths
from model.checkpoint import save_checkpoint
from model.csv_trees import CSVTrees
from model.eye_features import CST_NOISE, EIGHTY_PERCENT, EXTRAS, INPUTS, SCANNED, add_noise, build_features, mark_exact
from model.metrics import acuity_score, auc_score, hits_acuity
from model.registry import load_model
from model.trees import TreeModel, _split_persons, find_candidates
from processing import columns as c
from processing.errors import PipelineError
from processing.files import write_csv

DECIMALS = np.array([0.1, 0.17, 0.25, 0.32, 0.5, 0.67, 1.0])

CPU = torch.device("cpu")


def make_eyes(count=240, seed=0):
    """Eyes whose VA is preVA, a step better where the retina got thinner; thick ones go on. Some values missing."""
    rng = np.random.default_rng(seed)
    eyes = pd.DataFrame(index=range(count), columns=INPUTS, dtype=float)
    eyes[c.PATIENT] = [
        f"{number // 2:04}-{'LR'[number % 2]}" if number % 3 else f"{number}L" for number in range(count)
    ]
    eyes[c.FINAL] = (np.arange(count) % 3 == 0).astype(int)
    for name in INPUTS[2:]:
        eyes[name] = rng.integers(0, 2, count).astype(float)
    eyes[c.DIAGNOSIS], eyes[c.DRUG] = rng.integers(1, 4, count), 1
    eyes[c.PRE_CST], eyes[c.CST] = rng.uniform(200, 600, count), rng.uniform(200, 600, count)
    step = rng.integers(1, 6, count)
    better = eyes[c.CST] < eyes[c.PRE_CST]
    eyes[c.PRE_VA] = np.where(eyes[c.FINAL] == 1, DECIMALS[step - 1], step * 0.2)
    eyes[c.VA] = np.where(eyes[c.FINAL] == 1, DECIMALS[step - 1 + better], (step - better) * 0.2)
    eyes[c.CONTINUE] = (eyes[c.CST] > 400).astype(float)
    eyes.loc[::17, c.PRE_CST] = np.nan
    eyes.loc[5::29, c.PRE_VA] = np.nan
    return eyes


@pytest.fixture(scope="module")
def fitted():
    return TreeModel(seed=1).fit(make_eyes())


def test_it_learns_both_rounds_and_takes_missing_values(fitted):
    eyes = make_eyes(seed=9).assign(**{c.PATIENT: [f"9{number:03}L" for number in range(240)]})
    answers = fitted.predict(eyes)
    for final in (0, 1):
        rows = eyes[c.FINAL] == final
        assert acuity_score(eyes[c.VA][rows], answers[c.VA][rows]) > acuity_score(eyes[c.VA][rows],
                                                                                  eyes[c.PRE_VA][rows]) + 0.15
        assert auc_score(eyes[c.CONTINUE][rows], answers[c.CONTINUE][rows]) > 0.9
    assert answers[c.VA].between(0, 3).all()
    assert answers[c.VA][eyes[c.FINAL] == 1].max() <= 1
    assert answers[c.CONTINUE].between(0, 1).all()


def test_a_seed_decides_every_answer(fitted):
    eyes = make_eyes(60, seed=3)
    pd.testing.assert_frame_equal(TreeModel(seed=1).fit(make_eyes()).predict(eyes), fitted.predict(eyes))


def test_it_is_stored_without_pickles_and_answers_the_same(fitted, tmp_path):
    model = CSVTrees({"seed": 2021, "means": {}}, CPU)
    model.load_state_dict(fitted.state_dict())
    save_checkpoint(tmp_path / "trees.pt", model, model.state_dict(), name="Model-CSV")
    again = load_model(tmp_path / "trees.pt", CPU, unit="eyes")
    eyes = make_eyes(60, seed=3)
    pd.testing.assert_frame_equal(again.predict(eyes), fitted.predict(eyes))
    with pytest.raises(PipelineError, match="holds a CSVTrees, which answers for eyes; a model for images is needed"):
        load_model(tmp_path / "trees.pt", CPU, unit="images")


def test_what_option_0_filled_in_counts_as_unknown(fitted, tmp_path):
    model, paths = CSVTrees({"seed": 2021, "means": {}}, CPU), Paths(tmp_path)
    model.load_state_dict(fitted.state_dict())
    eyes = make_eyes(40, seed=3)
    unknown = eyes[c.PATIENT].isin(eyes[c.PATIENT][::3])
    table = eyes.assign(**{c.PRE_VA: eyes[c.PRE_VA].mask(unknown), c.DATA_TYPE: "test"})
    paths.eye_table.parent.mkdir(parents=True)
    write_csv(paths.eye_table, table.reindex(columns=c.EYE_COLUMNS))
    filled = table.assign(**{c.PRE_VA: table[c.PRE_VA].fillna(0.7)})
    own = table[c.PRE_VA].isna()
    pd.testing.assert_frame_equal(model.predict(filled, paths), model.predict(table, Paths(tmp_path / "none")))
    assert own.sum() > 10 and not model.predict(filled, paths)[own].equals(model.predict(filled, Paths("none"))[own])


class Strange(BaseEstimator):
    """A class that could do anything when it is built."""


def test_a_stored_class_that_it_does_not_know_is_refused(fitted, tmp_path):
    data = skops.io.dumps({"known": {}, "judges": [], "candidates": [], "outcomes": [], "continues": Strange()})
    state = {"skops": torch.frombuffer(bytearray(data), dtype=torch.uint8)}
    save_checkpoint(tmp_path / "trees.pt", CSVTrees({"seed": 2021, "means": {}}, CPU), state)
    with pytest.raises(PipelineError, match="does not fit CSVTrees.*Strange"):
        load_model(tmp_path / "trees.pt", CPU, unit="eyes")


@pytest.mark.parametrize(("packages", "then"), [
    ({"scikit-learn": "1.2.3", "skops": "0.4"}, "scikit-learn 1.2.3, skops 0.4"), ({}, "other packages"),
])
def test_trees_of_another_version_say_which(fitted, tmp_path, monkeypatch, packages, then):
    save_checkpoint(tmp_path / "trees.pt", CSVTrees({"seed": 2021, "means": {}, "packages": packages}, CPU),
                    fitted.state_dict())
    load_model(tmp_path / "trees.pt", CPU)      # whatever it was fitted with, as long as it can be built
    for error in (ModuleNotFoundError("No module named 'sklearn.gone'"), AttributeError("no\nsuch field")):
        monkeypatch.setattr(skops.io, "loads", mock.Mock(side_effect=error))
        with pytest.raises(PipelineError, match=f"fitted with {then}, and this is scikit-learn .*Train it again"):
            load_model(tmp_path / "trees.pt", CPU)


def test_eyes_that_are_not_measured_are_said_where_the_trees_learned_from_measures(fitted, tmp_path, capsys):
    model = CSVTrees({"seed": 2021, "means": {}}, CPU)
    model.load_state_dict(fitted.state_dict())
    model.predict(make_eyes(5), Paths(tmp_path))
    assert "not measured" not in capsys.readouterr().out
    model._trees = mock.Mock(columns=[SCANNED[0]], predict=lambda eyes: eyes[[c.AGE]])
    model.predict(make_eyes(5), Paths(tmp_path))
    assert "those of 5 of 5 eyes are not measured" in capsys.readouterr().out


@pytest.mark.parametrize("number", [0, 1, 7])
def test_any_number_of_eyes_is_predicted(fitted, number):
    answers = fitted.predict(make_eyes().head(number))
    chance, low, high = (answers[name] for name in c.sure_columns(c.VA))
    assert answers.shape == (number, 5) and chance.between(0, 1).all()
    assert ((low <= answers[c.VA]) & (answers[c.VA] <= high)).all()


def test_one_round_alone_serves_both():
    eyes = make_eyes()
    model = TreeModel().fit(eyes[eyes[c.FINAL] == 0])
    answers = model.predict(eyes[eyes[c.FINAL] == 1])
    assert answers[c.VA].between(0, 1).all()


def test_acuity_above_one_can_be_answered():
    """1.2 and 1.5 are steps of decimal charts."""
    eyes = make_eyes()
    final = eyes[c.FINAL] == 1
    eyes.loc[final, c.PRE_VA] = eyes.loc[final, c.VA] = np.where(eyes.loc[final, c.PRE_VA] > 0.3, 1.5, 1.2)
    answers = TreeModel().fit(eyes).predict(eyes[final])
    assert hits_acuity(eyes.loc[final, c.VA], answers[c.VA]).mean() > 0.9
    assert (answers[[c.VA, *c.sure_columns(c.VA)[1:]]].max() > 1.4).all()


def test_persons_are_split_such_that_both_answers_are_always_among_the_others():
    answer, persons = np.array([True] * 6 + [False] * 2), np.array(list("aaabbbcd"))
    places = _split_persons(answer, persons, 2)
    assert len(places) == 2 and all(len(set(answer[others])) == 2 and not set(persons[others]) & set(persons[part])
                                    for others, part in places)
    with pytest.raises(PipelineError, match="too few treated eyes with and without"):
        _split_persons(np.array([True, False, True, False]), np.array(list("aabb")), 1)
    answer = np.array([0, 1, 1, 1, 0, 1, 1, 0, 1, 1]) > 0
    persons = np.array([1, 4, 2, 4, 1, 1, 4, 0, 1, 1])
    with suppress(PipelineError):           # parts of which one has all that say no
        assert all(len(set(answer[others])) == 2 for others, _ in _split_persons(answer, persons, 2))


def test_too_little_to_learn_from_is_refused():
    with pytest.raises(PipelineError, match="no treated eye whose VA is known"):
        TreeModel().fit(make_eyes().assign(**{c.DIAGNOSIS: c.UNTREATED}))
    with pytest.raises(PipelineError, match="too few treated eyes with and without"):
        TreeModel().fit(make_eyes().assign(**{c.CONTINUE: 1.0}))


def test_candidates_are_the_middles_of_what_can_be_hit_together():
    assert find_candidates([0.25, 0.32, 1.0]) == pytest.approx([0.285, 1.0])
    assert find_candidates([0.5]) == pytest.approx([0.5])
    values = np.random.default_rng(0).uniform(0, 0.95, 200).round(2)
    assert find_candidates([0.4, 0.5]) == pytest.approx([0.45])         # both are 0.05 away
    best = max(hits_acuity(values, point).sum() for point in np.arange(0, 1, 0.005))
    assert max(hits_acuity(values, point).sum() for point in find_candidates(values)) == best


def test_the_fellow_eye_is_looked_up_and_implausible_thickness_is_none():
    eyes = make_eyes(4).assign(**{c.PATIENT: ["0001-L", "0001-R", "7L", "8R"], c.CST: [300.0, 6109.0, 250.0, 50.0]})
    features = build_features(eyes)
    assert features["fellow CST"].isna().tolist() == [True, False, True, True]      # 6109 um is none
    assert features.loc[1, "fellow CST"] == 300
    assert features[c.CST].isna().tolist() == [False, True, False, True]


def test_noise_grows_with_its_share_and_keeps_what_is_missing():
    eyes = make_eyes()
    change = [np.log(add_noise(eyes, np.random.default_rng(0), share)[c.CST] / eyes[c.CST]).std() for share in (0,
                                                                                                                0.5, 1)]
    assert change == pytest.approx([0, 0.1, 0.2], abs=0.03)
    assert add_noise(eyes, np.random.default_rng(0))[c.PRE_CST].isna().equals(eyes[c.PRE_CST].isna())


def test_how_sure_thickness_is_is_seen_and_taken_as_usual_where_nobody_tells():
    eyes, usual = make_eyes(40), 2 * EIGHTY_PERCENT * CST_NOISE
    assert (build_features(mark_exact(eyes))["CST spread"] == 0).all()
    half = build_features(add_noise(eyes, np.random.default_rng(0), 0.5))["CST spread"]
    assert half.to_numpy() == pytest.approx(usual / 2)
    told = eyes.assign(**{"CST low": 0.9 * eyes[c.CST], "CST high": 1.2 * eyes[c.CST]})
    told.loc[3, "CST high"] = np.nan
    spread = build_features(told)["CST spread"]
    assert spread.drop(3).to_numpy() == pytest.approx(np.log(1.2 / 0.9)) and spread[3] == pytest.approx(usual)
    assert build_features(told)["preCST spread"].isna().equals(eyes[c.PRE_CST].isna())


def test_unsure_thickness_and_what_scans_show_change_the_answer():
    """Where an eye goes on to be injected because of fluid in its scans alone, which no label tells."""
    eyes = make_eyes(300)
    fluid = np.random.default_rng(3).random(300) < 0.5
    eyes[c.CONTINUE] = fluid.astype(float)
    scans = pd.DataFrame(0.0, index=eyes.index, columns=SCANNED).assign(**{"after near irf_area_mm2": 0.3 * fluid})
    model = TreeModel(seed=1).fit(eyes.join(scans))
    answers = model.predict(eyes.assign(**{c.PATIENT: [f"9{number:03}L" for number in range(300)]}).join(scans))
    assert auc_score(fluid, answers[c.CONTINUE]) > 0.95
    assert "after near irf_area_mm2" in model.columns


def test_what_no_eye_knows_is_no_feature_and_trees_of_an_earlier_version_see_none_of_it(fitted):
    assert fitted.columns[-2:] == ["preCST spread", "CST spread"] and not set(SCANNED) & set(fitted.columns)
    known, model = make_eyes(), TreeModel(seed=1)
    known[SCANNED] = 1.0
    with mock.patch("model.trees.EXTRAS", []), mock.patch("model.trees.TreeModel._features", lambda _self, eyes: (
            build_features(eyes).drop(columns=EXTRAS).fillna(-9999.0))):
        model.fit(known)
    model.columns = None
    assert len(model.predict(known)) == len(known)


def test_few_eyes_are_fitted_and_asked_by_one_thread(monkeypatch):
    """Beside another training, threads that wait for one another make seconds minutes."""
    counts = []

    def note(method):
        def noted(*arguments, **named):
            counts.extend(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "openmp")
            return method(*arguments, **named)
        return noted

    for name in ("fit", "predict_proba"):
        monkeypatch.setattr(HistGradientBoostingClassifier, name, note(getattr(HistGradientBoostingClassifier, name)))
    eyes = make_eyes(60)
    with threadpool_limits(2):
        TreeModel().fit(eyes).predict(eyes)
    assert len(counts) > 4 and set(counts) == {1}
