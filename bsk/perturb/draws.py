"""Where random numbers come from: a generator a batch in training, a generator an example in evaluation."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
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

    def shared(self, like: Tensor, count: int) -> Tensor:
        """Return U(-1, 1) numbers (count, N) in the type and place of `like` (N, ...).

        In training each is one number for the whole batch; in evaluation each example has its own.
        """


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

    def shared(self, like: Tensor, count: int) -> Tensor:
        """Return U(-1, 1) numbers, (count, N), the same for all N and for all processes."""
        return like.new_empty(count, 1).uniform_(-1.0, 1.0, generator=self.generator).expand(-1, len(like))

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


class ExampleDraws:
    """A stream of numbers an example, of its own: for evaluation.

    There a result must not depend on an example's neighbours, batch size, order, process or device. The k-th
    number of a stream is a hash of (key, k), so that the streams of a whole batch are drawn in one go, wherever the
    tensors are.

    Source: Steele, Lea and Flood (2014), SplitMix64, started at a SHA-256 of the key.
    """

    def __init__(self, keys: Tensor, position: int = 0) -> None:
        """Take a key an example, (N,) int64, and how many numbers each stream has given."""
        self.keys, self.position = keys, position

    def bits(self, count: int) -> Tensor:
        """Return the next `count` numbers of each stream, (N, count), uniform over 0 ... 2^24 - 1, int64."""
        counter = torch.arange(1, count + 1, device=self.keys.device) + self.position
        self.position += count
        return _bits(self.keys[:, None], counter)

    def unit(self, count: int) -> Tensor:
        """Return the next `count` numbers of each stream, (N, count) fp32, U[0, 1)."""
        return _unit(self.bits(count))

    def unit_at(self, rows: Tensor, positions: Tensor, count: int) -> Tensor:
        """Return numbers of some streams, rows (R,), that come after so many, (R,): (R, count) fp32, U[0, 1).

        They are what `unit` gives when a stream is there; the streams stay where they are.
        """
        counter = torch.arange(1, count + 1, device=self.keys.device) + positions[:, None]
        return _unit(_bits(self.keys[rows, None], counter))

    def uniform(self, like: Tensor) -> Tensor:
        """Return U(-1, 1) numbers like `like`."""
        return self._shaped(like, self.unit(like[:1].numel()).mul_(2.0).sub_(1.0))

    def gaussian(self, like: Tensor) -> Tensor:
        """Return N(0, 1) numbers like `like`. Source: Box and Muller (1958)."""
        radius, angle = self.unit(2 * like[:1].numel()).tensor_split(2, dim=1)
        return self._shaped(like, (-2 * torch.log1p(-radius)).sqrt() * torch.cos(2 * torch.pi * angle))

    def shared(self, like: Tensor, count: int) -> Tensor:
        """Return U(-1, 1) numbers, (count, N), each example's own."""
        return self.unit(count).mul_(2.0).sub_(1.0).T.to(like)

    def keep(self, rows: Tensor) -> ExampleDraws:
        """Return the streams, where they are, of some rows: a boolean mask (N,), or positions in any number."""
        return ExampleDraws(self.keys[rows], self.position)

    @staticmethod
    def _shaped(like: Tensor, values: Tensor) -> Tensor:
        return torch.empty_like(like).copy_(values.view(like.shape))


# The constants of SplitMix64 as signed numbers: int64 products wrap around as unsigned ones do.
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
    """Shift to the right with zeros coming in; torch's shift of a signed number brings in the sign."""
    return z >> by & (1 << 64 - by) - 1


def generator(
    *key: object, device: torch.device | str = "cpu", again: torch.Generator | None = None
) -> torch.Generator:
    """Return a generator whose stream is a function of the key alone, e.g. (seed, "order", epoch).

    The key is hashed, so that streams of neighbouring keys have nothing in common. `again` is one of before on the same
    device, which is taken instead of a new one.
    """
    return (again or torch.Generator(device)).manual_seed(_hashed(key) % (1 << 64) >> 1)


@contextlib.contextmanager
def own_randomness(device: torch.device, *key: object) -> Iterator[None]:
    """Let a model that draws from torch's global generators draw a function of the key alone within the block.

    The caller's generators, of the CPU and of a CUDA device, are as they were afterwards.
    """
    gpu = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if gpu else []):
        number = _hashed(key) % (1 << 64) >> 1
        torch.default_generator.manual_seed(number)  # `torch.manual_seed` would reach devices that are not put back
        if gpu:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(number)
        yield


def example_draws(seed: int, attack: str, indices: Sequence[int], device: torch.device | str = "cpu") -> ExampleDraws:
    """Return draws that depend on (seed, attack, index of the example) alone, made on the device."""
    keys = [_hashed((seed, attack, index)) for index in indices]
    return ExampleDraws(torch.tensor(keys, dtype=torch.int64).to(device))


def _hashed(key: Sequence[object]) -> int:
    digest = hashlib.sha256("\x1f".join(map(str, key)).encode()).digest()
    return int.from_bytes(digest[:8], "little", signed=True)
