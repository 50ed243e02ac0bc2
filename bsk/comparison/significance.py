"""Exact paired tests of two methods on the same images, and the adjustment for several tests."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController


def mcnemar_exact(b: int, c: int) -> float:
    """Return the two-sided exact p for b examples that only one model gets right and c that only the other does.

    p = min(1, 2 P(X <= min(b, c))), X ~ Binomial(b + c, 1/2): the exact sign test of the discordant pairs.

    Source: McNemar (1947), Psychometrika 12; exact form: Fay (2010), Biostatistics 11.
    """
    from scipy.special import bdtr

    return min(1.0, 2 * float(bdtr(min(b, c), b + c, 0.5))) if b + c else 1.0


def paired_exact(scores: NDArray[np.int_]) -> float:
    """Return the two-sided exact p of a sign-flip test on (n,) scores, one per image.

    The score of an image is the number of models of one method that are right on it, minus that of the other method.
    With one seed it is in {-1, 0, 1} and the test is `mcnemar_exact`. With k seeds it sums the k pairs of the image,
    and p = P(|sum_i e_i |score_i|| >= |sum_i score_i|), with independent fair signs e_i. Discordant pairs on the same
    image are correlated; counting them as independent would make p too small.

    The test is about these trained models on new images, not about new seeds. It assumes that the images are drawn
    independently and that under the null hypothesis the two methods' outcomes on an image are exchangeable.

    Source: McNemar (1947); the randomisation test of Fisher (1935), "The Design of Experiments", section 21.
    """
    sizes, counts = np.unique(np.abs(scores[scores != 0]), return_counts=True)
    if sizes.size == 0:
        return 1.0
    if sizes.tolist() == [1]:
        return mcnemar_exact(int((scores > 0).sum()), int((scores < 0).sum()))
    won, first, total = np.ones(1), 0, 0  # won[u - first]: probability that the positive scores add up to u
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        heads, coins = _not_zero(_fair_coins(count))
        trimmed, won = _not_zero(_plus(won, coins, size))
        first, total = first + size * heads + trimmed, total + size * count
    sums = first + np.arange(len(won))
    extreme = np.abs(2 * sums - total) >= abs(int(scores.sum()))
    return min(1.0, float(won[extreme].sum()))


def _not_zero(probabilities: NDArray[np.float64]) -> tuple[int, NDArray[np.float64]]:
    """Return the index of the first nonzero probability, and the probabilities up to the last nonzero one.

    Tails underflow to 0 about 39 sd from the mean, since the smallest float64 is 5e-324. What is left has a length of
    about sqrt(count), so that a million scores are fast.
    """
    kept = np.flatnonzero(probabilities)
    return int(kept[0]), probabilities[kept[0] : kept[-1] + 1]


def _plus(won: NDArray[np.float64], coins: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Return the distribution of a sum plus `size` times a number of heads, one remainder modulo `size` at a time.

    The convolution is direct, not by FFT, so that small probabilities keep their precision. It runs in one thread:
    numpy calls BLAS for every term, and on a busy machine threads that wait for each other were a thousand times
    slower.
    """
    sums = np.zeros(len(won) + size * (len(coins) - 1))
    with _threads().limit(limits=1):
        for rest in range(min(size, len(won))):
            sums[rest::size] = np.convolve(won[rest::size], coins)
    return sums


@cache
def _threads() -> ThreadpoolController:
    """Return the controller of numpy's threads, cached since finding the libraries takes longer than the products."""
    return ThreadpoolController()


def _fair_coins(count: int) -> NDArray[np.float64]:
    """Return the probability of 0 ... count heads."""
    from scipy.special import gammaln

    heads = np.arange(count + 1)
    logs = gammaln(count + 1) - gammaln(heads + 1) - gammaln(count - heads + 1) - count * math.log(2)
    return np.asarray(np.exp(logs), dtype=np.float64)


def holm(p: Sequence[float]) -> list[float]:
    """Return the p values adjusted for multiple comparisons by Holm's step-down method.

    The k-th smallest of m values becomes max_{j <= k} min(1, (m - j + 1) p_(j)).

    Source: Holm (1979), "A simple sequentially rejective multiple test procedure", Scand. J. Stat. 6.
    """
    adjusted, largest = [0.0] * len(p), 0.0
    for rank, index in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        largest = max(largest, min(1.0, (len(p) - rank) * p[index]))
        adjusted[index] = largest
    return adjusted
