"""Adversarial training: cross entropy on perturbed images (Madry et al. 2018), with one step Fast AT."""

from __future__ import annotations

from torch import Tensor

from bsk.contract.method import Losses
from bsk.contract.network import Network
from bsk.perturb.ascent import ascend
from bsk.perturb.ball import ball_around
from bsk.perturb.draws import Draws
from bsk.perturb.losses import cross_entropy
from bsk.perturb.radius import paper_step
from bsk.perturb.starts import begin


def natural(net: Network, x: Tensor, y: Tensor, *, eps: float, draws: Draws) -> Losses:
    """Cross entropy on the clean images."""
    loss = net.cross_entropy(net(x), y)
    return Losses(loss, loss, None, x, x)


def adversarial(
    net: Network,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    draws: Draws,
    start: str = "uniform",
    steps: int = 1,
    step: float = paper_step(10 / 255),
    gamma: float = 1.0,
) -> Losses:
    """Min-max training, eq. (1.1); with one step from a random start it is Fast AT, eq. (3.2).

    `at` takes 10 steps of 2/255 (section 5.1). `bs-at` starts from the backward start (4.4), as in section 5.4; no code
    was published for it, so this is our reading.

    Args:
        start: starting point of the perturbation: zero, uniform, gaussian, backward, noise or bernoulli.
        steps: number of sign-gradient steps.
        step: step size, in pixels.
        gamma: amplitude of the random point in output space, for the backward start.

    Source: Madry et al. (2018); Wong et al. (2020).
    Differs from the paper: the authors' script of Fast AT defaults to a step of 0.031; Figure 1 and Table 2 use 10/255.
    Wong et al. perturb in train mode, from a start clipped to [0, 1]; here as in the paper's own code.
    """
    ball = ball_around(x, eps)
    with net.frozen() as f:
        x_start, _ = begin(start, f, x, ball, draws, eps=eps, step=step, gamma=gamma)
        x_adv = ascend(lambda z: cross_entropy(z, y), f, x_start, ball, step, steps)  # (3.1)
    robust = net.cross_entropy(net(x_adv), y)
    return Losses(robust, None, robust, x_start, x_adv)
