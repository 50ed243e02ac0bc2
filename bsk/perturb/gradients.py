"""The gradient with respect to the images, one per example."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from bsk.errors import BskError, InputError, named_error, out_of_memory

HUGE = 1e15  # replaces infinity; the sum of squares of a million such values still fits in fp32


class NoGradientError(InputError):
    """The model's output has no gradient with respect to its input, or none that can be computed."""

    def __init__(self, failed: Exception | None = None) -> None:
        """Name what failed in the backward pass, if it did, and attacks that need no gradient."""
        none = "the model has no gradient with respect to its input, as this attack needs; use --attack square or rays"
        advice = "check the model (the attacks square and rays need no gradient)"
        fails = f"the model's backward pass fails: {named_error(failed)}; {advice}" if failed else ""
        super().__init__(fails or none)


@contextlib.contextmanager
def differentiating() -> Iterator[None]:
    """Turn any failure of a backward pass within the block into a NoGradientError; other errors of bsk are unchanged.

    The layers of someone else's network may have no derivative, or no second one, or their own code for it.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, BskError) or out_of_memory(error) or of_the_device(error):
            raise
        raise NoGradientError(error) from error


def of_the_device(error: Exception) -> bool:
    """Return whether a GPU or its libraries failed, which says nothing about the network."""
    own = getattr(torch, "AcceleratorError", None)  # since torch 2.8
    said = str(error).lower()
    return (own is not None and isinstance(error, own)) or any(
        word in said for word in ("cuda error", "cublas", "cudnn", "nccl", "hip error")
    )


def raw_gradient(losses: Tensor, x: Tensor, *, keep: bool = False, create: bool = False) -> Tensor:
    """Return d sum(losses) / dx unchanged, for losses (N,) computed from x (N, C, H, W).

    With `keep` the graph is retained, so that a second backward pass is possible. With `create` the gradient itself can
    be differentiated.

    Raises:
        NoGradientError: the losses do not depend differentiably on x, or the backward pass fails.
    """
    if not losses.requires_grad:
        raise NoGradientError
    kept = keep or create
    gradient: Tensor | None
    with differentiating():
        (gradient,) = torch.autograd.grad(losses.sum(), x, retain_graph=kept, create_graph=create, allow_unused=True)
    if gradient is None:
        raise NoGradientError
    return gradient


def cosines(a: Tensor, b: Tensor) -> Tensor:
    """Return the cosine of the angle between the rows of a and of b, (N, D) each: shape (N,), 0 where a row is 0.

    torch takes a norm below 1e-8 for 1e-8, and the gradient at an image of which the network is sure is smaller.
    """
    return F.cosine_similarity(magnified(a), magnified(b), dim=1)


def magnified(rows: Tensor) -> Tensor:
    """Return rows (N, ...), each times the power of two that brings its largest value to [1, 2); 0 stays 0.

    This changes no digit, unless a value is smaller than the largest by almost the whole range of its type.
    """
    largest = rows.detach().abs().amax(dim=tuple(range(1, rows.dim())), keepdim=True)
    most = -math.log2(torch.finfo(rows.dtype).tiny)  # the greatest power of fp32 is 2^127
    return rows * torch.exp2((-largest.log2().floor()).clamp(max=most))


def gradient_of(losses: Tensor, x: Tensor) -> Tensor:
    """Return the gradient with NaN replaced by 0 and infinity by 1e15, so that one bad entry does not spoil the others.

    Raises:
        NoGradientError: the losses do not depend differentiably on x.
    """
    return torch.nan_to_num(raw_gradient(losses, x), nan=0.0, posinf=HUGE, neginf=-HUGE)
