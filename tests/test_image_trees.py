"""Recipe measured: what the trees see of a visit, that they learn what the tables call thickness, and storage."""

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import skops.io
import torch

from config import Paths
from model import image_trees
from model.distribution import MIDDLES_UM
from model.eye_features import SCANNED
from model.image_trees import ImageTrees
from model.measures import MEASURES
from model.metrics import auc_score, hits_thickness
from model.run import read_config
from model.runs import find_members
from model.training import train
from model.trees import TRUSTED
from model.visit_features import build_features, describe_eyes, read_labels
from model_config import IMAGE_MODELS, ConfigError, ImageConfig
from processing import columns as c
from processing.crop_record import GEOMETRY_COLUMNS
from processing.errors import PipelineError
from processing.files import write_csv
from processing.visits import VISIT
from tests.toys import Recorder

CPU = torch.device("cpu")
CONFIG = ImageConfig(name="Model-Image-All", visit="all", target="CST", recipe="measured")
SCANS, MIDDLE_UM, FAR_UM = 3, 0.0, 1500.0
LABEL_SHARE = 0.8           # what the tables call thickness, of what is measured


def make_world(root, count, seed=0):
    """Tables of `count` eyes (every third of the final round), as options 0 and 11 leave them; rows of train.csv.

    The first scan of a visit passes through the fovea, where alone its thickness can be measured; the label is a share
    of that. Fluid is there where the scan's chance says so.
    """
    paths, rng = Paths(root), np.random.default_rng(seed)
    eyes, images, measures, places = [], [], [], []
    for eye in range(count):
        patient, final = f"{eye // 2:04}-{eye // 2:04}{'LR'[eye % 2]}", int(eye % 3 == 0)
        row = dict.fromkeys(c.EYE_COLUMNS, 1) | {c.PATIENT: patient, c.FINAL: final, c.DATA_TYPE: "train",
                                                 c.SIDE: eye % 2, c.AGE: rng.integers(40, 90)}
        for after, (thickness, names) in enumerate(((c.PRE_CST, c.PRE_FINDINGS), (c.CST, c.FINDINGS))):
            true_um, shown = rng.uniform(200, 700), rng.random(SCANS) < 0.4
            row[thickness] = LABEL_SHARE * true_um * np.exp(rng.normal(0, 0.02))
            row |= dict.fromkeys(names, float(shown.any()))
            for scan in range(SCANS):
                source = f"data/source/{patient}_{after}_{scan}.jpg"
                images.append({c.PATIENT: patient, c.SIDE: eye % 2, c.FINAL: final, c.AFTER: after,
                               c.INJECTION: (c.PRE, c.POST)[after], c.IMAGE: str(scan), c.PROCESSED: source,
                               c.SOURCE: source, c.DATA_TYPE: "train"} | dict.fromkeys(c.FINDINGS, float(shown[scan])))
                um = true_um if scan == 0 else rng.uniform(150, 800)
                measures.append(dict.fromkeys(MEASURES, 0.0) | {
                    c.FILE: source, "irf_chance": shown[scan] * 0.6 + rng.uniform(0, 0.35), "scale": "scale bars",
                    **{name: um * rng.uniform(0.99, 1.01) for name in MEASURES if name.startswith("thickness")}})
                places.append({c.SOURCE: source, "pattern": "volume",
                               "distance_um": MIDDLE_UM if scan == 0 else FAR_UM * rng.choice([-1, 1])})
        eyes.append(row)
    table = pd.DataFrame(images)
    for file, rows, columns in (
        (paths.eye_table, eyes, c.EYE_COLUMNS), (paths.image_table, table, c.IMAGE_COLUMNS),
        (paths.measures, measures, [c.FILE, *MEASURES, "scale", c.PROBLEM, *c.MEASURED_STATE]),
        (paths.geometry_table, places, GEOMETRY_COLUMNS),
    ):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_csv(file, pd.DataFrame(rows).reindex(columns=columns))
    clinical = pd.DataFrame(eyes)[[c.PATIENT, c.GENDER, c.AGE, c.DIAGNOSIS, c.DRUG, c.PRE_VA, c.PRE_CST, c.CST]]
    return paths, table.merge(clinical, on=c.PATIENT)


class Keeper(Recorder):
    def save_fitted(self, model):
        self.kept = model


