"""APGD: projected gradient ascent with momentum that halves its own step; untargeted, and towards each likely class."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from bsk.attacks.outcome import Outcome, Tally, first_rows, ranked_targets
from bsk.perturb.ascent import Model
from bsk.perturb.ball import Region, per_image, region
from bsk.perturb.draws import ExampleDraws
from bsk.perturb.losses import cross_entropy, dlr, dlr_to, margin, margin_to

RHO = 0.75  # share of rising steps below which a step size is halved, and weight of the momentum step

Objective = Callable[[Tensor, Tensor, Tensor], Tensor]  # of logits, labels, targets

UNTARGETED: dict[str, Objective] = {
    "cross_entropy": lambda logits, y, target: cross_entropy(logits, y),
    "dlr": lambda logits, y, target: dlr(logits, y),
    "margin": lambda logits, y, target: margin(logits, y),
}
TARGETED: dict[str, Objective] = {"dlr": dlr_to, "margin": margin_to}


@dataclass
class Climb:
    """Rows that climb: an example each, or an example and a target class each.

    owner (R,): the example of each row, ascending; y, target (R,); images (R, C, H, W); the rest (R,).
    """

    owner: Tensor
    y: Tensor
    target: Tensor
    within: Region
    x: Tensor
    x_before: Tensor
    gradient: Tensor
    x_best: Tensor
    gradient_best: Tensor
    step: Tensor
    loss_before: Tensor
    loss_best: Tensor
    loss_best_at_check: Tensor
    rises: Tensor
    halved: Tensor

    def keep(self, rows: Tensor) -> Climb:
        """Return some of the rows."""
        kept: dict[str, Any] = {"within": self.within.keep(rows)}
        values = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in kept}
        return Climb(**kept, **{name: value[rows] for name, value in values.items()})


def apgd(
    model: Model,
    x: Tensor,
    y: Tensor,
    draws: ExampleDraws,
    *,
    eps: float,
    norm: str = "linf",
    loss: str = "cross_entropy",
    steps: int = 100,
    targets: int = 0,
    eot: int = 1,
) -> Outcome:
    """Attack images x (N, C, H, W) in [0, 1] with labels y (N,) within radius eps of `norm`.

    With `targets` K > 0 each example climbs towards its K likeliest wrong classes at once, each from a random
    point, and leaves when one of them fools the model: the verdict of one after another. `eot` averages so many
    gradients, for models that are random.

    Source: Croce & Hein (2020), algorithm 1; the constants of their code's standard version.
    Differs from the reference: an example leaves at its first misclassified iterate. The verdict is the same.
    """
    tally, within = Tally(x), region(x, eps, norm)
    owner, target, starts = torch.arange(len(x), device=x.device), y, within.sample(draws)
    if targets:
        with torch.no_grad():
            target = ranked_targets(model(x), y, targets)
        tally.count(owner)
        owner, k = owner.repeat_interleave(target.shape[1]), target.shape[1] - 1
        starts = torch.stack([starts, *(within.sample(draws) for _ in range(k))], dim=1).flatten(0, 1)
        target = target.reshape(-1)
    objective = (TARGETED if targets else UNTARGETED)[loss]
    climb = _start(starts, within.keep(owner), owner, y[owner], target, eps)
    for i, window in enumerate([0, *_windows(steps)]):
        if i > 0:
            climb = _move(climb, 1.0 if i == 1 else RHO)
        climb, losses = _evaluate(climb, model, objective, eot, tally)
        if len(losses) == 0:
            break
        climb = _remember(climb, losses) if i > 0 else _remember_first(climb, losses)
        if window:
            climb = _check(climb, window)
    first = first_rows(climb.owner)
    tally.x_adv[climb.owner[first]] = climb.x_best[first]
    return tally.outcome()


def _start(x: Tensor, within: Region, owner: Tensor, y: Tensor, target: Tensor, eps: float) -> Climb:
    zero = x.new_zeros(len(owner))
    return Climb(
        owner=owner,
        y=y,
        target=target,
        within=within,
        x=x,
        x_before=x,
        gradient=x,
        x_best=x,
        gradient_best=x,
        step=torch.full_like(zero, 2 * eps),
        loss_before=zero,  # the reference compares the first loss with 0
        loss_best=zero,
        loss_best_at_check=zero,
        rises=zero,
        halved=torch.ones_like(owner, dtype=torch.bool),
    )


def _evaluate(climb: Climb, model: Model, objective: Objective, eot: int, tally: Tally) -> tuple[Climb, Tensor]:
    """Run the model at the rows' points; return the rows that are not fooled, with their gradients, and losses."""
    gradient = torch.zeros_like(climb.x)
    for _ in range(eot):
        leaf = climb.x.detach().requires_grad_()
        logits = model(leaf)
        losses = objective(logits, climb.y, climb.target)
        gradient += torch.autograd.grad(losses.sum(), leaf)[0] / eot
    tally.count(climb.owner, eot, eot)
    climb, losses = replace(climb, gradient=gradient), losses.detach()
    stays = tally.leave(climb.owner, climb.x, logits.detach().argmax(dim=1) != climb.y)
    return (climb, losses) if stays is None else (climb.keep(stays), losses[stays])


