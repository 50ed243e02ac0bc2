"""APGD: projected gradient ascent with momentum and an adaptive step size, untargeted and targeted."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from bsk.attacks.leaving import Leaving
from bsk.attacks.outcome import Outcome, Rows, first_rows, ranked_targets
from bsk.perturb.ascent import Model
from bsk.perturb.ball import Region, per_image, region
from bsk.perturb.draws import ExampleDraws
from bsk.perturb.gradients import gradient_of
from bsk.perturb.losses import cross_entropy, dlr, dlr_to, margin, margin_to

RHO = 0.75  # fraction of increasing steps below which the step size is halved, and weight of the momentum step

Objective = Callable[[Tensor, Tensor, Tensor], Tensor]  # from logits, labels and targets

UNTARGETED: dict[str, Objective] = {
    "cross_entropy": lambda logits, y, target: cross_entropy(logits, y),
    "dlr": lambda logits, y, target: dlr(logits, y),
    "margin": lambda logits, y, target: margin(logits, y),
}
TARGETED: dict[str, Objective] = {"dlr": dlr_to, "margin": margin_to}


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

    With `targets` = K > 0 each example is attacked towards its K most likely wrong classes in parallel, each from its
    own random point. It leaves the batch once one of them fools the model; the verdict is the same as for one target
    after another. `eot` averages that many gradients per step, for randomised models.

    Source: Croce & Hein (2020), algorithm 1; the constants of their code's standard version.
    Differs from the reference: an example leaves at its first misclassified iterate. The verdict is the same. In L2 a
    step has its length however small the gradient; there it shrinks for a norm below 1e-12.
    """
    tally, within = Outcome.begin(x), region(x, eps, norm)
    owner, target, starts = torch.arange(len(x), device=x.device), y, within.sample(draws)
    if targets:
        with torch.no_grad():
            target = ranked_targets(model(x), y, targets)
        tally.count(owner)
        owner, k = owner.repeat_interleave(target.shape[1]), target.shape[1] - 1
        starts = torch.stack([starts, *(within.sample(draws) for _ in range(k))], dim=1).flatten(0, 1)
        target = target.reshape(-1)
    objective = (TARGETED if targets else UNTARGETED)[loss]
    leave = Leaving(model, tally, y)
    climb = Climb(starts, within.keep(owner), owner, y[owner], target, eps)
    for i, window in enumerate([0, *_windows(steps)]):
        if i > 0:
            climb.move(1.0 if i == 1 else RHO)
        losses = climb.evaluate(model, objective, eot, leave)
        if len(losses) == 0:
            break
        climb.remember(losses, first=i == 0)
        if window:
            climb.check(window)
    leave.settle(climb.owner)
    first = first_rows(climb.owner) & ~tally.fooled[climb.owner]
    tally.x_adv[climb.owner[first]] = climb.x_best[first]
    return tally


class Climb(Rows):
    """The state of the ascent, one row per example, or per example and target class.

    owner (R,): the example of each row, ascending; y, target (R,); images (R, C, H, W); all others (R,).
    """

    def __init__(self, x: Tensor, within: Region, owner: Tensor, y: Tensor, target: Tensor, eps: float) -> None:
        """Start at images x of the region `within`, with step size 2 eps."""
        zero = x.new_zeros(len(owner))
        self.owner, self.y, self.target, self.within = owner, y, target, within
        self.x = self.x_before = self.x_best = self.gradient = self.gradient_best = x
        self.step = torch.full_like(zero, 2 * eps)
        self.loss_before = self.loss_best = self.loss_best_at_check = zero  # the reference starts from 0 too
        self.rises, self.halved = zero, torch.ones_like(owner, dtype=torch.bool)

    def evaluate(self, model: Model, objective: Objective, eot: int, leave: Leaving, judged: bool = True) -> Tensor:
        """Evaluate loss and gradient at the current points, and return the losses of the rows that remain.

        If `judged`, rows of fooled examples are removed.
        """
        self.gradient = torch.zeros_like(self.x)
        for _ in range(eot):
            leaf = self.x.detach().requires_grad_()
            logits = model(leaf)
            losses = objective(logits, self.y, self.target)
            self.gradient += gradient_of(losses, leaf) / eot
        leave.count(self.owner, eot, eot)
        losses = losses.detach()
        stays = leave(self.owner, self.x, logits, self.y) if judged else None
        if stays is None:
            return losses
        self.keep(stays)
        return losses[stays]

    def remember(self, losses: Tensor, first: bool) -> None:
        """Keep the point with the highest loss, and count the steps that increased the loss."""
        if first:
            self.x_best, self.gradient_best = self.x, self.gradient
            self.loss_best = self.loss_best_at_check = losses
            return
        better = losses > self.loss_best
        self.choose(better, x_best=self.x, gradient_best=self.gradient, loss_best=losses)
        self.rises = self.rises + (losses > self.loss_before)
        self.loss_before = losses

    def move(self, weight: float) -> None:
        """Step to z = P(x + eta d), then with momentum to P(x + a (z - x) + (1 - a) (x - x_before)), a = `weight`.

        Source: section 3.1, eq. (1) and (2).
        """
        x, within = self.x, self.within
        z = within.project(torch.addcmul(x, within.steepest(self.gradient), per_image(self.step, x)))
        if weight < 1:
            z = within.project(torch.lerp(x, z, weight).add_(x - self.x_before, alpha=1 - weight))
        self.x, self.x_before = z, x

    def check(self, window: int) -> None:
        """Halve the step size of rows that rarely improve or are stuck, and restart them from their best point.

        Source: section 3.2, conditions 1 and 2.
        """
        stuck = (self.rises <= RHO * window) | (~self.halved & (self.loss_best_at_check >= self.loss_best))
        self.choose(stuck, step=self.step / 2, x=self.x_best, gradient=self.gradient_best)
        self.loss_best_at_check = self.loss_best
        self.rises, self.halved = torch.zeros_like(self.rises), stuck

    def choose(self, rows: Tensor, **others: Tensor) -> None:
        """Replace the given attributes in the selected rows, a mask (R,)."""
        for name, other in others.items():
            mask = rows if other.ndim == 1 else per_image(rows, other)
            setattr(self, name, torch.where(mask, other, getattr(self, name)))


def _windows(steps: int) -> Iterator[int]:
    """Yield 0 for each step, or, where a checkpoint is due, the number of steps since the previous one.

    Source: section 3.2: the first window is 0.22 of the steps, each next one 0.03 shorter, down to 0.06.
    """
    window, shrink, least = (max(int(part * steps), 1) for part in (0.22, 0.03, 0.06))
    since = 0
    for _ in range(steps):
        since += 1
        yield window if since == window else 0
        if since == window:
            window, since = max(window - shrink, least), 0
