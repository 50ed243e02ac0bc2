"""FGSM, PGD with restarts, and PGD on the margin (CW): one loop, in which fooled examples leave at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bsk.perturb.ascent import Model, sign_step
from bsk.perturb.ball import ball_around
from bsk.perturb.draws import ExampleDraws
from bsk.perturb.losses import cross_entropy, margin

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"cross_entropy": cross_entropy, "margin": margin}


@dataclass(frozen=True)
class Outcome:
    """What an attack found: images (N, C, H, W) in the ball, and which of them are misclassified, (N,)."""

    x_adv: Tensor
    fooled: Tensor


def pgd(
    model: Model,
    x: Tensor,
    y: Tensor,
    draws: ExampleDraws,
    *,
    eps: float,
    step: float,
    steps: int,
    restarts: int = 1,
    start: str = "zero",
    loss: str = "cross_entropy",
    last_iterate: bool = False,
) -> Outcome:
    """Attack images x (N, C, H, W) in [0, 1] with labels y (N,) by projected gradient ascent under Linf.

    An example counts as fooled at any iterate, the image itself and the last one included, and leaves the
    batch there; what remains tries the next restart. The first restart begins at the image (the paper's) or,
    with start="uniform", like the later ones at a uniform point of the ball.

    The model, from images to logits (N, classes), is in eval mode, and its parameters are left alone; `eps`
    and `step` are in pixel units; `loss` is "cross_entropy", or "margin" for CW. `last_iterate` judges only
    the last iterate of each restart, as the paper does: weaker or equal.

    Source: Madry et al. (2018); section 5.1 (100 steps of 2/255, no random start in the authors' code).
    """
    x_adv, fooled = x.clone(), torch.zeros_like(y, dtype=torch.bool)
    active = torch.arange(len(x), device=x.device)
    for restart in range(restarts):
        begin = x[active]
        if start == "uniform" or restart > 0:
            begin = ball_around(begin, eps).project(begin + eps * draws.uniform(begin))
        found = _one_restart(model, x[active], begin, y[active], eps, step, steps, LOSSES[loss], last_iterate)
        x_adv[active], fooled[active] = found.x_adv, found.fooled
        if restart + 1 == restarts or bool(found.fooled.all()):
            break
        draws = draws.keep(~found.fooled)
        active = active[~found.fooled]
    return Outcome(x_adv, fooled)


def _one_restart(
    model: Model,
    x: Tensor,
    begin: Tensor,
    y: Tensor,
    eps: float,
    step: float,
    steps: int,
    loss: Callable[[Tensor, Tensor], Tensor],
    last_iterate: bool,
) -> Outcome:
    """Climb from `begin`; the prediction at an iterate comes free with the gradient taken there."""
    result, fooled = begin.clone(), torch.zeros_like(y, dtype=torch.bool)
    active = torch.arange(len(x), device=x.device)
    ball, at = ball_around(x, eps), begin
    for i in range(steps + 1):
        last = i == steps
        at = at.detach().requires_grad_(not last)
        with torch.set_grad_enabled(not last):
            logits = model(at)
        wrong = logits.detach().argmax(dim=1) != y[active]
        result[active] = at.detach()
        if last or not last_iterate:
            fooled[active] = wrong
        if last:
            break
        at = sign_step(loss(logits, y[active]), at, ball, step)
        if not last_iterate and bool(wrong.any()):
            stays = ~wrong
            active, at, ball = active[stays], at[stays], type(ball)(ball.lower[stays], ball.upper[stays])
            if len(active) == 0:
                break
    return Outcome(result, fooled)
