import contextlib
import io
import os
import pickle
import random
import warnings
import zipfile
from unittest import mock

import pytest
import torch

from model import checkpoint as checkpoint_module
from model.checkpoint import FORMAT, load_checkpoint, save_checkpoint
from model.csv_model import CSVNetwork
from model.image_model import ImageNetwork
from model.module import CSVModule
from model.registry import load_model, load_weights_of
from processing.errors import PipelineError
from tests.toys import CPU, TWO, build_images


class Payload:
    """Makes a file when it is unpickled freely."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return os.mkdir, (str(self.file),)


def csv_network(heads="logits"):
    torch.manual_seed(0)
    return CSVNetwork({"heads": heads, "means": {"final": {"CST": 300.5}}}, CPU)


def save(file, model, **values):
    save_checkpoint(file, model, model.state_dict(), **values)


@pytest.fixture
def checkpoint(tmp_path):
    file = tmp_path / "Model-CSV.pt"
    save(file, csv_network(), name="Model-CSV")
    return file


@pytest.mark.parametrize("model", [
    csv_network(), build_images(TWO, recipe="resnet", pool="visit", normalise="image"), ImageNetwork({}, CPU),
    CSVNetwork({}, CPU),
])
def test_a_checkpoint_comes_back_as_it_was_saved(tmp_path, model):
    file = tmp_path / "模型.pt"
    save(file, model, name="x", number=3)
    found = load_checkpoint(file)
    assert found.kind == model.kind
    assert found.values["number"] == 3
    back = load_model(file, CPU, unit=model.unit)
    assert type(back) is type(model)
    assert back.specification == model.specification and back.describe() == model.describe()
    assert back.means == model.means
    for name, value in model.state_dict().items():
        torch.testing.assert_close(back.state_dict()[name], value, rtol=0, atol=0)


def test_it_holds_tensors_and_plain_values_only_and_any_tool_can_open_it(checkpoint):
    content = torch.load(checkpoint, weights_only=True)
    assert content["specification"]["means"] == {"final": {"CST": 300.5}}
    assert (content["kind"], content["format"]) == ("CSVNetwork", FORMAT)
    assert zipfile.ZipFile(checkpoint).testzip() is None


def test_flipped_bits_are_refused(checkpoint):
    data = bytearray(checkpoint.read_bytes())
    numbers = random.Random(0)
    for _ in range(60):
        place, bit = numbers.randrange(len(data)), 1 << numbers.randrange(8)
        data[place] ^= bit
        checkpoint.write_bytes(data)
        with pytest.raises(PipelineError, match="Model-CSV.pt is"):
            load_checkpoint(checkpoint)
        data[place] ^= bit
    checkpoint.write_bytes(data)
    load_checkpoint(checkpoint)


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.99, 0.9999])
def test_cut_files_are_refused(checkpoint, share):
    data = checkpoint.read_bytes()
    checkpoint.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(PipelineError, match="damaged"):
        load_checkpoint(checkpoint)


def test_weights_changed_inside_a_whole_archive_are_refused(checkpoint):
    content = torch.load(checkpoint, weights_only=True)
    content["state"]["layers.0.bias"][0] += 1
    torch.save(content, checkpoint)
    with pytest.raises(PipelineError, match="does not match its SHA-256"):
        load_checkpoint(checkpoint)


def malicious(kind, target):
    """The bytes of a file that makes a folder when it is loaded without care."""
    payload = Payload(target)
    if kind == "plain pickle":
        return pickle.dumps(payload)
    if kind == "torch archive":
        buffer = io.BytesIO()
        torch.save({"format": FORMAT, "kind": "CSVNetwork", "specification": {}, "state": payload}, buffer)
        return buffer.getvalue()
    if kind == "inside a module":
        module = CSVModule()
        module.extra = payload
        buffer = io.BytesIO()
        torch.save(module, buffer)
        return buffer.getvalue()
    buffer = io.BytesIO()
    torch.save(payload, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["plain pickle", "torch archive", "inside a module", "legacy torch file"])
def test_code_in_a_checkpoint_is_never_run(tmp_path, kind):
    file, target = tmp_path / "evil.pt", tmp_path / "side effect"
    file.write_bytes(malicious(kind, target))
    with warnings.catch_warnings(), pytest.raises(PipelineError, match="is no checkpoint"):
        warnings.simplefilter("error")
        load_checkpoint(file)
    assert not target.exists()
    with contextlib.suppress(RuntimeError):     # the file does what it should: loaded freely, its code runs
        torch.load(file, weights_only=False)
    assert target.exists()


def write_sealed(file, content):
    """A file as save_checkpoint would write it, of any content."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    file.write_bytes(checkpoint_module._seal(buffer.getvalue()))


def test_a_checkpoint_of_an_earlier_version_is_told_apart_from_a_damaged_one(tmp_path):
    old = {"format": 1, "kind": "CSVModule", "settings": {"recipe": "fixed"}, "state": CSVModule().state_dict()}
    file = tmp_path / "old.pt"
    write_sealed(file, old)
    with pytest.raises(PipelineError, match="old.pt was made by another version of this program. Train the model aga"):
        load_checkpoint(file)
    torch.save(old, file)                       # without its seal nobody knows
    with pytest.raises(PipelineError, match="does not match its SHA-256"):
        load_checkpoint(file)


