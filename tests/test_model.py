import contextlib
import re
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import torch
from model.model import CSVModel, ImageModel

from model import dataset as dataset_module
from model.dataset import ImageDataset, epoch_order, read_batches
from model.device import select_device
from model.module import CSVModule, ImageModule, fold_batch_norm
from model_config import CSVConfig, ImageConfig
from processing import columns as c
from processing.errors import PipelineError
from tests.helpers import put_screen

CPU = torch.device("cpu")


class Recorder:
    """Stands in for a Run: remembers the losses."""

    epochs_done = halvings = 0

    def __init__(self, config):
        self.config, self.name, self.batch_size, self.losses = config, config.name, config.batch_size, []

    def restore(self, module, optimizer):
        pass

    def finish_epoch(self, epoch, _module, _optimizer, losses):
        assert epoch == len(self.losses) + 1
        self.losses.append(losses)


def make_crops(folder, count, height=64, width=96):
    """`count` crops of noise with labels that differ from one to the next."""
    rows = []
    for number in range(count):
        put_screen(folder / f"{number}.jpg", seed=number, height=height, width=width)
        labels = [float(number >> bit & 1) for bit in range(4)]
        rows.append([f"{number}.jpg", 200.0 + 25 * number, *labels])
    return pd.DataFrame(rows, columns=[c.PROCESSED, c.CST, *c.FINDINGS])


def image_config(**values):
    return ImageConfig(name="Model-Image-After", visit="after", target=c.CST, **values)


def train_images(rows, folder, config, crop_size=(64, 96)):
    torch.manual_seed(config.seed)
    model = ImageModel(ImageModule(config.recipe, crop_size), CPU)
    recorder = Recorder(config)
    model.train(rows, folder, recorder)
    return model, recorder.losses


@pytest.mark.parametrize("recipe", ["fixed", "resnet"])
def test_eight_images_are_learned_by_heart(tmp_path, recipe):
    rows = make_crops(tmp_path, 8)
    config = image_config(recipe=recipe, epochs=60, batch_size=8, learning_rate=3e-3)
    model, losses = train_images(rows, tmp_path, config)
    assert losses[-1]["loss findings"] < 0.05
    assert losses[-1]["loss CST"] < 0.1
    assert ((model.eval(rows, tmp_path)[c.FINDINGS] > 0.5) == (rows[c.FINDINGS] == 1)).to_numpy().mean() > 0.9


def test_the_seed_recipes_loss_falls(tmp_path):
    rows = make_crops(tmp_path, 8)
    _, losses = train_images(rows, tmp_path, image_config(epochs=20, batch_size=4))
    assert losses[-1]["loss"] < 0.5 * losses[0]["loss"]
    assert losses[-1]["loss findings"] < losses[0]["loss findings"]


def test_the_mean_loss_weighs_every_image_alike(tmp_path):
    """Six images in batches of 4 and 2 with a step of almost nothing: the mean over images, not over batches."""
    rows = make_crops(tmp_path, 6)
    config = image_config(epochs=1, batch_size=4, learning_rate=1e-12)
    torch.manual_seed(0)
    module = ImageModule("seed", (64, 96))
    for block in module.layers:
        block.layers[1] = torch.nn.Identity()       # batch norm would make the loss depend on the batch
    recorder = Recorder(config)
    ImageModel(module, CPU).train(rows, tmp_path, recorder)
    one_batch = Recorder(image_config(epochs=1, batch_size=6, learning_rate=1e-12))
    ImageModel(module, CPU).train(rows, tmp_path, one_batch)
    assert recorder.losses[0]["loss"] == pytest.approx(one_batch.losses[0]["loss"], rel=1e-5)


def test_the_same_seed_gives_the_same_run_and_another_seed_another(tmp_path, one_thread):
    rows = make_crops(tmp_path, 6)
    first, again, other = (
        train_images(rows, tmp_path, image_config(epochs=2, batch_size=2, seed=seed))[1] for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 33])
def test_images_are_predicted_whatever_their_number(tmp_path, count):
    rows = make_crops(tmp_path, count)
    rows.index = rows.index + 100
    model = ImageModel(ImageModule("seed", (64, 96)), CPU)
    predicted = model.eval(rows, tmp_path)
    assert predicted.index.equals(rows.index)
    assert predicted.columns.tolist() == [c.CST, *c.FINDINGS]
    assert np.isfinite(predicted.to_numpy()).all()
    assert (predicted[c.CST] >= 0).all()
    if count:
        torch.testing.assert_close(
            torch.tensor(model.eval(rows.tail(1), tmp_path).to_numpy()), torch.tensor(predicted.tail(1).to_numpy()),
            rtol=1e-4, atol=1e-4,
        )


