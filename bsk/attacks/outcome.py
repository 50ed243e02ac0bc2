"""What every attack returns, and how examples leave it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bsk.errors import InputError

EDGE = 1e-3  # tolerance of [0, 1]: a quarter of a grey level


class NotFiniteError(Exception):
    """The model returned NaN or infinity for at least one image of a batch."""


def check_unit(x: Tensor, edge: float = EDGE) -> None:
    """Raise an InputError if any image is outside [0, 1] by more than `edge`."""
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
        fooled: (N,) whether each is misclassified or, if there is a target, classified as the target.
        forward, backward: (N,) int64, the number of passes of each example.
        distance: (N,) the distance of the nearest misclassified image, if the attack searches beyond the ball too.
        target: (N,) the target class of each example, if the attack is targeted.
    """

    x_adv: Tensor
    fooled: Tensor
    forward: Tensor
    backward: Tensor
    distance: Tensor | None = None
    target: Tensor | None = None

    @classmethod
    def begin(cls, x: Tensor) -> Outcome:
        """Return the outcome before any pass for images x (N, C, H, W); it is filled in as fooled examples leave.

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
        """Record the examples with a misclassified row; return a mask (R,) of the rows that stay, or None if all do.

        owner (R,) is ascending, so the rows of an example are adjacent; its first misclassified one is kept.
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
    """The state of a search as attributes, with one row per example, or per example and target class."""

    def keep(self, rows: Tensor) -> None:
        """Keep only the selected rows, of tensors and of all values that have a `keep` method."""
        for name, value in vars(self).items():
            setattr(self, name, value[rows] if isinstance(value, Tensor) else value.keep(rows))


def first_rows(owner: Tensor) -> Tensor:
    """Return a mask (R,) of the first row of each example, for an ascending owner (R,)."""
    first = torch.ones_like(owner, dtype=torch.bool)
    first[1:] = owner[1:] != owner[:-1]
    return first


def spread(count: int, y: Tensor) -> Tensor:
    """Distribute the passes of a whole batch as evenly as possible over its examples: (N,) int64."""
    each, rest = divmod(count, len(y))
    return torch.full_like(y, each) + (torch.arange(len(y), device=y.device) < rest)


def ranked_targets(logits: Tensor, y: Tensor, targets: int) -> Tensor:
    """Return the classes other than y with the largest logits (N, C), largest first: (N, targets), at most C - 1."""
    targets = min(targets, logits.shape[1] - 1)
    label = torch.nn.functional.one_hot(y, logits.shape[1]).bool()
    return logits.masked_fill(label, -torch.inf).argsort(dim=1, descending=True, stable=True)[:, :targets]
