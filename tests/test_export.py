"""Networks as ONNX files give what ours give, say what they are, and lie beside their checkpoints."""

import json
import sys
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
import torch

import main
from config import View
from model.checkpoint import save_checkpoint
from model.csv_model import CSVNetwork
from model.csv_trees import CSVTrees
from model.export import export
from model.image_model import ImageNetwork
from model.specification import PUBLISHED_FEATURES, ImageSpecification
from model_config import CSV_MODEL, IMAGE_MODELS, IMAGE_RECIPES
from processing import columns as c
from processing.errors import PipelineError

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

CPU = torch.device("cpu")
BSCAN, FUNDUS = {"bscan": View(0, 64, 0, 96)}, {"fundus": View(0, 64, 0, 64, channels=3, folder="fundus")}
VISIT_SIZES = {1: [1], 7: [3, 1, 2, 1], 50: [1, 12, 6, 9, 2, 20]}       # images of each visit, by images of the batch
CLOSE = {"atol": 1e-4, "rtol": 0}


def draw_pixels(specification, count, seed=0):
    """Images of noise, each of its own brightness: view -> uint8 B x C x H x W."""
    rng = np.random.default_rng(seed)
    return {
        name: (rng.integers(0, 256, (count, view.channels, view.height, view.width))
               * rng.uniform(0.1, 1, (count, 1, 1, 1))).astype(np.uint8)
        for name, view in specification.views.items()
    }


def make_image_model(specification):
    """Random weights; batch norm has seen images, and thicknesses are around 800 um."""
    torch.manual_seed(0)
    model = ImageNetwork(specification.to_plain(), CPU)
    for layer in model.module.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = 1
    with torch.no_grad():
        pixels = draw_pixels(specification, 8)
        model.module.train().extract_features({name: torch.from_numpy(part) / 255 for name, part in pixels.items()})
        for layer in [*model.module.regression, *model.module.classify]:
            if isinstance(layer, torch.nn.Linear):
                torch.nn.init.kaiming_normal_(layer.weight)         # answers differ from one image to the next
        model.module.regression[-1].bias.fill_(8)
    return model


def write_run(paths, model, config, *, state="finished"):
    """A run folder as a training leaves it."""
    folder = paths.ckpt / config.name / "202101010000"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"state": state}))
    (folder / "config.json").write_text(json.dumps(asdict(config) | {"specification": model.specification}))
    save_checkpoint(folder / f"{config.name}.pt", model, model.state_dict())
    return folder


def open_network(file):
    """The file's session, and its metadata."""
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return session, session.get_modelmeta().custom_metadata_map


def mark_visits(sizes):
    """V x B bool of visits of these sizes, their images one after the other."""
    return np.repeat(np.arange(len(sizes)), sizes)[None] == np.arange(len(sizes))[:, None]


def check_equal(file, model, seed=0):
    """The file's outputs are those of the module, which has its batch norms still, in batches of 1, 7 and 50."""
    session, _ = open_network(file)
    names = [output.name for output in session.get_outputs()]
    takes_visits = model.module.pool.takes_visits
    for count, sizes in VISIT_SIZES.items():
        pixels, visits = draw_pixels(model.module.specification, count, seed), mark_visits(sizes)
        found = dict(zip(names, session.run(names, pixels | ({"visits": visits} if takes_visits else {})), strict=True))
        with torch.inference_mode():
            inputs = {name: torch.from_numpy(part).float() / 255 for name, part in pixels.items()}
            cst, findings, visit_findings = model.module.eval().answer(
                inputs, torch.from_numpy(visits) if takes_visits else None)
        assert cst.min() > 0 and (count == 1 or cst.std() > 1)
        np.testing.assert_allclose(found["CST_um"] / 100, cst / 100, **CLOSE)       # in the network's unit
        np.testing.assert_allclose(found["findings"], findings, **CLOSE)
        assert ("visit_findings" in found) == takes_visits
        if takes_visits:
            np.testing.assert_allclose(found["visit_findings"], visit_findings, **CLOSE)


