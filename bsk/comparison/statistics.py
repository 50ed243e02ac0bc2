"""Intervals for accuracies of one model, of several seeds, and for the difference of two methods on the same images.

Notation: x[s, i] is 1 if the model of seed s gets image i right and else 0, for k seeds and n images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bsk.evaluation.audit import Audit
from bsk.evaluation.intervals import Interval, normal_quantile, score_interval, wilson

GRID = 200  # quantiles that represent a distribution
CELLS_AT_ONCE = 1 << 17  # of the (k, n) table converted to floats at once, to limit memory
RESAMPLES_AT_ONCE = 1000  # to limit memory: a resample has as many counts as there are distinct scores


def mean_sd(values: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean and the sample standard deviation (divisor k - 1); None for a single value."""
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return mean, None
    if len(set(values)) == 1:
        return mean, 0.0  # despite rounding of the mean
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def quarter_means(values: Sequence[float]) -> NDArray[np.float64]:
    """Return the means over the four quarters of a sequence, (4,); values at a boundary count in part.

    For per-epoch values of a training, the quarters have equal numbers of updates.
    """
    positions = np.linspace(0, 1, len(values) + 1)
    integral = np.concatenate([[0.0], np.cumsum(values) / len(values)])
    return np.asarray(4 * np.diff(np.interp(np.linspace(0, 1, 5), positions, integral)))


def sd_interval(sd: float, k: int, confidence: float = 0.95) -> Interval:
    """Return the interval of a normal standard deviation, given the sample standard deviation of k >= 2 values.

    sd sqrt((k - 1) / q) at the quantiles q of the chi-squared distribution with k - 1 degrees of freedom. For three
    values it reaches from half to six times `sd`, so few seeds tell little about how much seeds vary.

    Source: Snedecor & Cochran (1989), "Statistical Methods", section 5.11.
    """
    tail = (1 - confidence) / 2
    high, low = _chi_squared(k - 1, np.array([tail, 1 - tail]))
    return float(sd / math.sqrt(low)), float(sd / math.sqrt(high))


