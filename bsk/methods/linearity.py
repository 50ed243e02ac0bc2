"""Losses that are locally linear: by aligned gradients, by three collinear points, or at the worst point."""

from __future__ import annotations

import torch
from torch import Tensor

from bsk.contract.method import Losses
from bsk.contract.network import Network
from bsk.perturb.ascent import ascend, sign_step
from bsk.perturb.ball import ball_around, per_image
from bsk.perturb.draws import Draws
from bsk.perturb.gradients import cosines, raw_gradient
from bsk.perturb.losses import cross_entropy, input_gradient
from bsk.perturb.radius import ALIGN, EPS, STRAIGHT
from bsk.perturb.starts import uniform


def gradalign(
    net: Network, x: Tensor, y: Tensor, *, eps: float, draws: Draws, step: float = EPS, beta: float = ALIGN
) -> Losses:
    """L(f(x_adv), y) + beta (1 - cos(g(x), g(x + eps xi))), with g the gradient at the image and xi ~ U(-1, 1).

    The gradient at x also determines the step and is treated as a constant; the other gradient is differentiated. Both
    are computed in train mode, as in the authors' code, and in fp32, because in fewer bits they are mostly rounding.

    Args:
        step: size of the single step from the image, in pixels.
        beta: weight of the alignment.

    Source: Andriushchenko & Flammarion (2020).
    Differs: an image with a zero gradient adds 0 to the mean; the authors leave it out of the mean. So the loss of an
    image depends on that image alone, and several processes can share a batch.
    """
    near = x + eps * draws.uniform(x)
    g = input_gradient(net.exact, x, y)
    x_adv = ball_around(x, eps).project(x + step * g.sign())
    robust = net.cross_entropy(net(x_adv), y)
    at_x, at_near = g.flatten(1), input_gradient(net.exact, near, y, create_graph=True).flatten(1)
    real = (at_x != 0).any(dim=1) & (at_near.detach() != 0).any(dim=1)
    safe = torch.where(per_image(real, at_near), at_near, torch.ones_like(at_near))
    angle = torch.where(real, 1 - cosines(at_x, safe), 0.0)
    return Losses(robust + beta * angle, None, robust, x, x_adv)


def elle(
    net: Network, x: Tensor, y: Tensor, *, eps: float, draws: Draws, step: float = EPS, beta: float = STRAIGHT
) -> Losses:
    """L(f(x_adv), y) + beta (L(c) - (1 - t) L(a) - t L(b))^2, with random points a, b around x and c between them.

    a and b are x + eps * U(-1, 1), and c = (1 - t) a + t b with t ~ U(0, 1) for each image. Their pass is in fp32: the
    error is small compared with the losses, and in lower precision it would be mostly rounding error.

    Args:
        step: size of the single step from the image, in pixels.
        beta: weight of the squared error.

    Source: Abad Rocamora et al. (2024), "Efficient local linearity regularization", ELLE without adaptation: the
    authors' scripts for CIFAR-10. Their loop takes two SGD steps with every gradient; here it is one.
    Differs: they perturb in train mode, so that running statistics follow x too; x' is clipped here; see `n-fgsm`.
    """
    with net.frozen() as f:
        x_adv = ascend(lambda z: cross_entropy(z, y), f, x, ball_around(x, eps), step, steps=1)
    robust = net.cross_entropy(net(x_adv), y)
    a, b = x + eps * draws.uniform(x), x + eps * draws.uniform(x)
    t = (draws.uniform(x[:, :1, :1, :1]) + 1) / 2
    at_a, at_b, at_c = cross_entropy(net.exact(torch.cat([a, b, (1 - t) * a + t * b])), y.repeat(3)).chunk(3)
    error = at_c - (1 - t.flatten()) * at_a - t.flatten() * at_b
    return Losses(robust + beta * error.square(), None, robust, x, x_adv)


def llr(
    net: Network,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    draws: Draws,
    progress: float,
    step: float = EPS,
    steps: int = 10,
    nominal: float = 2.0,
    beta: float = 4.0,
    slope: float = 0.3,
    growing: float = 0.005,
) -> Losses:
    """Cross entropy L(x) plus beta (|L(x + d) - L(x) - <d, g>| + slope |<d, g>|), with g = grad L(x) and the worst d.

    Args:
        step: step size of the search for d, in pixels.
        steps: number of steps of the search.
        nominal: weight of the cross entropy.
        beta: weight of the two other terms.
        slope: weight of |<d, g>| within them.
        growing: fraction of the training over which the radius grows from 0 to eps.

    Source: Qin et al. (2019), "Adversarial robustness through local linearization": the authors' code for CIFAR-10,
    whose radius grows over 500 of about 100,000 updates.
    Differs: the search takes sign steps of size eps instead of steps of Adam with learning rate 0.1, about three
    radii; batch norms are in eval mode in these passes, as in every attack. In the loss each pass has the statistics of
    its own batch, as in every method here; in their code f(x + d) has those of x, which alone are kept. They train a
    network with softplus. Second-order passes are in fp32. As there, the search treats <d, g> as constant.
    """
    radius = eps * min(progress / growing, 1.0) if growing else eps
    ball = ball_around(x, radius)
    leaf = x.detach().requires_grad_()
    with net.frozen() as f:
        still = cross_entropy(f(leaf), y)
        along = raw_gradient(still, leaf)
        x_adv = x_start = ball.project(uniform(x, radius, draws))
        for _ in range(steps):
            at = x_adv.requires_grad_()
            straight = still.detach() + ((at.detach() - x) * along).flatten(1).sum(dim=1)
            x_adv = sign_step((cross_entropy(f(at), y) - straight).abs(), at, ball, step)
    z = net.exact(leaf)
    natural = cross_entropy(z, y)
    rise = ((x_adv - x) * raw_gradient(natural, leaf, create=True)).flatten(1).sum(dim=1)
    robust = (cross_entropy(net.exact(x_adv), y) - natural - rise).abs()
    total = nominal * net.cross_entropy(z, y) + beta * (robust + slope * rise.abs())
    return Losses(total, natural, robust, x_start.detach(), x_adv)