def test_cst_is_given_in_um_and_never_negative(tmp_path):
    rows = make_crops(tmp_path, 1)
    module = ImageModule("fixed", (64, 96))
    torch.nn.init.zeros_(module.regression[-1].weight)
    for bias, cst in ((2.5, 250), (-1.0, 0)):
        torch.nn.init.constant_(module.regression[-1].bias, bias)
        assert ImageModel(module, CPU).eval(rows, tmp_path)[c.CST].tolist() == [pytest.approx(cst)]


def test_prediction_uses_the_running_statistics_not_the_batch(tmp_path):
    rows = make_crops(tmp_path, 4)
    model = ImageModel(ImageModule("seed", (64, 96)), CPU)
    before = {name: value.clone() for name, value in model.module.state_dict().items()}
    model.eval(rows, tmp_path)
    for name, value in model.module.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_each_epoch_has_an_order_of_its_own_with_every_image_once():
    orders = [epoch_order(20, seed=1, epoch=epoch).tolist() for epoch in (1, 2, 1)]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(20))
    assert orders[0] != orders[1]
    assert orders[0] == orders[2]
    assert orders[0] != epoch_order(20, seed=2, epoch=1).tolist()


def test_items_are_red_first_and_in_order(tmp_path):
    rows = make_crops(tmp_path, 3)
    screen = put_screen(tmp_path / "1.jpg", seed=5, height=64, width=96, grey=False)
    dataset = ImageDataset(rows, tmp_path, (64, 96), c.CST)
    images, (cst, findings), _ = next(read_batches(dataset, np.arange(3), 3, CPU))
    assert images.shape == (3, 3, 64, 96)
    np.testing.assert_allclose(images[1].permute(1, 2, 0).numpy() * 255, screen[..., ::-1], atol=1e-3)
    assert cst.tolist() == [200, 225, 250]
    assert findings[2].tolist() == [0, 1, 0, 0]


