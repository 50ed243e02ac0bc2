"""RayS: the distance to the decision boundary along rays to corners of the Linf ball, from predicted classes only."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bsk.attacks.outcome import Outcome
from bsk.perturb.ascent import Model
from bsk.perturb.ball import length, per_image
from bsk.perturb.draws import ExampleDraws

TOLERANCE = 1e-3  # of the binary search, in L2; divided by the square root of the dimension it holds in Linf


def rays(
    model: Model,
    x: Tensor,
    y: Tensor,
    draws: ExampleDraws,
    *,
    eps: float,
    queries: int = 10_000,
    stop_at_eps: bool = False,
) -> Outcome:
    """Find the nearest misclassified image of x (N, C, H, W) along rays x + r * sign, sign in {-1, 1}^(C H W).

    The signs start at +1 and are flipped in ever smaller blocks; a flip is kept if it brings the boundary nearer. An
    example stops after `queries` queries (once its current binary search is finished) or, with `stop_at_eps`, as soon
    as its distance is at most eps. `distance` is the Linf distance of the nearest misclassified image, or infinity if
    none was found (where the reference takes that of the white image). The attack is deterministic. A model call
    contains the next query of every example, whatever state its search is in.

    Source: Chen & Gu (2020), algorithms 1 to 3, in the form of their code.
    """
    search = _Search(model, x, y, queries)
    while len(search.owner):
        nearer = search.ask()
        search.leave(nearer, eps if stop_at_eps else None)
    fooled = search.distance <= eps
    x_adv = torch.where(per_image(fooled, x), search.nearest, x)
    return Outcome(x_adv, fooled, search.asked, torch.zeros_like(search.asked), search.distance)


class _Search:
    """The examples still being searched, as rows of values (N, C * H * W).

    `nearest`, `distance` and `asked` (queries made) cover all examples. Each remaining example has its best `sign`, the
    `radius` at which its ray crosses the boundary, and the number of `flips` tried. `count` is the number of queries
    each remaining example has made. The next query tests the next flip at radius `at`: first at the current radius; if
    the image is misclassified there, a binary search follows (`halving`) between `low`, which is classified correctly,
    and `high`, which is misclassified.
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
        self.flips, self.count = torch.zeros_like(self.owner), 0

    def ask(self) -> Tensor:
        """Query every example once, update its search, and return a mask (N,) of the rows that came nearer."""
        block = self._block()
        sign, at = self.sign.gather(1, block), self.at[:, None]
        points = torch.addcmul(self.x, self.sign, at)
        points.scatter_(1, block, torch.addcmul(self.x.gather(1, block), sign, at, value=-1))
        with torch.no_grad():
            wrong = self.model(points.clamp_(0.0, 1.0).view(-1, *self.shape)).argmax(dim=1) != self.y
        self.count += 1
        self.low = torch.where(wrong, self.low, self.at)
        self.high = torch.where(wrong, self.at.clamp(max=1.0), self.high)
        fooled = self.halving | wrong
        self.halving = fooled & (self.high - self.low > TOLERANCE / math.sqrt(self.dimension))
        nearer = (fooled > self.halving) & (self.high < self.radius)
        self.sign.scatter_(1, block, torch.where(nearer, -1.0, 1.0).to(sign)[:, None] * sign)
        self.radius = torch.where(nearer, self.high, self.radius)
        self.flips += ~self.halving
        self.low = torch.where(self.halving, self.low, 0.0)
        self.at = torch.where(self.halving, (self.low + self.high) / 2, self.radius)
        return nearer

    def _block(self) -> Tensor:
        """Return the indices of the values to flip next, (N, W); a short block repeats its last index."""
        first, last = self.blocks[self.flips].unbind(dim=1)
        place = torch.arange(int((last - first).max()), device=first.device)
        return torch.minimum(first[:, None] + place, last[:, None] - 1)

    def leave(self, nearer: Tensor, eps: float | None) -> None:
        """Remove the examples that have used up their queries (outside a binary search) or are near enough."""
        if self.count < self.queries and eps is None:
            return
        gone = ~self.halving if self.count >= self.queries else torch.zeros_like(self.halving)
        if eps is not None:
            self._settle(nearer)
            gone |= self.distance[self.owner] <= eps
        if bool(gone.any()):
            self._settle(gone & self.radius.isfinite())
            self.asked[self.owner[gone]] = self.count
            for name in ("owner", "y", "x", "sign", "radius", "at", "low", "high", "halving", "flips"):
                setattr(self, name, getattr(self, name)[~gone])

    def _settle(self, rows: Tensor) -> None:
        """Record, for the selected rows (N,), the image at which the ray becomes misclassified, and its distance."""
        x = self.x[rows]
        points = torch.addcmul(x, self.sign[rows], self.radius[rows, None]).clamp_(0.0, 1.0)
        self.nearest[self.owner[rows]] = points.view(-1, *self.shape)
        self.distance[self.owner[rows]] = length(points - x, "linf")


def _blocks(dimension: int, count: int) -> list[tuple[int, int]]:
    """Return the ranges (first, one past the last) of the first `count` blocks: the whole, halves, quarters, and so on.

    Once every value is its own block, that level is repeated, as in the authors' code: a flip that did not help before
    may help after other flips.
    """
    blocks: list[tuple[int, int]] = []
    level = 0
    while len(blocks) < count:
        parts = 1 << min(level, dimension.bit_length())  # more parts would not be smaller
        size = -(-dimension // parts)
        starts = range(0, dimension, size)[:parts]
        blocks += [(start, min(start + size, dimension)) for start in starts]
        level += 1
    return blocks[:count]
