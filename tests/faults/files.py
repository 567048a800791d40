"""Files: kill -9 in the middle of saving a checkpoint, and errors at every step of every writer."""

import builtins
import errno
import io
import os
import random
import stat
import time
from collections import Counter
from contextlib import ExitStack, contextmanager, redirect_stdout
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import numpy as np
import pandas as pd
import torch

from config import VIEWS, Paths
from data.submission import Sheet, Submission, write_submission
from model.history import History
from model.module import CSVModule, ImageModule
from model.runs import find_checkpoint
from processing import columns as c
from processing.crop_record import CROP, RECORD_COLUMNS, CropRecord
from processing.crops import crop_all
from processing.errors import PipelineError
from processing.files import write_csv, write_json, write_text
from processing.images import write_image
from processing.plots import draw_crop_preview, plot_log
from processing.views import view_paths
from tests.faults import CLEAN, Figure, scaled
from tests.helpers import load_module, make_screen, put_screen, save_module

TRIALS = 200
LATEST_KILL_S = 0.03


# ---- kill -9

def kill_while_saving(share, folder):
    """A child saves two known states in turn over one checkpoint of a run, and is killed at a random moment."""
    paths, numbers, name = Paths(folder), random.Random(0), "Model-Image-All"
    run = paths.ckpt / name / "202101010000"
    write_json(run / "run.json", {"state": "finished"})
    modules = [_module(ImageModule, seed) for seed in (1, 2)]
    states = [_state_bytes(module) for module in modules]
    file = run / f"{name}.pt"
    save_module(file, modules[0], epoch=1)
    trials, held, torn = scaled(TRIALS, share), 0, 0
    for _ in range(trials):
        _kill_a_saver(file, modules, numbers.uniform(0, LATEST_KILL_S))
        leftovers = [path for path in run.iterdir() if path.name.startswith(".")]
        torn += bool(leftovers)
        held += all(_loads_as_one_of(states, paths, name, chosen) for chosen in (None, file, run))
        for path in leftovers:
            path.unlink()
    detail = f"{trials - held} lost; {torn} were killed with a half-written temporary file beside it"
    return Figure("kill -9 while a checkpoint is saved over the last one", trials, held, detail)


def _module(kind, seed):
    torch.manual_seed(seed)
    return kind()


def _state_bytes(module):
    return {name: value.numpy().tobytes() for name, value in module.state_dict().items()}


def _kill_a_saver(file, modules, delay_s):
    """Let a process save without end; kill it `delay_s` after it began."""
    begun = CLEAN.Event()
    child = CLEAN.Process(target=_save_without_end, args=(file, modules, begun))
    child.start()
    begun.wait()
    time.sleep(delay_s)
    child.kill()
    child.join()


def _save_without_end(file, modules, begun):
    begun.set()
    while True:
        for epoch, module in enumerate(modules):
            save_module(file, module, epoch=epoch)


def _loads_as_one_of(states, paths, name, chosen):
    """Whether the checkpoint, found by itself, by its name or by its folder, holds one of the states."""
    try:
        module = load_module(find_checkpoint(paths, name, chosen), "ImageModule")
    except PipelineError:
        return False
    return _state_bytes(module) in states


# ---- An error at each step of each writer

class Fault(NamedTuple):
    """What fails: a writer's step, from the so-many-th time on (a full disk stays full)."""

    step: str
    number: int
    error: type | int       # KeyboardInterrupt, or an errno

    def build(self):
        """The exception to raise."""
        return self.error() if self.error is KeyboardInterrupt else OSError(self.error, os.strerror(self.error))


def _is_temporary(_folder, path, *_):
    path = Path(path)
    return path.name.startswith(".") and path.suffix == ".tmp" and not path.exists()


def _is_below(folder, path, *_):
    return folder in Path(path).parents


def _is_new(folder, path, flags=0, *_):
    return _is_below(folder, path) and flags & os.O_CREAT


def _is_file(_folder, handle):
    return stat.S_ISREG(os.fstat(handle).st_mode)


# Step -> which calls of this function of os are meant. (An error of the folder's sync is no error: the file is there.)
STEPS = {
    "open": _is_new, "mkdir": _is_temporary, "fsync": _is_file, "replace": _is_below, "rename": _is_below,
}
ERRORS = (errno.ENOSPC, errno.EIO, errno.EACCES, KeyboardInterrupt)


