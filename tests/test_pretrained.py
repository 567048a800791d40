"""Recipe pretrained from a run to its answers: first weights, resuming, ensembles; what the recipe best sees of it."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import config
from config import Paths, View
from data.pipeline import load_models
from model import pretrained, seers
from model.checkpoint import load_checkpoint
from model.dataset import ImageData, _label_own_visits
from model.distribution import Judgement
from model.ensemble import Ensemble
from model.image_trees import ImageTrees
from model.pretrained import PretrainedNetwork
from model.registry import load_model, load_weights_of
from model.runs import find_fold_runs, find_members
from model.seers import find_seers, see_images
from model.segmentation_model import WEIGHTS
from model.specification import ImageSpecification
from model.trunks import SegmentationTrunk, describe_columns, load_trunk_weights
from model_config import IMAGE_MODELS, ConfigError, each_training
from processing import columns as c
from processing.errors import PipelineError
from processing.splits import load_splits
from processing.tables import read_processed
from tests.helpers import train_image

CPU = torch.device("cpu")
NAME = "Model-Image-After"
SHORT = replace(IMAGE_MODELS[1], recipe="pretrained", epochs=2, batch_size=8, device="cpu", learning_rate=3e-3)
SMALL = View(180, 308, 496, 1264, channels=1, folder="", narrow=6)      # 128 x 128


@pytest.fixture(scope="module")
def root(demo_root, tmp_path_factory):
    """A demonstration with runs of the recipe pretrained that left each fold out, and one with another seed."""
    place = tmp_path_factory.mktemp("pretrained") / "root"
    shutil.copytree(demo_root.root, place)
    paths, whole = Paths(place), config.VIEWS["bscan_full"]
    config.VIEWS["bscan_full"] = SMALL
    try:
        train_image(paths, [replace(SHORT, fold="all"), replace(SHORT, fold="0", seed=7)])
    finally:
        config.VIEWS["bscan_full"] = whole
    return paths


def rows_of(paths, table="train"):
    file = paths.train_table if table == "train" else paths.test_table
    rows = read_processed(file, c.TRAIN_COLUMNS if table == "train" else c.TEST_COLUMNS)
    return rows[rows[c.AFTER] == 1].reset_index(drop=True)


def run_of(paths, fold, seed=SHORT.seed):
    for folder in sorted((paths.ckpt / NAME).iterdir()):
        fields = json.loads((folder / "config.json").read_text())
        if (fields["fold"], fields["seed"]) == (str(fold), seed):
            return folder
    raise AssertionError(f"no run of fold {fold}")


def test_a_run_says_what_the_recipe_decided(root):
    fields = json.loads((run_of(root, 0) / "config.json").read_text())
    assert (fields["views"], fields["pool"], fields["augment"]) == (["bscan_full"], "visit", "scan")
    assert (fields["schedule"], fields["weight_decay"], fields["trunk"]) == ("warm", 0.05, "segmentation")
    assert fields["specification"]["views"]["bscan_full"]["narrow"] == SMALL.narrow


def test_the_trunk_starts_from_the_weights_that_come_with_the_program(root):
    own, first = load_checkpoint(run_of(root, 0) / f"{NAME}.pt").state, load_checkpoint(WEIGHTS).state
    learned = own["learning.trunks.bscan_full.network.stem.0.weight"]
    assert torch.allclose(learned, first["stem.0.weight"].float(), atol=0.02)       # a step is small
    assert not torch.equal(learned, first["stem.0.weight"].float())


def test_what_is_usual_of_the_trunks_features_is_taken_from_the_training_images_at_the_start(root):
    checkpoint = load_checkpoint(run_of(root, 0) / f"{NAME}.pt")
    model = PretrainedNetwork(checkpoint.specification, CPU)
    model.begin(SHORT)
    folds = load_splits(root.splits, read_processed(root.train_table, c.TRAIN_COLUMNS).drop_duplicates(c.PATIENT))
    rows = rows_of(root)
    data = model.read_images(rows[~rows[c.PATIENT].isin(folds[0])], root)
    with torch.inference_mode():
        seen = model.module.eval().learning.see(
            {view: pixels / 255 for view, pixels in data.read(np.arange(len(data))).items()})
    one = seen["bscan_full"]
    model.load_state_dict(checkpoint.state)
    looks = model.module.learning.first_sight.looks["bscan_full"]
    for parameter in looks.where.parameters():
        torch.nn.init.zeros_(parameter)             # as it was at the start
    with torch.inference_mode():
        looks = looks(one.read).flatten(1)
    for name, values in {"standard": one.features, "first_sight.looks.bscan_full.standard": one.read.columns,
                         "first_sight.standard": looks}.items():
        values = values.flatten(end_dim=-2)
        for part in ("learning", "averaged"):
            mean, spread = (checkpoint.state[f"{part}.{name}.{which}"] for which in ("mean", "spread"))
            assert torch.allclose(mean, values.mean(dim=0), atol=1e-4)
            assert torch.allclose(spread, values.std(dim=0, correction=0).clamp(min=1e-3), atol=1e-4)


def test_a_network_of_an_earlier_version_says_so(root):
    checkpoint = load_checkpoint(run_of(root, 0) / f"{NAME}.pt")
    earlier = checkpoint._replace(state={name.replace("thickness.head", "thickness"): values
                                         for name, values in checkpoint.state.items()})
    with pytest.raises(PipelineError, match="an earlier version of this program made it.*train anew"):
        load_weights_of(earlier, PretrainedNetwork(checkpoint.specification, CPU), root.root)


def test_a_label_that_the_doctor_did_not_give_is_not_learned(root, tmp_path):
    """train.csv holds the round's mean there, and 0 of findings."""
    shutil.copytree(root.root / "data", tmp_path / "copy" / "data")
    paths = Paths(tmp_path / "copy")
    eyes = pd.read_csv(paths.eye_table)
    rows = rows_of(paths)
    patient, finding = rows[c.PATIENT].iloc[0], c.FINDINGS[1]
    eyes.loc[eyes[c.PATIENT] == patient, [c.CST, finding]] = np.nan
    eyes.to_csv(paths.eye_table, index=False)
    what = ImageSpecification(**load_checkpoint(run_of(root, 0) / f"{NAME}.pt").specification)
    labels = pd.DataFrame(ImageData(rows, paths, what, labelled=True)._labels.numpy(), columns=[c.CST, *what.findings])
    own = (rows[c.PATIENT] == patient).to_numpy()
    assert labels.loc[own, [c.CST, finding]].isna().all(axis=None) and labels.drop(columns=[c.CST, finding]).notna(
        ).all(axis=None)
    assert np.allclose(labels.loc[~own, c.CST], rows.loc[~own, c.CST]) and labels.loc[~own, finding].notna().all()


