"""The menu and the command line. Chooses; never works.

    python main.py                          the menu
    python main.py 1                        one option, by number
    python main.py train_image --epochs 5   or by name; --help tells its flags
"""

import functools
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from typing import NamedTuple

from processing import flags, settings, terminal
from processing.parallel import this_process
from processing.terminal import DONE, FAILED, WRONG_USAGE, hold_signals

# ---- One short function per option. What flags say is read first, so that what is wrong with them is said at once;
# ---- torch, cv2 and pandas are imported when an option runs

def processing_data(arguments: Namespace) -> None:
    with hold_signals():
        from processing.data_factory import processing_data
    processing_data(strict=arguments.strict)


def train_image(arguments: Namespace) -> None:
    configs, start = flags.build_image_configs(arguments), flags.read_start(arguments)
    with hold_signals():
        from model.training import train
    train(configs, **start)


def train_csv(arguments: Namespace) -> None:
    config, start = flags.build_csv_config(arguments), flags.read_start(arguments)
    with hold_signals():
        from model.training import train
    train([config], **start)


def train_csv_and_image(arguments: Namespace) -> None:
    csv = flags.build_csv_config(arguments, flags.CSV_PREFIX)
    images, start = flags.build_image_configs(arguments, flags.IMAGE_PREFIX), flags.read_start(arguments)
    with hold_signals():
        from model.training import train
    train([csv, *images], **start)


def predict_before_after(arguments: Namespace) -> None:
    with hold_signals():
        from data.predict import predict_before_after
    predict_before_after(**flags.read_prediction(arguments, flags.BEFORE_AFTER))


def predict_all(arguments: Namespace) -> None:
    with hold_signals():
        from data.predict import predict_all
    predict_all(**flags.read_prediction(arguments, flags.ALL))


def check_data(_arguments: Namespace) -> int:
    with hold_signals():
        from processing.check import check_data
    return FAILED if any(finding.severity == "stops" for finding in check_data()) else DONE


def import_data(arguments: Namespace) -> None:
    sources = flags.read_sources(arguments.sources or terminal.ask_lines("sources"))
    with hold_signals():
        from config import PATHS
        from processing.importer import import_data
    import_data(PATHS, sources, confirm=functools.partial(terminal.confirm, sure=arguments.yes))


def evaluate(arguments: Namespace) -> None:
    flags.check_evaluate_flags(arguments)
    with hold_signals():
        from data.evaluate import evaluate
        from data.scorer import describe_scores
    if arguments.submission:
        terminal.say(describe_scores(arguments.submission, arguments.truth))
    else:
        evaluate(images=arguments.images, device=arguments.device)


def compare_runs(arguments: Namespace) -> None:
    with hold_signals():
        from data.compare import compare_runs
    compare_runs(runs=arguments.runs)


def demo(arguments: Namespace) -> None:
    with hold_signals():
        from data.demonstration import run_demo
    run_demo(size=arguments.size, eyes=arguments.eyes, seed=arguments.seed)


def measure(arguments: Namespace) -> None:
    files, own, shared = flags.read_measure(arguments)
    with hold_signals():
        from data.measure import measure_all
        from data.measure_files import measure_files
    if files or arguments.lines:
        measure_files(files, **own, **shared)
    else:
        measure_all(**shared)


def export(arguments: Namespace) -> None:
    with hold_signals():
        from model.export import export
    export(runs=arguments.runs, out=arguments.out, pictures=arguments.pictures, unfinished=arguments.allow_unfinished)


def train_segmentation(arguments: Namespace) -> None:
    config, start = flags.build_segmentation_config(arguments), flags.read_start(arguments)
    with hold_signals():
        from model.training import train
    train([config], **start)


# ---- The table of options

class Option(NamedTuple):
    """A row of the menu, which is also a sub-command."""

    number: str
    name: str
    help: str
    run: Callable[[Namespace], int | None]      # its exit status; None: done
    add_flags: Callable[[ArgumentParser], None]

    @property
    def command(self) -> str:
        """The name as one word of the command line."""
        return self.name.replace(" + ", "_")