class _HalfFile:
    """A file that takes half of what is first written to it, then fails."""

    def __init__(self, file, error):
        self._file, self._error = file, error

    def write(self, data):
        self._file.write(memoryview(data)[: len(data) // 2])
        raise self._error

    def __getattr__(self, name):
        return getattr(self._file, name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()


@contextmanager
def steps_watched(folder, fault=None):
    """Count the steps by which files come into being below `folder`; let them fail as `fault` says.

    Yields:
        Counter of step -> how often it was taken.
    """
    counts, real_open = Counter(), open

    def comes(step):
        counts[step] += 1
        return fault is not None and step == fault.step and counts[step] >= fault.number

    def watch(step, real, is_meant):
        def call(*arguments, **options):
            if is_meant(folder, *arguments) and comes(step):
                raise fault.build()
            return real(*arguments, **options)

        return call

    def watched_open(path, mode="r", *arguments, **options):
        file = real_open(path, mode, *arguments, **options)
        meant = "w" in mode and not isinstance(path, int) and _is_below(folder, path)
        return _HalfFile(file, fault.build()) if meant and comes("write") else file

    with ExitStack() as patches:
        for step, is_meant in STEPS.items():
            patches.enter_context(mock.patch.object(os, step, watch(step, getattr(os, step), is_meant)))
        for module in (io, builtins):
            patches.enter_context(mock.patch.object(module, "open", watched_open))
        yield counts


def _writers(folder):
    """What writes: dict of a name -> (function of a number that decides the content, path that an error names)."""
    paths, view = Paths(folder), VIEWS["bscan"]
    source = paths.source / "screen.jpg"
    put_screen(source)
    images = pd.DataFrame([{c.PATIENT: "7R", c.FINAL: 1, c.AFTER: 0, c.SIDE: 1, c.IMAGE: "screen",
                            c.DATA_TYPE: "test", c.SOURCE: paths.relative(source)}])
    losses = pd.DataFrame({"epoch": [1, 2, 3], "loss": [3.0, 2.0, 1.0], "loss CST": [2.0, 1.0, 0.5]})
    tables = [folder / f"losses-{number}.csv" for number in range(3)]
    for number, table in enumerate(tables):
        write_csv(table, losses.assign(loss=losses["loss"] + number))

    def write_history(number):
        history = History(folder / "history.csv", folder / "unused.png")
        history.add(epoch=1, loss=float(number))
        history.save(1)

    def write_record(number):
        record = CropRecord(folder / "crops.csv")
        record.add(dict.fromkeys(RECORD_COLUMNS, number) | {CROP: "a.jpg"})
        record.save()

    one = {
        "crop.jpg": lambda path, number: write_image(path, make_screen(64, 96, seed=number)),
        "table.csv": lambda path, number: write_csv(path, losses * number),
        "run.json": lambda path, number: write_json(path, {"epochs_done": number}),
        "notes.txt": lambda path, number: write_text(path, f"第 {number} 次"),
        "loss.png": lambda path, number: plot_log(tables[number], path),
        "preview.png": lambda path, number: draw_crop_preview(path, [(f"number {number}", source)], VIEWS),
        "Model-CSV.pt": lambda path, number: save_module(path, _module(CSVModule, number), epoch=number),
        "Model-Image.pt": lambda path, number: save_module(path, _module(ImageModule, number), epoch=number),
    }
    writers = {name: (lambda number, path=folder / name, write=write: write(path, number), folder / name)
               for name, write in one.items()}
    return writers | {
        "history.csv": (write_history, folder / "history.csv"),
        "crops.csv": (write_record, folder / "crops.csv"),
        "crop of option 0": (lambda number: crop_all(images, paths, {"bscan": view._replace(top=number)}),
                             paths.root / view_paths(images, view)[0]),
        "submission": (lambda number: write_submission(paths, _submission(number), {"option": 5}), paths.result),
    }


def _submission(number):
    """Two rows in each table, all numbers 1 / (number + 2)."""
    words = {c.PATIENT: ["9501L", "9502R"], c.IMAGE: ["a", "b"], c.IMAGE_NUMBER: ["1", "2"], c.INJECTION: [c.PRE,
                                                                                                           c.PRE]}
    values = np.full(2, 1 / (number + 2))
    return Submission(*(Sheet(pd.DataFrame({name: words.get(name, values) for name in names}), {n: n for n in names})
                        for names in c.SUBMISSION_COLUMNS.values()))


def errors_at_each_step(share, folder):
    """Disk full, input/output error, no permission and Ctrl-C at each step of each writer."""
    folder = folder.resolve()
    writers = _writers(folder)
    cases = []
    for name, (write, _) in writers.items():
        with steps_watched(folder) as counts:
            write(1)
        faults = [Fault(step, number + 1, error) for step, count in counts.items() for number in range(count)
                  for error in ERRORS]
        cases += [(name, fault) for fault in _drop_crops_record(name, faults)]
    random.Random(0).shuffle(cases)
    cases = cases[: scaled(len(cases), share)]
    failures = [f"{name}, {fault}: {wrong}" for name, fault in cases
                if (wrong := _what_goes_wrong(folder, *writers[name], fault))]
    writers_met = len({name for name, _ in cases})
    return Figure("an error at a step of a writer leaves the old files, no other, and is reported", len(cases),
                  len(cases) - len(failures), "; ".join(failures[:3]) or f"{writers_met} writers")


def _drop_crops_record(name, faults):
    """Option 0 writes the crop, then the record of it: only the crop's faults leave everything as it was."""
    return [fault for fault in faults if name != "crop of option 0" or fault.number == 1]


def _what_goes_wrong(folder, write, path, fault):
    """Write under the fault; what is not as it should be, or nothing."""
    before = _read_tree(folder)
    said = io.StringIO()
    try:
        with steps_watched(folder, fault), redirect_stdout(said):
            write(2)
        wrong = _judge_message(said.getvalue().strip(), path, fault)    # what is for looking at says it, and goes on
    except KeyboardInterrupt:
        wrong = "" if fault.error is KeyboardInterrupt else "Ctrl-C"
    except PipelineError as error:
        wrong = _judge_message(str(error), path, fault)
    except Exception as error:
        wrong = f"raises {error!r}"
    after = _read_tree(folder)
    changed = sorted(str(each.relative_to(folder)) for each in before.keys() | after.keys()
                     if before.get(each) != after.get(each))
    return wrong or (f"{', '.join(changed)} changed" if changed else "")


def _judge_message(told, path, fault):
    """What is not as it should be with what a user is told of a fault, or nothing."""
    if not told:
        return "is not reported"
    as_wanted = fault.error is not KeyboardInterrupt and os.strerror(fault.error) in told and str(path) in told
    return "" if as_wanted and "\n" not in told else f"says {told!r}"


def _read_tree(folder):
    """Path -> bytes of every file below `folder`, hidden ones too; None for a folder."""
    return {Path(place, name): Path(place, name).read_bytes() if name in files else None
            for place, folders, files in os.walk(folder) for name in [*folders, *files]}


FIGURES = [kill_while_saving, errors_at_each_step]
