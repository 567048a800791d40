"""Option 12: networks as ONNX files, which run without this program, and pictures of them.

Reads runs (or checkpoints); writes <checkpoint>.onnx, and <checkpoint>.png if asked, beside each or into one folder.
onnx and onnxscript are imported when something is exported: nothing else needs them.
"""

import json
import logging
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from config import PATHS, Paths
from model.diagram import draw_network
from model.module import fold_batch_norm
from model.portable import NotPortable, Portable
from model.registry import Model, load_model
from model.run import read_record
from model.runs import find_checkpoint, read_config_field, resolve_checkpoint
from model_config import CSV_MODEL, IMAGE_MODELS
from processing.errors import PipelineError
from processing.files import write_bytes
from processing.pasted import read_path
from processing.terminal import say

NETWORK = "network."        # the wrapper's name of the network, which heads all names of parameters


def export(paths: Paths = PATHS, runs: list[str] | None = None, *, out: str | Path | None = None,
           pictures: bool = False, unfinished: bool = False) -> list[Path]:
    """Write networks as ONNX files.

    Args:
        paths: config.Paths.
        runs: run folders or checkpoint files as the user named them; none: the newest finished run of each model.
        out: the folder to write to; None: each beside its checkpoint.
        pictures: whether each network is drawn, too.
        unfinished: whether runs that are not finished will do.

    Returns:
        list of the files written.

    Raises:
        PipelineError: nothing could be exported; a run that was named is none; onnx or onnxscript is not installed;
            a file cannot be written.
    """
    if runs:
        files = list(dict.fromkeys(resolve_checkpoint(paths, run, unfinished=unfinished) for run in runs))
    else:
        files = _find_newest(paths, unfinished=unfinished)
    import_exporter()
    written = []
    for file, target in zip(files, _choose_targets(files, out), strict=True):
        try:
            model = load_model(file, torch.device("cpu"))
            portable = model.build_portable()
        except PipelineError as error:
            if runs and not isinstance(error, NotPortable):     # one that was named is wanted; others may be damaged
                raise
            say(f"{file} is left out. {error}")
            continue
        written += _export_one(file, target, model, portable, pictures=pictures)
    if not written:
        raise PipelineError("Nothing was exported.")
    return written


def _export_one(file: Path, target: Path, model: Model, portable: Portable, *, pictures: bool) -> list[Path]:
    """Write a checkpoint's network, and its picture if wanted; returns both files."""
    picture = target.with_suffix(".png")
    content = build_onnx(portable, _gather_facts(file, model, portable))
    try:
        write_bytes(target, content)
        if pictures:
            draw_network(picture, portable, file.stem)
    except PipelineError as error:
        raise PipelineError(f"{error} Name another folder: --out FOLDER.") from error
    say(f"{model.describe()}: {target}" + (f", {picture.name}" if pictures else ""))
    return [target, picture] if pictures else [target]


def _find_newest(paths: Paths, *, unfinished: bool) -> list[Path]:
    """The checkpoint of each model that has a run; says which have none."""
    files, reasons = [], {}
    for name in [*(config.name for config in IMAGE_MODELS), CSV_MODEL.name]:
        try:
            files.append(find_checkpoint(paths, name, unfinished=unfinished))
        except PipelineError as error:
            reasons[name] = error
    if not files:
        raise PipelineError("\n".join(map(str, reasons.values())))
    if reasons:
        say(f"Left out, as there is no finished run: {', '.join(reasons)}.")
    return files


def _choose_targets(files: list[Path], out: str | Path | None) -> list[Path]:
    """Where each checkpoint's network goes; in one folder, those of the same model are told apart by their run."""
    if out is None:
        return [file.with_suffix(".onnx") for file in files]
    count = Counter(file.stem for file in files)
    names = [file.stem if count[file.stem] == 1 else f"{file.stem}-{file.resolve().parent.name}" for file in files]
    if len(set(names)) < len(names):
        raise PipelineError("Two of the checkpoints would get the same name in one folder; export one after the other.")
    return [Path(read_path(str(out))) / f"{name}.onnx" for name in names]


