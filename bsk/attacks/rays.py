"""RayS: the distance to the boundary along rays to corners of the Linf ball; it sees decisions only."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bsk.attacks.outcome import Outcome
from bsk.perturb.ascent import Model
from bsk.perturb.ball import length
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
    where none was found (the reference then takes that of the white image). Nothing is drawn.

    Source: Chen & Gu (2020), algorithms 1 to 3, in the form of their code.
    """
    search = _Search(model, x, y, queries)
    level, block = 0, 0
    while len(search.owner):
        size = math.ceil(search.dimension / 2**level)
        search.flip(slice(block * size, min((block + 1) * size, search.dimension)))
        search.leave(eps if stop_at_eps else None)
        block += 1
        if block == 2**level or block * size >= search.dimension:
            level, block = level + 1, 0
    fooled = search.distance <= eps
    x_adv = torch.where(fooled.view(-1, *[1] * (x.dim() - 1)), search.nearest, x)
    return Outcome(x_adv, fooled, search.asked, torch.zeros_like(search.asked), search.distance)


class _Search:
    """The examples still searching, as rows of values (N, C * H * W); `nearest`, `distance`, `asked` are of all."""

    def __init__(self, model: Model, x: Tensor, y: Tensor, queries: int) -> None:
        self.model, self.shape, self.queries = model, x.shape[1:], queries
        self.dimension = math.prod(self.shape)
        self.nearest = torch.ones_like(x)
        self.distance = torch.full((len(x),), torch.inf, dtype=x.dtype, device=x.device)
        self.asked = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        self.owner, self.y, self.x = torch.arange(len(x), device=x.device), y, x.flatten(1)
        self.sign = torch.ones_like(self.x)
        self.radius = torch.full_like(self.x[:, 0], torch.inf)
        self.count = torch.zeros_like(self.asked)

    def flip(self, block: slice) -> None:
        """Flip the signs of a block, search along the rays fooled at today's radius, flip back what is no nearer."""
        self.sign[:, block].neg_()
        hit = self._wrong(self.x, self.sign, self.radius, self.y)
        self.count += 1
        nearer, rows = torch.zeros_like(hit), hit.nonzero().squeeze(1)
        if len(rows):
            found = self._bisect(rows)
            nearer[rows] = found < self.radius[rows]
            self.radius[rows] = torch.minimum(found, self.radius[rows])
        self.sign[:, block] *= torch.where(nearer, 1.0, -1.0)[:, None]
        at = nearer.nonzero().squeeze(1)
        if len(at):
            points = _point(self.x[at], self.sign[at], self.radius[at])
            self.nearest[self.owner[at]] = points.view(-1, *self.shape)
            self.distance[self.owner[at]] = length(points - self.x[at], "linf")

    def _bisect(self, rows: Tensor) -> Tensor:
        """Return the radius at which the rays of some rows become fooled, to the tolerance, from above: (K,)."""
        x, sign, y = self.x[rows], self.sign[rows], self.y[rows]
        low, high = torch.zeros_like(self.radius[rows]), self.radius[rows].clamp(max=1.0)
        result, active = high.clone(), torch.arange(len(rows), device=rows.device)
        while True:
            wide = high - low > TOLERANCE / math.sqrt(self.dimension)
            if not bool(wide.all()):
                result[active] = high
                x, sign, y, low, high, active = (each[wide] for each in (x, sign, y, low, high, active))
                if len(active) == 0:
                    return result
            middle = (low + high) / 2
            wrong = self._wrong(x, sign, middle, y)
            self.count[rows[active]] += 1
            low, high = torch.where(wrong, low, middle), torch.where(wrong, middle, high)

    def _wrong(self, x: Tensor, sign: Tensor, radius: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            return self.model(_point(x, sign, radius).view(-1, *self.shape)).argmax(dim=1) != y

    def leave(self, eps: float | None) -> None:
        """Take out the examples that have used up their queries, or are near enough."""
        stays = self.count < self.queries
        if eps is not None:
            stays &= self.distance[self.owner] > eps
        self.asked[self.owner] = self.count
        if not bool(stays.all()):
            self.owner, self.y, self.x, self.sign, self.radius, self.count = (
                each[stays] for each in (self.owner, self.y, self.x, self.sign, self.radius, self.count)
            )


def _point(x: Tensor, sign: Tensor, radius: Tensor) -> Tensor:
    return torch.addcmul(x, sign, radius[:, None]).clamp_(0.0, 1.0)
