"""RS-CS: Fast AT whose loss at the start must not jump from one epoch to the next (Zhao et al. 2023)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bsk.contract.method import BatchMemory, Losses
from bsk.contract.network import Network
from bsk.perturb.ascent import sign_step
from bsk.perturb.ball import ball_around
from bsk.perturb.draws import Draws
from bsk.perturb.losses import cross_entropy
from bsk.perturb.radius import EPS
from bsk.perturb.starts import noisy


def rs_cs(
    net: Network,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    draws: Draws,
    memory: BatchMemory,
    epoch: int,
    step: float = EPS,
    gamma: float = 0.03,
    weight: float = 1.0,
    wait: int = 2,
    bound: float | None = None,
) -> Losses:
    """L(f(x_adv), y) +- weight L(f(x_start), y), if the latter's mean is more than gamma from that of the last epoch.

    The sign is + if the mean is higher than in the last epoch, and - if it is lower: then the network has fitted the
    starting points too fast.

    Args:
        step: size of the single step, in pixels.
        gamma: allowed difference between the loss at the start and its mean in the last epoch.
        weight: weight of the loss at the start.
        wait: number of first epochs without this term.
        bound: maximum distance of x' from x, in units of eps; none: anywhere in [0, 1].

    Source: Zhao et al. (2023), "Fast adversarial training with smooth convergence", FGSM-RS: the authors' code. They
    smooth the labels as in `fgsm-pgi`, and leave the term out in the epochs next to a drop of the learning rate. `wait`
    is that of FastAT_Benchmark. Differs: they compute f at the start again for its loss; here once, as in `gat`.
    """
    kept = memory.shared.get("start", x.new_full((4,), -9.0))  # this epoch, last epoch's mean, sum, count
    mean = torch.where(kept[0] == epoch - 1, kept[2] / kept[3].clamp(min=1), -1.0)  # -1: no mean
    before, sums = (torch.where(kept[0] == epoch, *each) for each in ((kept[1], mean), (kept[2:], kept.new_zeros(2))))
    x_start = noisy(x, eps, draws, 1.0).requires_grad_()
    z = net(x_start)
    region = ball_around(x, math.inf if bound is None else bound * eps)
    x_adv = sign_step(cross_entropy(z, y), x_start, region, step, keep=True)
    robust, near = net.cross_entropy(net(x_adv), y), net.cross_entropy(z, y)
    sums = sums + torch.stack([near.detach().sum(), near.new_tensor(len(y))])
    memory.shared["start"] = torch.cat([kept.new_tensor([epoch]), before[None], sums])
    away = near.detach().mean() - before
    way = torch.where((before >= 0) & (away.abs() > gamma), away.sign(), 0.0) if epoch >= wait else 0.0
    return Losses(robust + weight * way * near, None, robust, x_start.detach(), x_adv)