@pytest.mark.parametrize(("recipe", "views", "pool", "normalise"), [
    ("seed", BSCAN, "image", "none"), ("seed", BSCAN | FUNDUS, "visit", "none"), ("fixed", FUNDUS, "image", "image"),
    ("fixed", BSCAN, "visit", "none"), ("fixed", BSCAN | FUNDUS, "visit", "image"), ("resnet", FUNDUS, "visit", "none"),
    ("resnet", BSCAN | FUNDUS, "image", "none"),
])
def test_an_image_model_gives_the_same_elsewhere(paths, recipe, views, pool, normalise):
    what = IMAGE_RECIPES[recipe]
    model = make_image_model(ImageSpecification(what.backbone, views, pool, what.heads, normalise=normalise))
    save_checkpoint(paths.root / "a.pt", model, model.state_dict())
    file, = export(paths, [paths.root / "a.pt"])
    assert file == paths.root / "a.onnx"
    check_equal(file, model)


def test_a_whole_scan_gives_the_same_elsewhere(paths):
    """Its mean and spread are of 260,000 pixels, which onnxruntime must not add up one after the other."""
    model = make_image_model(ImageSpecification(normalise="image"))
    save_checkpoint(paths.root / "a.pt", model, model.state_dict())
    file, = export(paths, [paths.root / "a.pt"])
    check_equal(file, model)


@pytest.mark.parametrize("heads", ["sigmoid", "logits"])
def test_model_csv_gives_the_same_elsewhere(paths, heads):
    torch.manual_seed(0)
    model = CSVNetwork({"heads": heads, "features": PUBLISHED_FEATURES, "means": {"final": {c.AGE: 61.0}}}, CPU)
    with torch.no_grad():
        model.module.regression[-1].bias.fill_(3)
    save_checkpoint(paths.root / "Model-CSV.pt", model, model.state_dict())
    file, = export(paths, [paths.root / "Model-CSV.pt"])
    session, facts = open_network(file)
    assert json.loads(facts["means"]) == {"final": {c.AGE: 61.0}}
    assert json.loads(facts["features"]) == list(PUBLISHED_FEATURES)
    rng = np.random.default_rng(1)
    scale = [2, 80, 9, 10, 1, 2, 500, 1, 1, 1, 1, 500, 1, 1, 1, 1]
    for count in VISIT_SIZES:
        eyes = pd.DataFrame((rng.random((count, 16)) * scale).astype(np.float32), columns=list(PUBLISHED_FEATURES))
        ours = model.predict(eyes.assign(final=1, **{c.PATIENT: "1L"}))
        va, probability = session.run(["VA", "continue_injection"], {"features": eyes.to_numpy()})
        assert ours[c.VA].min() > 0
        np.testing.assert_allclose(va, ours[c.VA], **CLOSE)
        np.testing.assert_allclose(probability, ours[c.CONTINUE], **CLOSE)


def test_a_file_says_what_it_is(paths):
    model = make_image_model(ImageSpecification("plain", BSCAN | FUNDUS, "visit", "logits", target=c.PRE_CST))
    folder = write_run(paths, model, IMAGE_MODELS[0])
    file, = export(paths, [str(folder)])
    session, facts = open_network(file)
    assert [(port.name, port.type, port.shape) for port in [*session.get_inputs(), *session.get_outputs()]] == [
        ("bscan", "tensor(uint8)", ["B", 1, 64, 96]), ("fundus", "tensor(uint8)", ["B", 3, 64, 64]),
        ("visits", "tensor(bool)", ["V", "B"]), ("CST_um", "tensor(float)", ["V"]),
        ("findings", "tensor(float)", ["B", 4]), ("visit_findings", "tensor(float)", ["V", 4]),
    ]
    assert (facts["model"], facts["run"], facts["recipe"]) == ("Model-Image-Before", folder.name, "seed")
    assert json.loads(facts["views"])["fundus"] == FUNDUS["fundus"]._asdict()
    assert json.loads(facts["units"])["CST_um"] == "um"
    assert json.loads(facts["findings"]) == c.FINDINGS
    assert "255" in facts["pixels"] and "red first" in facts["pixels"]
    assert json.loads(facts["outputs"])["CST_um"]["meaning"].endswith("before treatment")
    assert ImageSpecification(**json.loads(facts["specification"])) == model.module.specification