OPTIONS = (
    Option("0", "processing_data", "cut the scans and make the tables", processing_data, flags.add_processing_flags),
    Option("1", "train_image", "train the image models", train_image,
           functools.partial(flags.add_training_flags, image=True)),
    Option("2", "train_csv", "train Model-CSV", train_csv, functools.partial(flags.add_training_flags, csv=True)),
    Option("3", "train_csv + train_image", "options 2 and 1", train_csv_and_image,
           functools.partial(flags.add_training_flags, image=True, csv=True)),
    Option("4", "predict_before_after", "predict with Before and After", predict_before_after,
           functools.partial(flags.add_predict_flags, checkpoints=flags.BEFORE_AFTER)),
    Option("5", "predict_all", "predict with All", predict_all,
           functools.partial(flags.add_predict_flags, checkpoints=flags.ALL)),
    Option("6", "check_data", "report all that is wrong or odd with the data", check_data, flags.add_no_flags),
    Option("7", "import_data", "lay out downloaded files under data/source", import_data, flags.add_import_flags),
    Option("8", "evaluate", "score held-out eyes, or a submission against a truth", evaluate,
           flags.add_evaluate_flags),
    Option("9", "compare_runs", "loss curves of runs over one another", compare_runs, flags.add_compare_flags),
    Option("10", "demo", "make synthetic data and run everything on it", demo, flags.add_demo_flags),
    Option("11", "measure", "thickness and fluid of B-scans: of the data set, or of your own", measure,
           flags.add_measure_flags),
    Option("12", "export", "networks as ONNX files, to look at or run elsewhere", export, flags.add_export_flags),
    Option("13", "train_segmentation", "train Model-Segmentation anew, on scans that are drawn for it",
           train_segmentation, flags.add_segmentation_flags),
)
IN_SEVERAL_PROCESSES = "train_image"        # the option that torchrun may start
QUIT = ("q", "quit", "exit")


def find_option(text: str) -> Option | None:
    """The option of that number or name, or None."""
    return next((option for option in OPTIONS if text in (option.number, option.name, option.command)), None)


def build_parser() -> ArgumentParser:
    """The command line: one sub-command per option, by name or number."""
    parser = ArgumentParser(
        prog="main.py", description="Predict the response of eyes with macular oedema to anti-VEGF treatment from OCT."
    )
    commands = parser.add_subparsers(title="options (none: the menu)", metavar="OPTION",
                                     parser_class=flags.OptionParser)
    for option in OPTIONS:
        command = commands.add_parser(
            option.command, aliases=sorted({option.number, option.name} - {option.command}),
            help=f"{option.number}: {option.help}", description=option.help, usage="%(prog)s [flags]",
        )
        option.add_flags(command)
        command.set_defaults(option=option)
    return parser


def run_menu() -> int:
    """Ask and run until the user quits or the input ends. Returns the last option's exit status."""
    status = DONE
    while True:
        for row in OPTIONS:
            print(f"{row.number} -> {row.name}")
        print("q -> quit")
        option = pick_option()
        if option is None:
            return status
        status = run(option, build_parser().parse_args([option.number]))


def pick_option() -> Option | None:
    """The option that the user picks, or None to quit."""
    while (text := terminal.ask("option")) is not None and text.lower() not in QUIT:
        option = find_option(text)
        if option is not None:
            return option
        terminal.tell("no option")
    return None


def run(option: Option, arguments: Namespace) -> int:
    """Run an option; errors become one or two lines. Returns the exit status."""
    from model_config import ConfigError

    with terminal.report_errors() as outcome:
        if this_process().count > 1 and option.name != IN_SEVERAL_PROCESSES:
            raise ConfigError(f"Only {IN_SEVERAL_PROCESSES} works in several processes; start this without torchrun.")
        outcome.status = option.run(arguments) or DONE
    return outcome.status


def main(words: list[str] | None = None) -> int:
    """Run the command line `words` (default: sys.argv) or the menu. Returns the exit status."""
    with terminal.open_terminal() as outcome:
        if not settings.check_settings():
            outcome.status = WRONG_USAGE
        elif hasattr(arguments := build_parser().parse_args(words), "option"):
            outcome.status = run(arguments.option, arguments)
        elif this_process().count > 1:
            print(f"The menu is for one process; name what several are to do: {IN_SEVERAL_PROCESSES}.", file=sys.stderr)
            outcome.status = WRONG_USAGE
        else:
            outcome.status = run_menu()
    return outcome.status


if __name__ == "__main__":
    sys.exit(main())
