import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from model import history as history_module
from model import run as run_module
from model.checkpoint import load_checkpoint, save_checkpoint
from model.csv_model import CSVNetwork
from model.image_model import ImageNetwork
from model.provenance import fingerprint_images
from model.run import Run, read_record, read_specification
from model.runs import find_checkpoint, run_folders
from model.training import _load_start
from model_config import CSVConfig
from processing import plots
from processing.errors import PipelineError

CONFIG, CPU = CSVConfig(epochs=3), torch.device("cpu")
MEANS = {"final": {"CST": 300.0}}
BIAS = "layers.0.bias"


def make_model(**specification):
    return CSVNetwork({"means": MEANS} | specification, CPU)


@pytest.fixture
def make_run(paths):
    return lambda config=CONFIG: Run.start(paths, config, make_model(), data={"train.csv": "1f"})


def give_model(run):
    """What a run saves: the first bias of a model, and an optimizer."""
    model = make_model()
    optimizer = torch.optim.Adam(model.module.parameters())
    run.restore(model, optimizer)
    return model.module.layers[0].bias, optimizer


def finish(run, epochs=1):
    with run:
        _, optimizer = give_model(run)
        for epoch in range(1, epochs + 1):
            run.finish_epoch(epoch, optimizer, {"loss": 1.0 / epoch, "loss VA": 0.5})
    return run.folder


def saved_bias(folder):
    return load_checkpoint(folder / "Model-CSV.pt").state[BIAS]


def state(folder):
    return json.loads((folder / "run.json").read_text())["state"]


def test_a_run_folder_is_self_sufficient(make_run):
    folder = finish(make_run(), epochs=3)
    names = {file.name for file in folder.iterdir()}
    plot = f"Model-CSV-loss-epoch(3)-eta(1e-05)-{folder.name}.png"
    assert names == {"Model-CSV.pt", "config.json", "run.json", "history.csv", plot, ".lock"}
    config = json.loads((folder / "config.json").read_text())
    assert config["learning_rate"] == 1e-5
    assert config["specification"] == make_model().specification == read_specification(folder)
    record = json.loads((folder / "run.json").read_text())
    assert (record["state"], record["epochs_done"], record["seed"]) == ("finished", 3, 2021)
    assert record["packages"]["torch"] == torch.__version__.split("+")[0]
    assert record["data"] == {"train.csv": "1f"}
    assert pd.read_csv(folder / "history.csv")["loss"].tolist() == pytest.approx([1, 1 / 2, 1 / 3])
    checkpoint = load_checkpoint(folder / "Model-CSV.pt")
    assert (checkpoint.kind, checkpoint.specification) == ("CSVNetwork", config["specification"])
    assert checkpoint.specification["means"] == MEANS


def test_two_runs_never_share_a_folder(make_run):
    with ThreadPoolExecutor(10) as pool:
        folders = list(pool.map(lambda _: make_run().folder, range(10)))
    assert len(set(folders)) == 10


def test_the_last_epoch_is_on_disk_even_where_epochs_are_too_quick_to_save_each(make_run):
    run = make_run()
    bias, optimizer = give_model(run)
    with run:
        for epoch in range(1, 51):
            torch.nn.init.constant_(bias, epoch)
            run.finish_epoch(epoch, optimizer, {"loss": 1.0})
    assert saved_bias(run.folder)[0] == 50
    assert len(pd.read_csv(run.folder / "history.csv")) == 50


@pytest.mark.parametrize(
    ("error", "ends"), [(KeyboardInterrupt, "stopped"), (SystemExit, "stopped"), (ValueError, "failed")]
)
def test_a_run_that_is_cut_short_keeps_its_last_complete_epoch(make_run, error, ends):
    run = make_run()
    bias, optimizer = give_model(run)
    with pytest.raises(error) as raised, run:
        for epoch in range(1, 6):
            torch.nn.init.constant_(bias, epoch)
            run.finish_epoch(epoch, optimizer, {"loss": 1.0})
        torch.nn.init.constant_(bias, 99)      # in the middle of epoch 6
        raise error
    assert raised.value.__notes__ == [f"{run.folder} keeps what it learned up to epoch 5: --resume goes on."]
    assert state(run.folder) == ends
    assert saved_bias(run.folder)[0] == 5
    assert json.loads((run.folder / "run.json").read_text())["epochs_done"] == 5


def test_a_signal_that_became_an_error_of_a_lock_stops_a_run(make_run):
    run = make_run()
    give_model(run)
    with pytest.raises(RuntimeError, match="un-acquired lock") as raised, run:
        try:
            raise SystemExit(143)
        finally:
            threading.RLock().release()
    assert state(run.folder) == "stopped"
    assert not hasattr(raised.value.__context__, "__notes__")       # no epoch is complete: there is nothing to resume


