"""Checkpoints: flipped bits, cut files, files of another kind, and files that hold code."""

import builtins
import contextlib
import functools
import importlib
import io
import os
import pickle
import random
import runpy
import subprocess
import sys
import time
import timeit
import warnings
import zipfile
from dataclasses import replace
from pathlib import Path
from unittest import mock

import torch

from config import Paths, View
from model.csv_model import CSVNetwork
from model.image_model import ImageNetwork
from model.module import CSVModule, ImageModule
from model.runs import find_checkpoint
from model.specification import ImageSpecification
from model.training import _load_start
from model_config import CSV_MODEL, IMAGE_MODELS
from processing.errors import PipelineError
from processing.files import write_json
from tests.faults import Figure, scaled
from tests.helpers import load_module, save_module

FLIPS, CUTS = 500, 200
CPU = torch.device("cpu")
FIXED = {"heads": "logits"}
SMALL_CROP = {"bscan": View(0, 300, 0, 300)}
WAIT_FOR_PROCESS_S = 5
SCRIPT = "script_of_a_payload"


# ---- Damage

def damaged_files(share, folder):
    """Single bits flipped, and files cut anywhere, of a checkpoint of either kind with Adam's state in it."""
    numbers = random.Random(0)
    files = [(folder / f"{kind.__name__}.pt", kind.__name__) for kind in (CSVModule, ImageModule)]
    for (file, _), kind in zip(files, (CSVModule, ImageModule), strict=True):
        _save_trained(file, kind())
    flips, cuts, refused, loaded = scaled(FLIPS, share), scaled(CUTS, share), 0, 0
    for case in range(flips + cuts):
        file, kind = files[case % 2]
        whole = file.read_bytes()
        file.write_bytes(_flip(whole, numbers) if case < flips else whole[: numbers.randrange(len(whole))])
        told = _refusal(lambda file=file, kind=kind: load_module(file, kind))
        loaded += told is None
        refused += told is not None and _is_sentence(told) and str(file) in told
        file.write_bytes(whole)
        load_module(file, kind) if case % 50 == 0 else None
    return Figure(f"{flips} flipped bits and {cuts} cut checkpoints refused in one sentence", flips + cuts, refused,
                  f"{loaded} loaded")


def _save_trained(file, module):
    """A checkpoint as a run writes it."""
    torch.manual_seed(0)
    optimizer = torch.optim.Adam(module.parameters())
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    save_module(file, module, optimizer=optimizer.state_dict(), random={"torch": torch.get_rng_state()}, epoch=3)


def _flip(data, numbers):
    changed = bytearray(data)
    changed[numbers.randrange(len(data))] ^= 1 << numbers.randrange(8)
    return bytes(changed)


def _refusal(load):
    """What the PipelineError says, or None where there is none."""
    try:
        load()
    except PipelineError as error:
        return str(error)
    return None


def _is_sentence(told):
    """One line, of a length that a person reads."""
    return "\n" not in told and len(told) < 600 and "Traceback" not in told


# ---- What is no checkpoint for this model

def wrong_files(share, folder):
    """Files of another kind where a checkpoint should be, met as a user meets them."""
    failures, cases = [], 0
    names = list(_WRONG)[:: 1 if share == 1 else 3]
    for number, name in enumerate(names):
        make, words = _WRONG[name]
        for door, told in _try_doors(Paths(folder / str(number)), make).items():
            cases += 1
            said = told is not None and words in told and _is_sentence(told) and str(folder) in told
            if not said or (door == "start" and "Runs of " not in told):
                failures.append(f"{name} ({door}): {told}")
    return Figure("files that are no checkpoint of this model refused in words", cases, cases - len(failures),
                  "; ".join(failures[:4]) or f"{len(names)} kinds")


