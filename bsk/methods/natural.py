"""Training on clean images, without any perturbation."""

from __future__ import annotations

from torch import Tensor

from bsk.contract.method import Losses
from bsk.contract.network import Network
from bsk.perturb.draws import Draws


def natural(net: Network, x: Tensor, y: Tensor, *, eps: float, draws: Draws) -> Losses:
    """Cross entropy on the clean images."""
    loss = net.cross_entropy(net(x), y)
    return Losses(loss, loss, None, x, x)
