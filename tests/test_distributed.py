"""Several processes train as one does: started by torchrun, on a CPU (gloo)."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

from config import VIEWS
from model.distributed import share_batch_norm
from model.module import ImageModule
from model.run import Run, read_record
from model.trunks import build_trunk, load_trunk_weights
from model_config import IMAGE_MODELS
from tests import warm
from tests.helpers import REPOSITORY, train_image

NAME = "Model-Image-After"
# Adam's first steps are the signs of gradients: what is rounded differently parts the faster, the larger the steps
FLAGS = ("--models", NAME, "--learning-rate", "1e-6", "--batch-size", "2", "--device", "cpu")
TOLERANCE = 1e-5
CONFIG = replace(IMAGE_MODELS[1], epochs=3, learning_rate=1e-6, batch_size=2, device="cpu")
MAIN = REPOSITORY / "tests" / "torchrun_main.py"

pytestmark = pytest.mark.skipif(os.name == "nt", reason="torchrun's gloo wants a resolvable host name on Windows")


def torchrun(root, *words, processes=2):
    """Start `processes` of the program with the tests' shared batch norm; a pipe each for stdout and stderr."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    return subprocess.Popen(
        [*launcher, MAIN, *words], cwd=root, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=os.environ | {"APTOS_ROOT": str(root), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
    )


def start_processes(count, root, folder, *words):
    """Run `count` of the program as torchrun starts them, without torchrun; their statuses, and what they complain."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    shared = os.environ | {"APTOS_ROOT": str(root), "WORLD_SIZE": str(count), "MASTER_ADDR": "localhost",
                           "MASTER_PORT": str(port)}
    places = [folder / f"process {rank}" for rank in range(count)]
    processes = []
    for rank, place in enumerate(places):
        place.mkdir()
        processes.append(warm.start(MAIN, *words, folder=place, cwd=root,
                                    environment=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}))
    for process in processes:
        process.join(300)
    return [process.exitcode for process in processes], [(place / "stderr").read_text() for place in places]


def only_run(paths):
    folder, = (paths.ckpt / NAME).iterdir()
    return folder


def result(folder):
    """Losses, and weights: all but the biases before a batch norm, which it takes out again, with its running mean."""
    state = torch.load(folder / f"{NAME}.pt", weights_only=True)["state"]
    idle = re.compile(r"layers\.0\.bias|running_mean")
    return pd.read_csv(folder / "history.csv"), {name: value.double() for name, value in state.items()
                                                 if not idle.search(name)}


def check_same(folder, other):
    (history, weights), (other_history, other_weights) = result(folder), result(other)
    pd.testing.assert_frame_equal(history, other_history, rtol=TOLERANCE)
    assert weights.keys() == other_weights.keys()
    for name, value in weights.items():
        # A tenth of one of Adam's steps on average
        assert (value - other_weights[name]).abs().mean() < 1e-7 + 1e-6 * value.abs().mean(), name


def test_two_processes_train_as_one(demo_copy, small_boxes):
    """Visits of two views, with a fold held out; the next test has single images."""
    words = ("train_image", *FLAGS, "--epochs", "3", "--fold", "0", "--batch-size", "6",
             "--pool", "visit", "--views", "bscan", "fundus")
    process = torchrun(demo_copy.root, *words)
    told, complaints = process.communicate(timeout=300)
    assert process.returncode == 0, complaints
    assert told.count(f"{NAME} epoch 3/3") == 1
    two = only_run(demo_copy)
    record = read_record(two)
    assert (record["state"], record["processes"], record["epochs_done"]) == ("finished", 2, 3)
    assert len(list(two.glob("*.png"))) == 1

    config = replace(CONFIG, fold="0", batch_size=6, pool="visit", views=("bscan", "fundus"))
    one, = train_image(demo_copy, [config])
    check_same(two, one)
    assert result(one)[0]["loss"].nunique() == 3        # it learned something that could differ


def test_a_run_goes_on_in_more_processes_than_images_in_its_last_batch(demo_copy, small_boxes, monkeypatch, tmp_path):
    """7 images in batches of 2 leave a batch of one image for three processes."""
    whole, = train_image(demo_copy, [CONFIG])
    with monkeypatch.context() as patch:
        really = Run.finish_epoch

        def finish_and_stop(run, epoch, *arguments):
            really(run, epoch, *arguments)
            raise KeyboardInterrupt

        patch.setattr(Run, "finish_epoch", finish_and_stop)
        with pytest.raises(KeyboardInterrupt):
            train_image(demo_copy, [CONFIG])
    stopped, = set((demo_copy.ckpt / NAME).iterdir()) - {whole}
    assert read_record(stopped)["epochs_done"] == 1

    statuses, complaints = start_processes(3, demo_copy.root, tmp_path, "train_image", "--models", NAME, "--resume")
    assert statuses == [0, 0, 0], complaints
    record = read_record(stopped)
    assert (record["state"], record["processes"], record["epochs_done"]) == ("finished", 3, 3)
    check_same(stopped, whole)


@pytest.mark.parametrize("victim", [0, 1])
def test_a_process_that_dies_ends_the_others_with_a_message(demo_copy, victim):
    process = torchrun(demo_copy.root, "train_image", *FLAGS, "--epochs", "200")
    try:
        while f"{NAME} epoch 3/" not in process.stdout.readline():
            assert process.poll() is None
        workers = find_workers(process.pid)
        assert sorted(workers) == [0, 1]
        os.kill(workers[victim], signal.SIGKILL)
        killed_at = time.monotonic()
        _, complaints = process.communicate(timeout=60)
        assert time.monotonic() - killed_at < 60
    finally:
        process.kill()
    assert process.returncode != 0
    # By its own connection, or by torchrun's SIGTERM, whichever comes first
    said = "(Another process of|another one ended).*--resume goes on"
    assert re.search(f"Process {2 - victim} of 2: .*{said}", complaints)
    assert not any(alive(pid) for pid in workers.values())
    if victim == 1:         # the first process, which writes, could still say so
        record = read_record(only_run(demo_copy))
        assert record["state"] in ("failed", "stopped") and record["epochs_done"] >= 2


def find_workers(launcher):
    """dict of rank -> process ID of the processes that torchrun started."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rsplit(") ", 1)[1].split()[1])
            variables = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        ranks = [variable[5:] for variable in variables if variable.startswith(b"RANK=")]
        if parent == launcher and ranks:
            found[int(ranks[0])] = int(folder.name)
    return found


