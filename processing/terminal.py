"""The terminal: signals and streams, lines and bars, questions in two languages, and what is said of errors.

Reads what is typed. Writes to the terminal, and tracebacks of bugs to config.Paths.error_log. Of several processes the
first one speaks. Nothing that takes long is imported before it is needed, nor the two config modules: users edit
those, and processing.settings says what is wrong with them.
"""

import _thread
import contextlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import Any

from processing.errors import PipelineError, is_out_of_memory
from processing.parallel import this_process
from processing.pasted import strip_pasted

OWN = ("config", "data", "main", "model", "model_config", "processing")     # our own modules: what fails there is a bug
DONE, FAILED, WRONG_USAGE, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143      # exit status
FULL_WIDTH = {0xFEE0 + code: code for code in range(0x21, 0x7F)}            # as typed with a Chinese keyboard
STOPS = (KeyboardInterrupt, SystemExit)         # what Ctrl-C and SIGTERM raise
OF_LOCKS = ("cannot release un", "release unlocked", "no attribute '_lock'")    # in what Python and tqdm report
MOST_CAUSES = 20            # of an error that are asked; it may be its own
YES = ("y", "yes", "是")
TOO_LITTLE_MEMORY = "There is too little memory. Close other programs, or train with smaller batches (--batch-size)."
TEXTS = {       # in English and in Chinese
    "option": ("Pick a number", "请输入数字"),
    "no option": ("Not an option; type one of the numbers above.", "没有这个选项，请输入上面的数字。"),
    "sources": ("Folders, zip files or tables to import, one a line, then an empty line:",
                "要导入的文件夹、压缩包或表格，每行一个，空行结束："),
    "confirm": ("Do it? y, n", "要执行吗？是、否"),
}


# ---- Lines and bars

def progress(items: Iterable | None = None, *, total: int | None = None, label: str = "", unit: str = "it",
             leave: bool = True) -> Any:
    """Wrap `items` in a bar on the terminal (or give a bar to be updated by hand)."""
    from tqdm import tqdm

    hidden = this_process().rank > 0 or None        # None: hidden where there is no terminal
    return tqdm(items, total=total, desc=label, unit=unit, leave=leave, disable=hidden, dynamic_ncols=True)


def say(text: str) -> None:
    """Print a line without tearing a bar that is on the screen."""
    from tqdm import tqdm

    if this_process().rank == 0:
        tqdm.write(text)


# ---- Questions

def tell(text: str) -> None:
    """Print one of TEXTS in both languages."""
    print(" / ".join(TEXTS[text]))


def ask(question: str) -> str | None:
    """Ask one of TEXTS, in both languages.

    Returns:
        The answer without blanks around it, its full-width signs as plain ones; None at the end of input.
    """
    try:
        return input(" / ".join(TEXTS[question]) + ": ").translate(FULL_WIDTH).strip()
    except EOFError:
        print()
        return None


def ask_lines(question: str) -> list[str]:
    """Ask one of TEXTS; the answers, one a line, until an empty line or the end of input."""
    answers = []
    print(*TEXTS[question], sep="\n")
    with contextlib.suppress(EOFError):
        while strip_pasted(line := input("> ")):
            answers.append(line)
    return answers


def confirm(plan: str, *, sure: bool = False) -> bool:
    """Show a plan and ask whether to do it, unless that is `sure`. The end of input is a no."""
    print(plan)
    return sure or (ask("confirm") or "").lower() in YES


# ---- Errors

class Outcome:
    """How something ended: its exit status."""

    def __init__(self) -> None:
        self.status = DONE


@contextlib.contextmanager
def report_errors() -> Iterator[Outcome]:
    """Say in a few lines which error ended what is done within, and what was noted of it. Yields its outcome.

    The traceback of a bug goes to the error log. Ctrl-C, SIGTERM and an output that is closed are passed on.
    """
    from model_config import ConfigError

    process, outcome = this_process(), Outcome()
    who = f"Process {process.rank + 1} of {process.count}: " if process.count > 1 else ""
    try:
        yield outcome
    except BrokenPipeError:         # whoever read the output has gone
        raise
    except Exception as error:
        raise_stop(error)
        outcome.status = WRONG_USAGE if isinstance(error, ConfigError) else FAILED
        if isinstance(error, ConfigError | PipelineError):
            print(f"{who}{error}", file=sys.stderr)
        elif is_out_of_memory(error):
            print(f"{who}{TOO_LITTLE_MEMORY} ({str(error) or type(error).__name__})".splitlines()[0], file=sys.stderr)
        elif isinstance(error, ImportError) and (error.name or "").split(".")[0] not in OWN:
            print(f"{who}{_explain_import(error)}", file=sys.stderr)
        else:                       # a bug
            print(f"Unexpected {type(error).__name__}: {error}", file=sys.stderr)
            _log_traceback()
        _print_notes(error)


