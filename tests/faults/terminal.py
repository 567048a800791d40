"""Ctrl-C in a real pseudo-terminal, at ten moments of each stage.

Status 130 within ten seconds, no traceback, the terminal as it was, every file whole, and the stage runs again.
(Windows has no such terminal; there is nothing to count there.)
"""

import contextlib
import csv
import dataclasses
import io
import json
import os
import select
import shutil
import struct
import subprocess
import sys
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import cv2
import numpy as np

import config
import model_config
from data.predict import predict_all, predict_before_after
from processing.data_factory import processing_data
from processing.demo import DemoSize, write_demo
from processing.errors import PipelineError
from processing.importer import import_data
from tests.faults import Figure, scaled
from tests.helpers import REPOSITORY, load_module, train_csv, train_csv_and_image, train_image

MOMENTS = 10
AT_ONCE = 2                 # pseudo-terminals
ENDS_WITHIN_S = 10
BEGINS_S, ENDS_SHARE = 0.4, 0.95    # the first moment: Python itself has started; the last: of the stage's length
TINY = DemoSize(2, 2, 2, 2, images=1)
CSV_MODEL = dataclasses.replace(model_config.CSV_MODEL, epochs=2)
IMAGE_MODELS = [dataclasses.replace(model, epochs=1, batch_size=8) for model in model_config.IMAGE_MODELS]

# Becomes main.py, with the pseudo-terminal as its own; the demonstration's models are trained shortly
BEGIN = (
    "import fcntl, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    f"sys.path.insert(0, {str(REPOSITORY)!r}); import dataclasses, main, model_config as m; "
    "m.DEMO_CSV_MODEL = dataclasses.replace(m.DEMO_CSV_MODEL, epochs=20); "
    "m.DEMO_IMAGE_MODELS[:] = [dataclasses.replace(model, epochs=1) for model in m.DEMO_IMAGE_MODELS]; "
    "sys.exit(main.main())"
)


class Stage(NamedTuple):
    """A stage as it is typed, what it starts from, and the same once more in this process."""

    words: str
    start: str              # "nothing", "source", "processed" or "trained"
    again: object           # function of config.Paths


STAGES = (
    Stage("import_data {download} --yes", "nothing", lambda paths: _import(paths)),
    Stage("0", "source", processing_data),
    Stage("2 --epochs 100", "processed", lambda paths: train_csv(paths, CSV_MODEL)),
    Stage("4", "trained", predict_before_after),
    Stage("5", "trained", predict_all),
    Stage("1 --epochs 1 --batch-size 2", "processed", lambda paths: train_image(paths, IMAGE_MODELS)),
    Stage("3 --csv-epochs 30 --image-epochs 1 --batch-size 2", "processed",
          lambda paths: train_csv_and_image(paths, CSV_MODEL, IMAGE_MODELS)),
    Stage("demo --size smallest", "nothing", lambda paths: _demonstrate(paths)),
)


def interrupted(share, folder):
    """Ctrl-C at ten moments of each stage."""
    cases = [(stage, moment) for moment in range(MOMENTS) for stage in STAGES]
    cases = cases[: scaled(len(cases), share)]
    starts = _Starts(folder)
    lengths = {}
    for stage, _ in cases:
        if stage.words not in lengths:
            lengths[stage.words] = _measure(stage, starts)
    wrong = []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        jobs = [(stage, *_later(pool, stage, moment, lengths[stage.words], starts)) for stage, moment in cases]
        for stage, paths, at, job in jobs:
            reason = job.result() or _complain_of_files(paths) or _run_again(stage, paths)
            wrong += [f"main.py {stage.words}, Ctrl-C after {at:.2f} s: {reason}"] if reason else []
            shutil.rmtree(paths.root)
    detail = "; ".join(wrong[:8])
    return Figure(f"Ctrl-C in {len(lengths)} stages", len(cases), len(cases) - len(wrong), detail)


FIGURES = [interrupted] if os.name == "posix" else []


class _Starts:
    """Roots to start from, made when first wanted; `copy` gives one of one's own."""

    def __init__(self, folder):
        self.folder, self._count = folder, 0

    def copy(self, name):
        """config.Paths of a fresh copy."""
        self._count += 1
        target = self.folder / f"{self._count} 根"
        shutil.copytree(self.make(name), target)
        return config.Paths(target)

    def make(self, name):
        """The folder that a start lies in."""
        folder = self.folder / name
        if folder.exists():
            return folder
        made = config.Paths(folder)
        if name == "nothing":
            folder.mkdir()
        elif name == "source":
            with _quietly():
                write_demo(made, TINY)
        else:
            shutil.copytree(self.make("source" if name == "processed" else "processed"), folder)
            with _quietly():
                processing_data(made) if name == "processed" else train_csv_and_image(made, CSV_MODEL, IMAGE_MODELS)
        return folder


@contextlib.contextmanager
def _quietly():
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def _measure(stage, starts):
    """Seconds that a stage takes in a pseudo-terminal."""
    paths = starts.copy(stage.start)
    starts.make("source")
    screen = _Screen(stage, paths)
    began = time.monotonic()
    screen.read_for(600)
    length = time.monotonic() - began
    assert screen.close() == 0, screen.text
    shutil.rmtree(paths.root)
    return length


