"""What Square paints: squares of a bound's colour for Linf, pyramids moved about for L2."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from bsk.perturb.ball import ball_around, length, per_image
from bsk.perturb.draws import ExampleDraws

P_INIT = 0.8  # share of the pixels that the first squares cover
HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # queries after which that share is halved
AHEAD = 64  # queries whose random numbers are drawn at once
TINY = 1e-12


def side(query: int, height: int, width: int) -> int:
    """Return the side in pixels of the square of the query-th step, counted from 0.

    Source: Andriushchenko et al. (2020), section 5.1, in the reference's form: not rescaled to the budget.
    """
    share = P_INIT / 2 ** sum(query > each for each in HALVINGS)
    return min(max(round(math.sqrt(share * height * width)), 1), height, width)


class Painter(Protocol):
    """Holds the best image so far of each example, and changes squares of it."""

    def images(self) -> Tensor:
        """Return the images (N, C, H, W) as they are painted now."""

    def paint(self, query: int, queries: int) -> None:
        """Change each image for the query-th step of `queries`."""

    def take_back(self, better: Tensor) -> None:
        """Undo the last change of all images but those of the mask (N,)."""

    def keep(self, rows: Tensor) -> None:
        """Keep some examples."""


class Stripes:
    """Linf: images are at a bound of the ball everywhere; first vertical stripes, then squares of either bound.

    Images are rows of pixels, (N, H * W * C), so that a square is an index into a row; bounds (N, 2, D) has the
    ball's lower and upper bound. To paint a bound is what adding +-2 eps and projecting gives.
    """

    def __init__(self, x: Tensor, draws: ExampleDraws, eps: float) -> None:
        """Paint the stripes."""
        self.shape, self.random = x.shape[1:], Ahead(draws, 2 + x.shape[1])
        channels, height, width = self.shape
        self.bounds = torch.stack([each.permute(0, 2, 3, 1).flatten(1) for each in ball_around(x, eps)], dim=1)
        stripes = draws.unit(width * channels).repeat(1, height) >= 0.5
        self.best = torch.where(stripes, self.bounds[:, 1], self.bounds[:, 0])
        self.index = self.painted = self.before = self.best

    def images(self) -> Tensor:
        """Return the rows of pixels as images."""
        channels, height, width = self.shape
        return self.best.view(-1, height, width, channels).permute(0, 3, 1, 2)

    def paint(self, query: int, queries: int) -> None:
        """Paint a square, its colour one of the two bounds a channel."""
        channels, height, width = self.shape
        top, left, *colours = self.random.numbers(query, queries)
        s = side(query, height, width)
        corner = _place(top, height - s) * width + _place(left, width - s)
        self.index = (corner[:, None] * channels + self._square(s)).contiguous()
        upper = (torch.stack(colours, dim=1) >= 0.5).long().repeat(1, s * s)
        painted = self.bounds.flatten(1).gather(1, upper * self.best.shape[1] + self.index)
        self.painted, self.before = painted, self.best.gather(1, self.index)
        self.best.scatter_(1, self.index, painted)

    def _square(self, s: int) -> Tensor:
        """Return the places of a square's values, from its corner's on: (s * s * C,)."""
        channels, _, width = self.shape
        line = torch.arange(s * channels, device=self.best.device)
        return (torch.arange(s, device=self.best.device)[:, None] * (width * channels) + line).view(-1)

    def take_back(self, better: Tensor) -> None:
        """Put the values of the square back."""
        self.best.scatter_(1, self.index, torch.where(better[:, None], self.painted, self.before))

    def keep(self, rows: Tensor) -> None:
        """Keep some examples."""
        self.bounds, self.best = self.bounds[rows], self.best[rows]
        self.random.keep(rows)


class Pyramids:
    """L2: the perturbation always has the length eps; a step moves what two squares hold into one of them.

    Source: algorithm 3 and section 3.4 of the paper.
    """

    def __init__(self, x: Tensor, draws: ExampleDraws, eps: float) -> None:
        """Lay out a grid of 5 x 5 pyramids of random sign."""
        self.x, self.eps, self.random = x, eps, Ahead(draws, 5 + x.shape[1])
        channels, height, width = x.shape[1:]
        s = max(height // 5, 1)
        first, rows, columns = max((height - 5 * s) // 2, 0), height // s, width // s
        numbers = draws.unit(1 + rows * columns * channels)
        signs = _sign(numbers[:, 1:]).view(len(x), channels, rows, columns)
        tiles = signs[..., None, None] * _turned(pyramids(s, x), numbers[:, 0])[:, None, None, None]
        grid = tiles.permute(0, 1, 2, 4, 3, 5).reshape(len(x), channels, rows * s, columns * s)
        start = torch.zeros_like(x)
        place = start[:, :, first : first + rows * s, first : first + columns * s]
        place.copy_(grid[:, :, : place.shape[2], : place.shape[3]])
        self.best = self._scaled(start)
        self.before = self.best

    def _scaled(self, delta: Tensor) -> Tensor:
        """Return x + eps delta / |delta|, clipped to [0, 1]."""
        return torch.addcmul(self.x, delta, per_image(self.eps / (length(delta, "l2") + TINY), delta)).clamp_(0, 1)

    def images(self) -> Tensor:
        """Return the images."""
        return self.best

    def paint(self, query: int, queries: int) -> None:
        """Move the perturbation of two squares into the first, in its direction plus a pyramid's."""
        channels, height, width = self.x.shape[1:]
        s = min(max(side(query, height, width), 3) | 1, height, width)  # odd
        top, left, top2, left2, turn, *colours = self.random.numbers(query, queries)
        delta = self.best - self.x
        first = _window(_place(top, height - s), _place(left, width - s), s, height, width)
        second = _window(_place(top2, height - s), _place(left2, width - s), s, height, width)
        held = (delta**2 * (first | second)).sum(dim=(2, 3), keepdim=True)
        free = (self.eps**2 - length(delta, "l2") ** 2).clamp(min=0)
        inside = delta * first
        bump = torch.zeros_like(delta)
        where = first.expand_as(delta)
        shape = _turned(pyramids(s, self.x), turn)[:, None] * _sign(torch.stack(colours, dim=1))[..., None, None]
        bump[where] = shape.flatten()  # row by row, as the window's places come
        aim = bump + inside / (_norm(inside) + TINY)
        moved = aim / (_norm(aim) + TINY) * (per_image(free, delta) / channels + held).sqrt()
        self.before = self.best
        self.best = self._scaled(torch.where(first, moved, torch.where(second, 0.0, delta)))

    def take_back(self, better: Tensor) -> None:
        """Put the images back."""
        self.best = torch.where(per_image(better, self.best), self.best, self.before)

    def keep(self, rows: Tensor) -> None:
        """Keep some examples."""
        self.x, self.best = self.x[rows], self.best[rows]
        self.random.keep(rows)


