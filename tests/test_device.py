"""The machine that a model runs on."""

import re

import pytest
import torch

from model.device import one_thread, select_device
from model_config import ConfigError
from processing.errors import PipelineError

CPU = torch.device("cpu")


def test_devices():
    assert select_device("cpu") == CPU
    assert select_device("auto").type in ("cuda", "mps", "cpu")
    if not torch.cuda.is_available():
        with pytest.raises(PipelineError, match="has no cuda; it has .*cpu"):
            select_device("cuda")
    with pytest.raises(ConfigError, match="device is 'tpu'"):
        select_device("tpu")


def test_a_card_that_torch_cannot_use_is_named_and_another_device_taken(monkeypatch, capsys):
    """torch says that there is a card, and fails when it is to compute: as without a driver, so with too old a card."""
    if torch.cuda.is_available():
        pytest.skip("there is a card that works")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert select_device("auto") == CPU
    assert re.search("cannot use cuda: .+ Another device is taken: slower", capsys.readouterr().out)
    with pytest.raises(PipelineError, match=r"cannot use cuda: .+ Choose another \(--device cpu\)"):
        select_device("cuda")
    with pytest.raises(PipelineError, match=r"has no cuda:1; it has cuda, cpu \(1 cards\)"):
        select_device("cuda:1")


def test_one_thread_is_for_the_block_alone():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    with pytest.raises(KeyError), one_thread():
        assert torch.get_num_threads() == 1
        raise KeyError
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


def test_a_card_without_memory_left_is_not_one_that_torch_cannot_use(monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(torch, "ones", refuse)
    with pytest.raises(PipelineError, match="cpu has no memory left. Close other programs"):
        select_device("auto")
