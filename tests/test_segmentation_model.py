"""Model-Segmentation: trained like any model, reads scans of any size, and the weights that come with it."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import torch

from model import lessons, segmentation_model, training
from model.checkpoint import load_checkpoint
from model.lesson_score import score_lessons
from model.lessons import TEST
from model.measures import MEASURES, explain, measure_scan, measure_thickness
from model.registry import load_model
from model.segmentation import SegmentationModule
from model.segmentation_model import WEIGHTS
from model.training import train
from model_config import ConfigError, SegmentationConfig
from processing import columns as c
from processing import plots
from processing.bscans import Bscan
from processing.errors import PipelineError
from processing.eye.lesson import draw_lesson
from processing.eye.others import draw_other

CPU = torch.device("cpu")
SHORT = SegmentationConfig(epochs=2, scans=4, batch_size=2)


@pytest.fixture(scope="module")
def network():
    return load_model(WEIGHTS, CPU, unit="scans")


@pytest.fixture
def small_lessons(monkeypatch):
    """Few and small scans, and a small network."""
    for name, value in (("ROWS", 128), ("COLUMNS", 128), ("HALF", 64)):
        monkeypatch.setattr(lessons, name, value)
    monkeypatch.setattr(training, "HELD_OUT_SCANS", 2)
    monkeypatch.setattr("model.segmentation_model.WIDTHS", (8,) * 5)


def make_scans(count=3, rows=496, columns=768, seed=11):
    drawn = [draw_lesson([TEST, seed, k], rows=rows, columns=columns) for k in range(count)]
    return drawn, [Bscan(lesson.image, lesson.um_down, lesson.um_across, "given") for lesson in drawn]


# ---- Training

def test_a_training_leaves_a_run_like_any_other(paths, small_lessons, one_thread, monkeypatch):
    drawn = set()
    save = plots.save_figure
    monkeypatch.setattr(plots, "save_figure", lambda figure, path: drawn.update(
        figure.axes[0].get_legend_handles_labels()[1]) or save(figure, path))
    folder, = train([SHORT], paths)
    assert folder.parent == paths.ckpt / "Model-Segmentation"
    record = json.loads((folder / "run.json").read_text())
    assert record["state"] == "finished" and record["epochs_done"] == 2 and set(record["data"]) == {"scans"}
    history = pd.read_csv(folder / "history.csv")
    parts = ["ILM", "BM", "readable", "IRF", "SRF", "PED", "foci"]
    assert history["epoch"].tolist() == [1, 2] and {f"held-out loss {part}" for part in parts} <= set(history)
    assert list(folder.glob("Model-Segmentation-loss-epoch(2)-eta(0.003)-*.png"))
    assert drawn >= set(parts)
    assert load_checkpoint(folder / "Model-Segmentation.pt").values["learned"] == []
    reading = list(load_model(folder / "Model-Segmentation.pt", CPU).read(make_scans(1)[1]))
    assert reading[0][1].ilm_row.shape == (768,)
    again, = train([SHORT], paths)
    states = [load_checkpoint(run / "Model-Segmentation.pt").state for run in (folder, again)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_stopped_training_goes_on_as_if_it_had_not_been(paths, small_lessons, one_thread, monkeypatch):
    whole, = train([SHORT], paths)
    read_epoch = lessons.read_lessons

    def stop_in_the_second(stream, *arguments, **named):
        if stream[-1] == 2 and len(stream) == 3:
            raise KeyboardInterrupt
        return read_epoch(stream, *arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr("model.segmentation_model.read_lessons", stop_in_the_second)
        with pytest.raises(KeyboardInterrupt):
            train([SHORT], paths)
    resumed, = train([SHORT], paths, resume="")
    assert resumed != whole
    states = [load_checkpoint(run / "Model-Segmentation.pt").state for run in (whole, resumed)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_training_starts_from_weights_that_are_named(paths, small_lessons):
    first, = train([SHORT], paths)
    on = dataclasses.replace(SHORT, epochs=1, learning_rate=1e-9, seed=7, init_from=str(first))
    second, = train([on], paths)
    weights = [load_checkpoint(run / "Model-Segmentation.pt").state["stem.0.weight"] for run in (first, second)]
    assert torch.allclose(*weights, atol=1e-6)
    with pytest.raises(PipelineError, match="absent.pt"):
        train([dataclasses.replace(SHORT, init_from="absent.pt")], paths)


def test_a_run_of_other_scans_is_not_resumed(paths, small_lessons, monkeypatch):
    monkeypatch.setattr("model.segmentation_model.read_lessons", lambda *_, **__: (_ for _ in ()).throw(SystemExit))
    with pytest.raises(SystemExit):
        train([SHORT], paths)
    monkeypatch.setattr("model.segmentation_model.fingerprint_lessons", lambda: "other")
    with pytest.raises(PipelineError, match="cannot be resumed: scans changed since it began"):
        train([SHORT], paths, resume="")


@pytest.mark.parametrize(("field", "value"), [("epochs", 0), ("scans", 0), ("schedule", "none"), ("precision", "fp16")])
def test_bad_values_are_refused(field, value):
    with pytest.raises(ConfigError, match=f"SegmentationConfig: {field} is {value!r}"):
        SegmentationConfig(**{field: value})


# ---- The weights that come with the program

def test_code_and_weights_belong_together(network):
    """They fit the network of this version, with the config beside them, and read as score.json says."""
    checkpoint = load_checkpoint(WEIGHTS)
    fresh = SegmentationModule()
    assert {name: value.shape for name, value in checkpoint.state.items()} == {
        name: value.shape for name, value in fresh.state_dict().items()}
    kept = json.loads((WEIGHTS.parent / "config.json").read_text())
    assert kept.pop("specification") == checkpoint.specification
    assert set(kept) == {field.name for field in dataclasses.fields(SegmentationConfig)}
    assert sum(file.stat().st_size for file in WEIGHTS.parent.iterdir()) <= 5_000_000
    score = json.loads((WEIGHTS.parent / "score.json").read_text())
    assert score["scans"] == 500
    found = score_lessons(network, 12)
    assert found["membranes_mean_um"] < 3 * score["membranes_mean_um"] + 3
    assert found["membranes_within_10um"] > score["membranes_within_10um"] - 0.06
    assert found["readable_read"] > score["readable_read"] - 0.08


def test_bfloat16_reads_the_same_but_for_fractions_of_a_um(network, monkeypatch):
    """It is taken where it is faster, so what is measured must not depend on the machine."""
    _, scans = make_scans(4)
    readings = []
    for is_faster in (False, True):
        monkeypatch.setattr(segmentation_model, "is_faster_in_bf16", lambda device, is_faster=is_faster: is_faster)
        readings.append([reading for _, reading in network.read(scans)])
    off, fluid = [], []
    for scan, exact, rounded in zip(scans, *readings, strict=True):
        assert (exact.is_readable == rounded.is_readable).mean() > 0.98
        off.append(np.abs(measure_thickness(exact, scan.um_down) - measure_thickness(rounded, scan.um_down)))
        fluid += [np.abs(exact.fluids[name] - rounded.fluids[name]).mean() for name in exact.fluids]
    off = np.concatenate(off)
    assert 0 < np.nanmean(off) < 0.2 and np.nanquantile(off, 0.99) < 1 and max(fluid) < 0.002


def test_membranes_are_found_to_a_few_um_and_never_cross(network):
    drawn, scans = make_scans(6)
    off = []
    for lesson, (scan, reading) in zip(drawn, network.read(scans), strict=True):
        read = reading.is_readable
        assert (reading.ilm_row[read] <= reading.bm_row[read]).all()
        assert np.isfinite(reading.bm_row[read]).all() and np.isnan(reading.bm_row[~read]).all()
        assert (reading.ilm_spread[read] > 0).all()
        both = read & lesson.is_readable
        off.append(np.abs(reading.bm_row - lesson.bm_row)[both] * scan.um_down)
    assert np.median(np.concatenate(off)) < 4


def test_too_little_memory_halves_the_batch_once_and_for_all(network, monkeypatch, capsys):
    _, scans = make_scans(5, rows=64, columns=64)
    read, sizes = network._read_batch, []

    def hold_two(module, portion):
        sizes.append(len(portion))
        if len(portion) > 2:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
        return read(module, portion)

    monkeypatch.setattr(network, "_read_batch", hold_two)
    monkeypatch.setattr(network, "_most", network._most)
    assert [scan for scan, _ in network.read(scans, batch_size=4)] == scans
    assert sorted(sizes) == [1, 2, 2, 4] and "going on with batches of 2" in capsys.readouterr().out
    sizes.clear()
    assert [scan for scan, _ in network.read(scans[:4], batch_size=4)] == scans[:4] and sizes == [2, 2]


@pytest.mark.parametrize("shape", [(496, 512), (495, 767), (300, 333), (64, 64), (1024, 512), (2500, 300), (240, 3000)])
def test_scans_of_any_size_are_read_in_their_own_pixels(network, shape):
    pixels = draw_lesson([3, 5], rows=shape[0], columns=shape[1]).image
    (_, reading), = network.read([Bscan(pixels, 3.87, 11.5, "given")])
    assert reading.ilm_row.shape == reading.bm_row.shape == reading.is_cut.shape == (shape[1],)
    read = reading.is_readable
    assert ((reading.ilm_row[read] >= 0) & (reading.bm_row[read] <= shape[0] - 1)).all()
    high, wide = reading.fluids["IRF"].shape
    assert high * reading.place_um[0] == pytest.approx(shape[0] * 3.87, rel=0.05)
    assert wide * reading.place_um[1] == pytest.approx(shape[1] * 11.5, rel=0.05)


def test_a_scan_of_another_scale_is_brought_to_one_that_was_learned(network):
    """The same scan, each pixel shown as 2 x 2: the same thickness in um."""
    lesson = draw_lesson([TEST, 11, 0], rows=496, columns=512)
    large = lesson.image.repeat(2, axis=0).repeat(2, axis=1)
    scans = [Bscan(lesson.image, 3.87, 11.5, "given"), Bscan(large, 3.87 / 2, 11.5 / 2, "given")]
    (_, one), (_, two) = network.read(scans)
    rows = two.bm_row.reshape(-1, 2).mean(axis=1) / 2 - 0.25
    both = np.isfinite(rows) & one.is_readable
    assert both.mean() > 0.6 and np.median(np.abs(rows - one.bm_row)[both]) < 1


def test_batches_of_mixed_sizes_come_in_order_and_alike(network):
    scans = make_scans(5)[1] + make_scans(2, columns=512)[1] + make_scans(1)[1]
    together, alone = list(network.read(scans)), [next(network.read([scan])) for scan in scans]
    for (scan, one), (_, other), wanted in zip(together, alone, scans, strict=True):
        assert scan is wanted
        assert np.allclose(one.bm_row, other.bm_row, atol=0.05, equal_nan=True)


def test_fluid_lies_between_the_membranes_only(network):
    for scan, reading in network.read(make_scans(4)[1]):
        rows = np.arange(scan.pixels.shape[0])[:, None]
        between = (rows >= reading.ilm_row - 3) & (rows <= reading.bm_row + 3)
        places = between.reshape(248, 2, 384, 2).any(axis=(1, 3))
        for chances in reading.fluids.values():
            assert not (chances * ~places).any() and 0 <= chances.min() <= chances.max() <= 1


def test_in_pictures_without_a_retina_none_is_found(network):
    others = [Bscan(draw_other([TEST, 21, k]).image, 3.87, 11.5, "given") for k in range(24)]
    assert {explain(measure_scan(scan, reading)) for scan, reading in network.read(others)} == {c.NO_RETINA}


def test_the_protocol_of_models_gives_the_measures_of_images(network, demo_root):
    images = pd.read_csv(demo_root.image_table).head(3)
    table = network.predict(images, demo_root)
    assert list(table) == list(MEASURES) and table.index.equals(images.index)
    assert table["thickness_middle_um"].between(100, 900).all() and c.SOURCE in images
