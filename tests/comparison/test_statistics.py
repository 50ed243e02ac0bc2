from __future__ import annotations

import itertools
import math
import time
import tracemalloc
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bsk.comparison.significance import holm, mcnemar_exact, paired_exact
from bsk.comparison.statistics import (
    accuracy_interval,
    bootstrap_interval,
    detectable,
    difference_interval,
    half_width,
    mean_sd,
    mean_squares,
    quarter_means,
    rough_accuracy_interval,
    seed_interval,
    share_interval,
    t_interval,
)
from bsk.evaluation.intervals import wilson


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
    assert all(mean_sd([k / 397] * n)[1] == 0 for k in range(397) for n in (3, 5, 10)), "despite rounding"


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


def test_the_half_width_by_hand() -> None:
    # accuracies 1, 1/2 on 2 images: S = 2(1/16 + 1/16) = 1/4, I = 1/4, E = 4(1/16) = 1/4; t of 1 degree is 12.7062
    x = np.array([[1.0, 1.0], [1.0, 0.0]])
    assert naive_mean_squares(x) == pytest.approx((0.25, 0.25, 0.25)) == mean_squares(x)
    assert half_width(x) == pytest.approx(12.7062 * math.sqrt(0.25 / 4), rel=1e-5)
    # equal accuracies: S = 0, and the images alone remain: I = 1/4 - it counts as E = 1/2
    assert half_width(np.array([[1.0, 0.0], [0.0, 1.0]])) == pytest.approx(1.959964 * math.sqrt(1 / 4))
    assert half_width(np.array([[1.0, 1.0, 0.0]])) == pytest.approx(1.959964 * math.sqrt(2 / 27))


@settings(max_examples=40)
@given(st.integers(2, 4), st.integers(2, 12), st.integers(0, 2**31))
def test_the_half_width_against_cell_by_cell(k: int, n: int, seed: int) -> None:
    x = np.random.default_rng(seed).random((k, n))
    s, i, e = naive_mean_squares(x)
    t, z = stats.t.ppf(0.95, k - 1), stats.norm.ppf(0.95)
    both = t**2 * s + z**2 * max(0, i - e)
    assert half_width(x, 0.9) == pytest.approx(math.sqrt(max(both, z**2 * max(i, e)) / (k * n)))


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


def outcomes(
    random: np.random.Generator, tables: int, shape: tuple[int, int, int], by_seed: float, p: Sequence[float] = (0.5,)
) -> Iterator[np.ndarray]:
    """Tables of methods, seeds and images, of the expected accuracies p: images differ in difficulty, for each method
    more, seeds in skill, the rest is chance (a probit model)."""
    methods, k, n = shape
    level = np.reshape(math.sqrt(2**2 + 1 + by_seed**2 + 1) * stats.norm.ppf(p), (-1, 1, 1))
    for _ in range(tables):
        score = level + 2 * random.standard_normal((1, 1, n), dtype=np.float32)
        score = score + random.standard_normal((methods, 1, n), dtype=np.float32)
        score = score + by_seed * random.standard_normal((methods, k, 1), dtype=np.float32)
        yield score + random.standard_normal(shape, dtype=np.float32) > 0


def less_the_first(x: np.ndarray) -> np.ndarray:
    """The paired differences of methods from the first one."""
    return x[1:].astype(int) - x[:1]


def coverage(interval: Any, tables: Iterable[np.ndarray], truth: float) -> float:
    """Return the fraction of the intervals of simulated tables that contain the true value."""
    found = [each for each in map(interval, tables) if each is not None]
    return float(np.mean([low <= truth <= high for low, high in found]))


TABLES = 2000


