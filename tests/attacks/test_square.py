"""Square against a naive loop over pixels, with the same random numbers."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from bsk.attacks.outcome import Outcome
from bsk.attacks.painters import HALVINGS, PAINTERS, Sides, pyramids, side
from bsk.attacks.square import square
from bsk.evaluation.calls import steady
from bsk.perturb.draws import ExampleDraws, example_draws
from bsk.perturb.losses import margin


class Net(nn.Module):
    """A smooth network; the first class is far ahead if `lead` is large."""

    def __init__(self, features: int, lead: float = 0.0, classes: int = 4, seed: int = 0) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(seed)
        self.inner = nn.Parameter(torch.randn(24, features, generator=random) / features**0.5)
        self.outer = nn.Parameter(torch.randn(classes, 24, generator=random) / 5)
        self.lead = lead

    def forward(self, x: Tensor) -> Tensor:
        logits = torch.sin(4 * x.flatten(1).to(self.inner) @ self.inner.T) @ self.outer.T
        return torch.cat([logits[:, :1] + self.lead, logits[:, 1:]], 1)


class Seen:
    """The model, which remembers every batch that it saw."""

    def __init__(self, model: Callable[[Tensor], Tensor]) -> None:
        self.model, self.batches = model, list[Tensor]()

    def __call__(self, x: Tensor) -> Tensor:
        self.batches.append(x.clone())
        return self.model(x)


def images(n: int, channels: int, height: int, width: int, seed: int = 1) -> Tensor:
    """Some pixels are black or white."""
    x = torch.rand(n, channels, height, width, generator=torch.Generator().manual_seed(seed))
    return x.mul(1.4).sub(0.2).clamp(0, 1)


def draws(n: int) -> ExampleDraws:
    return example_draws(5, "square", range(n))


# --- the side of the square -------------------------------------------------------------------------------------------


def share(query: int) -> float:
    """The table of the reference, line by line."""
    if query <= 10:
        return 0.8
    if query <= 50:
        return 0.8 / 2
    if query <= 200:
        return 0.8 / 4
    if query <= 500:
        return 0.8 / 8
    if query <= 1000:
        return 0.8 / 16
    if query <= 2000:
        return 0.8 / 32
    if query <= 4000:
        return 0.8 / 64
    if query <= 6000:
        return 0.8 / 128
    if query <= 8000:
        return 0.8 / 256
    return 0.8 / 512


@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 64), (8, 8), (1, 1), (3, 40), (40, 3), (28, 20)])
def test_the_side_is_that_of_the_table(height: int, width: int) -> None:
    for query in (
        *range(0, 1100),
        *range(1900, 2100),
        *range(3990, 4010),
        *range(5990, 6010),
        *range(7990, 8010),
        9999,
    ):
        expected = max(round(math.sqrt(share(query) * height * width)), 1)
        assert side(query, height, width) == min(expected, height, width), query


def test_the_sides_of_a_cifar_image() -> None:
    """The root of 0.8 * 1024 is 28.6, of half of that 20.2, and so on."""
    firsts = [0, 11, 51, 201, 501, 1001, 2001, 4001, 6001, 8001]
    assert [side(query, 32, 32) for query in firsts] == [29, 20, 14, 10, 7, 5, 4, 3, 2, 1]
    assert side(10, 32, 32) == 29 and side(50, 32, 32) == 20 and side(4999, 32, 32) == 3


def test_the_sides_of_many_steps_are_those_of_each() -> None:
    query = torch.tensor(sorted({0, 9999, *(each + more for each in HALVINGS for more in (-1, 0, 1))}))
    x = torch.zeros(1, 3, 28, 20)
    assert Sides(x)(query).tolist() == [side(int(each), 28, 20) for each in query]
    odd = Sides(x, odd=True)(query).tolist()
    assert odd == [min(max(side(int(each), 28, 20), 3) | 1, 20) for each in query]


# --- the attack against a loop over pixels ----------------------------------------------------------------------------


def naive_square(
    model: nn.Module, x: Tensor, y: int, eps: float, queries: int, u: list[float]
) -> tuple[Tensor, bool, int]:
    """Attack one image (C, H, W) with the random numbers u; returns the image, whether it is fooled, and the passes."""
    channels, height, width = x.shape
    numbers = iter(u)

    def look(image: Tensor) -> tuple[float, bool]:
        z = model(image[None])[0].tolist()
        others = max(z[j] for j in range(len(z)) if j != y)
        return z[y] - others, max(range(len(z)), key=lambda j: z[j]) != y

    def clip(value: float, c: int, i: int, j: int) -> float:
        near = float(x[c, i, j])
        return min(max(min(max(value, near - eps), near + eps), 0.0), 1.0)

    best = x.clone().double()
    for j in range(width):  # vertical stripes
        for c in range(channels):
            colour = eps if next(numbers) >= 0.5 else -eps
            for i in range(height):
                best[c, i, j] = clip(float(x[c, i, j]) + colour, c, i, j)
    least, fooled = look(best)
    calls = 1
    for query in range(queries):
        if fooled:
            break
        s = min(max(round(math.sqrt(share(query) * height * width)), 1), height, width)
        top, left = int(next(numbers) * (height - s)), int(next(numbers) * (width - s))
        new = best.clone()
        for c in range(channels):
            colour = 2 * eps if next(numbers) >= 0.5 else -2 * eps
            for i in range(top, top + s):
                for j in range(left, left + s):
                    new[c, i, j] = clip(float(best[c, i, j]) + colour, c, i, j)
        found, fooled = look(new)
        calls += 1
        if found < least or fooled:
            best, least = new, found
    return best, fooled, calls


@pytest.mark.parametrize("shape", [(3, 6, 6), (1, 4, 7), (2, 7, 3)])
@pytest.mark.parametrize("lead", [0.0, 9.0])
@pytest.mark.parametrize("rows", [6, 100])
def test_square_is_the_naive_loop(shape: tuple[int, int, int], lead: float, rows: int) -> None:
    n, queries, eps = 6, 150, 0.04
    model, x = Net(math.prod(shape), lead).double(), images(n, *shape).double()
    y = model(x).argmax(1)
    found = square(model, x, y, draws(n), eps=eps, queries=queries, rows=rows)
    u = draws(n).unit(shape[0] * shape[2] + queries * (2 + shape[0])).tolist()
    if lead == 0:
        assert 0 < found.fooled.sum() < n
    for i in range(n):
        image, fooled, calls = naive_square(model, x[i], int(y[i]), eps, queries, u[i])
        assert (bool(found.fooled[i]), int(found.forward[i])) == (fooled, calls)
        torch.testing.assert_close(found.x_adv[i], image, rtol=0, atol=1e-7)
    assert not found.backward.any()


# --- steps judged ahead -----------------------------------------------------------------------------------------------


@torch.no_grad()
def one_after_another(
    model: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, key: ExampleDraws, eps: float, norm: str, queries: int
) -> Outcome:
    """Every step of every example in a call of its own: the images accepted, in the end."""
    painter = PAINTERS[norm](x, key, eps)
    starts, images, fooled, asked = painter.start(), [], [], []
    for i in range(len(x)):
        best, owner = starts[i : i + 1], torch.tensor([i])
        logits = model(painter.images(best))
        query, least = 0, float(margin(logits, y[i : i + 1]))
        while query < queries and int(logits.argmax()) == int(y[i]):
            attempt = painter.paint(best.clone(), owner, torch.tensor([query]))
            logits = model(painter.images(attempt))
            query += 1
            if float(margin(logits, y[i : i + 1])) > least or int(logits.argmax()) != int(y[i]):
                best, least = attempt, float(margin(logits, y[i : i + 1]))
        images.append(painter.images(best)), fooled.append(int(logits.argmax()) != int(y[i])), asked.append(query + 1)
    return Outcome(torch.cat(images), torch.tensor(fooled), torch.tensor(asked), torch.zeros(len(x)).long())


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.03), ("l2", 0.5), ("l1", 2.0)])
def test_steps_evaluated_ahead_equal_sequential_steps(norm: str, eps: float, seed: int) -> None:
    """Bit for bit for any number of rows per call, past two halvings, for fallen and standing examples."""
    model, x = steady(Net(192, 0.2, seed=seed)), images(9, 3, 8, 8, seed)
    y = model(x).argmax(1)
    keys = [example_draws(seed, "square", range(9)) for _ in range(5)]
    expected = one_after_another(model, x, y, keys[0], eps, norm, 120)
    assert 0 < expected.fooled.sum() < 9
    for rows, key in zip((None, 9, 50, 400), keys[1:], strict=True):
        found = square(model, x, y, key, eps=eps, norm=norm, queries=120, rows=rows)
        assert torch.equal(found.x_adv, expected.x_adv), rows
        assert torch.equal(found.fooled, expected.fooled) and torch.equal(found.forward, expected.forward)


def test_rejections_let_it_evaluate_more_steps_ahead() -> None:
    """No image falls and few late steps are accepted, so calls are full and fewer than steps."""
    x, y = images(4, 3, 8, 8), torch.zeros(4, dtype=torch.int64)
    seen = Seen(Net(192, 9.0))
    found = square(seen, x, y, draws(4), eps=0.03, queries=600, rows=66)
    sizes = [len(batch) for batch in seen.batches]
    assert found.forward.tolist() == [601] * 4 and sizes[:2] == [4, 4]
    assert max(sizes) <= 66 and sizes[-1] >= 4 and len(sizes) < 300
    assert sum(sizes) < 1.2 * int(found.forward.sum()), "about one row in ten is in vain"


@given(seed=st.integers(0, 200), eps=st.floats(0.001, 0.3), height=st.integers(1, 9), width=st.integers(1, 9))
@settings(deadline=None, max_examples=25)
def test_every_iterate_is_on_the_boundary_of_the_ball(seed: int, eps: float, height: int, width: int) -> None:
    x = images(3, 2, height, width, seed)
    seen, y = Seen(Net(2 * height * width, 9.0)), torch.zeros(3, dtype=torch.int64)
    found = square(seen, x, y, draws(3), eps=eps, queries=60)
    assert not found.fooled.any() and len(seen.batches) == 61
    for image in [*seen.batches, found.x_adv]:
        lower, upper = (image - (x - eps).clamp(min=0)).abs(), (image - (x + eps).clamp(max=1)).abs()
        assert torch.minimum(lower, upper).max() <= 1e-7
        assert image.min() >= 0 and image.max() <= 1


def test_the_margin_only_rises_and_what_is_returned_is_the_best_seen() -> None:
    x, y, model = images(8, 3, 8, 8), torch.zeros(8, dtype=torch.int64), Net(192, 9.0)
    best = torch.full((8,), -torch.inf)
    for queries in (0, 1, 5, 64, 65, 200):
        seen = Seen(model)
        found = square(seen, x, y, draws(8), eps=0.05, queries=queries)
        assert found.forward.tolist() == [queries + 1] * 8 == [len(seen.batches)] * 8
        reached = margin(model(found.x_adv), y).detach()
        torch.testing.assert_close(reached, torch.stack([margin(model(each), y) for each in seen.batches]).amax(0))
        assert (reached >= best).all(), "more queries go on where fewer stopped"
        best = reached
    assert (best > margin(model(x), y)).all()


def test_a_square_that_does_not_raise_the_margin_is_rejected() -> None:
    x = images(3, 1, 5, 5)
    seen = Seen(lambda image: image.flatten(1)[:, :3] * 0 + torch.tensor([2.0, 1.0, 0.0]))
    found = square(seen, x, torch.zeros(3, dtype=torch.int64), draws(3), eps=0.1, queries=30)
    assert torch.equal(found.x_adv, seen.batches[0]) and not torch.equal(seen.batches[1], seen.batches[0])


def test_no_square_touches_the_last_row_or_column() -> None:
    """As in the reference, whose random integer is below its upper end; other pixels change, and both colours occur."""
    x = torch.full((20, 1, 8, 8), 0.5)
    seen, y = Seen(Net(64, 9.0)), torch.zeros(20, dtype=torch.int64)
    square(seen, x, y, draws(20), eps=0.05, queries=1500)
    changed = torch.stack([batch != seen.batches[0] for batch in seen.batches[1:]]).any(0).any(0)[0]
    assert not changed[-1].any() and not changed[:, -1].any() and changed[:-1, :-1].all()
    stripes = seen.batches[0][:, 0]
    assert (stripes == stripes[:, :1]).all(), "they are vertical"
    assert 60 < (stripes[:, 0] > 0.5).sum() < 100, "about half of 160"


@pytest.mark.parametrize("queries", [1, 40, 130])
def test_results_do_not_depend_on_order_or_batch(queries: int) -> None:
    model, x = steady(Net(108)), images(20, 3, 6, 6)
    y = model(x).argmax(1)
    whole = square(model, x, y, draws(20), eps=0.04, queries=queries)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    for rows in (order, torch.arange(4, 9), torch.tensor([17])):
        part = square(model, x[rows], y[rows], example_draws(5, "square", rows.tolist()), eps=0.04, queries=queries)
        assert torch.equal(part.fooled, whole.fooled[rows]) and torch.equal(part.forward, whole.forward[rows])
        assert torch.equal(part.x_adv, whole.x_adv[rows])
    assert 0 < whole.fooled.sum() < 20


def test_verdicts_are_correct_and_queries_are_counted() -> None:
    model, x = Net(144), images(30, 3, 4, 12)
    y = model(x).argmax(1)
    y[::6] = (y[::6] + 1) % 4
    seen = Seen(model)
    found = square(seen, x, y, draws(30), eps=0.05, queries=200)
    assert torch.equal(model(found.x_adv).argmax(1) != y, found.fooled) and 5 < found.fooled.sum() < 30
    in_vain = sum(len(batch) for batch in seen.batches) - int(found.forward.sum())
    assert 0 <= in_vain < 0.1 * int(found.forward.sum())
    assert (found.forward[~found.fooled] == 201).all() and (found.x_adv - x).abs().max() <= 0.05 + 1e-6


def test_pyramids_by_hand() -> None:
    """Source: eq. (4) of the paper: 1 / (k + 1)^2 on ever larger rectangles around the middle, one up and one down."""
    third = pyramids(3, torch.zeros(1))  # one row up, two rows down
    up, down = [0.25, 1.25, 0.25], [[0.25, 0.25, 0.25], [0.25, 1.25, 0.25]]
    expected = torch.cat(
        [torch.tensor([up]) / torch.tensor(up).norm(), -torch.tensor(down) / torch.tensor(down).norm()]
    )
    torch.testing.assert_close(third, expected / expected.norm())
    for s in (1, 2, 5, 12, 31):
        assert float(pyramids(s, torch.zeros(1)).norm()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 8, 8), (3, 9, 14), (2, 4, 4)])
def test_in_l2_every_image_is_in_the_ball_and_the_margin_only_rises(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), 5)).double()
    x = 0.4 + 0.2 * torch.rand(6, *shape, dtype=torch.float64)
    y = model(x).argmax(1)
    seen: list[Tensor] = []

    def watched(z: Tensor) -> Tensor:
        seen.append(z.clone())
        return model(z) + 1000 * nn.functional.one_hot(y, 5)  # nobody falls

    eps = 0.3
    found = square(watched, x, y, example_draws(0, "square", range(6)), eps=eps, norm="l2", queries=60)
    lengths = torch.stack([(z - x).flatten(1).norm(dim=1) for z in seen])
    assert lengths.max() <= eps + 1e-6 and lengths.min() > 0.9 * eps, "away from the box the length is eps"
    assert all(z.min() >= 0 and z.max() <= 1 for z in seen) and found.forward.tolist() == [61] * 6
    margins = torch.stack([margin(watched(z), y) for z in seen[:]])
    torch.testing.assert_close(
        margin(watched(found.x_adv), y), margins[:61].amax(0).to(torch.float32), check_dtype=False
    )


def test_in_l2_results_do_not_depend_on_the_batch() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 4)).double()
    x = torch.rand(8, 3, 8, 8, dtype=torch.float64)
    y = model(x).argmax(1)
    index = list(range(8))
    whole = square(model, x, y, example_draws(3, "square", index), eps=0.4, norm="l2", queries=40)
    assert 0 < int(whole.fooled.sum()) < 8
    part = square(model, x[3:5], y[3:5], example_draws(3, "square", index[3:5]), eps=0.4, norm="l2", queries=40)
    assert torch.equal(part.fooled, whole.fooled[3:5]) and torch.equal(part.forward, whole.forward[3:5])
    torch.testing.assert_close(part.x_adv, whole.x_adv[3:5])
