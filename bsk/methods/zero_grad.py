"""ZeroGrad and MultiGrad: a step that skips values with unreliable gradients (Golgooni et al. 2021)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bsk.contract.method import Losses
from bsk.contract.network import Network
from bsk.perturb.ball import ball_around, per_image
from bsk.perturb.draws import Draws
from bsk.perturb.losses import input_gradient
from bsk.perturb.radius import paper_step
from bsk.perturb.starts import noisy


def zero_grad(
    net: Network,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    draws: Draws,
    share: float = 0.4,
    step: float = paper_step(16 / 255),
) -> Losses:
    """FGSM from a uniform start; the values with the smallest gradients do not move.

    Args:
        share: fraction of an image's values that do not move.
        step: size of the single step, in pixels.

    Source: Golgooni et al. (2021), "ZeroGrad": the authors' code for CIFAR-10; FastAT_Benchmark uses 0.35.
    Differs: the authors perturb in train mode, here in eval mode; see `n-fgsm`.
    """
    with net.frozen() as f:
        x_start = noisy(x, eps, draws, 1.0)
        g = input_gradient(f, x_start, y)
        sizes = g.abs().flatten(1)
        least = sizes.kthvalue(1 + math.ceil(share * (sizes.shape[1] - 1)), dim=1).values  # rounded up
        x_adv = ball_around(x, eps).project(x_start + step * torch.where(g.abs() < per_image(least, g), 0.0, g.sign()))
    robust = net.cross_entropy(net(x_adv), y)
    return Losses(robust, None, robust, x_start, x_adv)


def multi_grad(
    net: Network,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    draws: Draws,
    samples: int = 3,
    step: float = paper_step(16 / 255),
) -> Losses:
    """FGSM from the image; a value moves only if its gradients at several random points all have the same sign.

    Args:
        samples: number of random points.
        step: size of the single step, in pixels.

    Source: Golgooni et al. (2021), "ZeroGrad", MultiGrad: the authors' code for CIFAR-10.
    Differs: the authors perturb in train mode, here in eval mode; see `n-fgsm`.
    """
    with net.frozen() as f:
        signs = [input_gradient(f, noisy(x, eps, draws, 1.0), y).sign() for _ in range(samples)]
        total = torch.stack(signs).sum(dim=0)
        x_adv = ball_around(x, eps).project(x + step * torch.where(total.abs() < samples, 0.0, total.sign()))
    robust = net.cross_entropy(net(x_adv), y)
    return Losses(robust, None, robust, x, x_adv)
