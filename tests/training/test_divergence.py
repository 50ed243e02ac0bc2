"""How far start and ascent move the output: by their definitions, and without changing the training."""

import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import toys
from torch import Tensor, nn
from toys import ALONE, CPU, EPS, settings, stopped

from bsk.data.batches import Share
from bsk.data.store import DataFile
from bsk.errors import InputError
from bsk.perturb.draws import ExampleDraws, example_draws
from bsk.records import checkpoints
from bsk.records import jsonl as records
from bsk.training import divergence as module
from bsk.training import loop
from bsk.training.bound import bind
from bsk.training.divergence import divergence, divergences
from bsk.training.initial import new_state
from bsk.training.settings import Settings


def trained(out: Path, data: DataFile, s: Settings, **more: object) -> list[dict]:
    toys.trained(out, data, s, **more)
    return [record for record in records.read(out.with_suffix(".jsonl")) if record["kind"] == "epoch"]


def softmax_kl(p: Tensor, q: Tensor) -> Tensor:
    p, q = p.exp() / p.exp().sum(1, keepdim=True), q.exp() / q.exp().sum(1, keepdim=True)
    return (p * (p.log() - q.log())).sum(1)


def stepped(loss: Tensor, point: Tensor, x: Tensor, step: float) -> Tensor:
    (gradient,) = torch.autograd.grad(loss.sum(), point)
    moved = point.detach() + step * gradient.sign()
    return torch.minimum(torch.maximum(moved, x - EPS), x + EPS).clamp(0, 1)


@pytest.mark.parametrize("method", ["bs", "fast-trades", "fast-at", "bs-alone"])
def test_both_divergences_by_their_definitions(method: str) -> None:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(16, 5)).double()
    x, y = torch.rand(6, 1, 4, 4, dtype=torch.float64), torch.arange(6) % 5
    own, draws = bind(method, EPS, {"gamma": 2.0}), example_draws(1, "d", range(6))
    z, step = model(x).detach(), own.hyper["step"]
    if own.hyper["start"] == "backward":
        leaf = x.clone().requires_grad_()
        start = stepped(-softmax_kl(z + 2 * draws.uniform(z), model(leaf)), leaf, x, step)
    else:
        start = x + EPS * draws.uniform(x)
    leaf = start.clone().requires_grad_()
    climbed = -model(leaf).log_softmax(1)[range(6), y] if method == "fast-at" else softmax_kl(z, model(leaf))
    end = stepped(climbed, leaf, x, step) if own.hyper["steps"] else start
    found = divergence(own, model, x, y, example_draws(1, "d", range(6)))
    at = end.clone().requires_grad_()
    (g,) = torch.autograd.grad(-model(at).log_softmax(1)[range(6), y].sum(), at)
    left = torch.stack([EPS * each.abs().sum() - (d * each).sum() for each, d in zip(g, end - x, strict=True)])
    expected = (softmax_kl(z, model(start)), softmax_kl(z, model(end)), left)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    assert found[0].min() > 0


def test_without_start_and_ascent_nothing_moves() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 5))
    x, y = torch.rand(6, 1, 4, 4), torch.arange(6) % 5
    start, ascent, left = divergence(bind("natural", EPS), model, x, y, example_draws(1, "d", range(6)))
    assert start.tolist() == ascent.tolist() == [0.0] * 6 and (left > 0).all()


