"""The methods beyond the paper, by hand and by naive references in float64."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from bsk.perturb.later_starts import PATTERN_EVERY, keep
from bsk.perturb.memory import Memory
from bsk.training.methods import METHODS, align_at, begin, perturb
from bsk.training.outer import OUTER, input_gradient
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from toys import EPS, Fixed, case, pixels

from bsk.perturb.ball import ball_around
from bsk.perturb.draws import BatchDraws, generator
from bsk.perturb.losses import cross_entropy, jensen_shannon, nuclear

DRAWS = BatchDraws(generator(0))


# --- N-FGSM -----------------------------------------------------------------------------------------------------------


def test_n_fgsm_by_hand() -> None:
    """Label 0 and the weights (1, -1), (-1, 1): the loss falls along (1, -1), so the step is (-eps, +eps)."""
    model, x, y = Fixed([[1, -1], [-1, 1]]), pixels((0.5, 0.5), (0.05, 0.97)), torch.tensor([0, 0])
    xi = BatchDraws(generator(3)).uniform(x)
    found = perturb(METHODS["n-fgsm"].at(EPS), model, x, y, EPS, BatchDraws(generator(3))).x_adv
    step = pixels((-EPS, EPS), (-EPS, EPS))
    torch.testing.assert_close(found, ((x + 2 * EPS * xi).clamp(0, 1) + step).clamp(0, 1), rtol=0, atol=1e-15)


def test_bound_and_noise_are_the_axes_between_fast_at_and_n_fgsm() -> None:
    """With noise 1 and bound 1 it is Fast AT of step eps, where no pixel is near 0 or 1."""
    model, y = Fixed([[1, 2], [-3, 1]]), torch.tensor([0, 1])
    x = pixels((0.5, 0.4), (0.6, 0.5))
    near = replace(METHODS["n-fgsm"].at(EPS), noise=1.0, bound=1.0)
    fast = replace(METHODS["fast-at"].at(EPS), step=EPS)
    one, other = (perturb(row, model, x, y, EPS, BatchDraws(generator(1))).x_adv for row in (near, fast))
    assert torch.equal(one, other)


# --- Free AT ----------------------------------------------------------------------------------------------------------


def test_free_at_moves_its_perturbation_by_the_gradient_of_the_update_itself() -> None:
    model, x, y = Fixed([[1, -1], [-1, 1]]), pixels((0.5, 0.98)), torch.tensor([0])
    row, memory = METHODS["free-at"].at(EPS), Memory()
    moved = perturb(row, model, x, y, EPS, DRAWS, memory)
    assert torch.equal(moved.x_adv, x) and torch.equal(moved.start, x)
    moved.x_adv.requires_grad_()
    OUTER["adversarial"].loss(case(model, x, y, moved.x_adv, 1.0)).total.sum().backward()
    assert model.weight.grad is not None, "one backward pass for both"
    keep(memory, x, moved.x_adv, EPS, moved.ball)
    torch.testing.assert_close(memory.tensors["delta"], pixels((-EPS, 0.02)), rtol=0, atol=1e-15)
    again = perturb(row, model, x, y, EPS, DRAWS, memory)
    torch.testing.assert_close(again.x_adv, pixels((0.4, 1.0)), rtol=0, atol=1e-15)


def test_a_shorter_batch_leaves_the_perturbations_of_the_others_alone() -> None:
    x, memory = pixels((0.5, 0.5), (0.5, 0.5), (0.5, 0.5)), Memory({"delta": pixels((0.1, 0), (0, 0.1), (-0.1, 0))})
    short = x[:2].clone().requires_grad_()
    short.grad = torch.ones_like(short)
    keep(memory, x[:2], short, 0.03, ball_around(x[:2], EPS))
    torch.testing.assert_close(memory.tensors["delta"], pixels((0.03, 0.03), (0.03, 0.03), (-0.1, 0)))


# --- LIET -------------------------------------------------------------------------------------------------------------


def liet(model: nn.Module, x: Tensor, y: Tensor, memory: Memory) -> Tensor:
    return begin(METHODS["liet"].at(EPS), model, x, y, EPS, BatchDraws(generator(2)), memory).x


def test_a_pattern_is_the_sign_of_the_gradient_at_grey_for_each_label() -> None:
    """At equal pixels the weights (1, -1), (-1, 1) leave both classes at 1/2: the gradients are (-1, 1) and (1, -1)."""
    memory = Memory()
    liet(Fixed([[1, -1], [-1, 1]]), pixels((0.5, 0.5)), torch.tensor([0]), memory)
    assert torch.equal(memory.tensors["pattern"], pixels((-1, 1), (1, -1)))


def test_liet_starts_at_the_pattern_or_against_it_with_some_noise() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(300, 4)).double()
    x, y, memory = torch.full((200, 3, 10, 10), 0.5, dtype=torch.float64), torch.arange(200) % 4, Memory()
    delta = (liet(model, x, y, memory) - x) / EPS
    pattern = memory.tensors["pattern"][y]
    ways = torch.stack([(delta - way * pattern).abs() < 1e-9 for way in (1, -1)]).flatten(2).double().mean(2)
    kept, way = ways.max(0)
    assert (delta.abs() <= 1 + 1e-9).all()
    assert kept.min() > 0.4 and kept.max() < 1.0 and kept.mean() == pytest.approx(0.7, abs=0.03)
    assert 0.35 < way.double().mean() < 0.65


def test_patterns_are_made_anew_every_so_many_updates() -> None:
    x, y, memory = pixels((0.5, 0.5)), torch.tensor([0]), Memory()
    one, other = Fixed([[1, -1], [-1, 1]]), Fixed([[-1, 1], [1, -1]])
    liet(one, x, y, memory)
    for updates in range(1, PATTERN_EVERY):
        memory.updates = updates
        liet(other, x, y, memory)
        assert torch.equal(memory.tensors["pattern"], pixels((-1, 1), (1, -1)))
    memory.updates = PATTERN_EVERY
    liet(other, x, y, memory)
    assert torch.equal(memory.tensors["pattern"], pixels((1, -1), (-1, 1)))


def test_jensen_shannon_by_hand() -> None:
    """Of (1/2, 1/2) and (1/4, 3/4): m = (3/8, 5/8)."""
    p, q = torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, math.log(3)]])
    by_hand = (0.5 * math.log(4 / 3) + 0.5 * math.log(4 / 5) + 0.25 * math.log(2 / 3) + 0.75 * math.log(6 / 5)) / 2
    assert float(jensen_shannon(p, q)) == pytest.approx(by_hand, rel=1e-5)
    assert float(jensen_shannon(torch.tensor([[99.0, 0]]), torch.tensor([[0, 99.0]]))) == pytest.approx(math.log(2))


@given(st.integers(0, 1000))
@settings(deadline=None, max_examples=30)
def test_jensen_shannon_is_symmetric_and_between_0_and_log_2(seed: int) -> None:
    p, q = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 5
    found = jensen_shannon(p, q)
    torch.testing.assert_close(found, jensen_shannon(q, p))
    assert (found >= -1e-12).all() and (found <= math.log(2) + 1e-12).all()
    assert float(jensen_shannon(p, p).abs().max()) < 1e-12


def test_liet_descends_the_distance_between_start_and_end() -> None:
    model, x, y = Fixed([[1, -1], [-1, 1]]), pixels((0.5, 0.2)), torch.tensor([0])
    start, end = pixels((0.45, 0.2)), pixels((0.4, 0.3))
    found = OUTER["consistent"].loss(case(model, x, y, end, 7.0, start))
    expected = cross_entropy(model(end), y) + 7 * jensen_shannon(model(start), model(end))
    torch.testing.assert_close(found.total, expected)
    torch.testing.assert_close(found.robust, cross_entropy(model(end), y))


# --- MART -------------------------------------------------------------------------------------------------------------


def test_mart_by_hand() -> None:
    """Clean probabilities (3/4, 1/4), adversarial (1/2, 1/2), label 0, beta 5."""
    model, y = Fixed([[1, 0], [0, 1]]), torch.tensor([0])
    x, x_adv = pixels((math.log(3), 0.0)), pixels((0.0, 0.0))
    boosted = math.log(2) - math.log(1.0001 - 0.5)
    divergence = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    found = OUTER["mart"].loss(case(model, x, y, x_adv, 5.0))
    assert found.total.tolist() == pytest.approx([boosted + 5 * divergence * (1.0000001 - 0.75)], rel=1e-6)
    assert found.robust.tolist() == pytest.approx([boosted], rel=1e-6) and found.natural is None


# --- NuAT -------------------------------------------------------------------------------------------------------------


def test_the_nuclear_norm_by_hand() -> None:
    """Rows (3, 0) and (0, 4) have the singular values 3 and 4; two equal rows (3, 4) have 5 sqrt 2 alone."""
    assert float(nuclear(torch.tensor([[3.0, 0], [0, 4]]))) == pytest.approx(7 / 2)
    assert float(nuclear(torch.tensor([[3.0, 4], [3, 4]]))) == pytest.approx(5 * math.sqrt(2) / 2)


def test_nuat_by_a_naive_reference() -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).double()
    x, y = torch.rand(4, 3, 2, 2, dtype=torch.float64), torch.tensor([0, 1, 2, 0])
    row = METHODS["nuat"].at(EPS)
    coins = torch.where(BatchDraws(generator(5)).uniform(x) < 0, -1.0, 1.0).double()
    point = (x + EPS / 2 * coins).clamp(0, 1).requires_grad_()
    eigen = torch.linalg.eigvalsh((model(point) - model(x)).T @ (model(point) - model(x)))
    loss = F.cross_entropy(model(point), y) + row.beta * eigen.clamp(min=1e-30).sqrt().sum() / 4
    loss.backward()
    expected = (point + EPS * point.grad.sign()).clamp(x - EPS, x + EPS).clamp(0, 1).detach()
    moved = perturb(row, model, x, y, EPS, BatchDraws(generator(5)))
    torch.testing.assert_close(moved.x_adv, expected, rtol=0, atol=1e-12)
    total = OUTER["nuclear"].loss(case(model, x, y, expected, row.beta)).total.mean()
    singular = torch.linalg.svd(model(expected) - model(x)).S.sum()
    torch.testing.assert_close(total, F.cross_entropy(model(x), y) + row.beta * singular / 4)


# --- GradAlign --------------------------------------------------------------------------------------------------------


def test_a_linear_model_of_two_classes_is_aligned() -> None:
    model, x, y = Fixed([[1, -2], [-1, 1]]), pixels((0.5, 0.2), (0.1, 0.9)), torch.tensor([0, 1])
    found = OUTER["aligned"].loss(case(model, x, y, x, 3.0))
    torch.testing.assert_close(found.total, found.robust)


def test_gradalign_by_its_definition_and_its_gradient_by_differences() -> None:
    torch.manual_seed(2)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    x, y = torch.rand(4, 3, 2, 2, dtype=torch.float64), torch.tensor([0, 1, 2, 0])
    near = x + EPS * BatchDraws(generator(0)).uniform(x)
    fixed = input_gradient(model, x, y, create_graph=False)

    def regulariser() -> Tensor:
        gradient = input_gradient(model, near, y, create_graph=False)
        cosines = [float((a * b).sum() / (a.norm() * b.norm())) for a, b in zip(fixed, gradient, strict=True)]
        return torch.tensor([1 - cosine for cosine in cosines], dtype=torch.float64)

    found = OUTER["aligned"].loss(case(model, x, y, x, 2.0))
    torch.testing.assert_close(found.total - found.robust, 2 * regulariser())
    weight = model[1].weight
    (slope,) = torch.autograd.grad((found.total - found.robust).sum(), weight)
    before = 2 * regulariser().sum()
    with torch.no_grad():
        weight[0, 0] += 1e-6
    torch.testing.assert_close(slope[0, 0], (2 * regulariser().sum() - before) / 1e-6, rtol=1e-3, atol=1e-6)


def test_where_a_gradient_is_zero_there_is_no_angle() -> None:
    model, x, y = Fixed([[0, 0], [0, 0]]), pixels((0.5, 0.2)), torch.tensor([0])
    found = OUTER["aligned"].loss(case(model, x, y, x, 3.0))
    assert found.total.tolist() == pytest.approx([math.log(2)])
    found.total.sum().backward()
    assert model.weight.grad is not None and bool(model.weight.grad.isfinite().all())


def test_the_weight_of_gradalign_grows_with_the_radius() -> None:
    """0.2 at 8/255 and 2 at 16/255, as in the authors' experiments."""
    assert align_at(8 / 255) == pytest.approx(0.2) and align_at(16 / 255) == pytest.approx(2.0) == align_at(0.2)
    assert METHODS["gradalign"].at(8 / 255).beta == pytest.approx(0.2)


# --- all --------------------------------------------------------------------------------------------------------------


def test_beta_grows_where_the_row_says_so() -> None:
    liet_row, bs = METHODS["liet"].at(EPS), METHODS["bs"].at(EPS)
    assert [liet_row.after(k, 4).beta for k in range(4)] == [25, 50, 75, 100]
    assert bs.after(0, 4) is bs


def test_label_smoothing_by_hand() -> None:
    """Of probabilities (3/4, 1/4) and label 0, smoothed by 0.2: 0.9 and 0.1 of the weight."""
    z = torch.tensor([[math.log(3), 0.0]])
    by_hand = -0.9 * math.log(0.75) - 0.1 * math.log(0.25)
    assert float(cross_entropy(z, torch.tensor([0]), 0.2)) == pytest.approx(by_hand, rel=1e-6)
