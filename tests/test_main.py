"""The menu and the command line, as a user meets them."""

import contextlib
import functools
import io
import json
import os
import subprocess
import sys
import threading
import types
from unittest import mock

import pytest

import config
import main
from processing import flags, terminal
from processing.errors import PipelineError
from tests.helpers import REPOSITORY, put_screen, run_main, run_warm

MENU = [
    "0 -> processing_data",
    "1 -> train_image",
    "2 -> train_csv",
    "3 -> train_csv + train_image",
    "4 -> predict_before_after",
    "5 -> predict_all",
]
HEAVY = ("torch", "torchvision", "cv2", "pandas", "numpy", "matplotlib", "sklearn", "tqdm")


def test_the_menu_prints_the_options_and_asks_in_both_languages(paths, tmp_path):
    answer = run_main(root=tmp_path, typed="q\n")
    lines = answer.stdout.splitlines()
    assert lines[: len(MENU)] == MENU
    assert "Pick a number / 请输入数字" in answer.stdout
    assert answer.returncode == 0


def test_the_menu_appears_before_anything_heavy_is_imported(tmp_path):
    program = f"import sys, main; main.main([]); print([name for name in {HEAVY} if name in sys.modules])"
    answer = subprocess.run(
        [sys.executable, "-c", program], input="nothing\n", capture_output=True, encoding="utf-8", cwd=REPOSITORY,
        env=os.environ | {"PYTHONIOENCODING": "utf-8"}, timeout=60,
    )
    assert answer.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("typed", ["99", "", "-1", "0_1", "0x0", "1.0", "一", "²", "x" * 5000, "\0"])
def test_anything_but_an_option_is_answered_with_one_line_and_asked_again(tmp_path, typed):
    answer = run_warm(root=tmp_path, typed=typed + "\nq\n")
    assert answer.stdout.count("Not an option") == 1
    assert answer.stdout.count("Pick a number") == 2
    assert (answer.returncode, answer.stderr) == (0, "")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("typed", ["", "99", "0"])
def test_end_of_input_ends_the_program_without_a_traceback(tmp_path, typed):
    answer = run_warm(root=tmp_path, typed=typed)
    assert "Traceback" not in answer.stdout + answer.stderr
    assert answer.returncode == (1 if typed == "0" else 0)


@pytest.mark.skipif(os.name == "nt", reason="the shell is another")
@pytest.mark.parametrize(
    ("streams", "status"),
    [(">&-", 0), ("<&-", 0), ("2>&-", 0), ("> /dev/full", 1), ("| head -n 1", 0), ("2 > /dev/full", 1)],
)
def test_streams_that_are_closed_or_full_give_no_traceback(tmp_path, streams, status):
    answer = subprocess.run(
        f"exec {sys.executable} {REPOSITORY / 'main.py'} {streams}", shell=True, input="q\n", capture_output=True,
        encoding="utf-8", env=os.environ | {"APTOS_ROOT": str(tmp_path), "PYTHONUNBUFFERED": "1"}, timeout=60,
    )
    assert "Traceback" not in answer.stdout + answer.stderr
    assert "Exception ignored" not in answer.stderr
    assert answer.returncode == status
    assert not (tmp_path / "model").exists()        # no error.log: it is no bug


def test_a_missing_package_is_named_with_what_to_do(tmp_path):
    program = "import sys, main; sys.modules['pandas'] = None; sys.exit(main.main(['0']))"
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, encoding="utf-8", cwd=REPOSITORY,
        env=os.environ | {"APTOS_ROOT": str(tmp_path)}, timeout=60,
    )
    assert "pandas" in answer.stderr and "pip install -r requirements.txt" in answer.stderr
    assert answer.returncode == 1


@pytest.mark.parametrize(
    ("text", "name"),
    [("2", "train_csv"), ("predict_all", "predict_all"), ("train_csv + train_image",) * 2,
     ("train_csv_train_image", "train_csv + train_image"), ("22", None), ("", None), ("②", None)],
)
def test_options_are_found_by_number_and_name(text, name):
    option = main.find_option(text)
    assert (option and option.name) == name


