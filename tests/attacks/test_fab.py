"""FAB: its projection against a linear programme and a bisection, and its distances against closed forms."""

import math
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.optimize import linprog
from torch import Tensor, nn

from bsk.attacks.fab import fab_t, onto_plane
from bsk.perturb.draws import example_draws

Norm = Literal["linf", "l2", "l1"]
ORDER: dict[Norm, float] = {"linf": np.inf, "l2": 2, "l1": 1}
DUAL: dict[Norm, float] = {"linf": 1, "l2": 2, "l1": np.inf}
NO_DRAWS = example_draws(0, "", [])


# --- the projection ---------------------------------------------------------------------------------------------------


def shortest_by_programme(t: np.ndarray, w: np.ndarray, c: float) -> float:
    """The least sum of |d_i| with w.d = -c and 0 <= t + d <= 1, of d = up - down."""
    n, room = len(t), [*(1 - t), *t]
    found = linprog([1.0] * 2 * n, A_eq=[[*w, *-w]], b_eq=[-c], bounds=[(0, most) for most in room])
    return float(found.fun) if found.status == 0 else math.inf


def nearest_by_programme(t: np.ndarray, w: np.ndarray, c: float) -> float:
    """The least r with w.d = -c, 0 <= t + d <= 1 and |d_i| <= r, or infinity."""
    n = len(t)
    both = np.block([[np.eye(n), -np.ones((n, 1))], [-np.eye(n), -np.ones((n, 1))]])
    found = linprog(
        [0.0] * n + [1.0],
        A_ub=both,
        b_ub=np.zeros(2 * n),
        A_eq=[[*w, 0.0]],
        b_eq=[-c],
        bounds=[*zip(-t, 1 - t, strict=True), (0, None)],
    )
    return float(found.fun) if found.status == 0 else math.inf


def nearest_by_bisection(t: np.ndarray, w: np.ndarray, c: float, norm: Norm) -> np.ndarray:
    """d_i = -s_i min(r u_i, room_i), u_i = 1 or |w_i|, with r so large that w.d = -c, or until the corner.

    In L1 one coordinate after another goes as far as it must or can, those of the largest |w_i| first.
    """
    if norm == "l1":
        d, need = np.zeros_like(t), abs(c)
        for i in sorted(range(len(t)), key=lambda i: -abs(w[i])):
            towards = -np.sign(c) * np.sign(w[i])
            d[i] = towards * (min(need / abs(w[i]), 1 - t[i] if towards > 0 else t[i]) if towards else 0.0)
            need = max(need - abs(w[i] * d[i]), 0.0)
        return d

    def moved(r: float) -> np.ndarray:
        speed = np.sign(w) if norm == "linf" else w
        return np.clip(-np.sign(c) * r * speed, -t, 1 - t)

    high = 1.0
    while abs(w @ moved(high)) < abs(c) and high < 1e12:
        high *= 2
    low = 0.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (low, middle) if abs(w @ moved(middle)) >= abs(c) else (middle, high)
    return moved(high)


