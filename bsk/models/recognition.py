"""Recognising which of bsk's own networks some tensors belong to, by names and shapes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from bsk.models.architectures import PUBLISHED, SHAPE
from bsk.models.fitting import Target
from bsk.models.layouts import DEAD
from bsk.models.registry import RESNETS, network
from bsk.models.small import Size, sides

_DEPTHS, _WIDTHS = range(10, 131, 6), range(1, 10_000)  # as the registry allows


def matching_networks(tensors: Mapping[str, Tensor], classes: int, channels: int, size: Size) -> list[str]:
    """Return the names of those of bsk's networks, for such images, that the tensors fit completely behind some prefix.

    Networks with equal names and shapes are all returned, even if they compute different functions.
    """
    found = []
    for name in _candidates(tensors, channels, size):
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            target = Target(name, network(name, classes, channels, size).state_dict(), channels)
        if any(not fit.problems for fit in target.fits(tensors)):
            found.append(name)
    return found


def _candidates(tensors: Mapping[str, Tensor], channels: int, size: Size) -> Iterator[str]:
    """Yield networks with the width of the first convolution, the only one that sees the channels of the images."""
    kernels = [tuple(each.shape) for name, each in tensors.items() if each.dim() == 4 and DEAD not in name]
    stem = next((outputs for outputs, inputs, *spatial in kernels if (inputs, spatial) == (channels, [3, 3])), 0)
    if stem in _WIDTHS:
        yield from (_with_width(base, stem) for base in RESNETS)
        yield "cnn" if stem == 16 else f"cnn-{stem}"
    depth = 4 + (sum(spatial == [3, 3] for _, _, *spatial in kernels) - 1) // 6 * 6  # all but the first are in blocks
    inputs = max((each.shape[1] for each in tensors.values() if each.dim() == 2), default=0)
    if stem == 16 and depth in _DEPTHS and inputs // 64 in _WIDTHS:
        yield from (f"wrn-{depth}-{inputs // 64}{form}" for form in ("", "-silu"))
    yield from PUBLISHED if (channels, *sides(size)) == SHAPE else ()


def _with_width(base: str, width: int) -> str:
    return base if width == 64 else re.sub(r"(resnet\d+)", rf"\1-{width}", base)
