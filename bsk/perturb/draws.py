"""Sources of random numbers: one generator per batch in training, one stream per example in evaluation."""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor


class Draws(Protocol):
    """A source of random tensors with one row per example of the batch."""

    def uniform(self, like: Tensor) -> Tensor:
        """Return U(-1, 1) numbers with the shape, dtype and device of `like` (N, ...)."""

    def gaussian(self, like: Tensor) -> Tensor:
        """Return N(0, 1) numbers with the shape, dtype and device of `like` (N, ...)."""

    def shared(self, like: Tensor, count: int) -> Tensor:
        """Return U(-1, 1) numbers (count, N) with the dtype and device of `like` (N, ...).

        In training all examples of the batch share the same `count` numbers; in evaluation each example has its own.
        """


@dataclass(frozen=True)
class BatchDraws:
    """One generator for the whole batch, on its device: for training, where speed counts.

    When several processes share a batch, each draws all `total` rows and keeps its own, starting at `first`. So the
    perturbations do not depend on the number of processes.
    """

    generator: torch.Generator
    first: int = 0
    total: int | None = None

    def uniform(self, like: Tensor) -> Tensor:
        """Return U(-1, 1) numbers in the shape of `like`."""
        return self._rows(like).uniform_(-1.0, 1.0, generator=self.generator)[self._own_rows(like)]

    def gaussian(self, like: Tensor) -> Tensor:
        """Return N(0, 1) numbers in the shape of `like`."""
        return self._rows(like).normal_(generator=self.generator)[self._own_rows(like)]

    def shared(self, like: Tensor, count: int) -> Tensor:
        """Return U(-1, 1) numbers (count, N), the same for all N examples and in all processes."""
        return like.new_empty(count, 1).uniform_(-1.0, 1.0, generator=self.generator).expand(-1, len(like))

    def _rows(self, like: Tensor) -> Tensor:
        channels_last = like.dim() == 4 and like.is_contiguous(memory_format=torch.channels_last)
        return torch.empty(
            (self.total or len(like), *like.shape[1:]),
            dtype=like.dtype,
            device=like.device,
            memory_format=torch.channels_last if channels_last else torch.contiguous_format,
        )

    def _own_rows(self, like: Tensor) -> slice:
        return slice(self.first, self.first + len(like))


class ExampleDraws:
    """An independent stream of random numbers for each example: for evaluation.

    In evaluation a result must not depend on the other examples of the batch, nor on batch size, order, process or
    device. The k-th number of a stream is a hash of (key, k), so the streams of a whole batch are computed at once, on
    any device.

    Source: Steele, Lea and Flood (2014), SplitMix64, seeded by a SHA-256 of the key.
    """

    def __init__(self, keys: Tensor, position: int = 0) -> None:
        """Take one key per example, (N,) int64, and how many numbers each stream has already produced."""
        self.keys, self.position = keys, position

    def bits(self, count: int) -> Tensor:
        """Return the next `count` numbers of each stream: (N, count) int64, uniform over 0 ... 2^24 - 1."""
        counter = torch.arange(1, count + 1, device=self.keys.device) + self.position
        self.position += count
        return _bits(self.keys[:, None], counter)

    def unit(self, count: int) -> Tensor:
        """Return the next `count` numbers of each stream: (N, count) fp32, uniform in [0, 1)."""
        return _unit(self.bits(count))

    def unit_at(self, rows: Tensor, positions: Tensor, count: int) -> Tensor:
        """Return the numbers of selected streams that follow the given positions: (R, count) fp32, uniform in [0, 1).

        `rows` and `positions` are (R,). The numbers equal those that `unit` returns once a stream has reached its
        position; the streams themselves do not advance.
        """
        counter = torch.arange(1, count + 1, device=self.keys.device) + positions[:, None]
        return _unit(_bits(self.keys[rows, None], counter))

    def uniform(self, like: Tensor) -> Tensor:
        """Return U(-1, 1) numbers in the shape of `like`."""
        return self._shaped(like, self.unit(like[:1].numel()).mul_(2.0).sub_(1.0))

    def gaussian(self, like: Tensor) -> Tensor:
        """Return N(0, 1) numbers in the shape of `like`. Source: Box and Muller (1958)."""
        radius, angle = self.unit(2 * like[:1].numel()).tensor_split(2, dim=1)
        return self._shaped(like, (-2 * torch.log1p(-radius)).sqrt() * torch.cos(2 * torch.pi * angle))

    def shared(self, like: Tensor, count: int) -> Tensor:
        """Return U(-1, 1) numbers (count, N), different for each example."""
        return self.unit(count).mul_(2.0).sub_(1.0).T.to(like)

    def keep(self, rows: Tensor) -> ExampleDraws:
        """Return the streams of some rows at their current position.

        `rows` is a boolean mask (N,), or any number of indices.
        """
        return ExampleDraws(self.keys[rows], self.position)

    @staticmethod
    def _shaped(like: Tensor, values: Tensor) -> Tensor:
        return torch.empty_like(like).copy_(values.view(like.shape))


