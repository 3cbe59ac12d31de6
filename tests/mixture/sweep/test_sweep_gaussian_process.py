import numpy as np
import pytest
from scipy.stats import spearmanr

from tikmix_pipeline.mixture.sweep.gaussian_process import MixtureGaussianProcess, student_t_noise
from tikmix_pipeline.mixture.sweep.marginal_likelihood import Kernel, Warp


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
