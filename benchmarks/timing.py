"""Interleaved timing A B A B ..., summarised by the median of the pairs' ratios."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.multiprocessing as mp


class Ratio(NamedTuple):
    """The ratio A / B: the median and range over pairs, and the median seconds of A and of B."""

    median: float
    low: float
    high: float
    a: float
    b: float


def ratio(a: Callable[[], object], b: Callable[[], object], repeats: int = 9) -> Ratio:
    """Return the ratio of the times of a and b, from interleaved repeats after one warm-up of each."""
    a(), b()
    pairs = [(_seconds(a), _seconds(b)) for _ in range(repeats)]
    ratios = sorted(x / y for x, y in pairs)
    medians = [statistics.median(side) for side in zip(*pairs, strict=True)]
    return Ratio(statistics.median(ratios), ratios[0], ratios[-1], *medians)


def _seconds(function: Callable[[], object]) -> float:
    _wait()
    start = time.perf_counter()
    function()
    _wait()
    return time.perf_counter() - start


def _wait() -> None:
    """Wait for the GPU if one is in use."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def say(what: str, value: float, limit: str, kept: bool, detail: str = "") -> None:
    """Print one row: the value, the promised limit, and whether it is met."""
    print(f"{what:<84} {value:7.3f}  {limit:<9} {'ok' if kept else 'NOT MET'}  {detail}", flush=True)


def spread(r: Ratio) -> str:
    """Return the range of the ratios and the two medians as text."""
    return f"pairs {r.low:.2f} to {r.high:.2f}; {r.a:.4f} s and {r.b:.4f} s"


class Elsewhere:
    """A subject in another process, with torch's default memory allocation; `step` runs one step there and waits."""

    def __init__(self, make: Callable[[], Any], threads: int) -> None:
        """Start the process; `make` returns the subject, with a method `step`."""
        context = mp.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(make, threads, theirs), daemon=True)
        self._process.start()

    def step(self) -> None:
        """Run one step."""
        self._pipe.send(None)
        self._pipe.recv()


def _serve(make: Callable[[], Any], threads: int, pipe: Any) -> None:
    torch.set_num_threads(threads)
    subject = make()
    with contextlib.suppress(EOFError):  # the parent has ended
        while True:
            pipe.recv()
            subject.step()
            _wait()
            pipe.send(None)