def test_intervals_of_one_network_hold_the_truth_in_95_of_100_tables() -> None:
    tables = list(outcomes(np.random.default_rng(0), TABLES, (2, 1, 1000), 0, [0.66]))
    assert 0.94 <= coverage(accuracy_interval, (x[0] for x in tables), 0.66) <= 0.96
    differences = [less_the_first(x)[0] for x in tables]
    assert 0.94 <= coverage(difference_interval, differences, 0) <= 0.96
    assert 0.94 <= coverage(lambda x: bootstrap_interval(x, resamples=1000), differences, 0) <= 0.96


@pytest.mark.parametrize(("k", "by_seed"), [(3, 0.05), (3, 0.3), (10, 0.1)])
def test_the_t_interval_between_methods_holds_the_truth_in_95_of_100_tables(k: int, by_seed: float) -> None:
    """For fixed images: a method's advantage on each image is fixed, and only the seeds are new."""
    random = np.random.default_rng(1)
    images = random.standard_normal((2, 1, 400), dtype=np.float32)

    def draw() -> np.ndarray:
        skill = by_seed * random.standard_normal((2, k, 1), dtype=np.float32)
        x = images + skill + random.standard_normal((2, k, 400), dtype=np.float32) > 0
        return less_the_first(x)[0]

    p = stats.norm.cdf(images / math.sqrt(1 + by_seed**2)).mean(axis=2).ravel()
    assert 0.94 <= coverage(seed_interval, (draw() for _ in range(2 * TABLES)), p[1] - p[0]) <= 0.96


@pytest.mark.parametrize(
    ("k", "n", "by_seed", "most"),
    [
        (2, 400, 0.0, 0.995),
        (3, 400, 0.0, 0.99),
        (3, 400, 0.1, 0.99),
        (3, 2000, 0.3, 0.97),
        (10, 400, 0.1, 0.96),
    ],
)
def test_intervals_over_images_and_seeds_hold_the_truth_at_least_as_often(
    k: int, n: int, by_seed: float, most: float
) -> None:
    """With few seeds that differ little, the variance is uncertain: the interval is too wide, never too narrow."""
    tables = list(outcomes(np.random.default_rng(2), TABLES, (2, k, n), by_seed, [0.66]))
    assert 0.94 <= coverage(accuracy_interval, (x[0] for x in tables), 0.66) <= most
    assert 0.94 <= coverage(difference_interval, (less_the_first(x)[0] for x in tables), 0) <= most


