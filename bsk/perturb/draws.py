"""Where random numbers come from: a generator a batch in training, a generator an example in evaluation."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Draws(Protocol):
    """A source of random tensors, one row an example of the batch."""

    def uniform(self, like: Tensor) -> Tensor:
        """Return U(-1, 1) numbers in the shape, type and place of `like`, shape (N, ...)."""

    def gaussian(self, like: Tensor) -> Tensor:
        """Return N(0, 1) numbers in the shape, type and place of `like`, shape (N, ...)."""


@dataclass(frozen=True)
class BatchDraws:
    """One generator for the batch, on its device: for training, where speed counts.

    Of several processes that share a batch each draws for all `total` rows and keeps its own from `first`
    on, so that the perturbations do not depend on the number of processes.
    """

    generator: torch.Generator
    first: int = 0
    total: int | None = None

    def uniform(self, like: Tensor) -> Tensor:
        """Return U(-1, 1) numbers like `like`."""
        return self._rows(like).uniform_(-1.0, 1.0, generator=self.generator)[self._mine(like)]

    def gaussian(self, like: Tensor) -> Tensor:
        """Return N(0, 1) numbers like `like`."""
        return self._rows(like).normal_(generator=self.generator)[self._mine(like)]

    def _rows(self, like: Tensor) -> Tensor:
        channels_last = like.dim() == 4 and like.is_contiguous(memory_format=torch.channels_last)
        return torch.empty(
            (self.total or len(like), *like.shape[1:]),
            dtype=like.dtype,
            device=like.device,
            memory_format=torch.channels_last if channels_last else torch.contiguous_format,
        )

    def _mine(self, like: Tensor) -> slice:
        return slice(self.first, self.first + len(like))


@dataclass(frozen=True)
class ExampleDraws:
    """One generator an example, always on the CPU: for evaluation.

    There a result must not depend on an example's neighbours, batch size, order, process or device.
    """

    generators: Sequence[torch.Generator]

    def uniform(self, like: Tensor) -> Tensor:
        """Return U(-1, 1) numbers like `like`."""
        rows = [torch.rand(like.shape[1:], generator=g) for g in self.generators]
        return torch.stack(rows).mul_(2.0).sub_(1.0).to(like)

    def gaussian(self, like: Tensor) -> Tensor:
        """Return N(0, 1) numbers like `like`."""
        return torch.stack([torch.randn(like.shape[1:], generator=g) for g in self.generators]).to(like)

    def keep(self, mask: Tensor) -> ExampleDraws:
        """Return the draws of the examples where the boolean mask, shape (N,), holds."""
        return ExampleDraws([g for g, kept in zip(self.generators, mask.tolist(), strict=True) if kept])


def generator(*key: object, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a generator whose stream is a function of the key alone, e.g. (seed, "order", epoch).

    The key is hashed, so that streams of neighbouring keys have nothing in common.
    """
    digest = hashlib.sha256("\x1f".join(map(str, key)).encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def example_draws(seed: int, attack: str, indices: Sequence[int]) -> ExampleDraws:
    """Return draws that depend on (seed, attack, index of the example) alone."""
    return ExampleDraws([generator(seed, attack, index) for index in indices])
