"""Counting the cost of a method or an attack: images passed forward and backward through the network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from bsk.perturb.ascent import Model


@dataclass
class PassCounter:
    """How many images passed forward through the whole network, and how many had a gradient passed backward."""

    forward: int = 0
    backward: int = 0


@dataclass(frozen=True)
class Passes:
    """Forward passes, backward passes to the input only, and backward passes to all weights.

    They are counts of images, or seconds per image.
    """

    forward: float = 0.0
    to_input: float = 0.0
    full: float = 0.0

    def __iter__(self) -> Iterator[float]:
        """Yield the three numbers."""
        yield from (self.forward, self.to_input, self.full)

    def __add__(self, other: Passes) -> Passes:
        """Return the sum of each kind."""
        return Passes(self.forward + other.forward, self.to_input + other.to_input, self.full + other.full)

    def __mul__(self, times: float) -> Passes:
        """Return each kind multiplied by `times`."""
        return Passes(self.forward * times, self.to_input * times, self.full * times)

    def seconds(self, each: Passes) -> float:
        """Return the total time if one pass of each kind takes the seconds in `each`."""
        return self.forward * each.forward + self.to_input * each.to_input + self.full * each.full


def counting(model: Model, counter: PassCounter) -> Model:
    """Return the model with every pass added to `counter`; backward passes are counted when they happen."""

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
