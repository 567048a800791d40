"""Runs: stopped at every epoch's end, by SIGTERM at random moments, and started twenty at once."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import torch

from config import VIEWS, Paths
from model.csv_model import CSVNetwork
from model.run import Run, read_record
from model_config import CSV_MODEL, IMAGE_MODELS
from processing.data_factory import processing_data
from processing.demo import SIZES, write_demo
from processing.files import write_text
from tests.faults import CLEAN, Figure, scaled
from tests.helpers import REPOSITORY, run_main, train_csv, train_image

EPOCHS = 6
BOX = VIEWS["bscan"]._replace(top=150, bottom=250, left=600, right=900)       # small crops, a short epoch
CSV = replace(CSV_MODEL, epochs=EPOCHS, batch_size=2, learning_rate=1e-3, device="cpu")
IMAGE = replace(IMAGE_MODELS[1], epochs=EPOCHS, batch_size=3, device="cpu", workers=0)
KINDS = {"Model-CSV": CSV, "images, 0 workers": IMAGE, "images, 2 workers": replace(IMAGE, workers=2)}

TERMS, AT_ONCE = 10, 20
TERMINATED, END_WITHIN_S = 143, 10
EARLY_EVERY, EARLIEST_TERM_S = 5, 1.0   # every fifth signal comes before the training begins, not before this


class _Stop(BaseException):
    """Stands in for a kill at a chosen moment."""


def _make_demo(folder, views=VIEWS):
    paths = Paths(folder)
    with redirect_stdout(StringIO()):
        write_demo(paths, SIZES["smallest"])
        processing_data(paths, views)
    return paths


def _result(folder):
    """History, weights and Adam's state, to be compared bit for bit.

    Not torch's random state: nothing of an epoch draws from it but a loader, as often as it starts its workers.
    """
    name = folder.parent.name
    content = torch.load(folder / f"{name}.pt", weights_only=True)
    states = content["optimizer"]["state"].items()
    adam = {(number, part): value for number, state in states for part, value in state.items()}
    tensors = content["state"] | adam
    return (folder / "history.csv").read_bytes(), {name: value.numpy().tobytes() for name, value in tensors.items()}, \
        content["epoch"], content["optimizer"]["param_groups"]


def _difference(one, other):
    """Which parts of two results differ, or nothing."""
    parts = ("history", "weights or Adam's state", "epoch", "groups of Adam")
    differ = [part for part, first, second in zip(parts, one, other, strict=True) if first != second]
    return f"other {', '.join(differ)}" if differ else ""


# ---- Stopped at an epoch's end

def resume_at_each_epoch(share, folder):
    """A six-epoch run stopped at each epoch's end (0: within the first epoch; 6: before it could say that it ended)."""
    paths = _make_demo(folder, VIEWS | {"bscan": BOX})
    cases = [(kind, epoch) for kind in KINDS for epoch in range(EPOCHS + 1)]
    random.Random(10).shuffle(cases)       # a sample of one is of the fast model, in the middle of its run
    cases, whole, failures = cases[: scaled(len(cases), share)], {}, []
    with redirect_stdout(StringIO()):
        for kind, epoch in cases:
            if kind not in whole:
                whole[kind] = _result(_train(paths, KINDS[kind]))
            wrong = _stop_and_resume(paths, KINDS[kind], epoch, whole[kind])
            failures += [f"{kind} stopped after epoch {epoch}: {wrong}"] if wrong else []
    return Figure("runs resumed at an epoch's end equal the uninterrupted bit for bit", len(cases),
                  len(cases) - len(failures), "; ".join(failures[:3]) or "; ".join(whole))


def _train(paths, config, **arguments):
    if config.name == CSV.name:
        return train_csv(paths, config, **arguments)[0]
    with mock.patch.dict(VIEWS, {"bscan": BOX}):
        return train_image(paths, [config], **arguments)[0]


def _stop_and_resume(paths, config, epoch, whole):
    """What differs from the uninterrupted run, or nothing."""
    with _stopped_after(epoch):
        try:
            _train(paths, config)
        except _Stop:
            pass
        else:
            return "it did not stop"
    stopped = max((paths.ckpt / config.name).iterdir(), key=lambda folder: folder.stat().st_ctime_ns)
    record = read_record(stopped)
    if (record["epochs_done"], record["state"]) != (epoch, "stopped"):
        return f"run.json says {record['epochs_done']} epochs, {record['state']}"
    resumed = _train(paths, config, resume=str(stopped))
    if resumed != stopped or read_record(resumed)["state"] != "finished":
        return "the resumed run is another, or not finished"
    return _difference(_result(resumed), whole)


