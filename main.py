"""The menu and the command line. Chooses; never works.

    python main.py                          the menu
    python main.py 1                        one option, by number
    python main.py train_image --epochs 5   or by name; --help tells its flags
"""

import _thread
import argparse
import contextlib
import dataclasses
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from typing import NamedTuple

DONE, FAILED, WRONG_USAGE, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143

FIELD_HELP = {
    "epochs": "passes over the data",
    "learning_rate": "Adam's step",
    "batch_size": "images or eyes per step",
    "seed": "first weights and order of the data",
    "recipe": "seed (as in 2021), fixed, resnet (images only) or best (Model-CSV only)",
    "init_from": "run folder or checkpoint file to start from",
    "fold": "eyes to leave out and measure on: none, one of 0 to 4, or all (five trainings)",
    "device": "auto, cuda, mps or cpu",
    "workers": "threads that read images; -1: chosen for the machine",
    "precision": "float32, or bf16: half the memory, and faster where the machine has it",
}
IMAGE_FIELDS = (
    "epochs", "learning_rate", "batch_size", "seed", "recipe", "init_from", "fold", "device", "workers", "precision",
)
CSV_FIELDS = ("epochs", "learning_rate", "batch_size", "seed", "recipe", "init_from", "fold", "device")
SHARED_FIELDS = tuple(name for name in CSV_FIELDS if name != "init_from")       # no checkpoint fits both kinds
BEFORE_AFTER_FLAGS = {"image_before": "Model-Image-Before", "image_after": "Model-Image-After", "csv": "Model-CSV"}
ALL_FLAGS = {"image_all": "Model-Image-All", "csv": "Model-CSV"}


# ---- One short function per option: torch, cv2 and pandas are imported when one of them runs

@contextlib.contextmanager
def _signals_held():
    """Hold Ctrl-C and SIGTERM back while compiled modules are loaded: an exception in their midst can kill Python."""
    held = []
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


def processing_data(arguments):
    with _signals_held():
        from processing.data_factory import processing_data
    processing_data(strict=arguments.strict)


def train_image(arguments):
    with _signals_held():
        from model.training import train_image
    train_image(configs=_image_configs(arguments), **_starts(arguments))


def train_csv(arguments):
    with _signals_held():
        from model.training import train_csv
    train_csv(config=_csv_config(arguments), **_starts(arguments))


def train_csv_and_image(arguments):
    with _signals_held():
        from model.training import train_csv_and_image
    configs = {"csv_config": _csv_config(arguments, "csv_"), "image_configs": _image_configs(arguments, "image_")}
    train_csv_and_image(**configs, **_starts(arguments))


def predict_before_after(arguments):
    with _signals_held():
        from data.predict import predict_before_after
    predict_before_after(**_prediction(arguments, BEFORE_AFTER_FLAGS))


def predict_all(arguments):
    with _signals_held():
        from data.predict import predict_all
    predict_all(**_prediction(arguments, ALL_FLAGS))


def check_data(_arguments):
    with _signals_held():
        from processing.check import check_data
    if any(finding.severity == "stops" for finding in check_data()):
        return FAILED


def import_data(arguments):
    with _signals_held():
        from pathlib import Path
    with _signals_held():
        from config import PATHS
        from model_config import ConfigError
        from processing.importer import import_data
    if "" in map(str.strip, arguments.sources):
        raise ConfigError("An empty name was given; name folders, zip files or tables.")
    sources = [Path(source).expanduser() for source in arguments.sources or _ask_for_sources()]
    import_data(PATHS, sources, confirm=_say_yes if arguments.yes else _confirm)


def evaluate(arguments):
    with _signals_held():
        from data.evaluate import evaluate
        from data.scorer import describe_scores
        from model_config import ConfigError
    if bool(arguments.submission) != bool(arguments.truth):
        raise ConfigError("--submission and --truth belong together: what was predicted, and what is true.")
    if arguments.submission and (arguments.images, arguments.device) != ("auto", "auto"):
        raise ConfigError("A submission is scored without any model; leave out --images and --device.")
    if arguments.submission:
        print(describe_scores(arguments.submission, arguments.truth))
    else:
        evaluate(images=arguments.images, device=arguments.device)