def import_exporter() -> Any:
    """The module onnx; raises PipelineError where it or onnxscript is not installed."""
    try:
        import onnx
        import onnxscript  # noqa: F401 - torch needs it
    except ImportError as error:
        raise PipelineError(f"Networks are written by onnx and onnxscript, and {error.name} is not installed: "
                            "pip install onnx onnxscript") from error
    return onnx


def _gather_facts(file: Path, model: Model, portable: Portable) -> dict[str, Any]:
    """All that is to be known of a network, as plain values by name."""
    folder = file.resolve().parent
    run = {"run": folder.name, "recipe": read_config_field(folder, "recipe", "")} if read_record(folder) else {}
    inputs, outputs = [{port.name: {"axes": list(port.axes), "meaning": port.meaning} for port in ports}
                       for ports in (portable.inputs, portable.outputs)]
    axes = "B images or eyes, V visits: any number"
    return {"model": file.stem, **run, "description": model.describe(), "axes": axes, "inputs": inputs,
            "outputs": outputs, **portable.facts, "specification": model.specification}


def build_onnx(portable: Portable, facts: dict[str, Any]) -> bytes:
    """A network as the content of an ONNX file.

    Args:
        portable: on the CPU.
        facts: for the file's metadata: texts as they are, the rest as JSON.

    Raises:
        PipelineError: onnx or onnxscript is not installed, or too old.
    """
    onnx = import_exporter()
    proto = _trace(portable)
    _name_parts(proto.graph)
    for port, value in zip([*portable.inputs, *portable.outputs], [*proto.graph.input, *proto.graph.output],
                           strict=True):
        value.doc_string = port.meaning
        del value.metadata_props[:]
    proto.graph.name = facts["model"]
    proto.doc_string = proto.graph.doc_string = facts["description"]
    del proto.metadata_props[:]
    onnx.helper.set_model_props(proto, {
        name: fact if isinstance(fact, str) else json.dumps(fact, ensure_ascii=False) for name, fact in facts.items()
    })
    onnx.checker.check_model(proto, full_check=True)
    return proto.SerializeToString()


def _trace(portable: Portable) -> Any:
    """What torch's exporter makes of a network: an onnx.ModelProto; raises PipelineError where it is too old."""
    axes = tuple({place: axis for place, axis in enumerate(port.axes) if isinstance(axis, str)}
                 for port in portable.inputs)
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program: Any = torch.onnx.export(
                fold_batch_norm(portable.module), portable.example, dynamo=True, verbose=False,
                dynamic_shapes=(axes,),
                input_names=[port.name for port in portable.inputs],
                output_names=[port.name for port in portable.outputs],
            )
    except ImportError as error:
        raise PipelineError(f"The installed onnxscript is too old for torch {torch.__version__} ({error}): "
                            "pip install --upgrade onnx onnxscript") from error
    finally:
        logger.setLevel(level)
    return program.model_proto


def _name_parts(graph: Any) -> None:
    """Name nodes and parameters as the module's parts are named, and drop what the exporter noted beside them."""
    ends = {value.name for value in [*graph.input, *graph.output]}
    names = {value.name: value.name.removeprefix(NETWORK) for value in graph.initializer}
    constants = {name for name in names if not name.startswith(NETWORK)}
    counts: Counter[str] = Counter()
    for node in graph.node:
        scopes = next((prop.value for prop in node.metadata_props if prop.key.endswith("name_scopes")), "[]")
        *modules, _operation = json.loads(scopes.replace("'", '"')) or [""]
        part = (modules or [""])[-1].removeprefix(NETWORK)
        place = "" if part in ("network", "") or part.startswith("_") else f"{part}/"
        counts[place + node.op_type] += 1
        times = counts[place + node.op_type]
        node.name = place + node.op_type + (f"_{times}" if times > 1 else "")
        del node.metadata_props[:]
        for number, name in enumerate(node.input):
            if name in constants:
                is_weight = node.op_type == "Conv" and number == 1      # summed up over its channels, for grey images
                names[name] = f"{part}.weight" if is_weight else f"{node.name}:input {number}"
                constants.remove(name)
        for number, name in enumerate(node.output):
            if name and name not in ends:
                names[name] = node.name + (f":output {number}" if number else "")
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for value in [*graph.initializer, *graph.value_info]:
        value.name = names.get(value.name, value.name)
        del value.metadata_props[:]