@pytest.mark.parametrize("pool", ["image", "visit"])
def test_only_scans_near_the_fovea_speak_for_thickness_when_it_is_learned(root, tmp_path, pool):
    """Of an image alone, too; where no scan of the visit is known to be near, all speak."""
    shutil.copytree(root.root / "data", tmp_path / "copy" / "data")
    paths = Paths(tmp_path / "copy")
    rows = read_processed(paths.train_table, c.TRAIN_COLUMNS).assign(**{c.AFTER: 1})        # visits of two scans
    geometry = pd.read_csv(paths.geometry_table)
    eye, other = rows[c.PATIENT].unique()[:2]
    far = rows[c.SOURCE][rows[c.PATIENT] == eye].iloc[0]
    geometry.loc[geometry[c.SOURCE] == far, "distance_um"] = 900.0
    geometry.loc[geometry[c.SOURCE].isin(rows[c.SOURCE][rows[c.PATIENT] == other]), "distance_um"] = np.nan
    geometry.to_csv(paths.geometry_table, index=False)
    whole = load_checkpoint(run_of(root, 0) / f"{NAME}.pt").specification
    what = replace(ImageSpecification(**whole), pool=pool)
    data = ImageData(rows, paths, what, labelled=True, placed=True)
    silent = np.isnan(data._labels[:, 0].numpy())
    assert rows[c.SOURCE][silent].tolist() == ([far] if pool == "image" else [])


def test_where_scans_lie_and_what_eyes_are_labelled_is_part_of_what_is_learned_from(root, tmp_path):
    """A run that is resumed with other ones would be another."""
    shutil.copytree(root.root / "data", tmp_path / "copy" / "data")
    paths = Paths(tmp_path / "copy")
    model, rows = load_model(run_of(root, 0) / f"{NAME}.pt", CPU, unit="images"), rows_of(root)
    before = model.fingerprint(rows, rows.head(0), paths)
    for file in (paths.geometry_table, paths.eye_table):
        table = pd.read_csv(file)
        table.iloc[::-1].to_csv(file, index=False)
        after = model.fingerprint(rows, rows.head(0), paths)
        assert {name for name in after if after[name] != before[name]} == {file.name}
        before = after


