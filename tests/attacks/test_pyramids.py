"""Square's updates in L2 and L1 against the paper's algorithm 3, computed pixel by pixel in Python floats."""

import math
from collections.abc import Iterable

import pytest
import torch
from torch import Tensor

from bsk.attacks.painters import Pyramids, Spikes, pyramids, side
from bsk.perturb.ball import L1
from bsk.perturb.draws import example_draws

EPS = 0.8
Canvas = list[list[list[float]]]  # of one image: channel, row, column


FALL = {2: 2, 1: 4}  # by the order of the norm


def long(values: Iterable[float], order: int) -> float:
    total: float = sum(abs(v) ** order for v in values) ** (1 / order)
    return total


def pyramid(height: int, width: int, order: int) -> list[list[float]]:
    """At the distance k from the middle, by the larger of both ways, 1/(k+1)^2 + 1/(k+2)^2 + ..., to the length 1.

    In L1 it is 1/(k+1)^4 and so on.
    """
    last = max(height, width) // 2 + 1
    far = [[max(abs(i - height // 2), abs(j - width // 2)) for j in range(width)] for i in range(height)]
    values = [[sum(1 / m ** FALL[order] for m in range(k + 1, last + 1)) for k in row] for row in far]
    length = long((v for row in values for v in row), order)
    return [[v / length for v in row] for row in values]


def both(s: int, order: int) -> list[list[float]]:
    """One up and one down, one above the other, of length 1 together."""
    up, down = pyramid(s // 2, s, order) if s > 1 else [], pyramid(s - s // 2, s, order)
    rows = [*up, *([-v for v in row] for row in down)]
    length = long((v for row in rows for v in row), order)
    return [[v / length for v in row] for row in rows]


def scaled(x: Canvas, delta: Canvas, order: int) -> Canvas:
    """To the length eps in L2; in L1 to the nearest image within it."""
    if order == 1:
        at, moved = (torch.tensor(each, dtype=torch.float64)[None] for each in (x, delta))
        nearest: Canvas = L1(at, EPS).project(at + moved)[0].tolist()
        return nearest
    length = math.sqrt(sum(v * v for plane in delta for row in plane for v in row))
    return [
        [
            [min(max(p + EPS * d / length, 0.0), 1.0) for p, d in zip(*rows, strict=True)]
            for rows in zip(*planes, strict=True)
        ]
        for planes in zip(x, delta, strict=True)
    ]


def naive_start(x: Canvas, numbers: list[float], order: int) -> Canvas:
    channels, height, width = len(x), len(x[0]), len(x[0][0])
    s = max(height // 5, 1)
    first, rows, columns = max((height - 5 * s) // 2, 0), height // s, width // s
    turned, signs, shape = numbers[0] > 0.5, iter(numbers[1:]), both(s, order)
    delta = [[[0.0] * width for _ in range(height)] for _ in range(channels)]
    for c in range(channels):
        for r in range(rows):
            for k in range(columns):
                sign = 1 if next(signs) >= 0.5 else -1
                for i in range(s):
                    for j in range(s):
                        at = first + r * s + i, first + k * s + j
                        if at[0] < height and at[1] < width:
                            delta[c][at[0]][at[1]] = sign * (shape[j][i] if turned else shape[i][j])
    return scaled(x, delta, order)


def naive_paint(x: Canvas, canvas: Canvas, query: int, numbers: list[float], order: int) -> Canvas:
    channels, height, width = len(x), len(x[0]), len(x[0][0])
    s = min(max(side(query, height, width), 3) | 1, height, width)
    top, top2 = (int(numbers[i] * (height - s)) for i in (0, 2))
    left, left2 = (int(numbers[i] * (width - s)) for i in (1, 3))
    turned, shape = numbers[4] > 0.5, both(s, order)
    delta = [
        [[q - p for p, q in zip(*rows, strict=True)] for rows in zip(*planes, strict=True)]
        for planes in zip(x, canvas, strict=True)
    ]
    free = max(EPS**order - sum(abs(v) ** order for plane in delta for row in plane for v in row), 0.0)
    one = {(top + i, left + j) for i in range(s) for j in range(s)}
    other = {(top2 + i, left2 + j) for i in range(s) for j in range(s)}
    for c, plane in enumerate(delta):
        held = sum(abs(plane[i][j]) ** order for i, j in one | other)
        inside = long((plane[i][j] for i, j in one), order)
        sign = 1 if numbers[5 + c] >= 0.5 else -1
        aim = {
            (i, j): sign * (shape[j - left][i - top] if turned else shape[i - top][j - left])
            + (plane[i][j] / inside if inside else 0.0)
            for i, j in one
        }
        length = long(aim.values(), order)
        worth = math.sqrt(free / channels + held) if order == 2 else (free / channels + held) * channels
        for i, j in other:
            plane[i][j] = 0.0
        for (i, j), v in aim.items():
            plane[i][j] = v / length * worth
    return scaled(x, delta, order)


@pytest.mark.parametrize("s", [1, 2, 3, 5, 8, 13])
@pytest.mark.parametrize("order", [1, 2])
def test_a_pyramid_is_the_sum_of_its_steps(s: int, order: int) -> None:
    found = pyramids(s, torch.zeros(1, dtype=torch.float64), order, FALL[order])
    torch.testing.assert_close(found, torch.tensor(both(s, order), dtype=torch.float64), rtol=0, atol=1e-12)


def images(*shape: int) -> Tensor:
    """Some pixels are black or white, many are not."""
    x = torch.rand(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return x.mul(1.2).sub(0.1).clamp(0, 1)


@pytest.mark.parametrize("shape", [(3, 12, 12), (1, 3, 4), (2, 6, 9), (1, 17, 11)])
@pytest.mark.parametrize("kind", [Pyramids, Spikes])
def test_canvases_are_painted_as_by_the_naive_loop(kind: type[Pyramids], shape: tuple[int, int, int]) -> None:
    n, channels = 8, shape[0]
    x, draws = images(n, *shape), example_draws(3, "square", range(n))
    painter, order = kind(x, draws, EPS), kind.order
    canvas = painter.start()
    used = draws.position
    s = max(shape[1] // 5, 1)
    assert used == 1 + channels * (shape[1] // s) * (shape[2] // s)
    numbers = example_draws(3, "square", range(n)).unit(used + 700 * (5 + channels)).tolist()
    expected = [naive_start(x[i].tolist(), numbers[i][:used], order) for i in range(n)]
    torch.testing.assert_close(canvas, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-9)
    for query in (0, 30, 60, 650):  # the side becomes smaller
        begin = used + query * (5 + channels)
        canvas = painter.paint(canvas.clone(), torch.arange(n), torch.full((n,), query))
        expected = [
            naive_paint(x[i].tolist(), expected[i], query, numbers[i][begin : begin + 5 + channels], order)
            for i in range(n)
        ]
        torch.testing.assert_close(
            canvas, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-7 if order == 2 else 1e-5
        )
    assert torch.equal(painter.images(canvas), canvas) and (canvas != x).any()


def test_canvases_of_different_steps_are_painted_at_once() -> None:
    x, owner, query = images(3, 1, 9, 9), torch.tensor([2, 0, 0]), torch.tensor([650, 0, 30])
    painter = Pyramids(x, example_draws(3, "square", range(3)), EPS)
    canvas = painter.start()[owner]
    found = painter.paint(canvas.clone(), owner, query)
    for i in range(3):
        alone = painter.paint(canvas[i : i + 1].clone(), owner[i : i + 1], query[i : i + 1])
        torch.testing.assert_close(found[i : i + 1], alone)
