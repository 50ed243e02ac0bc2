"""LIET: starting points that hide the label, and outputs that change little over the step (Pan et al. 2025)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bsk.contract.method import BatchMemory, Losses
from bsk.contract.network import Network
from bsk.perturb.ascent import sign_step
from bsk.perturb.ball import ball_around, per_image
from bsk.perturb.draws import Draws
from bsk.perturb.losses import input_gradient, jensen_shannon
from bsk.perturb.radius import EPS
from bsk.perturb.starts import coins


def liet(
    net: Network,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    draws: Draws,
    memory: BatchMemory,
    update: int,
    progress: float,
    step: float = EPS,
    beta: float = 100.0,
    ramp: bool = True,
    noise: float = 1.0,
    least: float = 0.1,
    most: float = 0.5,
    bound: float | None = 1.0,
    every: int = 10,
) -> Losses:
    """L(f(x_adv), y) + beta JS(s(f(x + xi)), s(f(x_adv))), with a start xi made from a pattern of the label.

    A label's pattern is the sign of the gradient of L(f(grey), label) at the image that is 0.5 everywhere. It is added
    or subtracted at random, with a random fraction of its values replaced by noise, so that the network cannot read the
    label from the perturbation. The forward pass at the start serves both the step and the loss.

    Args:
        step: size of the single step, in pixels.
        beta: weight of the Jensen-Shannon divergence.
        ramp: increase the weight from 0 to beta over the training.
        noise: amplitude of the noise, in units of eps.
        least: smallest fraction of an image's values that are noise.
        most: largest fraction of an image's values that are noise.
        bound: maximum distance of x' from x, in units of eps; none: anywhere in [0, 1].
        every: updates after which the patterns are computed again.

    Source: Pan et al. (2025), the authors' code for CIFAR-10 at 8/255. A label keeps 0.4 there, as with
    `--label-smoothing 0.667`, and the rest is spread unequally over the wrong classes.
    Differs: these defaults hold everywhere. For CIFAR-100 they use beta 200, `every` 20 and labels that keep 0.2; above
    8/255 beta 20, noise 2, fractions from 0 to 1, no bound, labels that keep 0.6. They raise the weight by epoch.
    """
    if update % every == 0 or "pattern" not in memory.shared:
        memory.shared["pattern"] = _patterns(net, x)
    mask, share, way = draws.uniform(x), *draws.shared(x, 2)
    noisy = (mask + 1) / 2 < per_image(least + (most - least) * (share + 1) / 2, x)
    delta = eps * torch.where(noisy, noise * draws.uniform(x), memory.shared["pattern"][y])
    start = (x + per_image(coins(way), x) * delta).clamp(0.0, 1.0).requires_grad_()
    z = net(start)
    region = ball_around(x, math.inf if bound is None else bound * eps)
    x_adv = sign_step(net.cross_entropy(z, y), start, region, step, keep=True)
    z_adv = net(x_adv)
    robust = net.cross_entropy(z_adv, y)
    weight = beta * (progress if ramp else 1.0)
    return Losses(robust + weight * jensen_shannon(z, z_adv), None, robust, start.detach(), x_adv)


def _patterns(net: Network, x: Tensor) -> Tensor:
    """Return for each label the sign of the gradient at a grey image: (classes, C, H, W)."""
    with net.frozen() as f:
        with torch.no_grad():
            classes = f(torch.full_like(x[:1], 0.5)).shape[1]
        grey = torch.full_like(x[:1].expand(classes, -1, -1, -1), 0.5)
        return input_gradient(f, grey, torch.arange(classes, device=x.device), loss=net.cross_entropy).sign()
