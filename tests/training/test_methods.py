"""The table of methods against the paper, written out naively in float64."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from bsk.perturb.memory import Memory
from bsk.training.methods import INNER, METHODS, perturb
from bsk.training.outer import OUTER, Case
from torch import Tensor, nn

from bsk.perturb.draws import BatchDraws, generator
from bsk.perturb.passes import Passes, counting

EPS = 0.1


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(3)
    layers = nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(6 * 16, 5))
    return layers.double().eval()


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(5)
    return torch.rand(7, 2, 4, 4, generator=g, dtype=torch.float64), torch.randint(0, 5, (7,), generator=g)


def outer_case(model, x: Tensor, y: Tensor, x_adv: Tensor, start: Tensor | None = None, **more) -> Case:  # type: ignore[no-untyped-def]
    """What the outer loss is given; the start is x unless another one is said."""
    rest = {"beta": 1.0, "eps": EPS, "draws": BatchDraws(generator("outer")), **more}
    return Case(model, model, x, y, x if start is None else start, x_adv, **rest)


def softmax_kl(p: Tensor, q: Tensor) -> Tensor:
    """sum_c p_c (log p_c - log q_c), from the definition."""
    p, q = p.exp() / p.exp().sum(1, keepdim=True), q.exp() / q.exp().sum(1, keepdim=True)
    return (p * (p.log() - q.log())).sum(1)


def naive_step(loss_of, x: Tensor, centre: Tensor, step: float) -> Tensor:  # type: ignore[no-untyped-def]
    """One ascent step, one example at a time, projected coordinate by coordinate."""
    rows = []
    for i in range(len(x)):
        point = x[i : i + 1].clone().requires_grad_()
        loss_of(point, i).backward()
        moved = point.detach() + step * point.grad.sign()
        rows.append(torch.minimum(torch.maximum(moved, centre[i] - EPS), centre[i] + EPS).clamp(0, 1))
    return torch.cat(rows)


def naive_backward_smoothing(model: nn.Module, x: Tensor, psi: Tensor, gamma: float, step: float) -> Tensor:
    """Algorithm 1, lines 5 and 6, with f(x) run anew wherever the paper writes it."""
    target = (model(x) + gamma * psi).detach()
    xi = naive_step(lambda p, i: -softmax_kl(target[i : i + 1], model(p)).sum(), x, x, step)  # (4.4)
    z = model(x).detach()
    return naive_step(lambda p, i: softmax_kl(z[i : i + 1], model(p)).sum(), xi, x, step)  # (4.5)


@pytest.mark.parametrize(("gamma", "step"), [(1.0, EPS), (0.1, 0.07), (5.0, 0.15)])
def test_backward_smoothing_is_algorithm_1(model: nn.Module, batch: tuple[Tensor, Tensor], gamma: float, step: float):
    x, y = batch
    psi = BatchDraws(generator("bs")).uniform(model(x).detach())
    expected = naive_backward_smoothing(model, x, psi, gamma, step)
    method = replace(METHODS["bs"], gamma=gamma, step=step)
    found = perturb(method, model, x, y, EPS, BatchDraws(generator("bs"))).x_adv
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert not torch.equal(found, x)


def test_the_backward_start_alone_moves_the_output_towards_its_random_target(model: nn.Module, batch) -> None:
    x, y = batch
    z = model(x).detach()
    psi = BatchDraws(generator(0)).uniform(z)
    method = replace(METHODS["bs-alone"], step=0.01)
    x_adv = perturb(method, model, x, y, EPS, BatchDraws(generator(0))).x_adv
    before, after = softmax_kl(z + psi, z), softmax_kl(z + psi, model(x_adv))
    assert bool((after < before).all())


def test_fast_at_by_a_naive_reference(model: nn.Module, batch) -> None:
    x, y = batch
    begin = x + EPS * BatchDraws(generator(9)).uniform(x)
    expected = naive_step(lambda p, i: F.cross_entropy(model(p), y[i : i + 1]), begin, x, 0.13)
    found = perturb(replace(METHODS["fast-at"], step=0.13), model, x, y, EPS, BatchDraws(generator(9))).x_adv
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_trades_by_a_naive_reference(model: nn.Module, batch) -> None:
    x, y = batch
    z = model(x).detach()
    point = x + 0.001 * BatchDraws(generator(4)).gaussian(x)
    for _ in range(10):
        point = naive_step(lambda p, i: softmax_kl(z[i : i + 1], model(p)).sum(), point, x, 0.025)
    found = perturb(replace(METHODS["trades"], step=0.025), model, x, y, EPS, BatchDraws(generator(4))).x_adv
    torch.testing.assert_close(found, point, rtol=0, atol=1e-12)


def test_the_outer_losses_by_their_definitions(model: nn.Module, batch) -> None:
    x, y = batch
    x_adv = (x + 0.05).clamp(0, 1)
    natural = F.cross_entropy(model(x), y, reduction="none")
    robust = softmax_kl(model(x), model(x_adv))
    case = outer_case(model, x, y, x_adv, beta=10.0)
    trades = OUTER["trades"].loss(case)
    torch.testing.assert_close(trades.total, natural + 10 * robust)
    torch.testing.assert_close(OUTER["natural"].loss(case).total, natural)
    adversarial = OUTER["adversarial"].loss(case).total
    torch.testing.assert_close(adversarial, F.cross_entropy(model(x_adv), y, reduction="none"))


def test_the_trades_gradient_flows_through_both_arguments_of_the_divergence(model: nn.Module, batch) -> None:
    x, y = batch
    x_adv = (x + 0.05).clamp(0, 1)
    weights = list(model.parameters())
    found = torch.autograd.grad(OUTER["trades"].loss(outer_case(model, x, y, x_adv, beta=10.0)).total.sum(), weights)
    whole = F.cross_entropy(model(x), y, reduction="sum") + 10 * softmax_kl(model(x), model(x_adv)).sum()
    for a, b in zip(found, torch.autograd.grad(whole, weights), strict=True):
        torch.testing.assert_close(a, b)


# methods.md's ideal passes an image: forward, and backward to the input or through everything.
PASSES = {
    "natural": (1, 1),
    "at": (11, 11),
    "fast-at": (2, 2),
    "fast-at-plus": (2, 2),
    "trades": (13, 12),
    "fast-trades": (4, 3),
    "fast-trades-2": (5, 4),
    "bs": (4, 4),
    "bs-alone": (3, 3),
    "bs-at": (3, 3),
    "n-fgsm": (2, 2),
    "liet": (3, 3),
    "gradalign": (4, 5),  # of its two gradients one is gone through again, by the weights
    "free-at": (8, 8),
    "mart": (12, 12),
    "nuat": (4, 3),
}


@pytest.mark.parametrize("name", METHODS)
def test_a_method_runs_exactly_its_own_passes(name: str, model: nn.Module, batch) -> None:
    x, y = batch
    passes = Passes()
    forward = counting(model, passes)
    method = METHODS[name].at(EPS)
    memory = Memory({"pattern": torch.zeros(5, *x.shape[1:], dtype=x.dtype)}, updates=1)
    for _ in range(method.replays):
        moved = perturb(method, forward, x, y, EPS, BatchDraws(generator(1)), memory)
        case = outer_case(forward, x, y, moved.x_adv, moved.start, beta=method.beta)
        OUTER[method.outer].loss(case).total.sum().backward()
    assert (passes.forward / len(x), passes.backward / len(x)) == PASSES[name]


@pytest.mark.parametrize("name", METHODS)
def test_a_method_stays_in_its_ball_and_leaves_the_weights_alone(name: str, model: nn.Module, batch) -> None:
    x, y = batch
    before = [p.clone() for p in model.parameters()]
    method = METHODS[name].at(EPS)
    x_adv = perturb(method, model, x, y, EPS, BatchDraws(generator(1))).x_adv
    reach = EPS * (3 if method.bound is None else method.bound)  # N-FGSM: twice the noise, and a step
    assert (x_adv - x).abs().max() <= reach + 1e-12 and x_adv.min() >= 0 and x_adv.max() <= 1
    assert method.bound is not None or (x_adv - x).abs().max() > 2 * EPS
    assert not x_adv.requires_grad and all(p.grad is None for p in model.parameters())
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))


@pytest.mark.parametrize("name", METHODS)
def test_a_method_runs_wherever_its_tensors_are(name: str) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(32, 5)).to("meta")
    x, y = torch.empty(7, 2, 4, 4, device="meta"), torch.empty(7, dtype=torch.int64, device="meta")
    method = METHODS[name].at(EPS)
    moved = perturb(method, network, x, y, EPS, BatchDraws(torch.Generator()))
    assert moved.x_adv.device.type == "meta" and moved.x_adv.shape == x.shape
    case = outer_case(network, x, y, moved.x_adv, moved.start, draws=BatchDraws(torch.Generator()))
    assert OUTER[method.outer].loss(case).total.device.type == "meta"


def test_the_paper_s_defaults() -> None:
    bs = METHODS["bs"].at(0.031)
    assert (bs.gamma, bs.beta, bs.step, bs.steps) == (1.0, 10.0, 0.031, 1)
    trades = METHODS["trades"].at(0.031)
    assert (trades.beta, trades.step, trades.steps) == (6.0, 2 / 255, 10)
    assert METHODS["fast-at"].at(0.031).step == METHODS["fast-at"].at(8 / 255).step == 10 / 255
    assert METHODS["fast-at"].at(16 / 255).step == pytest.approx(20 / 255)
    assert METHODS["at"].at(0.2).step == pytest.approx(0.05)
    assert all(m.inner in INNER and m.outer in OUTER for m in METHODS.values())
