"""Progress of an evaluation, from the start of each stage to the end of the checks, never backwards."""

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import bsk
from bsk.attacks.flags import AttackFlags
from bsk.attacks.registry import attack_named
from bsk.data.store import open_data
from bsk.evaluation import calls
from bsk.evaluation.diagnostics import look_at
from bsk.evaluation.verdicts import CHECKS, Progress, judge
from bsk.terminal import Bar

CPU = torch.device("cpu")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Let the given number of seconds pass with each model call."""

    def ticks(seconds: float) -> None:
        times = itertools.count()
        monkeypatch.setattr(calls, "monotonic", lambda: seconds * next(times))

    ticks(2 * calls.BEAT)
    return ticks


def watched(trained: Path, toy: Path, name: str, batch_size: int = 96, eps: float = 0.05) -> list[tuple[Progress, int]]:
    """Return the progress reports of an attack on 90 images, each with the number of model calls before it."""
    model, told, made = bsk.load(trained), [], 0

    def count(*_: object) -> None:
        nonlocal made
        made += 1

    model.register_forward_hook(count)
    attack = attack_named(name, eps, AttackFlags(classes=3, queries=300 if name in ("square", "rays") else None))
    judge(
        model,
        open_data(toy).split("test"),
        attack,
        eps=eps,
        seed=0,
        batch_size=batch_size,
        device=CPU,
        watch=lambda progress: told.append((progress, made)),
    )
    return told


OTHERS = [pytest.param(name, marks=pytest.mark.slow) for name in ("apgd-ce", "fab-t", "square", "rays")]


@pytest.mark.parametrize("name", ["pgd-20", "screen", *OTHERS])
@pytest.mark.parametrize("batch_size", [32, pytest.param(192, marks=pytest.mark.slow)])
def test_a_stage_is_named_from_its_start_and_moves_amid_a_block(clock, trained, toy, name, batch_size) -> None:
    told = watched(trained, toy, name, batch_size)
    for stage in attack_named(name, 0.05, AttackFlags(classes=3)).stages:
        mine = [(progress, made) for progress, made in told if progress.stage == stage.name]
        before = [made for progress, made in told[: told.index(mine[0])]]
        assert mine[0][1] == (before[-1] if before else 0), "told before its first model call"
        assert [progress.ended for progress, _ in mine] == [False] * (len(mine) - 1) + [True]
    if batch_size == 192:  # all examples are one block
        assert len({progress.done for progress, _ in told if not progress.ended}) > 10
    shares = [progress.done / progress.total for progress, _ in told]
    assert shares == sorted(shares) and shares[0] == 0
    assert all((progress.done == progress.total) == (progress is told[-1][0]) for progress, _ in told if progress.ended)


def test_progress_by_hand(clock, trained: Path, toy: Path) -> None:
    """PGD-2 costs 5 passes per example: two calls with gradients and one without; fallen examples cost no more.

    The radius is so small that no example falls on the way.
    """
    told = [progress for progress, _ in watched(trained, toy, "pgd-2", eps=1e-5)]
    right = told[2].standing
    assert 0 < right < 90 and [(each.stage, each.done, each.total - each.done) for each in told] == [
        ("natural", 0, 6 * 90),
        ("natural", 90, 5 * 90),
        ("natural", 90, 5 * right),
        ("natural", 90, 5 * right),
        ("pgd-2", 90, 5 * right),
        ("pgd-2", 90 + 2 * right, 3 * right),
        ("pgd-2", 90 + 4 * right, right),
        ("pgd-2", 90 + 5 * right, 0),
        ("pgd-2", 90 + 5 * right, 0),
        ("pgd-2", 90 + 5 * right, 0),
    ]


def test_progress_is_reported_at_a_limited_rate(clock, trained: Path, toy: Path) -> None:
    def amid(seconds: float) -> int:
        clock(seconds)
        told = watched(trained, toy, "rays")
        return sum(progress.stage == "rays" for progress, _ in told) - 3  # its start, its block and its end

    every = amid(2 * calls.BEAT)
    assert every > 300 and every // 12 <= amid(calls.BEAT / 10.5) <= every // 10 and amid(0.0) == 0


@pytest.mark.checks
def test_progress_of_the_checks_reaches_the_end(clock, trained: Path, toy: Path) -> None:
    told: list[tuple[int, int]] = []
    examples = open_data(toy).split("test")
    look_at(bsk.load(trained), examples, eps=0.05, seed=0, device=CPU, watch=lambda *at: told.append(at))
    done = [each for each, _ in told]
    assert len(set(done)) > 100 and done == sorted(done) and done[0] == 0
    assert {total for _, total in told} == {done[-1]} and done[-2] < done[-1]


def test_the_library_shows_the_same_progress(clock, trained: Path, toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[int, int, str]] = []
    monkeypatch.setattr(Bar, "draw", lambda bar, *at: drawn.append(at))
    result = bsk.evaluate(trained, data=toy, attack="pgd-20", eps=0.05)
    stages = [text.split()[1] for _, _, text in drawn]
    assert [stage for stage, _ in itertools.groupby(stages)] == ["natural", "pgd-20", CHECKS]
    assert all(stages.count(stage) > 10 for stage in ("pgd-20", CHECKS))
    assert drawn[-1][2] == f"pgd-20 {CHECKS} <= {result.accuracy:.1%}"
