"""Targeted PGD: its targets by hand, the closed form on a linear model, and foolbox on a trained network."""

from pathlib import Path

import pytest
import torch
from test_parity import FILES, Case, chosen
from torch import Tensor, nn

from bsk import devices
from bsk.attacks.flags import AttackFlags
from bsk.attacks.outcome import Outcome
from bsk.attacks.pgd import pgd
from bsk.attacks.registry import attack_named, attacks_named
from bsk.attacks.search import Search
from bsk.attacks.targets import named_target, reached, targets_of
from bsk.data.sources import prepare
from bsk.data.store import open_data
from bsk.errors import UsageError
from bsk.models.foreign import foreign_model
from bsk.perturb.draws import example_draws

NAMES = ["fgsm", "pgd-7", "pgd-3x3", "cw-7"]


def images(n: int, seed: int = 1) -> Tensor:
    return 0.3 + 0.4 * torch.rand(n, 3, 2, 2, generator=torch.Generator().manual_seed(seed))


def linear(classes: int, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, classes))


def run(name: str, model: nn.Module, x: Tensor, y: Tensor, eps: float, target: str | int, **flags) -> Outcome:
    stages = attack_named(name, eps, AttackFlags(target=target, classes=5, **flags)).stages
    assert len(stages) == 1, "an image that is misclassified as it is has not reached its target"
    return stages[0](model, x, y, example_draws(0, name, range(len(x))), eps)


def test_target_classes_by_name_and_number() -> None:
    assert named_target("dog", ["cat", "dog"]) == 1 and named_target("0", ["cat", "dog"]) == 0
    assert named_target("1", ["1", "0"]) == 0, "by its name first"
    assert named_target("random", ["a"]) == "random" and named_target(1, ["a", "b"]) == 1
    for target, said in (("dgo", "did you mean dog"), ("2", "--target 2: no such class"), (-1, "--target -1: no such")):
        with pytest.raises(UsageError, match=said):
            named_target(target, ["cat", "dog"])


def test_targets_by_hand() -> None:
    logits = torch.tensor([[3.0, 1.0, 2.0], [0.0, 5.0, 1.0], [2.0, 2.0, 1.0]])
    x, y = torch.zeros(3, 1, 1, 1), torch.tensor([1, 2, 2])
    tally = Outcome.begin(x)
    found = targets_of("least-likely", 3, lambda _: logits, x, y, example_draws(0, "", range(3)), tally)
    assert found.tolist() == [2, 0, 0] and tally.forward.tolist() == [1, 1, 1], "never the label itself"
    assert targets_of(2, 3, nn.Identity(), x, y, example_draws(0, "", range(3)), tally).tolist() == [2, 2, 2]
    assert reached(logits, y, None).tolist() == [True] * 3
    assert reached(logits, y, torch.tensor([0, 0, 2])).tolist() == [True, False, False]


def test_random_targets_are_each_example_s_own_and_even() -> None:
    y, x = torch.arange(6000) % 3, torch.zeros(6000, 1, 1, 1)
    found = targets_of("random", 4, nn.Identity(), x, y, example_draws(0, "pgd", range(6000)), Outcome.begin(x))
    assert not (found == y).any()
    for label in range(3):
        counts = found[y == label].bincount(minlength=4).tolist()
        assert counts[label] == 0 and all(580 < each < 760 for k, each in enumerate(counts) if k != label)
    alone = targets_of("random", 4, nn.Identity(), x[:1], y[7:8], example_draws(0, "pgd", [7]), Outcome.begin(x[:1]))
    assert alone.tolist() == [int(found[7])]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("target", ["random", "least-likely", 3])
def test_results_are_in_the_ball_and_verdicts_are_correct(name: str, target: str | int) -> None:
    model, x = linear(5), images(40)
    y = torch.randint(0, 5, (40,), generator=torch.Generator().manual_seed(0))
    found = run(name, model, x, y, 0.1, target)
    assert found.target is not None and (found.x_adv - x).abs().max() <= 0.1 + 1e-6
    assert torch.equal(model(found.x_adv).argmax(1) == found.target, found.fooled)
    assert bool(found.fooled[model(x).argmax(1) == found.target].all())
    assert 0 < found.fooled.sum() < 40


