"""Confidence intervals of one accuracy, without importing scipy."""

from __future__ import annotations

import math
from statistics import NormalDist

Interval = tuple[float, float]


def wilson(k: float, n: float, confidence: float = 0.95) -> Interval:
    """Return Wilson's score interval of the accuracy k / n, as fractions in [0, 1].

    With p = k / n and the normal quantile z: (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n).
    It covers the sampling of the n images, not the variation between training seeds.

    Source: Wilson (1927), "Probable inference", JASA 22; recommended by Brown, Cai and DasGupta (2001).
    """
    return score_interval(k / n, n, normal_quantile(confidence))


def score_interval(p: float, n: float, z: float) -> Interval:
    """Return Wilson's interval of the accuracy p on n images (n > 0, not only whole), with the normal quantile z."""
    centre = p + z * z / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    low = 0.0 if p == 0 else (centre - half) / scale  # exact at both ends despite rounding
    high = 1.0 if p == 1 else (centre + half) / scale
    return max(0.0, low), min(1.0, high)


def normal_quantile(confidence: float) -> float:
    """Return z such that the normal distribution has probability `confidence` between -z and z."""
    return NormalDist().inv_cdf((1 + confidence) / 2)
