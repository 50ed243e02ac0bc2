"""Methods against hand-worked examples and naive references in float64, with non-default hyper-parameters."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from calls import EPS, Fixed, called, pixels, remembered
from torch import Tensor, nn

from bsk.contract.method import Losses
from bsk.perturb.draws import BatchDraws, generator
from bsk.perturb.losses import cross_entropy, input_gradient, jensen_shannon

OPPOSED = [[1, -1], [-1, 1]]  # of label 0 the loss rises along (-1, 1), everywhere


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(6 * 16, 5)).double()


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(5)
    return torch.rand(7, 2, 4, 4, generator=g, dtype=torch.float64), torch.randint(0, 5, (7,), generator=g)


def near(found: Tensor | None, expected: Tensor, atol: float = 1e-12) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)


def softmax_kl(p: Tensor, q: Tensor) -> Tensor:
    """sum_c p_c (log p_c - log q_c), from the definition."""
    p, q = p.exp() / p.exp().sum(1, keepdim=True), q.exp() / q.exp().sum(1, keepdim=True)
    return (p * (p.log() - q.log())).sum(1)


def naive_step(loss_of, x: Tensor, centre: Tensor, step: float) -> Tensor:  # type: ignore[no-untyped-def]
    """One ascent step, one example at a time, projected coordinate by coordinate."""
    rows = []
    for i in range(len(x)):
        point = x[i : i + 1].clone().requires_grad_()
        (gradient,) = torch.autograd.grad(loss_of(point, i).sum(), point)
        moved = point.detach() + step * gradient.sign()
        rows.append(torch.minimum(torch.maximum(moved, centre[i] - EPS), centre[i] + EPS).clamp(0, 1))
    return torch.cat(rows)


# --- the paper's ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("gamma", "step"), [(1.0, EPS), (0.1, 0.07), (5.0, 0.15)])
def test_backward_smoothing_is_algorithm_1(model: nn.Module, batch, gamma: float, step: float) -> None:
    """Lines 5 to 7, with f(x) recomputed wherever the paper writes it."""
    x, y = batch
    psi = BatchDraws(generator("bs")).uniform(model(x).detach())
    target = (model(x) + gamma * psi).detach()
    xi = naive_step(lambda p, i: -softmax_kl(target[i : i + 1], model(p)), x, x, step)  # (4.4)
    z = model(x).detach()
    expected = naive_step(lambda p, i: softmax_kl(z[i : i + 1], model(p)), xi, x, step)  # (4.5)
    found = called("bs", model, x, y, {"gamma": gamma, "step": step, "beta": 3.0}, BatchDraws(generator("bs")))
    near(found.start, xi)
    near(found.x_adv, expected)
    natural, robust = F.cross_entropy(model(x), y, reduction="none"), softmax_kl(model(x), model(expected))
    for one, other in ((found.natural, natural), (found.robust, robust), (found.total, natural + 3 * robust)):
        torch.testing.assert_close(one, other)


def test_the_trades_gradient_flows_through_both_arguments_of_the_divergence(model: nn.Module, batch) -> None:
    x, y = batch
    losses = called("bs", model, x, y, {"beta": 10.0})
    found = torch.autograd.grad(losses.total.sum(), list(model.parameters()))
    assert losses.x_adv is not None
    whole = F.cross_entropy(model(x), y, reduction="sum") + 10 * softmax_kl(model(x), model(losses.x_adv)).sum()
    for a, b in zip(found, torch.autograd.grad(whole, list(model.parameters())), strict=True):
        torch.testing.assert_close(a, b)


def test_the_backward_start_alone_moves_the_output_towards_its_random_target(model: nn.Module, batch) -> None:
    z = model(batch[0]).detach()
    target = z + BatchDraws(generator(0)).uniform(z)
    losses = called("bs-alone", model, *batch, {"step": 0.01}, BatchDraws(generator(0)))
    before, after = softmax_kl(target, z), softmax_kl(target, model(losses.x_adv))
    assert bool((after < before).all()) and torch.equal(losses.start, losses.x_adv)


def test_fast_at_by_a_naive_reference(model: nn.Module, batch) -> None:
    x, y = batch
    start = x + EPS * BatchDraws(generator(9)).uniform(x)
    expected = naive_step(lambda p, i: F.cross_entropy(model(p), y[i : i + 1]), start, x, 0.13)
    found = called("fast-at", model, x, y, {"step": 0.13}, BatchDraws(generator(9)))
    near(found.start, start)
    near(found.x_adv, expected)
    torch.testing.assert_close(found.total, F.cross_entropy(model(expected), y, reduction="none"))


def test_trades_by_a_naive_reference(model: nn.Module, batch) -> None:
    x, y = batch
    z = model(x).detach()
    point = x + 0.001 * BatchDraws(generator(4)).gaussian(x)
    for _ in range(10):
        point = naive_step(lambda p, i: softmax_kl(z[i : i + 1], model(p)), point, x, 0.025)
    near(called("trades", model, x, y, {"step": 0.025}, BatchDraws(generator(4))).x_adv, point)


def test_fast_at_plus_is_pgd_from_a_fall_of_accuracy_to_the_next_check(model: nn.Module, batch) -> None:
    """Accuracies of 0.5, 0.4 (no fall of more than a tenth), 0.25 (a fall), 0.3."""
    memory, asked = remembered(7), []

    def validate(attack: str, turn: int) -> float:
        asked.append((attack, turn))
        return (0.5, 0.4, 0.25, 0.3)[turn]

    for update in range(8):
        seen = memory.batch(torch.arange(7))
        draws = [BatchDraws(generator(update)) for _ in range(3)]
        found = called(
            "fast-at-plus", model, *batch, {"rescue_every": 2}, draws[0], seen, update=update, validate=validate
        )
        seen.commit()
        at, fast = (
            called(name, model, *batch, draws=each) for name, each in zip(("at", "fast-at"), draws[1:], strict=True)
        )
        assert torch.equal(found.x_adv, (at if update in (4, 5) else fast).x_adv) and not torch.equal(
            at.x_adv, fast.x_adv
        )
    assert asked == [("pgd-10", turn) for turn in range(4)] and memory.logged == {"rescued_updates": 2}


# --- N-FGSM -----------------------------------------------------------------------------------------------------------


def test_n_fgsm_by_hand() -> None:
    """The step of label 0 is (-eps, +eps), from twice the noise."""
    x, y = pixels((0.5, 0.5), (0.05, 0.97)), torch.tensor([0, 0])
    xi = BatchDraws(generator(3)).uniform(x)
    found = called("n-fgsm", Fixed(OPPOSED), x, y, draws=BatchDraws(generator(3)))
    near(found.x_adv, ((x + 2 * EPS * xi).clamp(0, 1) + pixels((-EPS, EPS), (-EPS, EPS))).clamp(0, 1), 1e-15)


def test_bound_and_noise_are_the_axes_between_fast_at_and_n_fgsm() -> None:
    """With noise 1 and bound 1 it is Fast AT of step eps, where no pixel is near 0 or 1."""
    model, x, y = Fixed([[1, 2], [-3, 1]]), pixels((0.5, 0.4), (0.6, 0.5)), torch.tensor([0, 1])
    one = called("n-fgsm", model, x, y, {"noise": 1.0, "bound": 1.0})
    other = called("fast-at", model, x, y, {"step": EPS})
    assert torch.equal(one.x_adv, other.x_adv)


def test_the_bound_is_in_units_of_eps() -> None:
    """Twice the noise and a step reach to 3 eps; here to 1.5."""
    x, y = torch.full((8, 1, 1, 2), 0.5, dtype=torch.float64), torch.zeros(8, dtype=torch.int64)
    u = BatchDraws(generator(3)).uniform(x)
    found = called("n-fgsm", Fixed(OPPOSED), x, y, {"bound": 1.5}, BatchDraws(generator(3)))
    expected = x + 2 * EPS * u + EPS * pixels((-1, 1))
    assert expected.min() < 0.35 and expected.max() > 0.65
    near(found.x_adv, expected.clamp(0.35, 0.65))


# --- Free AT ----------------------------------------------------------------------------------------------------------


def free(x: Tensor, memory: Any, y: Tensor, model: nn.Module | None = None, **hyper: float) -> Losses:
    """One replay, back to the weights and kept."""
    seen = memory.batch(torch.arange(len(x)))
    losses = called("free-at", model or Fixed(OPPOSED), x, y, hyper, memory=seen)
    assert all(torch.equal(memory.shared[name], kept) for name, kept in seen.shared.items()), "nothing moves before"
    losses.total.sum().backward()
    seen.commit()
    return losses


def test_free_at_moves_its_perturbation_by_the_gradient_of_the_update_itself() -> None:
    model, x, y, memory = Fixed(OPPOSED), pixels((0.5, 0.98)), torch.tensor([0]), remembered()
    first = free(x, memory, y, model)
    assert torch.equal(first.x_adv, x) and torch.equal(first.start, x)
    assert model.weight.grad is not None, "one backward pass for both"
    near(memory.shared["delta"], pixels((-EPS, 0.02)), 1e-15)
    near(free(x, memory, y).x_adv, pixels((0.4, 1.0)), 1e-15)


def test_a_shorter_batch_leaves_the_perturbations_of_the_others_alone() -> None:
    memory, y = remembered(), torch.tensor([0, 0, 0])
    memory.shared["delta"] = pixels((0.1, 0), (0, 0.09), (-0.1, 0))
    x = pixels((0.5, 0.5), (0.5, 0.5), (0.5, 0.5))
    free(x[:2], memory, y[:2], step=0.03)
    near(memory.shared["delta"], pixels((0.07, 0.03), (-0.03, 0.1), (-0.1, 0)))


def test_a_longer_batch_begins_the_perturbations_of_its_further_places() -> None:
    memory = remembered()
    memory.shared["delta"] = pixels((0.1, 0))
    x = pixels((0.5, 0.5), (0.5, 0.5))
    near(free(x, memory, torch.tensor([0, 1])).x_adv, pixels((0.6, 0.5), (0.5, 0.5)))
    near(memory.shared["delta"], pixels((0, 0.1), (0.1, -0.1)))


# --- LIET -------------------------------------------------------------------------------------------------------------


def test_a_pattern_is_the_sign_of_the_gradient_at_grey_for_each_label() -> None:
    """At equal pixels the weights (1, -1), (-1, 1) leave both classes at 1/2: the gradients are (-1, 1) and (1, -1)."""
    seen = remembered().batch(torch.arange(1))
    called("liet", Fixed(OPPOSED), pixels((0.5, 0.5)), torch.tensor([0]), memory=seen)
    assert torch.equal(seen.shared["pattern"], pixels((-1, 1), (1, -1)))


def test_liet_starts_at_the_pattern_or_against_it_with_some_noise() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(300, 4)).double()
    x, y = torch.full((200, 3, 10, 10), 0.5, dtype=torch.float64), torch.arange(200) % 4
    shares, ways = [], set()
    for draw in range(40):
        seen = remembered(200).batch(torch.arange(200))
        start = called("liet", model, x, y, draws=BatchDraws(generator(draw)), memory=seen).start
        assert start is not None
        delta = (start - x) / EPS
        found = torch.stack([(delta - way * seen.shared["pattern"][y]).abs() < 1e-9 for way in (1, -1)])
        share, way = found.double().mean((1, 2, 3, 4)).max(0)
        assert (delta.abs() <= 1 + 1e-9).all()
        shares.append(1 - float(share))
        ways.add(int(way))
    assert ways == {0, 1} and 0.1 < min(shares) < 0.15 and 0.45 < max(shares) < 0.5
    assert sum(shares) / 40 == pytest.approx(0.3, abs=0.06)


@pytest.mark.parametrize(("bound", "reach"), [(1.0, 1), (1.5, 1.5), (None, 2), ("none", 2)])
def test_liet_without_noise_by_hand(bound: object, reach: float) -> None:
    """The pattern of label 0 and its step are both (-eps, eps); where it is taken away, they cancel."""
    x, y, ends = pixels((0.5, 0.5)), torch.tensor([0]), set()
    for draw in range(8):
        hyper = {"least": 0.0, "most": 0.0, "bound": bound}
        found = called("liet", Fixed(OPPOSED), x, y, hyper, BatchDraws(generator(draw)))
        assert found.start is not None and found.x_adv is not None
        way = round(float((found.start - x).flatten()[1] / EPS))
        near(found.start, x + way * pixels((-EPS, EPS)))
        near(found.x_adv, x + (reach if way == 1 else 0) * pixels((-EPS, EPS)))
        ends.add(way)
    assert ends == {1, -1}


def test_liet_of_nothing_but_noise_by_hand() -> None:
    """The noise is drawn after the mask, and after the share and the way of the batch."""
    x, draws = torch.full((3, 1, 1, 2), 0.5, dtype=torch.float64), BatchDraws(generator(6))
    draws.uniform(x)
    way = draws.shared(x, 2)[1, 0].sign()
    u = draws.uniform(x)
    hyper = {"least": 1.0, "most": 1.0, "noise": 2.0}
    near(
        called("liet", Fixed(OPPOSED), x, torch.tensor([0, 1, 0]), hyper, BatchDraws(generator(6))).start,
        x + way * 2 * EPS * u,
    )


def test_patterns_are_made_anew_every_so_many_updates() -> None:
    x, y, seen = pixels((0.5, 0.5)), torch.tensor([0]), remembered().batch(torch.arange(1))
    one, other = Fixed(OPPOSED), Fixed([[-1, 1], [1, -1]])
    called("liet", one, x, y, {"every": 4}, memory=seen)
    for update in range(1, 4):
        called("liet", other, x, y, {"every": 4}, memory=seen, update=update)
        assert torch.equal(seen.shared["pattern"], pixels((-1, 1), (1, -1)))
    called("liet", other, x, y, {"every": 4}, memory=seen, update=4)
    assert torch.equal(seen.shared["pattern"], pixels((1, -1), (-1, 1)))


@pytest.mark.parametrize(("ramp", "weight"), [(True, 7 / 4), (False, 7)])
def test_liet_descends_the_distance_between_start_and_end(ramp: bool, weight: float) -> None:
    """The weight grows over the training: at a quarter of it it is a quarter."""
    model, y = Fixed([[2, -1], [-3, 1]]), torch.tensor([0, 1])
    found = called("liet", model, pixels((0.5, 0.2), (0.1, 0.8)), y, {"beta": 7.0, "ramp": ramp}, progress=0.25)
    assert found.start is not None and found.x_adv is not None
    robust = cross_entropy(model(found.x_adv), y)
    expected = robust + weight * jensen_shannon(model(found.start), model(found.x_adv))
    torch.testing.assert_close((found.total, found.robust), (expected, robust))
    assert (expected - robust).min() > 1e-4


# --- MART -------------------------------------------------------------------------------------------------------------

HALVES = Fixed([[math.log(3) / 0.1, 0], [0, math.log(3) / 0.1]])  # (3/4, 1/4) at a pixel 0.1 brighter than the other


def test_mart_by_hand() -> None:
    """Clean probabilities (3/4, 1/4), adversarial (1/2, 1/2), label 0, beta 5."""
    x, y = pixels((0.6, 0.5)), torch.tensor([0])
    found = called("mart", HALVES, x, y, {"start": "zero", "steps": 1, "step": 0.05})
    near(found.x_adv, pixels((0.55, 0.55)))
    boosted = math.log(2) - math.log(1.0001 - 0.5)
    divergence = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert found.total.tolist() == pytest.approx([boosted + 5 * divergence * (1.0000001 - 0.75)], rel=1e-6)
    assert found.robust.tolist() == pytest.approx([boosted], rel=1e-6) and found.natural is None


# --- NuAT and GAT -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("update", "ramp", "weight", "outer"),
    [
        (1, 1.0, 1.5, 1.5),
        (1, 0.5, 3.0, 3.0),
        (1, 0.2, 6.0, 6.0),
        (3, 0.0, 6.0, 6.0),
        (0, 0.0, 0.0, 6.0),
        (2, 1.0, 0, 1.5),
    ],
)
def test_nuat_by_a_naive_reference(update: int, ramp: float, weight: float, outer: float) -> None:
    """In every second update the perturbation climbs cross entropy alone; after a quarter it is 6 / 4 / ramp."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).double()
    x, y = torch.rand(4, 3, 2, 2, dtype=torch.float64), torch.tensor([0, 1, 2, 0])
    coins = torch.where(BatchDraws(generator(5)).uniform(x) < 0, -1.0, 1.0).double()
    point = (x + EPS / 2 * coins).clamp(0, 1).requires_grad_()
    eigen = torch.linalg.eigvalsh((model(point) - model(x)).T @ (model(point) - model(x)))
    nuclear = eigen.clamp(min=1e-30).sqrt().sum() / 4
    (gradient,) = torch.autograd.grad(F.cross_entropy(model(point), y) + weight * nuclear, point)
    expected = (point + EPS * gradient.sign()).clamp(x - EPS, x + EPS).clamp(0, 1).detach()
    draws, hyper = BatchDraws(generator(5)), {"beta": 6.0, "ramp": ramp}
    found = called("nuat", model, x, y, hyper, draws, update=update, progress=0.25)
    near(found.start, point.detach())
    near(found.x_adv, expected)
    norm = torch.linalg.svd(model(expected) - model(x)).S.sum() / 4
    total = F.cross_entropy(model(x), y) + outer * norm
    torch.testing.assert_close((found.total.mean(), found.robust.mean()), (total, norm))


