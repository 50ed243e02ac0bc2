"""Perturbations that continue from earlier ones: of the same image, of all images, or of the class."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from bsk.contract.method import BatchMemory, Losses
from bsk.contract.network import Network
from bsk.perturb.ball import ball_around, per_image
from bsk.perturb.draws import Draws
from bsk.perturb.gradients import raw_gradient
from bsk.perturb.losses import input_gradient, softmax, squared_distance
from bsk.perturb.radius import EPS, paper_step
from bsk.perturb.starts import coins

TINY = 1e-30  # avoids 0 / 0 if a batch has no gradient at all


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
    """L(f(x_adv), y) + beta |f(x_adv) - f(x + prior)|^2 / classes, one step from a prior kept for each image.

    The prior is the perturbation of the previous epoch, moved along the momentum of the image's gradients. As in the
    authors' code, it does not follow the image's crops and flips.

    Args:
        step: size of the step from the prior, and of the prior's own step, in pixels.
        decay: decay factor of the momentum.
        beta: weight of the squared distance of the logits.
        reset: number of epochs after which the priors start again from random signs times eps.

    Source: Jia et al. (2022), "Prior-guided adversarial initialization", FGSM-MEP: the authors' code for CIFAR-10. They
    smooth the labels so that the true class gets 0.6 of the weight; with 10 classes that is --label-smoothing 0.444.
    """
    ball, fresh = ball_around(x, eps), per_image(memory.first_in(epoch // reset), x)
    prior = torch.where(fresh, eps * draws.uniform(x).sign(), memory.rows("prior", x))
    momentum = memory.rows("momentum", x).masked_fill(fresh, 0.0)
    start = (x + prior).requires_grad_()
    z = net(start)
    g = raw_gradient(net.cross_entropy(z, y), start, keep=True)
    momentum = g / g.abs().sum().clamp(min=TINY) + decay * momentum
    x_adv = ball.project(start.detach() + step * g.sign())
    memory.keep("prior", ball.project(start.detach() + step * momentum.sign()) - x)
    memory.keep("momentum", momentum)
    z_adv = net(x_adv)
    robust = net.cross_entropy(z_adv, y)
    return Losses(robust + beta * squared_distance(z_adv, z) / z.shape[1], None, robust, start.detach(), x_adv)


def pco(
    net: Network,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    draws: Draws,
    memory: BatchMemory,
    step: float = EPS,
    stretch: float = 1.5,
    beta: float = 10.0,
) -> Losses:
    """L(f(x_mid), y) + beta | |f(x_adv) - f(x_start)|^2 - |f(x_adv) - f(x_mid)|^2 | / classes, means over the batch.

    x_start has the image's perturbation of the previous epoch, x_adv is one step from there, and x_mid = (1 - p)
    x_start + p (x + stretch (x_adv - x)) with p = s(f(x_start))_y, through which the gradient flows.

    Args:
        step: size of the step from the prior, in pixels.
        stretch: factor of the perturbation in x_mid, which may leave the ball and [0, 1].
        beta: weight of the difference of the squared distances.

    Source: Wang et al. (2024), "Preventing catastrophic overfitting in fast adversarial training: a bi-level
    optimization perspective": the authors' code for CIFAR-10. They smooth the labels as in `fgsm-pgi`.
    """
    ball, fresh = ball_around(x, eps), per_image(memory.first_in(0), x)
    prior = torch.where(fresh, eps * coins(draws.uniform(x)), memory.rows("prior", x))
    x_start = (x + prior).requires_grad_()
    z = net(x_start)
    g = raw_gradient(net.cross_entropy(z, y), x_start, keep=True)
    x_adv = ball.project(x_start.detach() + step * g.sign())
    memory.keep("prior", x_adv - x)
    p = per_image(softmax(z).gather(1, y[:, None]).squeeze(1), x)
    z_mid = net((1 - p) * x_start.detach() + p * (x + stretch * (x_adv - x)))
    z_adv = net(x_adv)
    robust = net.cross_entropy(z_mid, y)
    apart = squared_distance(z_adv, z).mean() - squared_distance(z_adv, z_mid).mean()
    return Losses(robust + beta * apart.abs() / z.shape[1], None, robust, x_start.detach(), x_adv)


def atas(
    net: Network,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    draws: Draws,
    memory: BatchMemory,
    epoch: int,
    c: float = 1.28,
    decay: float = 0.5,
    least: float = 0.5,
    most: float = 1.75,
    warmup_epochs: int = 5,
    reset: int = 10,
) -> Losses:
    """L(f(x_adv), y) after a step of 2 eps c / (c + sqrt(v)), with v the moving mean of the squared gradient norm.

    Args:
        c: gradient norm of an image for which its step is eps; the authors' 0.01 for the mean loss of 128 images.
        decay: decay factor of the moving mean.
        least: smallest step, in units of eps.
        most: largest step, in units of eps.
        warmup_epochs: number of first epochs, in which all steps are eps.
        reset: every so many epochs, counted from 1, the perturbations start again, uniform in the ball.

    Source: Huang et al. (2022), "Fast adversarial training with adaptive step size": the authors' code for CIFAR-10.
    Differs: in their code the perturbation follows the image's crop and flip, and does not restart in the last epoch;
    here a method does not see how images were augmented. Their steps do not scale with eps.
    """
    ball, fresh = ball_around(x, eps), per_image(memory.first_in((epoch + 1) // reset), x)
    x_start = (x + torch.where(fresh, eps * draws.uniform(x), memory.rows("delta", x))).clamp(0.0, 1.0)
    with net.frozen() as f:
        g = input_gradient(f, x_start, y)
    squares, late = g.flatten(1).square().sum(dim=1), float(epoch >= warmup_epochs)
    v = late * (decay * memory.rows("v", squares) + (1 - decay) * squares)
    memory.keep("v", v)
    size = (2 * eps * c / (c + v.sqrt())).clamp(least * eps, most * eps) if late else torch.full_like(v, eps)
    x_adv = ball.project(x_start + per_image(size, x) * g.sign())
    memory.keep("delta", x_adv - x)
    robust = net.cross_entropy(net(x_adv), y)
    return Losses(robust, None, robust, x_start, x_adv)


def uap(
    net: Network,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    draws: Draws,
    memory: BatchMemory,
    step: float = EPS,
    reach: float = paper_step(10 / 255),
    decay: float = 0.3,
    beta: float = 10.0,
    classwise: bool = False,
) -> Losses:
    """L(f(x_adv), y) + beta |f(x_adv) - f(x + u)|^2 / classes, one step from a universal perturbation u.

    Every batch moves u by `reach` along the sign of the momentum of the mean gradient.

    Args:
        step: size of the step from u, in pixels.
        reach: largest absolute value of u, and the size of its own step, in pixels; x + u is projected onto the ball.
        decay: decay factor of the momentum.
        beta: weight of the squared distance of the logits.
        classwise: one u per class, updated by its own images.

    Source: Pan et al. (2024), "Adversarial initialization with universal adversarial perturbation": the authors' code
    for CIFAR-10. They smooth the labels by 0.4 and average the weights, as --label-smoothing and --ema do.
    """
    ball, kept = ball_around(x, eps), memory.shared
    if "u" not in kept:
        size = (memory.classes if classwise else 1, *x.shape[1:])
        kept["u"] = reach * coins(draws.shared(x[:1, 0, 0, 0], torch.Size(size).numel())[:, 0].view(size))
        kept["momentum"] = torch.zeros_like(kept["u"])
    group = y if classwise else torch.zeros_like(y)
    x_start = ball.project(x + kept["u"][group]).requires_grad_()
    z = net(x_start)
    g = raw_gradient(net.cross_entropy(z, y), x_start, keep=True)
    x_adv = ball.project(x_start.detach() + step * g.sign())
    z_adv = net(x_adv)
    of = F.one_hot(group, len(kept["u"])).to(g)  # (N, groups); a matrix product is deterministic on a GPU too
    sums = (of.T @ (g / g.abs().sum().clamp(min=TINY)).flatten(1)).view_as(kept["u"])
    counts = of.sum(dim=0)
    momentum = sums / per_image(counts.clamp(min=1), sums) + decay * kept["momentum"]
    moved, seen = (kept["u"] + reach * momentum.sign()).clamp(-reach, reach), per_image(counts, sums) > 0
    new = {"u": moved, "momentum": momentum}
    memory.shared |= {name: torch.where(seen, tensor, kept[name]) for name, tensor in new.items()}
    robust = net.cross_entropy(z_adv, y)
    return Losses(robust + beta * squared_distance(z_adv, z) / z.shape[1], None, robust, x_start.detach(), x_adv)
