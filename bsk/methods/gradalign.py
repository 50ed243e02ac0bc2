"""GradAlign: FGSM, and gradients near an image that point as the one at it (Andriushchenko & Flammarion 2020)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from bsk.methods.contract import Losses
from bsk.methods.network import Network
from bsk.perturb.ball import ball_around, per_image
from bsk.perturb.draws import Draws
from bsk.perturb.losses import input_gradient
from bsk.perturb.radius import ALIGN, EPS


def gradalign(
    net: Network, x: Tensor, y: Tensor, *, eps: float, draws: Draws, step: float = EPS, beta: float = ALIGN
) -> Losses:
    """L(f(x_adv), y) + beta (1 - cos(g(x), g(x + eps xi))), g the gradient by the image, xi ~ U(-1, 1).

    The gradient at x makes the step too and is taken as given; the other one is descended through. Both are in train
    mode, as in the authors' code, and in fp32: a gradient of a gradient in less is mostly rounding.

    Args:
        step: size of the one step from the image, in pixels.
        beta: weight of the alignment.

    Source: Andriushchenko & Flammarion (2020).
    Differs: an image of which a gradient is zero adds nothing to the mean; they leave it out of it. So an image's loss
    depends on itself alone, and processes can share a batch.
    """
    near = x + eps * draws.uniform(x)
    g = input_gradient(net.exact, x, y)
    x_adv = ball_around(x, eps).project(x + step * g.sign())
    robust = net.cross_entropy(net(x_adv), y)
    at_x, at_near = g.flatten(1), input_gradient(net.exact, near, y, create_graph=True).flatten(1)
    real = (at_x != 0).any(dim=1) & (at_near.detach() != 0).any(dim=1)
    safe = torch.where(per_image(real, at_near), at_near, torch.ones_like(at_near))
    angle = torch.where(real, 1 - F.cosine_similarity(at_x, safe, dim=1), 0.0)
    return Losses(robust + beta * angle, None, robust, x, x_adv)
