"""FGSM, PGD with restarts, and PGD on the margin (CW): one loop, in which fooled examples leave at once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bsk.attacks.outcome import Outcome
from bsk.attacks.repeats import Repeats
from bsk.attacks.search import misclassified
from bsk.perturb.ascent import Model, sign_step
from bsk.perturb.ball import ball_around
from bsk.perturb.draws import ExampleDraws
from bsk.perturb.losses import cross_entropy, margin

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"cross_entropy": cross_entropy, "margin": margin}


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
    early_stop: bool = True,
) -> Outcome:
    """Attack images x (N, C, H, W) in [0, 1] with labels y (N,) by projected gradient ascent under Linf.

    An example counts as fooled at any iterate, the image itself and the last one included, and leaves the
    batch there; what remains tries the next restart. The first restart begins at the image (the paper's) or,
    with start="uniform", like the later ones at a uniform point of the ball.

    The model, from images to logits (N, classes), is in eval mode, and its parameters are left alone; `eps`
    and `step` are in pixel units; `loss` is "cross_entropy", or "margin" for CW. `last_iterate` judges only
    the last iterate of each restart, as the paper does: weaker or equal. An example whose iterates repeat takes no more
    steps (`early_stop`, but for `last_iterate`): its verdict and its last iterate are what they would be, where the
    model gives the same bits for the same image.

    Source: Madry et al. (2018); section 5.1 (100 steps of 2/255, no random start in the authors' code).
    """
    tally = Outcome.begin(x)
    active = torch.arange(len(x), device=x.device)
    for restart in range(restarts):
        rows, at, ball = active, x[active], ball_around(x[active], eps)
        if start == "uniform" or restart > 0:
            at = ball.project(at + eps * draws.uniform(at))
        repeats = Repeats(at, steps) if early_stop and not last_iterate else None
        for i in range(steps + 1):  # the prediction at an iterate comes free with the gradient there
            last = i == steps
            if repeats is not None and not last and (ended := repeats.ended(at, i)) is not None:
                tally.x_adv[rows[ended]] = at[ended]
                rows, at, ball, repeats = rows[~ended], at[~ended], ball.keep(~ended), repeats.keep(~ended)
                if len(rows) == 0:
                    break
            at = at.detach().requires_grad_(not last)
            with torch.set_grad_enabled(not last):
                logits = model(at)
            tally.count(rows, 1, 0 if last else 1)
            here = at.detach()
            wrong = misclassified(model, tally, rows, here, logits, y[rows])
            if last:
                tally.x_adv[rows] = here
            else:
                at = sign_step(LOSSES[loss](logits, y[rows]), at, ball, step)
            stays = None if last_iterate and not last else tally.leave(rows, here, wrong)
            if stays is not None:
                rows, at, ball = rows[stays], at[stays], ball.keep(stays)
                repeats = repeats and repeats.keep(stays)
            if len(rows) == 0:
                break
        if restart + 1 == restarts or bool(tally.fooled.all()):
            break
        stays = ~tally.fooled[active]
        draws, active = draws.keep(stays), active[stays]
    return tally