def compare_runs(arguments):
    with _signals_held():
        from data.compare import compare_runs
    compare_runs(runs=arguments.runs)


def demo(arguments):
    with _signals_held():
        from config import PATHS, Paths
        from data.predict import predict_all, predict_before_after
        from data.scorer import describe_match
        from model.training import train_csv_and_image
        from model_config import DEMO_CSV_MODEL, DEMO_IMAGE_MODELS
        from processing.data_factory import processing_data
        from processing.demo import SIZES, write_demo
    # A root of its own: nothing of it mixes with real data or checkpoints, or with another demonstration
    paths = Paths(PATHS.root / "demo" / f"{arguments.size}-{arguments.seed}")
    write_demo(paths, SIZES[arguments.size], seed=arguments.seed)
    processing_data(paths)
    train_csv_and_image(paths, DEMO_CSV_MODEL, DEMO_IMAGE_MODELS)
    results = predict_before_after(paths), predict_all(paths)
    print(f"Scans and tables:  {paths.source} (synthetic), crops and tables made of them: {paths.processed}")
    print(f"Models and plots:  {paths.ckpt}")
    print(f"Submissions:       {results[0]} (Before and After), {results[1]} (All)")
    print(f"Before and After against the known answers: {describe_match(results[0], paths.truth)}")
    print(f"All against the known answers: {describe_match(results[1], paths.truth)}")


# ---- Flags

def _add_no_flags(_parser):
    pass


def _add_processing_flags(parser):
    text = "stop before any table is written if a single image is unreadable or unknown to the tables"
    parser.add_argument("--strict", action="store_true", help=text)


def _add_image_flags(parser):
    _add_start_flags(parser)
    _add_models_flag(parser)
    _add_config_flags(parser, IMAGE_FIELDS, "all image models that are trained")


def _add_csv_flags(parser):
    _add_start_flags(parser)
    _add_config_flags(parser, CSV_FIELDS, "Model-CSV")


def _add_both_flags(parser):
    _add_start_flags(parser)
    _add_models_flag(parser)
    _add_config_flags(parser, SHARED_FIELDS, "Model-CSV and the image models")
    _add_config_flags(parser, CSV_FIELDS, "Model-CSV alone", "csv_")
    _add_config_flags(parser, IMAGE_FIELDS, "the image models alone", "image_")


def _add_start_flags(parser):
    text = "go on with an unfinished run (that one, or the newest), then with what was to follow it; by its own config"
    parser.add_argument("--resume", nargs="?", const="", metavar="RUN", help=text)
    _add_unfinished_flag(parser)


def _add_unfinished_flag(parser):
    text = "take checkpoints of runs that are not finished too"
    parser.add_argument("--allow-unfinished", action="store_true", help=text)


def _add_models_flag(parser):
    from model_config import IMAGE_MODELS

    names = [config.name for config in IMAGE_MODELS]
    parser.add_argument("--models", nargs="+", choices=names, default=names, help="image models to train (all)")


def _add_config_flags(parser, fields, models, prefix=""):
    """A flag for each field of the config of `models`; without it, model_config.py decides."""
    from model_config import ImageConfig

    types = {field.name: field.type for field in dataclasses.fields(ImageConfig)}
    group = parser.add_argument_group(f"config of {models} (what no flag says, model_config.py does)")
    for name in fields:
        flag = "--" + (prefix + name).replace("_", "-")
        group.add_argument(flag, type=types[name], default=argparse.SUPPRESS, help=FIELD_HELP[name])


def _add_before_after_flags(parser):
    _add_predict_flags(parser, BEFORE_AFTER_FLAGS)


def _add_all_flags(parser):
    _add_predict_flags(parser, ALL_FLAGS)