def test_a_linear_loss_is_maximal_at_the_best_corner() -> None:
    """For a linear loss, a step of eps along its gradient is optimal, and one of 3 eps is projected back to it."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2)).double()
    x, y = torch.full((3, 1, 4, 4), 0.5, dtype=torch.float64), torch.tensor([0, 1, 0])
    for step in (EPS, 3 * EPS):
        method = bind("n-fgsm", EPS, {"noise": 0.0, "step": step})
        assert divergence(method, model, x, y, draws3())[2].max() < 1e-12
    assert divergence(bind("n-fgsm", EPS, {"noise": 0.0, "step": EPS / 2}), model, x, y, draws3())[2].min() > 1e-3


def draws3() -> ExampleDraws:
    return example_draws(1, "d", range(3))


FAST = {"bs", "fast-at", "liet", "gradalign", "fgsm-pgi"}


@pytest.mark.parametrize("method", [pytest.param(m, marks=[] if m in FAST else pytest.mark.slow) for m in ALONE])
def test_the_training_is_the_same_to_the_bit(method: str, data: DataFile, tmp_path: Path) -> None:
    s = settings(method)
    plain = trained(tmp_path / "plain.safetensors", data, s)
    logged = trained(tmp_path / "logged.safetensors", data, replace(s, log_divergence=True))
    for name in ("{}.safetensors", "{}.last.safetensors"):
        a, b = (checkpoints.load(tmp_path / name.format(n), ("model", "training-state")) for n in ("plain", "logged"))
        assert a[0].keys() == b[0].keys() and all(torch.equal(a[0][k], b[0][k]) for k in a[0])
    for one, other in zip(plain, logged, strict=True):
        assert {k for k in other if k not in one} == {"kl_start", "kl_ascent", "fosc", "kl_n"}
        assert all(one[k] == other[k] for k in one if "second" not in k)
        assert other["kl_n"] == 60 and 0 <= other["kl_start"] < 10 and 0 <= other["kl_ascent"] < 10
    assert logged[0]["kl_start"] != logged[1]["kl_start"] or method in ("natural", "gradalign", "multi-grad", "elle")


def test_it_resumes_after_an_interruption(data: DataFile, tmp_path: Path) -> None:
    """An epoch has 8 updates: it stops within one, at its end, and after the first of the next."""
    s = settings("bs", log_divergence=True)
    whole = trained(tmp_path / "whole.safetensors", data, s)
    stopped(tmp_path / "m.safetensors", data, s, 3, 5, 1)
    cut = trained(tmp_path / "m.safetensors", data, s)
    assert [(r["kl_start"], r["kl_ascent"]) for r in cut] == [(r["kl_start"], r["kl_ascent"]) for r in whole]


def test_a_log_never_has_it_for_some_epochs_only(data: DataFile, tmp_path: Path) -> None:
    trained(tmp_path / "m.safetensors", data, settings("bs"))
    with pytest.raises(InputError, match="log_divergence False, now True; choose another --out, or --force"):
        trained(tmp_path / "m.safetensors", data, settings("bs", log_divergence=True))


def test_files_older_than_a_flag_resume(data: DataFile, tmp_path: Path) -> None:
    trained(tmp_path / "m.safetensors", data, settings("bs"))
    last = tmp_path / "m.last.safetensors"
    tensors, header = checkpoints.load(last, "training-state")
    for flag in records.LATER_FLAGS:
        header["flags"].pop(flag, None)
    checkpoints.save(last, tensors, header)
    assert len(trained(tmp_path / "m.safetensors", data, settings("bs"))) == 3


def test_its_time_is_evaluation(data: DataFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ahead, clock = [0.0], time.perf_counter
    monkeypatch.setattr(loop.time, "perf_counter", lambda: clock() + ahead[0])
    monkeypatch.setattr(loop, "divergences", lambda *_: ahead.append(ahead.pop() + 1000) or {})
    for record in trained(tmp_path / "m.safetensors", data, settings("natural")):
        assert record["validation_seconds"] >= 1000 > record["seconds"]


def test_processes_share_the_images(data: DataFile, monkeypatch: pytest.MonkeyPatch) -> None:
    s, val = settings("bs", log_divergence=True), data.split("val")
    state = new_state(s, data, 1, 8, CPU)
    whole = divergences(state, s, val, Share(), 1, lambda: None)
    found: list[Tensor] = []
    monkeypatch.setattr(module, "sum_over_processes", lambda sums, share: found.append(sums) or sums)
    for rank in (0, 1):
        divergences(state, s, val, Share(rank, 2), 1, lambda: None)
    n, *sums = sum(found).tolist()  # type: ignore[union-attr]
    expected = [whole[name] for name in ("kl_start", "kl_ascent", "fosc", "kl_n")]
    assert [*(each / n for each in sums), n] == pytest.approx(expected, rel=1e-5)
