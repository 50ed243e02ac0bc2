"""Counting what a method or an attack costs: images passed forward and backward through the network."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from bsk.perturb.ascent import Model


@dataclass
class Passes:
    """Images that went forward, and images whose gradient came backward, through the whole network."""

    forward: int = 0
    backward: int = 0


def counting(model: Model, passes: Passes) -> Model:
    """Return the model with every pass through it added to `passes`; backward passes as they happen."""

    def forward(x: Tensor) -> Tensor:
        logits = model(x)
        passes.forward += len(x)
        if logits.requires_grad:
            images = len(x)

            def count(_: Tensor) -> None:
                passes.backward += images

            logits.register_hook(count)
        return logits

    return forward
