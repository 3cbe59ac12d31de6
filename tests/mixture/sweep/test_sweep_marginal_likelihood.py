import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import multivariate_normal, norm

from tikmix_pipeline.mixture.sweep.marginal_likelihood import Kernel, Prior, Warp, negative_log_posterior

ROWS, DOMAINS = 24, 4


@pytest.fixture
def problem():
    generator = np.random.default_rng(0)
    weights_NK = generator.dirichlet(np.full(DOMAINS, 0.7), size=ROWS)
    weights_NK[:5, 1] = 0.0
    response_N = np.exp(weights_NK @ generator.normal(size=DOMAINS)) + 0.1 * generator.normal(size=ROWS)
    prior = Prior.of(weights_NK)
    theta_H = prior.mean_H + 0.3 * generator.normal(size=len(prior.mean_H))
    return theta_H, weights_NK, response_N, generator.uniform(0.5, 2.0, size=ROWS), prior


def dense(theta_H, weights_NK, response_N, noise_N, prior):
    """The density of the responses under the formula of the module's docstring, term by term."""
    lengths, slopes = np.exp(theta_H[:DOMAINS]), np.exp(theta_H[DOMAINS : 2 * DOMAINS])
    signal, noise, power, linear_power, offset = np.exp(theta_H[2 * DOMAINS :])
    root = np.sqrt(5) * cdist(weights_NK**power / lengths, weights_NK**power / lengths)
    covariance = signal * (1 + root + root**2 / 3) * np.exp(-root) + 1
    covariance += sum(
        slopes[k] * np.outer(weights_NK[:, k], weights_NK[:, k]) ** linear_power for k in range(DOMAINS)
    ) + np.diag(noise * noise_N + 1e-6)
    level = np.log(response_N - response_N.min() + offset * np.ptp(response_N))
    log_density = multivariate_normal(cov=covariance).logpdf((level - level.mean()) / level.std())
    log_density -= level.sum() + ROWS * np.log(level.std())
    return log_density + norm(prior.mean_H, prior.deviation_H).logpdf(theta_H).sum()


def test_the_posterior_is_that_of_the_dense_normal_density(problem):
    theta_H, *data, prior = problem
    other_H = theta_H + 0.2
    difference = negative_log_posterior(theta_H, *data, prior)[0] - negative_log_posterior(other_H, *data, prior)[0]
    assert difference == pytest.approx(dense(other_H, *data, prior) - dense(theta_H, *data, prior), rel=1e-7)


def test_the_gradient_is_that_of_central_differences(problem):
    theta_H, *data = problem
    value = [
        [negative_log_posterior(theta_H + step * direction, *data)[0] for step in (-1e-5, 1e-5)]
        for direction in np.eye(len(theta_H))
    ]
    expected = np.diff(value, axis=1)[:, 0] / 2e-5
    assert negative_log_posterior(theta_H, *data)[1] == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_the_warp_is_undone_exactly(problem):
    response_N = problem[2]
    warp = Warp.of(response_N, -1.0)
    z_N = warp.forward(response_N)
    assert [z_N.mean(), z_N.std()] == pytest.approx([0, 1])
    assert warp.backward(z_N) == pytest.approx(response_N)


def test_a_high_offset_leaves_the_order_and_the_distances_of_the_response(problem):
    response_N = problem[2]
    z_N = Warp.of(response_N, 8.0).forward(response_N)
    assert z_N == pytest.approx((response_N - response_N.mean()) / response_N.std(), abs=1e-3)


def test_a_domain_that_never_varies_has_the_prior_of_an_average_one():
    weights_NK = np.random.default_rng(0).dirichlet(np.ones(3), size=20)
    still_NK = np.concatenate([weights_NK, np.zeros((20, 1))], axis=1)
    lengths_K = np.exp(Prior.of(still_NK).mean_H[:4])
    assert lengths_K[3] == pytest.approx(lengths_K[:3].mean())
    assert np.isfinite(Prior.of(np.full((5, 2), 0.5)).mean_H).all()


def test_the_kernel_between_rows_is_symmetric(problem):
    theta_H, weights_NK, *_ = problem
    covariance_NN = Kernel(theta_H).between(weights_NK, weights_NK)
    assert covariance_NN == pytest.approx(covariance_NN.T)
