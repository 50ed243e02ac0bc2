from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from bsk.attacks.flags import AttackFlags
from bsk.attacks.outcome import Outcome
from bsk.attacks.pgd import pgd
from bsk.attacks.registry import attack_named
from bsk.errors import UsageError
from bsk.perturb.draws import ExampleDraws, example_draws

NO_DRAWS = example_draws(0, "", [])


def run(name: str, model: nn.Module, x: Tensor, y: Tensor, draws: ExampleDraws, eps: float, **flags: Any) -> Outcome:
    """Run the attack stage alone, without the natural stage before it."""
    return attack_named(name, eps, AttackFlags(**flags)).stages[-1](model, x, y, draws, eps)


def linear(classes: int = 2, features: int = 12, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(features, classes))


def images(n: int, seed: int = 1) -> Tensor:
    return 0.3 + 0.4 * torch.rand(n, 3, 2, 2, generator=torch.Generator().manual_seed(seed))


@given(eps=st.floats(0.001, 0.3), seed=st.integers(0, 50))
@settings(deadline=None)
def test_on_a_linear_model_fgsm_finds_the_closed_form(eps: float, seed: int) -> None:
    """Inside the box the worst logit difference of w.x + b within eps is w.x + b - eps |w|_1."""
    model, x = linear(seed=seed), images(32, seed)
    y = model(x).argmax(1)
    w = model[1].weight[0] - model[1].weight[1]
    gap = (model(x)[:, 0] - model(x)[:, 1]).abs()
    clear = (gap - eps * w.abs().sum()).abs() > 1e-4
    found = run("fgsm", model, x, y, NO_DRAWS, eps)
    assert torch.equal(found.fooled[clear], (gap < eps * w.abs().sum())[clear])


def test_an_example_counts_as_fooled_at_any_iterate() -> None:
    """A model that is wrong only in a shell which the last iterate leaves again."""

    class Shell(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            depth = x.flatten(1).mean(1)
            wrong = (depth > 0.52) & (depth < 0.56)
            return torch.stack([depth * 0, depth + torch.where(wrong, 10.0, -10.0)], 1)

    x, y = torch.full((2, 1, 2, 2), 0.5), torch.tensor([0, 0])
    spec = {"eps": 0.1, "step": 0.025, "steps": 4}
    assert pgd(Shell(), x, y, NO_DRAWS, **spec).fooled.tolist() == [True, True]
    assert pgd(Shell(), x, y, NO_DRAWS, **spec, last_iterate=True).fooled.tolist() == [False, False]


def test_pgd_is_the_textbook_loop_when_nothing_is_fooled() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 2), nn.Tanh(), nn.Flatten(), nn.Linear(4, 3)).double()
    x = images(5).double()
    y = model(x).argmax(1)
    expected = x.clone()
    for _ in range(7):
        expected = expected.detach().requires_grad_()
        nn.functional.cross_entropy(model(expected), y).backward()
        moved = expected.detach() + 0.002 * expected.grad.sign()
        expected = torch.minimum(torch.maximum(moved, x - 0.01), x + 0.01).clamp(0, 1)
    found = pgd(model, x, y, NO_DRAWS, eps=0.01, step=0.002, steps=7, last_iterate=True)
    torch.testing.assert_close(found.x_adv, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["fgsm", "pgd-5", "pgd-3x4", "cw-5"])
@pytest.mark.parametrize("start", ["zero", "uniform"])
def test_every_attack_stays_in_the_ball_and_its_verdicts_are_correct(name: str, start: str) -> None:
    model, x = linear(5), images(40)
    y = torch.randint(0, 5, (40,), generator=torch.Generator().manual_seed(0))
    found = run(name, model, x, y, example_draws(0, name, range(40)), 0.05, start=start)
    assert (found.x_adv - x).abs().max() <= 0.05 + 1e-6 and found.x_adv.min() >= 0 and found.x_adv.max() <= 1
    assert torch.equal(model(found.x_adv).argmax(1) != y, found.fooled)
    assert bool(found.fooled[model(x).argmax(1) != y].all())


def test_results_do_not_depend_on_order_or_batch() -> None:
    model, x = linear(4), images(30)
    y = torch.randint(0, 4, (30,), generator=torch.Generator().manual_seed(0))
    attack, index = attack_named("pgd-4x3", 0.03, AttackFlags(start="uniform")).stages[-1], list(range(30))
    whole = attack(model, x, y, example_draws(7, attack.name, index), 0.03)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(2))
    mixed = attack(model, x[order], y[order], example_draws(7, attack.name, order.tolist()), 0.03)
    assert torch.equal(mixed.fooled, whole.fooled[order])
    torch.testing.assert_close(mixed.x_adv, whole.x_adv[order])
    part = attack(model, x[10:17], y[10:17], example_draws(7, attack.name, index[10:17]), 0.03)
    assert torch.equal(part.fooled, whole.fooled[10:17])


def test_restarts_only_add() -> None:
    net, x = linear(6, seed=3), images(60)
    y = net(x).argmax(1)
    one = run("pgd-2", net, x, y, example_draws(0, "a", range(60)), 0.03)
    ten = run("pgd-2x5", net, x, y, example_draws(0, "a", range(60)), 0.03)
    assert bool((ten.fooled | ~one.fooled).all())


def test_names() -> None:
    assert attack_named("pgd-100", 0.031).parameters == {
        "loss": "cross_entropy",
        "step": 2 / 255,
        "steps": 100,
        "restarts": 1,
        "start": "zero",
        "last_iterate": False,
    }
    assert attack_named("pgd-50x10", 8 / 255).parameters["restarts"] == 10
    assert attack_named("cw-20", 0.2).parameters["loss"] == "margin"
    assert attack_named("pgd-10", 0.2).parameters["step"] == pytest.approx(0.05)
    for name in ("pgd", "pgd-0", "pgd-100x", "pdg-100", "cw", "", "pgd-1e3"):
        with pytest.raises(UsageError, match="no such attack"):
            attack_named(name, 0.1)


@pytest.mark.parametrize("name", ["fgsm", "pgd-2x2", "cw-2"])
def test_tensors_are_created_on_the_device_of_the_images(name: str) -> None:
    """The default device differs from that of the images, so a tensor created there would cause an error."""
    model, x, draws = linear(), images(4), example_draws(0, name, range(4))
    with torch.device("meta"):
        found = run(name, model, x, torch.zeros(4, dtype=torch.int64, device="cpu"), draws, 0.1)
    assert found.x_adv.device.type == "cpu" == found.fooled.device.type
