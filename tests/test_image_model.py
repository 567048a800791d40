"""ImageNetwork: what it learns, and what it says of which image."""

import numpy as np
import pandas as pd
import pytest
import torch

from model import image_model
from model.batches import read_batches
from model.dataset import ImageData, plan_in_order
from model.image_model import ImageNetwork, select_visit
from model.module import ImageModule
from model.specification import ImageSpecification
from processing import columns as c
from processing.errors import PipelineError
from tests.toys import CPU, SMALL, TWO, Recorder, build_images, image_config, make_images, train_images

POOLS = ["image", "visit"]
LARGE = {"bscan": SMALL["bscan"]._replace(bottom=260, right=300)}


@pytest.mark.parametrize(("recipe", "pool"), [("fixed", "image"), ("resnet", "image"), ("fixed", "visit")])
def test_eight_images_are_learned_by_heart(paths, recipe, pool):
    rows = make_images(paths, 8)
    model, losses = train_images(rows, paths, recipe=recipe, pool=pool, epochs=60, batch_size=8, learning_rate=3e-3)
    assert losses[-1]["loss findings"] < 0.05
    assert losses[-1]["loss CST"] < 0.1
    assert ((model.predict(rows, paths)[c.FINDINGS] > 0.5) == (rows[c.FINDINGS] == 1)).to_numpy().mean() > 0.9


def test_the_seed_recipes_loss_falls(paths):
    rows = make_images(paths, 8)
    _, losses = train_images(rows, paths, epochs=20, batch_size=4)
    assert losses[-1]["loss"] < 0.5 * losses[0]["loss"]
    assert losses[-1]["loss findings"] < losses[0]["loss findings"]


