"""THE TABLE OF METHODS: each a start, an inner objective climbed some steps, an outer loss.

The paper's own analysis says that this is all there is to a method; a new variant is a row, or flags.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bsk.perturb.ascent import Model, Objective, ascend
from bsk.perturb.ball import Ball, ball_around
from bsk.perturb.draws import Draws
from bsk.perturb.later_starts import STARTS
from bsk.perturb.losses import cross_entropy, kl, nuclear
from bsk.perturb.memory import Memory
from bsk.perturb.radius import step_at
from bsk.perturb.starts import Clean, Given

EPS = "eps"  # a step size equal to the radius
ALIGN = "align"  # a beta that grows with the radius as GradAlign's weight does


@dataclass(frozen=True)
class Method:
    """A row of the table.

    Attributes:
        start: where the inner maximisation starts, a name in STARTS.
        inner: the objective it climbs, a name in INNER.
        steps: how many sign-gradient steps.
        step: their size in pixel units at the paper's radius (see `step_at`), or EPS.
        outer: the loss that training descends, a name in OUTER.
        beta: weight of the outer loss's term beside cross entropy, for example of the KL term of TRADES; or ALIGN.
        gamma: size of the random point in output space, for the backward start.
        noise: how far the start `noise` goes, in eps.
        bound: how far x' may be from x in the end, in eps; None: anywhere in [0, 1].
        replays: how often a batch is trained on, one update after another.
        ramp: if beta grows with the updates, from 0 at the first to the whole at the last.
        rescue: the row that takes over for `rescue_every` updates when the accuracy under PGD-10 on a batch
            of validation images has fallen by more than `rescue_drop` since the check before.
    """

    start: str
    inner: str
    steps: int
    step: float | str
    outer: str
    beta: float | str = 6.0
    gamma: float = 1.0
    noise: float = 2.0
    bound: float | None = 1.0
    replays: int = 1
    ramp: bool = False
    rescue: str | None = None
    rescue_every: int = 20
    rescue_drop: float = 0.10

    @property
    def whole_batch(self) -> bool:
        """Whether it remembers a batch row by row, or takes a norm over all of one: for one process only."""
        return self.start == "kept" or self.outer == "nuclear" or self.inner == "cross_entropy_and_nuclear"

    def at(self, eps: float) -> Method:
        """Return the row with its step size in pixel units, and its beta, at the radius eps."""
        step = eps if isinstance(self.step, str) else step_at(self.step, eps)
        return replace(self, step=step, beta=align_at(eps) if isinstance(self.beta, str) else self.beta)

    def after(self, updates: int, total: int) -> Method:
        """Return the row as it is in the next of so many updates."""
        assert not isinstance(self.beta, str)
        return replace(self, beta=self.beta * (updates + 1) / total) if self.ramp else self


def align_at(eps: float) -> float:
    """Return GradAlign's weight: 0.02 exp(255 eps ln(10) / 8), that is 0.2 at 8/255 and 2 at 16/255, and 2 beyond.

    Source: Andriushchenko & Flammarion (2020), the authors' experiments, which end at 16/255.
    """
    return 0.02 * math.exp(min(255 * eps, 16) * math.log(10) / 8)


METHODS: dict[str, Method] = {
    # Cross entropy on the clean images: no perturbation at all.
    "natural": Method(start="zero", inner="cross_entropy", steps=0, step=EPS, outer="natural"),
    # Madry et al. (2018), eq. (1.1). 10 steps of 2/255 (section 5.1), from a uniform start as in Madry et al.
    "at": Method(start="uniform", inner="cross_entropy", steps=10, step=2 / 255, outer="adversarial"),
    # Wong et al. (2020), eq. (3.2), step 10/255 (section 4.1).
    # Differs from the paper: the authors' script defaults to 0.031; Figure 1 and Table 2 use 10/255.
    "fast-at": Method(start="uniform", inner="cross_entropy", steps=1, step=10 / 255, outer="adversarial"),
    # Zhang et al. (2019), eq. (1.2). 10 steps of 2/255, beta 6 (section 5.1), their Gaussian start.
    "trades": Method(start="gaussian", inner="kl_to_clean", steps=10, step=2 / 255, outer="trades", beta=6.0),
    # Section 4.2, eq. (4.2).
    # Differs from the paper: it states neither beta nor the step of 2 steps; the authors' script has 6 and eps.
    "fast-trades": Method(start="uniform", inner="kl_to_clean", steps=1, step=EPS, outer="trades", beta=6.0),
    "fast-trades-2": Method(start="uniform", inner="kl_to_clean", steps=2, step=EPS, outer="trades", beta=6.0),
    # Algorithm 1: eq. (4.4), (4.5); gamma 1, beta 10, step eps (section 5.1).
    # Differs from the paper: the authors' script defaults to beta 6; and xi + delta together stay in the ball.
    "bs": Method(start="backward", inner="kl_to_clean", steps=1, step=EPS, outer="trades", beta=10.0),
    # Appendix B.2: the start (4.4) alone, no ascent (no code was published: our reading).
    "bs-alone": Method(start="backward", inner="kl_to_clean", steps=0, step=EPS, outer="trades", beta=10.0),
    # Section 5.4: the start (4.4) for Fast AT (no code was published: our reading).
    "bs-at": Method(start="backward", inner="cross_entropy", steps=1, step=EPS, outer="adversarial"),
    # Li et al. (2020): Fast AT, rescued by PGD while it collapses (no code was published: our reading).
    "fast-at-plus": Method(
        start="uniform", inner="cross_entropy", steps=1, step=10 / 255, outer="adversarial", rescue="at"
    ),
    # --- What the paper does not have.
    # de Jorge et al. (2022): twice the noise, one step, and back to the images only, not to the ball.
    # Differs: the authors perturb in train mode, here in eval mode as all rows.
    "n-fgsm": Method(start="noise", inner="cross_entropy", steps=1, step=EPS, outer="adversarial", bound=None),
    # LIET, the authors' code at 8/255.
    # Differs: no label smoothing (theirs is 0.6; a flag); f at the start is passed once for the step, in eval mode, and
    # once more for the loss, where they pass it once; beyond 8/255 they have other numbers and project to [0, 1] only.
    "liet": Method(
        start="label-pattern", inner="cross_entropy", steps=1, step=EPS, outer="consistent", beta=100.0, ramp=True
    ),
    # Andriushchenko & Flammarion (2020): FGSM from the image, and the gradient at x along that near x.
    # Differs: they take the step's gradient for the one at x, in train mode; here the step is made in eval mode as in
    # all rows, so that f(x) is passed once more, forward and back. Where a gradient is zero the image adds nothing to
    # the mean; they leave it out.
    "gradalign": Method(start="zero", inner="cross_entropy", steps=1, step=EPS, outer="aligned", beta=ALIGN),
    # Shafahi et al. (2019), 8 replays as Wong et al. (2020): each update moves delta too. An epoch is 8 of the others'.
    "free-at": Method(start="kept", inner="cross_entropy", steps=0, step=EPS, outer="adversarial", replays=8),
    # Wang et al. (2020): lambda 5; their step is 0.007, here that of `at` and `trades`.
    "mart": Method(start="gaussian", inner="cross_entropy", steps=10, step=2 / 255, outer="mart", beta=5.0),
    # Sriramanan et al. (2021): lambda up to 4.5.
    # Differs: their attack has the nuclear norm in every second update only, and perturbs in train mode.
    "nuat": Method(
        start="bernoulli", inner="cross_entropy_and_nuclear", steps=1, step=EPS, outer="nuclear", beta=4.5, ramp=True
    ),
}


def climb_cross_entropy(clean_logits: Tensor, y: Tensor, beta: float) -> Objective:
    """Return the objective L(f(x'), y). Source: eq. (3.1)."""
    return lambda logits: cross_entropy(logits, y)


def climb_kl_to_clean(clean_logits: Tensor, y: Tensor, beta: float) -> Objective:
    """Return the objective KL(s(f(x)) || s(f(x'))), f(x) fixed. Source: eq. (4.1)."""
    return lambda logits: kl(clean_logits, logits)


def climb_cross_entropy_and_nuclear(clean_logits: Tensor, y: Tensor, beta: float) -> Objective:
    """Return the objective L(f(x'), y) + beta |f(x') - f(x)|_* / N. Source: Sriramanan et al. (2021), NuAT."""
    return lambda logits: cross_entropy(logits, y) + beta * nuclear(logits - clean_logits)


INNER: dict[str, Callable[[Tensor, Tensor, float], Objective]] = {
    "cross_entropy": climb_cross_entropy,
    "kl_to_clean": climb_kl_to_clean,
    "cross_entropy_and_nuclear": climb_cross_entropy_and_nuclear,
}
NEEDS_CLEAN = ("kl_to_clean", "cross_entropy_and_nuclear")  # an inner objective that looks at f(x)


@dataclass(frozen=True)
class Moved:
    """The images that the outer loss is taken at, (N, C, H, W): x + xi*, x_adv = x + xi* + delta*, and the ball."""

    start: Tensor
    x_adv: Tensor
    ball: Ball


def perturb(
    method: Method, model: Model, x: Tensor, y: Tensor, eps: float, draws: Draws, memory: Memory | None = None
) -> Moved:
    """Return the inner maximisation of images x (N, C, H, W).

    `method.step` is in pixel units (`Method.at`); the model is in eval mode, as in the authors' code. Starts that
    remember do so in `memory`.
    Source: Algorithm 1, lines 5 and 6.
    """
    if method.start == "zero" and method.steps == 0:
        return Moved(x, x, ball_around(x, eps))
    begun = begin(method, model, x, y, eps, draws, memory)
    return Moved(begun.x, climb(method, model, begun, y), begun.ball)


@dataclass(frozen=True)
class Begun:
    """An inner maximisation before its first step: x + xi*, (N, C, H, W), the clean batch, and the ball around it."""

    x: Tensor
    clean: Clean
    ball: Ball


def begin(
    method: Method, model: Model, x: Tensor, y: Tensor, eps: float, draws: Draws, memory: Memory | None = None
) -> Begun:
    """Return the start x + xi*. Source: Algorithm 1, line 5."""
    assert not isinstance(method.step, str)
    ball = ball_around(x, math.inf if method.bound is None else method.bound * eps)
    clean = _clean(method, model, x)  # f(x) once, for (4.3), (4.4) and (4.5)
    given = Given(eps, method.step, y, model, method.gamma, method.noise, memory or Memory())
    return Begun(STARTS[method.start](clean, ball, draws, given), clean, ball)  # (4.4)


def climb(method: Method, model: Model, begun: Begun, y: Tensor) -> Tensor:
    """Return x + xi* + delta*, after the ascent. Source: Algorithm 1, line 6."""
    assert not isinstance(method.step, str) and not isinstance(method.beta, str)
    objective = INNER[method.inner](begun.clean.logits.detach(), y, method.beta)
    return ascend(objective, model, begun.x, begun.ball, method.step, method.steps)  # (4.5)


def _clean(method: Method, model: Model, x: Tensor) -> Clean:
    """Run f(x) only if somebody needs it, and keep its graph only for the backward start."""
    if method.start == "backward":
        leaf = x.detach().requires_grad_()
        return Clean(leaf, model(leaf))
    if method.inner in NEEDS_CLEAN and method.steps:
        with torch.no_grad():
            return Clean(x, model(x))
    return Clean(x, x)
