"""Normalisation as the first layer, so that images are in [0, 1] everywhere else."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Normalised(nn.Module):
    """The network applied to (x - mean) / std, for images x (N, C, H, W) in [0, 1].

    mean and std, a number a channel, travel with the weights.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        """Wrap `network`."""
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean).reshape(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).reshape(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (N, classes)."""
        mean, std = (_plane(each, x) for each in (self.mean, self.std))
        logits: Tensor = self.network((x - mean) / std)
        return logits


def _plane(values: Tensor, x: Tensor) -> Tensor:
    """Return a number a channel, (1, C, 1, 1), as an image in the memory format of images x.

    With three numbers spread over channels-last images, torch subtracts and divides value by value, which is
    slow enough to be seen in a small network's pass. The result is the same to the bit.
    """
    return torch.empty_like(x.detach()[:1], dtype=values.dtype).copy_(values)
