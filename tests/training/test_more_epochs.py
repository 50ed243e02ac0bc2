"""Extending a training by epochs where that is meaningful, and saving the weights of intermediate epochs."""

from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from toys import settings, stop_after, trained

from bsk.comparison.survey import count_collapses
from bsk.data.store import DataFile
from bsk.errors import InputError, StoppedError
from bsk.evaluation.subjects import load_subject
from bsk.records import checkpoints, located
from bsk.records import jsonl as records
from bsk.records.checkpoints import MODEL, STATE
from bsk.training import monitor

CPU = torch.device("cpu")


def same(a: Path, b: Path, kind: str) -> bool:
    one, other = (checkpoints.load(path, kind)[0] for path in (a, b))
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("flags", "first", "stop"),
    [
        ({"schedule": "constant", "ema": 0.9}, 1, None),
        pytest.param({"schedule": "constant", "warmup": 1.5}, 2, None, marks=pytest.mark.slow),
        # before the first milestone of both
        pytest.param({"schedule": "piecewise"}, 4, 13, marks=pytest.mark.slow),
    ],
)
def test_a_training_extended_by_epochs_equals_one_planned_so(
    flags, first: int, stop: int | None, data: DataFile, tmp_path: Path
) -> None:
    whole, short = settings(**flags, epochs=6), settings(**flags, epochs=first)
    trained(tmp_path / "whole.safetensors", data, whole)
    out = tmp_path / "m.safetensors"
    with nullcontext() if stop is None else pytest.raises(StoppedError):
        trained(out, data, short, stopping=stop_after(stop or 10**9))
    end = trained(out, data, whole)
    assert same(tmp_path / "whole.safetensors", out, MODEL)
    assert same(tmp_path / "whole.last.safetensors", tmp_path / "m.last.safetensors", STATE)
    if "ema" in flags:
        assert same(tmp_path / "whole.ema-last.safetensors", tmp_path / "m.ema-last.safetensors", MODEL)
    header = checkpoints.load(out, MODEL)[1]
    assert header["complete"] and header["flags"]["epochs"] == whole.epochs
    assert header["train_forward_passes"] == end["train_forward_passes"]
    log = records.read(tmp_path / "m.jsonl")
    assert [r["epoch"] for r in log if r["kind"] == "epoch"] == [*range(1, whole.epochs + 1)]
    assert [r["flags"]["epochs"] for r in log if r["kind"] == "start"] == [short.epochs, whole.epochs]
    assert sum(r["kind"] == "end" for r in log) == 1 and log[-1]["kind"] == "end"
    again = out.stat().st_mtime_ns
    trained(out, data, whole)
    assert out.stat().st_mtime_ns == again
    with pytest.raises(InputError, match="has more updates than the training"):
        trained(out, data, settings(**{**flags, "epochs": 1}))


@pytest.mark.parametrize(
    ("method", "flags", "why"),
    [
        ("bs", {"schedule": "cyclic"}, "the cyclic schedule depends on their number"),
        ("bs", {"schedule": "cosine"}, "the cosine schedule depends on their number"),
        ("bs", {"schedule": "piecewise"}, "the piecewise schedule depends on their number"),
        ("nuat", {"schedule": "constant"}, "nuat depends on their number"),
    ],
)
def test_a_training_that_depends_on_its_length_cannot_be_extended(
    method: str, flags, why: str, data: DataFile, tmp_path
) -> None:
    out = tmp_path / "m.safetensors"
    trained(out, data, settings(method, epochs=2, **flags))
    before = [path.read_bytes() for path in (out, tmp_path / "m.last.safetensors", tmp_path / "m.jsonl")]
    with pytest.raises(InputError) as refused:
        trained(out, data, settings(method, epochs=3, **flags))
    found = f"{out}: was trained with epochs 2, now 3, and {why}; continue from its weights with --init {out} --out NEW"
    assert str(refused.value) == f"{found}, or --force to start over"
    assert before == [path.read_bytes() for path in (out, tmp_path / "m.last.safetensors", tmp_path / "m.jsonl")]


def test_a_training_that_its_last_check_rolled_back_cannot_be_extended(
    data: DataFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor, "every", lambda s, p: 5)
    fine, fell = (monitor.MonitorResult(fgsm=0.9, pgd=pgd, cosine=0.1, n=60, classes=3, best=0.8) for pgd in (0.8, 0.0))
    assert fell.collapsed and not fine.collapsed
    monkeypatch.setattr(monitor, "look", lambda state, s, val, share: fell if state.step == 16 else fine)
    out, flags = tmp_path / "m.safetensors", {"schedule": "constant", "on_collapse": "rollback"}
    trained(out, data, settings("fast-at", epochs=2, **flags))
    with pytest.raises(InputError, match="was trained with epochs 2, now 3, and its rollback depends on their number"):
        trained(out, data, settings("fast-at", epochs=3, **flags))


def test_an_extended_training_counts_once_in_a_survey(tmp_path: Path) -> None:
    start = {"kind": "start", "method": "bs", "dataset": "digits", "eps": 0.2, "checkpoint": "m.safetensors"}
    log = tmp_path / "m.jsonl"
    for record in (start, {"kind": "epoch", "epoch": 1, "monitor_pgd": 0.5}) * 2:
        records.append(log, record)
    assert [(each.runs, each.collapsed) for each in count_collapses(located.read(log))] == [(1, 0)]
    records.append(log, {**start, "checkpoint": "other.safetensors"})
    records.append(log, {"kind": "epoch", "epoch": 1, "monitor_pgd": 0.5})
    assert [each.runs for each in count_collapses(located.read(log))] == [2]


def test_weights_are_saved_every_so_many_epochs(data: DataFile, tmp_path: Path) -> None:
    out = tmp_path / "m.safetensors"
    plain = trained(tmp_path / "plain.safetensors", data, settings(epochs=5))
    end = trained(out, data, settings(epochs=5, save_every=2))
    kept = sorted(path.name for path in tmp_path.glob("m.epoch-*"))
    assert kept == ["m.epoch-2.safetensors", "m.epoch-4.safetensors"]
    trained(tmp_path / "four.safetensors", data, settings(epochs=5, save_every=4), force=True)
    assert same(tmp_path / "four.epoch-4.safetensors", tmp_path / kept[1], MODEL)
    assert not same(tmp_path / kept[0], tmp_path / kept[1], MODEL)
    subject = load_subject(tmp_path / kept[0], CPU)
    assert (subject.header["selected"], subject.header["epoch"]) == ("epoch 2", 2)
    assert end["last_val_robust"] == plain["last_val_robust"]
    trained(out, data, settings(epochs=5))  # what is kept on the way makes no other training
    trained(out, data, settings(epochs=5, seed=2), force=True)
    assert not [*tmp_path.glob("m.epoch-*")]
