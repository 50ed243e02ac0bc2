from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bsk.report.statistics import (
    accuracy_interval,
    crossed_variance,
    difference_interval,
    mcnemar_exact,
    mean_sd,
    paired_exact,
    rough_accuracy_interval,
    t_interval,
    wilson,
)


def bits(*seeds: str) -> np.ndarray:
    return np.array([[c == "1" for c in seed] for seed in seeds])


# --- one accuracy


def test_wilson_of_a_worked_example() -> None:
    # Brown, Cai and DasGupta's formula by hand: n 10, k 7, z 1.959964
    assert wilson(7, 10) == pytest.approx((0.396778, 0.892209), abs=1e-6)
    assert wilson(0, 10) == pytest.approx((0.0, 0.277533), abs=1e-6) and wilson(0, 10)[0] == 0
    assert wilson(10, 10)[1] == 1


@given(
    st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.sampled_from([0.5, 0.95, 0.99])
)
def test_wilson_is_scipys_and_inverts_the_score_test(case: tuple[int, int], confidence: float) -> None:
    k, n = case
    low, high = wilson(k, n, confidence)
    theirs = stats.binomtest(k, n).proportion_ci(confidence, "wilson")
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    z = stats.norm.ppf((1 + confidence) / 2)
    for end in (low, high):  # (p - end)^2 = z^2 end (1 - end) / n
        assert (k / n - end) ** 2 == pytest.approx(z**2 * end * (1 - end) / n, abs=1e-12)
    assert 0 <= low <= k / n <= high <= 1


def test_mean_and_sample_standard_deviation() -> None:
    assert mean_sd([0.5, 0.6, 0.4]) == pytest.approx((0.5, 0.1))
    assert mean_sd([0.3]) == (0.3, None)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=12))
def test_t_interval_is_scipys(values: list[float]) -> None:
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values))
    assert t_interval(values) == pytest.approx((np.mean(values) - half, np.mean(values) + half), abs=1e-9)


def test_one_value_has_no_t_interval() -> None:
    with pytest.raises(ValueError, match="one value"):
        t_interval([0.5])


# --- several seeds


def naive_mean_squares(x: np.ndarray) -> tuple[float, float, float]:
    """Two-way analysis of variance, cell by cell."""
    k, n = x.shape
    grand = sum(x[s, i] for s in range(k) for i in range(n)) / (k * n)
    seed = [sum(x[s, i] for i in range(n)) / n for s in range(k)]
    image = [sum(x[s, i] for s in range(k)) / k for i in range(n)]
    rest = sum((x[s, i] - seed[s] - image[i] + grand) ** 2 for s in range(k) for i in range(n))
    return (
        n * sum((m - grand) ** 2 for m in seed) / (k - 1),
        k * sum((m - grand) ** 2 for m in image) / (n - 1),
        rest / ((k - 1) * (n - 1)),
    )


def test_crossed_variance_by_hand() -> None:
    # accuracies 1, 1/2 on 2 images: S = 2(1/16 + 1/16) = 1/4, I = 1/4, E = 4(1/16) = 1/4
    x = np.array([[1.0, 1.0], [1.0, 0.0]])
    assert naive_mean_squares(x) == pytest.approx((0.25, 0.25, 0.25))
    assert crossed_variance(x) == pytest.approx((0.25 / 4, (1 / 16) / (3 / 16)))


@settings(max_examples=40)
@given(st.integers(2, 4), st.integers(2, 12), st.integers(0, 2**31))
def test_crossed_variance_against_cell_by_cell(k: int, n: int, seed: int) -> None:
    x = np.random.default_rng(seed).random((k, n))
    s, i, e = naive_mean_squares(x)
    s, i = max(s, e), max(i, e)
    freedom = (s + i - e) ** 2 / (s**2 / (k - 1) + i**2 / (n - 1) + e**2 / ((k - 1) * (n - 1)))
    assert crossed_variance(x) == pytest.approx(((s + i - e) / (k * n), freedom))


def test_interval_of_one_seed_is_wilsons() -> None:
    assert accuracy_interval(bits("1111111000")) == wilson(7, 10)


def test_interval_of_identical_seeds_is_about_that_of_one() -> None:
    # three copies are no more evidence than one; the sample variance has n - 1, hence the small difference
    x = np.tile(np.arange(400) < 280, (3, 1))
    assert accuracy_interval(x) == pytest.approx(wilson(280, 400), abs=3e-4)
    assert accuracy_interval(x)[1] - accuracy_interval(x)[0] > 1.6 * (wilson(840, 1200)[1] - wilson(840, 1200)[0])


def test_interval_of_seeds_that_are_always_right() -> None:
    assert accuracy_interval(np.ones((3, 10), dtype=bool)) == wilson(10, 10)


@given(st.integers(0, 2**31), st.floats(0, 1), st.integers(1, 4), st.integers(1, 30))
def test_interval_holds_the_mean_and_ignores_the_order(seed: int, p: float, k: int, n: int) -> None:
    random = np.random.default_rng(seed)
    x = random.random((k, n)) < p
    low, high = accuracy_interval(x)
    assert 0 <= low <= x.mean() + 1e-12 and x.mean() - 1e-12 <= high <= 1
    shuffled = x[random.permutation(k)][:, random.permutation(n)]
    assert accuracy_interval(shuffled) == pytest.approx((low, high), abs=1e-9)