@pytest.mark.parametrize("step", ["save_checkpoint", "write_json"])
def test_a_signal_in_the_midst_of_the_last_save_loses_no_epoch(make_run, monkeypatch, step):
    run = make_run()
    bias, optimizer = give_model(run)
    really, calls = getattr(run_module, step), []

    def interrupt_once(*arguments, **values):
        calls.append(1)
        if len(calls) == 1:
            raise SystemExit(143)
        return really(*arguments, **values)

    with pytest.raises(SystemExit), run:
        run._saving._next = np.inf          # no epoch is written before the end
        for epoch in range(1, 4):
            torch.nn.init.constant_(bias, epoch)
            run.finish_epoch(epoch, optimizer, {"loss": 1.0})
        monkeypatch.setattr(run_module, step, interrupt_once)
    assert state(run.folder) == "stopped"
    assert saved_bias(run.folder)[0] == 3
    assert json.loads((run.folder / "run.json").read_text())["epochs_done"] == 3


def test_the_newest_finished_run_is_found(paths, make_run):
    with pytest.raises(PipelineError, match=r"Model-CSV has no finished run .* Option 2 \(train_csv\) makes one"):
        find_checkpoint(paths, "Model-CSV")
    folders = [finish(make_run()) for _ in range(12)]
    make_run()      # running
    assert find_checkpoint(paths, "Model-CSV") == folders[-1] / "Model-CSV.pt"
    with pytest.raises(PipelineError, match=r"Option 1 \(train_image\) makes one"):
        find_checkpoint(paths, "Model-Image-All")


def test_a_run_or_file_can_be_named_but_only_a_finished_one(paths, make_run, tmp_path):
    folder = finish(make_run())
    finish(make_run())
    assert find_checkpoint(paths, "Model-CSV", folder) == folder / "Model-CSV.pt"
    assert find_checkpoint(paths, "Model-CSV", str(folder / "Model-CSV.pt")) == folder / "Model-CSV.pt"
    with pytest.raises(PipelineError, match="is of a run that is not finished .state: stopped."):
        find_checkpoint(paths, "Model-CSV", make_run().folder)
    with pytest.raises(PipelineError, match="no run folder"):
        find_checkpoint(paths, "Model-CSV", tmp_path)
    with pytest.raises(PipelineError, match="is not there"):
        find_checkpoint(paths, "Model-CSV", tmp_path / "absent")


def test_what_a_killed_program_left_is_no_checkpoint_and_goes_when_the_run_goes_on(paths, make_run):
    folder = finish(make_run())
    leftover = folder / ".abc.tmp.pt"
    leftover.write_bytes(b"half")
    assert find_checkpoint(paths, "Model-CSV", folder) == folder / "Model-CSV.pt"
    (folder / "run.json").write_text('{"state": "running", "data": {"train.csv": "1f"}}')
    run, _ = Run.resume(folder, {"train.csv": "1f"})
    with run:
        assert not leftover.exists()


def test_a_start_must_fit(paths, make_run):
    folder = finish(make_run())
    model = make_model(heads="logits")
    _load_start(paths, model, replace(CONFIG, init_from=str(folder)), unfinished=False)
    assert torch.equal(model.module.layers[0].bias, saved_bias(folder))
    with pytest.raises(PipelineError, match="holds the weights of CSVNetwork.*Runs of Model-CSV: .*finished"):
        _load_start(paths, ImageNetwork({}, CPU), replace(CONFIG, init_from=str(folder)), unfinished=False)


def test_a_start_of_other_layers_is_refused(paths, tmp_path):
    residual = ImageNetwork({"backbone": "residual"}, CPU)
    save_checkpoint(tmp_path / "residual.pt", residual, residual.state_dict())
    config = replace(CONFIG, init_from=str(tmp_path / "residual.pt"))
    with pytest.raises(PipelineError, match="does not fit ImageNetwork of bscan, backbone plain"):
        _load_start(paths, ImageNetwork({}, CPU), config, unfinished=False)


def test_a_start_may_be_unfinished_only_if_that_is_said(paths, make_run):
    folder = finish(make_run())
    (folder / "run.json").write_text('{"state": "stopped"}')
    model, config = make_model(), replace(CONFIG, init_from=str(folder))
    with pytest.raises(PipelineError, match="is not finished .state: stopped.*Runs of Model-CSV"):
        _load_start(paths, model, config, unfinished=False)
    _load_start(paths, model, config, unfinished=True)
    assert torch.equal(model.module.layers[0].bias, saved_bias(folder))


def test_a_damaged_record_does_not_hide_the_other_runs(paths, make_run):
    good, bad = finish(make_run()), finish(make_run(replace(CONFIG, seed=1)))
    (bad / "run.json").write_text("{")
    assert find_checkpoint(paths, "Model-CSV").parent == good


