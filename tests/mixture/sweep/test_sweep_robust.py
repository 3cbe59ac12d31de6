import numpy as np
import pytest

from tikmix_pipeline.mixture.sweep.robust import excess_noise


def test_an_outlier_is_far_noisier_and_the_mean_noise_stays():
    residuals_N = np.append(np.random.default_rng(0).normal(size=50), 20.0)
    noise_N = excess_noise(residuals_N)
    assert noise_N[-1] > 20 * noise_N[:-1].max()
    assert np.log(noise_N).mean() == pytest.approx(0)


def test_the_unit_of_the_residuals_does_not_matter():
    residuals_N = np.random.default_rng(0).normal(size=50)
    assert excess_noise(1e-9 * residuals_N) == pytest.approx(excess_noise(residuals_N))


def test_rows_that_are_all_met_are_alike():
    assert np.array_equal(excess_noise(np.zeros(4)), np.ones(4))
