"""AAER: examples whose loss the attack step lowers are kept from moving the output (Lin et al. 2023)."""

from __future__ import annotations

import math

from torch import Tensor

from bsk.contract.method import Losses
from bsk.contract.network import Network
from bsk.perturb.ascent import sign_step
from bsk.perturb.ball import ball_around
from bsk.perturb.draws import Draws
from bsk.perturb.losses import cross_entropy, squared_distance
from bsk.perturb.radius import ABNORMAL_RS, paper_step
from bsk.perturb.starts import noisy


def aaer(
    net: Network,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    draws: Draws,
    noise: float = 1.0,
    step: float = paper_step(10 / 255),
    beta: float = ABNORMAL_RS,
    bound: float | None = 1.0,
) -> Losses:
    """L(f(x_adv), y) + beta share max(d(abnormal) - d(normal), 0), with d the mean of |f(x_adv) - f(x_start)|^2.

    Examples are abnormal if the step lowers their loss; `share` is their fraction of the batch. Only their f(x_adv)
    receives the gradient of the regulariser.

    Args:
        noise: amplitude of the starting noise, in units of eps.
        step: size of the single step, in pixels.
        beta: weight of the regulariser.
        bound: maximum distance of x' from x, in units of eps; none: anywhere in [0, 1].

    Source: Lin et al. (2023), "Eliminating catastrophic overfitting via abnormal adversarial examples regularization":
    the authors' commands for CIFAR-10, in which beta depends on the radius. Their code also adds the drop in loss of
    the abnormal examples, but as a constant without gradient; it is omitted here.
    """
    region = ball_around(x, math.inf if bound is None else bound * eps)
    x_start = noisy(x, eps, draws, noise).requires_grad_()
    z = net(x_start)
    before = cross_entropy(z, y)
    x_adv = sign_step(before, x_start, region, step)
    z_adv = net(x_adv)
    robust = net.cross_entropy(z_adv, y)
    moved = squared_distance(z_adv, z.detach())
    abnormal = (before.detach() > cross_entropy(z_adv.detach(), y)).to(moved)
    count, others = abnormal.sum(), (1 - abnormal).sum()
    normal = (moved.detach() * (1 - abnormal)).sum() / others.clamp(min=1)
    apart = ((moved * abnormal).sum() / count.clamp(min=1) - normal).clamp(min=0)
    return Losses(robust + beta * (others > 0) * count / len(y) * apart, None, robust, x_start.detach(), x_adv)