def _stopped_after(epochs):
    """Let a training die when it has done `epochs` epochs."""
    really = Run.finish_epoch

    def finish_and_stop(run, epoch, *arguments):
        if epochs > 0:
            really(run, epoch, *arguments)
        if epoch == max(epochs, 1):
            raise _Stop

    return mock.patch.object(Run, "finish_epoch", finish_and_stop)


# ---- Ctrl-C at each line that notes and saves an epoch

def interrupt_at_each_line(share, folder):
    """Ctrl-C at each line of this program that is run while the third epoch is noted and saved; then resume."""
    paths = _make_demo(folder, VIEWS | {"bscan": BOX})
    with redirect_stdout(StringIO()), mock.patch("model.run.SAVE_SHARE", 1e9), mock.patch("processing.plots.plot_log"):
        with _interrupted_at_line(0) as lines:
            whole = _result(_train(paths, CSV))
        cases = random.Random(0).sample(range(1, len(lines) + 1), scaled(len(lines), share))
        failures = []
        for number in cases:
            wrong = _interrupt_and_resume(paths, number, whole)
            failures += [f"{lines[number - 1]}: {wrong}"] if wrong else []
    return Figure("Ctrl-C at a line that notes or saves an epoch, resumed bit for bit", len(cases),
                  len(cases) - len(failures), "; ".join(failures[:4]))


def _interrupt_and_resume(paths, number, whole):
    """What is wrong, or nothing."""
    before = set((paths.ckpt / CSV.name).iterdir())
    try:
        with _interrupted_at_line(number):
            _train(paths, CSV)
    except KeyboardInterrupt:
        pass
    except Exception as error:
        return f"raises {error!r}"
    else:
        return "the interrupt is lost"
    run, = set((paths.ckpt / CSV.name).iterdir()) - before
    if read_record(run)["state"] != "stopped":
        return f"run.json says {read_record(run)['state']}"
    return _difference(_result(_train(paths, CSV, resume=str(run))), whole)