def test_a_run_whose_last_epoch_cannot_be_written_is_not_finished(make_run, monkeypatch):
    def fail(*_, **__):
        raise PipelineError("disk full")

    run = make_run()
    monkeypatch.setattr(run_module, "save_checkpoint", fail)
    with pytest.raises(PipelineError, match="disk full"):
        finish(run)
    assert state(run.folder) == "failed"


def test_a_run_that_cannot_begin_leaves_no_folder(paths, make_run, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(run_module, "write_json", interrupt)
    with pytest.raises(KeyboardInterrupt):
        make_run()
    assert list((paths.ckpt / "Model-CSV").iterdir()) == []


def test_an_image_that_is_gone_has_no_fingerprint(tmp_path):
    (tmp_path / "1.jpg").write_bytes(b"x")
    assert fingerprint_images(["1.jpg"], tmp_path) != fingerprint_images([], tmp_path)
    with pytest.raises(PipelineError, match="2.jpg is gone"):
        fingerprint_images(["1.jpg", "2.jpg"], tmp_path)


def test_a_plot_that_cannot_be_drawn_ends_no_training(make_run, monkeypatch, capsys):
    drawn, really = [], plots.plot_log

    def fail_at_first(*arguments):
        drawn.append(1)
        if len(drawn) < 4:
            raise ValueError("no such font")
        really(*arguments)

    monkeypatch.setattr(plots, "plot_log", fail_at_first)
    monkeypatch.setattr(run_module, "DRAW_SHARE", 1e9)
    folder = finish(make_run(), epochs=5)
    assert read_record(folder)["state"] == "finished"
    assert capsys.readouterr().out.count(".png is not written (no such font)") == 1
    assert len(drawn) >= 4 and len(list(folder.glob("*.png"))) == 1


def test_a_signal_behind_a_plots_error_ends_the_training(make_run, monkeypatch):
    def load_matplotlib(*_):
        raise ImportError("initialization failed") from SystemExit(143)

    monkeypatch.setattr(plots, "plot_log", load_matplotlib)
    run = make_run()
    with pytest.raises(SystemExit):
        finish(run)
    assert state(run.folder) == "stopped"


def test_a_history_that_cannot_be_written_ends_no_training(make_run, monkeypatch, capsys):
    """As where it is open in a spreadsheet: tried again at each save and at the end."""
    really = history_module.write_csv

    def fail(*_arguments):
        raise PipelineError("history.csv could not be written: Permission denied.")

    monkeypatch.setattr(history_module, "write_csv", fail)
    monkeypatch.setattr(run_module, "SAVE_SHARE", 1e9)
    run = make_run()
    _, optimizer = give_model(run)
    with run:
        for epoch in range(1, 4):
            run.finish_epoch(epoch, optimizer, {"loss": 1.0})
            assert not (run.folder / "history.csv").exists()
        monkeypatch.setattr(history_module, "write_csv", really)
    assert read_record(run.folder)["state"] == "finished"
    assert capsys.readouterr().out.count("history.csv is not written (") == 1
    assert pd.read_csv(run.folder / "history.csv")["epoch"].tolist() == [1, 2, 3]
    assert len(list(run.folder.glob("*.png"))) == 1


def test_runs_are_in_the_order_of_their_starts_whatever_the_clock_on_the_wall_says(make_run, paths):
    """Begun in two time zones, in a summer's last hour, or by a clock that was set: their names tell nothing."""
    starts = {"202611260900": "2026-11-26T08:00:00.000+00:00", "202611260300": "2026-11-26T09:00:00+00:00",
              "202611261200": "2026-11-26T07:59:59.999+00:00", "202611260301": "2026-11-26T09:30:00+02:00"}
    for name, started in starts.items():
        folder = finish(make_run(), epochs=1)
        record = read_record(folder) | {"started": started}
        (folder / "run.json").write_text(json.dumps(record))
        folder.rename(folder.with_name(name))
    assert [folder.name for folder in run_folders(paths, "Model-CSV")] == [
        "202611260301", "202611261200", "202611260900", "202611260300"]
    assert find_checkpoint(paths, "Model-CSV").parent.name == "202611260300"


@pytest.mark.parametrize("name", ["run.json", "config.json"])
def test_a_run_whose_record_cannot_be_read_is_named_and_no_older_one_taken(paths, make_run, name):
    finish(make_run())
    newest = finish(make_run(replace(CONFIG, seed=1)))
    (newest / name).unlink()
    (newest / name).mkdir()             # what the system refuses to read
    with pytest.raises(PipelineError, match=rf"{newest.name}.{name} cannot be read: "):
        find_checkpoint(paths, "Model-CSV")


def test_a_record_that_an_editor_saved_with_a_mark_is_read(make_run):
    folder = finish(make_run())
    for name in ("run.json", "config.json"):
        (folder / name).write_bytes(b"\xef\xbb\xbf" + (folder / name).read_bytes())
    assert read_record(folder)["state"] == "finished"
    assert read_specification(folder) == make_model().specification
