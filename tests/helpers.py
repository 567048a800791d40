"""Small screens, annotation tables, and the program in a process of its own."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np

from config import VIEWS
from processing import tables
from tests import warm

REPOSITORY = warm.REPOSITORY
SMALL_BOXES = {name: view._replace(bottom=view.top + 200, right=view.left + 300) for name, view in VIEWS.items()}


def heed_ctrl_c():
    """Let Ctrl-C end this process and those that it starts, also where `nohup ... &` in a script had it ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def make_screen(height=596, width=1264, seed=0, grey=True):
    """A device screen of noise, uint8 H x W x 3; smooth enough for JPEG."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 1 if grey else 3), np.uint8)
    screen = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.repeat(screen[..., None], 3, axis=2) if grey else screen


def put_screen(file, **kind):
    """Write a screen to `file` and return it as it will be decoded."""
    file.parent.mkdir(parents=True, exist_ok=True)
    data = cv2.imencode(file.suffix, make_screen(**kind))[1]
    file.write_bytes(data.tobytes())
    return cv2.imdecode(data, cv2.IMREAD_COLOR)


def read_filled(file, table):
    """An annotation table with its gaps filled, as option 0 uses it."""
    return tables.fill_missing(tables.read_raw_table(file, table), file)


def run_main(*words, root, typed=None, timeout=300, **environment):
    """Run `python main.py words` in a process of its own, under `root`."""
    return subprocess.run(
        [sys.executable, REPOSITORY / "main.py", *map(str, words)],
        input=typed,
        stdin=subprocess.DEVNULL if typed is None else None,
        capture_output=True,
        encoding="utf-8",
        cwd=root,
        env=_environment(root, environment),
        timeout=timeout,
    )


def run_warm(*words, root, typed="", **environment):
    """`run_main` in a process that has torch already: for tests that are not about how the program starts or ends."""
    return warm.run(REPOSITORY / "main.py", *words, cwd=root, environment=_environment(root, environment), typed=typed)


def run_commands(*commands, root, program=REPOSITORY, typed=""):
    """Run command lines (lists of words) one after another, as `python main.py` would, in one process.

    Its output comes back. It ends at the first that fails, with an AssertionError.
    """
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "commands.py")
        script.write_text(
            f"import main\nfor words in {[list(map(str, words)) for words in commands]!r}:\n"
            "    assert main.main(words) == 0, f'python main.py {words} failed'", encoding="utf-8")
        answer = warm.run(script, cwd=program, program=program, environment=_environment(root, {}), typed=typed)
    assert answer.returncode == 0, answer.stderr + answer.stdout
    return answer.stdout


def _environment(root, changes):
    return os.environ | {"APTOS_ROOT": str(root), "PYTHONIOENCODING": "utf-8"} | changes


def train_image(paths, configs=None, **how):
    """Option 1 on these roots and configs; see model.training.train."""
    import model_config
    from model.training import train

    return train(model_config.IMAGE_MODELS if configs is None else configs, paths, **how)


def train_csv(paths, config=None, **how):
    """Option 2."""
    import model_config

    return train_image(paths, [config or model_config.CSV_MODEL], **how)


def train_csv_and_image(paths, csv_config=None, image_configs=None, **how):
    """Option 3."""
    import model_config

    images = model_config.IMAGE_MODELS if image_configs is None else image_configs
    return train_image(paths, [csv_config or model_config.CSV_MODEL, *images], **how)


def save_module(file, module, **values):
    """A checkpoint of a bare ImageModule or CSVModule, as the model around it writes it."""
    from types import SimpleNamespace

    from model.checkpoint import save_checkpoint

    if hasattr(module, "specification"):
        kind, what = "ImageNetwork", module.specification.to_plain()
    else:
        kind, what = "CSVNetwork", {"heads": module.heads, "features": list(module.features)}
    save_checkpoint(file, SimpleNamespace(kind=kind, specification=what), module.state_dict(), **values)


def load_module(file, kind):
    """The module in a checkpoint file that must hold a "ImageModule" or a "CSVModule"."""
    import torch

    from model.registry import load_model

    return load_model(file, torch.device("cpu"), unit="images" if kind == "ImageModule" else "eyes").module


def damage_history(file, how):
    """What becomes of a table that people open."""
    if how == "spreadsheet":
        file.write_text(file.read_text().replace(",", ";").replace(".", ","), encoding="utf-8-sig")
    elif how == "deleted":
        file.unlink()
    else:
        file.write_text({"emptied": "", "header": "epoch,loss\n", "text": "epoch,loss\n1,much\n"}[how])