@pytest.mark.parametrize(
    ("typed", "answer"),
    [("２\n", "2"), ("  ｑｕｉｔ\u3000\n", "quit"), ("ＹＥＳ", "YES"), ("\n", ""), ("一\n", "一"), ("", None)],
)
def test_an_answer_may_be_typed_full_width_and_the_end_of_input_is_none(monkeypatch, capsys, typed, answer):
    monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
    assert terminal.ask("option") == answer
    assert capsys.readouterr().out.startswith("Pick a number / 请输入数字: ")


@pytest.mark.parametrize(
    ("typed", "done"), [("y\n", True), ("是\n", True), ("ＹＥＳ\n", True), ("n\n", False), ("\n", False), ("", False)]
)
def test_a_plan_is_shown_and_done_only_after_a_yes(monkeypatch, capsys, typed, done):
    monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
    assert terminal.confirm("3 files") == done
    assert capsys.readouterr().out.startswith("3 files\nDo it? y, n / 要执行吗？是、否: ")
    assert terminal.confirm("3 files", sure=True)
    assert capsys.readouterr().out == "3 files\n"


def test_every_question_is_in_english_and_in_chinese():
    for english, chinese in terminal.TEXTS.values():
        assert english.isascii() and any("\u4e00" <= sign <= "\u9fff" for sign in chinese)


def test_an_option_that_fails_says_why_and_the_menu_goes_on(tmp_path):
    answer = run_warm(root=tmp_path, typed="4\n0\nq\n")
    assert "Model-Image-Before has no finished run" in answer.stderr
    assert "No images below" in answer.stderr
    assert answer.stdout.count("Pick a number") == 3
    assert "Traceback" not in answer.stderr


def test_every_option_works_through_the_menu(demo_copy):
    """Options 0 to 5, picked one after the other, with quick values set in model_config.py as a user would."""
    program = (
        "import dataclasses, main, model_config as m\n"
        "m.CSV_MODEL = dataclasses.replace(m.CSV_MODEL, epochs=2)\n"
        "m.IMAGE_MODELS[:] = [dataclasses.replace(c, epochs=1, batch_size=16) for c in m.IMAGE_MODELS]\n"
        "raise SystemExit(main.main([]))\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], input="0\n1\n2\n3\n4\n5\n0\nq\n", capture_output=True, encoding="utf-8",
        cwd=REPOSITORY, env=os.environ | {"APTOS_ROOT": str(demo_copy.root), "PYTHONIOENCODING": "utf-8"}, timeout=300,
    )
    assert (answer.returncode, answer.stderr) == (0, "")
    for name in ("Model-Image-Before", "Model-Image-After", "Model-Image-All", "Model-CSV"):
        assert len(list((demo_copy.ckpt / name).iterdir())) == 2
    assert len(list(demo_copy.result.glob("*/submit.zip"))) == 2
    newest = sorted((demo_copy.ckpt / "Model-CSV").iterdir(), key=lambda folder: (len(folder.name), folder.name))[-1]
    assert str(newest / "Model-CSV.pt") in answer.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["99"], "invalid choice"),
        (["train_image", "--epochs", "0"], "epochs is 0; it must be a whole number, 1 or more"),
        (["1", "--epochs", "many"], "invalid int value: 'many'"),
        (["1", "--learning-rate", "nan"], "learning_rate is nan"),
        (["2", "--recipe", "resnet"], "recipe is 'resnet'; it must be one of seed, fixed"),
        (["2", "--recipe", "best", "--epochs", "3"], "has no epochs, learning rate and batches; leave out --epochs."),
        (["3", "--csv-recipe", "best", "--csv-batch-size", "3"], "leave out --csv-batch-size."),
        (["1", "--device", "gpu"], "device is 'gpu'"),
        (["1", "--models", "Model-X"], "invalid choice: 'Model-X'"),
        (["0", "--epochs", "1"], "unrecognized arguments: --epochs 1 (main.py processing_data --help lists the flags)"),
        (["4", "--device", "foo"], "device is 'foo'; it must be one of auto, cuda"),
        (["4", "--image-all", "x"], "unrecognized arguments"),
        (["3", "--init-from", "x"], "unrecognized arguments"),
        (["demo", "--seed", "-1"], "'-1' is no whole number, 0 or more"),
        (["demo", "--eyes", "7"], "'7' is no whole number, 8 or more"),
        (["demo", "--eyes", "many"], "'many' is no whole number, 8 or more"),
        (["demo", "--eyes", "5000"], "5000 eyes cannot be shared over the four sets"),
        (["1", "--views", "nonsense"], "views is ('nonsense',); it must be one or more of bscan, fundus, bscan_full, "
         "none twice; or auto."),
        (["1", "--views", "bscan", "bscan"], "views is ('bscan', 'bscan'); it must be one or more of"),
        (["1", "--views"], "expected at least one argument"),
        (["1", "--pool", "eye"], "pool is 'eye'; it must be one of auto, image, visit."),
        (["1", "--augment", "wild"], "augment is 'wild'; it must be one of auto, none, mild, scan."),
        (["1", "--normalise", "all"], "normalise is 'all'; it must be one of auto, none, image."),
        (["3", "--image-schedule", "linear"], "schedule is 'linear'; it must be one of auto, constant, cosine, warm."),
        (["1", "--weight-decay", "-0.1"], "weight_decay is -0.1; it must be a number, 0 or more."),
        (["1", "--weight-decay", "inf"], "weight_decay is inf; it must be a number, 0 or more."),
        (["2", "--views", "bscan"], "unrecognized arguments"),
        (["2", "--recipe", "best", "--init-from", "x"], "init_from is 'x'; it must be empty for the recipe best."),
        (["2", "--resume", "--epochs", "3"], "--resume takes the run's own config; leave out --epochs."),
        (["3", "--resume", "--image-views", "fundus"], "leave out --image-views."),
        (["8", "--submission", "x"], "--submission and --truth belong together"),
        (["8", "--submission", "x", "--truth", "y", "--device", "cpu"], "leave out --images and --device."),
        (["7", " "], "An empty name was given; name folders, zip files or tables."),
    ],
)
def test_wrong_usage_ends_with_status_2_and_a_line(tmp_path, words, message):
    answer = run_warm(*words, root=tmp_path)
    assert answer.returncode == 2
    assert message in answer.stderr
    assert "Traceback" not in answer.stderr