# The constants of SplitMix64 as signed numbers: products of int64 wrap around exactly as those of uint64 do.
_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
_FIRST, _SECOND = 0xBF58476D1CE4E5B9 - (1 << 64), 0x94D049BB133111EB - (1 << 64)


def _unit(bits: Tensor) -> Tensor:
    return bits.float().mul_(2.0**-24)


def _bits(keys: Tensor, counter: Tensor) -> Tensor:
    return _mix(keys + _GOLDEN * counter) >> 40 & 0xFFFFFF


def _mix(z: Tensor) -> Tensor:
    z = (z ^ _shift(z, 30)) * _FIRST
    z = (z ^ _shift(z, 27)) * _SECOND
    return z ^ _shift(z, 31)


def _shift(z: Tensor, by: int) -> Tensor:
    """Return z shifted right by `by` bits and filled with zeros; torch fills with the sign bit."""
    return z >> by & (1 << 64 - by) - 1


def generator(
    *key: object, device: torch.device | str = "cpu", again: torch.Generator | None = None
) -> torch.Generator:
    """Return a generator whose stream is a function of the key alone, e.g. (seed, "order", epoch).

    The key is hashed, so that similar keys give unrelated streams. `again` is an existing generator on the same device,
    which is reseeded instead of creating a new one.
    """
    return (again or torch.Generator(device)).manual_seed(_hashed(key) % (1 << 64) >> 1)


@contextlib.contextmanager
def kept_randomness(device: torch.device) -> Iterator[None]:
    """Restore the global generators after the block: Python's, NumPy's, and torch's on the CPU and on the device."""
    python, numbers = random.getstate(), np.random.get_state()  # noqa: NPY002 - the one that others use
    own = torch.mps.get_rng_state() if device.type == "mps" else None
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        if own is not None:
            torch.mps.set_rng_state(own)
        random.setstate(python)
        np.random.set_state(numbers)  # noqa: NPY002


@contextlib.contextmanager
def own_randomness(device: torch.device, *key: object) -> Iterator[None]:
    """Seed the global generators from the key within the block, for code that draws random numbers itself.

    Afterwards those of the caller are restored; see `kept_randomness`.
    """
    with kept_randomness(device):
        number = _hashed(key) % (1 << 64) >> 1
        random.seed(number)
        np.random.seed(number % (1 << 32))  # noqa: NPY002
        torch.default_generator.manual_seed(number)  # `torch.manual_seed` would also seed devices that are not restored
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(number)
        if device.type == "mps":
            torch.mps.manual_seed(number)
        yield


def example_draws(seed: int, attack: str, indices: Sequence[int], device: torch.device | str = "cpu") -> ExampleDraws:
    """Return draws on the device that depend only on the seed, the attack and the index of each example."""
    keys = [_hashed((seed, attack, index)) for index in indices]
    return ExampleDraws(torch.tensor(keys, dtype=torch.int64, device="cpu").to(device))


def _hashed(key: Sequence[object]) -> int:
    digest = hashlib.sha256("\x1f".join(map(str, key)).encode()).digest()
    return int.from_bytes(digest[:8], "little", signed=True)