def _print_notes(error: BaseException) -> None:
    """What was noted about an error on its way: a run, that it can be resumed."""
    for note in getattr(error, "__notes__", ()):
        print(note, file=sys.stderr)


def find_stop(error: BaseException) -> BaseException | None:
    """The Ctrl-C or SIGTERM that an error is, or stands for; None: it is an error of its own.

    Ctrl-C while a compiled module is loaded comes as an ImportError from it; a signal just before a lock is made or
    taken makes `finally` give back what was not held, which Python reports instead.
    """
    found: BaseException | None = error
    for _ in range(MOST_CAUSES):
        if isinstance(found, STOPS) or found is None:
            return found
        of_a_lock = any(words in str(found) for words in OF_LOCKS)
        found = found.__cause__ or (found.__context__ if of_a_lock else None)
    return None


def raise_stop(error: BaseException) -> None:
    """Raise the Ctrl-C or SIGTERM that an error stands for, where it does."""
    if (stop := find_stop(error)) is not None:
        raise stop from None


def _explain_import(error: ImportError) -> str:
    """One line on why a package of others cannot be imported, and what to do."""
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    if isinstance(error, ModuleNotFoundError):
        return f"{reason}. Install what the program needs: pip install -r requirements.txt"
    if "libGL" in reason or "libgthread" in reason:     # OpenCV's, on a Linux without a desktop
        return f"{reason}. OpenCV needs a library of the system, on Debian and Ubuntu: apt install libgl1 libglib2.0-0"
    return (f"{error.name or 'A package'} is there, but cannot be loaded: {reason}. Install it anew, "
            "in the versions that belong together: pip install --force-reinstall -r requirements.txt")


def _log_traceback() -> None:
    from config import PATHS

    try:
        PATHS.error_log.parent.mkdir(parents=True, exist_ok=True)
        with open(PATHS.error_log, "a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(traceback.format_exc() + "\n")
        print(f"This is a bug; please report it with {PATHS.error_log}", file=sys.stderr)
    except OSError:
        traceback.print_exc()


# ---- Signals and streams

@contextlib.contextmanager
def open_terminal() -> Iterator[Outcome]:
    """Make streams and signals what the program wants; the end of all that is done within, by Ctrl-C too, is calm.

    Yields:
        The outcome of it all: its status is the program's.
    """
    _prepare_streams()
    os.environ["MPLBACKEND"] = "agg"    # pictures go into files; a notebook's backend is not everywhere
    signal.signal(signal.SIGTERM, _terminate)
    sys.unraisablehook = _raise_again
    outcome = Outcome()
    try:
        yield outcome
        sys.stdout.flush()
    except KeyboardInterrupt as stop:
        print("\nStopped.", file=sys.stderr)
        _print_notes(stop)
        outcome.status = INTERRUPTED
    except SystemExit as stop:      # of SIGTERM, too
        _print_notes(stop)
        raise
    except OSError as error:        # of stdout: it was closed (`| head`), or its disk is full
        if not isinstance(error, BrokenPipeError):
            print(f"The output cannot be written: {error.strerror}.", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())      # or Python complains when it ends
        outcome.status = FAILED


def _prepare_streams() -> None:
    """Streams that take anything: a closed one leads nowhere, what a console cannot show becomes ?."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))      # noqa: SIM115 - for as long as the program runs
    for stream, errors in ((sys.stdin, "surrogateescape"), (sys.stdout, "replace"), (sys.stderr, "replace")):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=errors)


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)       # what is saved on the way out is saved whole
    raise SystemExit(TERMINATED)


def _raise_again(unraisable: Any) -> None:
    """Ctrl-C or SIGTERM that fell into a destructor, where Python drops exceptions, comes again a moment later."""
    stop = unraisable.exc_value and find_stop(unraisable.exc_value)
    number = signal.SIGTERM if isinstance(stop, SystemExit) else signal.SIGINT
    if stop is None:
        sys.__unraisablehook__(unraisable)
    elif not sys.is_finalizing():
        if number == signal.SIGTERM:
            signal.signal(number, _terminate)
        timer = threading.Timer(0.05, _thread.interrupt_main, [number])
        timer.daemon = True
        timer.start()


@contextlib.contextmanager
def hold_signals() -> Iterator[None]:
    """Hold Ctrl-C and SIGTERM back while compiled modules are loaded: an exception in their midst can kill Python."""
    held: list[int] = []
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    handlers = {number: handler for number, handler in handlers.items() if callable(handler)}
    for number in handlers:
        signal.signal(number, lambda number, _frame: held.append(number))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if held:
            signal.raise_signal(held[0])