@pytest.mark.parametrize("option", main.OPTIONS, ids=lambda option: option.number)
def test_every_option_has_help_by_number_and_by_name(option, capsys):
    for word in (option.number, option.command):
        with pytest.raises(SystemExit) as ended:
            main.main([word, "--help"])
        assert ended.value.code == 0
    assert option.help in capsys.readouterr().out


def test_flags_reach_the_config_and_a_run(demo_copy):
    answer = run_warm(
        "train_csv", "--epochs", 3, "--learning-rate", "1e-4", "--batch-size", 2, "--seed", 7, "--recipe", "fixed",
        "--device", "cpu", root=demo_copy.root,
    )
    assert answer.returncode == 0, answer.stderr
    file, = (demo_copy.ckpt / "Model-CSV").glob("*/config.json")
    config = json.loads(file.read_text())
    assert (config["epochs"], config["learning_rate"], config["batch_size"]) == (3, 1e-4, 2)
    assert (config["seed"], config["recipe"], config["device"]) == (7, "fixed", "cpu")
    assert "epoch 3/3: loss" in answer.stdout


def test_in_option_3_a_prefixed_flag_wins_over_a_shared_one():
    arguments = main.build_parser().parse_args(["3", "--epochs", "4", "--image-epochs", "5", "--csv-recipe", "fixed"])
    image, csv = flags.build_image_configs(arguments, "image_")[0], flags.build_csv_config(arguments, "csv_")
    assert (image.epochs, image.recipe, csv.epochs, csv.recipe) == (5, "seed", 4, "fixed")


def test_a_bug_is_logged_not_shown(tmp_path, monkeypatch, capsys):
    import config

    def crash(_arguments):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(config, "PATHS", config.Paths(tmp_path))
    option = main.OPTIONS[0]._replace(run=crash)
    assert main.run(option, None) == 1
    shown = capsys.readouterr().err
    assert "Unexpected ZeroDivisionError: a bug" in shown
    assert "Traceback" not in shown
    assert "Traceback" in (tmp_path / "model" / "error.log").read_text()


