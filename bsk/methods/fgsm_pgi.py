"""FGSM-PGI: each image's perturbation starts where its last one was going, by momentum (Jia et al. 2022)."""

from __future__ import annotations

import torch
from torch import Tensor

from bsk.methods.contract import BatchMemory, Losses
from bsk.methods.network import Network
from bsk.perturb.ball import ball_around
from bsk.perturb.draws import Draws
from bsk.perturb.gradients import raw_gradient
from bsk.perturb.losses import squared_distance
from bsk.perturb.radius import EPS


def fgsm_pgi(
    net: Network,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    draws: Draws,
    memory: BatchMemory,
    epoch: int,
    step: float = EPS,
    decay: float = 0.3,
    beta: float = 10.0,
    reset: int = 40,
) -> Losses:
    """L(f(x_adv), y) + beta |f(x_adv) - f(x + prior)|^2 / classes, one step from the image's own prior.

    The prior is the perturbation of the epoch before, moved along the momentum of the image's gradients. It stays as it
    is where crops and flips move the image, as in the authors' code.

    Args:
        step: size of the step from the prior, in pixels; also of the prior's own step.
        decay: of the momentum.
        beta: weight of the squared distance of the logits.
        reset: epochs after which priors begin anew, at -+ eps.

    Source: Jia et al. (2022), "Prior-guided adversarial initialization", FGSM-MEP: the authors' code for CIFAR-10.
    They smooth the labels: the right one has 0.6 of the weight, as --label-smoothing 0.444 gives it with 10 classes.
    """
    ball, fresh = ball_around(x, eps), epoch % reset == 0
    prior = eps * draws.uniform(x).sign() if fresh else memory.rows("prior", x)
    momentum = torch.zeros_like(x) if fresh else memory.rows("momentum", x)
    start = (x + prior).requires_grad_()
    z = net(start)
    g = raw_gradient(net.cross_entropy(z, y), start, keep=True)
    momentum = g / g.abs().sum() + decay * momentum
    x_adv = ball.project(start.detach() + step * g.sign())
    memory.keep("prior", ball.project(start.detach() + step * momentum.sign()) - x)
    memory.keep("momentum", momentum)
    z_adv = net(x_adv)
    robust = net.cross_entropy(z_adv, y)
    return Losses(robust + beta * squared_distance(z_adv, z) / z.shape[1], None, robust, start.detach(), x_adv)
