"""Fast AT+: Fast AT that switches to PGD while it collapses (Li et al. 2020)."""

from __future__ import annotations

from torch import Tensor

from bsk.contract.method import BatchMemory, Losses, Validate
from bsk.contract.network import Network
from bsk.methods.adversarial import adversarial
from bsk.perturb.draws import Draws
from bsk.perturb.radius import paper_step, step_at


def fast_at_plus(
    net: Network,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    draws: Draws,
    memory: BatchMemory,
    update: int,
    validate: Validate,
    start: str = "uniform",
    steps: int = 1,
    step: float = paper_step(10 / 255),
    gamma: float = 1.0,
    rescue_every: int = 20,
    rescue_drop: float = 0.1,
) -> Losses:
    """Fast AT; PGD takes over while the robust accuracy on validation images has dropped.

    Each check uses the next 128 validation images and compares with the check before. The paper leaves both open and no
    code was published, so this is our reading.

    Args:
        start: starting point of the perturbation of Fast AT.
        steps: number of sign-gradient steps of Fast AT.
        step: their size, in pixels.
        gamma: amplitude of the random point in output space, for the backward start.
        rescue_every: number of updates between two checks of the accuracy under PGD-10.
        rescue_drop: drop in accuracy since the previous check from which PGD takes over until the next check.

    Source: Li et al. (2020), FastAdv+: c = 0.10, s = 20.
    """
    if update % rescue_every == 0:
        before, now = memory.numbers.get("accuracy", 0.0), validate("pgd-10", update // rescue_every)
        memory.numbers |= {"accuracy": now, "fell": float(before - now > rescue_drop)}
    rescued = bool(memory.numbers.get("fell", 0.0))
    memory.logged["rescued_updates"] = memory.logged.get("rescued_updates", 0) + rescued
    if rescued:
        return adversarial(net, x, y, eps=eps, draws=draws, steps=10, step=step_at(2 / 255, eps))
    return adversarial(net, x, y, eps=eps, draws=draws, start=start, steps=steps, step=step, gamma=gamma)