def test_what_answers_for_something_else_is_refused_by_name(checkpoint, tmp_path):
    with pytest.raises(PipelineError, match="holds a CSVNetwork, which answers for eyes; a model for images is needed"):
        load_model(checkpoint, CPU, unit="images")
    save(tmp_path / "image.pt", build_images())
    with pytest.raises(PipelineError, match="holds a ImageNetwork, which answers for images; a model for eyes"):
        load_model(tmp_path / "image.pt", CPU, unit="eyes")


def test_weights_that_do_not_fit_are_refused_by_what_the_model_is(checkpoint, tmp_path):
    with pytest.raises(PipelineError, match="start.pt holds the weights of CSVNetwork; those of ImageNetwork are"):
        load_weights_of(load_checkpoint(checkpoint), build_images(), "start.pt")
    save(tmp_path / "two.pt", build_images(TWO))
    with pytest.raises(PipelineError, match="two.pt does not fit ImageNetwork of bscan, backbone plain, .*: "):
        load_weights_of(load_checkpoint(tmp_path / "two.pt"), build_images(), "two.pt")


@pytest.mark.parametrize("content", [{"weights": torch.zeros(2)}, torch.zeros(2), [1, 2]])
def test_another_programs_checkpoint_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(PipelineError, match="is no checkpoint of this program"):
        load_checkpoint(tmp_path / "other.pt")


def test_what_is_no_file_is_refused(tmp_path):
    for path in (tmp_path, tmp_path / "absent.pt"):
        with pytest.raises(PipelineError, match="cannot be read"):
            load_checkpoint(path)


def test_a_module_without_insides_is_refused(tmp_path):
    torch.save(CSVModule.__new__(CSVModule), tmp_path / "hollow.pt")
    with pytest.raises(PipelineError, match="hollow.pt is no checkpoint"):
        load_checkpoint(tmp_path / "hollow.pt")


class Future:
    """A model that today's program does not know, or cannot build."""

    def __init__(self, kind, specification):
        self.kind, self.specification = kind, specification


@pytest.mark.parametrize(("kind", "specification"), [
    ("TransformerNetwork", {}), ("ImageNetwork", {"backbone": "future"}), ("ImageNetwork", {"pool": "future"}),
    ("ImageNetwork", {"future": 1}), ("ImageNetwork", {"views": {"bscan": {"top": 1}}}), ("ImageNetwork", {"views": 3}),
    ("CSVNetwork", {"future": 1}), ("CSVTrees", {}),
])
def test_what_this_version_cannot_build_is_refused_in_words(tmp_path, kind, specification):
    file = tmp_path / "future.pt"
    save_checkpoint(file, Future(kind, specification), CSVModule().state_dict())
    with pytest.raises(PipelineError, match=f"future.pt cannot be built by this version of the program: {kind}, "):
        load_model(file, CPU, unit="eyes" if kind.startswith("CSV") else "images")


@pytest.mark.parametrize("content", [{"kind": ["CSVNetwork"]}, {"specification": 3}, {"state": [1, 2]},
                                     {"state": {"layers.0.bias": 3}}])
def test_a_sealed_file_of_a_strange_make_is_no_checkpoint(tmp_path, content):
    file = tmp_path / "strange.pt"
    write_sealed(file, {"format": FORMAT, "kind": "CSVNetwork", "specification": {}, "state": {}} | content)
    with pytest.raises(PipelineError, match="strange.pt is no checkpoint of this program"):
        load_model(file, CPU, unit="eyes")


def test_weights_that_are_no_numbers_are_refused(tmp_path):
    model = csv_network()
    torch.nn.init.constant_(model.module.layers[2].bias, torch.nan)
    save(tmp_path / "nan.pt", model)
    with pytest.raises(PipelineError, match="weights that are no finite numbers .layers.2.bias"):
        load_checkpoint(tmp_path / "nan.pt")


def test_a_module_that_was_pickled_whole_is_loaded_as_the_2021_systems_were(tmp_path):
    module, file = CSVModule(), tmp_path / "published.pt"
    torch.save(module, file)
    found = load_checkpoint(file)
    assert (found.kind, found.specification, found.values) == ("CSVNetwork", {}, {})
    for name, value in module.state_dict().items():
        assert torch.equal(found.state[name], value)


def test_a_checkpoint_is_not_said_to_be_damaged_for_want_of_memory(tmp_path, monkeypatch):
    model = CSVNetwork({}, CPU)
    save_checkpoint(tmp_path / "model.pt", model, model.state_dict())
    shortage = RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes.")
    monkeypatch.setattr(CSVNetwork, "load_state_dict", mock.Mock(side_effect=shortage))
    with pytest.raises(RuntimeError, match="not enough memory"):
        load_model(tmp_path / "model.pt", CPU)
    monkeypatch.setattr(torch, "load", mock.Mock(side_effect=MemoryError))
    with pytest.raises(MemoryError):
        load_model(tmp_path / "model.pt", CPU)