def project(t: np.ndarray, w: np.ndarray, c: float, norm: Norm, dtype: torch.dtype = torch.float64) -> np.ndarray:
    """`onto_plane` of one row; what must hold of any row is asserted here."""
    row_t, row_w = (torch.tensor(each, dtype=dtype)[None] for each in (t, w))
    d, far = onto_plane(row_t, row_w, torch.tensor([c], dtype=dtype), norm)
    assert torch.isfinite(d).all() and (row_t + d).min() >= -1e-6 and (row_t + d).max() <= 1 + 1e-6
    assert not d[row_w == 0].any(), "what does not help does not move"
    assert float(far) == pytest.approx(float(np.linalg.norm(d[0].numpy(), ORDER[norm])), rel=1e-5)
    return d[0].numpy()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_by_hand(dtype: torch.dtype) -> None:
    t, w = np.array([0.5, 0.5]), np.array([3.0, 4.0])
    assert project(t, w, 0.7, "linf", dtype) == pytest.approx([-0.1, -0.1])
    assert project(t, w, -0.7, "linf", dtype) == pytest.approx([0.1, 0.1])
    assert project(t, w, 0.5, "l2", dtype) == pytest.approx([-0.06, -0.08])
    # the first coordinate has no room, and the other must do it alone
    t = np.array([0.0, 0.5])
    assert project(t, w, 0.8, "linf", dtype) == pytest.approx([0.0, -0.2])
    assert project(t, w, 0.8, "l2", dtype) == pytest.approx([0.0, -0.2])
    # it has a little
    t = np.array([0.1, 0.5])
    assert project(t, w, 1.5, "linf", dtype) == pytest.approx([-0.1, -0.3])
    assert project(t, w, 1.5, "l2", dtype) == pytest.approx([-0.1, -0.3])
    # 4 * 0.5 is more than 1.5; of 2.15 the other has 0.15 left to do
    assert project(t, w, 1.5, "l1", dtype) == pytest.approx([0.0, -0.375])
    assert project(t, w, 2.15, "l1", dtype) == pytest.approx([-0.05, -0.5])


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_a_plane_that_misses_the_box_gives_its_nearest_corner(norm: Norm) -> None:
    t = np.array([0.2, 0.7, 0.4, 0.5])
    for c in (9.0, 1e3, 1e30):
        assert project(t, np.array([1.0, -2.0, 0.0, 1e-3]), c, norm) == pytest.approx([-0.2, 0.3, 0.0, -0.5])
        assert project(t, np.array([1.0, -2.0, 0.0, 1e-3]), -c, norm) == pytest.approx([0.8, -0.7, 0.0, 0.5])


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_cases_in_which_nothing_moves(norm: Norm, dtype: torch.dtype) -> None:
    t = np.array([0.0, 1.0, 0.5])
    assert not project(t, np.array([1.0, 2.0, 3.0]), 0.0, norm, dtype).any(), "on the plane already"
    assert not project(t, np.zeros(3), 0.0, norm, dtype).any()
    assert not project(t, np.zeros(3), 0.5, norm, dtype).any(), "a plane without a direction"
    assert not project(t, np.array([1.0, -1.0, 0.0]), 1.0, norm, dtype).any(), "in the corner already"


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_rows_are_independent(norm: Norm) -> None:
    random = torch.Generator().manual_seed(0)
    t, w, c = torch.rand(50, 30, generator=random), torch.randn(50, 30, generator=random), torch.randn(50) * 4
    d, far = onto_plane(t, w, c, norm)
    for i in range(50):
        alone, length = onto_plane(t[i : i + 1], w[i : i + 1], c[i : i + 1], norm)
        torch.testing.assert_close(alone[0], d[i], rtol=0, atol=1e-6)
        torch.testing.assert_close(length[0], far[i], rtol=1e-5, atol=1e-6)


SIZES = st.integers(1, 12)
UNIT = st.one_of(st.sampled_from([0.0, 1.0, 0.5, 1 / 255]), st.floats(0, 1))
WEIGHT = st.one_of(st.sampled_from([0.0, 1.0, -1.0, 1e-3]), st.floats(-10, 10).map(lambda v: round(v, 4)))
ROWS = SIZES.flatmap(
    lambda n: st.tuples(arrays.arrays(float, n, elements=UNIT), arrays.arrays(float, n, elements=WEIGHT))
)
PART = st.floats(-1.3, 1.3)


def gap(t: np.ndarray, w: np.ndarray, part: float) -> float:
    """A gap as a fraction of the largest within the box; beyond 1 the plane does not meet the box."""
    towards = -1 if part > 0 else 1
    return part * float(np.abs(w) @ np.where(towards * w > 0, 1 - t, t))


@given(rows=ROWS, part=PART)
@example(rows=(np.array([0.0, 1.0]), np.array([1.0, -1.0])), part=0.5)
@example(rows=(np.array([0.5]), np.array([2.0])), part=1.0)
@settings(deadline=None, max_examples=150)
def test_the_linf_projection_equals_the_linear_programme(rows: tuple[np.ndarray, np.ndarray], part: float) -> None:
    t, w = rows
    c = gap(t, w, part)
    d = project(t, w, c, "linf")
    if abs(part) <= 1:
        assert abs(w @ d + c) <= 1e-5 * (1 + abs(c)), "on the plane"
        if abs(part) < 0.999:
            assert np.abs(d).max() == pytest.approx(nearest_by_programme(t, w, c), abs=1e-5)
    assert d == pytest.approx(nearest_by_bisection(t, w, c, "linf"), abs=1e-5)