def test_parts_are_named_as_those_of_the_module(paths):
    model = make_image_model(ImageSpecification("residual", BSCAN | FUNDUS, "visit", "logits"))
    save_checkpoint(paths.root / "a.pt", model, model.state_dict())
    proto = onnx.load(export(paths, [paths.root / "a.pt"])[0])
    known = {name for name in model.state_dict() if not name.endswith("num_batches_tracked")}
    weights = {value.name for value in proto.graph.initializer if value.name.endswith((".weight", ".bias"))}
    # A batch norm is part of the convolution before it, which gets a bias by that
    assert {name for name in weights if name.endswith("weight")} <= known
    assert {name for name in known if name.startswith(("regression", "classify", "pool"))} <= weights
    assert not any(node.op_type == "BatchNormalization" for node in proto.graph.node)
    names = [node.name for node in proto.graph.node]
    assert {"layers.0.layers.1/Conv", "others.fundus.8.layers.1/Conv", "pool.gate/Gemm"} <= set(names)
    assert len(set(names)) == len(names)
    assert not any(node.metadata_props for node in proto.graph.node)        # torch's notes: paths of this machine


def test_without_names_the_newest_run_of_each_model_is_taken(paths, capsys, monkeypatch):
    image = make_image_model(ImageSpecification("plain", BSCAN))
    csv = CSVNetwork({"heads": "sigmoid", "features": PUBLISHED_FEATURES}, CPU)
    first, last = write_run(paths, image, IMAGE_MODELS[1]), write_run(paths, csv, CSV_MODEL)
    write_run(paths, image, IMAGE_MODELS[0], state="running")
    files = export(paths, pictures=True)
    names = [first / "Model-Image-After", last / "Model-CSV"]
    assert files == [name.with_suffix(suffix) for name in names for suffix in (".onnx", ".png")]
    assert all(file.stat().st_size > 10_000 for file in files)
    said = capsys.readouterr().out
    assert "no finished run: Model-Image-Before, Model-Image-All." in said
    assert str(files[0]) in said
    monkeypatch.setattr("model.export.build_onnx", lambda *_: b"")
    assert [file.stem for file in export(paths, unfinished=True)] == [
        "Model-Image-Before", "Model-Image-After", "Model-CSV"]


def test_without_any_run_it_is_said_what_makes_one(paths):
    with pytest.raises(PipelineError, match=r"Model-Image-All has no finished run(.|\n)*2 \(train_csv\)"):
        export(paths)


def test_a_wrong_run_is_refused(paths, tmp_path):
    (tmp_path / "a.pt").write_text("no checkpoint")
    for name, message in (("nowhere", "is not there"), (tmp_path, "is no run folder"), (tmp_path / "a.pt", "damaged")):
        with pytest.raises(PipelineError, match=message):
            export(paths, [name])
    model = make_image_model(ImageSpecification("plain", BSCAN))
    with pytest.raises(PipelineError, match="not finished"):
        export(paths, [write_run(paths, model, IMAGE_MODELS[0], state="failed")])


def write_trees(file):
    """Trees that have learned nothing."""
    trees = CSVTrees({"seed": 1, "means": {}}, CPU)
    trees._trees.known = pd.DataFrame()
    save_checkpoint(file, trees, trees.state_dict())
    return file