@pytest.mark.parametrize("workers", [1, 3])
def test_reading_threads_give_the_same_batches(tmp_path, workers):
    dataset = ImageDataset(make_crops(tmp_path, 7), tmp_path, (64, 96), c.CST)

    def batches(workers):
        taken = read_batches(dataset, epoch_order(7, 3, 1), 2, CPU, workers=workers)
        return [(batch.inputs, *batch.targets, torch.from_numpy(batch.rows)) for batch in taken]

    alone, threaded = batches(0), batches(workers)
    assert len(alone) == len(threaded) == 4
    for ours, theirs in zip(alone, threaded, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("recipe", ["seed", "resnet"])
def test_one_channel_stands_for_three_equal_ones(recipe):
    torch.manual_seed(0)
    module, grey = ImageModule(recipe, (64, 96)), torch.rand(4, 1, 64, 96)
    one, three = module(grey), module(grey.expand(-1, 3, -1, -1))
    for ours, theirs in zip(one, three, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    one[0].sum().backward()
    slope = module.layers[0].layers[int(recipe == "resnet")].weight.grad
    assert torch.equal(slope[:, 0], slope[:, 1]) and torch.equal(slope[:, 1], slope[:, 2])


@pytest.mark.parametrize("recipe", ["seed", "resnet"])
def test_folded_batch_norms_predict_the_same(recipe):
    torch.manual_seed(0)
    module = ImageModule(recipe, (64, 96))
    for _ in range(3):
        module(torch.rand(4, 3, 64, 96))        # statistics of its own
    folded, images = fold_batch_norm(module), torch.rand(2, 3, 64, 96)
    assert not any(isinstance(part, torch.nn.BatchNorm2d) for part in folded.modules())
    for ours, theirs in zip(folded(images), module.eval()(images), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_crop_is_named_not_guessed(tmp_path, workers):
    rows = make_crops(tmp_path, 3)
    (tmp_path / "1.jpg").write_bytes(b"gone")
    model = ImageModel(ImageModule("seed", (64, 96)), CPU)
    with pytest.raises(PipelineError, match=r"^\S+1\.jpg: cannot be decoded.*Option 0"):
        model.eval(rows, tmp_path, workers=workers)


def test_a_crop_of_another_size_is_named(tmp_path):
    rows = make_crops(tmp_path, 2)
    with pytest.raises(PipelineError, match="0.jpg has 64 x 96 rows and columns, the model wants 400 x 650"):
        ImageModel(ImageModule(), CPU).eval(rows, tmp_path)


def make_cases(count, seed=0):
    rng = np.random.default_rng(seed)
    cases = pd.DataFrame(rng.random((count, len(c.CSV_FEATURES))), columns=c.CSV_FEATURES)
    cases[c.VA] = cases["preVA"]
    cases[c.CONTINUE] = (cases["IRF"] > 0.5).astype(float)
    cases[c.PATIENT] = [f"{number}L" for number in range(count)]
    return cases


def train_cases(cases, **values):
    torch.manual_seed(0)
    model, recorder = CSVModel(CSVModule(values.get("recipe", "seed")), CPU), Recorder(CSVConfig(**values))
    model.train(cases, recorder)
    return model, recorder.losses


def test_the_csv_model_learns(tmp_path):
    cases = make_cases(64)
    model, losses = train_cases(cases, recipe="fixed", epochs=300, batch_size=32, learning_rate=3e-3)
    assert losses[-1]["loss"] < 0.2 * losses[0]["loss"]
    predicted = model.eval(cases)
    assert ((predicted[c.CONTINUE] > 0.5) == (cases[c.CONTINUE] == 1)).mean() > 0.9
    assert np.abs(predicted[c.VA] - cases[c.VA]).mean() < 0.15


@pytest.mark.parametrize("count", [1, 9, 10, 11, 21])
def test_csv_batches_are_fixed_and_the_last_partial_one_is_left_out(count):
    cases = make_cases(count)
    kept = cases if count < 10 else cases.head(count // 10 * 10)
    assert train_cases(cases, epochs=2, batch_size=10)[1] == train_cases(kept, epochs=2, batch_size=10)[1]


@pytest.mark.parametrize("count", [0, 1, 250])
def test_eyes_are_predicted_whatever_their_number(count):
    cases = make_cases(count)
    module = CSVModule()
    torch.nn.init.constant_(module.regression[-1].bias, -5)
    predicted = CSVModel(module, CPU).eval(cases)
    assert predicted.shape == (count, 2)
    assert (predicted[c.VA] == 0).all()
    assert predicted[c.CONTINUE].between(0, 1).all()


def test_devices():
    assert select_device("cpu") == CPU
    assert select_device("auto").type in ("cuda", "mps", "cpu")
    if not torch.cuda.is_available():
        with pytest.raises(PipelineError, match="has no cuda; it has .*cpu"):
            select_device("cuda")


@pytest.mark.parametrize("count", [0, 1, 3])
def test_batches_are_copied_to_a_card_ahead_and_given_in_order(monkeypatch, count):
    """On stand-ins: what is copied when, and that nobody gets a batch before its copy is waited for."""
    told = []
    monkeypatch.setattr(torch.cuda, "Stream", lambda _: "its own")
    monkeypatch.setattr(torch.cuda, "stream", lambda _: contextlib.nullcontext())
    now = mock.Mock(wait_stream=lambda _: told.append("wait"))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: now)

    def images(number):
        copied = mock.Mock(name=f"copy {number}", record_stream=lambda _: None, number=number)
        return mock.Mock(pin_memory=lambda: mock.Mock(to=lambda *_, **__: told.append(f"copy {number}") or copied))

    for given, rows in dataset_module._upload_ahead(((images(n), [n]) for n in range(count)), "card"):
        told.append(f"use {given.number}")
        assert rows == [given.number]
    wanted = ["copy 0", "wait", "copy 1", "use 0", "wait", "copy 2", "use 1", "wait", "use 2"]
    assert told == {0: [], 1: ["copy 0", "wait", "use 0"], 3: wanted}[count]


def test_a_card_that_torch_cannot_use_is_named_and_another_device_taken(monkeypatch, capsys):
    """torch says that there is a card, and fails when it is to compute: as without a driver, so with too old a card."""
    if torch.cuda.is_available():
        pytest.skip("there is a card that works")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert select_device("auto") == CPU
    assert re.search("cannot use cuda: .+ Another device is taken: slower", capsys.readouterr().out)
    with pytest.raises(PipelineError, match=r"cannot use cuda: .+ Choose another \(--device cpu\)"):
        select_device("cuda")
    with pytest.raises(PipelineError, match=r"has no cuda:1; it has cuda, cpu \(1 cards\)"):
        select_device("cuda:1")


def test_a_last_batch_of_one_small_crop_is_refused_in_words(tmp_path):
    rows = make_crops(tmp_path, 3)
    with pytest.raises(PipelineError, match="from crops of 64 x 96 batch norm cannot learn of one image"):
        train_images(rows, tmp_path, image_config(epochs=1, batch_size=2))


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_images_are_trained_on_and_predicted_whatever_their_number(tmp_path, count):
    rows = make_crops(tmp_path, count, height=260, width=300)
    model, losses = train_images(rows, tmp_path, image_config(epochs=1, batch_size=2), crop_size=(260, 300))
    assert np.isfinite(losses[0]["loss"])
    for part in (rows.head(0), rows, pd.concat([rows] * 7)):
        predicted = model.eval(part, tmp_path)
        assert predicted.shape == (len(part), 5)
        assert np.isfinite(predicted.to_numpy()).all()
