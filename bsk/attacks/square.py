"""Square: random squares of colour, kept when the margin falls; it sees logits and no gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from bsk.attacks.outcome import Outcome, Tally
from bsk.attacks.painters import Painter, Pyramids, Stripes
from bsk.perturb.ascent import Model
from bsk.perturb.draws import ExampleDraws
from bsk.perturb.losses import margin


def square(
    model: Model, x: Tensor, y: Tensor, draws: ExampleDraws, *, eps: float, norm: str = "linf", queries: int = 5000
) -> Outcome:
    """Attack images x (N, C, H, W) in [0, 1] with labels y (N,) by random search, `queries` steps at most.

    An example leaves as soon as it is misclassified.

    Source: Andriushchenko et al. (2020), algorithms 1 to 3; the constants of AutoAttack's standard version.
    Differs from the reference: every example has squares and colours of its own, not one for the whole batch.
    """
    tally = Tally(x)
    painter: Painter = (Stripes if norm == "linf" else Pyramids)(x, draws, eps)
    owner, calls = torch.arange(len(x), device=x.device), 0
    best = torch.full((len(x),), -torch.inf, device=x.device)
    for query in range(queries + 1):
        if len(owner) == 0:
            break
        if query > 0:
            painter.paint(query - 1, queries)
        with torch.no_grad():
            logits = model(painter.images())
        calls += 1
        margins, wrong = margin(logits, y), logits.argmax(dim=1) != y
        better = (margins > best) | wrong
        if query > 0:
            painter.take_back(better)
        best = torch.where(better, margins, best)
        if bool(wrong.any()):
            tally.forward[owner[wrong]] = calls
            stays = tally.leave(owner, painter.images(), wrong)
            assert stays is not None
            owner, y, best = owner[stays], y[stays], best[stays]
            painter.keep(stays)
    tally.forward[owner] = calls
    tally.x_adv[owner] = painter.images()
    return tally.outcome()
