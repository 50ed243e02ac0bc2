"""APGD in L1: steps along few coordinates, as many as the best point so far has changed, from larger balls inwards."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bsk.attacks.apgd import TARGETED, UNTARGETED, Climb, Objective
from bsk.attacks.leaving import Leaving
from bsk.attacks.outcome import Outcome, first_rows, ranked_targets
from bsk.perturb.ascent import Model
from bsk.perturb.ball import L1, per_image
from bsk.perturb.draws import ExampleDraws

RADII = (3.0, 2.0, 1.0)  # of eps, one after another
SHARES = (0.3, 0.3)  # of the steps, for all radii but the last
WINDOW = 0.04  # of the steps, from one check to the next
SHRINK, LEAST = 1.5, 10.0  # of a step size: what a check divides it by, and the most that it is divided by in all
SPARSER = 1.5  # a step changes so much fewer coordinates than the best point has changed
FEWER = 0.95  # where the best point has changed at most so much as at the last check, the step size starts over


def apgd_l1(
    model: Model,
    x: Tensor,
    y: Tensor,
    draws: ExampleDraws,
    *,
    eps: float,
    norm: str = "l1",
    loss: str = "cross_entropy",
    steps: int = 100,
    targets: int = 0,
    restarts: int = 1,
    eot: int = 1,
) -> Outcome:
    """Attack images x (N, C, H, W) in [0, 1] with labels y (N,) within the L1 radius eps.

    Each run climbs in the balls of 3 eps and 2 eps first, from a random point, where nobody is fooled yet, and then in
    that of eps. `targets`, `eot` and how examples leave are those of `apgd`; restarts follow one another.

    Source: Croce & Hein (2021), "Mind the box"; the constants of their code's standard version.
    """
    tally, active = Outcome.begin(x), torch.arange(len(x), device=x.device)
    objective = (TARGETED if targets else UNTARGETED)[loss]
    for _ in range(restarts):
        climb = _begin(model, tally, x, y, draws, active, RADII[0] * eps, targets)
        leave = Leaving(model, tally, y)
        for radius, share in zip(RADII, _shares(steps), strict=True):
            climb.enter(radius * eps)
            _ascend(climb, model, objective, eot, leave, share, judged=radius == RADII[-1])
        leave.settle(climb.owner)
        first = first_rows(climb.owner) & ~tally.fooled[climb.owner]
        tally.x_adv[climb.owner[first]] = climb.x_best[first]
        stays = ~tally.fooled[active]
        draws, active = draws.keep(stays), active[stays]
        if len(active) == 0:
            break
    return tally


def _begin(
    model: Model, tally: Outcome, x: Tensor, y: Tensor, draws: ExampleDraws, active: Tensor, eps: float, targets: int
) -> _SparseClimb:
    """Return the rows of the examples `active` at random points of the ball of radius eps, one a target if any."""
    within, owner, target = L1(x[active], eps), active, y[active]
    starts = [within.sample(draws)]
    if targets:
        with torch.no_grad():
            target = ranked_targets(model(x[active]), target, targets)
        tally.count(active)
        starts += [within.sample(draws) for _ in range(target.shape[1] - 1)]
        owner, target = active.repeat_interleave(len(starts)), target.reshape(-1)
    return _SparseClimb(torch.stack(starts, dim=1).flatten(0, 1), L1(x[owner], eps), owner, y[owner], target, eps)


def _ascend(
    climb: _SparseClimb, model: Model, objective: Objective, eot: int, leave: Leaving, steps: int, judged: bool
) -> None:
    """Climb so many steps in one ball; examples leave where it is that of eps."""
    window = max(int(WINDOW * steps), 1)
    for i in range(steps + 1):
        if i > 0:
            climb.move(1.0)
        losses = climb.evaluate(model, objective, eot, leave, judged)
        if len(losses) == 0:
            break
        climb.remember(losses, first=i == 0)
        if i > 0 and i % window == 0:
            climb.check(window)


class _SparseClimb(Climb):
    """Rows that climb in L1; beside those of `Climb` how many values of each are `changed`, (R,), and to change."""

    def __init__(self, x: Tensor, within: L1, owner: Tensor, y: Tensor, target: Tensor, eps: float) -> None:
        super().__init__(x, within, owner, y, target, eps)
        self.within: L1 = within
        self.changed = self.share = self.longest = self.step

    def enter(self, eps: float) -> None:
        """Go on from the best point in the ball of another radius; what was learnt of step sizes is forgotten."""
        self.within = L1(self.within.x, eps)
        self.x = self.x_best = self.within.project(self.x_best)
        self.step = self.longest = torch.full_like(self.step, eps)
        self._look()

    def _look(self) -> None:
        self.changed = (self.x_best != self.within.x).flatten(1).sum(dim=1).to(self.step)
        self.share = self.changed / self.x[:1].numel() / SPARSER

    def move(self, weight: float) -> None:
        """Step to P(x + eta d), d the signs of the largest gradients; there is no momentum."""
        direction = self.within.steepest(self.gradient, self.share)
        self.x = self.within.project(torch.addcmul(self.x, direction, per_image(self.step, self.x)))

    def check(self, window: int) -> None:
        """Shrink the steps; where the best point has become sparser, start over with long ones from there."""
        before = self.changed
        self._look()
        sparser = self.changed / before < FEWER
        self.step = torch.where(sparser, self.longest, self.step / SHRINK)
        self.step = torch.maximum(self.step, self.longest / LEAST)
        self.choose(sparser, x=self.x_best, gradient=self.gradient_best)


def _shares(steps: int) -> list[int]:
    """Return how many of the steps are taken in the ball of each of RADII."""
    wide = [math.ceil(share * steps) for share in SHARES]
    return [*wide, max(0, steps - sum(wide))]