def t_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Return mean -+ t sd / sqrt(k) with k - 1 degrees of freedom, for k >= 2 values.

    Over seeds it covers the draw of the seeds only, since all seeds share the same images.

    Source: Student (1908), "The probable error of a mean", Biometrika 6.
    """
    mean, sd = mean_sd(values)
    if sd is None:
        raise ValueError("one value has no t interval")
    half = _t_quantile(len(values) - 1, confidence) * sd / math.sqrt(len(values))
    return mean - half, mean + half


def accuracy_interval(correct: NDArray[np.bool_], confidence: float = 0.95) -> Interval:
    """Return the interval of a method's accuracy from the (k, n) outcomes of k >= 1 seeds on the same n images.

    For one seed it is `wilson`. For several it covers the draws of seeds and of images: it is Wilson's interval for the
    effective number of images (`_of_effective_images`). (A t interval over seeds ignores that they share the images,
    and Wilson on k n outcomes ignores that outcomes on the same image are correlated; both are too narrow.)

    Source: Korn and Graubard (1998), Survey Methodology 24, for the effective sample size.
    """
    k, n = correct.shape
    p = float(correct.mean())
    if k == 1 or n == 1 or p in (0.0, 1.0):
        return wilson(p * n, n, confidence)
    return _of_effective_images(correct, confidence)


def rough_accuracy_interval(accuracies: Sequence[float], n: int, confidence: float = 0.95) -> Interval:
    """Return the interval of `accuracy_interval` if only the k accuracies are known, not the outcomes.

    h^2 = t^2 sd^2 / k + z^2 p(1-p) / n. It is too wide, since both terms contain the randomness of single outcomes.
    """
    p, sd = mean_sd(accuracies)
    if sd is None or p in (0.0, 1.0):
        return wilson(p * n, n, confidence)
    k, z = len(accuracies), normal_quantile(confidence)
    half = math.sqrt(_t_quantile(k - 1, confidence) ** 2 * sd * sd / k + z * z * p * (1 - p) / n)
    return _of_half_width(p, half, confidence)


def share_interval(shares: NDArray[np.float64], confidence: float = 0.95) -> Interval:
    """Return the interval of the mean of (k, n) shares in [0, 1], of k >= 1 seeds on the same n images, within [0, 1].

    A share is one value per image, for example the fraction of corruptions under which it is classified right; so
    outcomes on the same image may be correlated. As in `accuracy_interval` it is Wilson's interval for the effective
    number of images, since mean -+ h misses means near 0 and 1 too often. If all shares are equal it is `wilson`.
    """
    p, n = float(shares.mean()), shares.shape[1]
    if shares.min() == shares.max() or n == 1:
        return wilson(p * n, n, confidence)
    return _of_effective_images(shares, confidence)


def audit_interval(audits: Sequence[Audit]) -> Interval:
    """Return the interval of the mean accuracy of k audited networks on the same n images.

    Its ends are the means of the audits' ends, each at error level alpha / k. By Boole's inequality all k intervals
    hold simultaneously, however the audits depend on each other (they share the order of the images).
    """
    ends = [audit.interval(1 / len(audits)) for audit in audits]
    low, high = (mean_sd(each)[0] for each in zip(*ends, strict=True))
    return low, high


def audited_accuracy_interval(audits: Sequence[Audit]) -> Interval:
    """Return the interval of the mean accuracy of k audited networks that covers new images and new seeds.

    Half of the error level is used for the audits, half for `rough_accuracy_interval` at the ends of their intervals.
    """
    ends = [audit.interval(0.5 / len(audits)) for audit in audits]
    confidence = min(audit.confidence_for_images for audit in audits)
    low, high = (rough_accuracy_interval(each, audits[0].n, confidence) for each in zip(*ends, strict=True))
    return low[0], high[1]


def _of_effective_images(x: NDArray[np.generic], confidence: float) -> Interval:
    """Return Wilson's interval of the mean of (k, n) outcomes or shares for the effective number of images.

    That is z^2 q(1-q) / h^2 n / (n + 2), with the mean q and the half-width h of the table with two more images, one
    that all seeds get right and one that none does. Without them, near 0 and 1 a few images decide both the mean and h:
    where luck makes the mean small it makes h small too, and of ten seeds with 1 % right on 200 images the interval
    would miss the truth twice as often as it should.
    """
    k, n = x.shape
    added = np.concatenate([x, np.tile(np.array([1, 0], x.dtype), (k, 1))], axis=1)
    q, half, z = float(added.mean()), half_width(added, confidence), normal_quantile(confidence)
    return score_interval(float(x.mean()), z * z * q * (1 - q) / half**2 * n / (n + 2), z)


def _of_half_width(p: float, half: float, confidence: float) -> Interval:
    z = normal_quantile(confidence)
    return score_interval(p, z * z * p * (1 - p) / half**2, z)


def difference_interval(differences: NDArray[np.integer[Any]], confidence: float = 0.95) -> Interval:
    """Return the interval of the mean of (k, n) paired differences in {-1, 0, 1}, within [-1, 1].

    Two images are added, with differences 1 and -1 for every seed, so that the interval has a positive width even if
    no outcome differs. For one seed it is Bonett and Price's interval and covers new images; for several it covers new
    seeds and new images (`half_width`).

    Source: Bonett and Price (2012), "Adjusted Wald confidence interval for a difference of binomial
    proportions based on paired data", J. Educ. Behav. Stat. 37.
    """
    added = _with_two(differences)
    half, mean = half_width(added, confidence), float(added.mean())
    return max(-1.0, mean - half), min(1.0, mean + half)


def _with_two(differences: NDArray[np.integer[Any]]) -> NDArray[np.integer[Any]]:
    return np.concatenate([differences, np.tile(np.array([1, -1], differences.dtype), (len(differences), 1))], axis=1)


def seed_interval(differences: NDArray[np.integer[Any]], confidence: float = 0.95) -> Interval | None:
    """Return `t_interval` of the k seeds' mean differences, from (k, n) paired differences.

    It covers new seeds on these same images. It is None for one seed, and if all means are equal: two seeds with as
    many right images are no evidence that all seeds are equal.
    """
    means = [float(mean) for mean in differences.mean(axis=1)]
    return t_interval(means, confidence) if len(set(means)) > 1 else None


def bootstrap_interval(
    differences: NDArray[np.integer[Any]], confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> Interval | None:
    """Return the percentile bootstrap interval of the mean of (k, n) paired differences, resampling images.

    The networks stay the same, and an image is drawn with all its k pairs. The sum of a resample depends only on how
    often each score occurs in it, so those counts are drawn, from a multinomial distribution. It is None if all images
    have the same difference, since resamples then have no width.

    Source: Efron & Tibshirani (1993), "An Introduction to the Bootstrap", chapters 13 and 8.
    """
    scores, counts = np.unique(differences.sum(axis=0), return_counts=True)
    if len(scores) == 1:
        return None
    k, n = differences.shape
    random, chances = np.random.default_rng(seed), counts / n
    parts = np.diff([*range(0, resamples, RESAMPLES_AT_ONCE), resamples])
    drawn = [random.multinomial(n, chances, size=part) @ scores for part in parts]  # the same draws as in one call
    means = np.concatenate(drawn) / (k * n)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def detectable(
    comparisons: Sequence[NDArray[np.integer[Any]]], power: float = 0.8, confidence: float = 0.95
) -> list[float]:
    """Return for each of several methods, compared with the same one, the true difference detected with this power.

    Each comparison is the (k, n) paired differences of the same k seeds and n images. A difference is detected if
    `difference_interval` excludes 0. With several seeds its half-width h is random, since the mean square S between
    seeds (see `half_width`) has k - 1 degrees of freedom. A true difference d is detected if d > h(X) + N, with X
    chi-squared and N normal with the standard error; so the result is a quantile of that sum. If images add no
    variance it is the quantile of the noncentral t: 5.65 standard errors at k = 3, rather than the 4.30 + 0.84 of a
    known width.

    S from one comparison with few seeds varies by a large factor, so it is estimated from all comparisons together
    (`_shared_seed_square`). It is at least E, its expectation if seeds do not differ.

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
    """Return S, pooled over the comparisons of m methods with the same one, over the same k seeds; 0 for one seed.

    It is twice the residual mean square of a two-way layout, method by seed, of the m + 1 methods' accuracies, with
    m (k - 1) degrees of freedom if all methods vary equally with the seed. For m = 1 it is the S of `mean_squares`. It
    is divided by the median of its distribution, so that it is too large as often as too small; with 2 degrees of
    freedom it would else be too small in 63 of 100 cases.

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
    """Return quantiles of a chi-squared variable divided by its degrees of freedom, whose expectation is 1."""
    from scipy.special import gammaincinv

    return np.asarray(2 * gammaincinv(freedom / 2, chances) / freedom)


def half_width(x: NDArray[np.generic], confidence: float = 0.95) -> float:
    """Return the half-width of an interval for the mean of (k, n) outcomes of k seeds on the same n images.

    Seeds and images are crossed random effects. Let S be the mean square between seeds, I between images, and E of the
    residuals. Seeds contribute the variance S / kn and images add (I - E) / kn. With t of k - 1 degrees of freedom and
    the normal quantile z, the half-width is

        h = sqrt(max(t^2 S + z^2 (I - E), z^2 I) / kn),  with I replaced by max(I, E).

    So it is never less than that of new images alone. With one seed it is z times the standard error over images.

    In the simulations of the tests the intervals contain the truth in at least 94 of 100 tables, and in up to 99.5 if
    there are two or three seeds that differ little: they are conservative. A single t quantile for the whole variance,
    with Satterthwaite's degrees of freedom, would often be narrower but miss this coverage. The seeds are normal in
    these simulations. Where some of them collapse they are not, and the intervals miss the truth far more often.

    Source: Searle, Casella and McCulloch (1992), "Variance Components", chapter 4; Howe (1974), "Approximate confidence
    limits on the mean of X + Y", JASA 69.
    """
    seeds, images, rest = mean_squares(x)
    return float(_half_widths(np.array(seeds), images, rest, x.shape, confidence))


def _half_widths(
    seeds: NDArray[np.float64], images: float, rest: float, shape: tuple[int, ...], confidence: float
) -> NDArray[np.float64]:
    """Return the half-width for each of several mean squares between seeds."""
    z, images = normal_quantile(confidence), max(images, rest)
    t = _t_quantile(shape[0] - 1, confidence) if shape[0] > 1 else 0.0  # one seed tells nothing about others
    both = np.maximum(t * t * seeds + z * z * (images - rest), z * z * images)
    return np.asarray(np.sqrt(both / math.prod(shape)))


def mean_squares(x: NDArray[np.generic]) -> tuple[float, float, float]:
    """Return the mean squares S between seeds, I between images and E of the residuals, from (k, n) outcomes.

    With one seed they are 0, the variance over the images (divisor n), and 0.
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