def pyramids(s: int, like: Tensor) -> Tensor:
    """Return two flat pyramids, one up and one down, that fill an s x s square, of length 1 together: (s, s).

    A pyramid is highest in its middle and falls with the larger of the two distances from it: at the distance k
    it is 1 / (k + 1)^2 and what the steps beyond k add.
    Source: section 3.4, eq. (4), of the paper.
    """

    def one(height: int, width: int) -> Tensor:
        steps = max(height, width) // 2 + 1
        rows, columns = (torch.arange(n, device=like.device) for n in (height, width))
        far = torch.maximum((rows - height // 2).abs()[:, None], (columns - width // 2).abs()[None])
        terms = 1.0 / torch.arange(1, steps + 1, device=like.device, dtype=like.dtype) ** 2
        beyond = terms.flip(0).cumsum(0).flip(0)
        return torch.cat([beyond, beyond.new_zeros(1)])[far.clamp(max=steps)]

    up, down = one(s // 2, s), one(s - s // 2, s)
    both = torch.cat([_unit(up), -_unit(down)])
    return _unit(both)


def _unit(square: Tensor) -> Tensor:
    unit: Tensor = square / torch.linalg.vector_norm(square).clamp(min=TINY)
    return unit


def _turned(square: Tensor, number: Tensor) -> Tensor:
    """Return (N, s, s): the square, or turned by a right angle where the number is above one half."""
    return torch.where((number > 0.5)[:, None, None], square.T, square)


def _window(top: Tensor, left: Tensor, s: int, height: int, width: int) -> Tensor:
    """Return where the squares at (N,) corners are, (N, 1, H, W)."""
    rows, columns = (torch.arange(n, device=top.device) for n in (height, width))
    down = (rows >= top[:, None]) & (rows < top[:, None] + s)
    across = (columns >= left[:, None]) & (columns < left[:, None] + s)
    return (down[:, :, None] & across[:, None, :])[:, None]


def _norm(delta: Tensor) -> Tensor:
    return delta.square().sum(dim=(2, 3), keepdim=True).sqrt()


def _sign(numbers: Tensor) -> Tensor:
    return (numbers >= 0.5) * 2.0 - 1.0


def _place(number: Tensor, room: int) -> Tensor:
    """Return a row or column from U[0, 1): as in the reference never the last one there is room for."""
    return (number * room).long()


class Ahead:
    """Random numbers a step, drawn for AHEAD steps at once."""

    def __init__(self, draws: ExampleDraws, count: int) -> None:
        """Take the streams, and how many numbers a step needs."""
        self.draws, self.count = draws, count
        self.table = torch.empty(0)

    def numbers(self, query: int, queries: int) -> list[Tensor]:
        """Return the numbers of a step, each (N,) in [0, 1)."""
        if query % AHEAD == 0:
            ahead = min(AHEAD, queries - query)
            self.table = self.draws.unit(ahead * self.count).view(-1, ahead, self.count)
        return list(self.table[:, query % AHEAD].unbind(1))

    def keep(self, rows: Tensor) -> None:
        """Keep some examples."""
        self.draws, self.table = self.draws.keep(rows), self.table[rows] if len(self.table) else self.table