@pytest.mark.parametrize(("progress", "weight"), [(0.1, 10), (0.86, 10), (0.87, 40)])
def test_the_loss_of_gat_by_hand(progress: float, weight: float) -> None:
    """Clean probabilities (3/4, 1/4), adversarial (1/2, 1/2): the squared distance is 1/8."""
    x, y = pixels((0.6, 0.5)), torch.tensor([0])
    found = called("gat", HALVES, x, y, {"noise": 0.0, "step": 0.05}, progress=progress)
    near(found.x_adv, pixels((0.55, 0.55)))
    parts = [found.natural.item(), found.robust.item(), found.total.item()]
    assert parts == pytest.approx([math.log(4 / 3), 1 / 8, math.log(4 / 3) + weight / 8])


@pytest.mark.parametrize(("update", "weight"), [(0, 0), (1, 10), (2, 0)])
def test_every_second_perturbation_of_gat_climbs_the_distance_too(model: nn.Module, batch, update, weight) -> None:
    x, y = batch
    p = model(x).softmax(1).detach()
    coins = torch.where(BatchDraws(generator(8)).uniform(x) < 0, -1.0, 1.0).double()
    start = (x + 0.05 * coins).clamp(0, 1)

    def objective(point: Tensor, i: int) -> Tensor:
        out = model(point)
        return F.cross_entropy(out, y[i : i + 1]) + weight * ((out.softmax(1) - p[i]) ** 2).sum()

    found = called("gat", model, x, y, draws=BatchDraws(generator(8)), update=update, progress=0.5)
    near(found.start, start)
    near(found.x_adv, naive_step(objective, start, x, EPS))


