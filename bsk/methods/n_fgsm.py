"""N-FGSM: twice the noise, one step, and no projection onto the ball (de Jorge et al. 2022)."""

from __future__ import annotations

import math

from torch import Tensor

from bsk.contract.method import Losses
from bsk.contract.network import Network
from bsk.perturb.ascent import ascend
from bsk.perturb.ball import ball_around
from bsk.perturb.draws import Draws
from bsk.perturb.losses import cross_entropy
from bsk.perturb.radius import EPS
from bsk.perturb.starts import noisy


def n_fgsm(
    net: Network,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    draws: Draws,
    noise: float = 2.0,
    steps: int = 1,
    step: float = EPS,
    bound: float | None = None,
) -> Losses:
    """FGSM after strong noise; x' is clipped to [0, 1] only.

    Args:
        noise: amplitude of the noise, in units of eps.
        steps: number of sign-gradient steps.
        step: step size, in pixels.
        bound: maximum distance of x' from x, in units of eps; none: anywhere in [0, 1].

    Source: de Jorge et al. (2022), "Make some noise".
    Differs: the authors perturb in train mode, here in eval mode, so that only starts and losses differ.
    """
    region = ball_around(x, math.inf if bound is None else bound * eps)
    with net.frozen() as f:
        x_start = noisy(x, eps, draws, noise)
        x_adv = ascend(lambda z: cross_entropy(z, y), f, x_start, region, step, steps)
    robust = net.cross_entropy(net(x_adv), y)
    return Losses(robust, None, robust, x_start, x_adv)
