"""Processes with torch from their beginning: each is forked from one that imported it, and nothing of this program.

A start of Python with torch takes 2.5 s of a core. For tests that are not about how Python starts or ends. Where there
is no fork (Windows) each is started anew.
"""

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent
HEAVY = ("torch", "torch.nn.parallel", "cv2", "pandas", "matplotlib.figure", "PIL.Image", "sklearn.ensemble", "tqdm")
STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))

CONTEXT = multiprocessing.get_context("spawn" if os.name == "nt" else "forkserver")
CONTEXT.set_forkserver_preload(list(HEAVY))


def start(script, *words, folder, cwd, environment, program=REPOSITORY, typed=""):
    """Begin `python script words`, with the modules of `program`; what it prints goes to folder/stdout and /stderr.

    Returns:
        multiprocessing's Process: `pid`, `exitcode` (None while it runs), `join`, `kill`.
    """
    for name, _ in STREAMS:
        (folder / name).write_text(typed if name == "stdin" else "", encoding="utf-8")
    arguments = (str(program), str(script), list(map(str, words)), folder, cwd, environment)
    process = CONTEXT.Process(target=_become, args=arguments)
    process.start()
    return process


def run(script, *words, timeout=300, **how):
    """`start`, and wait for its end. Returns a subprocess.CompletedProcess with texts, as subprocess.run does."""
    with tempfile.TemporaryDirectory() as folder:
        process = start(script, *words, folder=Path(folder), **how)
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired([script, *words], timeout)
        said = [Path(folder, name).read_text(encoding="utf-8") for name in ("stdout", "stderr")]
    return subprocess.CompletedProcess([script, *words], process.exitcode, *said)


def _become(program, script, words, folder, cwd, environment):
    """Be a fresh Python that runs `script`, but for what is imported already."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    for number, (name, mode) in enumerate(STREAMS):
        with open(folder / name, mode) as file:
            os.dup2(file.fileno(), number)
        setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))
    sys.argv = [script, *words]
    sys.path = [program, *(place for place in sys.path if Path(place).resolve() != REPOSITORY)]
    runpy.run_path(script, run_name="__main__")
