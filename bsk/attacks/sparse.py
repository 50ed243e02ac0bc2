"""APGD in L1: sparse steps, adapted to the sparsity of the best point, in balls that shrink towards eps."""

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

RADII = (3.0, 2.0, 1.0)  # successive radii, in units of eps
SHARES = (0.3, 0.3)  # fraction of the steps for each radius but the last
WINDOW = 0.04  # fraction of the steps between two checks
SHRINK, LEAST = 1.5, 10.0  # a check divides the step size by SHRINK, in total by at most LEAST
SPARSITY_FACTOR = 1.5  # a step changes this many times fewer coordinates than the best point
SPARSER_BELOW = 0.95  # the step size is reset if the best point changes fewer coordinates than this times those before


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

    Each run starts at a random point and first ascends in the balls of radius 3 eps and 2 eps, where no example counts
    as fooled, and then in that of radius eps. `targets`, `eot` and the way examples leave are as in `apgd`; restarts
    run one after another.

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
    """Return rows for the `active` examples at random points of the ball of radius eps, one row per target if any."""
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
    """Take the given number of steps in one ball; examples can leave only if `judged`."""
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
    """The state of the ascent in L1.

    It adds to `Climb`, for each row (R,): the number of `changed` values of the best point, the `share` of values that
    a step changes, and the `longest` step size.
    """

    def __init__(self, x: Tensor, within: L1, owner: Tensor, y: Tensor, target: Tensor, eps: float) -> None:
        super().__init__(x, within, owner, y, target, eps)
        self.within: L1 = within
        self.changed = self.share = self.longest = self.step

    def enter(self, eps: float) -> None:
        """Continue from the best point in the ball of radius eps; the adapted step sizes are reset."""
        self.within = L1(self.within.x, eps)
        self.x = self.x_best = self.within.project(self.x_best)
        self.step = self.longest = torch.full_like(self.step, eps)
        self._look()

    def _look(self) -> None:
        self.changed = (self.x_best != self.within.x).flatten(1).sum(dim=1).to(self.step)
        self.share = self.changed / self.x[:1].numel() / SPARSITY_FACTOR

    def move(self, weight: float) -> None:
        """Step to P(x + eta d), where d are the signs of the largest gradient entries; there is no momentum."""
        direction = self.within.steepest(self.gradient, self.share)
        self.x = self.within.project(torch.addcmul(self.x, direction, per_image(self.step, self.x)))

    def check(self, window: int) -> None:
        """Shrink the step sizes; if the best point has become sparser, restart from it with the longest step size."""
        before = self.changed
        self._look()
        sparser = self.changed / before < SPARSER_BELOW
        self.step = torch.where(sparser, self.longest, self.step / SHRINK)
        self.step = torch.maximum(self.step, self.longest / LEAST)
        self.choose(sparser, x=self.x_best, gradient=self.gradient_best)


def _shares(steps: int) -> list[int]:
    """Return the number of steps in the ball of each of RADII."""
    wide = [math.ceil(share * steps) for share in SHARES]
    return [*wide, max(0, steps - sum(wide))]