def _try_doors(paths, make):
    """What is said of a file as newest run, named file, named folder and start (--init-from), by these words."""
    file = _put_in_run(paths, make)
    doors = {"start": lambda: _start(paths, file)}
    if CSV_MODEL.name == file.stem:
        for door, chosen in {"newest": None, "file": file, "run folder": file.parent}.items():
            doors[door] = lambda chosen=chosen: load_module(
                find_checkpoint(paths, CSV_MODEL.name, chosen), "CSVModule")
    return {door: _quote_refusal(load) for door, load in doors.items()}


def _quote_refusal(load):
    try:
        return _refusal(load)
    except Exception as error:
        return f"raises {error!r}"


def _put_in_run(paths, make):
    """A finished run whose checkpoint `make` writes; the model it is of decides the folder."""
    name = IMAGE_MODELS[0].name if make in _IMAGE_MAKERS else CSV_MODEL.name
    run = paths.ckpt / name / "202101010000"
    write_json(run / "run.json", {"state": "finished"})
    file = run / f"{name}.pt"
    make(file)
    return file


def _start(paths, file):
    """Take the file as a start (--init-from)."""
    image = file.stem == IMAGE_MODELS[0].name
    config = replace(IMAGE_MODELS[0] if image else CSV_MODEL, init_from=str(file), recipe="fixed")
    _load_start(paths, (ImageNetwork if image else CSVNetwork)(FIXED, CPU), config, unfinished=False)


def _save_other_recipe(file):
    save_module(file, ImageModule(ImageSpecification(backbone="residual", **FIXED)))


def _save_other_crop(file):
    save_module(file, ImageModule(ImageSpecification(views=SMALL_CROP, **FIXED)))


def _save_csv(file):
    save_module(file, CSVModule())


def _save_not_finite(value):
    def save(file):
        module = CSVModule()
        with torch.no_grad():
            module.layers[0].weight[0, 0] = value
        save_module(file, module)

    return save


def _save_content(**changes):
    """A sealed checkpoint with other content than save_checkpoint gives; None takes a field away."""
    def save(file):
        module = CSVModule()
        content = {"format": 2, "kind": "CSVNetwork", "specification": {}, "state": module.state_dict()}
        content = {name: value for name, value in (content | changes).items() if value is not None}
        with mock.patch("model.checkpoint.torch.save", lambda _, buffer, save=torch.save: save(content, buffer)):
            save_module(file, module)

    return save


def _save_bytes(data):
    return lambda file: file.write_bytes(data)


def _save_zip(**entries):
    def save(file):
        with zipfile.ZipFile(file, "w") as archive:
            for name, data in entries.items():
                archive.writestr(name, data)

    return save


def _save_zip_without_data(file):
    """A torch archive from which the tensors' bytes are taken."""
    buffer = io.BytesIO()
    torch.save(CSVModule().state_dict(), buffer)
    with zipfile.ZipFile(buffer) as whole, zipfile.ZipFile(file, "w") as archive:
        for name in whole.namelist():
            if "/data/" not in name:
                archive.writestr(name, whole.read(name))