def _add_predict_flags(parser, checkpoints):
    for flag, name in checkpoints.items():
        text = f"run folder or checkpoint file of {name}; default: its newest finished run"
        parser.add_argument("--" + flag.replace("_", "-"), metavar="PATH", help=text)
    parser.add_argument("--device", default="auto", help=FIELD_HELP["device"])
    _add_unfinished_flag(parser)


def _add_import_flags(parser):
    text = "folders, zip files or tables as downloaded; without any, the program asks"
    parser.add_argument("sources", nargs="*", metavar="PATH", help=text)
    parser.add_argument("--yes", action="store_true", help="do it without asking")


def _add_evaluate_flags(parser):
    text = "result folder or CSV files to score, anyone's; without it, held-out eyes are predicted and scored"
    parser.add_argument("--submission", nargs="+", metavar="PATH", help=text)
    parser.add_argument("--truth", nargs="+", metavar="PATH", help="folder or CSV files with the true values")
    text = "which image models give thickness and findings; labels: the doctor's instead; auto: the first with runs"
    parser.add_argument("--images", choices=("auto", "before_after", "all", "labels"), default="auto", help=text)
    parser.add_argument("--device", default="auto", help=FIELD_HELP["device"])


def _add_compare_flags(parser):
    text = "run folders to compare; without any, the newest two of each model"
    parser.add_argument("runs", nargs="*", metavar="RUN", help=text)


def _add_demo_flags(parser):
    text = "how much data it makes (default)"
    parser.add_argument("--size", choices=("smallest", "default"), default="default", help=text)
    parser.add_argument("--seed", type=_seed, default=2021, help="the eyes that it invents (2021)")


def _seed(text):
    """A whole number, 0 or more."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number, 0 or more")
    return int(text)


def _image_configs(arguments, prefix=""):
    from model_config import IMAGE_MODELS

    given = _given(arguments, IMAGE_FIELDS, prefix)
    return [dataclasses.replace(config, **given) for config in IMAGE_MODELS if config.name in arguments.models]


def _csv_config(arguments, prefix=""):
    from model_config import CSV_MODEL, FIELDS_OF_EPOCHS, ConfigError

    config = dataclasses.replace(CSV_MODEL, **_given(arguments, CSV_FIELDS, prefix))
    useless = [prefix + name for name in FIELDS_OF_EPOCHS if prefix + name in vars(arguments)]
    if config.recipe == "best" and useless:
        raise ConfigError(f"The recipe best has no epochs, learning rate and batches; leave out {_flags(useless)}.")
    return config


def _given(arguments, fields, prefix):
    """The fields that flags set; one with the prefix wins over one without."""
    values = vars(arguments)
    shared = {name: values[name] for name in fields if name in values}
    return shared | {name: values[prefix + name] for name in fields if prefix + name in values}


def _starts(arguments):
    """What a training starts from. A resumed run has its own config: flags for it would be lost."""
    from model_config import ConfigError

    given = [name for name in vars(arguments) if name.removeprefix("csv_").removeprefix("image_") in FIELD_HELP]
    if arguments.resume is not None and given:
        raise ConfigError(f"--resume takes the run's own config; leave out {_flags(given)}.")
    return {"resume": arguments.resume, "unfinished": arguments.allow_unfinished}


def _flags(names):
    return ", ".join("--" + name.replace("_", "-") for name in names)


def _prediction(arguments, flags):
    checkpoints = {name: getattr(arguments, flag) for flag, name in flags.items()}
    return {
        "checkpoints": checkpoints, "device": arguments.device, "unfinished": arguments.allow_unfinished,
    }


# ---- The table of options

class Option(NamedTuple):
    number: str
    name: str
    help: str
    run: Callable
    add_flags: Callable


OPTIONS = (
    Option("0", "processing_data", "cut the scans and make the tables", processing_data, _add_processing_flags),
    Option("1", "train_image", "train the image models", train_image, _add_image_flags),
    Option("2", "train_csv", "train Model-CSV", train_csv, _add_csv_flags),
    Option("3", "train_csv + train_image", "options 2 and 1", train_csv_and_image, _add_both_flags),
    Option("4", "predict_before_after", "predict with Before and After", predict_before_after, _add_before_after_flags),
    Option("5", "predict_all", "predict with All", predict_all, _add_all_flags),
    Option("6", "check_data", "report all that is wrong or odd with the data", check_data, _add_no_flags),
    Option("7", "import_data", "lay out downloaded files under data/source", import_data, _add_import_flags),
    Option("8", "evaluate", "score held-out eyes, or a submission against a truth", evaluate, _add_evaluate_flags),
    Option("9", "compare_runs", "loss curves of runs over one another", compare_runs, _add_compare_flags),
    Option("10", "demo", "make synthetic data and run everything on it", demo, _add_demo_flags),
)
IN_SEVERAL_PROCESSES = "train_image"        # the option that torchrun may start
QUIT = ("q", "quit", "exit")
FULL_WIDTH = {0xFEE0 + code: code for code in range(0x21, 0x7F)}      # as typed with a Chinese keyboard


def find_option(text):
    """The option of that number or name, or None."""
    wanted = text.translate(FULL_WIDTH).strip()
    return next((option for option in OPTIONS if wanted in (option.number, option.name, _command(option))), None)


def _command(option):
    """The option's name as one word of the command line."""
    return option.name.replace(" + ", "_")