# --- FGSM-PGI ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("decay", "moved"), [(0.3, 1), (2.0, -1)])
def test_fgsm_pgi_by_hand(decay: float, moved: int) -> None:
    """Of one image the momentum is (-1, 1) / 2 in epoch 0 and, with the other label, (1, -1) (1 - decay) / 2 after."""
    model, x, memory = Fixed(OPPOSED), pixels((0.5, 0.5)), remembered(3)
    hyper = {"decay": decay, "beta": 3.0, "step": 0.04}
    signs = BatchDraws(generator(2)).uniform(x).sign()
    assert torch.equal(signs, pixels((1, 1)))

    def after(epoch: int, label: int) -> Losses:
        seen = memory.batch(torch.tensor([2]))
        draws, y = BatchDraws(generator(2)), torch.tensor([label])
        losses = called("fgsm-pgi", model, x, y, hyper, draws, seen, epoch=epoch)
        seen.commit()
        return losses

    first = after(0, 0)
    near(first.start, x + EPS * signs)
    end = (x + EPS * signs + pixels((-0.04, 0.04))).clamp(0.4, 0.6)
    near(first.x_adv, end)
    distance = (model(end) - model(x + EPS * signs)).square().sum(1) / 2
    torch.testing.assert_close(first.total, cross_entropy(model(end), torch.tensor([0])) + 3 * distance)
    near(memory.rows["prior"], torch.cat([torch.zeros(2, 1, 1, 2), end - x]))
    near(memory.rows["momentum"], pixels((0, 0), (0, 0), (-0.5, 0.5)))
    second = after(1, 1)
    near(second.start, end)
    near(second.x_adv, (end + pixels((0.04, -0.04))).clamp(0.4, 0.6))
    near(memory.rows["momentum"][2:], pixels((0.5, -0.5)) * (1 - decay))
    near(memory.rows["prior"][2:], (end + moved * pixels((0.04, -0.04))).clamp(0.4, 0.6) - x)
    near(after(40, 0).start, x + EPS * signs)  # the priors begin anew
    near(memory.rows["momentum"][2:], pixels((-0.5, 0.5)))


