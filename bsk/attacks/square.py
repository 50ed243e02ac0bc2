"""Square: random squares of colour, kept when the margin falls; it sees logits and no gradient."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bsk.attacks.outcome import Outcome, Tally
from bsk.perturb.ascent import Model
from bsk.perturb.ball import ball_around
from bsk.perturb.draws import ExampleDraws
from bsk.perturb.losses import margin

P_INIT = 0.8  # share of the pixels that the first squares cover
HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # queries after which that share is halved
AHEAD = 64  # queries whose random numbers are drawn at once


def side(query: int, height: int, width: int) -> int:
    """Return the side in pixels of the square of the query-th step, counted from 0.

    Source: Andriushchenko et al. (2020), section 5.1, in the reference's form: not rescaled to the budget.
    """
    share = P_INIT / 2 ** sum(query > each for each in HALVINGS)
    return min(max(round(math.sqrt(share * height * width)), 1), height, width)


def square(
    model: Model, x: Tensor, y: Tensor, draws: ExampleDraws, *, eps: float, norm: str = "linf", queries: int = 5000
) -> Outcome:
    """Attack images x (N, C, H, W) in [0, 1] with labels y (N,) by random search, `queries` steps at most.

    An example leaves as soon as it is misclassified. `norm` is linf.

    Source: Andriushchenko et al. (2020), algorithms 1 and 2; the constants of AutoAttack's standard version.
    Differs from the reference: every example has squares and colours of its own, not one for the whole batch.
    """
    search = _Search(model, x, y, draws, eps)
    for query in range(queries):
        if len(search.owner) == 0:
            break
        search.step(query, queries)
    search.tally.forward[search.owner] = search.calls
    search.tally.x_adv[search.owner] = search.images()
    return search.tally.outcome()


class _Search:
    """The examples still standing; images are rows of pixels, (N, H * W * C), so that a square is an index into one.

    bounds (N, 2, D) has the ball's lower and upper bound: a square's colour is one of the two a channel, and any
    image on the way is at a bound everywhere, which is what adding 2 eps and projecting gives.
    """

    def __init__(self, model: Model, x: Tensor, y: Tensor, draws: ExampleDraws, eps: float) -> None:
        self.model, self.draws, self.y, self.shape, self.tally = model, draws, y, x.shape[1:], Tally(x)
        channels, height, width = self.shape
        self.owner, self.calls = torch.arange(len(x), device=x.device), 0
        ball = ball_around(x, eps)
        self.bounds = torch.stack([each.permute(0, 2, 3, 1).flatten(1) for each in ball], dim=1)
        colours = draws.unit(width * channels) >= 0.5  # vertical stripes
        self.best = torch.where(colours.repeat(1, height), self.bounds[:, 1], self.bounds[:, 0])
        self.margin = torch.full_like(self.best[:, 0], -torch.inf)
        self.numbers = self.best
        self._leave(*self._judge())

    def images(self) -> Tensor:
        """Return the rows of pixels as images (N, C, H, W)."""
        channels, height, width = self.shape
        return self.best.view(-1, height, width, channels).permute(0, 3, 1, 2)

    def step(self, query: int, queries: int) -> None:
        """Paint a square on each image, and take it back where the margin did not rise."""
        channels, height, width = self.shape
        if query % AHEAD == 0:
            ahead = min(AHEAD, queries - query)
            self.numbers = self.draws.unit(ahead * (2 + channels)).view(len(self.y), ahead, 2 + channels)
        top, left, *_ = (numbers := self.numbers[:, query % AHEAD]).unbind(1)
        s = side(query, height, width)
        corner = (top * (height - s)).long() * width + (left * (width - s)).long()  # never the last row or column
        index = (corner[:, None] * channels + self._square(s, width, channels)).contiguous()
        colour = (numbers[:, 2:] >= 0.5).long().repeat(1, s * s) * self.best.shape[1]
        before = self.best.gather(1, index)
        painted = self.bounds.flatten(1).gather(1, colour + index)
        self.best.scatter_(1, index, painted)
        margins, wrong = self._judge()
        better = (margins > self.margin) | wrong
        self.best.scatter_(1, index, torch.where(better[:, None], painted, before))
        self._leave(torch.where(better, margins, self.margin), wrong)

    def _square(self, s: int, width: int, channels: int) -> Tensor:
        """Return the places of a square's values from its corner's on: (s * s * C,)."""
        line = torch.arange(s * channels, device=self.best.device)
        return (torch.arange(s, device=self.best.device)[:, None] * (width * channels) + line).view(-1)

    def _judge(self) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            logits = self.model(self.images())
        self.calls += 1
        return margin(logits, self.y), logits.argmax(dim=1) != self.y

    def _leave(self, margins: Tensor, wrong: Tensor) -> None:
        self.margin = margins
        if not bool(wrong.any()):
            return
        self.tally.forward[self.owner[wrong]] = self.calls
        stays = self.tally.leave(self.owner, self.images(), wrong)
        assert stays is not None
        self.owner, self.y, self.margin = self.owner[stays], self.y[stays], margins[stays]
        self.bounds, self.best, self.numbers = self.bounds[stays], self.best[stays], self.numbers[stays]
        self.draws = self.draws.keep(stays)
