"""Intervals and tests for accuracies: of one model, of several seeds, and of two methods on the same images.

Notation: x[s, i] is 1 where the model of seed s gets image i right, k seeds, n images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Interval = tuple[float, float]


def wilson(k: float, n: float, confidence: float = 0.95) -> Interval:
    """Return the score interval of the accuracy k / n, as fractions within [0, 1].

    With p = k / n and the normal quantile z: (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n).
    It covers the draw of the n images, not the draw of the training seed.

    Source: Wilson (1927), "Probable inference", JASA 22; recommended by Brown, Cai and DasGupta (2001).
    """
    return _score_interval(k / n, n, NormalDist().inv_cdf((1 + confidence) / 2))


def _score_interval(p: float, n: float, z: float) -> Interval:
    centre = p + z * z / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    low = 0.0 if p == 0 else (centre - half) / scale  # exact at both ends, whatever the rounding
    high = 1.0 if p == 1 else (centre + half) / scale
    return max(0.0, low), min(1.0, high)


def mean_sd(values: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean and the sample standard deviation (divisor k - 1); None for a single value."""
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return mean, None
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def t_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Return mean -+ t sd / sqrt(k) with k - 1 degrees of freedom, for k >= 2 values.

    Over seeds it covers the draw of the seed alone: all seeds share the same images.

    Source: Student (1908), "The probable error of a mean", Biometrika 6.
    """
    mean, sd = mean_sd(values)
    if sd is None:
        raise ValueError("one value has no t interval")
    half = _t_quantile(len(values) - 1, confidence) * sd / math.sqrt(len(values))
    return mean - half, mean + half


def accuracy_interval(correct: NDArray[np.bool_], confidence: float = 0.95) -> Interval:
    """Return the interval of a method's accuracy from the (k, n) outcomes of k >= 1 seeds on the same n images.

    One seed: `wilson`. Several: the interval covers both draws, of the seed and of the images. With the
    variance V and the degrees of freedom of `crossed_variance`, it is Wilson's interval with p(1-p)/V as the number
    of images and the t quantile in place of z. (A t interval over seeds ignores that they share the images,
    Wilson on k n outcomes ignores that the outcomes on one image go together: both are too narrow.)

    Source: Korn and Graubard (1998), Survey Methodology 24: the effective number of examples, there for counties.
    """
    k, n = correct.shape
    p = float(correct.mean())
    if k == 1 or n == 1 or p in (0.0, 1.0):
        return wilson(p * n, n, confidence)
    variance, freedom = crossed_variance(correct)
    return _score_interval(p, p * (1 - p) / variance, _t_quantile(freedom, confidence))


def rough_accuracy_interval(accuracies: Sequence[float], n: int, confidence: float = 0.95) -> Interval:
    """Return the interval of `accuracy_interval` where only the k accuracies are known, not the outcomes.

    V = sd^2 / k + p(1-p) / n, which is too wide by the part of chance that is counted in both terms.
    """
    p, sd = mean_sd(accuracies)
    if sd is None or p in (0.0, 1.0):
        return wilson(p * n, n, confidence)
    seeds, images = sd * sd / len(accuracies), p * (1 - p) / n
    freedom = (len(accuracies) - 1) * ((seeds + images) / seeds) ** 2 if seeds else math.inf
    return _score_interval(p, p * (1 - p) / (seeds + images), _t_quantile(freedom, confidence))


def difference_interval(differences: NDArray[np.int_], confidence: float = 0.95) -> Interval:
    """Return the interval of the mean of (k, n) paired differences in {-1, 0, 1}, within [-1, 1].

    Two images are added, one won and one lost by every seed, so that the interval has a width where no
    outcome differs; for one seed this is Bonett and Price's interval. For several it covers the draw of the
    seeds and of the images (`crossed_variance`); for one it covers the images alone.

    Source: Bonett and Price (2012), "Adjusted Wald confidence interval for a difference of binomial
    proportions based on paired data", J. Educ. Behav. Stat. 37.
    """
    k = len(differences)
    added = np.concatenate([differences, np.tile([1, -1], (k, 1))], axis=1)
    variance, freedom = crossed_variance(added)
    half = math.sqrt(variance) * (_t_quantile(freedom, confidence) if k > 1 else _z(confidence))
    mean = float(added.mean())
    return max(-1.0, mean - half), min(1.0, mean + half)


def crossed_variance(x: NDArray[np.generic]) -> tuple[float, float]:
    """Return the variance of the mean of (k, n) outcomes of k seeds on the same n > 1 images, and its degrees.

    Seeds and images are both drawn at random and crossed: with the mean squares S between seeds, I between
    images and E of the rest, V = (S + I - E) / kn, where S and I count as at least E, and the degrees of
    freedom are Satterthwaite's. With one seed: the sample variance of the images over n (divisor n), infinite.

    Source: Searle, Casella and McCulloch (1992), "Variance Components", chapter 4; Satterthwaite (1946),
    Biometrics 2.
    """
    values = np.asarray(x, dtype=np.float64)
    k, n = values.shape
    if k == 1:
        return float(values.var()) / n, math.inf
    seeds, images = values.mean(axis=1, keepdims=True), values.mean(axis=0, keepdims=True)
    rest = values - seeds - images + values.mean()
    square_e = float((rest**2).sum()) / ((k - 1) * (n - 1))
    square_s = max(square_e, n * float(seeds.var(ddof=1)))
    square_i = max(square_e, k * float(images.var(ddof=1)))
    total = square_s + square_i - square_e
    spread = square_s**2 / (k - 1) + square_i**2 / (n - 1) + square_e**2 / ((k - 1) * (n - 1))
    return total / (k * n), total**2 / spread if spread else math.inf


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
    won = np.ones(1)  # won[u]: probability that the positive scores add up to u
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        step = np.zeros(size * count + 1)
        step[::size] = _fair_coins(count)
        won = np.convolve(won, step)
    total = len(won) - 1
    extreme = np.abs(2 * np.arange(total + 1) - total) >= abs(int(scores.sum()))
    return min(1.0, float(won[extreme].sum()))


def _fair_coins(count: int) -> NDArray[np.float64]:
    """Return the probability of 0 ... count heads."""
    from scipy.special import gammaln

    heads = np.arange(count + 1)
    logs = gammaln(count + 1) - gammaln(heads + 1) - gammaln(count - heads + 1) - count * math.log(2)
    return np.asarray(np.exp(logs), dtype=np.float64)


def _t_quantile(freedom: float, confidence: float) -> float:
    if math.isinf(freedom):
        return _z(confidence)
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + confidence) / 2))


def _z(confidence: float) -> float:
    return NormalDist().inv_cdf((1 + confidence) / 2)