@contextmanager
def _interrupted_at_line(number):
    """Raise KeyboardInterrupt at the so-many-th line of this program within finish_epoch of epoch 3 (0: never).

    Yields:
        list of "file:line" of those that were run.
    """
    really, lines = Run.finish_epoch, []

    def trace(frame, event, _argument):
        file = Path(frame.f_code.co_filename)
        if file.parent.name not in ("model", "processing") or REPOSITORY not in file.parents:
            return None
        if event == "line":
            lines.append(f"{file.name}:{frame.f_lineno}")
            if len(lines) == number:
                raise KeyboardInterrupt
        return trace

    def finish_epoch(run, epoch, *arguments):
        before = sys.gettrace()
        sys.settrace(trace if epoch == EPOCHS // 2 else before)
        try:
            really(run, epoch, *arguments)
        finally:
            sys.settrace(before)

    with mock.patch.object(Run, "finish_epoch", finish_epoch):
        yield lines


# ---- SIGTERM

class _Program(NamedTuple):
    """A training from the command line."""

    name: str
    option: str
    epochs: int
    flags: tuple

    def start(self, root):
        """Begin it; what it prints goes to root/stdout and root/stderr. One thread: other processes need the cores."""
        with open(root / "stdout", "wb") as told, open(root / "stderr", "wb") as complaint:
            return subprocess.Popen(
                [sys.executable, REPOSITORY / "main.py", self.option, "--epochs", str(self.epochs), "--device", "cpu",
                 *self.flags], cwd=root,
                stdin=subprocess.DEVNULL, stdout=told, stderr=complaint,
                env=os.environ | {"APTOS_ROOT": str(root), "PYTHONUNBUFFERED": "1"} | ONE_THREAD,
            )


ONE_THREAD = {"OMP_NUM_THREADS": "1"}
PROGRAMS = (
    _Program(CSV.name, "2", 200, ("--batch-size", "2")),
    _Program(
        "Model-Image-After", "1", EPOCHS, ("--models", "Model-Image-After", "--batch-size", "3", "--workers", "0")
    ),
)


def terminated_runs(share, folder):
    """SIGTERM at random moments of options 1 and 2, then --resume until the run is finished."""
    paths, numbers = _make_demo(folder), random.Random(0)
    cases, failures, slowest_s, resumed = 0, [], 0.0, 0
    for program in PROGRAMS[: 1 if share < 0.1 else 2]:
        process, started = program.start(paths.root), time.monotonic()
        begun = _wait_for_training(paths.root, process)
        process.wait()
        begin_s, lasts_s = begun - started, time.monotonic() - begun
        whole_run, = (paths.ckpt / program.name).iterdir()
        for number in range(scaled(TERMS, share)):
            cases += 1
            early = number % EARLY_EVERY == EARLY_EVERY - 1
            moment = numbers.uniform(EARLIEST_TERM_S, 0.9 * begin_s) if early else numbers.uniform(0, program.epochs)
            wrong, end_s, was_resumed = _terminate_and_resume(
                paths, program, whole_run, moment=moment, epoch_s=None if early else lasts_s / program.epochs)
            slowest_s, resumed = max(slowest_s, end_s), resumed + was_resumed
            unit = "s from the program's start" if early else "epochs from the training's"
            failures += [f"{program.name}, {moment:.2f} {unit}: {wrong}"] if wrong else []
    detail = f"the slowest ended after {slowest_s:.1f} s; {resumed} were resumed, the others had not begun or were done"
    return Figure("runs stopped by SIGTERM: status 143, no finished epoch lost, resumed bit for bit", cases,
                  cases - len(failures), "; ".join([detail, *failures[:3]]))


def _wait_for_training(root, process, epochs=0):
    """Wait until the program has said that a training begins and so many epochs, or ends; the time of that."""
    while process.poll() is None:
        told = _read(root / "stdout")
        if ", cpu, " in told and told.count(" epoch ") >= epochs:
            break
        time.sleep(0.01)
    return time.monotonic()


def _read(file):
    return file.read_text(encoding="utf-8", errors="replace")


def _terminate_and_resume(paths, program, whole_run, *, moment, epoch_s):
    """Send SIGTERM so many epochs (or, if `epoch_s` is None, seconds) after the beginning; then resume.

    Returns:
        What is wrong or nothing; how many seconds the process took to end; whether there was a run to resume.
    """
    before = set((paths.ckpt / program.name).iterdir())
    process = program.start(paths.root)
    if epoch_s is None:
        time.sleep(moment)
    else:
        _wait_for_training(paths.root, process, int(moment))
        time.sleep(moment % 1 * epoch_s)
    sent = time.monotonic()
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=END_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return f"not ended within {END_WITHIN_S} s", END_WITHIN_S, False
    end_s = time.monotonic() - sent
    runs = sorted(set((paths.ckpt / program.name).iterdir()) - before)
    unfinished = bool(runs) and read_record(runs[0]).get("state") != "finished"
    told, complaint = _read(paths.root / "stdout"), _read(paths.root / "stderr")
    wrong = _how_it_ended(program, process.returncode, told, complaint, runs)
    if not wrong and runs:
        wrong = _resume_to_the_end(paths, program, runs[0], whole_run)
    return wrong, end_s, unfinished


def _how_it_ended(program, status, told, complaint, runs):
    """What is wrong with a terminated process and its run folder, or nothing."""
    if status in (0, -signal.SIGTERM) and runs and read_record(runs[0]).get("state") == "finished":
        return ""                               # it was done, or Python was already taking itself down
    if status != TERMINATED or "Traceback" in complaint:
        return f"status {status}, {complaint[-300:]!r}"
    if not runs:
        return "" if "epoch" not in told else "no run folder"
    said = max([int(number) for number in re.findall(r" epoch (\d+)/", told)], default=0)
    record = read_record(runs[0])
    done, file = record.get("epochs_done", 0), runs[0] / f"{program.name}.pt"
    saved = torch.load(file, weights_only=True)["epoch"] if file.is_file() else 0
    if saved != done or done < said or record.get("state") not in ("stopped", "finished"):
        return f"said {said} epochs, run.json {done} ({record.get('state')}), checkpoint {saved}"
    return ""


def _resume_to_the_end(paths, program, run, whole_run):
    if read_record(run).get("state") != "finished":
        answer = run_main(program.option, "--resume", run, root=paths.root, **ONE_THREAD)
        if answer.returncode != 0:
            return f"--resume ends with {answer.returncode}: {answer.stderr[-300:]!r}"
    if read_record(run)["state"] != "finished":
        return "not finished after --resume"
    return _difference(_result(run), _result(whole_run))


# ---- Twenty at once

def folders_at_once(_share, folder):
    """Twenty processes make a run folder in the same moment."""
    paths = Paths(folder)
    write_text(paths.train_table, "a table\n")
    barrier = CLEAN.Barrier(AT_ONCE)
    processes = [CLEAN.Process(target=_start_run, args=(paths, barrier)) for _ in range(AT_ONCE)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    runs = list((paths.ckpt / CSV.name).iterdir())
    whole = [run for run in runs if json.loads((run / "run.json").read_text())["state"] == "stopped"
             and {file.name for file in run.iterdir()} == {"config.json", "run.json"}]
    good = all(process.exitcode == 0 for process in processes) and len(runs) == AT_ONCE
    return Figure("run folders of processes started at once", AT_ONCE, len(whole) if good else 0,
                  f"{len(runs)} folders")


def _start_run(paths, barrier):
    barrier.wait()
    Run.start(paths, CSV, CSVNetwork({}, torch.device("cpu")), data={})


FIGURES = [resume_at_each_epoch, interrupt_at_each_line, terminated_runs, folders_at_once]