def _later(pool, stage, moment, length, starts):
    """Paths, the moment in seconds, and what will have gone wrong."""
    paths = starts.copy(stage.start)
    at = BEGINS_S + (max(length * ENDS_SHARE, BEGINS_S + 0.1) - BEGINS_S) * moment / (MOMENTS - 1)
    return paths, at, pool.submit(_interrupt, stage, paths, at)


def _interrupt(stage, paths, at):
    """Run a stage, type Ctrl-C after `at` seconds; what went wrong with its end or the terminal, or nothing."""
    screen = _Screen(stage, paths)
    over = screen.read_for(at)
    if not over:
        screen.type("\x03")
        if not screen.read_for(ENDS_WITHIN_S):
            screen.close()
            return f"it did not end within {ENDS_WITHIN_S} s: {screen.text[-300:]}"
    altered = screen.is_altered()
    status = screen.close()
    if status not in ((0,) if over else (130, -2)):     # -2: Python was ending already; a shell says 130 of both
        return f"status {status}: {screen.text[-300:]}"
    if "Traceback" in screen.text or "Exception ignored" in screen.text or "Unexpected" in screen.text:
        return f"on the screen: {screen.text[-600:]}"
    return "the terminal is not as it was" if altered else ""


class _Screen:
    """A stage in a pseudo-terminal."""

    def __init__(self, stage, paths):
        import fcntl
        import pty
        import termios

        words = [word.format(download=paths.root.parent / "source/data/source") for word in stage.words.split()]
        self._master, self._slave = pty.openpty()
        fcntl.ioctl(self._slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 120, 0, 0))     # rows, columns
        self._before = termios.tcgetattr(self._slave)
        self._process = subprocess.Popen(
            [sys.executable, "-c", BEGIN, *words], stdin=self._slave, stdout=self._slave, stderr=self._slave,
            cwd=paths.root, env=os.environ | {"APTOS_ROOT": str(paths.root), "TERM": "xterm"}, start_new_session=True,
        )
        self._shown = b""

    @property
    def text(self):
        """All that was shown."""
        return self._shown.decode(errors="replace")

    def type(self, text):
        """Type into it."""
        os.write(self._master, text.encode())

    def read_for(self, seconds):
        """Read the screen for so long, or until the program ends. Returns whether it has ended."""
        end = time.monotonic() + seconds
        while self._process.poll() is None and time.monotonic() < end:
            self._read(min(0.05, max(0, end - time.monotonic())))
        while self._read(0):
            pass
        return self._process.poll() is not None

    def _read(self, seconds):
        if not select.select([self._master], [], [], seconds)[0]:
            return False
        self._shown += os.read(self._master, 65536)
        return True

    def is_altered(self):
        """Whether echo, line editing and the like differ, or the cursor is hidden."""
        import termios

        return termios.tcgetattr(self._slave) != self._before or (
            self._shown.rfind(b"\x1b[?25l") > self._shown.rfind(b"\x1b[?25h")
        )

    def close(self):
        """End the program if it is still there. Returns its status."""
        if self._process.poll() is None:
            self._process.kill()
        os.close(self._master)
        os.close(self._slave)
        return self._process.wait()


# ---- What is left on the disk

def _complain_of_files(paths):
    """The first file that is not whole, or nothing."""
    for file in sorted(paths.root.rglob("*")):
        if "tmp" in file.name:
            return f"left behind: {file}"
        check = CHECKS.get(file.suffix)
        try:
            if check and file.is_file() and not check(file):
                return f"{file} is not whole"
        except (ValueError, OSError, csv.Error, zipfile.BadZipFile, PipelineError) as error:
            return f"{file}: {error}"
    for folder in paths.result.glob("*"):
        if len(list(folder.iterdir())) != 5:
            return f"{folder} has not all files"
    return ""


def _is_table(file):
    with open(file, encoding="utf-8-sig", newline="") as lines:
        widths = {len(row) for row in csv.reader(lines, strict=True)}
    return len(widths) == 1 and file.read_bytes().endswith(b"\n")


def _is_record(file):
    record = json.loads(file.read_text(encoding="utf-8"))
    if file.name == "run.json" and record["state"] not in ("stopped", "finished"):
        raise ValueError(f"the run is said to be {record['state']}: {record.get('error')}")
    return True


def _is_checkpoint(file):
    return load_module(file, "CSVModule" if file.stem == "Model-CSV" else "ImageModule")


def _is_picture(file):
    data = file.read_bytes()
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) is not None and (
        data.endswith(b"\xff\xd9") or data.endswith(b"IEND\xaeB`\x82")
    )


def _is_archive(file):
    with zipfile.ZipFile(file) as archive:
        return archive.testzip() is None and len(archive.namelist()) == 3


CHECKS = {
    ".csv": _is_table, ".json": _is_record, ".pt": _is_checkpoint, ".jpg": _is_picture, ".png": _is_picture,
    ".zip": _is_archive,
}


# ---- Once more

def _run_again(stage, paths):
    """The stage once more, in what was left; what went wrong, or nothing."""
    try:
        with _quietly():
            stage.again(paths)
    except Exception as error:
        return f"a second run: {type(error).__name__}: {error}"
    return _complain_of_files(paths)


def _import(paths):
    import_data(paths, [paths.root.parent / "source/data/source"], confirm=lambda _: True)


def _demonstrate(outer):
    paths = config.Paths(outer.root / "demo" / "smallest-2021")
    write_demo(paths, TINY)
    processing_data(paths)
    train_csv_and_image(paths, CSV_MODEL, IMAGE_MODELS)
    predict_before_after(paths)
    predict_all(paths)
