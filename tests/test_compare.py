"""Option 9: which runs, how they are labelled, and what the table says."""

from dataclasses import replace

import cv2
import numpy as np
import pandas as pd
import pytest

from data.compare import compare_runs
from model_config import CSV_MODEL
from processing import plots
from processing.errors import PipelineError
from tests.helpers import damage_history, run_main, run_warm, train_csv

CSV = replace(CSV_MODEL, epochs=3, batch_size=2, device="cpu")


@pytest.fixture
def runs(demo_copy):
    """Three runs of Model-CSV: another rate, another recipe with a fold held out."""
    configs = [CSV, replace(CSV, learning_rate=1e-3), replace(CSV, recipe="fixed", fold="0")]
    return demo_copy, [train_csv(demo_copy, config)[0] for config in configs]


def test_the_newest_two_of_each_model_are_drawn_and_labelled_by_what_differs(runs, capsys):
    paths, folders = runs
    picture = compare_runs(paths)
    assert picture.parent == paths.ckpt
    assert min(cv2.imread(str(picture)).shape[:2]) > 400
    shown = capsys.readouterr().out
    assert folders[0].name + ":" not in shown and "1 runs are left out: of each model the newest 2" in shown
    assert f"{folders[1].name}: learning_rate 0.001, recipe seed, fold none" in shown
    assert f"{folders[2].name}: learning_rate 1e-05, recipe fixed, fold 0" in shown


def test_named_runs_are_compared_and_held_out_figures_told_apart(runs, capsys):
    paths, folders = runs
    compare_runs(paths, [str(folders[0]), f"Model-CSV/{folders[2].name}"])
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if "recipe" in line]
    assert lines[0][3:5] == ["-", "-"]              # nothing held out
    assert float(lines[1][3]) > 0


def test_a_path_that_is_not_utf8_can_stand_in_a_label(runs, capsys):
    paths, folders = runs
    config = folders[1] / "config.json"
    config.write_text(config.read_text().replace('"init_from": ""', '"init_from": "/\\udcd6.pt"'))
    compare_runs(paths, [str(folder) for folder in folders[:2]])
    assert "init_from /\\xd6.pt" in capsys.readouterr().out


def test_what_is_no_run_is_refused(demo_copy):
    with pytest.raises(PipelineError, match="has an epoch to compare. Options 1 to 3 train"):
        compare_runs(demo_copy)
    with pytest.raises(PipelineError, match="nowhere is no run folder with an epoch"):
        compare_runs(demo_copy, ["nowhere"])
    trees, = train_csv(demo_copy, replace(CSV, recipe="best"))
    with pytest.raises(PipelineError, match="has no loss curve: the recipe best has no epochs"):
        compare_runs(demo_copy, [str(trees)])
    answer = run_warm("compare_runs", "nowhere", root=demo_copy.root)
    assert (answer.returncode, "Traceback" in answer.stderr) == (1, False)


def test_a_second_picture_of_the_same_minute_does_not_overwrite_the_first(trained_copy):
    pictures = [compare_runs(trained_copy) for _ in range(3)]
    assert len(set(pictures)) == 3 and all(picture.is_file() for picture in pictures)


def test_a_notebooks_backend_is_of_no_matter(trained_copy):
    """`!python main.py 9` in a notebook: the variable is inherited, the package may not be there."""
    answer = run_main("compare_runs", root=trained_copy.root, MPLBACKEND="module://matplotlib_inline.backend_inline")
    assert answer.returncode == 0, answer.stderr


@pytest.mark.parametrize("first, scale", [(95.0, "log"), (4.0, "linear")])
def test_one_loss_that_towers_over_the_rest_does_not_press_them_flat(tmp_path, monkeypatch, first, scale):
    drawn = []
    monkeypatch.setattr(plots, "save_figure", lambda figure, path: drawn.append(figure))
    history = pd.DataFrame({"epoch": [1, 2, 3, 4], "loss": [3.0, 2.0, 1.5, 1.0],
                            "held-out loss": [first, 2.5, float("nan"), 1.2]})
    history.to_csv(tmp_path / "history.csv", index=False)
    plots.draw_comparison(tmp_path / "a.png", [("Model-Image-After", [("run", history)])])
    plots.plot_log(tmp_path / "history.csv", tmp_path / "b.png")
    for figure in drawn:
        axis, = figure.axes
        assert axis.get_yscale() == scale and axis.get_ylim()[0] <= 1 and axis.get_ylim()[1] >= first


@pytest.mark.parametrize("how", ["emptied", "deleted", "header", "text"])
def test_a_damaged_history_is_left_out_and_named(trained_copy, capsys, how):
    folder, = (trained_copy.ckpt / "Model-CSV").iterdir()
    damage_history(folder / "history.csv", how)
    assert compare_runs(trained_copy, [str(run) for run in trained_copy.ckpt.glob("Model-*/*")]).is_file()
    said = capsys.readouterr().out
    assert f"{folder / 'history.csv'} cannot be used" in said and f"The curve of {folder} is left out." in said
    assert "Model-Image-All" in said
    with pytest.raises(PipelineError, match="has an epoch to compare"):
        compare_runs(trained_copy, [str(folder)])


def test_a_run_of_an_earlier_version_is_left_out_and_named(trained_copy, capsys):
    folder, = (trained_copy.ckpt / "Model-CSV").iterdir()
    (folder / "config.json").write_text("{}")
    assert compare_runs(trained_copy).is_file()
    assert f"The curve of {folder} is left out." in capsys.readouterr().out


def test_a_history_that_a_spreadsheet_saved_is_read(trained_copy, capsys):
    folder, = (trained_copy.ckpt / "Model-CSV").iterdir()
    before = plots.read_history(folder / "history.csv")
    damage_history(folder / "history.csv", "spreadsheet")
    pd.testing.assert_frame_equal(plots.read_history(folder / "history.csv"), before)
    compare_runs(trained_copy, [str(folder)])
    assert "left out" not in capsys.readouterr().out


HARD_TEXTS = {
    "math": "init_from /home/$me/a_$$x^2_{b}$$ and \\alpha$",
    "long": "init_from " + "x" * 178, "long words": "epochs 3, " * 40, "lines": "one\ntwo",
    "Chinese": "名称 测试组-黄斑水肿", "strange": "\U0001f441 \ue000 a\u202eb",
}


@pytest.mark.parametrize("text", HARD_TEXTS.values(), ids=HARD_TEXTS)
def test_texts_of_users_are_drawn_as_they_are_and_leave_room_for_the_curves(tmp_path, recwarn, text):
    history = pd.DataFrame({"epoch": [1, 2], "loss": [2.0, 1.0], "held-out loss": [2.5, 1.2]})
    plots.draw_comparison(tmp_path / "a.png", [(text, [(text, history), ("other", history + 1)])])
    plots.draw_gallery(tmp_path / "b.png", [(text, [(text, np.zeros((40, 65, 3), np.uint8), None)])])
    assert [str(warning.message) for warning in recwarn] == []
    picture = cv2.imread(str(tmp_path / "a.png"))
    blue = np.argwhere((np.abs(picture.astype(int) - (178, 114, 0)) < 12).all(axis=2))        # the first run's curve
    assert np.ptp(blue[:, 1]) > 300