def test_two_views_of_visits_with_all_that_can_be_asked_for_are_learned(paths):
    rows = make_images(paths, 12, TWO, visits=[2 * (number // 2) + 1 for number in range(12)])
    how = {"recipe": "fixed", "pool": "visit", "augment": "mild", "normalise": "image", "schedule": "cosine",
           "weight_decay": 0.01}
    model, losses = train_images(rows, paths, TWO, epochs=15, batch_size=6, learning_rate=3e-3, **how)
    assert losses[-1]["loss"] < 0.3 * losses[0]["loss"]
    assert np.isfinite(model.predict(rows, paths).to_numpy()).all()


def test_the_mean_loss_weighs_every_image_alike(paths):
    """Six images in batches of 4 and 2 with a step of almost nothing: the mean over images, not over batches."""
    rows, means = make_images(paths, 6), []
    for batch_size in (4, 6):
        model, recorder = build_images(), Recorder(image_config(epochs=1, batch_size=batch_size, learning_rate=1e-12))
        for block in model.module.layers:
            block.layers[1] = torch.nn.Identity()       # batch norm would make the loss depend on the batch
        model.fit(rows, recorder, paths, held_out=rows)
        means.append(recorder.losses[0]["loss"])
        assert recorder.losses[0]["held-out loss"] == pytest.approx(means[0], rel=1e-5)
    assert means[0] == pytest.approx(means[1], rel=1e-5)


@pytest.mark.parametrize("pool", POOLS)
def test_the_same_seed_gives_the_same_run_and_another_seed_another(paths, one_thread, pool):
    rows = make_images(paths, 6)
    first, again, other = (
        train_images(rows, paths, epochs=2, batch_size=2, seed=seed, pool=pool, augment="mild")[1] for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_held_out_images_are_measured_as_they_are_and_change_nothing(paths, one_thread):
    rows = make_images(paths, 6)
    model, losses = train_images(rows.head(4), paths, held_out=rows.tail(2), epochs=2, batch_size=4, augment="mild")
    alone, _ = train_images(rows.head(4), paths, epochs=2, batch_size=4, augment="mild")
    assert losses[0].keys() == {"loss", "loss CST", "loss findings", "held-out loss", "held-out loss CST",
                                "held-out loss findings"}
    for name, value in alone.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    predicted = model.predict(rows.tail(2), paths)
    by_hand = ((predicted[c.CST] - rows[c.CST].tail(2)) / 100).pow(2).mean()
    assert losses[-1]["held-out loss CST"] == pytest.approx(by_hand, rel=1e-4)


def test_weight_decay_pulls_the_weights_towards_0(paths):
    """A learning rate of almost nothing, but for what it does to the weights by themselves."""
    rows = make_images(paths, 4)

    def size(weight_decay):
        model, _ = train_images(rows, paths, epochs=2, batch_size=4, learning_rate=1e-6, weight_decay=weight_decay)
        return sum(value.square().sum() for value in model.module.parameters()).item()

    assert size(1e5) == pytest.approx(size(0.0) * 0.9**4, rel=1e-3)


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 33])
def test_images_are_predicted_whatever_their_number(paths, count):
    rows = make_images(paths, count)
    rows.index = rows.index + 100
    model = build_images()
    predicted = model.predict(rows, paths)
    assert predicted.index.equals(rows.index)
    assert predicted.columns.tolist() == [c.CST, *c.FINDINGS]
    assert np.isfinite(predicted.to_numpy()).all()
    assert (predicted[c.CST] >= 0).all()


def build_spread(rows, paths, pool):
    """A model whose answers differ from image to image by more than rounding."""
    model = build_images(recipe="fixed", pool=pool)
    data = ImageData(rows, paths, ImageSpecification(views=SMALL))
    batch, = read_batches(data, plan_in_order(data.visit_of_row, 99), CPU)
    for _ in range(40):
        model.module.train().extract_features(batch.inputs)     # statistics of batch norm
    for layer in (*model.module.regression, *model.module.classify):
        if isinstance(layer, torch.nn.Linear):
            torch.nn.init.normal_(layer.weight, std=0.3)
    return model


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("size", [1, 2, 5, 16])
def test_rows_keep_their_order_and_batches_do_not_matter(paths, monkeypatch, pool, size):
    """Visits whose images lie all over the table."""
    visits = np.random.default_rng(0).permutation([1] * 7 + [2, 2, 3, 4, 4, 4, 6, 9, 9, 9, 9])
    rows = make_images(paths, len(visits), visits=visits, final=visits // 2 % 2)
    model = build_spread(rows, paths, pool)
    wanted = []
    for place in range(len(rows)):              # each image, or each visit, by itself
        own = rows[visits == visits[place]] if pool == "visit" else rows.iloc[[place]]
        wanted.append(model.predict(own, paths).loc[rows.index[place]])
    assert pd.DataFrame(wanted)[c.FINDINGS].std().min() > 0.001
    monkeypatch.setattr(image_model, "PREDICT_BATCH_SIZE", size)
    predicted = model.predict(rows, paths)
    pd.testing.assert_frame_equal(predicted, pd.DataFrame(wanted), rtol=1e-3, atol=1e-4, check_dtype=False)


def test_images_of_a_visit_share_what_is_the_eyes_and_keep_what_is_their_own(paths):
    rows = make_images(paths, 6, visits=[1, 3, 1, 3, 1, 3], final=[0, 1] * 3)
    predicted = build_spread(rows, paths, "visit").predict(rows, paths)
    of_eye, of_images = predicted[rows[c.FINAL] == 0], predicted[rows[c.FINAL] == 1]
    assert of_eye[c.CST].nunique() == of_images[c.CST].nunique() == 1
    assert (of_eye[c.FINDINGS].nunique() == 1).all()
    assert (of_images[c.FINDINGS].nunique() == 3).all()


def test_cst_is_given_in_um_and_never_negative(paths):
    rows, model = make_images(paths, 1), build_images(recipe="fixed")
    torch.nn.init.zeros_(model.module.regression[-1].weight)
    for bias, cst in ((2.5, 250), (-1.0, 0)):
        torch.nn.init.constant_(model.module.regression[-1].bias, bias)
        assert model.predict(rows, paths)[c.CST].tolist() == [pytest.approx(cst)]


def test_prediction_uses_the_running_statistics_not_the_batch(paths):
    rows, model = make_images(paths, 4), build_images()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.predict(rows, paths)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_an_unreadable_crop_is_named_not_guessed(paths):
    rows = make_images(paths, 3)
    (paths.root / rows[c.PROCESSED][1]).write_bytes(b"gone")
    with pytest.raises(PipelineError, match=r"1L_1_1_0_1\.jpg: cannot be decoded.*Option 0"):
        build_images().predict(rows, paths)
    with pytest.raises(PipelineError, match=r"1L_1_1_0_1\.jpg: cannot be decoded.*Option 0"):
        train_images(rows, paths, epochs=1, batch_size=3)


def test_images_that_are_not_there_are_missed_before_a_training_and_what_is_there_has_a_fingerprint(paths):
    rows, model = make_images(paths, 3, TWO), build_images(TWO)
    whole = model.fingerprint(rows, rows.head(0), paths)
    assert whole == model.fingerprint(rows, rows.tail(1), paths)
    assert whole != model.fingerprint(rows.head(2), rows.tail(1), paths)
    (paths.root / "data/processed/fundus/train/2L_1_1_0_2.jpg").unlink()
    for train, held_out in ((rows, rows.head(0)), (rows.head(2), rows.tail(1))):
        with pytest.raises(PipelineError, match="1 of 3 crops are not there, the first is .*fundus.*2L_1_1_0_2.jpg"):
            model.fingerprint(train, held_out, paths)


def test_a_last_batch_of_one_small_crop_is_refused_in_words(paths):
    rows = make_images(paths, 3)
    with pytest.raises(PipelineError, match="from crops of 64 x 96 batch norm cannot learn of one image"):
        train_images(rows, paths, epochs=1, batch_size=2)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_images_are_trained_on_and_predicted_whatever_their_number(paths, count):
    rows = make_images(paths, count, LARGE)
    model, losses = train_images(rows, paths, LARGE, epochs=1, batch_size=2)
    assert np.isfinite(losses[0]["loss"])
    for part in (rows.head(0), rows, pd.concat([rows] * 7)):
        predicted = model.predict(part, paths)
        assert predicted.shape == (len(part), 5)
        assert np.isfinite(predicted.to_numpy()).all()


def test_a_model_is_built_again_from_its_specification(paths):
    rows, model = make_images(paths, 2, TWO), build_images(TWO, recipe="resnet", pool="visit", normalise="image")
    again = ImageNetwork(model.specification, CPU)
    again.load_state_dict(model.state_dict())
    pd.testing.assert_frame_equal(again.predict(rows, paths), model.predict(rows, paths))
    assert again.describe() == ("ImageNetwork of bscan and fundus, backbone residual, pooling visit, heads logits, "
                                "findings IRF SRF PED HRF")


def test_a_new_models_specification_is_the_configs_with_todays_boxes():
    what = ImageSpecification(**ImageNetwork.specify(image_config(recipe="resnet", pool="visit", normalise="image",
                                                                  views=("bscan", "fundus")), pd.DataFrame()))
    assert (what.backbone, what.heads, what.pool, what.normalise, what.target) == (
        "residual", "logits", "visit", "image", c.CST)
    assert {name: view.folder for name, view in what.views.items()} == {"bscan": "img", "fundus": "fundus"}
    assert ImageSpecification(**ImageNetwork.specify(image_config(), pd.DataFrame())) == ImageSpecification()


def test_the_published_models_are_what_no_specification_means():
    assert ImageNetwork({}, CPU).module.state_dict().keys() == ImageModule().state_dict().keys()


def test_a_visit_is_chosen():
    table = pd.DataFrame({c.AFTER: [0, 1, 1]})
    assert [len(select_visit(table, visit)) for visit in ("before", "after", "all")] == [1, 2, 3]
    assert ImageNetwork.select_rows(table, image_config(visit="before")).index.tolist() == [0]
