"""RayS: the distance to the boundary along rays to corners of the Linf ball; it sees decisions only."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bsk.attacks.outcome import Outcome
from bsk.perturb.ascent import Model
from bsk.perturb.ball import length, per_image
from bsk.perturb.draws import ExampleDraws

TOLERANCE = 1e-3  # of the search along a ray, in L2: divided by the square root of the dimension it is one of Linf


def rays(
    model: Model,
    x: Tensor,
    y: Tensor,
    draws: ExampleDraws,
    *,
    eps: float,
    rows: int = 128,
    queries: int = 10_000,
    stop_at_eps: bool = False,
) -> Outcome:
    """Find the nearest misclassified image of x (N, C, H, W) along rays x + r * sign, sign in {-1, 1}^(C H W).

    Signs start at +1 and are flipped in ever smaller blocks; a flip stays where the boundary comes nearer. An
    example stops when it has asked `queries` times (the last search along a ray is ended), or, with `stop_at_eps`, as
    soon as its distance is at most eps. `distance` is the Linf distance of the nearest misclassified image, infinite
    where none was found (the reference then takes that of the white image). Nothing is drawn.

    A model call asks the next question of every example, wherever in its search each is. Most flips bring nothing
    nearer, and then the next is tried from the same signs: where a call has room up to `rows`, an example asks
    about its next flips too. The first that counts counts; the answers after it are thrown away and were not queries.

    Source: Chen & Gu (2020), algorithms 1 to 3, in the form of their code.
    """
    search = _Search(model, x, y, queries)
    while len(search.owner):
        nearer = search.ask(max(1, rows // len(search.owner)))
        search.leave(nearer, eps if stop_at_eps else None)
    fooled = search.distance <= eps
    x_adv = torch.where(per_image(fooled, x), search.nearest, x)
    return Outcome(x_adv, fooled, search.asked, torch.zeros_like(search.asked), search.distance)


class _Search:
    """The examples still searching, as rows of values (N, C * H * W); `nearest`, `distance`, `asked` are of all.

    Of each example: the best `sign`, and `radius` where its ray is fooled; `flips` tried and ended, `count` of queries.
    The next question is about the next flip `at` some radius: today's, or, if it was fooled there, one amid the way
    from `low`, where it is not, to `high`, where it is; then it is `halving`.
    """

    def __init__(self, model: Model, x: Tensor, y: Tensor, queries: int) -> None:
        self.model, self.shape, self.queries = model, x.shape[1:], queries
        self.dimension = math.prod(self.shape)
        self.blocks = torch.tensor(_blocks(self.dimension, queries), device=x.device)
        self.nearest = torch.ones_like(x)
        self.distance = torch.full((len(x),), torch.inf, dtype=x.dtype, device=x.device)
        self.asked = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        self.owner, self.y, self.x = torch.arange(len(x), device=x.device), y, x.flatten(1)
        self.sign = torch.ones_like(self.x)
        self.radius = torch.full_like(self.x[:, 0], torch.inf)
        self.at, self.low, self.high = self.radius, torch.zeros_like(self.radius), self.radius
        self.halving = torch.zeros_like(self.owner, dtype=torch.bool)
        self.flips, self.count = torch.zeros_like(self.owner), torch.zeros_like(self.owner)

    def ask(self, most: int) -> Tensor:
        """Ask about up to `most` flips of each example, and decide what next; say which came nearer, (N,)."""
        wrong, passed = self._answers(most)
        self.flips += passed
        self.count += passed + wrong.logical_or(self.halving)
        self.low = torch.where(wrong, self.low, self.at)
        self.high = torch.where(wrong, self.at.clamp(max=1.0), self.high)
        searched = self.halving | wrong
        self.halving = searched & (self.high - self.low > TOLERANCE / math.sqrt(self.dimension))
        ended = searched > self.halving
        nearer = ended & (self.high < self.radius)
        if bool(nearer.any()):
            block, sign = self._block(self.flips[nearer]), self.sign[nearer]
            self.sign[nearer] = sign.scatter(1, block, -sign.gather(1, block))
            self.radius = torch.where(nearer, self.high, self.radius)
        self.flips += ended
        self.low = torch.where(self.halving, self.low, 0.0)
        self.at = torch.where(self.halving, (self.low + self.high) / 2, self.radius)
        return nearer

    def _answers(self, most: int) -> tuple[Tensor, Tensor]:
        """Return if an example is fooled by one of the flips it asks about, and how many flips before it fail, (N,).

        Amid a ray it asks about the one flip, which cannot fail any more.
        """
        asks = torch.where(self.halving, 1, (self.queries - self.count).clamp(max=most))
        row = torch.arange(len(asks), device=asks.device).repeat_interleave(asks)
        ahead = torch.arange(len(row), device=asks.device) - (asks.cumsum(0) - asks)[row]
        block, at = self._block(self.flips[row] + ahead), self.at[row, None]
        points = torch.addcmul(self.x, self.sign, self.at[:, None])[row]
        value, sign = (each.view(-1)[block + row[:, None] * self.dimension] for each in (self.x, self.sign))
        points.scatter_(1, block, torch.addcmul(value, sign, at, value=-1))
        with torch.no_grad():
            wrong = self.model(points.clamp_(0.0, 1.0).view(-1, *self.shape)).argmax(dim=1) != self.y[row]
        first = asks.scatter_reduce(0, row[wrong], ahead[wrong], "amin")
        return first < asks, torch.where(self.halving, 0, first)

    def _block(self, flips: Tensor) -> Tensor:
        """Return the places of the values that some flips, (K,), are of, (K, W); a short block has its last twice."""
        first, last = self.blocks[flips].unbind(dim=1)
        place = torch.arange(int((last - first).max()), device=first.device)
        return torch.minimum(first[:, None] + place, last[:, None] - 1)

    def leave(self, nearer: Tensor, eps: float | None) -> None:
        """Take out the examples that have used up their queries, none amid a ray, or are near enough."""
        gone = (self.count >= self.queries) & ~self.halving
        if eps is not None:
            self._settle(nearer)
            gone |= self.distance[self.owner] <= eps
        if bool(gone.any()):
            self._settle(gone & self.radius.isfinite())
            self.asked[self.owner[gone]] = self.count[gone]
            for name in ("owner", "y", "x", "sign", "radius", "at", "low", "high", "halving", "flips", "count"):
                setattr(self, name, getattr(self, name)[~gone])

    def _settle(self, rows: Tensor) -> None:
        """Note the images where the rays of some rows, (N,), become fooled, from above, and how far they are."""
        x = self.x[rows]
        points = torch.addcmul(x, self.sign[rows], self.radius[rows, None]).clamp_(0.0, 1.0)
        self.nearest[self.owner[rows]] = points.view(-1, *self.shape)
        self.distance[self.owner[rows]] = length(points - x, "linf")


def _blocks(dimension: int, count: int) -> list[tuple[int, int]]:
    """Return the first and one past the last place of the first `count` blocks: halves, quarters, and so on."""
    blocks: list[tuple[int, int]] = []
    level = 0
    while len(blocks) < count:
        size = math.ceil(dimension / 2**level)
        starts = range(0, dimension, size)[: 2**level]
        blocks += [(start, min(start + size, dimension)) for start in starts]
        level += 1
    return blocks[:count]
