"""The menu and the console: 5,000 typed inputs, raw bytes, and output where a console lacks characters or is none.

What the menu must do is worked out here from the bytes typed, apart from the program's own reading of them.
"""

import contextlib
import io
import os
import random
import shutil
import signal
import subprocess
import sys
import unicodedata
from unittest import mock

import config
import main
from processing.data_factory import processing_data
from processing.demo import DemoSize, write_demo
from tests.faults import Figure, scaled
from tests.helpers import REPOSITORY

INPUTS, PER_SESSION = 5000, 25
RAW_SESSIONS = 20
CONSOLES = ("ascii", "cp1252", "gbk", "latin-1", "utf-8")
TINY = DemoSize(2, 2, 2, 2, images=1)
JUNK = (
    "-1", "0_1", "+1", "1.0", "0x1", "1e0", "00", "01", "²", "①", "٢", "２２", "二", "Ⅱ", "1\0", "\0", "\x1b[A", "\x7f",
    "1\b", "1 2", "1,2", "1;2", "q1", "quit now", "", " ", "\t", "TRAIN_CSV", "Predict_All", "train csv",
    "train_csv+train_image", "0; rm -rf /", "$(0)", "--help", "-h", "1 --epochs 5", "../0", "\ufeff1", "1\u200b",
    "\u202e1", "1" * 50, "é", "None",
)
FULL_WIDTH = {chr(number): unicodedata.normalize("NFKC", chr(number)) for number in range(0xFF01, 0xFF5F)}


# ---- 5,000 inputs, in this process, every option replaced by a recorder

def typed_inputs(share, folder):
    """Whatever is typed into the menu: the options that it names are run, and nothing else."""
    rng, sessions, wrong, held = random.Random("menu"), [], [], 0
    left = scaled(INPUTS, share)
    while left > 0:
        lines = [_line(rng) for _ in range(min(left, rng.choice([1, PER_SESSION, 2 * PER_SESSION])))]
        left -= len(lines)
        sessions.append(lines)
    with mock.patch.dict(os.environ, {"APTOS_ROOT": str(folder)}):
        for lines in sessions:
            reason = _session(lines, last_ends=rng.random() < 0.5)
            held += 0 if reason else len(lines)
            wrong += [reason] if reason else []
    detail = f"{len(sessions)} sessions" + "".join(f"; {reason}" for reason in wrong[:3])
    return Figure("inputs typed into the menu: what was named, and nothing else", sum(map(len, sessions)), held, detail)


def _line(rng):
    """A line as bytes, without its end; never one that ends the session."""
    names = [text for option in main.OPTIONS for text in (option.number, option.name, option.name.replace(" + ", "_"))]
    name = rng.choice(names)
    text = rng.choice([
        name, rng.choice(names), _full_width(name), f" {name}\t", f"\u3000{name}\r", name.swapcase(),
        name + rng.choice(JUNK), rng.choice(JUNK) + name, rng.choice(JUNK), rng.choice(JUNK),
        "".join(chr(rng.choice([rng.randrange(32), rng.randrange(0x250), rng.randrange(0x20000)])) for _ in range(3)),
        name * rng.choice([2, 1000, 100_000]) if rng.random() < 0.05 else name + name,
    ])
    data = text.encode("utf-8", "surrogatepass").replace(b"\n", b" ")
    if rng.random() < 0.1:
        data = data[: rng.randint(0, len(data))] + rng.randbytes(2).replace(b"\n", b"\xff") + data[len(data) // 2:]
    return b"?" if _meaning(data) == "q" else data


def _full_width(text):
    return "".join(chr(ord(sign) + 0xFEE0) if "!" <= sign <= "~" else sign for sign in text)


def _meaning(data):
    """The number of the option that a line names, "q" for the end, or None."""
    try:
        text = "".join(FULL_WIDTH.get(sign, sign) for sign in data.decode("utf-8")).strip()
    except UnicodeDecodeError:
        return None
    if text.lower() in ("q", "quit", "exit"):
        return "q"
    known = {name: option.number for option in main.OPTIONS
             for name in (option.number, option.name, option.name.replace(" + ", "_"))}
    return known.get(text)


def _session(lines, last_ends):
    """Type the lines and then the end of input (or q); what went wrong, or nothing."""
    run, shown = [], io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    content = b"".join(line + b"\n" for line in lines) + (b"" if last_ends else b"q\n")
    content = content[:-1] if last_ends and lines[-1] else content
    typed = io.TextIOWrapper(io.BytesIO(content), encoding="utf-8", newline="\n")
    options = [option._replace(run=lambda _, number=option.number: run.append(number)) for option in main.OPTIONS]
    before = signal.getsignal(signal.SIGTERM)
    try:
        with mock.patch.object(main, "OPTIONS", options), mock.patch.object(sys, "stdin", typed), \
                contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown):
            status = main.main([])
    except (Exception, SystemExit) as error:
        return f"{type(error).__name__}: {error}, of {content[:200]}"
    finally:
        signal.signal(signal.SIGTERM, before)
    shown.flush()
    text = shown.buffer.getvalue().decode()
    wanted = [_meaning(line) for line in lines]
    refused = wanted.count(None)
    wanted = [number for number in wanted if number is not None]
    if run != wanted:
        return f"ran {run}, wanted {wanted}, of {content[:200]}"
    if status != 0 or text.count("Not an option") != refused or "Traceback" in text:
        return f"status {status}, {text.count('Not an option')} refusals of {refused}"
    return ""


