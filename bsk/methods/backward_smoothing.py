"""Backward Smoothing, the paper's Algorithm 1, and the TRADES family to which it belongs."""

from __future__ import annotations

import torch
from torch import Tensor

from bsk.contract.method import Losses
from bsk.contract.network import Network
from bsk.perturb.ascent import ascend, sign_step
from bsk.perturb.ball import ball_around
from bsk.perturb.draws import Draws
from bsk.perturb.losses import kl
from bsk.perturb.radius import EPS, paper_step
from bsk.perturb.starts import begin


def backward_smoothing(
    net: Network,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    draws: Draws,
    start: str = "backward",
    step: float = EPS,
    steps: int = 1,
    gamma: float = 1.0,
    beta: float = 10.0,
) -> Losses:
    """Algorithm 1: a random point in output space, a step towards it, an ascent step, and the TRADES loss.

    `bs-alone` takes no ascent step (appendix B.2); no code was published for it, so this is our reading.

    Args:
        start: starting point of the perturbation; any other than backward gives TRADES from that start.
        step: size of both steps, in pixels.
        steps: number of ascent steps after the start.
        gamma: amplitude of the random point in output space, eq. (4.3).
        beta: weight of the KL term, eq. (1.2).

    Source: Chen et al. (2022), Algorithm 1; gamma 1, beta 10, step eps (section 5.1).
    Differs from the paper: as in the authors' code, xi + delta stays in the ball, and the start uses the attack's step
    size. Their script defaults to beta 6 and computes f(x) twice in the same mode; here once, equal but cheaper.
    """
    if start != "backward":
        return trades(net, x, y, eps=eps, draws=draws, start=start, step=step, steps=steps, gamma=gamma, beta=beta)
    ball = ball_around(x, eps)
    with net.frozen() as f:
        leaf = x.detach().requires_grad_()
        z = f(leaf)  # f(x), once for (4.3), (4.4) and (4.5)
        target = z.detach() + gamma * draws.uniform(z.detach())  # line 5, (4.3), psi ~ U(-1, 1)
        x_start = sign_step(-kl(target, z), leaf, ball, step)  # line 5, (4.4): x + xi*
        x_adv = ascend(lambda out: kl(z.detach(), out), f, x_start, ball, step, steps)  # line 6, (4.5)
    return trades_loss(net, x, y, x_start, x_adv, beta)  # line 7


def trades(
    net: Network,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    draws: Draws,
    start: str = "gaussian",
    step: float = paper_step(2 / 255),
    steps: int = 10,
    gamma: float = 1.0,
    beta: float = 6.0,
) -> Losses:
    """TRADES: ascent on the KL divergence from the clean output, eq. (4.1); with a uniform start Fast TRADES, (4.2).

    Args:
        start: starting point of the perturbation: zero, uniform, gaussian, backward, noise or bernoulli.
        step: step size, in pixels.
        steps: number of ascent steps.
        gamma: amplitude of the random point in output space, for the backward start.
        beta: weight of the KL term, eq. (1.2).

    Source: Zhang et al. (2019); section 5.1: 10 steps of 2/255, beta 6.
    Differs from the paper: its tables state neither beta nor step size of Fast TRADES; the authors' script: 6 and eps.
    """
    ball = ball_around(x, eps)
    with net.frozen() as f:
        x_start, z = begin(start, f, x, ball, draws, eps=eps, step=step, gamma=gamma)
        x_adv = x_start
        if steps:
            with torch.no_grad():
                clean = f(x) if z is None else z  # f(x), once
            x_adv = ascend(lambda out: kl(clean, out), f, x_start, ball, step, steps)  # (4.1)
    return trades_loss(net, x, y, x_start, x_adv, beta)


def trades_loss(net: Network, x: Tensor, y: Tensor, x_start: Tensor, x_adv: Tensor, beta: float) -> Losses:
    """Return L(f(x), y) + beta KL(s(f(x)) || s(f(x_adv))), with one clean pass for both terms.

    The gradient flows through both arguments of the divergence.
    Source: eq. (1.2); Algorithm 1, line 7.
    """
    z = net(x)
    natural, robust = net.cross_entropy(z, y), kl(z, net(x_adv))
    return Losses(natural + beta * robust, natural, robust, x_start, x_adv)
