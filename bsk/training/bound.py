"""A method with the values of its hyper-parameters, ready to be called on a batch."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor

from bsk.contract.method import BatchMemory, Losses, Validate
from bsk.contract.network import Network
from bsk.contract.parameters import GIVEN
from bsk.errors import UsageError
from bsk.methods import registry
from bsk.perturb.draws import Draws
from bsk.plugins import is_plugin, outside


@dataclass(frozen=True)
class UpdateContext:
    """What a method may be given beside the batch; see `bsk.contract.method`."""

    memory: BatchMemory
    update: int
    epoch: int
    progress: float
    validate: Validate


@dataclass(frozen=True)
class Bound:
    """A method by its name, at the radius eps, with all its hyper-parameters."""

    name: str
    eps: float
    hyper: Mapping[str, Any]

    @property
    def start(self) -> str:
        """How a message about it begins."""
        return f"--method {self.name}"

    @property
    def replays(self) -> int:
        """How many updates a batch is trained on, one after another."""
        return int(self.hyper.get("replays", 1))

    @property
    def validates(self) -> bool:
        """Whether it asks for the accuracy on val images."""
        return "validate" in self._taken

    @property
    def paced(self) -> bool:
        """Whether it asks how much of the training is done."""
        return "progress" in self._taken

    @cached_property
    def function(self) -> Callable[..., Any]:
        """The function itself."""
        return registry.function(self.name)

    @cached_property
    def _taken(self) -> set[str]:
        """The names of `UpdateContext`, eps and draws among its arguments."""
        arguments = inspect.signature(self.function).parameters
        every = any(each.kind is each.VAR_KEYWORD for each in arguments.values())
        return {name for name in GIVEN if every or name in arguments}

    def __call__(self, net: Network, x: Tensor, y: Tensor, draws: Draws, context: UpdateContext) -> Losses:
        """Return the losses of a batch x (N, C, H, W), y (N,); each (N,).

        Raises:
            UsageError: a method from outside fails, or returns something else.
        """
        offered = {"eps": self.eps, "draws": draws, **vars(context)}
        arguments = {**{name: offered[name] for name in self._taken}, **self.hyper}
        with self.guard():
            return self._checked(self.function(net, x, y, **arguments), len(y))

    def guard(self) -> contextlib.AbstractContextManager[None]:
        """Turn what fails in a method from outside into one line, within the block."""
        return outside(self.start, "check the method") if is_plugin(self.name) else contextlib.nullcontext()

    def _checked(self, found: Any, n: int) -> Losses:
        losses = Losses(found) if isinstance(found, Tensor) else found
        if not isinstance(losses, Losses):
            raise UsageError(f"{self.start}: expected Losses or a tensor ({n},), found {type(found).__name__}")
        for part, values in vars(losses).items():
            if part in ("total", "natural", "robust") and not (part != "total" and values is None):
                shape = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
                if shape != (n,):
                    raise UsageError(f"{self.start}: expected {part} ({n},), one value an image, found {shape}")
        if not losses.total.requires_grad:
            raise UsageError(f"{self.start}: its loss has no gradient by the network's weights")
        return losses


def bind(name: str, eps: float, given: Mapping[str, Any] | None = None) -> Bound:
    """Return a method at the radius eps, with hyper-parameters as given, else its defaults.

    Raises:
        UsageError: there is no such method or hyper-parameter, or a value does not fit.
    """
    return Bound(registry.checked(name), eps, registry.resolve(name, eps, given or {}))
