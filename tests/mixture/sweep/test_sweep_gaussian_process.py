import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import multivariate_normal, norm, spearmanr

from tikmix_pipeline.mixture.sweep.gaussian_process import (
    Kernel,
    MixtureGaussianProcess,
    Prior,
    Warp,
    negative_log_posterior,
    student_t_noise,
)


def surface(weights_NK):
    """A loss with diminishing returns of the first domain, and help between the next two."""
    return -np.log(0.02 + weights_NK[:, 0]) - 4 * weights_NK[:, 1] * weights_NK[:, 2]


@pytest.fixture(scope="module")
def rows():
    return np.random.default_rng(0).dirichlet(np.ones(5), size=160)


@pytest.fixture(scope="module")
def unseen():
    return np.random.default_rng(1).dirichlet(np.ones(5), size=400)


@pytest.fixture(scope="module")
def fitted(rows):
    return MixtureGaussianProcess().fit(rows, surface(rows))


def test_it_learns_an_interacting_surface(fitted, unseen):
    assert np.corrcoef(fitted.predict(unseen), surface(unseen))[0, 1] > 0.999


def test_it_learns_a_linear_response_that_changes_sign(rows, unseen):
    effect_K = np.array([1.0, -2.0, 0.5, 0.0, 0.3])
    process = MixtureGaussianProcess().fit(rows, 1e-9 * (rows @ effect_K))
    assert np.corrcoef(process.predict(unseen), unseen @ effect_K)[0, 1] > 0.9999


def test_outliers_do_not_bend_the_surface(rows, unseen):
    response_N = surface(rows) + 0.02 * np.random.default_rng(2).normal(size=len(rows))
    response_N[::16] += 3.0
    process = MixtureGaussianProcess().fit(rows, response_N)
    assert spearmanr(process.predict(unseen), surface(unseen)).statistic > 0.99
    assert process.noise_[::16].min() > np.delete(process.noise_, np.s_[::16]).max()


def test_the_prediction_is_that_of_the_dense_formula(fitted, rows, unseen):
    kernel, warp = Kernel(fitted.theta_), Warp.of(surface(rows), fitted.theta_[-1])
    covariance_NN = kernel.between(rows, rows) + np.diag(kernel.diagonal(fitted.noise_))
    z_M = kernel.between(unseen, rows) @ np.linalg.solve(covariance_NN, warp.forward(surface(rows)))
    assert fitted.predict(unseen) == pytest.approx(warp.backward(z_M), rel=1e-6)


def test_residuals_are_those_of_leaving_one_row_out(fitted, rows):
    kernel, warp = Kernel(fitted.theta_), Warp.of(surface(rows), fitted.theta_[-1])
    covariance_NN = kernel.between(rows, rows) + np.diag(kernel.diagonal(fitted.noise_))
    z_N = warp.forward(surface(rows))
    for n in (0, 57):
        others = np.delete(np.arange(len(rows)), n)
        from_others = covariance_NN[n, others] @ np.linalg.solve(covariance_NN[np.ix_(others, others)], z_N[others])
        assert fitted._residuals()[n] == pytest.approx(z_N[n] - from_others, rel=1e-3, abs=1e-6)


def test_many_mixtures_are_predicted_as_few_are(fitted, unseen):
    many = np.tile(unseen, (11, 1))
    assert fitted.predict(many)[:400] == pytest.approx(fitted.predict(unseen))
    assert fitted.predict(many).shape == (4400,)


def test_the_same_rows_give_the_same_bits(fitted, rows):
    again = MixtureGaussianProcess().fit(rows, surface(rows))
    assert np.array_equal(again.theta_, fitted.theta_)
    assert np.array_equal(again.dual_, fitted.dual_)


def test_a_constant_response_is_predicted_as_that_constant(rows, unseen):
    process = MixtureGaussianProcess().fit(rows, np.full(len(rows), 2.5))
    assert np.array_equal(process.predict(unseen), np.full(len(unseen), 2.5))


def test_few_rows_with_a_repeated_one_and_an_idle_domain_are_enough():
    weights_NK = np.random.default_rng(3).dirichlet(np.ones(2), size=6)
    weights_NK = np.concatenate([weights_NK, weights_NK[:2]])
    weights_NK = np.concatenate([weights_NK, np.zeros((8, 1))], axis=1)
    process = MixtureGaussianProcess().fit(weights_NK, weights_NK[:, 0])
    assert np.isfinite(process.predict(np.array([[0.2, 0.3, 0.5]]))).all()


def test_an_outlier_is_far_noisier_and_the_mean_noise_stays():
    residuals_N = np.append(np.random.default_rng(0).normal(size=50), 20.0)
    noise_N = student_t_noise(residuals_N)
    assert noise_N[-1] > 20 * noise_N[:-1].max()
    assert np.log(noise_N).mean() == pytest.approx(0)


def test_the_unit_of_the_residuals_does_not_matter():
    residuals_N = np.random.default_rng(0).normal(size=50)
    assert student_t_noise(1e-9 * residuals_N) == pytest.approx(student_t_noise(residuals_N))


def test_rows_that_are_all_met_are_alike():
    assert np.array_equal(student_t_noise(np.zeros(4)), np.ones(4))


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
