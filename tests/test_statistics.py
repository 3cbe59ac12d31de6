import math

import numpy as np
import pytest
from scipy.stats import binomtest, pearsonr, spearmanr, ttest_1samp

from tikmix_pipeline.statistics import (
    bootstrapped_spearman,
    fisher_interval,
    mean_of_defined,
    mean_of_ratios,
    middle_interval,
    paired_difference,
    pearson,
    spearman,
    wilson_interval,
)


def test_correlations_are_those_of_scipy_also_with_ties():
    first, second = np.random.default_rng(0).integers(0, 5, (2, 6, 9)).astype(float)
    pairs = list(zip(first, second, strict=True))
    np.testing.assert_allclose(spearman(first, second), [spearmanr(*p).statistic for p in pairs], atol=1e-12)
    np.testing.assert_allclose(pearson(first, second), [pearsonr(*p).statistic for p in pairs], atol=1e-12)


@pytest.mark.parametrize("correlate", [pearson, spearman])
def test_constant_and_undefined_rows_correlate_with_nothing(correlate):
    values = np.array([[0.1, 0.1, 0.1], [1.0, np.nan, 2.0], [1.0, 2.0, 3.0]])
    np.testing.assert_array_equal(correlate(values, np.arange(9.0).reshape(3, 3)), [np.nan, np.nan, 1])


@pytest.mark.parametrize("correlate", [pearson, spearman])
def test_pairs_with_an_undefined_member_can_be_left_out(correlate):
    first, second = np.random.default_rng(0).normal(size=(2, 4, 8))
    holed = first.copy()
    holed[:, 2] = np.nan
    without = correlate(np.delete(first, 2, axis=1), np.delete(second, 2, axis=1))
    np.testing.assert_allclose(correlate(holed, second, omit_missing=True), without, atol=1e-15)
    np.testing.assert_allclose(correlate(second, holed, omit_missing=True), without, atol=1e-15)


def test_rows_may_lie_along_several_axes():
    first, second = np.random.default_rng(0).normal(size=(2, 3, 4, 8))
    expected = [pearson(*planes) for planes in zip(first, second, strict=True)]
    np.testing.assert_array_equal(pearson(first, second), expected)


def test_fisher_interval_is_that_of_scipy():
    first, second = np.random.default_rng(0).normal(size=(2, 12))
    found = pearsonr(first, second)
    expected = found.confidence_interval(0.95)
    assert fisher_interval(found.statistic, 12, "pearson") == pytest.approx((expected.low, expected.high))


def test_paper_correlation_over_ten_mixtures_may_be_much_lower():
    """Pearson 0.789 over 10 mixtures: 0.32 to 0.95."""
    assert fisher_interval(0.789, 10, "pearson") == pytest.approx((0.32, 0.95), abs=0.005)


def test_interval_of_ranks_is_wider():
    low, high = fisher_interval(0.6, 10, "pearson")
    rank_low, rank_high = fisher_interval(0.6, 10, "spearman")
    assert rank_low < low < high < rank_high


@pytest.mark.parametrize(("correlation", "pairs"), [(0.5, 3), (1.0, 10), (-1.0, 10), (float("nan"), 10)])
def test_few_pairs_and_perfect_correlations_have_no_interval(correlation: float, pairs: int):
    assert np.isnan(fisher_interval(correlation, pairs, "pearson")).all()


def test_mean_leaves_out_what_is_undefined():
    values = np.array([[1.0, np.nan, 3.0], [2.0, np.nan, np.nan]])
    np.testing.assert_array_equal(mean_of_defined(values, axis=0), [1.5, np.nan, 3.0])
    assert float(mean_of_defined(values, axis=(0, 1))) == 2
    assert np.isnan(mean_of_defined(np.array([np.nan]), axis=0))


def test_middle_interval_leaves_out_what_is_undefined():
    assert middle_interval(np.array([*np.linspace(0, 100, 41), np.nan])) == pytest.approx((2.5, 97.5))
    assert np.isnan(middle_interval(np.array([np.nan]))).all()


@pytest.mark.parametrize(("right", "n"), [(0, 10), (10, 10), (7, 10), (375, 750), (1, 1)])
def test_intervals_of_shares_are_wilsons(right: int, n: int):
    interval = binomtest(right, n).proportion_ci(0.95, method="wilson")
    assert wilson_interval(right / n, n) == pytest.approx((interval.low, interval.high), abs=1e-12)


def test_nothing_is_known_without_trials():
    assert wilson_interval(0.0, 0) == (0.0, 1.0)


def test_bootstrapped_spearman_is_scipys_to_the_bit_inside_its_interval():
    one_N, other_N = np.random.default_rng(0).normal(size=(2, 40)) + np.linspace(0, 3, 40)
    correlation, low, high = bootstrapped_spearman(one_N, other_N, seed=0)
    assert correlation == spearmanr(one_N, other_N).statistic
    assert low < correlation < high
    assert bootstrapped_spearman(one_N, other_N, seed=0) == (correlation, low, high)


@pytest.mark.parametrize("level", [0.95, 0.975])
def test_paired_difference_is_students(level: float):
    difference_S = np.random.default_rng(0).normal(0.3, 1.0, 6)
    found, expected = paired_difference(difference_S, level=level), ttest_1samp(difference_S, 0)
    interval = expected.confidence_interval(level)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.p_value == pytest.approx(expected.pvalue)
    assert found.distinguishable == (expected.pvalue < 1 - level)


def test_too_few_seeds_leave_figures_undefined():
    single, nothing, diverged = (paired_difference(np.array(values)) for values in ([-0.5], [], [1.0, np.nan]))
    assert (single.difference, single.share_won) == (-0.5, 1.0)
    assert math.isnan(single.low)
    assert not single.distinguishable
    assert all(math.isnan(value) for one in (nothing, diverged) for value in vars(one).values())


def test_mean_of_ratios_has_the_interval_of_a_bootstrap_within_texts():
    rng = np.random.default_rng(0)
    sizes = [rng.integers(5, 80, count).astype(float) for count in (300, 120)]
    amounts = [-0.1 * size_I + rng.normal(0, 3, len(size_I)) for size_I in sizes]
    found = mean_of_ratios(amounts, sizes)
    assert found.value == np.mean([a.sum() / s.sum() for a, s in zip(amounts, sizes, strict=True)])
    drawn = []
    for _ in range(4000):
        chosen = [rng.integers(0, len(s), len(s)) for s in sizes]
        drawn.append(np.mean([a[c].sum() / s[c].sum() for a, s, c in zip(amounts, sizes, chosen, strict=True)]))
    low, high = middle_interval(np.array(drawn))
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.05 * (high - low))


def test_items_that_agree_leave_no_doubt_and_a_single_one_leaves_all():
    agreeing = mean_of_ratios([np.array([1.0, 2.0, 3.0])], [np.array([2.0, 4.0, 6.0])])
    assert (agreeing.low, agreeing.value, agreeing.high) == (0.5, 0.5, 0.5)
    alone = mean_of_ratios([np.array([1.0]), np.array([1.0, 2.0])], [np.array([2.0]), np.array([2.0, 2.0])])
    assert alone.value == 0.625
    assert math.isnan(alone.low)
    assert math.isnan(alone.high)
