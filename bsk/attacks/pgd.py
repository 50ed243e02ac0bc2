"""FGSM, PGD with restarts, and PGD on the margin (CW): one loop, in which fooled examples leave at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from bsk.attacks.leaving import Leaving
from bsk.attacks.outcome import Outcome
from bsk.attacks.repeats import Repeats
from bsk.attacks.targets import targets_of
from bsk.perturb.ascent import Model, sign_move
from bsk.perturb.ball import ball_around
from bsk.perturb.draws import ExampleDraws
from bsk.perturb.gradients import raw_gradient
from bsk.perturb.losses import cross_entropy, margin

Loss = Callable[[Tensor, Tensor], Tensor]

LOSSES: dict[str, Loss] = {"cross_entropy": cross_entropy, "margin": margin}
DESCENDED: dict[str, Loss] = {  # for a target class
    "cross_entropy": lambda logits, target: -cross_entropy(logits, target),
    "margin": lambda logits, target: -margin(logits, target),
}


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
    target: str | int | None = None,
    classes: int = 0,
    rows: int | None = None,
) -> Outcome:
    """Attack images x (N, C, H, W) in [0, 1] with labels y (N,) by projected gradient ascent under Linf.

    An example counts as fooled at any iterate, including the image itself and the last one, and leaves the batch there;
    the remaining examples are tried by the next restart. The first restart begins at the image (as in the paper) or,
    with start="uniform", at a uniform point of the ball, as all later ones do.

    The model, from images to logits (N, classes), must be in eval mode; its parameters are not changed. `eps` and
    `step` are in pixel units; `loss` is "cross_entropy", or "margin" for CW. `last_iterate` judges only the last
    iterate of each restart, as the paper does, which is weaker or equal. With `early_stop` (ignored with
    `last_iterate`) an example whose iterates repeat takes no more steps; its verdict and its last iterate are unchanged
    if the model is deterministic, and a random model takes all steps. A model call has at most `rows` rows (N by
    default).

    With a `target` among `classes` classes the loss of that class is minimised instead, and an example counts as fooled
    if it is classified as the target (`targets_of`).

    Source: Madry et al. (2018); section 5.1 (100 steps of 2/255, no random start in the authors' code).
    """
    tally = Outcome.begin(x)
    goal, climbed = y, LOSSES[loss]
    if target is not None:
        goal, climbed = targets_of(target, classes, model, x, y, draws, tally), DESCENDED[loss]
        tally = replace(tally, target=goal)
    active, leave = torch.arange(len(x), device=x.device), Leaving(model, tally, y, tally.target)
    for restart in range(restarts):
        owner, at, ball = active, x[active], ball_around(x[active], eps)
        if start == "uniform" or restart > 0:
            at = ball.project(at + eps * draws.uniform(at))
        repeats, logits = Repeats(at, steps, leave.every) if early_stop and not last_iterate else None, None
        for i in range(steps + 1):  # the gradient at an iterate gives its prediction for free
            last = i == steps
            if repeats is not None and not last and (ended := repeats.ended(at, i, logits)) is not None:
                tally.x_adv[owner[ended]] = repeats.last(at)[ended]
                owner, at, ball, repeats = owner[~ended], at[~ended], ball.keep(~ended), repeats.keep(~ended)
                if len(owner) == 0:
                    break
            here = at
            if last:
                with torch.no_grad():
                    logits = model(at)
                tally.x_adv[owner] = at
            else:
                logits, gradient = _passes(model, at, goal[owner], climbed, rows or len(x))
                at = sign_move(gradient, at, ball, step)
            leave.count(owner, 1, 0 if last else 1, None if repeats is None else repeats.live(i))
            if last_iterate and not last:
                continue
            stays = leave(owner, here, logits, y[owner], now=i + 1 >= steps)
            if stays is not None:
                owner, at, ball, logits = owner[stays], at[stays], ball.keep(stays), logits[stays]
                repeats = repeats and repeats.keep(stays)
            if len(owner) == 0:
                break
        leave.settle(owner)  # those that ended early
        if restart + 1 == restarts or bool(tally.fooled.all()):
            break
        stays = ~tally.fooled[active]
        draws, active = draws.keep(stays), active[stays]
    return tally


def _passes(model: Model, x: Tensor, y: Tensor, loss: Loss, rows: int) -> tuple[Tensor, Tensor]:
    """Return the logits of images x (R, C, H, W) and the gradients of their losses, in calls of at most `rows` rows."""
    parts = []
    for at, label in zip(x.split(rows), y.split(rows), strict=True):
        leaf = at.detach().requires_grad_()
        logits = model(leaf)
        parts.append((logits.detach(), raw_gradient(loss(logits, label), leaf)))
    logits, gradients = (torch.cat(each) if len(each) > 1 else each[0] for each in zip(*parts, strict=True))
    return logits, gradients
