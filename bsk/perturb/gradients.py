"""The gradient by the images: of each example its own, with NaN as 0, or an error that says there is none."""

from __future__ import annotations

import torch
from torch import Tensor

from bsk.errors import InputError

HUGE = 1e15  # in place of infinity: the squares of a million such values still sum in fp32


class NoGradientError(InputError):
    """The model's output does not lead back to its input."""

    def __init__(self) -> None:
        """Say what there is to do."""
        super().__init__(
            "the model gives no gradient by its input, which is followed here; --attack square and rays need none"
        )


def raw_gradient(losses: Tensor, x: Tensor, *, keep: bool = False, create: bool = False) -> Tensor:
    """Return d sum(losses) / dx as it is: losses (N,) that were computed from x (N, C, H, W).

    With `keep` the passes that led to the losses can be gone back through once more; with `create` the gradient can be
    differentiated itself.

    Raises:
        NoGradientError: there is none.
    """
    if not losses.requires_grad:
        raise NoGradientError
    kept = keep or create
    gradient: Tensor | None
    (gradient,) = torch.autograd.grad(losses.sum(), x, retain_graph=kept, create_graph=create, allow_unused=True)
    if gradient is None:
        raise NoGradientError
    return gradient


def gradient_of(losses: Tensor, x: Tensor) -> Tensor:
    """Return the gradient with NaN as 0 and infinity as 1e15, so that one such entry does not stop the others.

    Raises:
        NoGradientError: there is none.
    """
    return torch.nan_to_num(raw_gradient(losses, x), nan=0.0, posinf=HUGE, neginf=-HUGE)
