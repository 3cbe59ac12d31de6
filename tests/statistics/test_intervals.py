import math

import numpy as np
import pytest
from scipy.stats import binomtest, spearmanr, ttest_1samp

from tikmix_pipeline.statistics.intervals import (
    bootstrapped_spearman,
    middle_interval,
    paired_difference,
    wilson_interval,
)


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


def test_paired_difference_is_students():
    difference_S = np.random.default_rng(0).normal(0.3, 1.0, 6)
    found, expected = paired_difference(difference_S), ttest_1samp(difference_S, 0)
    interval = expected.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.p_value == pytest.approx(expected.pvalue)
    assert found.distinguishable == (expected.pvalue < 0.05)


def test_too_few_seeds_leave_figures_undefined():
    single, nothing, diverged = (paired_difference(np.array(values)) for values in ([-0.5], [], [1.0, np.nan]))
    assert (single.difference, single.share_won) == (-0.5, 1.0)
    assert math.isnan(single.low)
    assert not single.distinguishable
    assert all(math.isnan(value) for one in (nothing, diverged) for value in vars(one).values())