def test_the_trunk_sees_a_scan_as_the_network_whose_weights_it_has(root):
    whole = load_model(WEIGHTS, CPU, unit="scans").module.eval()
    trunk = SegmentationTrunk(config.VIEWS["bscan_full"]).eval()
    load_trunk_weights(trunk, "segmentation", "")
    scans = torch.rand(2, 1, 496, 384, generator=torch.Generator().manual_seed(1)) ** 3
    with torch.inference_mode():
        read = trunk(scans).read
        right = describe_columns(whole(scans), read.away_mm)
    assert torch.allclose(read.columns, right.columns, atol=1e-4) and torch.allclose(read.marks, right.marks, atol=1e-3)


def test_images_that_are_judged_alone_agree_on_their_visits_thickness(root):
    chances = np.eye(6, 8, dtype=np.float32)
    visits, near = np.array([0, 0, 0, 1, 1, 2]), np.array([True, False, True, False, False, True])
    shared = pretrained._share_near(chances, visits, near)
    assert np.allclose(shared.sum(axis=1), 1) and (shared[:3] == (chances[0] + chances[2]) / 2).all()
    assert (shared[3:5] == (chances[3] + chances[4]) / 2).all() and (shared[5] == chances[5]).all()
    assert pretrained._share_near(chances[:0], visits[:0], near[:0]).shape == (0, 8)


def test_a_run_that_starts_from_another_averages_anew(root, tmp_path):
    model = load_model(run_of(root, 0) / f"{NAME}.pt", CPU, unit="images")
    learning = {name: value.clone() for name, value in model.module.learning.state_dict().items()}
    assert model.module.steps > 0
    model.begin(replace(SHORT, init_from="a run"))
    assert model.module.steps == 0
    assert all(torch.equal(value, learning[name]) for name, value in model.module.averaged.state_dict().items())


def test_images_cannot_be_normalised(root):
    with pytest.raises(PipelineError, match="normalise is image; it must be none for the recipe pretrained"):
        train_image(root, [replace(SHORT, normalise="image")])


def test_no_crop_of_its_view_is_kept_and_the_answers_come_with_how_sure_they_are(root):
    assert not (root.processed / "bscan_full").exists() and (root.processed / "pixels-bscan_full.bin").is_file()
    rows = rows_of(root, "test")
    answers = load_model(run_of(root, 1) / f"{NAME}.pt", CPU, unit="images").predict(rows, root)
    assert list(answers) == [c.CST, *c.sure_columns(c.CST), *c.FINDINGS] and answers.index.equals(rows.index)
    assert answers[c.FINDINGS].stack().between(0, 1).all()
    chance, low, high = (answers[name] for name in c.sure_columns(c.CST))
    assert chance.between(0, 1).all() and (low < high).all()
    assert answers.groupby(rows[c.PATIENT])[c.CST].nunique().eq(1).all()


@pytest.mark.parametrize("epoch", [1, 2])
def test_a_resumed_run_ends_as_one_that_went_through(root, tmp_path, monkeypatch, one_thread, epoch):
    """Stopped in its first epoch it has no checkpoint, and begins with the trunk's weights again."""
    monkeypatch.setitem(config.VIEWS, "bscan_full", SMALL)
    shutil.copytree(root.root / "data", tmp_path / "copy" / "data")
    paths = Paths(tmp_path / "copy")
    whole, = train_image(paths, [SHORT])
    step, steps = pretrained.PretrainedNetwork.finish_step, []

    def stop(self):
        step(self)
        steps.append(1)
        if len(steps) == (epoch - 1) * count + 1:
            raise KeyboardInterrupt

    count = int(load_checkpoint(whole / f"{NAME}.pt").state["steps"]) // 2
    monkeypatch.setattr(pretrained.PretrainedNetwork, "finish_step", stop)
    with pytest.raises(KeyboardInterrupt):
        train_image(paths, [SHORT])
    monkeypatch.setattr(pretrained.PretrainedNetwork, "finish_step", step)
    again, = train_image(paths, [SHORT], resume="")
    one, other = (load_checkpoint(folder / f"{NAME}.pt").state for folder in (whole, again))
    assert again != whole and all(torch.equal(one[name], other[name]) for name in one)


