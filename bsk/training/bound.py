"""A method together with the values of its hyper-parameters, ready to be called on a batch."""

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
from bsk.contract.parameters import GIVEN, resolve
from bsk.errors import UsageError
from bsk.methods import registry
from bsk.perturb.draws import Draws
from bsk.plugins import is_plugin, outside


@dataclass(frozen=True)
class UpdateContext:
    """What a method may receive besides the batch; see `bsk.contract.method`."""

    memory: BatchMemory
    update: int
    epoch: int
    progress: float
    validate: Validate


@dataclass(frozen=True)
class Bound:
    """A method by name, with the radius eps and all its hyper-parameters."""

    name: str
    eps: float
    hyper: Mapping[str, Any]

    @property
    def start(self) -> str:
        """How messages about the method begin."""
        return f"--method {self.name}"

    @property
    def replays(self) -> int:
        """The number of consecutive updates on each batch."""
        return int(self.hyper.get("replays", 1))

    @property
    def validates(self) -> bool:
        """Whether it uses the accuracy on validation images."""
        return "validate" in self._taken

    @property
    def paced(self) -> bool:
        """Whether it uses the progress of the training."""
        return "progress" in self._taken

    @cached_property
    def function(self) -> Callable[..., Any]:
        """The function of the method."""
        return registry.function(self.name)

    @cached_property
    def _taken(self) -> set[str]:
        """Which of eps, draws and the fields of `UpdateContext` are among its arguments."""
        arguments = inspect.signature(self.function).parameters
        every = any(each.kind is each.VAR_KEYWORD for each in arguments.values())
        return {name for name in GIVEN if every or name in arguments}

    def __call__(self, net: Network, x: Tensor, y: Tensor, draws: Draws, context: UpdateContext) -> Losses:
        """Return the losses of a batch x (N, C, H, W), y (N,); each is (N,).

        Raises:
            UsageError: a plugin method fails, or returns something else.
        """
        offered = {"eps": self.eps, "draws": draws, **vars(context)}
        arguments = {**{name: offered[name] for name in self._taken}, **self.hyper}
        trained = [each for each in (net.module, *net.module.children()) if each.training]
        if is_plugin(self.name):
            x, y = x.clone(), y.clone()  # it may write into them
        with self.guard():
            losses = self._checked(self.function(net, x, y, **arguments), len(y))
        if not all(each.training for each in trained):  # as after attacks of ART
            raise UsageError(f"{self.start}: leaves the network in eval mode; call train() before net(x)")
        return losses

    def guard(self) -> contextlib.AbstractContextManager[None]:
        """Turn any failure of a plugin method within the block into a one-line error."""
        return outside(self.start, "check the method") if is_plugin(self.name) else contextlib.nullcontext()

    def _checked(self, found: Any, n: int) -> Losses:
        losses = Losses(found) if isinstance(found, Tensor) else found
        if not isinstance(losses, Losses):
            raise UsageError(f"{self.start}: expected Losses or a tensor ({n},), found {type(found).__name__}")
        for part, values in vars(losses).items():
            if part in ("total", "natural", "robust") and not (part != "total" and values is None):
                shape = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
                if shape != (n,):
                    raise UsageError(f"{self.start}: expected {part} ({n},), one value per image, found {shape}")
        if not losses.total.requires_grad:
            raise UsageError(f"{self.start}: its loss has no gradient with respect to the weights")
        return losses


def bind(name: str, eps: float, given: Mapping[str, Any] | None = None) -> Bound:
    """Return a method with the radius eps and its hyper-parameters: the given values, else the defaults.

    Raises:
        UsageError: there is no such method or hyper-parameter, or a value is invalid.
    """
    return Bound(name, eps, resolve(name, registry.parameters(name), eps, given or {}))
