"""The flags of an evaluation other than those of its attacks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from bsk.devices import COMPILE
from bsk.errors import UsageError
from bsk.plugins import is_plugin
from bsk.values import checked_eps, checked_numbers, exact, one_of

CUSTOMARY = {"l2": 0.5, "l1": 12}  # Source: Croce & Hein (2020, 2021)
SPLITS = ("test", "val", "train")


@dataclass(frozen=True)
class ModelFlags:
    """Which prepared data and which network, where the checkpoint does not say.

    Attributes:
        dataset, data: prepared data by name or by path; None for the data that the model was trained on.
        model: the network of `weights`, or the code of the network in a checkpoint.
        weights: a file of weights that bsk did not train; None where a `module:function` loads its own.
        weights_key: which set of weights in the file; None for the first that fits.
        mean, std: normalisation for `weights`, one number per channel.
        class_order: class names in the order of the network's outputs; None for the order of the data.
    """

    dataset: str | None = None
    data: Path | None = None
    model: str | None = None
    weights: Path | None = None
    weights_key: str | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    class_order: Sequence[str] | None = None

    def check(self, checkpoints: Sequence[Path]) -> None:
        """Raise a UsageError unless either checkpoints are named, or weights with all that they need."""
        alone = self.model is not None and not checkpoints  # with a checkpoint, it is the code of its network
        loaded = alone and is_plugin(str(self.model))  # code that loads its own weights or queries a service
        if self.model is None if self.weights is not None else alone and not loaded:
            raise UsageError("--model and --weights: give both for a model trained elsewhere, or neither")
        if self.weights is None and not loaded and (self.mean or self.std):
            raise UsageError("--mean and --std: a bsk checkpoint has its own; use them with --weights")
        if self.weights is None and not loaded and self.class_order:
            raise UsageError("--class-order: a bsk checkpoint has its own; use it with --weights")
        if self.weights is None and self.weights_key is not None:
            raise UsageError("--weights-key: selects a set from --weights; give --weights too, or leave it out")
        if bool(checkpoints) == (self.weights is not None or loaded):
            raise UsageError("name either checkpoints of bsk train, or --model and --weights")


@dataclass(frozen=True)
class EvaluationFlags:
    """Which examples, radius, batch size, checks and seed.

    Attributes:
        split: "test", "val" or "train".
        limit: number of examples, the first in the class-balanced order; None for all.
        eps: radius in the norm of the attack, or several in ascending order; None for that of the model.
        largest_first: whether several radii are taken from the largest on, and an example that stands at one is assumed
            to stand at smaller ones.
        batch_size: rows of a model call; None for the default of the device.
        checks: whether the model is examined for masked gradients and the like.
        compile: "on", "off" or "auto": whether attacks use torch.compile; auto uses it where it saves time.
        seed: random seed of the attacks.
    """

    split: str = "test"
    limit: int | None = None
    eps: float | Sequence[float] | None = None
    largest_first: bool = False
    batch_size: int | None = None
    checks: bool = True
    compile: str = "auto"
    seed: int = 0

    @property
    def radii(self) -> list[float]:
        """The requested radii; an empty list means that of the model."""
        if self.eps is None:
            return []
        try:
            return [exact(float(eps)) for eps in (self.eps if isinstance(self.eps, Iterable) else [self.eps])]
        except (TypeError, ValueError) as error:
            raise UsageError(
                f"--eps {self.eps!r:.40}: expected a number, as 8/255 without quotes, or a list"
            ) from error

    @property
    def _listed(self) -> str:
        return ",".join(f"{eps:g}" for eps in self.radii)

    def check_one(self) -> None:
        """Raise a UsageError if there are several radii."""
        if len(self.radii) > 1:
            raise UsageError(f"--eps {self._listed}: expected one radius; only bsk evaluate takes several")

    def check(self, norm: str) -> None:
        """Raise a UsageError if a value is out of range or unknown."""
        checked_numbers(self)
        one_of("split", self.split, SPLITS)
        one_of("compile", self.compile, COMPILE)
        for eps in self.radii:
            checked_eps(eps, zero=True, norm=norm)
        if any(one >= other for one, other in pairwise(self.radii)):
            raise UsageError(f"--eps {self._listed}: radii must be in ascending order; write 2/255,4/255,8/255")
        if self.largest_first and len(self.radii) < 2:
            raise UsageError("--largest-first: needs several radii, as --eps 2/255,4/255,8/255")
        if self.eps is not None and not self.radii:
            raise UsageError("--eps: no radius; write 8/255")
        if self.eps is None and norm in CUSTOMARY:
            raise UsageError(f"--norm {norm}: has no default radius; pass --eps, e.g. {CUSTOMARY[norm]} for CIFAR-10")
        for name, least in (("limit", 1), ("batch_size", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UsageError(f"--{name.replace('_', '-')} {value}: must be at least {least}")