def test_the_momentum_of_fgsm_pgi_is_the_gradient_s_part_of_the_batch_s() -> None:
    model, x, y, memory = Fixed([[1, -1], [-2, 1]]), pixels((0.5, 0.5), (0.1, 0.8)), torch.tensor([0, 1]), remembered(2)
    seen = memory.batch(torch.arange(2))
    start = called("fgsm-pgi", model, x, y, memory=seen).start
    assert start is not None
    seen.commit()
    g = input_gradient(model, start, y)
    near(memory.rows["momentum"], g / g.abs().sum())


# --- GradAlign --------------------------------------------------------------------------------------------------------


def test_a_linear_model_of_two_classes_is_aligned() -> None:
    model, x, y = Fixed([[1, -2], [-1, 1]]), pixels((0.5, 0.2), (0.1, 0.9)), torch.tensor([0, 1])
    found = called("gradalign", model, x, y, {"beta": 3.0})
    torch.testing.assert_close(found.total, found.robust)
    near(found.x_adv, pixels((0.4, 0.3), (0.2, 0.8)))


@pytest.mark.parametrize("sure", [20, 200])
def test_a_linear_model_is_aligned_where_it_is_sure(sure: float) -> None:
    """The gradient is sure * exp(-1.4 sure), from 1e-11 to 1e-119."""
    found = called("gradalign", Fixed([[0, 0], [-sure, -sure]]), pixels((0.5, 0.9)), torch.tensor([0]), {"beta": 3.0})
    torch.testing.assert_close(found.total, found.robust)


