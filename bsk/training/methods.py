"""THE TABLE OF METHODS: each a start, an inner objective climbed some steps, an outer loss.

The paper's own analysis says that this is all there is to a method; a new variant is a row, or flags.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bsk.perturb.ascent import Model, Objective, ascend
from bsk.perturb.ball import Ball, ball_around
from bsk.perturb.draws import Draws
from bsk.perturb.losses import cross_entropy, kl
from bsk.perturb.radius import step_at
from bsk.perturb.starts import STARTS, Clean

EPS = "eps"  # a step size equal to the radius


@dataclass(frozen=True)
class Method:
    """A row of the table.

    Attributes:
        start: where the inner maximisation starts, a name in STARTS.
        inner: the objective it climbs, a name in INNER.
        steps: how many sign-gradient steps.
        step: their size in pixel units at the paper's radius (see `step_at`), or EPS.
        outer: the loss that training descends, a name in OUTER.
        beta: weight of the KL term of TRADES.
        gamma: size of the random point in output space, for the backward start.
        rescue: the row that takes over for `rescue_every` updates when the accuracy under PGD-10 on a batch
            of validation images has fallen by more than `rescue_drop` since the check before.
    """

    start: str
    inner: str
    steps: int
    step: float | str
    outer: str
    beta: float = 6.0
    gamma: float = 1.0
    rescue: str | None = None
    rescue_every: int = 20
    rescue_drop: float = 0.10

    def at(self, eps: float) -> Method:
        """Return the row with its step size in pixel units at the radius eps."""
        return replace(self, step=eps if isinstance(self.step, str) else step_at(self.step, eps))


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
}


def climb_cross_entropy(clean_logits: Tensor, y: Tensor) -> Objective:
    """Return the objective L(f(x'), y). Source: eq. (3.1)."""
    return lambda logits: cross_entropy(logits, y)


def climb_kl_to_clean(clean_logits: Tensor, y: Tensor) -> Objective:
    """Return the objective KL(s(f(x)) || s(f(x'))), f(x) fixed. Source: eq. (4.1)."""
    return lambda logits: kl(clean_logits, logits)


INNER: dict[str, Callable[[Tensor, Tensor], Objective]] = {
    "cross_entropy": climb_cross_entropy,
    "kl_to_clean": climb_kl_to_clean,
}


def perturb(method: Method, model: Model, x: Tensor, y: Tensor, eps: float, draws: Draws) -> Tensor:
    """Return x_adv = x + xi* + delta*, the images (N, C, H, W) that the outer loss is taken at.

    `method.step` is in pixel units (`Method.at`); the model is in eval mode, as in the authors' code.
    Source: Algorithm 1, lines 5 and 6.
    """
    if method.start == "zero" and method.steps == 0:
        return x
    return climb(method, model, begin(method, model, x, eps, draws), y)


@dataclass(frozen=True)
class Begun:
    """An inner maximisation before its first step: x + xi*, (N, C, H, W), the clean batch, and the ball around it."""

    x: Tensor
    clean: Clean
    ball: Ball


def begin(method: Method, model: Model, x: Tensor, eps: float, draws: Draws) -> Begun:
    """Return the start x + xi*. Source: Algorithm 1, line 5."""
    assert not isinstance(method.step, str)
    ball = ball_around(x, eps)
    clean = _clean(method, model, x)  # f(x) once, for (4.3), (4.4) and (4.5)
    start = STARTS[method.start]
    return Begun(start(clean, ball, draws, eps=eps, gamma=method.gamma, step=method.step), clean, ball)  # (4.4)


def climb(method: Method, model: Model, begun: Begun, y: Tensor) -> Tensor:
    """Return x + xi* + delta*, after the ascent. Source: Algorithm 1, line 6."""
    assert not isinstance(method.step, str)
    objective = INNER[method.inner](begun.clean.logits.detach(), y)
    return ascend(objective, model, begun.x, begun.ball, method.step, method.steps)  # (4.5)


def _clean(method: Method, model: Model, x: Tensor) -> Clean:
    """Run f(x) only if somebody needs it, and keep its graph only for the backward start."""
    if method.start == "backward":
        leaf = x.detach().requires_grad_()
        return Clean(leaf, model(leaf))
    if method.inner == "kl_to_clean":
        with torch.no_grad():
            return Clean(x, model(x))
    return Clean(x, x)


@dataclass(frozen=True)
class Losses:
    """The outer loss an example, (N,), and its parts; a part that the method has not is None."""

    total: Tensor
    natural: Tensor | None
    robust: Tensor | None


def natural_loss(model: Model, x: Tensor, x_adv: Tensor, y: Tensor, beta: float) -> Losses:
    """Return L(f(x), y)."""
    loss = cross_entropy(model(x), y)
    return Losses(loss, loss, None)


def adversarial_loss(model: Model, x: Tensor, x_adv: Tensor, y: Tensor, beta: float) -> Losses:
    """Return L(f(x_adv), y). Source: eq. (1.1)."""
    loss = cross_entropy(model(x_adv), y)
    return Losses(loss, None, loss)


def trades_loss(model: Model, x: Tensor, x_adv: Tensor, y: Tensor, beta: float) -> Losses:
    """Return L(f(x), y) + beta KL(s(f(x)) || s(f(x_adv))), one clean forward for both terms.

    The gradient flows through both arguments of the divergence.
    Source: eq. (1.2); Algorithm 1, line 7.
    """
    z = model(x)
    natural, robust = cross_entropy(z, y), kl(z, model(x_adv))
    return Losses(natural + beta * robust, natural, robust)


OUTER: dict[str, Callable[[Model, Tensor, Tensor, Tensor, float], Losses]] = {
    "natural": natural_loss,
    "adversarial": adversarial_loss,
    "trades": trades_loss,
}
