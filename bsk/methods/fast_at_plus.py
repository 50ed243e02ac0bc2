"""Fast AT+: Fast AT, rescued by PGD while it collapses (Li et al. 2020)."""

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
    """Fast AT; PGD takes over while robust accuracy on val images has fallen.

    Every check uses the next 128 validation images; the reference is the check before (the published text leaves both
    open, and no code was published: our reading).

    Args:
        start: where the perturbation starts, while nothing is to be rescued.
        steps: sign-gradient steps of the perturbation.
        step: their size in pixels.
        gamma: size of the random point in output space, for the backward start.
        rescue_every: updates between two checks of the accuracy under PGD-10.
        rescue_drop: how far it must have fallen since the check before for PGD to take over until the next one.

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