@given(rows=ROWS, part=PART)
@settings(deadline=None, max_examples=150)
def test_the_l2_projection_equals_the_bisection(rows: tuple[np.ndarray, np.ndarray], part: float) -> None:
    """The nearest point in L2 is unique, so d itself is compared."""
    t, w = rows
    c = gap(t, w, part)
    d = project(t, w, c, "l2")
    if abs(part) <= 1:
        assert abs(w @ d + c) <= 1e-5 * (1 + abs(c)), "on the plane"
    if abs(part) < 0.999:
        assert d == pytest.approx(nearest_by_bisection(t, w, c, "l2"), abs=1e-5)


@given(rows=ROWS, part=PART)
@settings(deadline=None, max_examples=150)
def test_the_l1_projection_equals_the_linear_programme(rows: tuple[np.ndarray, np.ndarray], part: float) -> None:
    t, w = rows
    c = gap(t, w, part)
    d = project(t, w, c, "l1")
    assert d == pytest.approx(nearest_by_bisection(t, w, c, "l1"), abs=1e-5)
    if abs(part) < 0.999:
        assert abs(w @ d + c) <= 1e-5 * (1 + abs(c)), "on the plane"
        assert np.abs(d).sum() == pytest.approx(shortest_by_programme(t, w, c), abs=1e-4)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_in_single_precision_and_as_many_dimensions_as_an_image_has(norm: Norm) -> None:
    random = np.random.default_rng(0)
    for spread in (0.0, 1.0, 3.0):
        t = random.random(3072).round(2)
        w = random.normal(size=3072) * np.exp(spread * random.normal(size=3072))
        for part in (1e-4, 0.01, -0.1, 0.5, -0.9, 0.99):
            c = gap(t, w, part)
            d = project(t, w, c, norm, torch.float32)
            expected = nearest_by_bisection(t, w, c, norm)
            order = ORDER[norm]
            assert np.linalg.norm(d, order) == pytest.approx(np.linalg.norm(expected, order), rel=1e-4, abs=1e-5)


# --- the attack -------------------------------------------------------------------------------------------------------


def linear(classes: int, features: int, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(features, classes)).double()


def distances(model: nn.Module, x: Tensor, norm: Norm) -> Tensor:
    """To the nearest boundary of a linear model, far from the box: min over j of (z_y - z_j) / |w_y - w_j|."""
    weight, z = model[1].weight, model(x)
    y = z.argmax(1)
    order = DUAL[norm]
    away = (z.gather(1, y[:, None]) - z) / torch.cdist(weight[y], weight, p=order).clamp(min=1e-9)
    return away.detach().scatter(1, y[:, None], math.inf).amin(1)


OVERSHOOT = 1.006  # what the first step overshoots by 5 % comes down to so much in the second


@given(
    eps=st.floats(0.01, 0.2),
    seed=st.integers(0, 50),
    classes=st.integers(2, 6),
    norm=st.sampled_from(["linf", "l2", "l1"]),
)
@settings(deadline=None, max_examples=12)
def test_on_a_linear_model_it_finds_the_closed_form(eps: float, seed: int, classes: int, norm: Norm) -> None:
    model = linear(classes, 12, seed)
    x = 0.35 + 0.3 * torch.rand(24, 3, 2, 2, generator=torch.Generator().manual_seed(seed)).double()
    radius = eps * {"linf": 1, "l2": 2, "l1": 3}[norm]
    far = distances(model, x, norm)
    found = fab_t(model, x, model(x).argmax(1), NO_DRAWS, eps=radius, norm=norm, targets=classes - 1)
    away = far < 0.3  # nearer than the box
    assert found.fooled[away & (far < radius / OVERSHOOT)].all()
    assert not found.fooled[far > radius * (1 + 1e-6)].any()


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_on_a_linear_model_in_a_corner_of_the_box(norm: Norm) -> None:
    """Black and white pixels cannot move on, and the others must go further."""
    model = linear(2, 48, 0)
    x = torch.rand(60, 3, 4, 4, generator=torch.Generator().manual_seed(0)).double().mul(2).sub(0.5).clamp(0, 1)
    y, z = model(x).argmax(1), model(x).detach()
    w = (model[1].weight[1] - model[1].weight[0]).detach().numpy()
    order = ORDER[norm]
    rows = zip(x.flatten(1).numpy(), (z[:, 1] - z[:, 0]).tolist(), strict=True)
    far = torch.tensor([np.linalg.norm(nearest_by_bisection(t, w, c, norm), order) for t, c in rows])
    for eps in far.quantile(torch.tensor([0.2, 0.5, 0.8], dtype=far.dtype)).tolist():
        found = fab_t(model, x, y, NO_DRAWS, eps=eps, norm=norm, targets=1)
        assert found.fooled[far < eps / OVERSHOOT].all() and not found.fooled[far > eps * (1 + 1e-6)].any()


