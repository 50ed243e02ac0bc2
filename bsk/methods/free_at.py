"""Free AT: one backward pass for the weights and for the perturbation (Shafahi et al. 2019)."""

from __future__ import annotations

import torch
from torch import Tensor

from bsk.contract.method import BatchMemory, Losses
from bsk.contract.network import Network
from bsk.perturb.ball import ball_around
from bsk.perturb.draws import Draws
from bsk.perturb.radius import EPS


def free_at(
    net: Network,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    draws: Draws,
    memory: BatchMemory,
    step: float = EPS,
    replays: int = 8,
) -> Losses:
    """Each update of the weights moves delta too, by the same gradient; delta goes on from batch to batch.

    Delta belongs to the place in the batch; a shorter batch leaves the rest of it alone. An epoch is `replays` of the
    others' in cost.

    Args:
        step: how far an update moves delta, in pixels.
        replays: updates on a batch, one after another.

    Source: Shafahi et al. (2019), "Adversarial training for free!"; 8 replays as Wong et al. (2020).
    """
    ball, before = ball_around(x, eps), memory.shared.get("delta", x[:0])
    delta = torch.cat([before, torch.zeros_like(x[len(before) :])])
    x_adv = ball.project(x + delta[: len(x)]).requires_grad_()

    def move(gradient: Tensor) -> None:
        moved = ball.project(x_adv.detach() + step * gradient.sign()) - x
        memory.shared["delta"] = torch.cat([moved, delta[len(x) :]])

    x_adv.register_hook(move)
    robust = net.cross_entropy(net(x_adv), y)
    return Losses(robust, None, robust, x_adv.detach(), x_adv.detach())
