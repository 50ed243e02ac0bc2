"""The number of threads of a training depends only on its size, since its last bits depend on that number."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from bsk.models.registry import network
from bsk.training import threads as module
from bsk.training.threads import enough_threads, shared_machine_notice

CPU = torch.device("cpu")


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("bsk.devices._asked_for", [])
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


def threads(model: nn.Module, size: int, images: int = 100, channels: int = 1) -> int:
    with enough_threads(model, (channels, size, size), images, CPU):
        found = torch.get_num_threads()
    assert torch.get_num_threads() == 2, "as before"
    return found


def test_the_digits_have_one_thread_and_a_resnet_all(two) -> None:
    assert threads(network("cnn", 10, 1, (8, 8)), 8) == 1
    assert threads(network("resnet18-16", 10, 3, (32, 32)), 32, channels=3) == 2
    layer = nn.Linear(1000, 1000, bias=False)  # 1e6 weights, on one pixel
    assert threads(layer, 1, images=999) == 1 and threads(layer, 1, images=1000) == 2


def test_a_chosen_number_of_threads_is_kept(two, monkeypatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert threads(network("cnn", 10, 1, (8, 8)), 8) == 2


def test_the_header_has_the_number_that_it_was_trained_with(call, toy, two) -> None:
    done = call("train", "--data", toy, "--method", "fast-at", "--epochs", 1, "--out", "one.safetensors", "--quiet")
    assert json.loads(done.stdout)["threads"] == 1 and torch.get_num_threads() == 2


@pytest.mark.parametrize(
    ("others", "cores", "said"),
    [(0, 2, False), (1, 2, True), (2, 2, True), (1, 4, False), (3, 4, True), (30, 64, False), (63, 64, True)],
)
def test_a_busy_machine_gives_a_notice(others: int, cores: int, said: bool, two, monkeypatch) -> None:
    monkeypatch.setattr(module, "_other_threads", lambda: others)
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert ("--threads 1" in shared_machine_notice(CPU)) is said
    assert shared_machine_notice(torch.device("cuda")) == ""
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert shared_machine_notice(CPU) == ""


def test_others_are_counted_where_the_system_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    for text, others in (("0.52 0.58 0.59 3/1234 5", 2), ("0.52 0.58 0.59 1/9 5", 0), ("", 0)):
        monkeypatch.setattr(Path, "read_text", lambda path, text=text: text)
        assert module._other_threads() == others

    def missing(path: Path) -> str:
        raise FileNotFoundError(path)

    monkeypatch.setattr(Path, "read_text", missing)
    assert module._other_threads() == 0


def test_the_line_comes_before_the_first_epoch(call, toy, two, monkeypatch) -> None:
    monkeypatch.setattr(module, "_other_threads", lambda: 99)
    monkeypatch.setattr(module, "SMALL", 0.0)
    done = call("train", "--data", toy, "--method", "fast-at", "--epochs", 1, "--out", "two.safetensors")
    assert done.stderr.index("--threads 1") < done.stderr.index("epoch 1")