def test_gradalign_by_its_definition_and_its_gradient_by_differences() -> None:
    torch.manual_seed(2)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    x, y = torch.rand(4, 3, 2, 2, dtype=torch.float64), torch.tensor([0, 1, 2, 0])
    point = x + EPS * BatchDraws(generator(0)).uniform(x)
    fixed = input_gradient(model, x, y)

    def regulariser() -> Tensor:
        gradient = input_gradient(model, point, y)
        cosines = [float((a * b).sum() / (a.norm() * b.norm())) for a, b in zip(fixed, gradient, strict=True)]
        return torch.tensor([1 - cosine for cosine in cosines], dtype=torch.float64)

    found = called("gradalign", model, x, y, {"beta": 2.0})
    assert found.robust is not None
    near(found.x_adv, (x + EPS * fixed.sign()).clamp(0, 1))
    torch.testing.assert_close(found.total - found.robust, 2 * regulariser())
    weight = model[1].weight
    (slope,) = torch.autograd.grad((found.total - found.robust).sum(), weight)
    before = 2 * regulariser().sum()
    with torch.no_grad():
        weight[0, 0] += 1e-6
    torch.testing.assert_close(slope[0, 0], (2 * regulariser().sum() - before) / 1e-6, rtol=1e-3, atol=1e-6)


