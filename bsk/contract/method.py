"""What a method receives and what it returns: the contract, for bsk's own methods and for plugins alike.

    def my_method(net, x, y, *, eps, draws, alpha=0.5) -> Losses:

`x` (N, C, H, W) in [0, 1] and `y` (N,) are a batch, `eps` is the radius in pixel units, and `draws` provides the random
numbers (`bsk.perturb.draws.Draws`). `net` is a `bsk.contract.network.Network`: net(x) is a forward pass in train mode,
whose loss is minimised, and `with net.frozen() as f` gives the network in eval mode for computing a perturbation.

A method may also take any of these arguments: `memory`, state that persists across batches (`BatchMemory`); `update`,
the number of updates done before; `epoch`, counted from 0; `progress`, the fraction of the training that is done after
this update, above 0 and up to 1; `validate(attack, turn)`, the accuracy under an attack on the turn-th 128 validation
images. All other keyword arguments are the method's hyper-parameters: flags, records and `--help` take their names,
defaults and types from the signature. A hyper-parameter called `replays` is the number of consecutive updates on each
batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bsk.errors import kind_of
from bsk.values import plain

Validate = Callable[[str, int], float]


@dataclass(frozen=True)
class Losses:
    """The loss to minimise and what is logged about it; each loss is (N,), one value per image.

    Attributes:
        total: the loss; training minimises its mean over the batch.
        natural, robust: its parts on clean and on perturbed images, for the log; None if the method has no such part.
        start, x_adv: the starting points of the perturbation and the perturbed images (N, C, H, W), for
            `--log-divergence`; None if the method has none.
    """

    total: Tensor
    natural: Tensor | None = None
    robust: Tensor | None = None
    start: Tensor | None = None
    x_adv: Tensor | None = None


@dataclass
class Memory:
    """Named state that persists across batches; it is saved with the training state.

    Attributes:
        shared: tensors for all batches.
        rows: tensors with one row per training image.
        images: the number of training images.
        classes: the number of classes.
        numbers: plain numbers.
        logged: numbers that are also written to each epoch's log record.
    """

    shared: dict[str, Tensor] = field(default_factory=dict)
    rows: dict[str, Tensor] = field(default_factory=dict)
    images: int = 0
    classes: int = 0
    numbers: dict[str, float] = field(default_factory=dict)
    logged: dict[str, float] = field(default_factory=dict)

    def batch(self, rows: Tensor) -> BatchMemory:
        """Return a method's view of the memory for a batch of the training images `rows` (N,)."""
        return BatchMemory(self, rows, dict(self.shared), dict(self.numbers), dict(self.logged))


@dataclass
class BatchMemory:
    """The memory as seen from one batch; what a method writes takes effect only after the update (`commit`).

    Attributes:
        shared: tensors by name, for all batches; write with `memory.shared[name] = tensor`.
        numbers: plain numbers by name.
        logged: numbers that are also written to each epoch's log record, where they are finite.
    """

    _memory: Memory
    _rows: Tensor
    shared: dict[str, Tensor]
    numbers: dict[str, float]
    logged: dict[str, float]
    _kept: dict[str, Tensor] = field(default_factory=dict)

    @property
    def classes(self) -> int:
        """The number of classes, for state that is kept per class."""
        return self._memory.classes

    def rows(self, name: str, like: Tensor) -> Tensor:
        """Return the values kept for each image of the batch, in the shape of `like` (N, ...); 0 at first."""
        table = self._memory.rows.get(name)
        return torch.zeros_like(like) if table is None else torch.empty_like(like).copy_(table[self._rows])

    def keep(self, name: str, values: Tensor) -> None:
        """Keep values (N, ...), one row per image of the batch, until the image comes again."""
        if not isinstance(values, Tensor) or values.shape[:1] != self._rows.shape:
            found = tuple(values.shape) if isinstance(values, Tensor) else kind_of(values)
            raise ValueError(
                f"memory.keep({name!r}): expected one row for each of {len(self._rows)} images, found {found}"
            )
        self._kept[name] = values.detach()

    def first_in(self, period: int) -> Tensor:
        """Return which images of the batch come for the first time in a period, counted from 0: (N,) booleans.

        With `--extra`, or after a rescue, an image can miss whole epochs, so the number of the epoch does not tell.
        """
        after = torch.full_like(self._rows, period + 1)
        self.keep("period", after)
        return self.rows("period", self._rows) < after

    def commit(self) -> None:
        """Store what the method has written.

        Raises:
            ValueError: it is of another kind than can be stored.
        """
        for kind, found in (("shared", self.shared), ("numbers", self.numbers), ("logged", self.logged)):
            for name, value in found.items():
                _check_storable(kind, name, value)
        self._memory.shared = {name: tensor.detach() for name, tensor in self.shared.items()}
        self._memory.numbers = {name: plain(number) for name, number in self.numbers.items()}
        self._memory.logged = {name: plain(number) for name, number in self.logged.items() if math.isfinite(number)}
        for name, values in self._kept.items():
            if name not in self._memory.rows:
                self._memory.rows[name] = values.new_zeros(self._memory.images, *values.shape[1:])
            self._memory.rows[name][self._rows] = values[self._last()]

    def _last(self) -> Tensor:
        """Return the last place in the batch of each image (N,), since an extra image can be in a batch twice."""
        places = torch.arange(len(self._rows), device=self._rows.device)
        return ((self._rows[:, None] == self._rows) * places).amax(dim=1)


def _check_storable(kind: str, name: object, value: object) -> None:
    """Raise a ValueError unless a value that a method has written can be saved."""
    start, number = f"memory.{kind}[{name!r}]", plain(value)
    if not isinstance(name, str):
        raise ValueError(f"{start}: expected a name, found {kind_of(name)}")
    if kind == "shared":
        if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_meta:
            raise ValueError(f"{start}: expected a dense tensor, found {kind_of(value)}")
    elif not isinstance(number, int | float):
        raise ValueError(f"{start}: expected a number, found {kind_of(value)}")
    elif kind == "numbers" and not math.isfinite(number):
        raise ValueError(f"{start}: {number} cannot be saved; expected a finite number")