def test_a_trunk_without_weights_stops_before_a_run_is_made(root, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    before = set((root.ckpt / NAME).iterdir())
    with pytest.raises(PipelineError, match="no weights of resnet18"):
        train_image(root, [replace(SHORT, trunk="resnet18")])
    with pytest.raises(PipelineError, match="the trunk resnet_eighteen cannot be used: Unknown model"):
        train_image(root, [replace(SHORT, trunk="resnet_eighteen")])
    assert set((root.ckpt / NAME).iterdir()) == before


# ---- Several runs as one

def test_runs_of_other_seeds_and_folds_answer_together(root):
    file = run_of(root, 0) / f"{NAME}.pt"
    assert {member.parent for member in find_members(file)} == {
        *(run_of(root, fold) for fold in range(5)), run_of(root, 0, seed=7)}
    rows = rows_of(root, "test")
    both = load_models([file, run_of(root, 1) / f"{NAME}.pt"], NAME, CPU)
    assert isinstance(both.model, Ensemble)
    judged = [member.judge(rows, root) for member in both.model.members]
    assert np.allclose(both.model.judge(rows, root).chances, (judged[0].chances + judged[1].chances) / 2)
    assert not np.allclose(judged[0].chances, judged[1].chances)


def test_a_run_of_another_config_or_that_is_not_finished_does_not_join(root, tmp_path):
    shutil.copytree(root.ckpt / NAME, tmp_path / NAME)
    runs = {run_of(root, fold).name for fold in range(5)}
    other = tmp_path / NAME / run_of(root, 3).name
    fields = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(fields | {"epochs": 3}))
    unfinished = tmp_path / NAME / run_of(root, 4).name
    record = json.loads((unfinished / "run.json").read_text())
    (unfinished / "run.json").write_text(json.dumps(record | {"state": "stopped"}))
    empty = tmp_path / NAME / run_of(root, 2).name
    (empty / f"{NAME}.pt").unlink()
    redrawn = tmp_path / NAME / run_of(root, 1).name         # it left others out
    record = json.loads((redrawn / "run.json").read_text())
    record["data"][root.splits.name] = "other"
    (redrawn / "run.json").write_text(json.dumps(record))
    found = {member.parent.name for member in find_members(tmp_path / NAME / run_of(root, 0).name / f"{NAME}.pt")}
    assert found == runs - {other.name, unfinished.name, empty.name, redrawn.name} | {run_of(root, 0, seed=7).name}


def test_seeds_are_trainings_and_only_recipes_that_join_have_them():
    configs = each_training(replace(SHORT, seeds=2, fold="all"))
    assert sorted((one.seed, one.fold, one.seeds) for one in configs) == [
        (SHORT.seed + number, str(fold), 1) for number in range(2) for fold in range(5)]
    with pytest.raises(ConfigError, match="seeds is 2; it must be 1 for the recipe seed"):
        replace(IMAGE_MODELS[0], seeds=2)


# ---- What the recipe best sees

def test_each_eye_is_seen_by_the_run_that_left_it_out_and_others_by_all(root, monkeypatch):
    found = find_seers(root, SHORT.name)
    runs = [run_of(root, 0, seed=7), *(run_of(root, fold) for fold in range(1, 5))]      # the newest of each
    assert {fold: seer["run"] for fold, seer in found.items()} == {
        str(fold): f"{NAME}/{run.name}" for fold, run in enumerate(runs)}
    asked = {}

    class Seer:
        def __init__(self, file):
            self.fold = int(json.loads((file.parent / "config.json").read_text())["fold"])

        def judge(self, rows, _paths, label):
            assert self.fold not in asked       # each is asked once
            asked[self.fold] = set(rows[c.PATIENT])
            chances = np.zeros((len(rows), 512), np.float32)
            chances[:, 100 + 10 * self.fold] = 1
            return Judgement(chances, pd.DataFrame({"IRF": 0.5}, index=rows.index))

    monkeypatch.setattr(seers, "load_model", lambda file, _device, unit: Seer(file))
    monkeypatch.setattr(seers, "_ANSWERED", {})
    train, test = rows_of(root), rows_of(root, "test")
    rows = pd.concat([train, test], ignore_index=True)
    seen, chances = see_images(rows, root, found, CPU)
    again, same = see_images(rows.set_axis(rows.index + 7), root, found, CPU)       # as another member of an ensemble
    assert np.array_equal(chances, same) and again.index.equals(rows.index + 7)
    assert np.array_equal(again.to_numpy(), seen.to_numpy())
    folds = load_splits(root.splits, read_processed(root.train_table, c.TRAIN_COLUMNS).drop_duplicates(c.PATIENT))
    others = set(test[c.PATIENT])
    assert asked == {fold: (folds[fold] & set(train[c.PATIENT])) | others for fold in range(5)}
    place = {patient: 100 + 10 * fold for fold, patients in enumerate(folds) for patient in patients}
    from model.distribution import MIDDLES_UM

    wanted = [np.log(MIDDLES_UM[place.get(patient, 120)]) for patient in rows[c.PATIENT]]
    assert seen.index.equals(rows.index) and np.allclose(seen["seen log thickness"], wanted, atol=1e-4)
    spread = seen["seen spread"]
    assert (seen["seen IRF_chance"] == 0.5).all()       # a name that the line beside the forest knows
    own, shared = (chances[rows[c.PATIENT].isin(who)] for who in (place, others))
    assert (own.argmax(axis=1) == rows[c.PATIENT].map(place).dropna()).all() and (own.max(axis=1) == 1).all()
    assert np.allclose(shared[:, 100:150:10], 0.2) and np.allclose(chances.sum(axis=1), 1)
    for number in range(5):
        asked.pop(number)
    left = sorted(folds[3])[0]
    others_of_it = {fold: seer | {"eyes": [*{*seer["eyes"]} - {c.fellow_of(left)}]} for fold, seer in found.items()}
    fellow = train[train[c.PATIENT] == left].assign(**{c.PATIENT: c.fellow_of(left)})
    see_images(fellow, root, others_of_it, CPU)
    assert set(asked) == {3}            # who knows the other eye of a person is not asked for this one
    assert (spread < 1e-3).all()        # of others too: what the trees learned from is a run's own spread