def test_where_a_gradient_is_zero_there_is_no_angle() -> None:
    model, x, y = Fixed([[0, 0], [0, 0]]), pixels((0.5, 0.2)), torch.tensor([0])
    found = called("gradalign", model, x, y, {"beta": 3.0})
    assert found.total.tolist() == pytest.approx([math.log(2)])
    found.total.sum().backward()
    assert model.weight.grad is not None and bool(model.weight.grad.isfinite().all())


# --- the fast methods since -------------------------------------------------------------------------------------------


class Wave(nn.Module):
    """Logits (a cos(20 p), 0) of the first pixel p: a step of 0.07 is 1.4 radians."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(3.0, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        first = self.a * (20 * x.flatten(1)[:, 0]).cos()
        return torch.stack([first, torch.zeros_like(first)], dim=1)


ABNORMAL, NORMAL = (0.15, 0.5), (0.10, 0.5)  # at 3.0 and 2.0 radians: the cosine goes to -0.31 and to -0.97


@pytest.mark.parametrize("count", [1, 2])
def test_aaer_weighs_how_much_further_the_outputs_of_the_abnormal_move(count: int) -> None:
    """Of label 0 the loss rises as the cosine falls: one step overshoots, from -0.99 to -0.31, the other does not."""
    model, hyper = Wave(), {"noise": 0.0, "step": 0.07, "beta": 2.0, "bound": None}
    x = pixels(*[ABNORMAL] * count, *[NORMAL] * (3 - count))
    found = called("rs-aaer", model, x, torch.zeros(3, dtype=torch.int64), hyper)
    assert found.robust is not None and found.start is not None
    angles = torch.tensor([3.0] * count + [2.0] * (3 - count), dtype=torch.float64)
    before, after = angles.cos(), (angles + 1.4).cos()
    near(found.robust, F.softplus(-3 * after))
    moved = (3 * (after - before)).square()
    near(found.total - found.robust, (2 * count / 3 * (moved[0] - moved[2])).expand(3))
    (slope,) = torch.autograd.grad((found.total - found.robust)[0], model.a, retain_graph=True)
    near(slope, 2 * count / 3 * 2 * 3 * (after[0] - before[0]) * after[0])  # by f(x_adv) of the abnormal alone


@pytest.mark.parametrize("images", [[ABNORMAL, ABNORMAL], [NORMAL, NORMAL], [ABNORMAL, (0.05, 0.5)]])
def test_aaer_adds_nothing_without_both_kinds_or_where_the_normal_move_further(images) -> None:
    hyper = {"noise": 0.0, "step": 0.07, "bound": None}
    found = called("n-aaer", Wave(), pixels(*images), torch.zeros(2, dtype=torch.int64), hyper)
    near(found.total, found.robust)


@pytest.mark.parametrize(
    ("off", "epoch", "kept", "way"),
    [(0.05, 2, 1, 1), (-0.05, 2, 1, -1), (0.02, 2, 1, 0), (0.05, 1, 0, 0), (0.05, 3, 1, 0), (0.05, 2, -9, 0)],
)
def test_rs_cs_pulls_the_loss_at_the_start_towards_that_of_the_epoch_before(off, epoch, kept, way) -> None:
    """From above and from below; not within gamma, nor before the third epoch, nor where no epoch came just before."""
    x, y = pixels((0.5, 0.5), (0.4, 0.6)), torch.tensor([0, 1])
    plain = called("rs-cs", Fixed(OPPOSED), x, y, {"weight": 0.0})
    at = cross_entropy(Fixed(OPPOSED)(plain.start), y).detach()
    memory = remembered(2)
    memory.shared["start"] = torch.tensor([kept, -1.0, float(at.mean()) - off, 1.0], dtype=torch.float64)
    seen = memory.batch(torch.arange(2))
    found = called("rs-cs", Fixed(OPPOSED), x, y, {"weight": 0.5}, memory=seen, epoch=epoch)
    near(found.total - found.robust, 0.5 * way * at)
    again = called("rs-cs", Fixed(OPPOSED), x, y, {"weight": 0.5}, memory=seen, epoch=epoch)
    near(again.total, found.total)
    assert seen.shared["start"][0] == epoch
    near(seen.shared["start"][2:], torch.stack([2 * at.sum(), torch.tensor(4.0).double()]))


def test_atas_steps_from_the_last_end_by_half_to_seven_quarters_of_eps_and_begins_anew() -> None:
    x, y, memory = pixels((0.5, 0.5), (0.4, 0.6)), torch.tensor([0, 0]), remembered(2)
    memory.rows["delta"], memory.rows["period"] = pixels((0.03, -0.03), (0.0, 0.05)), torch.tensor([1, 1])
    for c, eps in ((1e-9, 0.5), (1e9, 1.75)):
        found = called("atas", Fixed(OPPOSED), x, y, {"c": c}, memory=memory.batch(torch.arange(2)), epoch=8, eps=0.02)
        near(found.start, x + memory.rows["delta"])
        expected = (found.start + eps * 0.02 * pixels((-1, 1), (-1, 1))).clamp(x - 0.02, x + 0.02)
        near(found.x_adv, expected)
    anew = called("atas", Fixed(OPPOSED), x, y, memory=memory.batch(torch.arange(2)), epoch=9)
    near(anew.start, x + EPS * BatchDraws(generator(0)).uniform(x))
    memory.rows["period"] = torch.tensor([4, 4])
    at = called("atas", Fixed(OPPOSED), x, y, {"reset": 3}, memory=memory.batch(torch.arange(2)), epoch=9)
    near(at.start, x + memory.rows["delta"])


@pytest.mark.parametrize(("method", "kept"), [("fgsm-pgi", "prior"), ("pco", "prior"), ("atas", "delta")])
def test_an_image_that_comes_late_starts_where_others_start_in_their_first_epoch(method: str, kept: str) -> None:
    """With --extra an image may come in epoch 1 for the first time; from x itself one step would collapse."""
    x, memory = pixels((0.5, 0.5), (0.4, 0.6), (0.3, 0.7)), remembered(3)
    for rows, epoch in (([0, 2], 0), ([0, 1], 1)):
        seen = memory.batch(torch.tensor(rows))
        y, draws = torch.tensor([0, 1]), BatchDraws(generator(epoch))
        found = called(method, Fixed(OPPOSED), x[rows], y, draws=draws, memory=seen, epoch=epoch)
        u = BatchDraws(generator(epoch)).uniform(x[rows])
        begun = x[rows] + EPS * {"fgsm-pgi": u.sign(), "pco": torch.where(u < 0, -1.0, 1.0).to(u), "atas": u}[method]
        if epoch == 1:
            begun[0] = x[0] + memory.rows[kept][0]
        near(found.start, begun.clamp(0, 1) if method == "atas" else begun)
        seen.commit()


@pytest.mark.parametrize("method", ["fgsm-pgi", "uap", "cuap", "pco", "atas"])
def test_a_batch_without_any_gradient_leaves_a_memory_of_numbers(method: str) -> None:
    x, y, memory = pixels((0.5, 0.5), (0.4, 0.6)), torch.tensor([0, 1]), remembered(2, 2)
    for epoch in (0, 6):
        seen = memory.batch(torch.arange(2))
        losses = called(method, Fixed([[0, 0], [0, 0]]), x, y, memory=seen, epoch=epoch)
        seen.commit()
        assert losses.total.isfinite().all()
    assert all(kept.isfinite().all() for kept in [*memory.rows.values(), *memory.shared.values()])


def test_rs_cs_has_nothing_to_compare_with_where_it_begins_late_and_a_ball_if_it_is_told() -> None:
    x, y = pixels((0.5, 0.5), (0.4, 0.6)), torch.tensor([0, 1])
    for epoch in (8, 10):
        late = called("rs-cs", Fixed(OPPOSED), x, y, epoch=epoch)
        near(late.total, late.robust)
    found = called("rs-cs", Fixed(OPPOSED), x, y, {"bound": 0.5, "step": 3 * EPS})
    near((found.x_adv - x).abs(), torch.full_like(x, EPS / 2))


@pytest.mark.parametrize(("share", "stay"), [(0.0, 0), (0.3, 1), (0.5, 2), (0.75, 3), (1.0, 3)])
def test_zero_grad_leaves_the_values_below_the_quantile_of_an_image_where_they_are(share: float, stay: int) -> None:
    """Of four gradients of sizes 1 to 4: below the quantile at 0.9, 1.5, 2.25 and 3 steps up from the least."""
    weight = [[1.0, -2.0, 3.0, -4.0], [0.0, 0.0, 0.0, 0.0]]
    x, y = torch.full((1, 1, 2, 2), 0.5, dtype=torch.float64), torch.tensor([1])
    found = called("zero-grad", Fixed(weight), x, y, {"share": share, "step": 3 * EPS})
    assert found.start is not None and found.x_adv is not None
    moved = (found.x_adv - found.start).flatten() != 0
    assert moved.tolist() == [i >= stay for i in range(4)]
    near((found.x_adv - x).flatten()[stay:], EPS * torch.tensor([1.0, -1, 1, -1]).double()[stay:])
