"""What the tests share: a root in a temporary folder, small screens, and the real data where it is at hand."""

import gzip
import json
import os
import shutil
from pathlib import Path

# The suite runs on all cores at once (pytest-xdist): one thread for each process, those that tests start included.
# Set before torch is imported.
os.environ["OMP_NUM_THREADS"] = "1"

import pytest

import config
from tests.helpers import REPOSITORY, SMALL_BOXES, heed_ctrl_c

heed_ctrl_c()

# What takes longest comes first, so that no core waits for it at the end: seconds were measured, from 100 down to 20
SLOW = ("evaluate", "export", "measure", "real", "faults", "distributed", "main", "resume", "terminal", "house",
        "check", "how_to_change", "trees", "segmentation_model")
REAL = REPOSITORY.parent / "shared" / "aptos2021"


def pytest_collection_modifyitems(items):
    """Slow modules first; within a module nothing changes."""
    order = {f"test_{name}": place for place, name in enumerate(SLOW)}
    items.sort(key=lambda item: order.get(item.path.stem, len(order)))


@pytest.fixture
def paths(tmp_path):
    """A root with nothing in it; its name has a blank and is not ASCII."""
    return config.Paths(tmp_path / "数据 root")


@pytest.fixture(scope="session")
def real():
    """The folder of real tables, names, image and checkpoints."""
    if not REAL.is_dir():
        pytest.skip("the real data is not at hand (../shared/aptos2021)")
    return REAL


@pytest.fixture(scope="session")
def expected(real):
    """What the original system gave on the real data."""
    return json.loads((real / "expected.json").read_text())


@pytest.fixture(scope="session")
def real_tree(real):
    """The real image paths, relative to data/source."""
    with gzip.open(real / "tree.txt.gz", "rt") as file:
        return [Path(line.rstrip("\n")) for line in file]


@pytest.fixture(scope="session")
def demo_root(tmp_path_factory):
    """A demonstration at its smallest, with option 0 done. Shared: do not write there; `demo_copy` is for that."""
    from processing.data_factory import processing_data
    from processing.demo import SIZES, write_demo

    demo = config.Paths(tmp_path_factory.mktemp("demo"))
    write_demo(demo, SIZES["smallest"])
    processing_data(demo)
    return demo


@pytest.fixture
def demo_copy(demo_root, tmp_path):
    """A demonstration of one's own."""
    shutil.copytree(demo_root.root, tmp_path / "demo")
    return config.Paths(tmp_path / "demo")


@pytest.fixture(scope="session")
def trained_root(demo_root, tmp_path_factory):
    """A demonstration with a finished run of every model, one epoch each. Shared as demo_root is."""
    from dataclasses import replace

    from model_config import CSV_MODEL, IMAGE_MODELS
    from tests.helpers import train_csv_and_image

    root = tmp_path_factory.mktemp("trained") / "root"
    shutil.copytree(demo_root.root, root)
    trained = config.Paths(root)
    train_csv_and_image(
        trained, replace(CSV_MODEL, epochs=2), [replace(image, epochs=1, batch_size=8) for image in IMAGE_MODELS]
    )
    return trained


@pytest.fixture
def small_boxes(monkeypatch):
    """Small boxes of the views, cut from the screens: short epochs."""
    for name, box in SMALL_BOXES.items():
        monkeypatch.setitem(config.VIEWS, name, box)


@pytest.fixture
def one_thread():
    """Arithmetic on one thread: on two, one training in some dozens on a busy machine was seen to differ."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def trained_copy(trained_root, tmp_path):
    """A trained demonstration of one's own."""
    shutil.copytree(trained_root.root, tmp_path / "trained")
    return config.Paths(tmp_path / "trained")
