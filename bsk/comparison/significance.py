"""Exact tests of two methods on the same images, and what several of them together leave."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController


def mcnemar_exact(b: int, c: int) -> float:
    """Return the two-sided exact p of b examples that only one model gets right and c that only the other does.

    p = min(1, 2 P(X <= min(b, c))), X binomial of b + c and 1/2: the exact sign test of the discordant pairs.

    Source: McNemar (1947), Psychometrika 12; exact form: Fay (2010), Biostatistics 11.
    """
    from scipy.special import bdtr

    return min(1.0, 2 * float(bdtr(min(b, c), b + c, 0.5))) if b + c else 1.0


def paired_exact(scores: NDArray[np.int_]) -> float:
    """Return the two-sided exact p of (n,) scores an image: models of one method right on it, less the other's.

    With one seed a score is in {-1, 0, 1} and this is `mcnemar_exact`. With k seeds, paired seed by seed, a
    score adds the k pairs of the image, and p = P(|sum -+ |score|| >= |sum score|) over independent fair signs, one
    an image. Discordant pairs on one image go together; to count them all as independent makes p too small.

    It is about these trained models on new images, not about new seeds. It assumes that the images are drawn
    independently and, where there is no difference, that the methods could swap their outcomes on an image.

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
    """Return where the probabilities begin that are not 0, and these: tails are 0 some 39 sd from the middle.

    The smallest float64 is 5e-324. What is left is about as long as sqrt(count), so that a million scores are quick.
    """
    kept = np.flatnonzero(probabilities)
    return int(kept[0]), probabilities[kept[0] : kept[-1] + 1]


def _plus(won: NDArray[np.float64], coins: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Return the probabilities of a sum and `size` times a number of heads: each remainder by `size` keeps to itself.

    By products, not by FFT: small probabilities keep their digits. By one thread: numpy asks for a scalar product for
    every sum, and on a machine that is busy otherwise threads that wait for each other took a thousand times as long.
    """
    sums = np.zeros(len(won) + size * (len(coins) - 1))
    with _threads().limit(limits=1):
        for rest in range(min(size, len(won))):
            sums[rest::size] = np.convolve(won[rest::size], coins)
    return sums


@cache
def _threads() -> ThreadpoolController:
    """Return what sets numpy's threads: to look for its libraries takes longer than the products."""
    return ThreadpoolController()


def _fair_coins(count: int) -> NDArray[np.float64]:
    """Return the probability of 0 ... count heads."""
    from scipy.special import gammaln

    heads = np.arange(count + 1)
    logs = gammaln(count + 1) - gammaln(heads + 1) - gammaln(count - heads + 1) - count * math.log(2)
    return np.asarray(np.exp(logs), dtype=np.float64)


def holm(p: Sequence[float]) -> list[float]:
    """Return p values adjusted for being several: the k-th smallest of m times m - k + 1, never falling, at most 1.

    Source: Holm (1979), "A simple sequentially rejective multiple test procedure", Scand. J. Stat. 6.
    """
    adjusted, largest = [0.0] * len(p), 0.0
    for rank, index in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        largest = max(largest, min(1.0, (len(p) - rank) * p[index]))
        adjusted[index] = largest
    return adjusted