def test_trees_are_left_out_in_words(tmp_path, capsys):
    trees, network = write_trees(tmp_path / "trees.pt"), tmp_path / "network.pt"
    model = CSVNetwork({"heads": "sigmoid", "features": PUBLISHED_FEATURES}, CPU)
    save_checkpoint(network, model, model.state_dict())
    assert main.main(["export", str(trees), str(network), "--out", str(tmp_path / "out")]) == 0
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["network.onnx"]
    assert "The recipe best makes no ONNX file" in capsys.readouterr().out
    assert main.main(["12", str(trees)]) == 1
    assert "Nothing was exported." in capsys.readouterr().err


def test_a_damaged_run_does_not_keep_the_others_from_their_files(paths, capsys):
    csv = CSVNetwork({"heads": "sigmoid", "features": PUBLISHED_FEATURES}, CPU)
    image, last = write_run(paths, csv, IMAGE_MODELS[0]), write_run(paths, csv, CSV_MODEL)
    (image / "Model-Image-Before.pt").write_bytes(b"torn")
    assert export(paths) == [last / "Model-CSV.onnx"]
    said = capsys.readouterr().out
    assert f"{image / 'Model-Image-Before.pt'} is left out." in said and "damaged" in said
    with pytest.raises(PipelineError, match="damaged"):
        export(paths, [str(last), str(image)])


def test_checkpoints_of_the_same_name_do_not_lie_on_one_another(paths, tmp_path):
    model = CSVNetwork({"heads": "sigmoid", "features": PUBLISHED_FEATURES}, CPU)
    files = [tmp_path / place / "Model-CSV.pt" for place in ("1", "2", "again/1")]
    for file in files:
        save_checkpoint(file, model, model.state_dict())
    written = export(paths, files[:2], out=tmp_path / "out")
    assert [file.name for file in written] == ["Model-CSV-1.onnx", "Model-CSV-2.onnx"]
    with pytest.raises(PipelineError, match="the same name"):
        export(paths, files, out=tmp_path / "out")


def test_a_folder_that_takes_no_file_is_said_with_what_to_do(paths, tmp_path):
    model = CSVNetwork({"heads": "sigmoid", "features": PUBLISHED_FEATURES}, CPU)
    save_checkpoint(tmp_path / "a.pt", model, model.state_dict())
    with pytest.raises(PipelineError, match=r"could not be written(.|\n)*--out FOLDER"):
        export(paths, [tmp_path / "a.pt"], out=tmp_path / "a.pt" / "below")


@pytest.mark.parametrize("name", ["onnx", "onnxscript"])
def test_what_is_not_installed_is_said_with_how_to_get_it(paths, tmp_path, monkeypatch, name):
    model = CSVNetwork({"heads": "sigmoid", "features": PUBLISHED_FEATURES}, CPU)
    save_checkpoint(tmp_path / "a.pt", model, model.state_dict())
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(PipelineError, match=f"{name} is not installed: pip install onnx onnxscript"):
        export(paths, [tmp_path / "a.pt"])


def test_an_exporter_that_is_too_old_is_said_with_how_to_renew_it(paths, tmp_path, monkeypatch):
    def export_nothing(*_, **__):
        raise ModuleNotFoundError("No module named 'onnxscript._framework_apis.torch_2_11'")

    model = CSVNetwork({"heads": "sigmoid", "features": PUBLISHED_FEATURES}, CPU)
    save_checkpoint(tmp_path / "a.pt", model, model.state_dict())
    monkeypatch.setattr(torch.onnx, "export", export_nothing)
    with pytest.raises(PipelineError, match=r"pip install --upgrade onnx onnxscript$"):
        export(paths, [tmp_path / "a.pt"])
    assert not (tmp_path / "a.onnx").exists()


def test_the_published_checkpoints_give_the_same_elsewhere(real, paths):
    from model.registry import load_model

    file = real / "checkpoints" / "Model-Image-After.pt"
    written, = export(paths, [file], out=paths.root)
    check_equal(written, load_model(file, CPU))