def simulated(random: np.random.Generator, k: int, n: int, by_image: float, by_seed: float) -> np.ndarray:
    """Outcomes of a probit model: images differ in difficulty, seeds in skill, the rest is chance."""
    score = 1 + by_image * random.standard_normal((1, n)) + by_seed * random.standard_normal((k, 1))
    return np.asarray(random.random((k, n)) < stats.norm.cdf(score))


@pytest.mark.parametrize("by_seed", [0.0, 0.1])
def test_coverage_of_the_95_percent_interval_over_images_and_seeds(by_seed: float) -> None:
    random, tables = np.random.default_rng(0), 1000
    truth = stats.norm.cdf(1 / math.sqrt(1 + 2**2 + by_seed**2))
    hits = dict.fromkeys(("crossed", "rough", "pooled", "seeds alone"), 0)
    for _ in range(tables):
        x = simulated(random, 3, 400, 2, by_seed)
        accuracies = x.mean(axis=1).tolist()
        for name, (low, high) in {
            "crossed": accuracy_interval(x),
            "rough": rough_accuracy_interval(accuracies, 400),
            "pooled": wilson(x.sum(), x.size),
            "seeds alone": t_interval(accuracies),
        }.items():
            hits[name] += low <= truth <= high
    assert 0.935 <= hits["crossed"] / tables <= 0.975
    assert hits["rough"] >= hits["crossed"]  # without outcomes: wider
    assert hits["pooled"] / tables < 0.85  # what the other two readings would promise and not keep
    assert hits["seeds alone"] / tables < 0.90


def test_rough_interval_of_one_seed_and_of_equal_seeds() -> None:
    assert rough_accuracy_interval([0.7], 10) == wilson(7, 10)
    assert rough_accuracy_interval([0.7, 0.7], 10) == pytest.approx(wilson(7, 10))
    assert rough_accuracy_interval([1.0, 1.0], 10) == wilson(10, 10)


# --- two methods


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_exact_sign_test(b: int, c: int) -> None:
    n = b + c
    tail = sum(Fraction(math.comb(n, i), 2**n) for i in range(min(b, c) + 1))
    assert mcnemar_exact(b, c) == pytest.approx(min(1.0, float(2 * tail)), rel=1e-9)
    assert mcnemar_exact(b, c) == mcnemar_exact(c, b)
    if n:
        assert mcnemar_exact(b, c) == pytest.approx(stats.binomtest(b, n, 0.5).pvalue, rel=1e-9)


def test_mcnemar_by_hand() -> None:
    assert mcnemar_exact(6, 1) == pytest.approx(2 * (1 + 7) / 128)
    assert mcnemar_exact(0, 0) == 1
    assert mcnemar_exact(5000, 5000) == 1


@settings(max_examples=60)
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=9))
def test_paired_test_against_all_signs(scores: list[int]) -> None:
    flips = [
        sum(s * f for s, f in zip(scores, signs, strict=True))
        for signs in itertools.product((-1, 1), repeat=len(scores))
    ]
    expected = sum(abs(flip) >= abs(sum(scores)) for flip in flips) / len(flips)
    assert paired_exact(np.array(scores)) == pytest.approx(expected)


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 5))
def test_paired_test_of_one_seed_is_mcnemars(b: int, c: int, same: int) -> None:
    assert paired_exact(np.array([1] * b + [-1] * c + [0] * same)) == pytest.approx(mcnemar_exact(b, c), rel=1e-9)


def test_many_scores_against_the_normal_limit() -> None:
    scores = np.array([3] * 500 + [-3] * 430 + [1] * 2000 + [-2] * 900)
    z = abs(scores.sum()) / math.sqrt((scores**2).sum())
    assert paired_exact(scores) == pytest.approx(2 * stats.norm.sf(z), rel=0.03)


def test_paired_test_keeps_its_level_where_pooled_pairs_do_not() -> None:
    random, tables = np.random.default_rng(1), 500
    rejected = {"by image": 0, "pooled": 0}
    for _ in range(tables):
        shared = 2 * random.standard_normal((1, 300))
        a, b = (
            random.random((5, 300)) < stats.norm.cdf(1 + shared + random.standard_normal((1, 300))) for _ in range(2)
        )
        pairs = a.astype(int) - b.astype(int)
        rejected["by image"] += paired_exact(pairs.sum(axis=0)) < 0.05
        rejected["pooled"] += mcnemar_exact(int((pairs > 0).sum()), int((pairs < 0).sum())) < 0.05
    assert rejected["by image"] / tables < 0.08 and rejected["pooled"] / tables > 0.10


def test_difference_of_one_seed_is_bonett_and_prices_interval() -> None:
    pairs = np.array([[1] * 6 + [-1] * 1 + [0] * 3])
    won, lost = 7 / 12, 2 / 12
    half = stats.norm.ppf(0.975) * math.sqrt((won + lost - (won - lost) ** 2) / 12)
    assert difference_interval(pairs) == pytest.approx((won - lost - half, won - lost + half))


def test_difference_where_nothing_differs_still_has_a_width() -> None:
    low, high = difference_interval(np.zeros((1, 100), dtype=int))
    assert low == -high and 0.01 < high < 0.05
    assert difference_interval(np.ones((1, 3), dtype=int))[1] == 1


def test_coverage_of_the_difference_over_images_and_seeds() -> None:
    random, tables = np.random.default_rng(2), 500
    hits = 0
    for _ in range(tables):
        a, b = simulated(random, 3, 400, 0.5, 0.1), simulated(random, 3, 400, 0.5, 0.1)
        low, high = difference_interval(a.astype(int) - b.astype(int))
        hits += low <= 0 <= high
    assert 0.93 <= hits / tables <= 0.995
