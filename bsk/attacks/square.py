"""Square: random squares of colour, kept when the margin falls; it sees logits and no gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from bsk.attacks.outcome import Outcome
from bsk.attacks.painters import PAINTERS, Pyramids, Stripes
from bsk.attacks.search import misclassified
from bsk.perturb.ascent import Model
from bsk.perturb.draws import ExampleDraws
from bsk.perturb.losses import margin

VOID = 0.1  # share of the proposals judged ahead that may be in vain
MEMORY = 0.9  # a call ago counts so much less for how often proposals are accepted


def square(
    model: Model,
    x: Tensor,
    y: Tensor,
    draws: ExampleDraws,
    *,
    eps: float,
    norm: str = "linf",
    queries: int = 5000,
    rows: int | None = None,
) -> Outcome:
    """Attack images x (N, C, H, W) in [0, 1] with labels y (N,) by random search, `queries` steps at most.

    An example leaves as soon as it is misclassified. What a step proposes depends on its number and on the best image
    so far, and most proposals are rejected. So several steps of an example are judged in one model call of up to
    `rows` rows (N unless given), all from today's best image; the first that is accepted counts, and those after it are
    proposed anew from there. The images are those of one step after another; `forward` counts the steps up to
    the last that counts, not the rows in vain.

    Source: Andriushchenko et al. (2020), algorithms 1 to 3; the constants of AutoAttack's standard version.
    Differs from the reference: every example has squares and colours of its own, not one for the whole batch.
    """
    search = _Search(model, x, y, PAINTERS[norm](x, draws, eps), queries)
    pace = _Pace(rows or len(x))
    while len(search.owner):
        pace.saw(*search.go_on(pace.steps(len(search.owner))))
    return search.tally


class _Search:
    """The examples still searching: `best` canvases and `margins`, and how many steps of each are `done`."""

    def __init__(self, model: Model, x: Tensor, y: Tensor, painter: Stripes | Pyramids, queries: int) -> None:
        self.model, self.y, self.painter, self.queries = model, y, painter, queries
        self.tally, self.best = Outcome.begin(x), painter.start()
        self.owner = torch.arange(len(x), device=x.device)
        self.done = torch.zeros_like(self.owner)
        self.margins, wrong = self._judge(self.best, self.owner)
        self._leave(wrong)

    def go_on(self, steps: int) -> tuple[int, int]:
        """Judge so many next steps of each example; return how many were accepted, and how many count."""
        owner, to_beat = (each.repeat_interleave(steps) for each in (self.owner, self.margins))
        query = (self.done[:, None] + torch.arange(steps, device=owner.device)).flatten()
        canvas = self.painter.paint(self.best.repeat_interleave(steps, dim=0), owner, query)
        margins, wrong = self._judge(canvas, owner)
        better = (((margins > to_beat) | wrong) & (query < self.queries)).view(-1, steps)
        accepted, first = better.any(dim=1), better.int().argmax(dim=1)
        done = torch.where(accepted, self.done + first + 1, (self.done + steps).clamp(max=self.queries))
        counted, self.done = int((done - self.done).sum()), done
        at = accepted.nonzero().squeeze(1)
        chosen = at * steps + first[at]
        self.best[at], self.margins[at] = canvas[chosen], margins[chosen]
        fallen = torch.zeros_like(accepted)
        fallen[at] = wrong[chosen]
        self._leave(fallen)
        return len(at), counted

    def _judge(self, canvas: Tensor, owner: Tensor) -> tuple[Tensor, Tensor]:
        """Return the margins of canvases, and which are misclassified, (R,)."""
        x, y = self.painter.images(canvas), self.y[owner]
        with torch.no_grad():
            logits = self.model(x)
        return margin(logits, y), misclassified(self.model, self.tally, owner, x, logits, y)

    def _leave(self, fallen: Tensor) -> None:
        """Take out the examples that have fallen, (N,), or have made all steps."""
        ended = fallen | (self.done >= self.queries)
        if not bool(ended.any()):
            return
        gone, tally, stays = self.owner[ended], self.tally, ~ended
        tally.x_adv[gone], tally.fooled[gone] = self.painter.images(self.best[ended]), fallen[ended]
        tally.forward[gone] += self.done[ended] + 1
        self.owner, self.best, self.margins, self.done = (
            each[stays] for each in (self.owner, self.best, self.margins, self.done)
        )


class _Pace:
    """How many steps ahead are judged: as many as a call has room for, unless too many would be in vain."""

    def __init__(self, rows: int) -> None:
        self.rows, self.accepted, self.counted = rows, 1.0, 1.0

    def steps(self, n: int) -> int:
        """Return how many of each of n examples; of K steps (K - 1) / 2 times the accepted share are in vain."""
        return max(1, min(self.rows // n, 1 + int(2 * VOID * self.counted / self.accepted)))

    def saw(self, accepted: int, counted: int) -> None:
        """Learn from a call."""
        self.accepted = MEMORY * self.accepted + accepted
        self.counted = MEMORY * self.counted + counted
