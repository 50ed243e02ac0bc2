"""Linear layers whose every output is the same to the last bit, whoever else is in the batch.

A matrix kernel sums in an order that depends on the number of rows, on a row's place among them, on the threads and on
the processor: MKL's on Intel with up to 12 rows in one way, with 16 in another, with two threads again otherwise. A sum
without rounding has no order. So the factors are rounded to multiples of a power of two, to as many bits as keep all
sums of their products exact in float64: 21 bits with 2,048 inputs, with 32 all 24 of float32. The worst error is one to
six times that of torch's own sums in float32. (Pre-rounding: Demmel and Nguyen, 2013, "Fast reproducible floating-point
summation".)
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F  # noqa: N812 - its name everywhere

SIGNIFICAND = 53  # bits of float64
FULL = 24  # bits of float32


@contextlib.contextmanager
def order_free(model: nn.Module) -> Iterator[None]:
    """Multiply without an order in the model's linear layers within the block, where they compute in fp32 on the CPU.

    Forward, and backward to the input; the weights get no gradient. Layers with a `forward` of their own stay as they
    are.
    """
    layers = [each for each in model.modules() if type(each).forward is nn.Linear.forward]
    layers = [each for each in layers if "forward" not in vars(each)]
    try:
        for layer in layers:
            layer.forward = _forward_of(layer)
        yield
    finally:
        for layer in layers:
            vars(layer).pop("forward", None)


@dataclass(frozen=True)
class _Rounded:
    """A weight (out, in) rounded to float64, of which tensor in which state, and to how many bits."""

    source: Tensor
    version: int
    weight: Tensor
    bits: int

    def of(self, weight: Tensor) -> bool:
        return weight is self.source and weight._version == self.version


def _forward_of(layer: nn.Module) -> Callable[[Tensor], Tensor]:
    kept: _Rounded | None = None

    def forward(x: Tensor) -> Tensor:
        nonlocal kept
        weight: Tensor = layer.weight  # type: ignore[assignment]
        bias: Tensor | None = layer.bias  # type: ignore[assignment]
        if not _fp32_on_cpu(x, weight):
            return F.linear(x, weight, bias)
        if kept is None or not kept.of(weight):
            kept = _rounded_weight(weight)
        rows = x.reshape(-1, x.shape[-1])
        y: Tensor = _Product.apply(rows, kept.weight, bias, kept.bits)
        return y.view(*x.shape[:-1], y.shape[-1])

    return forward


def _fp32_on_cpu(*tensors: Tensor) -> bool:
    plain = all(each.device.type == "cpu" and each.dtype == torch.float32 for each in tensors)
    return plain and not torch.is_autocast_enabled("cpu")


def _rounded_weight(weight: Tensor) -> _Rounded:
    bits = exact_bits(max(weight.shape))
    rounded = pre_rounded(weight.detach().reshape(1, -1), bits).view_as(weight)
    return _Rounded(weight, weight._version, rounded, bits)


def exact_bits(terms: int) -> int:
    """Return to how many bits two factors may be rounded so that a sum of so many products is exact in float64."""
    return min(FULL, (SIGNIFICAND - math.ceil(math.log2(terms))) // 2)


def pre_rounded(x: Tensor, bits: int) -> Tensor:
    """Return rows (N, K) in float64, each rounded to multiples of 2^-bits of the power of two above its largest."""
    exponent = torch.frexp(x.abs().amax(dim=1, keepdim=True)).exponent
    # What float64 keeps of x + c are multiples of its last place there; 1.5 keeps the sum within one power of two.
    c = torch.exp2(exponent.double()) * (1.5 * 2.0 ** (SIGNIFICAND - 1 - bits))
    return x.double().add_(c).sub_(c)


class _Product(torch.autograd.Function):
    """rows (N, in) @ weight (out, in)^T + bias, in float32."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None, bits: int) -> Tensor:
        ctx.weight, ctx.bits = weight, bits
        y = pre_rounded(rows, bits) @ weight.t()
        return (y if bias is None else y.add_(bias)).float()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return (pre_rounded(gradient, ctx.bits) @ ctx.weight).float(), None, None, None
