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
    queries: int = 10_000,
    stop_at_eps: bool = False,
) -> Outcome:
    """Find the nearest misclassified image of x (N, C, H, W) along rays x + r * sign, sign in {-1, 1}^(C H W).

    Signs start at +1 and are flipped in ever smaller blocks; a flip stays where the boundary comes nearer. An
    example stops when it has asked `queries` times (the last search along a ray is ended), or, with `stop_at_eps`, as
    soon as its distance is at most eps. `distance` is the Linf distance of the nearest misclassified image, infinite
    where none was found (the reference then takes that of the white image). Nothing is drawn. A model call asks the
    next question of every example, wherever in its search each is.

    Source: Chen & Gu (2020), algorithms 1 to 3, in the form of their code.
    """
    search = _Search(model, x, y, queries)
    while len(search.owner):
        search.ask()
        search.leave(eps if stop_at_eps else None)
    fooled = search.distance <= eps
    x_adv = torch.where(per_image(fooled, x), search.nearest, x)
    return Outcome(x_adv, fooled, search.asked, torch.zeros_like(search.asked), search.distance)


class _Search:
    """The examples still searching, as rows of values (N, C * H * W); `nearest`, `distance`, `asked` are of all.

    Of each example: `sign` with the next flip tried, `radius` where the best signs so far are fooled, `flips` tried
    and ended, `count` of questions, and, where it is `halving` the way along its ray, between which radii it is.
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
        self.low, self.high = torch.zeros_like(self.radius), self.radius
        self.halving = torch.zeros_like(self.owner, dtype=torch.bool)
        self.flips, self.count = torch.zeros_like(self.owner), torch.zeros_like(self.owner)
        self._flip(~self.halving)

    def ask(self) -> None:
        """Ask if a ray is fooled at today's radius, or, where it was, at the middle of the way; go on from there."""
        middle = (self.low + self.high) / 2
        points = _point(self.x, self.sign, torch.where(self.halving, middle, self.radius))
        with torch.no_grad():
            wrong = self.model(points.view(-1, *self.shape)).argmax(dim=1) != self.y
        self.count += 1
        self.low = torch.where(self.halving, torch.where(wrong, self.low, middle), 0.0)
        self.high = torch.where(self.halving, torch.where(wrong, middle, self.high), self.radius.clamp(max=1.0))
        wide = self.high - self.low > TOLERANCE / math.sqrt(self.dimension)
        found = (self.halving | wrong) & ~wide
        self.halving = (self.halving | wrong) & wide
        self._end(~self.halving, found & (self.high < self.radius))

    def _end(self, ended: Tensor, nearer: Tensor) -> None:
        """Keep the flips that brought the boundary nearer, flip back the others that ended, (N,), and try the next."""
        self._flip(ended & ~nearer)
        at = nearer.nonzero().squeeze(1)
        self.radius[at] = self.high[at]
        points = _point(self.x[at], self.sign[at], self.radius[at])
        self.nearest[self.owner[at]] = points.view(-1, *self.shape)
        self.distance[self.owner[at]] = length(points - self.x[at], "linf")
        self.flips += ended
        self._flip(ended & (self.count < self.queries))

    def _flip(self, rows: Tensor) -> None:
        """Flip the signs of the block that is tried now, of rows (N,)."""
        at = rows.nonzero()
        first, last = self.blocks[self.flips[at]].unbind(dim=2)
        if len(at):
            place = torch.arange(int((last - first).max()), device=at.device)
            index = at * self.dimension + torch.minimum(first + place, last - 1)  # a short block has its last twice
            self.sign.view(-1)[index] = -self.sign.view(-1)[index]

    def leave(self, eps: float | None) -> None:
        """Take out the examples that have used up their queries, or are near enough; none amid a ray."""
        stays = (self.count < self.queries) | self.halving
        if eps is not None:
            stays &= self.distance[self.owner] > eps
        self.asked[self.owner] = self.count
        if not bool(stays.all()):
            for name in ("owner", "y", "x", "sign", "radius", "low", "high", "halving", "flips", "count"):
                setattr(self, name, getattr(self, name)[stays])


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


def _point(x: Tensor, sign: Tensor, radius: Tensor) -> Tensor:
    return torch.addcmul(x, sign, radius[:, None]).clamp_(0.0, 1.0)