def alive(pid):
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def test_on_a_cpu_it_is_said_that_batch_norm_is_not_shared(capsys):
    module = ImageModule()
    share_batch_norm(module, None)
    assert "the weights are not quite those of one process" in capsys.readouterr().out
    assert not any(isinstance(part, torch.nn.SyncBatchNorm) for part in module.modules())
    trunk = build_trunk("segmentation", VIEWS["bscan_full"])
    load_trunk_weights(trunk, "segmentation", "")
    share_batch_norm(trunk, None)       # it keeps its own
    assert not capsys.readouterr().out


def test_other_options_want_one_process(demo_copy, tmp_path):
    statuses, complaints = start_processes(2, demo_copy.root, tmp_path, "train_csv", "--epochs", "1")
    assert 0 not in statuses
    message = "Only train_image works in several processes; start this without torchrun."
    assert all(f"Process {rank} of 2: {message}" in said for rank, said in enumerate(complaints, 1))
    assert not (demo_copy.ckpt / "Model-CSV").exists()


def test_variables_of_another_launcher_are_not_taken_for_torchruns(demo_copy):
    """RANK alone, or words for numbers, as other programs set them."""
    for variables in ({"RANK": "1"}, {"RANK": "x", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "a"}):
        command = "from processing.parallel import this_process as p; print(p().rank, p().local_rank, p().count)"
        answer = subprocess.run([sys.executable, "-c", command], cwd=REPOSITORY, env=os.environ | variables,
                                capture_output=True, text=True, check=True)
        assert answer.stdout.split() == ["0", "0", "1"]
