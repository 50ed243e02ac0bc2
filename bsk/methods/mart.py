"""MART: misclassified images get more weight (Wang et al. 2020)."""

from __future__ import annotations

import torch
from torch import Tensor

from bsk.contract.method import Losses
from bsk.contract.network import Network
from bsk.perturb.ascent import ascend
from bsk.perturb.ball import ball_around
from bsk.perturb.draws import Draws
from bsk.perturb.losses import cross_entropy, kl, softmax
from bsk.perturb.radius import paper_step
from bsk.perturb.starts import begin


def mart(
    net: Network,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    draws: Draws,
    start: str = "gaussian",
    steps: int = 10,
    step: float = paper_step(2 / 255),
    gamma: float = 1.0,
    beta: float = 5.0,
) -> Losses:
    """L(f(x'), y) - log(1.0001 - max_{j != y} p'_j) + beta KL(p || p') (1.0000001 - p_y), with p = s(f(x)).

    Args:
        start: starting point of the perturbation.
        steps: number of sign-gradient steps.
        step: step size, in pixels.
        gamma: amplitude of the random point in output space, for the backward start.
        beta: weight of the KL term.

    Source: Wang et al. (2020), MART, with the constants of their code.
    Differs: their step is 0.007; here it is that of `at` and `trades`, so that only the losses differ.
    """
    ball, label = ball_around(x, eps), y[:, None]
    with net.frozen() as f:
        x_start, _ = begin(start, f, x, ball, draws, eps=eps, step=step, gamma=gamma)
        x_adv = ascend(lambda z: cross_entropy(z, y), f, x_start, ball, step, steps)
    z, z_adv = net(x), net(x_adv)
    wrong = softmax(z_adv).scatter(1, label, 0.0).amax(dim=1)
    robust = net.cross_entropy(z_adv, y) - torch.log(1.0001 - wrong + 1e-12)
    unsure = 1.0000001 - softmax(z).gather(1, label).squeeze(1)
    return Losses(robust + beta * kl(z, z_adv) * unsure, None, robust, x_start, x_adv)
