"""Square: a random search with coloured squares, accepted if the margin increases; it uses logits but no gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from bsk.attacks.outcome import Outcome
from bsk.attacks.painters import PAINTERS, Pyramids, Stripes
from bsk.attacks.search import misclassified
from bsk.perturb.ascent import Model
from bsk.perturb.draws import ExampleDraws
from bsk.perturb.losses import margin

WASTED = 0.1  # fraction of the proposals evaluated ahead that may be wasted
DECAY = 0.9  # decay factor per call of the estimated acceptance rate


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
    """Attack images x (N, C, H, W) in [0, 1] with labels y (N,) by random search with at most `queries` steps.

    An example leaves as soon as it is misclassified. The proposal of a step depends only on its number and on the best
    image so far, and most proposals are rejected. So several steps of an example are evaluated in one model call of up
    to `rows` rows (N by default), all from the current best image; the first accepted one counts, and those after it
    are proposed again from there. The images are the same as for one step at a time; `forward` counts the steps up to
    the last one that counts, not the wasted rows.

    Source: Andriushchenko et al. (2020), algorithms 1 to 3; the constants of AutoAttack's standard version.
    Differs from the reference: every example has its own squares and colours, instead of one for the whole batch.
    """
    search = _Search(model, x, y, PAINTERS[norm](x, draws, eps), queries)
    pace = _Pace(rows or len(x))
    while len(search.owner):
        pace.update(*search.advance(pace.steps(len(search.owner))))
    return search.tally


class _Search:
    """The examples still being searched: the `best` canvases, their `margins`, and the number of steps `done`."""

    def __init__(self, model: Model, x: Tensor, y: Tensor, painter: Stripes | Pyramids, queries: int) -> None:
        self.model, self.y, self.painter, self.queries = model, y, painter, queries
        self.tally, self.best = Outcome.begin(x), painter.start()
        self.owner = torch.arange(len(x), device=x.device)
        self.done = torch.zeros_like(self.owner)
        self.margins, wrong = self._judge(self.best, self.owner)
        self._leave(wrong)

    def advance(self, steps: int) -> tuple[int, int]:
        """Evaluate the next `steps` steps of each example; return how many were accepted, and how many count."""
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
        """Return the margins of the canvases and whether each is misclassified: both (R,)."""
        x, y = self.painter.images(canvas), self.y[owner]
        with torch.no_grad():
            logits = self.model(x)
        return margin(logits, y), misclassified(self.model, self.tally, owner, x, logits, y)

    def _leave(self, fallen: Tensor) -> None:
        """Remove the examples that have fallen, a mask (N,), or have made all steps."""
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
    """How many steps are evaluated ahead: as many as fit in a call, unless too many of them would be wasted."""

    def __init__(self, rows: int) -> None:
        self.rows, self.accepted, self.counted = rows, 1.0, 1.0

    def steps(self, n: int) -> int:
        """Return the steps per example, for n examples; of K steps (K - 1) / 2 times the acceptance rate are wasted."""
        return max(1, min(self.rows // n, 1 + int(2 * WASTED * self.counted / self.accepted)))

    def update(self, accepted: int, counted: int) -> None:
        """Update the estimated acceptance rate after a call."""
        self.accepted = DECAY * self.accepted + accepted
        self.counted = DECAY * self.counted + counted
