"""RayS against a naive search in Python floats, and against the closed form for linear models."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from bsk.attacks.flags import AttackFlags
from bsk.attacks.rays import TOLERANCE, _blocks, rays
from bsk.attacks.registry import attack_named
from bsk.errors import UsageError
from bsk.evaluation.calls import steady
from bsk.perturb.draws import example_draws

NO_DRAWS = example_draws(0, "", [])


class Net(nn.Module):
    """A smooth network; the first class is far ahead if `lead` is large."""

    def __init__(self, features: int, lead: float = 0.0, classes: int = 3, seed: int = 0) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(seed)
        self.inner = nn.Parameter(torch.randn(12, features, generator=random) / features**0.5)
        self.outer = nn.Parameter(torch.randn(classes, 12, generator=random) / 3)
        self.lead = lead

    def forward(self, x: Tensor) -> Tensor:
        logits = torch.sin(4 * x.flatten(1) @ self.inner.T) @ self.outer.T
        return torch.cat([logits[:, :1] + self.lead, logits[:, 1:]], 1)


def images(n: int, *shape: int, seed: int = 1) -> Tensor:
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(seed))


# --- a naive search, one example at a time ----------------------------------------------------------------------------


def naive_rays(wrong: Callable[[list[float]], bool], x: list[float], queries: int) -> tuple[float, int]:
    """Return the distance found and the queries asked; radii are in L2, as in the authors' code."""
    dimension, asked, level, block = len(x), 0, 0, 0
    sign, best, image = [1.0] * dimension, math.inf, [1.0] * dimension

    def at(direction: list[float], radius: float) -> list[float]:
        step = radius / math.sqrt(dimension)
        return [min(max(value + step * s, 0.0), 1.0) for value, s in zip(x, direction, strict=True)]

    while asked < queries:
        size = math.ceil(dimension / 2**level)
        first, last = block * size, min((block + 1) * size, dimension)
        attempt = [-s if first <= i < last else s for i, s in enumerate(sign)]
        asked += 1
        if wrong(at(attempt, best)):
            low, high = 0.0, min(best, math.sqrt(dimension))
            while high - low > 1e-3:
                middle = (low + high) / 2
                asked += 1
                if wrong(at(attempt, middle)):
                    high = middle
                else:
                    low = middle
            if high < best:
                best, sign, image = high, attempt, at(attempt, high)
        block += 1
        if block == 2**level or last == dimension:
            level, block = level + 1, 0
    found = max(abs(a - b) for a, b in zip(image, x, strict=True))
    return found if best < math.inf else math.inf, asked


@pytest.mark.parametrize("shape", [(3, 4, 4), (1, 3, 5), (2, 1, 1), (1, 1, 1), (1, 7, 11)])
@pytest.mark.parametrize("queries", [1, 12, 400])
def test_rays_is_the_naive_search(shape: tuple[int, int, int], queries: int) -> None:
    model, x = Net(math.prod(shape)).double(), images(8, *shape).double()
    y = model(x).argmax(1)
    y[0] = (y[0] + 1) % 3  # wrong already
    found = rays(model, x, y, NO_DRAWS, eps=0.1, queries=queries)
    for i in range(8):

        def wrong(image: list[float], i: int = i) -> bool:
            z = model(torch.tensor(image, dtype=torch.float64).view(1, *shape))
            return int(z.argmax()) != int(y[i])

        distance, asked = naive_rays(wrong, x[i].flatten().tolist(), queries)
        assert float(found.distance[i]) == pytest.approx(distance, abs=1e-9)
        assert int(found.forward[i]) == asked
    assert not found.backward.any() and torch.equal(found.fooled, found.distance <= 0.1)


def test_each_call_has_one_query_per_example() -> None:
    """Searches along rays do not wait for each other: the number of calls is the largest number of queries."""
    model, x, sizes = Net(108), images(20, 3, 6, 6), []

    def counting(batch: Tensor) -> Tensor:
        sizes.append(len(batch))
        return model(batch)

    found = rays(counting, x, model(x).argmax(1), NO_DRAWS, eps=0.05, queries=300)
    assert len(sizes) == int(found.forward.max()) and sum(sizes) == int(found.forward.sum())
    assert sizes[:300] == [20] * 300