def build_parser():
    """The command line: one sub-command per option, by name or number."""
    parser = argparse.ArgumentParser(
        prog="main.py", description="Predict the response of eyes with macular oedema to anti-VEGF treatment from OCT."
    )
    commands = parser.add_subparsers(metavar="OPTION", title="options (none: the menu)")
    for option in OPTIONS:
        command = commands.add_parser(
            _command(option), aliases=sorted({option.number, option.name} - {_command(option)}),
            help=f"{option.number}: {option.help}", description=option.help, usage="%(prog)s [flags]",
        )
        option.add_flags(command)
        command.set_defaults(option=option)
    return parser


def run_menu():
    """Ask and run until the user quits or the input ends. Returns the last option's exit status."""
    status = DONE
    while True:
        for option in OPTIONS:
            print(f"{option.number} -> {option.name}")
        print("q -> quit")
        option = _ask()
        if option is None:
            return status
        status = run(option, build_parser().parse_args([option.number]))


def _ask():
    """The option that the user picks, or None to quit."""
    while True:
        try:
            text = input("Pick a number / 请输入数字: ")
        except EOFError:
            print()
            return None
        if text.translate(FULL_WIDTH).strip().lower() in QUIT:
            return None
        option = find_option(text)
        if option is not None:
            return option
        print("Not an option; type one of the numbers above. / 没有这个选项，请输入上面的数字。")


def _ask_for_sources():
    """Paths that the user types, one a line, until an empty line or the end of input."""
    from processing.errors import PipelineError

    sources = []
    print("Folders, zip files or tables to import, one a line, then an empty line:")
    print("要导入的文件夹、压缩包或表格，每行一个，空行结束：")
    with contextlib.suppress(EOFError):
        while line := input("> ").strip():
            sources.append(line.strip("\"'"))
    if not sources:
        raise PipelineError("Nothing was named; nothing is imported.")
    return sources


def _confirm(plan):
    """Show the plan and ask; the end of input is a no."""
    print(plan)
    try:
        return input("Do it? y / n: ").translate(FULL_WIDTH).strip().lower() in ("y", "yes", "是")
    except EOFError:
        print()
        return False


def _say_yes(plan):
    print(plan)
    return True


