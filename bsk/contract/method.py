"""What a method is given and what it returns: the contract, for bsk's own methods and for those from outside.

    def my_method(net, x, y, *, eps, draws, alpha=0.5) -> Losses:

`x` (N, C, H, W) in [0, 1] and `y` (N,) are a batch, `eps` is the radius in pixel units, and `draws` gives the random
numbers (`bsk.perturb.draws.Draws`). `net` is a `bsk.contract.network.Network`: net(x) is a pass in train mode that
training goes back through, and `with net.frozen() as f` gives the network in eval mode for a perturbation.

A method may name any of these too: `memory`, what outlives a batch (`BatchMemory`); `update`, how many updates came
before; `epoch`, counted from 0; `progress`, the share of the training that ends with this update, above 0 to 1;
`validate(attack, turn)`, the accuracy under an attack on the turn-th 128 val images. All other keyword arguments are
its hyper-parameters: flags, records and `--help` read their names, defaults and types from the signature. One called
`replays` says how many updates a batch is trained on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

Validate = Callable[[str, int], float]


@dataclass(frozen=True)
class Losses:
    """What training descends, and what is told of it; each (N,), one value an image.

    Attributes:
        total: the loss; its mean over the batch is descended.
        natural, robust: its parts on clean and on perturbed images, for the log; None where the method has none.
        start, x_adv: the images (N, C, H, W) after the start of the perturbation and at its end, for
            `--log-divergence`; None where the method has none.
    """

    total: Tensor
    natural: Tensor | None = None
    robust: Tensor | None = None
    start: Tensor | None = None
    x_adv: Tensor | None = None


@dataclass
class Memory:
    """What outlives a batch, by name; all of it is saved with the training's state.

    Attributes:
        shared: tensors for all batches.
        rows: tensors with a row for each training image.
        images: how many training images there are.
        classes: how many classes.
        numbers: plain numbers.
        logged: numbers that each epoch's log record has too.
    """

    shared: dict[str, Tensor] = field(default_factory=dict)
    rows: dict[str, Tensor] = field(default_factory=dict)
    images: int = 0
    classes: int = 0
    numbers: dict[str, float] = field(default_factory=dict)
    logged: dict[str, float] = field(default_factory=dict)

    def batch(self, rows: Tensor) -> BatchMemory:
        """Return what a method sees of it, for a batch of these training images (N,)."""
        return BatchMemory(self, rows, dict(self.shared), dict(self.numbers), dict(self.logged))


@dataclass
class BatchMemory:
    """The memory of one batch; what a method writes is kept only once the update is done (`commit`).

    Attributes:
        shared: tensors by name, for all batches; write by `memory.shared[name] = tensor`.
        numbers: plain numbers, likewise.
        logged: numbers that each epoch's log record has too.
    """

    _memory: Memory
    _rows: Tensor
    shared: dict[str, Tensor]
    numbers: dict[str, float]
    logged: dict[str, float]
    _kept: dict[str, Tensor] = field(default_factory=dict)

    @property
    def classes(self) -> int:
        """How many classes there are, for what is kept of each."""
        return self._memory.classes

    def rows(self, name: str, like: Tensor) -> Tensor:
        """Return what is kept of each image of the batch, in the shape of `like` (N, ...); 0 at first."""
        table = self._memory.rows.get(name)
        return torch.zeros_like(like) if table is None else torch.empty_like(like).copy_(table[self._rows])

    def keep(self, name: str, values: Tensor) -> None:
        """Keep values (N, ...), a row for each image of the batch, until the image comes again."""
        self._kept[name] = values.detach()

    def commit(self) -> None:
        """Write what the method wrote."""
        self._memory.shared = {name: tensor.detach() for name, tensor in self.shared.items()}
        self._memory.numbers, self._memory.logged = self.numbers, self.logged
        for name, values in self._kept.items():
            if name not in self._memory.rows:
                self._memory.rows[name] = values.new_zeros(self._memory.images, *values.shape[1:])
            self._memory.rows[name][self._rows] = values
