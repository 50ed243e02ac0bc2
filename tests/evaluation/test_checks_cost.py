"""The cost of a model's checks relative to the attack, in passes, and the report of omitted checks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import bsk
from bsk.attacks.registry import attack_named
from bsk.data.store import open_data
from bsk.evaluation import run
from bsk.evaluation.diagnostics import ALONE, PARTS, _within
from bsk.evaluation.ledger import Block, Ledger
from bsk.perturb.passes import PassCounter, counting

pytestmark = pytest.mark.checks
ALL, SHORT = ["outputs", "gradients", "attacks"], run.SHORT


@pytest.mark.parametrize(
    ("passes", "n", "parts", "images"),
    [
        (16 + 560 * 64, 64, 3, 64),
        (16 + 560 * 64 - 1, 64, 3, 56),  # 63 images are filled up to 64 rows
        (16 + 560 * 16, 64, 3, 16),
        (16 + 560 * 16 - 1, 64, 2, 64),
        (16 + 7 * 16, 64, 2, 16),
        (16 + 7 * 16 - 1, 64, 1, 48),  # 111 passes are two for 55 images
        (16 + 2 * 16, 64, 1, 16),
        (16 + 2 * 16 - 1, 64, 0, 0),
        (16 + 2 * 10, 10, 1, 10),
        (16 + 2 * 10 - 1, 10, 0, 0),
        (0, 64, 0, 0),
    ],
)
def test_checks_allowed_by_a_number_of_passes(passes: int, n: int, parts: int, images: int) -> None:
    assert (ALONE, PARTS) == (16, {"outputs": 2, "gradients": 5, "attacks": 553})
    assert _within(passes, n, ALL) == (ALL[:parts], images)
    assert _within(passes, n, ALL[:1]) == (ALL[: min(parts, 1)], _within(passes, n, ALL[:1])[1])


@pytest.fixture
def spent(trained: Path, toy: Path, monkeypatch: pytest.MonkeyPatch):
    """Evaluate on n images; return the passes of attack and checks, a backward pass counted as two, and the record."""
    model, data = bsk.load(trained), open_data(toy)

    def evaluate(attack: str, n: int) -> tuple[int, int, dict]:
        counter, look_at = PassCounter(), run.look_at
        before = 0

        def cost() -> int:
            return counter.forward + 2 * counter.backward

        def looked(*args, **more):
            nonlocal before
            before = cost()
            return look_at(*args, **more)

        monkeypatch.setattr(run, "look_at", looked)
        given = data.split("train")
        x, y = given.images[:n], given.labels[:n]
        found = bsk.evaluate(counting(model, counter), x, y, attack=attack, eps=0.02, progress=False)
        monkeypatch.setattr(run, "look_at", look_at)
        return before, cost() - before, found.record

    return evaluate


@pytest.mark.parametrize(
    ("attack", "n", "share", "left_out"),
    [
        ("fgsm", 16, 4, ALL),
        ("fgsm", 120, 4, ALL[1:]),
        ("pgd-5", 240, 4, ALL[2:]),
        ("pgd-100", 64, 4, ALL[2:]),
        pytest.param("pgd-50x10", 240, 4, [], marks=pytest.mark.slow),
        ("natural", 60, 4, ALL[:1]),
        ("natural", 240, 4, ALL[:1]),
        pytest.param("autoattack", 16, 50, [], marks=pytest.mark.slow),
        pytest.param("autoattack-rand", 16, 50, ALL[2:], marks=pytest.mark.slow),
    ],
)
def test_the_checks_take_a_share_of_the_attack(spent, monkeypatch, attack, n, share, left_out) -> None:
    monkeypatch.setattr(run, "SHORT", dict.fromkeys(ALL, 0))
    attacked, checked, record = spent(attack, n)
    assert checked <= attacked / share
    assert (checked > 0) == ("checked" in record["checks"])
    assert record["checks"].get("left_out", []) == left_out


def test_short_attacks_get_all_checks_and_autoattack_a_small_share(spent) -> None:
    for attack in ("fgsm", "natural"):
        attacked, checked, record = spent(attack, 16)
        assert checked > attacked and "left_out" not in record["checks"]
    attacked, checked, record = spent("autoattack", 16)
    assert 0 < checked <= attacked / 50 and "pgd_10" not in record["checks"]


@pytest.mark.parametrize(
    ("pace", "of_much", "of_little"),
    [
        (2 / 35856, 35856, 35856),  # all parts in 2 s
        (0.0002, 1020, 464),  # 0.09 s
        (0.001, 1020, 144),  # 0.14 s
        (0.01, 1020, 10),
    ],
)
def test_what_is_allowed_by_hand(monkeypatch, pace: float, of_much: int, of_little: int) -> None:
    """The parts cost 144, 464 and 35,856 passes of 64 images; 17 % of 6,000 passes is 1,020, of 60 it is 10."""
    monkeypatch.setattr(run, "SHORT", SHORT)
    for forward, backward, allowed in ((150, 150, of_much), (2, 1, of_little)):
        ledger, each = Ledger(20), (torch.full((20,), forward), torch.full((20,), backward))
        ledger.add(Block(0, torch.arange(20), torch.zeros(20) > 0, torch.zeros(20), *each, seconds=6.0))
        assert ledger.pace == pytest.approx(6 / (20 * (forward + backward)))
        nothing = torch.zeros(0, dtype=torch.int64)
        ledger.add(Block(1, nothing, nothing > 0, torch.zeros(0), nothing, nothing, seconds=0.0))
        assert ledger.pace > 0, "a stage that met nobody has no pace"
        ledger.pace = pace
        assert run._allowed(attack_named("pgd-100", 0.1), ledger, ALL) == allowed
        assert run._allowed(attack_named("autoattack", 0.1), ledger, ALL) == (120 if forward == 150 else 1)


def test_a_small_network_gets_all_checks(call, trained: Path, toy: Path, monkeypatch) -> None:
    monkeypatch.setattr(run, "SHORT", dict.fromkeys(SHORT, 1000.0))  # seconds: a busy machine is slow
    record = json.loads(call("evaluate", trained, "--data", toy, "--attack", "pgd-40", "--eps", "0.02").stdout)
    assert "left_out" not in record["checks"] and "pgd_100" in record["checks"]


def test_omitted_checks_are_reported(call, trained: Path, toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["evaluate", trained, "--data", toy, "--attack", "pgd-2", "--eps", "0.02"]
    line = "the checks skipped gradients and attacks: too slow compared with pgd-2; use more images or a longer attack"
    assert "checks skipped" not in call(*words).stderr
    monkeypatch.setattr(run, "SHORT", dict.fromkeys(ALL, 0))
    said = call(*words)
    assert f"bsk: m.safetensors: {line}\n" in said.stderr
    assert json.loads(said.stdout)["checks"]["left_out"] == ["gradients", "attacks"]
    assert repr(bsk.evaluate(trained, data=toy, attack="pgd-2", eps=0.02)).endswith(f"\n{line}")
    assert "checks skipped" not in call(*words, "--no-checks").stderr