def run(option, arguments):
    """Run an option; errors become one or two lines. Returns the exit status."""
    from model_config import ConfigError
    from processing.errors import PipelineError
    from processing.parallel import PROCESSES, RANK

    who = f"Process {RANK + 1} of {PROCESSES}: " if PROCESSES > 1 else ""
    try:
        if PROCESSES > 1 and option.name != IN_SEVERAL_PROCESSES:
            raise ConfigError(f"Only {IN_SEVERAL_PROCESSES} works in several processes; start this without torchrun.")
        return option.run(arguments) or DONE
    except ConfigError as error:
        print(f"{who}{error}", file=sys.stderr)
        return WRONG_USAGE
    except PipelineError as error:
        print(f"{who}{error}", file=sys.stderr)
        return FAILED
    except ModuleNotFoundError as error:
        print(f"{error}. Install what the program needs: pip install -r requirements.txt", file=sys.stderr)
        return FAILED
    except BrokenPipeError:         # whoever read the output has gone
        raise
    except Exception as error:      # a bug: the traceback goes to a file
        if _was_interrupted(error):
            raise KeyboardInterrupt from error
        print(f"Unexpected {type(error).__name__}: {error}", file=sys.stderr)
        _log_traceback()
        return FAILED


def _was_interrupted(error):
    """Whether Ctrl-C lies behind an error (pressed while a compiled module is loaded, it becomes an ImportError)."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__
    return error is not None


def _log_traceback():
    from config import PATHS

    try:
        PATHS.error_log.parent.mkdir(parents=True, exist_ok=True)
        with open(PATHS.error_log, "a", encoding="utf-8") as file:
            file.write(traceback.format_exc() + "\n")
        print(f"This is a bug; please report it with {PATHS.error_log}", file=sys.stderr)
    except OSError:
        traceback.print_exc()


def _complain_of_configuration():
    """Say what is wrong in config.py or model_config.py, if they cannot be used. Returns whether that is so."""
    try:
        import config  # noqa: F401
        import model_config  # noqa: F401
    except (ValueError, TypeError, NameError, AttributeError) as error:
        place = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in place if frame.filename.endswith("config.py") and frame.name == "<module>"]
        where = f"{own[-1].filename}, line {own[-1].lineno}: " if own else ""
        print(f"{where}{error}", file=sys.stderr)
        return True
    return False


def _terminate(_signal, _frame):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)       # what is saved on the way out is saved whole
    raise SystemExit(TERMINATED)


def _raise_again(unraisable):
    """Ctrl-C or SIGTERM that fell into a destructor, where Python drops exceptions, comes again a moment later."""
    number = {KeyboardInterrupt: signal.SIGINT, SystemExit: signal.SIGTERM}.get(unraisable.exc_type)
    if number is None:
        sys.__unraisablehook__(unraisable)
    elif not sys.is_finalizing():
        if number == signal.SIGTERM:
            signal.signal(number, _terminate)
        timer = threading.Timer(0.05, _thread.interrupt_main, [number])
        timer.daemon = True
        timer.start()


def _prepare_streams():
    """Streams that take anything: a closed one leads nowhere, what a console cannot show becomes ?."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))      # noqa: SIM115 - for as long as the program runs
    for stream, errors in ((sys.stdin, "surrogateescape"), (sys.stdout, "replace"), (sys.stderr, "replace")):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=errors)


def main(words=None):
    """Run the command line `words` (default: sys.argv) or the menu. Returns the exit status."""
    _prepare_streams()
    signal.signal(signal.SIGTERM, _terminate)
    sys.unraisablehook = _raise_again
    try:
        status = _choose(words)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return INTERRUPTED
    except OSError as error:        # of stdout: it was closed (`| head`), or its disk is full
        if not isinstance(error, BrokenPipeError):
            print(f"The output cannot be written: {error.strerror}.", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())      # or Python complains when it ends
        return FAILED


def _choose(words):
    if _complain_of_configuration():
        return WRONG_USAGE
    arguments = build_parser().parse_args(words)
    if not hasattr(arguments, "option"):
        from processing.parallel import PROCESSES

        if PROCESSES > 1:
            print(f"The menu is for one process; name what several are to do: {IN_SEVERAL_PROCESSES}.", file=sys.stderr)
            return WRONG_USAGE
        return run_menu()
    return run(arguments.option, arguments)


if __name__ == "__main__":
    sys.exit(main())