@pytest.mark.parametrize(("k", "n", "p"), [(10, 200, 0.01), (10, 397, 0.99), (5, 100, 0.02), (3, 200, 0.01)])
def test_accuracies_near_0_and_1_hold_the_truth_too(k: int, n: int, p: float) -> None:
    """A few images decide both the mean and its half-width, which luck makes small together."""
    tables = [x[0] for x in outcomes(np.random.default_rng(3), TABLES // 2, (1, k, n), 0.1, [p])]
    assert 0.94 <= coverage(accuracy_interval, tables, p) <= 0.995
    shares = [x.mean(axis=0, keepdims=True) for x in tables]
    assert coverage(share_interval, shares, p) >= 0.94


def test_simpler_intervals_do_not_keep_their_coverage() -> None:
    def means(x: np.ndarray) -> list[float]:
        return [float(mean) for mean in x.mean(axis=1)]

    tables = [x[0] for x in outcomes(np.random.default_rng(0), TABLES // 2, (1, 3, 400), 0.1, [0.66])]
    assert coverage(lambda x: wilson(x.sum(), x.size), tables, 0.66) < 0.85
    assert coverage(lambda x: t_interval(means(x)), tables, 0.66) < 0.90
    x = tables[0]
    assert np.ptp(rough_accuracy_interval(means(x), 400)) > np.ptp(accuracy_interval(x)), "without outcomes: wider"


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


def untrimmed(scores: np.ndarray) -> float:
    """Return the exact p without trimming probabilities that underflow to 0."""
    won = np.ones(1)
    for size, count in zip(*np.unique(np.abs(scores[scores != 0]), return_counts=True), strict=True):
        step = np.zeros(size * count + 1)
        step[::size] = stats.binom.pmf(np.arange(count + 1), count, 0.5)
        won = np.convolve(won, step)
    total = len(won) - 1
    return min(1.0, float(won[np.abs(2 * np.arange(total + 1) - total) >= abs(scores.sum())].sum()))


@settings(deadline=None, max_examples=15)
@given(
    st.dictionaries(st.integers(-4, 4), st.integers(0, 2500), min_size=1),
    st.integers(0, 2**32 - 1),
)
def test_probabilities_that_are_zero_are_left_out_and_no_others(counts: dict[int, int], seed: int) -> None:
    scores = np.repeat(list(counts), list(counts.values())).astype(int)
    even = scores * np.random.default_rng(seed).choice([-1, 1], len(scores))
    for each in (scores, even):
        assert paired_exact(each) == pytest.approx(untrimmed(each), rel=1e-7, abs=1e-300)


def test_a_million_scores_of_two_seeds_are_quick() -> None:
    scores = np.random.default_rng(0).choice([-2, -1, 1, 2], 10**6)
    scores[:3000] = 2
    start, z = time.process_time(), abs(scores.sum()) / math.sqrt((scores.astype(float) ** 2).sum())
    assert paired_exact(scores) == pytest.approx(2 * stats.norm.sf(z), rel=0.01)
    assert time.process_time() - start < 5


def test_many_scores_against_the_normal_limit() -> None:
    scores = np.array([3] * 500 + [-3] * 430 + [1] * 2000 + [-2] * 900)
    z = abs(scores.sum()) / math.sqrt((scores**2).sum())
    assert paired_exact(scores) == pytest.approx(2 * stats.norm.sf(z), rel=0.03)


@pytest.mark.slow
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


# --- several comparisons, resampling, power


def test_holm_by_hand() -> None:
    """Of 0.01, 0.04, 0.03: 3 x 0.01; 2 x 0.03; 1 x 0.04, but not below the one before."""
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.6]) == [1.0, 1.0] and holm([]) == [] and holm([0.2]) == [0.2]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_the_closed_test_of_bonferroni(p: list[float]) -> None:
    """The adjusted p is the maximum, over all sets of hypotheses that contain it, of the set's size times its smallest
    p.
    """
    adjusted = holm(p)
    for i in range(len(p)):
        others = sorted(p[:i] + p[i + 1 :], reverse=True)
        sets = [[p[i], *others[:size]] for size in range(len(p))]  # of a size, the set with the largest others
        assert adjusted[i] == pytest.approx(max(min(1.0, len(each) * min(each)) for each in sets))


def test_holm_keeps_the_error_of_a_table() -> None:
    random = np.random.default_rng(3)
    wrong = sum(min(holm(list(random.random(8)))) < 0.05 for _ in range(4000))
    assert wrong / 4000 == pytest.approx(0.05, abs=0.012)


@pytest.mark.parametrize(("k", "n"), [(1, 200), (3, 120)])
def test_the_bootstrap_is_scipys(k: int, n: int) -> None:
    random = np.random.default_rng(4)
    pairs = random.integers(-1, 2, (k, n))
    theirs = stats.bootstrap(
        (pairs.mean(axis=0),), np.mean, n_resamples=20_000, method="percentile", random_state=random
    ).confidence_interval
    low, high = bootstrap_interval(pairs)
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=1.01 / (k * n))
    assert bootstrap_interval(pairs) == (low, high), "the same records give the same bytes"


def test_the_bootstrap_without_differences_has_no_interval() -> None:
    assert bootstrap_interval(np.zeros((2, 50), dtype=int)) is None


def test_the_interval_over_seeds_is_scipys_t() -> None:
    pairs = np.array([[1, 0, 0, 1], [0, 0, -1, 1], [1, 1, 0, 1]])
    means = pairs.mean(axis=1)
    expected = stats.t.interval(0.95, 2, loc=means.mean(), scale=stats.sem(means))
    assert seed_interval(pairs) == pytest.approx(expected)
    assert seed_interval(pairs[:1]) is None
    assert seed_interval(np.array([[1, 0, 0], [0, 0, 1]])) is None, "two equal means are no evidence of a width of 0"


def test_the_detectable_difference_is_found_four_times_in_five() -> None:
    """One seed and 600 images, 20 % of them discordant: the interval excludes 0 in 80 % of tables."""
    random = np.random.default_rng(5)
    some = np.repeat([[-1, 0, 1]], [60, 480, 60], axis=1)
    (smallest,) = detectable([some])
    assert smallest == pytest.approx(half_width(some) + stats.norm.ppf(0.8) * math.sqrt(0.2 / 600), rel=0.01)
    chances = [0.1 - smallest / 2, 0.8, 0.1 + smallest / 2]
    found = sum(difference_interval(random.choice([-1, 0, 1], (1, 600), p=chances))[0] > 0 for _ in range(2000))
    assert found / 2000 == pytest.approx(0.8, abs=0.03)


def test_what_three_seeds_detect_by_the_noncentral_t() -> None:
    """Differences 0.1, 0.2 and 0.6 with negligible variance over images; S is divided by its median, ln 2 times its
    mean.
    """
    pairs = np.array([np.arange(5000) % 10 < tenths for tenths in (1, 2, 6)]).astype(int)
    pairs = np.array([np.roll(row, 3 * number) for number, row in enumerate(pairs)])
    error = math.sqrt(np.var([0.1, 0.2, 0.6], ddof=1) / 3 / math.log(2))
    (smallest,) = detectable([pairs])
    assert stats.nct.sf(stats.t.ppf(0.975, 2), 2, smallest / error) == pytest.approx(0.8, abs=0.01)
    assert smallest == pytest.approx(5.65 * error, rel=0.02)


@pytest.mark.parametrize(("comparisons", "n", "by_seed"), [(1, 1000, 0.1), (4, 1000, 0.1), (4, 1000, 0.2)])
def test_what_three_seeds_detect_is_found_four_times_in_five(comparisons: int, n: int, by_seed: float) -> None:
    """At the median over tables. Most tables are within a factor of 2.5 of it, with four comparisons within 1.5."""
    random = np.random.default_rng(6)

    said = [detectable(list(less_the_first(x)))[0] for x in outcomes(random, 200, (comparisons + 1, 3, n), by_seed)]
    middle = float(np.median(said))
    factor = 1.5 if comparisons == 4 else 2.5
    assert middle / factor < np.quantile(said, 0.1) < np.quantile(said, 0.9) < middle * factor
    better = (less_the_first(x)[0] for x in outcomes(random, 1000, (2, 3, n), by_seed, (0.5, 0.5 + middle)))
    found = sum(difference_interval(x)[0] > 0 for x in better)
    assert found / 1000 == pytest.approx(0.8, abs=0.05)


def test_the_quarters_of_six_epochs_share_the_second_and_the_fifth() -> None:
    """A quarter is an epoch and a half: (1 + 2/2) / 1.5, (2/2 + 3) / 1.5, (4 + 5/2) / 1.5 and (5/2 + 6) / 1.5."""
    assert quarter_means([1, 2, 3, 4, 5, 6]) == pytest.approx([4 / 3, 8 / 3, 13 / 3, 17 / 3])


def test_many_seeds_take_little_more_memory_than_their_outcomes() -> None:
    x = np.random.default_rng(0).random((4000, 1000)) < 0.4
    accuracy_interval(x[:2])  # imports
    tracemalloc.start()
    try:
        accuracy_interval(x)
        assert tracemalloc.get_traced_memory()[1] < 4 * x.nbytes, "as numbers they are 8 times as large"
    finally:
        tracemalloc.stop()
