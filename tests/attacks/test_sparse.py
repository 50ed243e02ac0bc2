"""APGD in L1 against a naive loop in float64 and the closed form on a linear model, and its properties."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_apgd import Recorder, Wavy, half_fooled, images, naive_loss
from torch import Tensor, nn

from bsk import devices
from bsk.attacks.flags import AttackFlags
from bsk.attacks.outcome import Outcome
from bsk.attacks.registry import attack_named
from bsk.attacks.sparse import _shares, apgd_l1
from bsk.errors import UsageError
from bsk.evaluation.calls import steady
from bsk.perturb.ball import L1, length
from bsk.perturb.draws import example_draws

NAMES = ["apgd-ce", "apgd-t", "fab-t", "square"]


def run(name: str, model: nn.Module, x: Tensor, y: Tensor, eps: float, index: range | None = None) -> Outcome:
    stage = attack_named(name, eps, AttackFlags(norm="l1", classes=5, queries=60)).stages[-1]
    return stage(model, x, y, example_draws(0, stage.name, index or range(len(x))), eps)


def project(z: Tensor, x: Tensor, eps: float) -> Tensor:
    """By a bisection for how far all coordinates go back."""
    size, room = (z - x).abs(), torch.where(z > x, 1 - x, x)
    low, high = 0.0, float(size.max()) + 1e-9
    if float(torch.minimum(size, room).sum()) <= eps:
        high = 0.0
    while high - low > 1e-13:
        middle = (low + high) / 2
        gone = float(torch.minimum((size - middle).clamp(min=0), room).sum())
        low, high = (middle, high) if gone > eps else (low, middle)
    return x + (z - x).sign() * torch.minimum((size - high).clamp(min=0), room)


def naive(
    model: nn.Module, x: Tensor, y: int, t: int, start: Tensor, eps: float, kind: str, steps: int
) -> tuple[list[Tensor], list[bool]]:
    """Every point on the way, and at which steps the best one had become sparser."""

    def look(point: Tensor) -> tuple[float, Tensor]:
        leaf = point.clone().requires_grad_()
        loss = naive_loss(kind, model(leaf[None])[0], y, t)
        (gradient,) = torch.autograd.grad(loss, leaf)
        return float(loss.detach()), gradient

    points, restarted, best = list[Tensor](), list[bool](), start
    third = math.ceil(0.3 * steps)
    for radius, n in ((3 * eps, third), (2 * eps, third), (eps, steps - 2 * third)):
        at = best = project(best, x, radius)
        loss, gradient = look(at)
        points.append(at)
        best_loss, best_gradient, eta = loss, gradient, radius
        changed = int((at != x).sum())
        for i in range(n):
            values = gradient.abs().flatten().sort().values
            least = values[min(int((1 - changed / len(values) / 1.5) * len(values)), len(values) - 1)]
            signs = torch.where(gradient.abs() >= least, gradient.sign(), 0.0)
            at = project(at + eta * signs / signs.abs().sum(), x, radius)
            loss, gradient = look(at)
            points.append(at)
            if loss > best_loss:
                best, best_loss, best_gradient = at, loss, gradient
            if (i + 1) % max(int(0.04 * n), 1) == 0:
                now = int((best != x).sum())
                sparser, changed = now / changed < 0.95, now
                eta = radius if sparser else max(eta / 1.5, radius / 10)
                if sparser:
                    at, gradient = best, best_gradient
                restarted.append(sparser)
    return points, restarted


@pytest.mark.parametrize(("loss", "steps", "targets"), [("cross_entropy", 40, 0), ("margin", 170, 0), ("dlr", 40, 2)])
def test_it_is_the_naive_loop(loss: str, steps: int, targets: int) -> None:
    """Every point on the way; of 170 steps a check is due at every second one in the first two balls, not in all."""
    model, x, eps = Wavy(5, 48, waves=6.0, lead=6.0).double(), images(3).double(), 1.2
    y, rows = torch.zeros(3, dtype=torch.int64), max(1, targets)
    recorder = Recorder(model)
    found = apgd_l1(recorder, x, y, example_draws(3, "a", range(3)), eps=eps, loss=loss, steps=steps, targets=targets)
    first = 1 if targets else 0
    assert not found.fooled.any() and len(recorder.seen) == first + steps + 3
    draws, restarted = example_draws(3, "a", range(3)), list[bool]()
    begin = [x + draws.gaussian(x) for _ in range(rows)]
    for i in range(3):
        ranked = [j for j in model(x[i : i + 1])[0].argsort(descending=True).tolist() if j != 0]
        for k in range(rows):
            start, kind = project(begin[k][i], x[i], 3 * eps), f"{loss}_to" if targets else loss
            points, more = naive(model, x[i], 0, ranked[k], start, eps, kind, steps)
            restarted += more
            for batch, point in zip(recorder.seen[first:], points, strict=True):
                torch.testing.assert_close(batch[rows * i + k], point, rtol=0, atol=1e-7)
    assert any(restarted) and not all(restarted)
    assert found.forward.tolist() == [rows * (steps + 3) + first] * 3
    assert found.backward.tolist() == [rows * (steps + 3)] * 3


def test_steps_are_divided_among_the_balls() -> None:
    assert _shares(100) == [30, 30, 40] and _shares(10) == [3, 3, 4] and _shares(1) == [1, 1, 0]


def test_on_a_linear_model_it_finds_the_closed_form() -> None:
    """The values of the largest weights go to black or white, one after another, until eps is used up."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 2)).double()
    x, y, eps = images(6).double(), torch.zeros(6, dtype=torch.int64), 2.5
    with torch.no_grad():
        model[1].bias += torch.tensor([30.0, -30.0])
    w = (model[1].weight[1] - model[1].weight[0]).detach()
    room = torch.where(w > 0, 1 - x.flatten(1), x.flatten(1))
    order = w.abs().argsort(descending=True)
    left, gain = torch.full((6,), eps).double(), torch.zeros(6).double()
    for i in order:
        moved = torch.minimum(left, room[:, i])
        left, gain = left - moved, gain + moved * w[i].abs()
    found = apgd_l1(model, x, y, example_draws(0, "", range(6)), eps=eps, loss="margin", steps=100)
    reached = ((found.x_adv - x).flatten(1) * w).sum(dim=1)
    assert (reached <= gain * (1 + 1e-5)).all() and (reached > 0.995 * gain).all()


