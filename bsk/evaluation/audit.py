"""AutoAttack's number from a sample: of the survivors of its first stages some meet the others, and few of those fall.

Notation: S survivors, of which K would fall; m of them are audited, and k of these fall.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass, replace

import numpy as np

from bsk.evaluation.intervals import Interval, wilson

TAIL = 0.025  # the error of each end of an interval
FIRST = 0.8  # the part of it that the first look of `enlarged` takes; each later one takes half of what is left
ROUNDING = 1e-9  # of a probability: on a tie a number stays in the interval


@dataclass(frozen=True)
class Audit:
    """Of `survivors` among n examples `audited` ones, drawn at random, were attacked to the end, and `fallen` fell.

    `looks` is 0 where their number was named beforehand, else how often it was chosen anew (`enlarged`).
    """

    n: int
    survivors: int
    audited: int
    fallen: int = 0
    looks: int = 0

    @property
    def tail(self) -> float:
        """The error of each end of the interval. Over all looks together it is at most TAIL."""
        if self.looks < 2:
            return FIRST * TAIL if self.looks else TAIL
        return (1 - FIRST) * TAIL / 2.0 ** (self.looks - 1)

    @property
    def accuracy(self) -> float:
        """The share of n that stands in the end, if as many of all survivors fall as of those audited."""
        return (self.survivors - self.survivors * self.fallen / max(1, self.audited)) / self.n

    @property
    def confidence_for_images(self) -> float:
        """What an interval over new images needs beside `interval(0.5)`, so that both together err in 5 % of cases."""
        return 1 - TAIL if self.audited < self.survivors else 1 - 2 * TAIL

    def interval(self, part: float = 1.0) -> Interval:
        """Return the interval of the share of these n examples that stands in the end, at a part of the error."""
        low, high = fallen_interval(self.survivors, self.audited, self.fallen, part * self.tail)
        return (self.survivors - high) / self.n, (self.survivors - low) / self.n

    def interval_of_new_images(self) -> Interval:
        """Return the 95 % interval of the accuracy on new images: Wilson's, about both ends of the audit's."""
        low, high = (wilson(end * self.n, self.n, self.confidence_for_images) for end in self.interval(0.5))
        return low[0], high[1]

    def is_within(self, points: float) -> bool:
        """Return whether the interval is at most so many percentage points wide."""
        low, high = fallen_interval(self.survivors, self.audited, self.fallen, self.tail)
        return high - low <= points / 100 * self.n

    def enlarged(self, points: float) -> Audit:
        """Return the next look: as many audited as make it so narrow, if the others fall as often as those so far.

        The first look takes none to fall. What is audited next depends on what was seen, so that intervals of the full
        error would miss more often than in 5 % of cases. Each look has its part of the error, whatever was seen; the
        parts add up to the whole, and so do, by Boole's inequality, the chances that any of the looks misses.
        """
        rate = self.fallen / max(1, self.audited)

        def look(audited: int) -> Audit:
            fallen = self.fallen + math.ceil(rate * (audited - self.audited))
            return Audit(self.n, self.survivors, audited, fallen, self.looks + 1)

        sizes = range(min(self.audited + 1, self.survivors), self.survivors)
        enough = bisect_left(sizes, True, key=lambda audited: look(audited).is_within(points))
        return replace(self, audited=sizes.start + enough, looks=self.looks + 1)


def fallen_interval(survivors: int, audited: int, fallen: int, tail: float = TAIL) -> tuple[int, int]:
    """Return the least and the largest number K of all survivors that a test at `tail` does not reject.

    Audited are m of the S survivors, drawn without replacement: k is hypergeometric. K stays while P(X <= k) and
    P(X >= k) are at least `tail`, so each end misses K with a chance below it; k <= K <= S - (m - k).

    Source: Clopper and Pearson (1934), Biometrika 26; of finite populations: Buonaccorsi (1987), The American
    Statistician 41.
    """
    standing = _most(survivors, audited, audited - fallen, tail)  # P(X >= k) is P(m - X <= m - k), with S - K
    return survivors - standing, _most(survivors, audited, fallen, tail)


def _most(population: int, drawn: int, seen: int, tail: float) -> int:
    """Return the largest number of marked ones of which `seen` or fewer are drawn with a chance of at least `tail`."""
    numbers = range(seen, population - drawn + seen + 1)
    least = tail * (1 - ROUNDING)
    return numbers[bisect_left(numbers, True, key=lambda marked: at_most(population, marked, drawn, seen) < least) - 1]


def at_most(population: int, marked: int, drawn: int, seen: int) -> float:
    """Return P(X <= seen), X the number of marked ones among those drawn without replacement."""
    first, last = max(0, drawn - (population - marked)), min(seen, marked, drawn)
    if seen >= min(marked, drawn) or last < first:
        return float(last >= first)
    j = np.arange(first, last, dtype=np.float64)  # P(X = j + 1) / P(X = j)
    steps = np.log((marked - j) * (drawn - j)) - np.log((j + 1) * (population - marked - drawn + j + 1))
    logs = np.concatenate([[0.0], np.cumsum(steps)])
    top = float(logs.max())
    start = _log_ways(marked, first) + _log_ways(population - marked, drawn - first) - _log_ways(population, drawn)
    return math.exp(start + top) * float(np.exp(logs - top).sum())


def _log_ways(n: int, k: int) -> float:
    """Return the logarithm of n over k."""
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
