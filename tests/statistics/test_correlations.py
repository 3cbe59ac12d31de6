import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr

from tikmix_pipeline.statistics.correlations import fisher_interval, mean_of_defined, pearson, spearman


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