@given(eps=st.floats(0, 3), seed=st.integers(0, 99), name=st.sampled_from(NAMES))
@settings(deadline=None, max_examples=8)
def test_results_are_in_ball_and_box_and_verdicts_are_correct(eps: float, seed: int, name: str) -> None:
    model, x = Wavy(5, 48, waves=4.0, seed=seed), images(4, seed=seed).mul(1.5).sub(0.25).clamp(0, 1)
    y = model(x).argmax(1)
    recorder = Recorder(model)
    found = run(name, recorder, x, y, eps)
    assert found.x_adv.min() >= 0 and found.x_adv.max() <= 1
    assert length(found.x_adv - x, "l1").max() <= eps * (1 + 1e-5) + 1e-5
    assert torch.equal(model(found.x_adv).argmax(1) != y, found.fooled)
    assert int(found.backward.sum()) == recorder.backward
    assert name == "square" or int(found.forward.sum()) == recorder.forward


@pytest.mark.parametrize("name", NAMES)
def test_results_do_not_depend_on_the_batch(name: str) -> None:
    model, x, y = half_fooled()
    padded = steady(model)
    whole = run(name, padded, x, y, 0.6)
    part = run(name, padded, x[5:9], y[5:9], 0.6, range(5, 9))
    assert 4 < whole.fooled.sum() < 24
    assert torch.equal(part.fooled, whole.fooled[5:9]) and torch.equal(part.forward, whole.forward[5:9])
    torch.testing.assert_close(part.x_adv, whole.x_adv[5:9], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["apgd-ce", "apgd-t"])
def test_asking_seldom_gives_the_same_results_as_in_every_step(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x, y = half_fooled()
    expected = run(name, model, x, y, 0.6)
    monkeypatch.setitem(devices.ANSWERS, "cpu", 8)
    found = run(name, model, x, y, 0.6)
    for what in ("fooled", "x_adv", "forward", "backward"):
        assert torch.equal(getattr(found, what), getattr(expected, what)), what


def test_a_restart_starts_elsewhere_and_attacks_only_standing_images() -> None:
    model, x, y = half_fooled()
    recorder, one = Recorder(model), apgd_l1(model, x, y, example_draws(0, "a", range(24)), eps=0.4)
    found = apgd_l1(recorder, x, y, example_draws(0, "a", range(24)), eps=0.4, restarts=3)
    assert 0 < int(one.fooled.sum()) < 24 and bool((found.fooled | ~one.fooled).all())
    assert torch.equal(found.x_adv[one.fooled], one.x_adv[one.fooled])
    stands = ~found.fooled
    assert set(found.forward[stands].tolist()) == {3 * 103}
    draws = example_draws(0, "a", range(24)).keep(stands)
    for _ in range(3):
        start = L1(x[stands], 1.2).sample(draws)
        assert any(len(z) >= len(start) and _holds(z, start) for z in recorder.seen)


def _holds(batch: Tensor, rows: Tensor) -> bool:
    return all(bool((batch - row).flatten(1).abs().amax(dim=1).min() < 1e-6) for row in rows)


def test_autoattack_in_l1_is_the_standard_version() -> None:
    stages = {stage.name: stage.parameters for stage in attack_named("autoattack", 12, AttackFlags(norm="l1")).stages}
    assert list(stages) == ["natural", *NAMES]
    assert (stages["apgd-ce"]["restarts"], stages["apgd-t"]["restarts"], stages["apgd-t"]["targets"]) == (5, 1, 5)
    assert stages["fab-t"]["targets"] == 9 and stages["square"]["queries"] == 5000
    assert {each["norm"] for each in stages.values() if each} == {"l1"}


@pytest.mark.parametrize("name", ["apgd-dlr", "autoattack-rand", "pgd-5", "fgsm", "cw-5", "rays"])
def test_attacks_without_l1_name_those_with_it(name: str) -> None:
    with pytest.raises(UsageError, match=r"^--norm l1: .*; use apgd-ce, apgd-t, fab-t, square"):
        attack_named(name, 12, AttackFlags(norm="l1"))
