"""Free AT: one backward pass updates both the weights and the perturbation (Shafahi et al. 2019)."""

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
    """Each update of the weights also moves delta along the same gradient; delta carries over to the next batch.

    Each place in a batch has its own delta; a shorter batch leaves the others. An epoch costs `replays` times as much.

    Args:
        step: how far one update moves delta, in pixels.
        replays: number of consecutive updates on each batch.

    Source: Shafahi et al. (2019), "Adversarial training for free!"; 8 replays as in Wong et al. (2020).
    Differs: delta keeps x + delta within [0, 1] too, as in Wong et al.; in Shafahi et al. it stays within eps only.
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