@pytest.mark.parametrize("name", ["fgsm", "pgd-7", "cw-7"])
def test_of_two_classes_it_finds_the_closed_form(name: str) -> None:
    """z_t - z_y rises by eps |w_t - w_y|_1 at most, and of two classes every loss leads there."""
    model, x, eps = linear(2, 3), images(60, 2), 0.06
    y = model(x).argmax(1)
    gap = (model(x)[:, 0] - model(x)[:, 1]).abs()
    reach = eps * (model[1].weight[0] - model[1].weight[1]).abs().sum()
    stage = attack_named(name, eps, AttackFlags(target="random", classes=2)).stages[0]
    found = stage(model, x, y, example_draws(0, name, range(60)), eps)
    clear = (gap - reach).abs() > 1e-4
    assert torch.equal(found.target, 1 - y) and torch.equal(found.fooled[clear], (gap < reach)[clear])
    assert 5 < found.fooled.sum() < 55


def test_it_is_the_textbook_loop_when_nothing_is_reached() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 2), nn.Tanh(), nn.Flatten(), nn.Linear(4, 3)).double()
    x = images(5).double()
    y, goal = model(x).argmax(1), model(x).argmin(1)
    expected = x.clone()
    for _ in range(7):
        expected = expected.detach().requires_grad_()
        nn.functional.cross_entropy(model(expected), goal).backward()
        moved = expected.detach() - 0.002 * expected.grad.sign()
        expected = torch.minimum(torch.maximum(moved, x - 0.01), x + 0.01).clamp(0, 1)
    draws = example_draws(0, "", range(5))
    found = pgd(model, x, y, draws, eps=0.01, step=0.002, steps=7, last_iterate=True, target="least-likely", classes=3)
    torch.testing.assert_close(found.x_adv, expected, rtol=0, atol=1e-12)


def test_asking_seldom_and_low_precision_searches_support_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = linear(5), images(40)
    y = model(x).argmax(1)
    expected = run("pgd-7", model, x, y, 0.1, "random")
    rough = run("pgd-7", Search(lambda z: model(z) + 0.001, exact=model), x, y, 0.1, "random")
    assert torch.equal(rough.fooled, expected.fooled)
    assert torch.equal(model(rough.x_adv).argmax(1) == rough.target, rough.fooled)
    monkeypatch.setitem(devices.ANSWERS, "cpu", 8)
    late = run("pgd-7", model, x, y, 0.1, "random")
    assert torch.equal(late.fooled, expected.fooled) and torch.equal(late.x_adv, expected.x_adv)
    assert torch.equal(late.forward, expected.forward)


def test_attacks_without_targets_refuse_one() -> None:
    with pytest.raises(UsageError, match="--target: no attack here takes it; it is for fgsm, pgd, cw"):
        attacks_named(["apgd-ce"], 0.1, AttackFlags(target="random"))
    with pytest.raises(UsageError, match="--target random: gives no accuracy to compare; use it with bsk attack"):
        AttackFlags(target="random").check_untargeted()
    assert "target" not in attack_named("pgd-5", 0.1).parameters


@pytest.mark.parametrize(
    ("target", "name", "levels"),
    [("random", "cnn-a", 8), pytest.param("least-likely", "resnet2b", 24, marks=pytest.mark.slow)],
)
def test_foolbox_reaches_as_many_of_200(shared: Path, tmp_path: Path, target: str, name: str, levels: int) -> None:
    """The same start, step and number of steps; foolbox judges the last iterate."""
    foolbox = pytest.importorskip("foolbox")
    prepare("cifar10", str(shared / "data" / "cifar10-subset-exact-python.tar.gz"), tmp_path / "c.safetensors")
    model = foreign_model(name, shared / "models" / FILES[name], classes=10, channels=3, size=32).model
    case: Case = chosen(model.requires_grad_(False).eval(), open_data(tmp_path / "c.safetensors").split("test"), 320)
    x, y, eps, step = case.x[:200], case.y[:200], levels / 255, levels / 4 / 255
    assert len(x) > 190
    stage = attack_named("pgd-10", eps, AttackFlags(target=target, last_iterate=True, step=step)).stages[0]
    found = stage(case.model, x, y, example_draws(0, stage.name, range(len(x))), eps)
    attack = foolbox.attacks.LinfPGD(abs_stepsize=step, steps=10, random_start=False)
    criterion = foolbox.criteria.TargetedMisclassification(found.target)
    other = attack(foolbox.PyTorchModel(case.model, bounds=(0, 1)), x, criterion, epsilons=eps)[2]
    assert abs(int(found.fooled.sum()) - int(other.sum())) <= 1 and int((found.fooled != other).sum()) <= 2
    assert 20 < found.fooled.sum() < 190
    any_iterate = attack_named("pgd-10", eps, AttackFlags(target=target, step=step)).stages[0]
    either = any_iterate(case.model, x, y, example_draws(0, stage.name, range(len(x))), eps)
    assert bool((either.fooled | ~found.fooled).all())
