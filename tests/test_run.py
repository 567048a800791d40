import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from model.choice import find_checkpoint, load_start

from model import run as run_module
from model.checkpoint import load_checkpoint
from model.module import CSVModule, ImageModule
from model.run import Run
from model_config import CSVConfig
from processing.errors import PipelineError

CONFIG = CSVConfig(epochs=3)


@pytest.fixture
def make_run(paths):
    cpu = torch.device("cpu")
    return lambda config=CONFIG: Run.start(paths, config, device=cpu, data={"train.csv": "1f"}, values={"extra": 1})


def make_module():
    module = CSVModule()
    return module, torch.optim.Adam(module.parameters())


def finish(run, epochs=1):
    with run:
        for epoch in range(1, epochs + 1):
            run.finish_epoch(epoch, *make_module(), {"loss": 1.0 / epoch, "loss VA": 0.5})
    return run.folder


def state(folder):
    return json.loads((folder / "run.json").read_text())["state"]


def test_a_run_folder_is_self_sufficient(make_run):
    folder = finish(make_run(), epochs=3)
    names = {file.name for file in folder.iterdir()}
    plot = f"Model-CSV-loss-epoch(3)-eta(1e-05)-{folder.name}.png"
    assert names == {"Model-CSV.pt", "config.json", "run.json", "history.csv", plot, ".lock"}
    assert json.loads((folder / "config.json").read_text())["learning_rate"] == 1e-5
    record = json.loads((folder / "run.json").read_text())
    assert (record["state"], record["epochs_done"], record["seed"]) == ("finished", 3, 2021)
    assert record["packages"]["torch"] == torch.__version__.split("+")[0]
    assert record["data"] == {"train.csv": "1f"}
    assert pd.read_csv(folder / "history.csv")["loss"].tolist() == pytest.approx([1, 1 / 2, 1 / 3])
    assert load_checkpoint(folder / "Model-CSV.pt", "CSVModule")[1]["values"] == {"extra": 1}


def test_two_runs_never_share_a_folder(make_run):
    with ThreadPoolExecutor(10) as pool:
        folders = list(pool.map(lambda _: make_run().folder, range(10)))
    assert len(set(folders)) == 10


def test_the_last_epoch_is_on_disk_even_where_epochs_are_too_quick_to_save_each(make_run):
    run, (module, optimizer) = make_run(), make_module()
    with run:
        for epoch in range(1, 51):
            torch.nn.init.constant_(module.layers[0].bias, epoch)
            run.finish_epoch(epoch, module, optimizer, {"loss": 1.0})
    saved, _ = load_checkpoint(run.folder / "Model-CSV.pt", "CSVModule")
    assert saved.layers[0].bias[0] == 50
    assert len(pd.read_csv(run.folder / "history.csv")) == 50


@pytest.mark.parametrize(
    ("error", "ends"), [(KeyboardInterrupt, "stopped"), (SystemExit, "stopped"), (ValueError, "failed")]
)
def test_a_run_that_is_cut_short_keeps_its_last_complete_epoch(make_run, error, ends):
    run, (module, optimizer) = make_run(), make_module()
    with pytest.raises(error), run:
        for epoch in range(1, 6):
            torch.nn.init.constant_(module.layers[0].bias, epoch)
            run.finish_epoch(epoch, module, optimizer, {"loss": 1.0})
        torch.nn.init.constant_(module.layers[0].bias, 99)      # in the middle of epoch 6
        raise error
    assert state(run.folder) == ends
    assert load_checkpoint(run.folder / "Model-CSV.pt", "CSVModule")[0].layers[0].bias[0] == 5
    assert json.loads((run.folder / "run.json").read_text())["epochs_done"] == 5


@pytest.mark.parametrize("step", ["save_checkpoint", "write_json"])
def test_a_signal_in_the_midst_of_the_last_save_loses_no_epoch(make_run, monkeypatch, step):
    run, (module, optimizer) = make_run(), make_module()
    really, calls = getattr(run_module, step), []

    def interrupt_once(*arguments, **values):
        calls.append(1)
        if len(calls) == 1:
            raise SystemExit(143)
        return really(*arguments, **values)

    with pytest.raises(SystemExit), run:
        run._saving._next = np.inf          # no epoch is written before the end
        for epoch in range(1, 4):
            torch.nn.init.constant_(module.layers[0].bias, epoch)
            run.finish_epoch(epoch, module, optimizer, {"loss": 1.0})
        monkeypatch.setattr(run_module, step, interrupt_once)
    assert state(run.folder) == "stopped"
    assert load_checkpoint(run.folder / "Model-CSV.pt", "CSVModule")[0].layers[0].bias[0] == 3
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
    start = load_checkpoint(folder / "Model-CSV.pt", "CSVModule")[0]
    module = CSVModule("fixed")
    load_start(paths, module, replace(CONFIG, init_from=str(folder)))
    torch.testing.assert_close(module.layers[0].weight, start.layers[0].weight)
    with pytest.raises(PipelineError, match="holds the weights of CSVModule.*Runs of Model-CSV: .*finished"):
        load_start(paths, ImageModule(), replace(CONFIG, init_from=str(folder)))


def test_a_start_of_other_layers_is_refused(make_run, paths, tmp_path):
    from model.checkpoint import save_checkpoint

    save_checkpoint(tmp_path / "resnet.pt", ImageModule("resnet"))
    with pytest.raises(PipelineError, match="does not fit ImageModule of recipe seed"):
        load_start(paths, ImageModule("seed"), replace(CONFIG, init_from=str(tmp_path / "resnet.pt")))


def test_a_damaged_record_does_not_hide_the_other_runs(paths, make_run):
    good, bad = finish(make_run()), finish(make_run(replace(CONFIG, seed=1)))
    (bad / "run.json").write_text("{")
    assert find_checkpoint(paths, "Model-CSV").parent == good


def test_a_run_whose_last_epoch_cannot_be_written_is_not_finished(make_run, monkeypatch):
    from model import run as module

    def fail(*_, **__):
        raise PipelineError("disk full")

    run = make_run()
    monkeypatch.setattr(module, "save_checkpoint", fail)
    with pytest.raises(PipelineError, match="disk full"):
        finish(run)
    assert state(run.folder) == "failed"


def test_a_run_that_cannot_begin_leaves_no_folder(paths, make_run, monkeypatch):
    from model import run as module

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "write_json", interrupt)
    with pytest.raises(KeyboardInterrupt):
        make_run()
    assert list((paths.ckpt / "Model-CSV").iterdir()) == []