def _save_truncated_zip(file):
    torch.save(CSVModule().state_dict(), file)
    data = file.read_bytes()
    file.write_bytes(data[: len(data) * 2 // 3])


def _save_module_with(**attributes):
    """A module pickled whole, as published checkpoints are, with other attributes than a module has."""
    def save(file):
        module = CSVModule()
        module.__dict__.update(attributes)
        torch.save(module, file)

    return save


def _save_endless_module(file):
    module = CSVModule()
    module._modules["again"] = module
    torch.save(module, file)


NONE = "is no checkpoint"
# A name -> (function that writes the file, words that the refusal holds)
_WRONG = {
    "wrong kind": (lambda file: save_module(file, ImageModule()), "ImageNetwork"),
    "empty": (_save_bytes(b""), NONE),
    "folder": (lambda file: file.mkdir(), "Model-CSV"),
    "text": (_save_bytes(b"epoch,loss\n1,0.5\n"), NONE),
    "huge text": (_save_bytes("重 weights\n".encode() * 2_000_000), NONE),
    "zeros": (_save_bytes(bytes(100_000)), NONE),
    "random bytes": (_save_bytes(random.Random(0).randbytes(100_000)), NONE),
    "foreign pickle": (_save_bytes(pickle.dumps({"path": Path("/"), "date": time.localtime()})), NONE),
    "pickle of numbers": (_save_bytes(pickle.dumps([1, 2, 3])), NONE),
    "NaN weights": (_save_not_finite(float("nan")), "no finite numbers (layers.0.weight)"),
    "infinite weights": (_save_not_finite(float("inf")), "no finite numbers (layers.0.weight)"),
    "another program's dict": (lambda file: torch.save({"model": CSVModule().state_dict(), "epoch": 3}, file), NONE),
    "a tensor": (lambda file: torch.save(torch.zeros(3), file), NONE),
    "not sealed": (lambda file: torch.save({"format": 1, "kind": "CSVModule", "state": {}}, file), "does not match"),
    "a later format": (_save_content(format=3), "made by another version"),
    "truncated zip": (_save_truncated_zip, NONE),
    "zip without data": (_save_zip_without_data, NONE),
    "zip of a text": (_save_zip(readme="hello"), NONE),
    "empty zip": (_save_zip(), NONE),
    "no kind": (_save_content(kind=None), "Model-CSV.pt"),
    "no specification": (_save_content(specification=None), "Model-CSV.pt"),
    "specification of another type": (_save_content(specification=[1]), "Model-CSV.pt"),
    "unknown specification": (_save_content(specification={"future": 1}), "cannot be built"),
    "weights of another type": (_save_content(state=[1, 2]), "Model-CSV.pt"),
    "weights that are words": (_save_content(state=dict.fromkeys(CSVModule().state_dict(), "one")), "Model-CSV.pt"),
    "a weight less": (_save_content(state=dict(list(CSVModule().state_dict().items())[1:])), "does not fit"),
    "module without insides": (lambda file: torch.save(CSVModule.__new__(CSVModule), file), NONE),
    "module with another state_dict": (_save_module_with(state_dict=set), "Model-CSV.pt"),
    "module that holds itself": (_save_endless_module, "Model-CSV.pt"),
    "another recipe's layers": (_save_other_recipe, "does not fit ImageNetwork"),
    "another crop size": (_save_other_crop, "does not fit ImageNetwork"),
    "the other kind for images": (_save_csv, "those of ImageNetwork are needed"),
}
_IMAGE_MAKERS = (_save_other_recipe, _save_other_crop, _save_csv)       # where an image model's should be


# ---- Code

class _Call:
    """Is pickled as the call of a function; may stand for the function of another."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __call__(self):
        raise NotImplementedError("it only stands for what its pickle gives")

    def __reduce__(self):
        return self.function, self.arguments


def _in_torch_file(content, **options):
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def _in_checkpoint(payload):
    """A sealed checkpoint as this program writes it, with the payload in Adam's state."""
    buffer = io.BytesIO()
    with mock.patch("model.checkpoint.write_bytes", lambda _, data: buffer.write(data)):
        save_module(None, CSVModule(), optimizer={"state": {0: payload}, "param_groups": []})
    return buffer.getvalue()


def _in_module(**attributes):
    module = CSVModule()
    module.__dict__.update(attributes)
    return _in_torch_file(module)


def _in_zip(payload):
    """A torch archive made by hand."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in {"data.pkl": payload, "version": b"3\n", "byteorder": b"little"}.items():
            archive.writestr(f"archive/{name}", data)
    return buffer.getvalue()


def _pickles(marker):
    """dict of a name -> a pickle that makes the file `marker` when it is loaded without care."""
    touch, python = f"touch '{marker}'", f"open({str(marker)!r}, 'w').close()"
    script = marker.parent / f"{SCRIPT}.py"
    script.write_text(python, encoding="utf-8")
    text = touch.encode()
    chain = _Call(_Call(getattr, _Call(importlib.import_module, "os"), "mkdir"), str(marker))
    return {
        "os.system": pickle.dumps(_Call(os.system, touch)),
        "eval": pickle.dumps(_Call(builtins.eval, python)),
        "exec": pickle.dumps(_Call(builtins.exec, python)),
        "subprocess.Popen": pickle.dumps(_Call(subprocess.Popen, ["touch", str(marker)])),
        "timeit": pickle.dumps(_Call(timeit.timeit, python, "pass", time.perf_counter, 1)),
        "runpy.run_path": pickle.dumps(_Call(runpy.run_path, str(script))),
        "import_module": pickle.dumps(_Call(importlib.import_module, SCRIPT)),
        "partial": pickle.dumps(_Call(functools.partial(os.mkdir, str(marker)))),
        "chain of getattr": pickle.dumps(chain),
        "protocol 0, posix.system": b"cposix\nsystem\n(S" + repr(touch).encode() + b"\ntR.",
        "protocol 0, INST": b"(S" + repr(touch).encode() + b"\niposix\nsystem\n.",
        "OBJ": b"\x80\x02(cposix\nsystem\nX" + len(text).to_bytes(4, "little") + text + b"o.",
    }


def _torch_files(marker):
    """dict of a name -> a torch file that makes the folder `marker` when it is loaded, or used, without care."""
    make = _Call(os.mkdir, str(marker))
    function = functools.partial(os.mkdir, str(marker))
    weights = {"format": 2, "kind": "CSVNetwork", "specification": {}, "state": {"layers.0.weight": make}}
    return {
        "archive": _in_torch_file(make),
        "weight of a state dict": _in_torch_file(weights),
        "Adam's state of a sealed checkpoint": _in_checkpoint(make),
        "in a list of a dict": _in_torch_file({"state": [1, (2, make)]}),
        "attribute of a module": _in_module(extra=make),
        "method of a module": _in_module(state_dict=function),
        "legacy file": _in_torch_file(make, _use_new_zipfile_serialization=False),
        "archive made by hand": _in_zip(pickle.dumps(make, protocol=2)),
        "archive made by hand, protocol 0": _in_zip(b"cposix\nmkdir\n(S" + repr(str(marker)).encode() + b"\ntR."),
        "torch's own loader": _in_torch_file(_Call(torch.storage._load_from_bytes, _in_torch_file(make))),
    }


def malicious_files(share, folder):
    """Code in a checkpoint: refused, and not run; loaded without care, it does run."""
    marker, file = folder.resolve() / "marker", folder / "Model-CSV.pt"
    loaders = [(_pickles(marker), pickle.loads), (_torch_files(marker), _load_by_torch)]
    cases = [(name, data, load) for files, load in loaders for name, data in files.items()]
    cases = cases[:: 1 if share == 1 else 4]
    failures = []
    for name, data, load in cases:
        file.write_bytes(data)
        with mock.patch.object(sys, "path", [str(marker.parent), *sys.path]):
            refused = [_quote_refusal(lambda kind=kind: load_module(file, kind))
                       for kind in ("CSVModule", "ImageModule")]
            ran = _appears(marker, 0.2 if "Popen" in name else 0)
            _remove(marker)
            with contextlib.suppress(Exception):
                load(data)
            works = _appears(marker, WAIT_FOR_PROCESS_S)
            _remove(marker)
        sys.modules.pop(SCRIPT, None)
        if ran or not works or not all(told and told.startswith(str(file)) for told in refused):
            failures.append(f"{name}: {refused}; ran: {ran}; runs without care: {works}")
    return Figure("malicious pickles of different kinds refused, nothing run", len(cases), len(cases) - len(failures),
                  "; ".join(failures[:3]) or "each does run when it is loaded without care")


def _load_by_torch(data):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.load(io.BytesIO(data), weights_only=False).state_dict()


def _appears(marker, seconds):
    """Whether the marker is there, or comes within some time (another process makes it)."""
    end = time.monotonic() + seconds
    while not marker.exists() and time.monotonic() < end:
        time.sleep(0.01)
    return marker.exists()


def _remove(marker):
    if marker.is_dir():
        marker.rmdir()
    else:
        marker.unlink(missing_ok=True)


FIGURES = [damaged_files, wrong_files, malicious_files]
