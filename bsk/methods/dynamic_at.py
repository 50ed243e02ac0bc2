"""Dynamic adversarial training: attack steps until the perturbation has converged far enough (Wang et al. 2019)."""

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
    """PGD training in which an image stops moving once its FOSC is at most a limit; the limit decreases to 0.

    Args:
        step: step size, in pixels.
        steps: maximum number of steps per image.
        most: the limit of FOSC at the beginning.
        until: fraction of the training after which the limit is 0.

    Source: Wang et al. (2019), "On the convergence and robustness of adversarial training", Algorithm 1 and eq. (4);
    the limit reaches 0 after 100 of 120 epochs.
    Differs: FOSC refers to the ball around the image, as in the paper; the authors' code uses the ball around the
    random start, and weights each loss by itself, which the paper does not mention. Here the limit decreases with every
    update, in their code with every epoch. FOSC ignores [0, 1]: images near its ends take all steps.
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
