"""APGD against a naive loop in float64, and properties of all attacks of AutoAttack."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from bsk.attacks.apgd import _windows, apgd
from bsk.attacks.flags import AttackFlags
from bsk.attacks.outcome import Outcome, ranked_targets
from bsk.attacks.registry import attack_named
from bsk.evaluation.calls import steady
from bsk.perturb.ball import length
from bsk.perturb.draws import ExampleDraws, example_draws
from bsk.perturb.losses import dlr, dlr_to

SLACK = 1e-6


class Wavy(nn.Module):
    """A smooth network whose loss oscillates within a small ball; the label's logit is far ahead if `lead` is large."""

    def __init__(self, classes: int, features: int, waves: float = 30.0, lead: float = 0.0, seed: int = 0) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(seed)
        self.inner = nn.Parameter(torch.randn(16, features, generator=random) / features**0.5)
        self.outer = nn.Parameter(torch.randn(classes, 16, generator=random) / 4)
        self.waves, self.lead = waves, lead

    def forward(self, x: Tensor) -> Tensor:
        logits = torch.sin(self.waves * x.flatten(1) @ self.inner.T) @ self.outer.T
        ahead = torch.zeros_like(logits)
        ahead[:, 0] = self.lead
        return logits + ahead


class Recorder:
    """Wraps a model and records every batch."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.seen = model, list[Tensor]()
        self.forward = self.backward = 0

    def __call__(self, x: Tensor) -> Tensor:
        self.seen.append(x.detach().clone())
        self.forward += len(x)
        logits = self.model(x)
        if logits.requires_grad:
            logits.register_hook(lambda gradient: self.add(len(gradient)))
        return logits

    def add(self, rows: int) -> None:
        self.backward += rows


def images(n: int, channels: int = 3, height: int = 4, width: int = 4, seed: int = 1) -> Tensor:
    return torch.rand(n, channels, height, width, generator=torch.Generator().manual_seed(seed))


def run(name: str, model: Any, x: Tensor, y: Tensor, eps: float, index: Any = None, **flags: Any) -> Outcome:
    """Run the attack stage alone, without the natural stage before it."""
    stage = attack_named(name, eps, AttackFlags(**flags)).stages[-1]
    return stage(model, x, y, example_draws(0, stage.name, range(len(x)) if index is None else index), eps)


# --- the schedule and the losses, by hand -----------------------------------------------------------------------------


def test_checkpoints_are_at_these_steps() -> None:
    due = [(i, window) for i, window in enumerate(_windows(100)) if window]
    assert [i + 1 for i, _ in due] == [22, 41, 57, 70, 80, 87, 93, 99]
    assert [window for _, window in due] == [22, 19, 16, 13, 10, 7, 6, 6]
    assert [i for i, window in enumerate(_windows(10)) if window] == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert list(_windows(0)) == [] and list(_windows(1)) == [1]


def test_dlr_by_hand() -> None:
    """Sorted: 7 5 4 1. Of the first label -(7 - 5) / (7 - 4), of the last -(1 - 7) / (7 - 4)."""
    logits = torch.tensor([[7.0, 4.0, 5.0, 1.0]] * 2, dtype=torch.float64)
    assert dlr(logits, torch.tensor([0, 3])).tolist() == pytest.approx([-2 / 3, 2.0])
    assert dlr(torch.tensor([[0.0, -1.0, 3.0]]), torch.tensor([1])).item() == pytest.approx(4 / 4)


def test_targeted_dlr_by_hand() -> None:
    """The denominator is 9 - (4 + 2) / 2 = 6 for every label and target."""
    logits = torch.tensor([[9.0, 4.0, 6.0, 2.0, -1.0]] * 3, dtype=torch.float64)
    y, target = torch.tensor([0, 1, 4]), torch.tensor([2, 0, 3])
    assert dlr_to(logits, y, target).tolist() == pytest.approx([-(9 - 6) / 6, -(4 - 9) / 6, -(-1 - 2) / 6])


def test_targets_are_the_most_likely_wrong_classes() -> None:
    logits = torch.tensor([[1.0, 5.0, 3.0, 2.0], [9.0, 5.0, 7.0, 8.0]])
    assert ranked_targets(logits, torch.tensor([1, 3]), 2).tolist() == [[2, 3], [0, 2]]
    assert ranked_targets(logits, torch.tensor([1, 3]), 9).shape == (2, 3)


# --- a naive reference, one example at a time -------------------------------------------------------------------------

CHECKS = [21, 40, 56, 69, 79, 86, 92, 98]


def naive_loss(kind: str, z: Tensor, y: int, t: int) -> Tensor:
    order = z.sort(descending=True).values
    other = torch.stack([z[j] for j in range(len(z)) if j != y]).max()
    return {
        "cross_entropy": -(z - z.logsumexp(0))[y],
        "margin": other - z[y],
        "dlr": (other - z[y]) / (order[0] - order[min(2, len(z) - 1)] + 1e-12),
        "dlr_to": (z[t] - z[y]) / (order[0] - 0.5 * (order[min(2, len(z) - 1)] + order[min(3, len(z) - 1)]) + 1e-12),
        "margin_to": z[t] - z[y],
    }[kind]


def project(point: Tensor, x: Tensor, eps: float, norm: str) -> Tensor:
    if norm == "linf":
        return torch.minimum(torch.maximum(point, x - eps), x + eps).clamp(0, 1)
    away = point - x
    far = float(away.norm())
    return (x + away / (far + 1e-12) * min(eps, far)).clamp(0, 1)


def naive_apgd(
    model: nn.Module, x: Tensor, y: int, t: int, start: Tensor, eps: float, norm: str, kind: str
) -> tuple[list[Tensor], Tensor, int, int]:
    """100 steps from `start`; returns every point, the best, and how many checks halved the step and did not."""

    def look(point: Tensor) -> tuple[float, Tensor]:
        leaf = point.clone().requires_grad_()
        loss = naive_loss(kind, model(leaf[None])[0], y, t)
        (gradient,) = torch.autograd.grad(loss, leaf)
        return float(loss.detach()), gradient

    at, before, eta = start, start, 2 * eps
    loss, gradient = look(at)
    best, best_gradient, best_loss = at, gradient, loss
    best_at_last_check, halved_at_last_check, losses = loss, True, list[float]()
    points, checks, last_check = [at], list[bool](), -1
    for i in range(100):
        direction = gradient.sign() if norm == "linf" else gradient / (gradient.norm() + 1e-12)
        z = project(at + eta * direction, x, eps, norm)
        if i > 0:
            z = project(at + 0.75 * (z - at) + 0.25 * (at - before), x, eps, norm)
        before, at = at, z
        loss, gradient = look(at)
        points.append(at)
        losses.append(loss)
        if loss > best_loss:
            best, best_gradient, best_loss = at, gradient, loss
        if i in CHECKS:
            since = range(last_check + 1, i + 1)
            rises = sum(losses[j] > (losses[j - 1] if j > 0 else 0.0) for j in since)  # the first against 0
            halve = rises <= 0.75 * len(since) or (not halved_at_last_check and best_at_last_check >= best_loss)
            if halve:
                eta, at, gradient = eta / 2, best, best_gradient
            checks.append(halve)
            halved_at_last_check, best_at_last_check, last_check = halve, best_loss, i
    return points, best, checks


def starts(x: Tensor, eps: float, norm: str, draws: ExampleDraws) -> Tensor:
    t = draws.uniform(x) if norm == "linf" else draws.gaussian(x)
    return torch.stack([(x[i] + eps * t[i] / length(t[i : i + 1], norm)).clamp(0, 1) for i in range(len(x))])


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("loss", ["cross_entropy", "dlr", "margin"])
def test_apgd_is_the_naive_loop(norm: str, loss: str) -> None:
    """All iterates and the best point are equal; the step is halved at some checkpoints but not at others."""
    model, x, eps = Wavy(5, 48, lead=6.0).double(), images(4).double(), 0.05 if norm == "linf" else 0.3
    model.waves = 12.0
    y = torch.zeros(4, dtype=torch.int64)
    recorder = Recorder(model)
    found = apgd(recorder, x, y, example_draws(3, "a", range(4)), eps=eps, norm=norm, loss=loss)
    assert not found.fooled.any() and len(recorder.seen) == 101
    begin, checks = starts(x, eps, norm, example_draws(3, "a", range(4))), list[bool]()
    for i in range(4):
        points, best, more = naive_apgd(model, x[i], 0, 0, begin[i], eps, norm, loss)
        checks += more
        for batch, point in zip(recorder.seen, points, strict=True):
            torch.testing.assert_close(batch[i], point, rtol=0, atol=1e-9)
        torch.testing.assert_close(found.x_adv[i], best, rtol=0, atol=1e-9)
    assert sum(checks) > 8 and not all(checks)
    assert found.forward.tolist() == found.backward.tolist() == [101] * 4


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("loss", ["dlr", "margin"])
def test_targeted_apgd_is_the_naive_loop_of_each_target(norm: str, loss: str) -> None:
    model, x, eps = Wavy(5, 48, lead=6.0).double(), images(3).double(), 0.05 if norm == "linf" else 0.3
    model.waves = 12.0
    recorder, y = Recorder(model), torch.zeros(3, dtype=torch.int64)
    found = apgd(recorder, x, y, example_draws(3, "a", range(3)), eps=eps, norm=norm, loss=loss, targets=3)
    assert not found.fooled.any() and len(recorder.seen) == 102
    draws, checks = example_draws(3, "a", range(3)), list[bool]()
    begin = [starts(x, eps, norm, draws) for _ in range(3)]
    for i in range(3):
        ranked = model(x[i : i + 1])[0].argsort(descending=True).tolist()
        ranked.remove(0)
        for k in range(3):
            points, best, more = naive_apgd(model, x[i], 0, ranked[k], begin[k][i], eps, norm, f"{loss}_to")
            checks += more
            for batch, point in zip(recorder.seen[1:], points, strict=True):
                torch.testing.assert_close(batch[3 * i + k], point, rtol=0, atol=1e-9)
            if k == 0:
                torch.testing.assert_close(found.x_adv[i], best, rtol=0, atol=1e-9)
    assert sum(checks) > 9 and not all(checks)
    assert found.forward.tolist() == [1 + 3 * 101] * 3 and found.backward.tolist() == [3 * 101] * 3


class Scripted(nn.Module):
    """A model whose k-th call returns the k-th value for any image, with alternating gradients 1 and -1."""

    def __init__(self, changes: list[float]) -> None:
        super().__init__()
        self.changes, self.call = changes, -1

    def forward(self, x: Tensor) -> Tensor:
        self.call += 1
        total = x.flatten(1).sum(1)
        value = -5 + sum(self.changes[: self.call]) + (-1) ** self.call * (total - total.detach())
        return torch.stack([torch.zeros_like(value), value], 1)


UP = 0.009
SCRIPTS = {
    # of 22 steps 17 must rise (more than 16.5); the first is compared with 0, below cross entropy and above the margin
    "17, for it rose from 0": ("cross_entropy", [-1.0, *[UP] * 16, *[-UP] * 5], [False]),
    "16, for it fell from 0": ("margin", [*[UP] * 17, *[-UP] * 5], [True]),
    "17 in any case": ("margin", [-1.0, *[UP] * 17, *[-UP] * 4], [False]),
    "16 in any case": ("cross_entropy", [-1.0, *[UP] * 15, *[-UP] * 6], [True]),
    # it rises and never comes up to the first: the first check, and each after a halving, lets that pass
    "no better than at the last check": ("margin", [-1.0, *[UP] * 99], [False, True] * 4),
    "better than at the last check": ("margin", [UP] * 100, [False] * 8),
    "never a rise": ("margin", [-UP] * 100, [True] * 8),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_when_a_step_is_halved(name: str) -> None:
    loss, changes, expected = SCRIPTS[name]
    model, x, y = Scripted(changes), torch.full((1, 1, 2, 2), 0.5).double(), torch.tensor([0])
    begin = starts(x, 0.1, "linf", example_draws(0, "", [0]))[0]
    points, best, checks = naive_apgd(model, x[0], 0, 0, begin, 0.1, "linf", loss)
    assert checks[: len(expected)] == expected, "the naive loop itself"
    recorder = Recorder(Scripted(changes))
    found = apgd(recorder, x, y, example_draws(0, "", [0]), eps=0.1, loss=loss)
    torch.testing.assert_close(torch.cat(recorder.seen), torch.stack(points), rtol=0, atol=1e-9)
    torch.testing.assert_close(found.x_adv[0], best, rtol=0, atol=1e-9)


def test_apgd_finds_the_corner_of_a_linear_model_and_the_pole_under_l2() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 2)).double()
    x, y = 0.4 + 0.2 * images(6).double(), torch.zeros(6, dtype=torch.int64)
    with torch.no_grad():
        model[1].bias += torch.tensor([9.0, -9.0])
    w = (model[1].weight[1] - model[1].weight[0]).detach().view(3, 4, 4)
    corner = apgd(model, x, y, example_draws(0, "", range(6)), eps=0.1, loss="margin", steps=20)
    torch.testing.assert_close(corner.x_adv, x + 0.1 * w.sign(), rtol=0, atol=1e-12)
    pole = apgd(model, x, y, example_draws(0, "", range(6)), eps=0.1, norm="l2", loss="margin", steps=60)
    torch.testing.assert_close(pole.x_adv, x + 0.1 * w / w.norm(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("sure", [1, 100])
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_how_sure_a_model_is_does_not_matter(norm: str, sure: float) -> None:
    """Of two classes, the second has the sum of 16 pixels, less 8: its boundary is 0.6, 0.15 or 0.0375 from x.

    At an image whose first class has a logit of 60 more, the gradient of cross-entropy is below 1e-25.
    """
    x, y = torch.full((2, 1, 4, 4), 0.5 - 0.6 / 16), torch.tensor([0, 0])

    def model(x: Tensor) -> Tensor:
        z = sure * (x.flatten(1).sum(dim=1) - 8)
        return torch.stack([torch.zeros_like(z), z], dim=1)

    distance = {"linf": 0.6 / 16, "l2": 0.6 / 4, "l1": 0.6}[norm]
    for factor, fooled in ((0.97, False), (1.03, True)):
        eps = factor * distance
        stage = attack_named("apgd-ce", eps, AttackFlags(norm=norm, classes=2)).stages[-1]
        found = stage(model, x, y, example_draws(0, "", range(2)), eps)
        assert found.fooled.tolist() == [fooled, fooled]


def test_eot_averages_the_gradients_of_a_random_model() -> None:
    """With gradients +1, +1 and -3 in turn, the average points down, but the first two passes point up."""

    class Random(nn.Module):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            slope = (1.0, 1.0, -3.0)[self.calls % 3]
            self.calls += 1
            rise = slope * x.flatten(1).mean(1)
            return torch.stack([torch.full_like(rise, 5.0), rise], 1)

    x, y = torch.full((2, 1, 2, 2), 0.5), torch.tensor([0, 0])
    seen = Recorder(Random())
    found = apgd(seen, x, y, example_draws(0, "", range(2)), eps=0.1, loss="margin", steps=1, eot=3)
    torch.testing.assert_close(seen.seen[3], x - 0.1)
    assert found.forward.tolist() == found.backward.tolist() == [6, 6]
    assert (seen.forward, seen.backward) == (12, 12)
    one = apgd(Random(), x, y, example_draws(0, "", range(2)), eps=0.1, loss="margin", steps=1)
    torch.testing.assert_close(one.x_adv, x + 0.1)


# --- what every attack promises ---------------------------------------------------------------------------------------

NAMES = ["apgd-ce", "apgd-dlr", "apgd-t", "fab-t"]


def half_fooled(classes: int = 5, n: int = 24, height: int = 4, width: int = 4) -> tuple[Wavy, Tensor, Tensor]:
    """A model, images, and labels of which some are the predicted ones and some are not."""
    model, x = Wavy(classes, 3 * height * width, waves=2.0, seed=1), images(n, 3, height, width)
    y = model(x).argmax(1)
    y[::7] = (y[::7] + 1) % classes
    return model, x, y


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.02), ("l2", 0.1)])
@pytest.mark.parametrize("shape", [(4, 4), (3, 6)])
def test_results_are_in_ball_and_box_and_verdicts_are_correct(
    name: str, norm: str, eps: float, shape: tuple[int, int]
) -> None:
    model, x, y = half_fooled(height=shape[0], width=shape[1])
    recorder = Recorder(model)
    found = run(name, recorder, x, y, eps, norm=norm, classes=5)
    assert found.x_adv.shape == x.shape and found.x_adv.dtype == x.dtype and not found.x_adv.requires_grad
    assert found.x_adv.min() >= 0 and found.x_adv.max() <= 1
    assert length(found.x_adv - x, norm).max() <= eps + SLACK
    assert torch.equal(model(found.x_adv).argmax(1) != y, found.fooled)
    assert 4 < found.fooled.sum() < 20
    assert int(found.forward.sum()) == recorder.forward and int(found.backward.sum()) == recorder.backward


@given(
    eps=st.floats(0, 0.2), seed=st.integers(0, 99), name=st.sampled_from(NAMES), norm=st.sampled_from(["linf", "l2"])
)
@settings(deadline=None, max_examples=25)
def test_results_are_in_ball_and_box_for_any_model(eps: float, seed: int, name: str, norm: str) -> None:
    model, x = Wavy(4, 12, waves=4.0, seed=seed), images(6, 3, 2, 2, seed).mul(1.5).sub(0.25).clamp(0, 1)
    y = model(x).argmax(1)
    found = run(name, model, x, y, eps, norm=norm, classes=4)
    assert found.x_adv.min() >= 0 and found.x_adv.max() <= 1
    assert length(found.x_adv - x, norm).max() <= eps + SLACK
    assert torch.equal(model(found.x_adv).argmax(1) != y, found.fooled)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_results_do_not_depend_on_order_or_batch(name: str, norm: str) -> None:
    model, x, y = half_fooled()
    eps, padded = 0.03 if norm == "linf" else 0.15, steady(model)
    whole = run(name, padded, x, y, eps, norm=norm, classes=5)
    order = torch.randperm(24, generator=torch.Generator().manual_seed(2))
    mixed = run(name, padded, x[order], y[order], eps, order.tolist(), norm=norm, classes=5)
    part = run(name, padded, x[5:9], y[5:9], eps, range(5, 9), norm=norm, classes=5)
    for other, rows in ((mixed, order), (part, slice(5, 9))):
        assert torch.equal(other.fooled, whole.fooled[rows])
        assert torch.equal(other.forward, whole.forward[rows]) and torch.equal(other.backward, whole.backward[rows])
        torch.testing.assert_close(other.x_adv, whole.x_adv[rows], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", [*NAMES, "square"])
def test_images_misclassified_at_the_start_cost_one_pass(name: str) -> None:
    model, x = Wavy(5, 48, waves=2.0), images(6)
    y = (model(x).argmax(1) + 1) % 5
    found = run(name, model, x, y, 1e-6, classes=5)
    assert found.fooled.all() and torch.equal(model(found.x_adv).argmax(1) != y, found.fooled)
    expected = {"apgd-ce": 1, "apgd-dlr": 1, "apgd-t": 1 + 4, "fab-t": 1, "square": 1}[name]
    assert set(found.forward.tolist()) == {expected}


@pytest.mark.parametrize("name", [*NAMES, "square", "rays"])
def test_no_example_and_one_example(name: str) -> None:
    model, x, y = half_fooled(n=1)
    y = model(x).argmax(1)
    none = run(name, model, x[:0], y[:0], 0.02, classes=5, queries=20)
    assert none.x_adv.shape == (0, 3, 4, 4) and none.fooled.shape == none.forward.shape == (0,)
    one = run(name, model, x, y, 1e-5, classes=5, queries=20)
    assert one.fooled.tolist() == [False] and int(one.forward[0]) > 0


@pytest.mark.parametrize(
    ("name", "norm"), [*((name, norm) for name in NAMES for norm in ("linf", "l2")), ("square", "linf")]
)
def test_eps_zero_fools_only_misclassified_images(name: str, norm: str) -> None:
    model, x, y = half_fooled()
    found = run(name, model, x, y, 0.0, norm=norm, classes=5, queries=30)
    assert torch.equal(found.fooled, model(x).argmax(1) != y)
    torch.testing.assert_close(found.x_adv, x, rtol=0, atol=1e-7)


@pytest.mark.parametrize("classes", [2, 3, 4, 10, *(pytest.param(n, marks=pytest.mark.slow) for n in (5, 100, 200))])
@pytest.mark.parametrize("name", ["apgd-t", "fab-t", "autoattack"])
def test_any_number_of_classes(name: str, classes: int) -> None:
    attack = attack_named(name, 0.02, AttackFlags(classes=classes))
    model, x = Wavy(classes, 12, waves=2.0, seed=2), images(3, 3, 2, 2)
    y = model(x).argmax(1)
    for stage in attack.stages[1:]:
        if stage.name == "square":
            stage = attack_named("square", 0.02, AttackFlags(classes=classes, queries=50)).stages[-1]
        found = stage(model, x, y, example_draws(0, stage.name, range(3)), 0.02)
        assert torch.equal(model(found.x_adv).argmax(1) != y, found.fooled)
        if stage.name in ("apgd-t", "fab-t"):
            assert stage.parameters["targets"] == stage.rows == min(9, classes - 1)
        if stage.name == "apgd-t":
            assert stage.parameters["loss"] == ("margin" if classes < 4 else "dlr")
            still = ~found.fooled
            assert set(found.forward[still].tolist()) <= {1 + 101 * stage.rows}


def test_below_four_classes_the_margin_replaces_dlr_with_a_notice() -> None:
    for name in ("apgd-t", "apgd-dlr", "autoattack", "screen"):
        assert any("margin" in said for said in attack_named(name, 0.1, AttackFlags(classes=3)).notices)
        assert not any("margin" in said for said in attack_named(name, 0.1, AttackFlags(classes=4)).notices)
    assert not attack_named("apgd-ce", 0.1, AttackFlags(classes=3)).notices
    assert attack_named("apgd-dlr", 0.1, AttackFlags(classes=3)).parameters["loss"] == "margin"


def test_autoattack_is_the_standard_version() -> None:
    stages = {stage.name: stage.parameters for stage in attack_named("autoattack", 0.1).stages}
    assert list(stages) == ["natural", "apgd-ce", "apgd-t", "fab-t", "square"]
    assert stages["apgd-ce"] == {"loss": "cross_entropy", "norm": "linf", "steps": 100, "targets": 0, "eot": 1}
    assert stages["apgd-t"] == {"loss": "dlr", "norm": "linf", "steps": 100, "targets": 9, "eot": 1}
    assert (stages["fab-t"]["steps"], stages["fab-t"]["targets"]) == (100, 9)
    assert stages["square"]["queries"] == 5000
    random = {stage.name: stage.parameters for stage in attack_named("autoattack-rand", 0.1).stages[1:]}
    assert list(random) == ["apgd-ce", "apgd-dlr"] and {each["eot"] for each in random.values()} == {20}


@pytest.mark.parametrize("name", [*NAMES, "square", "rays"])
def test_tensors_are_created_on_the_device_of_the_images(name: str) -> None:
    """The default device differs from that of the images, so a tensor created there would cause an error."""
    model, x, y = half_fooled(n=6)
    stage = attack_named(name, 0.02, AttackFlags(classes=5, queries=30)).stages[-1]
    draws = example_draws(0, name, range(6))
    with torch.device("meta"):
        found = stage(model, x, y, draws, 0.02)
    for each in (found.x_adv, found.fooled, found.forward, found.backward):
        assert each.device.type == "cpu"


@pytest.mark.parametrize("name", [*NAMES, "square", "rays"])
def test_an_attack_changes_neither_images_nor_parameters(name: str) -> None:
    model, x, y = half_fooled(n=6)
    before, parameters = x.clone(), [p.detach().clone() for p in model.parameters()]
    run(name, model, x, y, 0.02, classes=5, queries=30)
    assert torch.equal(x, before) and all(p.grad is None and p.requires_grad for p in model.parameters())
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), parameters, strict=True))


CONSTANT: dict[str, Callable[[Tensor], Tensor]] = {
    "flat": lambda x: x.flatten(1)[:, :5] * 0 + torch.tensor([3.0, 0.0, 0.0, 0.0, 0.0]),
    "steep": lambda x: x.flatten(1)[:, :5] * 1e6 + torch.tensor([3e7, 0.0, 0.0, 0.0, 0.0]),
}


@pytest.mark.parametrize("name", [*NAMES, "square", "rays"])
@pytest.mark.parametrize("kind", sorted(CONSTANT))
def test_no_gradient_and_huge_logits_give_finite_images(name: str, kind: str) -> None:
    x, y = images(3), torch.zeros(3, dtype=torch.int64)
    found = run(name, CONSTANT[kind], x, y, 0.1, classes=5, queries=30)
    assert not found.fooled.any() and torch.isfinite(found.x_adv).all()
    assert math.isclose(float((found.x_adv - x).abs().max()), 0.1, abs_tol=0.1 + SLACK)
