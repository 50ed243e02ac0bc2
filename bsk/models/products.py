"""Linear layers whose outputs are bitwise independent of the rest of the batch.

torch multiplies matrices with MKL, whose order of summation depends on the number of rows, the position of a row, the
threads and the processor: on Intel CPUs with AVX-512, for example, it differs between 12 and 16 rows, and again with
two threads. oneDNN, which torch uses for convolutions, always sums a row in the same order if there are at least two;
this was observed, and is tested, with AVX-512, AVX2 and SSE4.1 and with one to three threads.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F  # noqa: N812 - the customary name

from bsk.compat import onednn_linear, version_of


@contextlib.contextmanager
def steady_products(model: nn.Module) -> Iterator[None]:
    """Use oneDNN in the model's linear layers within the block, where they compute in fp32 on the CPU.

    This covers the forward pass and the backward pass to the input; the weights get no gradient. A batch of one row is
    summed in a different order. Layers with their own `forward` stay unchanged. The last layer computes in the
    precision of its weights even within `autocast`: logits with 8 bits would often be equal where attacks compare them.
    """
    layers: list[Any] = [
        each for each in model.modules() if isinstance(each, nn.Linear) and "forward" not in vars(each)
    ]
    layers = [each for each in layers if type(each).forward is nn.Linear.forward]
    try:
        for layer in layers:
            layer.forward = _forward_of(layer, layer is layers[-1])
        yield
    finally:
        for layer in layers:
            vars(layer).pop("forward", None)


@dataclass(frozen=True)
class _Weight:
    """A weight (out, in) with its version, and its transpose (in, out) for the backward pass."""

    whole: Tensor
    state: object
    transpose: Tensor

    def still(self, weight: Tensor) -> bool:
        return weight is self.whole and version_of(weight) == self.state


def _forward_of(layer: nn.Module, last: bool) -> Callable[[Tensor], Tensor]:
    kept: _Weight | None = None

    def forward(x: Tensor) -> Tensor:
        nonlocal kept
        weight: Tensor = layer.weight  # type: ignore[assignment]
        if last and torch.is_autocast_enabled(x.device.type):
            with torch.autocast(x.device.type, enabled=False):
                return forward(x.to(weight.dtype))
        bias: Tensor | None = layer.bias  # type: ignore[assignment]
        if not (_fp32_on_cpu(x, weight) and x.numel()):
            return F.linear(x, weight, bias)
        if kept is None or not kept.still(weight):
            kept = _Weight(weight, version_of(weight), weight.detach().t().contiguous())
        y: Tensor = _Product.apply(x, weight.detach(), kept.transpose, bias)
        return y

    return forward


def _fp32_on_cpu(*tensors: Tensor) -> bool:
    there = torch.backends.mkldnn.is_available() and bool(torch.backends.mkldnn.enabled)
    there = there and not torch.is_autocast_enabled("cpu")
    return there and all(each.device.type == "cpu" and each.dtype == torch.float32 for each in tensors)


class _Product(torch.autograd.Function):
    """x (..., in) @ weight (out, in)^T + bias."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, transpose: Tensor, bias: Tensor | None) -> Tensor:
        ctx.transpose = transpose
        return onednn_linear(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return onednn_linear(gradient, ctx.transpose, None), None, None, None