# --- linear models ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, *(pytest.param(each, marks=pytest.mark.slow) for each in (1, 2))])
def test_on_a_linear_model_it_comes_down_to_the_closed_form(seed: int) -> None:
    """The nearest boundary is at gap / |w|_1 along the signs of w; RayS is above it, and nearer with more queries."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2)).double()
    x = 0.35 + 0.3 * images(12, 1, 8, 8, seed=seed).double()
    z, w = model(x).detach(), (model[1].weight[1] - model[1].weight[0]).detach()
    y, exact = z.argmax(1), (z[:, 1] - z[:, 0]).abs() / w.abs().sum()
    assert exact.max() < 0.35, "inside the box"
    tolerance, before = TOLERANCE / 8, torch.full_like(exact, math.inf)
    for queries in (20, 200, 1000, 4000):
        found = rays(model, x, y, NO_DRAWS, eps=0.1, queries=queries)
        assert (found.distance >= exact - 1e-9).all() and (found.distance <= before).all()
        before = found.distance
    assert (before <= exact + 8 * tolerance).all(), "every sign was tried; a flip that gains less is not seen"
    assert (before / exact).median() < 1.01


def test_the_first_ray_by_hand() -> None:
    """One pixel, wrong below 0.25: the first ray goes down from 0.8, and the boundary is at a distance of 0.55."""

    def model(x: Tensor) -> Tensor:
        return torch.cat([x.flatten(1) - 0.25, torch.zeros(len(x), 1)], 1)

    found = rays(model, torch.tensor([[[[0.8]]]]), torch.tensor([0]), NO_DRAWS, eps=0.6, queries=1)
    assert found.forward.tolist() == [1 + 10], "halving 1 to 1e-3"
    assert 0.55 <= found.distance.item() <= 0.551 and found.fooled.tolist() == [True]
    assert found.x_adv.item() == pytest.approx(0.8 - found.distance.item())


# --- what it promises -------------------------------------------------------------------------------------------------


def test_a_robust_example_has_no_distance() -> None:
    x = images(5, 3, 4, 4)
    found = rays(Net(48, lead=99.0), x, torch.zeros(5, dtype=torch.int64), NO_DRAWS, eps=0.1, queries=70)
    assert found.distance.isinf().all() and not found.fooled.any()
    assert torch.equal(found.x_adv, x) and found.forward.tolist() == [70] * 5


def test_a_misclassified_image_has_nearly_zero_distance() -> None:
    model, x = Net(48), images(6, 3, 4, 4)
    y = (model(x).argmax(1) + 1) % 3
    found = rays(model, x, y, NO_DRAWS, eps=0.01, queries=300)
    assert (found.distance <= TOLERANCE / math.sqrt(48) + 1e-6).all() and found.fooled.all()


@pytest.mark.parametrize("eps", [0.02, 0.06, 0.2])
def test_stopping_at_eps_changes_the_distance_but_not_the_verdict(eps: float) -> None:
    model, x = Net(108, lead=0.3), images(30, 3, 6, 6)
    y = model(x).argmax(1)
    whole = rays(model, x, y, NO_DRAWS, eps=eps, queries=500)
    short = rays(model, x, y, NO_DRAWS, eps=eps, queries=500, stop_at_eps=True)
    assert torch.equal(short.fooled, whole.fooled) and whole.fooled.any()
    assert torch.equal(short.forward[~short.fooled], whole.forward[~short.fooled])
    assert (short.forward <= whole.forward).all() and (short.distance >= whole.distance).all()
    assert short.forward[short.fooled].float().mean() < 250
    for found in (whole, short):
        assert torch.equal(model(found.x_adv).argmax(1) != y, found.fooled)
        assert (found.x_adv - x).abs().max() <= eps


@given(queries=st.integers(1, 200), seed=st.integers(0, 50))
@settings(deadline=None, max_examples=25)
def test_the_query_budget_is_exceeded_only_by_the_last_search(queries: int, seed: int) -> None:
    model, x = Net(48, seed=seed), images(5, 3, 4, 4, seed=seed)
    counted = [0]

    def counting(batch: Tensor) -> Tensor:
        counted[0] += len(batch)
        logits: Tensor = model(batch)
        return logits

    found = rays(counting, x, model(x).argmax(1), NO_DRAWS, eps=0.05, queries=queries)
    search = math.ceil(math.log2(math.sqrt(48) / TOLERANCE))
    assert (found.forward >= queries).all() and (found.forward <= queries + search).all()
    assert int(found.forward.sum()) == counted[0]
    assert (found.distance >= 0).all() and ((found.distance <= 1) | found.distance.isinf()).all()


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 1, 1)])
def test_single_values_are_repeated_once_blocks_are_exhausted(shape: tuple[int, int, int]) -> None:
    """After 1,100 halvings a block would be smaller than the smallest float."""
    model, x = Net(math.prod(shape)), images(4, *shape)
    y = model(x).argmax(1)
    few, many = (rays(model, x, y, NO_DRAWS, eps=0.1, queries=queries) for queries in (100, 3000))
    assert torch.equal(few.distance, many.distance), "every sign was tried"
    assert (many.forward >= 3000).all() and (many.forward < 3020).all()
    blocks = _blocks(64, 200_000)
    assert len(blocks) == 200_000 and blocks[:3] == [(0, 64), (0, 32), (32, 64)]
    assert blocks[63:127] == blocks[127:191] == [(value, value + 1) for value in range(64)]


def test_results_do_not_depend_on_order_or_batch() -> None:
    model, x = steady(Net(108)), images(20, 3, 6, 6)
    y = model(x).argmax(1)
    whole = rays(model, x, y, NO_DRAWS, eps=0.05, queries=300)
    for rows in (torch.randperm(20, generator=torch.Generator().manual_seed(0)), torch.arange(4, 9), torch.tensor([7])):
        part = rays(model, x[rows], y[rows], NO_DRAWS, eps=0.05, queries=300)
        assert torch.equal(part.distance, whole.distance[rows]) and torch.equal(part.forward, whole.forward[rows])
        assert torch.equal(part.x_adv, whole.x_adv[rows])


def test_its_flags() -> None:
    assert attack_named("rays", 0.03).parameters == {"queries": 10_000, "stop_at_eps": False}
    assert attack_named("rays", 0.03, AttackFlags(queries=40_000, stop_at_eps=True)).parameters["queries"] == 40_000
    with pytest.raises(UsageError, match="Linf-only"):
        attack_named("rays", 0.03, AttackFlags(norm="l2"))
