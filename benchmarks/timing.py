"""Interleaved timing: A B A B ..., the median of the pairs' ratios."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple


class Ratio(NamedTuple):
    """A over B: the median of the pairs' ratios, their range, and both medians in seconds."""

    median: float
    low: float
    high: float
    a: float
    b: float


def ratio(a: Callable[[], object], b: Callable[[], object], repeats: int = 9) -> Ratio:
    """Return how much longer a takes than b, from interleaved repeats after one warm-up of each."""
    a(), b()
    pairs = [(_seconds(a), _seconds(b)) for _ in range(repeats)]
    ratios = sorted(x / y for x, y in pairs)
    medians = [statistics.median(side) for side in zip(*pairs, strict=True)]
    return Ratio(statistics.median(ratios), ratios[0], ratios[-1], *medians)


def _seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start