def _remember_first(climb: Climb, losses: Tensor) -> Climb:
    return replace(climb, x_best=climb.x, gradient_best=climb.gradient, loss_best=losses, loss_best_at_check=losses)


def _remember(climb: Climb, losses: Tensor) -> Climb:
    """Keep the point of the highest loss, and count the steps on which the loss rose."""
    better = losses > climb.loss_best
    image = per_image(better, climb.x)
    return replace(
        climb,
        x_best=torch.where(image, climb.x, climb.x_best),
        gradient_best=torch.where(image, climb.gradient, climb.gradient_best),
        loss_best=torch.where(better, losses, climb.loss_best),
        rises=climb.rises + (losses > climb.loss_before),
        loss_before=losses,
    )


def _move(climb: Climb, weight: float) -> Climb:
    """Step to z = P(x + eta d), then on with momentum to P(x + a (z - x) + (1 - a) (x - x_before)).

    Source: section 3.1, eq. (1) and (2).
    """
    x, within = climb.x, climb.within
    z = within.project(torch.addcmul(x, within.steepest(climb.gradient), per_image(climb.step, x)))
    if weight < 1:
        z = within.project(torch.lerp(x, z, weight).add_(x - climb.x_before, alpha=1 - weight))
    return replace(climb, x=z, x_before=x)


def _windows(steps: int) -> Iterator[int]:
    """Yield for each step 0, or, where a check is due, how many steps it looks back on.

    Source: section 3.2: 0.22 of the steps, then each 0.03 of them shorter, at least 0.06.
    """
    window, shrink, least = (max(int(part * steps), 1) for part in (0.22, 0.03, 0.06))
    since = 0
    for _ in range(steps):
        since += 1
        yield window if since == window else 0
        if since == window:
            window, since = max(window - shrink, least), 0


def _check(climb: Climb, window: int) -> Climb:
    """Halve the step of rows that rise too seldom or are stuck, and send them back to their best point.

    Source: section 3.2, conditions 1 and 2.
    """
    stuck = (climb.rises <= RHO * window) | (~climb.halved & (climb.loss_best_at_check >= climb.loss_best))
    image = per_image(stuck, climb.x)
    return replace(
        climb,
        step=torch.where(stuck, climb.step / 2, climb.step),
        x=torch.where(image, climb.x_best, climb.x),
        gradient=torch.where(image, climb.gradient_best, climb.gradient),
        loss_best_at_check=climb.loss_best,
        rises=torch.zeros_like(climb.rises),
        halved=stuck,
    )