def test_a_thickness_that_no_retina_has_is_no_label(root, tmp_path):
    shutil.copytree(root.root, tmp_path / "copy")
    paths, rows = Paths(tmp_path / "copy"), rows_of(root)
    eyes = pd.read_csv(paths.eye_table)
    wrong = eyes[c.PATIENT] == rows[c.PATIENT].iloc[0]
    for um, is_label in ((6109, False), (300, True), (40, False)):
        eyes.loc[wrong, [c.PRE_CST, c.CST]] = um
        eyes.to_csv(paths.eye_table, index=False)
        labels = _label_own_visits(rows, paths, [c.CST, "IRF"])[c.CST][rows[c.PATIENT] == rows[c.PATIENT].iloc[0]]
        assert (labels == 300).all() if is_label else labels.isna().all()


def test_runs_that_began_with_random_numbers_are_another_recipe_and_asked_last(root, monkeypatch):
    assert replace(SHORT, weights="none").variant() == "pretrained from random numbers" != SHORT.variant()
    found = find_fold_runs(root, NAME)
    assert list(found) == ["pretrained"]
    random = {fold: root.ckpt / NAME / f"random {fold}" for fold in range(5)}
    monkeypatch.setattr(seers, "find_fold_runs", lambda *_: found | {"pretrained from random numbers": random})
    assert {seer["run"] for seer in find_seers(root, NAME).values()} == {
        f"{NAME}/{folder.name}" for folder in found["pretrained"].values()}
    monkeypatch.setattr(seers, "find_fold_runs", lambda *_: {"pretrained from random numbers": random})
    assert {seer["run"] for seer in find_seers(root, NAME).values()} == {
        f"{NAME}/{folder.name}" for folder in random.values()}


def test_the_runs_that_best_asks_are_part_of_what_it_learned_from(root, monkeypatch):
    """Runs that ask others do not answer together with it (find_members)."""
    monkeypatch.setattr("model.image_trees.require_measures", lambda paths, rows: None)
    rows = rows_of(root)
    data = {recipe: ImageTrees(ImageTrees.specify(replace(SHORT, recipe=recipe), rows), CPU).fingerprint(
        rows, rows.head(0), root) for recipe in ("measured", "best")}
    seers_of_best = data["best"].pop("pretrained runs")
    assert seers_of_best.split() == [seer["run"] for seer in find_seers(root, NAME).values()]
    assert data["best"] == data["measured"]


def test_without_runs_of_all_folds_best_is_measured_and_says_so(root, tmp_path, capsys):
    shutil.copytree(root.root, tmp_path / "copy")
    paths = Paths(tmp_path / "copy")
    shutil.rmtree(paths.ckpt / NAME / run_of(root, 2).name)
    assert find_seers(paths, SHORT.name, tell=True) == {}
    assert "no pretrained run has left out fold 2; the recipe best is the recipe measured" in capsys.readouterr().out


def test_runs_that_left_out_other_folds_than_there_are_are_not_asked(root, monkeypatch, capsys):
    """A user's own file may hold more: of the sixth fold's eyes all runs have learned."""
    real = seers.load_splits
    monkeypatch.setattr(seers, "load_splits", lambda *arguments: [*real(*arguments), {"9999-9999L"}])
    assert find_seers(root, SHORT.name, tell=True) == {}
    assert "no pretrained run has left out fold 5" in capsys.readouterr().out
