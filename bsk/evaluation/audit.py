"""AutoAttack's accuracy estimated from a sample: its last stages run on only some survivors of its first stages.

Notation: there are S survivors, of which K would fall; m of them are audited, and k of these fall.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass, replace

import numpy as np

from bsk.evaluation.intervals import Interval, wilson

TAIL = 0.025  # error probability of each end of an interval
FIRST = 0.8  # fraction of TAIL spent on the first look of `enlarged`; each later look spends half of the rest
ROUNDING = 1e-9  # relative tolerance of a probability: on a tie a number stays in the interval


@dataclass(frozen=True)
class Audit:
    """A random sample of survivors that met all stages of AutoAttack.

    Attributes:
        n: examples evaluated.
        survivors: examples that survived the first stages.
        audited: survivors in the sample.
        fallen: sampled survivors that a later stage broke.
        looks: how often the sample size was chosen anew (`enlarged`); 0 if it was fixed beforehand.
    """

    n: int
    survivors: int
    audited: int
    fallen: int = 0
    looks: int = 0

    @property
    def tail(self) -> float:
        """The error probability of each end of the interval; over all looks together at most TAIL."""
        if self.looks < 2:
            return FIRST * TAIL if self.looks else TAIL
        return (1 - FIRST) * TAIL / 2.0 ** (self.looks - 1)

    @property
    def accuracy(self) -> float:
        """The estimated accuracy: survivors fall at the rate seen in the sample."""
        return (self.survivors - self.survivors * self.fallen / max(1, self.audited)) / self.n

    @property
    def confidence_for_images(self) -> float:
        """The confidence that, combined with `interval(0.5)`, gives an error probability of 5 % in total."""
        return 1 - TAIL if self.audited < self.survivors else 1 - 2 * TAIL

    def interval(self, part: float = 1.0) -> Interval:
        """Return the interval of the accuracy on these n examples; `part` is the fraction of the error to spend."""
        low, high = fallen_interval(self.survivors, self.audited, self.fallen, part * self.tail)
        return (self.survivors - high) / self.n, (self.survivors - low) / self.n

    def interval_of_new_images(self) -> Interval:
        """Return the 95 % interval of the accuracy on new images: Wilson intervals about both ends of the audit's."""
        low, high = (wilson(end * self.n, self.n, self.confidence_for_images) for end in self.interval(0.5))
        return low[0], high[1]

    def is_within(self, points: float) -> bool:
        """Return whether the interval is at most `points` percentage points wide."""
        low, high = fallen_interval(self.survivors, self.audited, self.fallen, self.tail)
        return high - low <= points / 100 * self.n

    def enlarged(self, points: float) -> Audit:
        """Return an audit with the smallest sample whose interval is expected to be at most `points` wide.

        The first look assumes that no survivor falls; later ones assume the rate seen so far. Because the sample size
        depends on the data, intervals with the full error at each look would miss more often than in 5 % of cases.
        So each look spends a fixed fraction of the error; the fractions sum to at most 1, and by Boole's inequality
        the total error stays within 5 %.
        """
        rate = self.fallen / max(1, self.audited)

        def look(audited: int) -> Audit:
            fallen = self.fallen + math.ceil(rate * (audited - self.audited))
            return Audit(self.n, self.survivors, audited, fallen, self.looks + 1)

        sizes = range(min(self.audited + 1, self.survivors), self.survivors)
        enough = bisect_left(sizes, True, key=lambda audited: look(audited).is_within(points))
        return replace(self, audited=sizes.start + enough, looks=self.looks + 1)


def fallen_interval(survivors: int, audited: int, fallen: int, tail: float = TAIL) -> tuple[int, int]:
    """Return the smallest and the largest number K of falling survivors that a test at level `tail` does not reject.

    The m audited survivors are drawn from S without replacement, so k is hypergeometric. K is in the interval if both
    P(X <= k) and P(X >= k) are at least `tail`; each end then misses K with probability below `tail`. Always
    k <= K <= S - (m - k).

    Source: Clopper and Pearson (1934), Biometrika 26; for finite populations: Buonaccorsi (1987), The American
    Statistician 41.
    """
    standing = _most(survivors, audited, audited - fallen, tail)  # P(X >= k) = P(m - X <= m - k), with S - K marked
    return survivors - standing, _most(survivors, audited, fallen, tail)


def _most(population: int, drawn: int, seen: int, tail: float) -> int:
    """Return the largest number of marked items for which P(at most `seen` of them are drawn) >= `tail`."""
    numbers = range(seen, population - drawn + seen + 1)
    least = tail * (1 - ROUNDING)
    return numbers[bisect_left(numbers, True, key=lambda marked: at_most(population, marked, drawn, seen) < least) - 1]


def at_most(population: int, marked: int, drawn: int, seen: int) -> float:
    """Return P(X <= seen), where X is the number of marked items among `drawn`, taken without replacement."""
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
    """Return the logarithm of the binomial coefficient n over k."""
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
