import contextlib
import io
import os
import pickle
import random
import warnings
import zipfile

import pytest
import torch

from model.checkpoint import load_checkpoint, save_checkpoint
from model.module import CSVModule, ImageModule
from processing.errors import PipelineError


class Payload:
    """Makes a file when it is unpickled freely."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return os.mkdir, (str(self.file),)


@pytest.fixture
def checkpoint(tmp_path):
    file = tmp_path / "Model-CSV.pt"
    torch.manual_seed(0)
    save_checkpoint(file, CSVModule("fixed"), name="Model-CSV", training_means={"final": {"CST": 300.5}})
    return file


@pytest.mark.parametrize("module", [CSVModule("fixed"), ImageModule("resnet", (64, 96)), ImageModule("seed")])
def test_a_checkpoint_comes_back_as_it_was_saved(tmp_path, module):
    file = tmp_path / "模型.pt"
    save_checkpoint(file, module, name="x", number=3)
    back, values = load_checkpoint(file, type(module).__name__)
    assert back.recipe == module.recipe
    assert not back.training
    assert values["number"] == 3
    for name, value in module.state_dict().items():
        torch.testing.assert_close(back.state_dict()[name], value, rtol=0, atol=0)


def test_it_holds_tensors_and_plain_values_only_and_any_tool_can_open_it(checkpoint):
    content = torch.load(checkpoint, weights_only=True)
    assert content["training_means"] == {"final": {"CST": 300.5}}
    assert zipfile.ZipFile(checkpoint).testzip() is None


def test_flipped_bits_are_refused(checkpoint):
    data = bytearray(checkpoint.read_bytes())
    numbers = random.Random(0)
    for _ in range(60):
        place, bit = numbers.randrange(len(data)), 1 << numbers.randrange(8)
        data[place] ^= bit
        checkpoint.write_bytes(data)
        with pytest.raises(PipelineError, match="Model-CSV.pt is"):
            load_checkpoint(checkpoint, "CSVModule")
        data[place] ^= bit
    checkpoint.write_bytes(data)
    load_checkpoint(checkpoint, "CSVModule")


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.99, 0.9999])
def test_cut_files_are_refused(checkpoint, share):
    data = checkpoint.read_bytes()
    checkpoint.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(PipelineError, match="damaged"):
        load_checkpoint(checkpoint, "CSVModule")


def test_weights_changed_inside_a_whole_archive_are_refused(checkpoint):
    content = torch.load(checkpoint, weights_only=True)
    content["state"]["layers.0.bias"][0] += 1
    torch.save(content, checkpoint)
    with pytest.raises(PipelineError, match="does not match its SHA-256"):
        load_checkpoint(checkpoint, "CSVModule")


def malicious(kind, target):
    """The bytes of a file that makes a folder when it is loaded without care."""
    payload = Payload(target)
    if kind == "plain pickle":
        return pickle.dumps(payload)
    if kind == "torch archive":
        buffer = io.BytesIO()
        torch.save({"format": 1, "kind": "CSVModule", "state": payload}, buffer)
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
        load_checkpoint(file, "CSVModule")
    assert not target.exists()
    with contextlib.suppress(RuntimeError):     # the file does what it should: loaded freely, its code runs
        torch.load(file, weights_only=False)
    assert target.exists()


def test_the_wrong_kind_is_refused_by_name(checkpoint):
    with pytest.raises(PipelineError, match="holds the weights of CSVModule; those of ImageModule are needed"):
        load_checkpoint(checkpoint, "ImageModule")


@pytest.mark.parametrize("content", [{"weights": torch.zeros(2)}, torch.zeros(2), [1, 2]])
def test_another_programs_checkpoint_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(PipelineError, match="is no checkpoint of this program"):
        load_checkpoint(tmp_path / "other.pt", "CSVModule")


def test_what_is_no_file_is_refused(tmp_path):
    for path in (tmp_path, tmp_path / "absent.pt"):
        with pytest.raises(PipelineError, match="cannot be read"):
            load_checkpoint(path, "CSVModule")


def test_a_module_without_insides_and_an_unknown_recipe_are_refused(tmp_path, monkeypatch):
    torch.save(CSVModule.__new__(CSVModule), tmp_path / "hollow.pt")
    with pytest.raises(PipelineError, match="hollow.pt is no checkpoint"):
        load_checkpoint(tmp_path / "hollow.pt", "CSVModule")
    module = CSVModule()
    module.recipe = "future"
    save_checkpoint(tmp_path / "future.pt", module)
    with pytest.raises(PipelineError, match="cannot be built by this version of the program: .*future"):
        load_checkpoint(tmp_path / "future.pt", "CSVModule")


def test_weights_that_are_no_numbers_are_refused(tmp_path):
    module = CSVModule()
    torch.nn.init.constant_(module.layers[2].bias, torch.nan)
    save_checkpoint(tmp_path / "nan.pt", module)
    with pytest.raises(PipelineError, match="weights that are no finite numbers .layers.2.bias"):
        load_checkpoint(tmp_path / "nan.pt", "CSVModule")