def naive_fab(model: nn.Module, x0: np.ndarray, y: int, target: int, norm: Norm, steps: int) -> float:
    """The distance of the nearest misclassified image in some steps towards one target."""
    order = ORDER[norm]
    x1, best = x0.copy(), math.inf
    for _ in range(steps):
        leaf = torch.tensor(x1, requires_grad=True)
        z = model(leaf[None])[0]
        difference = z[target] - z[y]
        w = torch.autograd.grad(difference, leaf)[0].numpy()
        g = float(difference.detach())
        d1 = nearest_by_bisection(x1, w, g, norm)
        d2 = nearest_by_bisection(x0, w, g + float(w @ (x0 - x1)), norm)
        one, two = (max(float(np.linalg.norm(d, order)), 1e-8) for d in (d1, d2))
        alpha = min(one / (one + two), 0.1)
        x1 = np.clip((x1 + 1.05 * d1) * (1 - alpha) + (x0 + 1.05 * d2) * alpha, 0, 1)
        if int(model(torch.tensor(x1)[None])[0].argmax()) != y:
            best = min(best, float(np.linalg.norm(x1 - x0, order)))
            x1 = x0 + 0.9 * (x1 - x0)
    return best


class Curved(nn.Module):
    """A smooth network of flat images, so curved that the nearest boundary takes many steps to find."""

    def __init__(self) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(4)
        self.inner = torch.randn(16, 10, generator=random).double()
        self.outer = torch.randn(4, 16, generator=random).double() / 4

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(6 * x.flatten(1) @ self.inner.T) @ self.outer.T


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize(("steps", "n"), [(2, 8), (3, 8), (5, 8), pytest.param(100, 3, marks=pytest.mark.slow)])
def test_its_nearest_image_is_that_of_the_naive_loop(norm: Norm, steps: int, n: int) -> None:
    """An eps a little above the naive loop's distance fools the model, and one a little below does not."""
    model, reached = Curved(), 0
    x = torch.rand(n, 1, 1, 10, generator=torch.Generator().manual_seed(2)).double()
    x[0, ..., :3], x[1, ..., 4:] = 0.0, 1.0
    y = model(x).argmax(1)
    for i in range(n):
        ranked = [j for j in model(x[i : i + 1])[0].argsort(descending=True).tolist() if j != y[i]]
        towards = [naive_fab(model, x[i].flatten().numpy(), int(y[i]), t, norm, steps) for t in ranked]
        for targets in (1, 3):
            far, one = min(towards[:targets]), slice(i, i + 1)
            for factor, fooled in ((1.0003, math.isfinite(far)), (0.9997, False)):
                eps = min(far, 100) * factor
                found = fab_t(model, x[one], y[one], NO_DRAWS, eps=eps, norm=norm, steps=steps, targets=targets)
                assert found.fooled.tolist() == [fooled], (i, far)
                reached += fooled
    assert reached >= n


def test_an_image_that_is_wrong_already_is_at_distance_zero() -> None:
    model, x = linear(3, 12, 0), torch.rand(8, 3, 2, 2, generator=torch.Generator().manual_seed(0)).double()
    found = fab_t(model, x, (model(x).argmax(1) + 1) % 3, NO_DRAWS, eps=0.0, targets=2)
    assert found.fooled.all() and torch.equal(found.x_adv, x) and found.forward.tolist() == [1] * 8


def test_a_step_costs_a_gradient_and_a_forward_pass() -> None:
    model, x = linear(2, 12, 0), 0.4 + 0.2 * torch.rand(5, 3, 2, 2, generator=torch.Generator().manual_seed(0)).double()
    found = fab_t(model, x, model(x).argmax(1), NO_DRAWS, eps=0.0, steps=10, targets=1)
    assert found.forward.tolist() == [1 + 2 * 10] * 5 and found.backward.tolist() == [10] * 5
