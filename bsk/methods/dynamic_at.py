"""Dynamic adversarial training: steps until a perturbation has converged, ever further (Wang et al. 2019)."""

from __future__ import annotations

import torch
from torch import Tensor

from bsk.contract.method import Losses
from bsk.contract.network import Network
from bsk.perturb.ball import ball_around, per_image
from bsk.perturb.draws import Draws
from bsk.perturb.losses import fosc, input_gradient
from bsk.perturb.radius import paper_step
from bsk.perturb.starts import uniform


def dynamic_at(
    net: Network,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    draws: Draws,
    progress: float,
    step: float = paper_step(2 / 255),
    steps: int = 10,
    most: float = 0.5,
    until: float = 5 / 6,
) -> Losses:
    """PGD training in which an image stays where its FOSC is at most a limit; the limit falls to 0.

    Args:
        step: size of a step, in pixels.
        steps: the most that an image makes.
        most: the limit of FOSC at the beginning.
        until: the share of the training after which it is 0.

    Source: Wang et al. (2019), "On the convergence and robustness of adversarial training", Algorithm 1 and eq. (4);
    100 of 120 epochs.
    Differs: FOSC is that of the ball around the image, as the paper has it; the authors' code takes the ball around the
    random start, and weights each loss by itself, of which the paper says nothing. The limit falls with every update,
    theirs with every epoch; [0, 1] does not count in it.
    """
    ball, limit = ball_around(x, eps), most * max(1 - progress / until, 0.0)
    with net.frozen() as f:
        x_adv = x_start = uniform(x, eps, draws)
        moving = torch.ones_like(y, dtype=torch.bool)
        for k in range(steps):
            g = input_gradient(f, x_adv, y)
            if k:
                moving = fosc(x_adv - x, g, eps) > limit
            x_adv = torch.where(per_image(moving, x), ball.project(x_adv + step * g.sign()), x_adv)
    robust = net.cross_entropy(net(x_adv), y)
    return Losses(robust, None, robust, x_start, x_adv)
