"""`--compile` in training: the same losses, compile time counted separately, and on and off resume each other."""

import functools
from pathlib import Path

import pytest
import torch
from toys import ALONE, CPU, Silent, settings, stop_after, trained

from bsk.data.batches import Share
from bsk.data.store import DataFile
from bsk.errors import StoppedError, UsageError
from bsk.records import jsonl as records
from bsk.records.checkpoints import MODEL
from bsk.records.headers import load_header
from bsk.training import run as module


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.compile without a C++ compiler: it traces, and runs what it traced."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))


class Listening(Silent):
    """Records the epoch's mean loss after each update."""

    def __init__(self) -> None:
        super().__init__()
        self.losses: list[float] = []

    def step(self, done, total, epoch, loss) -> None:
        self.losses.append(loss())


def losses(out: Path, data: DataFile, method: str, **flags: object) -> tuple[list[float], dict]:
    watcher = Listening()
    return watcher.losses, trained(out, data, settings(method, **flags), watcher=watcher)


FAST = {"bs", "liet", "gat"}  # passes frozen and trained; back twice by one output; back again after others


@pytest.mark.parametrize(
    ("method", "awp"),
    [
        *(pytest.param(method, 0.0, marks=[] if method in FAST else pytest.mark.slow) for method in ALONE),
        *(pytest.param(method, 0.01, marks=pytest.mark.slow) for method in ("bs", "at")),
    ],
)
def test_the_losses_are_those_of_a_training_without(method, awp: float, data, tmp_path: Path, quick: None) -> None:
    """With a last batch of another size; the learning rate is small, since rounding decides the signs of small
    gradients.
    """
    flags = {"lr": 0.01, "awp": awp, "batch_size": 36, "momentum": 0.5}
    off, plain = losses(tmp_path / "off.safetensors", data, method, **flags, compile="off")
    on, compiled = losses(tmp_path / "on.safetensors", data, method, **flags, compile="on")
    assert len(on) == 21 and on == pytest.approx(off, rel=1e-3)
    for record, name in ((plain, "off"), (compiled, "on")):
        start = records.read(tmp_path / f"{name}.jsonl")[0]
        assert start.get("compiled", False) is (name == "on") and start["flags"]["compile"] == name
        assert ("train_compile_seconds" in record) is (name == "on")
        assert record["train_forward_passes"] == plain["train_forward_passes"]
        assert record["train_backward_passes"] == plain["train_backward_passes"]


def test_compiling_is_told_and_is_no_part_of_the_training_s_seconds(data, tmp_path: Path, quick: None) -> None:
    watcher = Silent()
    s = settings("bs", compile="on", epochs=1)
    record = trained(tmp_path / "m.safetensors", data, s, watcher=watcher)
    assert record["train_seconds"] < record["train_compile_seconds"]
    assert len(watcher.notices) == 1 and record["compiled"] and "--compile off" in watcher.notices[0]


@pytest.mark.parametrize("first", ["on", "off"])
def test_on_and_off_resume_each_other(first: str, data: DataFile, tmp_path: Path, quick: None) -> None:
    out, other = tmp_path / "m.safetensors", {"on": "off", "off": "on"}[first]
    whole, _ = losses(tmp_path / "whole.safetensors", data, "bs", lr=0.01, compile="off")
    with pytest.raises(StoppedError):
        trained(out, data, settings("bs", lr=0.01, compile=first), stopping=stop_after(9))
    watcher = Listening()
    trained(out, data, settings("bs", lr=0.01, compile=other), watcher=watcher)
    assert watcher.losses == pytest.approx(whole[-len(watcher.losses) :], rel=1e-3) and len(whole) == 24
    said = [text for text in watcher.notices if "compiled" in text]
    assert len(said) == 1 and "results may differ in the last bits" in said[0]
    same = Silent()  # what is finished is not compiled again, and says nothing of bits
    trained(out, data, settings("bs", lr=0.01, compile=first), watcher=same)
    assert not [text for text in same.notices if "not the same" in text]


def test_what_torch_compile_says_of_an_unknown_choice(data: DataFile) -> None:
    from bsk.training.flags import TrainingFlags
    from bsk.training.settings import resolve

    with pytest.raises(UsageError, match="--compile maybe"):
        resolve(TrainingFlags(compile="maybe"), data, CPU)


@pytest.mark.parametrize(
    ("changes", "share", "expected"),
    [
        ({}, Share(), True),
        ({"method": "liet"}, Share(), False),  # goes back twice by one output
        ({"model": "mine:network"}, Share(), False),
        ({}, Share(0, 2), False),
        ({"compile": "on", "method": "liet"}, Share(), True),
        ({"compile": "off"}, Share(), False),
    ],
)
def test_auto_compiles_what_it_knows(changes, share, expected: bool, data, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it would pay."""
    s = settings(changes.pop("method", "bs"), compile=changes.pop("compile", "auto"), **changes)
    state = module.new_state(settings("bs"), data, 1, (8, 8), CPU)
    monkeypatch.setattr(module, "compiles", lambda choice, *_: choice != "off")
    found = module.profile(s.bound, (1, 8, 8), 3)
    assert module._compiles(s, found, state, (1, 8, 8), 240, share, CPU) is expected


def test_a_training_whose_compiling_fails_is_one_without(data, tmp_path: Path, monkeypatch) -> None:
    def broken(*arguments: object, **options: object) -> object:
        raise RuntimeError("no C++ compiler")

    off, _ = losses(tmp_path / "off.safetensors", data, "bs", compile="off")
    monkeypatch.setattr(torch, "compile", lambda *_, **__: broken)
    watcher = Listening()
    out = tmp_path / "on.safetensors"
    record = trained(out, data, settings("bs", compile="on"), watcher=watcher)
    assert watcher.losses == pytest.approx(off, rel=1e-3)
    assert "compiled" not in record and "compiled" not in load_header(out, MODEL)
    assert "no C++ compiler" in watcher.notices[-1]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["natural", "fast-at", "n-fgsm", "liet"])
def test_a_cpu_s_own_compiler_gives_these_losses_too(method: str, digits: DataFile, tmp_path: Path) -> None:
    flags = {"model": "cnn-8", "lr": 0.05, "epochs": 2, "batch_size": 64, "augment": "none"}
    runs = [trained_digits(tmp_path / f"{c}.safetensors", digits, method, compile=c, **flags) for c in ("off", "on")]
    assert len(runs[1]) == 20 and runs[1] == pytest.approx(runs[0], rel=1e-3)


def trained_digits(out: Path, data: DataFile, method: str, **flags: object) -> list[float]:
    watcher = Listening()
    trained(out, data, settings(method, **flags), watcher=watcher, limit=640)
    return watcher.losses