# ---- In processes of their own

def raw_bytes(share, folder):
    """Lines of any bytes into the real program, where no option but 0 can be meant, which must fail."""
    rng, wrong, count = random.Random("raw"), [], scaled(RAW_SESSIONS, share)
    for number in range(count):
        lines = [_line(rng) for _ in range(20)]
        lines = [line for line in lines if _meaning(line) is None]
        lines += [b"0", "０".encode()] if number % 4 == 0 else []
        rng.shuffle(lines)
        root = folder / str(number)
        root.mkdir()
        answer = _run([], root, b"\n".join(lines) + rng.choice([b"", b"\n", b"\nq\n"]))
        failed = sum(_meaning(line) is not None for line in lines)
        reason = _complaint(answer, 1 if failed else 0, "utf-8")
        if answer.stderr.count(b"No images below") != failed or any(root.iterdir()):
            reason = f"{failed} options were meant; {answer.stderr[-300:]}; {list(root.iterdir())}"
        wrong += [f"{reason}, of {lines}"] if reason else []
    return Figure("raw bytes into the program", count, count - len(wrong), "; ".join(wrong[:3]))


def consoles(share, folder):
    """Menu, help, errors and a stage on consoles that lack characters."""
    data = _tiny(folder)
    words = [["--help"], *([option.number, "--help"] for option in main.OPTIONS)]
    calls = [([], 0), *((call, 0) for call in words), (["99"], 2), (["4"], 1), (["2", "--epochs", "2"], 0)]
    cases = [(call, status, encoding) for encoding in CONSOLES for call, status in calls]
    cases = random.Random("consoles").sample(cases, scaled(len(cases), share))
    wrong = []
    for call, status, encoding in cases:
        answer = _run(call, data, b"q\n", PYTHONIOENCODING=encoding)
        reason = _complaint(answer, status, encoding)
        wrong += [f"{call} in {encoding}: {reason}"] if reason else []
    return Figure(f"output on {', '.join(CONSOLES)}", len(cases), len(cases) - len(wrong), "; ".join(wrong[:3]))


def without_a_terminal(share, folder):
    """Output into files, pipes that close, no output at all, no kind of terminal, no display: plain lines."""
    data = _tiny(folder)
    stage, options = "2 --epochs 2", "1 --epochs 1 --batch-size 2 --models Model-Image-After"
    calls = [
        ("", 0), (stage, 0), (options, 0), ("0", 0), ("--help", 0), (">&-", 0), ("<&-", 0), ("2>&-", 0),
        (f"{stage} >&-", 0), ("0 >&-", 0), (f"{stage} 2>&-", 0), ("4 2>&-", 1), (f"{stage} <&-", 0),
        (f"{stage} >&- 2>&-", 0), ("--help >&-", 0),
        ("| head -1", None), ("--help | head -1", None), ("2 --epochs 400 | head -1", None), ("> /dev/full", None),
    ]
    calls = calls[: scaled(len(calls), share)]
    wrong = []
    for call, status in calls:
        environment = {"TERM": None, "DISPLAY": None, "MPLBACKEND": None}
        answer = _run_shell(call, data, **environment)
        reason = _complaint(answer, status, "utf-8")
        wrong += [f"main.py {call}: {reason}"] if reason else []
    return Figure("output where there is no terminal", len(calls), len(calls) - len(wrong), "; ".join(wrong[:9]))


FIGURES = [typed_inputs, raw_bytes, consoles, without_a_terminal]


def _tiny(folder):
    """A demonstration of eight eyes with option 0 done, under a name that is not ASCII."""
    paths = config.Paths(folder / "数据 root")
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        write_demo(paths, TINY)
        processing_data(paths)
    return paths.root


def _environment(root, changes):
    values = os.environ | {"APTOS_ROOT": str(root)} | changes
    return {name: value for name, value in values.items() if value is not None}


def _run(words, root, typed, **changes):
    return subprocess.run(
        [sys.executable, REPOSITORY / "main.py", *words], input=typed, capture_output=True, timeout=120, cwd=root,
        env=_environment(root, {"PYTHONIOENCODING": "utf-8"} | changes),
    )


def _run_shell(call, root, **changes):
    """`python main.py call` in a shell that gives the program's own status, with q typed."""
    shell = shutil.which("bash")
    words = f'echo q | "{sys.executable}" "{REPOSITORY / "main.py"}" {call}; exit ${{PIPESTATUS[1]}}'
    return subprocess.run(
        [shell, "-c", words], capture_output=True, timeout=120, cwd=root, env=_environment(root, changes),
    )


def _complaint(answer, status, encoding):
    """What is wrong with how a process ended, or nothing. Status None: any, but not by a signal."""
    shown = (answer.stdout + answer.stderr).decode(encoding, "replace")
    if status is not None and answer.returncode != status:
        return f"status {answer.returncode}: {shown[-300:]}"
    if "Traceback" in shown or "Unexpected" in shown or "Exception ignored" in shown:
        return shown[-400:]
    return "bars or carriage returns" if "\r" in shown or "\x1b" in shown else ""
