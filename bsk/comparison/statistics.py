"""Intervals for accuracies: of one model, of several seeds, and of two methods on the same images.

Notation: x[s, i] is 1 where the model of seed s gets image i right, k seeds, n images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bsk.evaluation.audit import Audit
from bsk.evaluation.intervals import Interval, normal_quantile, score_interval, wilson

GRID = 200  # quantiles that stand for a distribution
CELLS_AT_ONCE = 1 << 17  # of a table of seeds and images, as floats
RESAMPLES_AT_ONCE = 1000  # of many seeds each is as long as scores have values


def mean_sd(values: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean and the sample standard deviation (divisor k - 1); None for a single value."""
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return mean, None
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def sd_interval(sd: float, k: int, confidence: float = 0.95) -> Interval:
    """Return the interval of the standard deviation of normal values, of which k >= 2 have the sample one `sd`.

    sd sqrt((k - 1) / q) at the quantiles q of chi-squared with k - 1 degrees of freedom: of three seeds it goes from a
    half to six times, so that few seeds say little of how much seeds vary.

    Source: Snedecor & Cochran (1989), "Statistical Methods", section 5.11.
    """
    tail = (1 - confidence) / 2
    high, low = _chi_squared(k - 1, np.array([tail, 1 - tail]))
    return float(sd / math.sqrt(low)), float(sd / math.sqrt(high))


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

    One seed: `wilson`. Several: the interval covers both draws, of the seed and of the images. It is Wilson's interval
    of as many images as would have the half-width h of `half_width`: z^2 p(1-p) / h^2. (A t interval over seeds
    ignores that they share the images, Wilson on k n outcomes ignores that the outcomes on one image go together: both
    are too narrow.)

    Source: Korn and Graubard (1998), Survey Methodology 24: the effective number of examples, there for counties.
    """
    k, n = correct.shape
    p = float(correct.mean())
    if k == 1 or n == 1 or p in (0.0, 1.0):
        return wilson(p * n, n, confidence)
    return _of_half_width(p, half_width(correct, confidence), confidence)


def rough_accuracy_interval(accuracies: Sequence[float], n: int, confidence: float = 0.95) -> Interval:
    """Return the interval of `accuracy_interval` where only the k accuracies are known, not the outcomes.

    h^2 = t^2 sd^2 / k + z^2 p(1-p) / n, which is too wide by the part of chance that is counted in both terms.
    """
    p, sd = mean_sd(accuracies)
    if sd is None or p in (0.0, 1.0):
        return wilson(p * n, n, confidence)
    k, z = len(accuracies), normal_quantile(confidence)
    half = math.sqrt(_t_quantile(k - 1, confidence) ** 2 * sd * sd / k + z * z * p * (1 - p) / n)
    return _of_half_width(p, half, confidence)


def audit_interval(audits: Sequence[Audit]) -> Interval:
    """Return the interval of the mean accuracy of k audited networks on the same n images.

    Its ends are the means of theirs, each at a k-th of the error: then all hold at once, whatever the audits have in
    common, as the order of the images (Boole's inequality).
    """
    ends = [audit.interval(1 / len(audits)) for audit in audits]
    low, high = (mean_sd(each)[0] for each in zip(*ends, strict=True))
    return low, high


def audited_accuracy_interval(audits: Sequence[Audit]) -> Interval:
    """Return the interval of the mean accuracy of k audited networks on new images, and of new seeds.

    Half of the error is the audits', half that of `rough_accuracy_interval` about the ends of theirs.
    """
    ends = [audit.interval(0.5 / len(audits)) for audit in audits]
    confidence = min(audit.confidence_for_images for audit in audits)
    low, high = (rough_accuracy_interval(each, audits[0].n, confidence) for each in zip(*ends, strict=True))
    return low[0], high[1]


def _of_half_width(p: float, half: float, confidence: float) -> Interval:
    z = normal_quantile(confidence)
    return score_interval(p, z * z * p * (1 - p) / half**2, z)


def difference_interval(differences: NDArray[np.integer[Any]], confidence: float = 0.95) -> Interval:
    """Return the interval of the mean of (k, n) paired differences in {-1, 0, 1}, within [-1, 1].

    Two images are added, one won and one lost by every seed, so that the interval has a width where no
    outcome differs; for one seed this is Bonett and Price's interval. For several it covers the draw of the
    seeds and of the images (`half_width`); for one it covers the images alone.

    Source: Bonett and Price (2012), "Adjusted Wald confidence interval for a difference of binomial
    proportions based on paired data", J. Educ. Behav. Stat. 37.
    """
    added = _with_two(differences)
    half, mean = half_width(added, confidence), float(added.mean())
    return max(-1.0, mean - half), min(1.0, mean + half)


def _with_two(differences: NDArray[np.integer[Any]]) -> NDArray[np.integer[Any]]:
    return np.concatenate([differences, np.tile(np.array([1, -1], differences.dtype), (len(differences), 1))], axis=1)


def seed_interval(differences: NDArray[np.integer[Any]], confidence: float = 0.95) -> Interval | None:
    """Return `t_interval` of the k >= 2 seeds' mean differences, of (k, n) paired differences; None for one seed.

    It tells what new seeds would give on these very images.
    """
    means = [float(mean) for mean in differences.mean(axis=1)]
    return t_interval(means, confidence) if len(means) > 1 else None


def bootstrap_interval(
    differences: NDArray[np.integer[Any]], confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> Interval:
    """Return the percentile interval of the mean of (k, n) paired differences over images drawn anew.

    The networks stay. An image is drawn with all its k pairs. What a resample adds up to depends only on how often
    each score occurs in it, so that is what is drawn.

    Source: Efron & Tibshirani (1993), "An Introduction to the Bootstrap", chapters 13 and 8.
    """
    scores, counts = np.unique(differences.sum(axis=0), return_counts=True)
    k, n = differences.shape
    random, chances = np.random.default_rng(seed), counts / n
    parts = np.diff([*range(0, resamples, RESAMPLES_AT_ONCE), resamples])
    drawn = [random.multinomial(n, chances, size=part) @ scores for part in parts]  # the same draws as all at once
    means = np.concatenate(drawn) / (k * n)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def detectable(
    comparisons: Sequence[NDArray[np.integer[Any]]], power: float = 0.8, confidence: float = 0.95
) -> list[float]:
    """Return, for each of several methods less the same one, the true difference that is seen with this power.

    Each comparison has the (k, n) paired differences of the same k seeds and n images. A difference is seen where
    `difference_interval` leaves 0 out. With several seeds its half-width h is random itself, since S has k - 1 degrees
    of freedom: d is seen where d > h(X) + N, X chi-squared and N normal with the standard error, so that d is a
    quantile of that sum. Where images add nothing this is the noncentral t: 5.65 standard errors at k = 3, not the
    4.30 + 0.84 of a width that is known.

    S of a single comparison of few seeds varies by a large factor, so that all comparisons say together what it is
    (`_shared_seed_square`); it is at least E, its expectation where seeds do not differ.

    Source: Cohen (1988), "Statistical Power Analysis", chapter 2, for a normal mean; Johnson and Welch (1940),
    "Applications of the non-central t-distribution", Biometrika 31.
    """
    from scipy.special import ndtri

    added = [_with_two(differences) for differences in comparisons]
    shape, chances = added[0].shape, (np.arange(GRID) + 0.5) / GRID
    spread = _chi_squared(shape[0] - 1, chances) if shape[0] > 1 else np.ones(1)
    shared, found = _shared_seed_square(added), []
    for _, images, rest in map(mean_squares, added):
        seeds = max(shared, rest)
        error = math.sqrt((seeds + max(images, rest) - rest) / math.prod(shape))
        widths = _half_widths(seeds * spread, images, rest, shape, confidence)
        found.append(float(np.quantile(widths[:, None] + error * ndtri(chances), power)))
    return found


def _shared_seed_square(comparisons: Sequence[NDArray[np.integer[Any]]]) -> float:
    """Return S of the comparisons of m methods with the same one, over the same k seeds; 0 for one seed.

    It is twice the mean square of what method and seed leave of the m + 1 methods' accuracies, with m (k - 1) degrees
    of freedom where all vary alike with the seed; for m = 1 it is that of `mean_squares`. It is divided by the median
    of its distribution, so that it is too large as often as too small: with 2 degrees, else too small in 63 of 100.

    Source: Searle, Casella and McCulloch (1992), "Variance Components", chapter 4.
    """
    means = np.stack([np.zeros(len(comparisons[0])), *(each.mean(axis=1) for each in comparisons)])
    freedom = len(comparisons) * (means.shape[1] - 1)
    if freedom == 0:
        return 0.0
    rest = means - means.mean(axis=0) - means.mean(axis=1, keepdims=True) + means.mean()
    square = 2 * comparisons[0].shape[1] * (rest**2).sum() / freedom
    return float(square / _chi_squared(freedom, np.array(0.5)))


def _chi_squared(freedom: int, chances: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return quantiles of a mean square of which the expectation is 1."""
    from scipy.special import gammaincinv

    return np.asarray(2 * gammaincinv(freedom / 2, chances) / freedom)


def half_width(x: NDArray[np.generic], confidence: float = 0.95) -> float:
    """Return the half-width of an interval of the mean of (k, n) outcomes of k seeds on the same n images.

    Seeds and images are both drawn at random and crossed. With the mean squares S between seeds, I between images and E
    of the rest, S / kn is the variance from the seeds, and (I - E) / kn what the images add to it. The half-widths that
    belong to each, by t of k - 1 degrees and by the normal z, are added as squares; it is never less than that of new
    images alone, z sqrt(I / kn), where I counts as at least E. With one seed: z times the standard error over images.

    In the simulations of the tests its intervals hold the truth in at least 94 of 100 tables, and where two or three
    seeds differ little in up to 99.5: it is conservative. One t quantile for the whole variance, with Satterthwaite's
    degrees of freedom, would often be narrower and not keep that.

    Source: Searle, Casella and McCulloch (1992), "Variance Components", chapter 4; Howe (1974), "Approximate confidence
    limits on the mean of X + Y", JASA 69.
    """
    seeds, images, rest = mean_squares(x)
    return float(_half_widths(np.array(seeds), images, rest, x.shape, confidence))


def _half_widths(
    seeds: NDArray[np.float64], images: float, rest: float, shape: tuple[int, ...], confidence: float
) -> NDArray[np.float64]:
    """Return the half-width for each mean square between seeds."""
    z, images = normal_quantile(confidence), max(images, rest)
    t = _t_quantile(shape[0] - 1, confidence) if shape[0] > 1 else 0.0  # of one seed nothing is known of others
    both = np.maximum(t * t * seeds + z * z * (images - rest), z * z * images)
    return np.asarray(np.sqrt(both / math.prod(shape)))


def mean_squares(x: NDArray[np.generic]) -> tuple[float, float, float]:
    """Return S between seeds, I between images and E of the rest, of (k, n) outcomes of k seeds on n images.

    With one seed: 0, the variance over the images (divisor n), 0.
    """
    k, n = x.shape
    if k == 1:
        return 0.0, float(x.var()), 0.0
    seeds, images = x.mean(axis=1), x.mean(axis=0)
    centred = images - x.mean()
    at_once = max(1, CELLS_AT_ONCE // n)
    parts = (slice(start, start + at_once) for start in range(0, k, at_once))
    square = sum(each for part in parts for each in ((x[part] - seeds[part, None] - centred) ** 2).sum(axis=1).tolist())
    return n * float(seeds.var(ddof=1)), k * float(images.var(ddof=1)), square / ((k - 1) * (n - 1))


def _t_quantile(freedom: float, confidence: float) -> float:
    if math.isinf(freedom):
        return normal_quantile(confidence)
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + confidence) / 2))
