"""The program in a real pseudo-terminal, and signals. (Windows has neither; there it is skipped.)"""

import json
import os
import select
import signal
import struct
import subprocess
import sys
import time

import pytest

from tests.helpers import REPOSITORY

fcntl = pytest.importorskip("fcntl")
pty = pytest.importorskip("pty")
termios = pytest.importorskip("termios")


class Terminal:
    """The program in a pseudo-terminal."""

    def __init__(self, root, *words):
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 120, 0, 0))      # rows, columns
        self.process = subprocess.Popen(
            [sys.executable, REPOSITORY / "main.py", *words], stdin=slave, stdout=slave, stderr=slave, cwd=root,
            env=os.environ | {"APTOS_ROOT": str(root), "TERM": "xterm"}, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)
        self.screen = ""

    def type(self, text):
        os.write(self._master, text.encode())

    def wait_for(self, text, seconds=60):
        end = time.monotonic() + seconds
        while text not in self.screen:
            assert time.monotonic() < end, f"{text!r} did not appear in:\n{self.screen}"
            self._read()

    def wait(self, seconds=30):
        end = time.monotonic() + seconds
        while self.process.poll() is None:
            assert time.monotonic() < end, self.screen
            self._read()
        return self.process.returncode

    def _read(self):
        if select.select([self._master], [], [], 0.1)[0]:
            try:
                self.screen += os.read(self._master, 65536).decode(errors="replace")
            except OSError:     # the program has ended
                time.sleep(0.05)


def test_in_a_terminal_ctrl_c_at_the_prompt_ends_with_130(tmp_path):
    terminal = Terminal(tmp_path)
    terminal.wait_for("Pick a number")
    time.sleep(0.5)         # until it waits for the answer
    terminal.type("\x03")
    assert terminal.wait() == 130
    assert "Traceback" not in terminal.screen


def test_in_a_terminal_ctrl_c_stops_a_training_and_keeps_its_epochs(demo_copy):
    terminal = Terminal(demo_copy.root, "2", "--epochs", "200000")
    terminal.wait_for("epoch 1000/200000")
    terminal.type("\x03")
    assert terminal.wait() == 130
    assert "Traceback" not in terminal.screen
    folder, = (demo_copy.ckpt / "Model-CSV").iterdir()
    record = json.loads((folder / "run.json").read_text())
    assert record["state"] == "stopped"
    assert record["epochs_done"] >= 1000
    assert len((folder / "history.csv").read_text().splitlines()) == record["epochs_done"] + 1


def test_in_a_terminal_a_bar_with_the_time_left_is_shown(demo_copy):
    terminal = Terminal(demo_copy.root, "1", "--epochs", "2", "--batch-size", "2", "--models", "Model-Image-After")
    assert terminal.wait(120) == 0, terminal.screen
    assert "Model-Image-After:" in terminal.screen
    assert "image/s" in terminal.screen or "s/image" in terminal.screen


def test_sigterm_ends_with_143_and_keeps_the_epochs(demo_copy):
    process = subprocess.Popen(
        [sys.executable, REPOSITORY / "main.py", "2", "--epochs", "200000"], stdout=subprocess.PIPE,
        env=os.environ | {"APTOS_ROOT": str(demo_copy.root), "PYTHONUNBUFFERED": "1"}, encoding="utf-8",
    )
    for line in process.stdout:
        if "epoch 1000/" in line:
            break
    process.terminate()
    process.stdout.read()
    assert process.wait(10) == 143
    record, = (demo_copy.ckpt / "Model-CSV").glob("*/run.json")
    assert json.loads(record.read_text())["state"] == "stopped"


def ignore_ctrl_c():
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def test_who_starts_the_program_may_have_ctrl_c_ignored(demo_copy):
    """As `nohup python main.py 2 &` in a script does."""
    process = subprocess.Popen(
        [sys.executable, REPOSITORY / "main.py", "2", "--epochs", "200000"], stdout=subprocess.PIPE,
        env=os.environ | {"APTOS_ROOT": str(demo_copy.root), "PYTHONUNBUFFERED": "1"}, encoding="utf-8",
        preexec_fn=ignore_ctrl_c,
    )
    lines = iter(process.stdout)
    assert any("epoch 1000/" in line for line in lines)
    process.send_signal(signal.SIGINT)
    assert any("epoch 3000/" in line for line in lines)
    process.terminate()
    process.stdout.read()
    assert process.wait(10) == 143


def test_the_tests_heed_ctrl_c_however_they_were_started():
    words = [sys.executable, "-m", "pytest", "-n", "0", "-p", "no:cacheprovider", "-k", "at_the_prompt", __file__]
    answer = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, preexec_fn=ignore_ctrl_c)
    assert answer.returncode == 0, answer.stdout
