"""What every attack hands back, and how examples leave it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bsk.errors import InputError

EDGE = 1e-3  # a quarter of a grey level, beyond which an image is out of [0, 1]


class NotFiniteError(Exception):
    """The model returned NaN or infinity for some image of a batch."""


def check_unit(x: Tensor, edge: float = EDGE) -> None:
    """Raise an InputError if some image is beyond [0, 1] by more than `edge`."""
    if not x.numel():
        return
    least, most = (float(each) for each in torch.aminmax(x.detach()))
    if not (least >= -edge and most <= 1 + edge):
        raise InputError(f"images: values from {least:g} to {most:g}, expected [0, 1]; divide them by 255")


@dataclass(frozen=True)
class Outcome:
    """What an attack found for N examples.

    Attributes:
        x_adv: (N, C, H, W) images in the ball.
        fooled: (N,) which of them are misclassified, or classified as the target where there is one.
        forward, backward: (N,) int64, how often each example went through the model.
        distance: (N,) to the nearest misclassified image, where the attack looks for it beyond the ball too.
        target: (N,) the class that each is to be taken for, where the attack is targeted.
    """

    x_adv: Tensor
    fooled: Tensor
    forward: Tensor
    backward: Tensor
    distance: Tensor | None = None
    target: Tensor | None = None

    @classmethod
    def begin(cls, x: Tensor) -> Outcome:
        """Return the outcome before any pass for images x (N, C, H, W): it grows, as examples leave that are fooled.

        Raises:
            InputError: the images are not in [0, 1].
        """
        check_unit(x)
        zero = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        return cls(x.clone(), zero.bool(), zero, zero.clone())

    def count(self, owner: Tensor, forward: int = 1, backward: int = 0) -> None:
        """Add passes to the examples `owner` (R,), once for each of their rows."""
        self.forward.index_add_(0, owner, torch.full_like(owner, forward))
        self.backward.index_add_(0, owner, torch.full_like(owner, backward))

    def leave(self, owner: Tensor, x_adv: Tensor, wrong: Tensor) -> Tensor | None:
        """Take out the examples with a wrong row; return a mask (R,) of the rows that stay, None if all do.

        owner (R,) is in ascending order: rows of one example stand together, and its first wrong one is kept.
        """
        if not bool(wrong.any()):
            return None
        rows = wrong.nonzero().squeeze(1)
        mine = owner[rows]
        first = first_rows(mine)
        self.fooled[mine] = True
        self.x_adv[mine[first]] = x_adv[rows[first]]
        return ~self.fooled[owner]


class Rows:
    """Rows that search for a misclassified image, an example or an example and a target class each, as attributes."""

    def keep(self, rows: Tensor) -> None:
        """Keep some of the rows, of the tensors and of all that has such a `keep`."""
        for name, value in vars(self).items():
            setattr(self, name, value[rows] if isinstance(value, Tensor) else value.keep(rows))


def first_rows(owner: Tensor) -> Tensor:
    """Return a mask (R,) of the first row of each example, for owner (R,) in ascending order."""
    first = torch.ones_like(owner, dtype=torch.bool)
    first[1:] = owner[1:] != owner[:-1]
    return first


def spread(count: int, y: Tensor) -> Tensor:
    """Return passes that were counted for a whole batch as evenly as can be over its examples: (N,) int64."""
    each, rest = divmod(count, len(y))
    return torch.full_like(y, each) + (torch.arange(len(y), device=y.device) < rest)


def ranked_targets(logits: Tensor, y: Tensor, targets: int) -> Tensor:
    """Return the classes other than y with the largest logits (N, C), largest first: (N, targets), C - 1 at most."""
    targets = min(targets, logits.shape[1] - 1)
    label = torch.nn.functional.one_hot(y, logits.shape[1]).bool()
    return logits.masked_fill(label, -torch.inf).argsort(dim=1, descending=True, stable=True)[:, :targets]