def fit(rows, paths, config=CONFIG):
    model = ImageTrees(ImageTrees.specify(config, rows), CPU)
    model.fit(rows, Keeper(config), paths, held_out=rows.head(0))
    return model


def truth_of(paths, rows):
    return read_labels(paths).reindex(pd.MultiIndex.from_frame(rows[[c.PATIENT, c.AFTER]]))


@pytest.fixture
def small_forests(monkeypatch):
    monkeypatch.setitem(image_trees.FOREST, "n_estimators", 5)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Tables of 120 eyes, their rows, and trees that learned from the first 80."""
    paths, rows = make_world(tmp_path_factory.mktemp("world"), 120)
    learned = rows[c.PATIENT].isin(sorted(rows[c.PATIENT].unique())[:80])
    return paths, rows[~learned], fit(rows[learned], paths)


def test_they_learn_what_the_tables_call_thickness_and_the_findings(world):
    paths, unseen, model = world
    answers, labels = model.predict(unseen, paths), truth_of(paths, unseen)
    assert hits_thickness(labels[c.CST], answers[c.CST]).mean() > 0.85      # a share of what the middle scan measures
    assert answers.groupby([unseen[c.PATIENT], unseen[c.AFTER]])[c.CST].nunique().eq(1).all()
    own = (unseen[c.FINAL] == 1).to_numpy()
    assert auc_score(unseen["IRF"][own], answers["IRF"][own]) > 0.95                    # of images
    assert auc_score(labels["IRF"].to_numpy()[~own] > 0, answers["IRF"][~own]) > 0.9    # of visits
    assert answers[c.FINDINGS].stack().between(0, 1).all()
    chance, low, high = (answers[name] for name in c.sure_columns(c.CST))
    covered = (low.to_numpy() <= labels[c.CST].to_numpy()) & (labels[c.CST].to_numpy() <= high.to_numpy())
    assert 0.7 < covered.mean() < 0.92 and chance.between(0, 1).all() and abs(chance.mean() - 0.95) < 0.1
    assert not answers["IRF"][own].groupby(unseen[c.PATIENT][own]).nunique().eq(1).any()


def test_a_model_that_is_stored_answers_as_before(world):
    paths, unseen, model = world
    again = ImageTrees(model.specification, CPU)
    again.load_state_dict(model.state_dict())
    assert again.predict(unseen, paths).equals(model.predict(unseen, paths))
    broken = ImageTrees(model.specification, CPU)
    with pytest.raises(ValueError, match="its trees cannot be built"):
        broken.load_state_dict({"skops": torch.zeros(40, dtype=torch.uint8)})


def test_no_answer_depends_on_who_else_is_asked(world):
    paths, unseen, model = world
    alone = pd.concat([model.predict(unseen[unseen[c.PATIENT] == patient], paths)
                       for patient in unseen[c.PATIENT].unique()[:4]])
    assert alone.equals(model.predict(unseen, paths).loc[alone.index])


def test_fluid_that_is_surer_than_any_that_was_learned_from_makes_a_finding_surer_yet(tmp_path, small_forests):
    paths, rows = make_world(tmp_path, 12)
    model, measures = fit(rows, paths), pd.read_csv(paths.measures)
    image = rows[rows[c.FINAL] == 1].head(1)
    answers = []
    for chance in (0.97, 0.99):         # 0.95 is the most that was seen
        measures.loc[measures[c.FILE] == image[c.SOURCE].iloc[0], "irf_chance"] = chance
        write_csv(paths.measures, measures)
        answers.append(model.predict(image, paths)["IRF"].iloc[0])
    assert 0.8 < answers[0] < answers[1] < 1


def test_trees_of_an_earlier_version_say_so(tmp_path, small_forests):
    paths, rows = make_world(tmp_path, 12)
    model = fit(rows, paths)
    model._learned["image columns"].append("own of yore")
    with pytest.raises(PipelineError, match="an earlier version.*'own of yore'.*Train anew"):
        model.predict(rows, paths)
    del model._learned["seen share"]
    with pytest.raises(ValueError, match="an earlier version.*train anew"):
        ImageTrees(model.specification, CPU).load_state_dict(model.state_dict())


def see(monkeypatch, logs, spread=0.05, *, feature=True):
    """Pretrained runs that see these logarithms of thickness, by visit, as distributions of that spread, and as a
    feature of the trees or not."""
    def see_images(rows, *_):
        middle = logs[pd.MultiIndex.from_frame(rows[VISIT])].to_numpy()
        chances = np.exp(-0.5 * ((np.log(MIDDLES_UM) - middle[:, None]) / spread) ** 2)
        seen = pd.DataFrame({"seen log thickness" if feature else "seen nothing": middle}, rows.index)
        return seen if feature else 0 * seen, chances / chances.sum(axis=1, keepdims=True)

    monkeypatch.setattr(image_trees, "find_seers", lambda *_, **__: {"0": {"run": "Model-Image-All/a", "eyes": []}})
    monkeypatch.setattr(image_trees, "see_images", see_images)


BEST = replace(CONFIG, recipe="best")


def answer_visits(model, rows, paths):
    return model.predict(rows, paths).groupby([rows[name] for name in VISIT]).first()


@pytest.mark.parametrize(("error", "base"), [(0.01, "seen"), (0.4, "to RPE")])
def test_thickness_is_a_multiple_of_what_foretells_it_best(tmp_path, small_forests, monkeypatch, error, base):
    """To the RPE it is measured to 2 %; to BM it is more where a detachment is high."""
    paths, rows = make_world(tmp_path, 30)
    measures, rng = pd.read_csv(paths.measures), np.random.default_rng(5)
    to_bm = [name for name in MEASURES if name.startswith("thickness") and "to_rpe" not in name]
    measures[to_bm] = measures[to_bm].mul(rng.uniform(1, 2, len(measures)), axis=0)
    write_csv(paths.measures, measures)
    labels = read_labels(paths)[c.CST]
    see(monkeypatch, np.log(labels) + rng.normal(0, error, len(labels)))
    rows = rows.sample(frac=1, random_state=3)      # in any order
    model = fit(rows, paths, BEST)
    assert model._learned["base"] == base
    found = answer_visits(model, rows, paths)[c.CST]
    assert hits_thickness(labels.reindex(found.index), found).mean() > 0.9


def test_what_is_seen_has_a_share_as_large_as_it_is_right(tmp_path, small_forests, monkeypatch):
    paths, rows = make_world(tmp_path, 30)
    measures, rng = pd.read_csv(paths.measures), np.random.default_rng(5)
    thickness = [name for name in MEASURES if name.startswith("thickness")]
    measures[thickness] = measures[thickness].mul(np.exp(rng.normal(0, 0.08, len(measures))), axis=0)
    write_csv(paths.measures, measures)
    labels, shares, hits = read_labels(paths)[c.CST], [], []
    for error in (0.0, 0.08, 0.4):      # beside trees that know it to 8 %
        with monkeypatch.context() as patch:
            see(patch, np.log(labels) + rng.normal(0, error, len(labels)), feature=False)
            model = fit(rows.sample(frac=1, random_state=3), paths, BEST)
            shares.append(model._learned["seen share"])
            model._learned["seen share"] = 1.0
            answers = answer_visits(model, rows, paths)
            hits.append(hits_thickness(labels.reindex(answers.index), answers[c.CST]).mean())
    assert shares[0] > 0.6 > 0.3 > shares[2] and shares == sorted(shares, reverse=True)
    assert hits[0] == 1 and hits[2] < 0.3      # with all of the share the answers are what is seen
    assert fit(rows, paths)._learned["seen share"] == 0


def test_measures_of_an_earlier_version_want_option_11(tmp_path):
    """But for what describes eyes and needs no such column."""
    paths, rows = make_world(tmp_path, 4)
    patients = rows[c.PATIENT].drop_duplicates()
    before = describe_eyes(patients, paths)
    pd.read_csv(paths.measures).drop(columns="thickness_to_rpe_fovea_um").to_csv(paths.measures, index=False)
    assert before.equals(describe_eyes(patients, paths)) and before.notna().any(axis=None)
    with pytest.raises(PipelineError, match="(?s)thickness_to_rpe_fovea_um: the column is missing.*let option 11"):
        build_features(rows, paths)


def test_no_images_give_no_answers(world):
    paths, unseen, model = world
    assert model.predict(unseen.head(0), paths).empty


def test_the_scan_through_the_fovea_speaks_for_thickness(world):
    paths, unseen, _ = world
    images, visits = build_features(unseen, paths)
    measured = pd.read_csv(paths.measures).set_index(c.FILE)["thickness_fovea_um"]
    middle = unseen[unseen[c.IMAGE] == "0"].set_index([c.PATIENT, c.AFTER])[c.SOURCE]
    assert np.allclose(visits["near thickness_fovea_um"], measured[middle.reindex(visits.index)])
    assert (visits["nearest_um"] == MIDDLE_UM).all() and (visits["scans"] == SCANS).all()
    assert (visits["furthest_um"] == FAR_UM).all()
    assert np.allclose(images["own thickness_fovea_um"], measured[unseen[c.SOURCE]])
    assert images.index.equals(unseen.index)


def test_fluid_of_any_kind_counts_once_though_its_kind_may_be_mistaken(tmp_path):
    paths, rows = make_world(tmp_path, 4)
    measures = pd.read_csv(paths.measures)
    measures.loc[0, ["irf_chance", "srf_chance", "ped_chance", "foci_chance"]] = 0.2, 0.7, 0.4, 0.9
    write_csv(paths.measures, measures)
    images, visits = build_features(rows, paths)
    own = images[rows[c.SOURCE] == measures[c.FILE][0]].iloc[0]
    assert own["own fluid_chance"] == 0.7 and own["most fluid_chance"] >= 0.7
    assert "near fluid_area_mm2" in visits


def test_other_visit_and_fellow_eye_are_looked_up(world):
    paths, unseen, _ = world
    _, visits = build_features(unseen, paths)
    name = "near thickness_fovea_um"
    for patient, after in visits.index[:6]:
        assert visits[f"other {name}"][patient, after] == visits[name][patient, 1 - after]
        fellow = patient[:-1] + {"L": "R", "R": "L"}[patient[-1]]
        assert visits[f"fellow {name}"][patient, after] == visits[name][fellow, after]
    one_visit = unseen[(unseen[c.PATIENT] == unseen[c.PATIENT].iloc[0]) & (unseen[c.AFTER] == 0)]
    assert build_features(one_visit, paths)[1][f"other {name}"].notna().all()      # asked for or not


def test_where_the_fovea_is_not_known_all_scans_speak(tmp_path):
    paths, rows = make_world(tmp_path, 8)
    paths.geometry_table.unlink()
    _, visits = build_features(rows, paths)
    assert np.allclose(visits["near thickness_fovea_um"],
                       pd.read_csv(paths.measures).set_index(c.FILE)["thickness_fovea_um"][rows[c.SOURCE]].groupby(
                           [rows[c.PATIENT].to_numpy(), rows[c.AFTER].to_numpy()]).median())
    assert visits["nearest_um"].isna().all()


def test_a_label_that_is_not_given_is_not_learned(tmp_path):
    """train.csv holds a mean there; a third of the eyes without a label change nothing for the others."""
    paths, rows = make_world(tmp_path, 60)
    eyes = pd.read_csv(paths.eye_table)
    eyes.loc[::3, [c.PRE_CST, c.CST]] = np.nan
    write_csv(paths.eye_table, eyes)
    model = fit(rows, paths)
    assert len(model._learned["missed"]) == 2 * (60 - 20)
    unlabelled = rows[rows[c.PATIENT].isin(eyes[c.PATIENT][::3])]
    answers = model.predict(unlabelled, paths)[c.CST]
    measured = build_features(rows, paths)[1]["near thickness_fovea_um"]
    shares = answers.to_numpy() / measured[pd.MultiIndex.from_frame(unlabelled[[c.PATIENT, c.AFTER]])].to_numpy()
    assert np.median(shares) == pytest.approx(LABEL_SHARE, abs=0.02)


def test_outliers_count_less(tmp_path):
    paths, rows = make_world(tmp_path, 60)
    eyes = pd.read_csv(paths.eye_table)
    eyes.loc[[7, 20, 33], c.CST] = [6109.0, 60.0, 2000.0]        # the real table holds such ones
    write_csv(paths.eye_table, eyes)
    model = fit(rows, paths)
    _, visits = build_features(rows, paths)
    for number in (7, 20, 33):      # their own label would have them answered wrongly
        answers = model.predict(rows[(rows[c.PATIENT] == eyes[c.PATIENT][number]) & (rows[c.AFTER] == 1)], paths)
        measured = visits["near thickness_fovea_um"][eyes[c.PATIENT][number], 1]
        assert answers[c.CST].iloc[0] == pytest.approx(LABEL_SHARE * measured, rel=0.06)


def test_wrong_labels_to_one_side_do_not_pull_the_others(tmp_path, monkeypatch):
    """Of 200 eyes every thirtieth is labelled a tenth of what it is; the others are answered without a bias."""
    monkeypatch.setitem(image_trees.FOREST, "n_estimators", 40)
    biases = []
    for seed in (1, 2, 3):
        paths, rows = make_world(tmp_path / str(seed), 200, seed)
        labels = truth_of(paths, rows)[c.CST].to_numpy()
        eyes = pd.read_csv(paths.eye_table)
        eyes.loc[::30, [c.PRE_CST, c.CST]] *= 0.1
        write_csv(paths.eye_table, eyes)
        answers = fit(rows, paths).predict(rows, paths)[c.CST]
        good = ~rows[c.PATIENT].isin(eyes[c.PATIENT][::30]).to_numpy()
        biases.append(np.median(np.log(answers[good] / labels[good])))
    assert abs(np.mean(biases)) < 0.012


def test_the_same_seed_gives_the_same_bytes(tmp_path, small_forests):
    paths, rows = make_world(tmp_path, 60)
    one, other = (fit(rows, paths).state_dict()["skops"] for _ in range(2))
    read = [skops.io.loads(state.numpy().tobytes(), trusted=TRUSTED) for state in (one, other)]
    assert read[0]["missed"].tobytes() == read[1]["missed"].tobytes()
    assert read[0]["leaves"].tobytes() == read[1]["leaves"].tobytes()


def test_a_finding_that_is_not_given_is_not_learned_as_absent(tmp_path, small_forests):
    """train.csv holds 0 there, in the images of the final round."""
    paths, rows = make_world(tmp_path, 60)
    eyes = pd.read_csv(paths.eye_table)
    final = eyes[c.FINAL] == 1
    eyes.loc[final, ["IRF", "preIRF"]] = np.nan
    write_csv(paths.eye_table, eyes)
    model = fit(rows.assign(IRF=rows["IRF"].where(rows[c.FINAL] == 0, 0.0)), paths)
    assert model._learned["findings"]["IRF"][1] is None and model._learned["findings"]["SRF"][1] is not None


def test_a_mean_that_stands_in_for_an_age_is_none_of_the_features(tmp_path):
    """train.csv and test.csv hold one, of others; eyes.csv holds nothing there."""
    paths, rows = make_world(tmp_path, 6)
    eyes = pd.read_csv(paths.eye_table)
    eyes.loc[2, c.AGE] = np.nan
    eyes.to_csv(paths.eye_table, index=False)
    _, visits = build_features(rows, paths)
    known = visits[f"clinical {c.AGE}"].notna().groupby(c.PATIENT).all()
    assert not known[eyes[c.PATIENT][2]] and known.sum() == 5
    assert visits[f"clinical {c.PRE_VA}"].notna().all()


def test_what_is_not_measured_is_named(tmp_path):
    paths, rows = make_world(tmp_path, 12)
    table, model = pd.read_csv(paths.measures), ImageTrees(ImageTrees.specify(CONFIG, rows), CPU)
    model.fingerprint(rows, rows.head(0), paths)        # what is asked before any training of several begins
    write_csv(paths.measures, table.drop(index=[3, 4]))
    with pytest.raises(PipelineError, match=f"lacks 2 of {len(rows)} images, as {rows[c.SOURCE].iloc[3]}.*Option 11"):
        model.fingerprint(rows, rows.head(0), paths)
    with pytest.raises(PipelineError, match="lacks 2 of"):
        fit(rows, paths)
    paths.measures.unlink()
    with pytest.raises(PipelineError, match="measures.csv is not there.*Option 11"):
        fit(rows, paths)


def test_scans_without_a_retina_leave_gaps_not_answers(tmp_path):
    paths, rows = make_world(tmp_path, 30)
    table = pd.read_csv(paths.measures)
    blank = table[c.FILE].str.contains(rows[c.PATIENT].iloc[0])
    table.loc[blank, list(MEASURES)] = np.nan
    write_csv(paths.measures, table)
    answers = fit(rows, paths).predict(rows, paths)
    assert answers[c.CST].between(100, 900).all()


@pytest.mark.parametrize("after", [0, 1])
def test_of_a_visit_without_a_measured_thickness_the_answer_is_the_usual_one_and_unsure(world, tmp_path, after):
    paths, unseen, model = world
    shutil.copytree(paths.root, tmp_path / "copy")
    copy, table = Paths(tmp_path / "copy"), pd.read_csv(paths.measures)
    rows = unseen[unseen[c.AFTER] == after]
    table.loc[table[c.FILE].isin(rows[c.SOURCE]), list(MEASURES)] = np.nan
    write_csv(copy.measures, table)
    answers, labels = model.predict(rows, copy), truth_of(paths, rows)[c.CST].to_numpy()
    hit, low, high = (answers[name].to_numpy() for name in c.sure_columns(c.CST))
    assert ((labels >= low) & (labels <= high)).mean() > 0.65 and (high / low > 1.8).all() and (hit < 0.5).all()


def test_too_few_visits_are_refused(tmp_path):
    paths, rows = make_world(tmp_path, 4)
    with pytest.raises(PipelineError, match="8 visits of 2 persons whose thickness is known; 10 of 2 are needed"):
        fit(rows, paths)


def test_it_has_no_start():
    with pytest.raises(ConfigError, match="init_from"):
        ImageConfig(name="a", visit="all", target="CST", recipe="measured", init_from="x")
    assert {config.recipe for config in IMAGE_MODELS} == {"seed"}


def test_eyes_are_described_by_what_the_scans_of_either_visit_show(world, tmp_path):
    paths, unseen, _ = world
    patients = pd.Series([unseen[c.PATIENT].iloc[0], "9999-9999L"], index=[7, 3])
    found = describe_eyes(patients, paths)
    assert list(found.columns) == SCANNED and list(found.index) == [7, 3]
    assert found.loc[3].isna().all() and found.loc[7, "before nearest_um"] == MIDDLE_UM
    assert describe_eyes(patients, Paths(tmp_path)).isna().all(axis=None)          # nothing was measured


def test_eyes_of_which_one_visit_alone_is_measured_are_described_by_it(tmp_path):
    paths, rows = make_world(tmp_path, 12)
    table, after = pd.read_csv(paths.measures), rows[rows[c.AFTER] == 1]
    write_csv(paths.measures, table[~table[c.FILE].isin(after[c.SOURCE])])
    found = describe_eyes(rows[c.PATIENT].drop_duplicates(), paths)
    is_before = found.columns.str.startswith("before ")
    assert found.loc[:, is_before].notna().any(axis=None) and found.loc[:, ~is_before].isna().all(axis=None)


def test_an_eye_that_is_trained_on_and_asked_for_has_its_training_labels(tmp_path):
    paths, rows = make_world(tmp_path, 12)
    eyes = pd.read_csv(paths.eye_table)
    twice = eyes.head(1).assign(**{c.DATA_TYPE: "test", c.CST: np.nan})
    write_csv(paths.eye_table, pd.concat([eyes, twice]))
    assert read_labels(paths)[c.CST][eyes[c.PATIENT][0], 1] == eyes[c.CST][0]


@pytest.mark.parametrize("recipe", ["measured", "best"])
def test_runs_of_several_seeds_answer_together(tmp_path, recipe, small_forests):
    paths, rows = make_world(tmp_path, 60)
    write_csv(paths.train_table, rows.reindex(columns=c.TRAIN_COLUMNS))
    folders = train([replace(CONFIG, recipe=recipe, seeds=2)], paths)
    assert len({read_config(folder).seed for folder in folders}) == 2
    assert {file.parent for file in find_members(folders[0] / f"{CONFIG.name}.pt")} == set(folders)
    (folders[1] / "config.json").write_text("{")        # damaged: it answers no longer, and keeps no other from it
    assert find_members(folders[0] / f"{CONFIG.name}.pt") == [folders[0] / f"{CONFIG.name}.pt"]


def test_runs_that_learned_from_other_measures_do_not_answer_together(tmp_path, small_forests):
    paths, rows = make_world(tmp_path, 60)
    write_csv(paths.train_table, rows.reindex(columns=c.TRAIN_COLUMNS))
    one, = train([CONFIG], paths)
    table = pd.read_csv(paths.measures)
    write_csv(paths.measures, table.assign(srf_area_mm2=0.5))
    other, = train([replace(CONFIG, seed=7)], paths)
    assert [file.parent for file in find_members(other / f"{CONFIG.name}.pt")] == [other]
    assert [file.parent for file in find_members(one / f"{CONFIG.name}.pt")] == [one]