def test_too_little_memory_is_one_line_and_no_bug(tmp_path, monkeypatch, capsys):
    import config

    def run_short(_arguments):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes\nat frame 0")

    monkeypatch.setattr(config, "PATHS", config.Paths(tmp_path))
    assert main.run(main.OPTIONS[0]._replace(run=run_short), None) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("There is too little memory. Close other programs") and shown.count("\n") == 1
    assert not list(tmp_path.rglob("error.log"))


@pytest.mark.parametrize(("error", "advice"), [
    (ModuleNotFoundError("No module named 'tqdm'", name="tqdm"), "pip install -r requirements.txt"),
    (ImportError("libGL.so.1: cannot open shared object file: No such file", name="cv2"), "apt install libgl1"),
    (ImportError("DLL load failed while importing _C: 找不到指定的模块\nmore", name="torch._C"), "--force-reinstall"),
    (ImportError("numpy.core.multiarray failed to import"), "--force-reinstall"),
])
def test_a_package_that_cannot_be_loaded_is_one_line_and_no_bug(tmp_path, monkeypatch, capsys, error, advice):
    import config

    monkeypatch.setattr(config, "PATHS", config.Paths(tmp_path))
    assert main.run(main.OPTIONS[0]._replace(run=mock.Mock(side_effect=error)), None) == 1
    shown = capsys.readouterr().err
    assert str(error).splitlines()[0] in shown and advice in shown and shown.count("\n") == 1
    assert not list(tmp_path.rglob("error.log"))


@pytest.mark.parametrize("error", [ImportError("cannot import name 'fit' from 'model.trees'", name="model.trees"),
                                   ModuleNotFoundError("No module named 'data.gone'", name="data.gone")])
def test_a_module_of_our_own_that_cannot_be_loaded_is_a_bug(tmp_path, monkeypatch, capsys, error):
    import config

    monkeypatch.setattr(config, "PATHS", config.Paths(tmp_path))
    assert main.run(main.OPTIONS[0]._replace(run=mock.Mock(side_effect=error)), None) == 1
    assert "This is a bug" in capsys.readouterr().err
    assert (tmp_path / "model" / "error.log").is_file()


def test_a_console_without_chinese_still_shows_the_menu(tmp_path):
    answer = run_main(root=tmp_path, typed="q\n", PYTHONIOENCODING="ascii")
    assert answer.returncode == 0
    assert "Pick a number / ?" in answer.stdout


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ("CSV_MODEL = CSVConfig(epochs=0)", "CSVConfig: epochs is 0; it must be a whole number, 1 or more."),
        ("CSV_MODEL = CSVConfig(epoch=5)", "unexpected keyword argument 'epoch'"),
        ("CSV_MODEL = CSVConfg()", "name 'CSVConfg' is not defined"),
        ("CSV_MODEL = CSVConfig(", "'(' was never closed"),
        ("CSV_MODEL = {}['csv']", "'csv'"),
        ("IMAGE_MODELS[0] = replace(IMAGE_MODELS[0], views='bscan')", "ImageConfig: views is 'bscan'; it must be"),
    ],
)
def test_a_bad_value_in_model_config_is_one_line_with_its_place(tmp_path, edit, message):
    for name in ("main.py", "config.py", "model_config.py"):
        (tmp_path / name).write_text((REPOSITORY / name).read_text(encoding="utf-8"), encoding="utf-8")
    with open(tmp_path / "model_config.py", "a", encoding="utf-8") as file:
        file.write(edit + "\n")
    for words in (["0"], []):
        answer = subprocess.run(
            [sys.executable, tmp_path / "main.py", *words], input="q\n", capture_output=True, encoding="utf-8",
            env=os.environ | {"PYTHONPATH": str(REPOSITORY)},       # for the rooms, which are not copied
        )
        assert answer.returncode == 2
        assert message in answer.stderr
        assert "model_config.py, line " in answer.stderr
        assert len(answer.stderr.splitlines()) == 1


