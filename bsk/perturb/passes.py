"""Counting what a method or an attack costs: images passed forward and backward through the network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from bsk.perturb.ascent import Model


@dataclass
class PassCounter:
    """Images that went forward, and images whose gradient came backward, through the whole network."""

    forward: int = 0
    backward: int = 0


@dataclass(frozen=True)
class Passes:
    """Images passed forward, back to the image alone, and back to all weights: numbers, or seconds for one image."""

    forward: float = 0.0
    to_input: float = 0.0
    full: float = 0.0

    def __iter__(self) -> Iterator[float]:
        """Yield the three numbers."""
        yield from (self.forward, self.to_input, self.full)

    def __add__(self, other: Passes) -> Passes:
        """Return the sum, kind by kind."""
        return Passes(self.forward + other.forward, self.to_input + other.to_input, self.full + other.full)

    def __mul__(self, times: float) -> Passes:
        """Return so many times each kind."""
        return Passes(self.forward * times, self.to_input * times, self.full * times)

    def seconds(self, each: Passes) -> float:
        """Return how long they take if one of each kind takes so long."""
        return self.forward * each.forward + self.to_input * each.to_input + self.full * each.full


def counting(model: Model, counter: PassCounter) -> Model:
    """Return the model with every pass through it added to `counter`; backward passes as they happen."""

    def forward(x: Tensor) -> Tensor:
        logits = model(x)
        counter.forward += len(x)
        if logits.requires_grad:
            images = len(x)

            def count(_: Tensor) -> None:
                counter.backward += images

            logits.register_hook(count)
        return logits

    return forward
