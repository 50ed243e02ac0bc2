"""What flags decide of an evaluation beside its attacks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from bsk.devices import COMPILE
from bsk.errors import UsageError
from bsk.plugins import is_plugin
from bsk.values import checked_eps, one_of

CUSTOMARY = {"l2": 0.5, "l1": 12}  # Source: Croce & Hein (2020, 2021)
SPLITS = ("test", "val", "train")


@dataclass(frozen=True)
class ModelFlags:
    """Which prepared data, and which network, if the checkpoint does not say all of it.

    Attributes:
        dataset, data: by name or by path; None for the data that the model was trained on.
        model: of `weights`, or of a checkpoint whose network is code from outside.
        weights: somebody else's weights, instead of a checkpoint; none where a `module:function` loads its own.
        weights_key: which set of `weights`, where there are several; None for the first that fits.
        mean, std: of somebody else's network: a number a channel.
        class_order: the names of its classes, in the order of its outputs; None for the order of the data.
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
        """Raise a UsageError unless checkpoints are named, or weights with all that they need, and not both."""
        alone = self.model is not None and not checkpoints  # beside a checkpoint it is the code of its network
        loaded = alone and is_plugin(str(self.model))  # a network that loads its own weights, or asks a service
        if self.model is None if self.weights is not None else alone and not loaded:
            raise UsageError("--model and --weights: give both for a model trained elsewhere, or neither")
        if self.weights is None and not loaded and (self.mean or self.std):
            raise UsageError("--mean and --std: a checkpoint of bsk has its own; they go with --weights")
        if self.weights is None and not loaded and self.class_order:
            raise UsageError("--class-order: a checkpoint of bsk has its own; it goes with --weights")
        if self.weights is None and self.weights_key is not None:
            raise UsageError("--weights-key: which set of the file of --weights; give that too, or leave it out")
        if bool(checkpoints) == (self.weights is not None or loaded):
            raise UsageError("name checkpoints of bsk train, or --model and --weights; not both, not neither")


@dataclass(frozen=True)
class EvaluationFlags:
    """Which examples, within which radius, by which draws.

    Attributes:
        split: "test", "val" or "train".
        limit: only the first so many examples of the class-balanced order.
        eps: the radius in the attack's norm, or several, ascending; None for the model's own.
        batch_size: rows of a model call; None for what suits the device.
        checks: whether the model is examined for signs that it cannot be believed.
        compile: whether attacks search through torch.compile: on, off, or auto, where that pays.
        seed: of the attacks' random numbers.
    """

    split: str = "test"
    limit: int | None = None
    eps: float | Sequence[float] | None = None
    batch_size: int | None = None
    checks: bool = True
    compile: str = "auto"
    seed: int = 0

    @property
    def radii(self) -> list[float]:
        """The radii that are asked for; none for the model's own."""
        if self.eps is None:
            return []
        return [float(eps) for eps in (self.eps if isinstance(self.eps, Iterable) else [self.eps])]

    @property
    def _listed(self) -> str:
        return ",".join(f"{eps:g}" for eps in self.radii)

    def check_one(self) -> None:
        """Raise a UsageError if there are several radii."""
        if len(self.radii) > 1:
            raise UsageError(f"--eps {self._listed}: the images of one radius; several are for bsk evaluate")

    def check(self, norm: str) -> None:
        """Raise a UsageError if a value cannot be."""
        one_of("split", self.split, SPLITS)
        one_of("compile", self.compile, COMPILE)
        for eps in self.radii:
            checked_eps(eps, zero=True, norm=norm)
        if any(one >= other for one, other in pairwise(self.radii)):
            raise UsageError(f"--eps {self._listed}: several radii ascend; write 2/255,4/255,8/255")
        if self.eps is not None and not self.radii:
            raise UsageError("--eps: no radius; write 8/255")
        if self.eps is None and norm in CUSTOMARY:
            raise UsageError(f"--norm {norm}: no customary radius; pass --eps, as {CUSTOMARY[norm]} for CIFAR-10")
        for name, least in (("limit", 1), ("batch_size", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UsageError(f"--{name.replace('_', '-')} {value}: must be at least {least}")