def test_an_option_is_found_by_its_whole_name_on_the_command_line(tmp_path):
    answer = run_main("train_csv + train_image", root=tmp_path)
    assert "train.csv is not there" in answer.stderr


def test_import_asks_for_paths_and_before_it_does_anything(tmp_path):
    screen = tmp_path / "download" / "Train Set" / "7R" / "Pre Injection OCT Images" / "1.jpg"
    put_screen(screen)
    root = tmp_path / "root"
    root.mkdir()
    placed = root / "data/source/final/Train_Set/7R/Pre Injection OCT Images/1.jpg"
    answer = run_warm(root=root, typed=f"7\n{tmp_path / 'download'}\n\nn\n7\n\nq\n")
    assert not placed.exists()
    assert "Nothing was named" in answer.stderr
    answer = run_warm(root=root, typed=f"7\n{tmp_path / 'download'}\n\ny\nq\n")
    assert placed.samefile(screen), answer.stderr
    answer = run_warm("import_data", tmp_path / "download", "--yes", root=root)
    assert answer.returncode == 0, answer.stderr


@contextlib.contextmanager
def turn_into(error):
    """As the loading of a compiled module, or of a checkpoint, does."""
    try:
        yield
    except BaseException as cause:
        raise error from cause


@contextlib.contextmanager
def give_back_a_lock():
    """As `try: lock.acquire() finally: lock.release()` does, if the signal comes before the lock is held."""
    try:
        yield
    finally:
        threading.RLock().release()


@contextlib.contextmanager
def make_tqdms_lock():
    """As tqdm.write does, if the signal comes while its lock is made."""
    try:
        yield
    finally:
        types.SimpleNamespace()._lock.release()


@pytest.mark.parametrize("around", [
    give_back_a_lock, make_tqdms_lock, functools.partial(turn_into, ImportError("initialization failed")),
    functools.partial(turn_into, PipelineError("no checkpoint, or a damaged one"))])
@pytest.mark.parametrize("stop", [KeyboardInterrupt(), SystemExit(143)])
def test_a_signal_behind_another_error_is_still_that_signal(around, stop):
    def work(_arguments):
        with around():
            raise stop

    with pytest.raises(type(stop)) as raised:
        main.run(main.OPTIONS[0]._replace(run=work), None)
    assert raised.value is stop


@pytest.mark.parametrize(("error", "said"), [
    (KeyboardInterrupt(), "\nStopped.\n"), (PipelineError("Full."), "Full.\n"), (SystemExit(143), "")])
def test_what_was_noted_of_an_error_on_its_way_is_said_behind_it(error, said, capsys, monkeypatch):
    error.add_note("run 1 can be resumed")

    def work(_arguments):
        raise error

    monkeypatch.setattr(main, "OPTIONS", [main.OPTIONS[0]._replace(run=work)])
    monkeypatch.setattr(terminal.signal, "signal", mock.Mock())
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)      # put back when the test is over, as the next
    monkeypatch.setenv("MPLBACKEND", "agg")
    with pytest.raises(SystemExit) if isinstance(error, SystemExit) else contextlib.nullcontext():
        main.main(["0"])
    assert capsys.readouterr().err == f"{said}run 1 can be resumed\n"


def test_a_bug_on_the_way_out_of_a_signal_is_a_bug(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(config, "PATHS", config.Paths(tmp_path))
    own_cause = ValueError("a circle")
    own_cause.__cause__ = own_cause
    for bug in (RuntimeError("a bug of ours"), own_cause):
        def work(_arguments, bug=bug):
            try:
                raise SystemExit(143)
            finally:
                raise bug

        assert main.run(main.OPTIONS[0]._replace(run=work), None) == 1
        assert f"Unexpected {type(bug).__name__}: {bug}" in capsys.readouterr().err


def test_the_menu_wants_one_process(tmp_path):
    """As torchrun starts it: two menus would share one terminal."""
    answer = run_main(root=tmp_path, RANK="0", LOCAL_RANK="0", WORLD_SIZE="2", MASTER_ADDR="localhost")
    assert answer.returncode == 2
    assert "The menu is for one process; name what several are to do: train_image." in answer.stderr
    assert "processing_data" not in answer.stdout
