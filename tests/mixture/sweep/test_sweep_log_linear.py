import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import huber

from tikmix_pipeline.mixture.sweep.log_linear import _DELTA, LogLinear

A_K = np.array([0.8, -1.5, 0.3, -0.2])


@pytest.fixture(name="rows_NK")
def _rows():
    return np.random.default_rng(0).dirichlet(np.ones(4), size=60)


@pytest.fixture(name="unseen_MK")
def _unseen():
    return np.random.default_rng(1).dirichlet(np.full(4, 0.4), size=100)


def law(weights_NK, floor=3.0):
    return floor + np.exp(weights_NK @ A_K)


def test_planted_law_is_recovered_beyond_the_rows(rows_NK, unseen_MK):
    fitted = LogLinear().fit(rows_NK, law(rows_NK))
    np.testing.assert_allclose(fitted.predict(unseen_MK), law(unseen_MK), rtol=1e-4)
    assert fitted.least_ + fitted.range_ * fitted.parameters_[0] == pytest.approx(3.0, abs=0.01)


def test_no_random_start_of_a_general_solver_ends_lower(rows_NK):
    """Olmix's own way, by many random starts and L-BFGS, on rows with noise and outliers."""
    generator = np.random.default_rng(2)
    response_N = law(rows_NK) + generator.normal(scale=0.1, size=60) + (generator.random(60) < 0.1)
    delta = _DELTA * response_N.std()

    def loss(parameters, predicted_N=None):
        predicted_N = parameters[0] + np.exp(rows_NK @ parameters[1:]) if predicted_N is None else predicted_N
        return float(huber(delta, predicted_N - response_N).sum())

    bounds = [(0.0, response_N.max())] + [(-20.0, 20.0)] * 4
    starts = [np.concatenate([[generator.uniform(0, 4)], generator.uniform(-1, 1, size=4)]) for _ in range(30)]
    slow = min(minimize(loss, start, bounds=bounds, method="L-BFGS-B").fun for start in starts)
    assert loss(None, LogLinear().fit(rows_NK, response_N).predict(rows_NK)) <= slow * (1 + 1e-4)


def test_an_outlier_moves_the_law_little(rows_NK, unseen_MK):
    response_N = law(rows_NK)
    response_N[:3] += 5.0
    np.testing.assert_allclose(LogLinear().fit(rows_NK, response_N).predict(unseen_MK), law(unseen_MK), rtol=0.05)


def test_linear_responses_of_either_sign_are_followed(rows_NK, unseen_MK):
    """Influence is linear, and negative as a response: the law bends as little as it may."""
    slope_K = np.array([-2.0, 1.0, 0.0, -0.5])
    predicted_M = LogLinear().fit(rows_NK, rows_NK @ slope_K).predict(unseen_MK)
    assert np.abs(predicted_M - unseen_MK @ slope_K).max() < 0.05 * np.ptp(unseen_MK @ slope_K)


def test_fewer_rows_than_domains_are_no_trouble():
    rows_NK = np.random.default_rng(3).dirichlet(np.ones(12), size=8)
    response_N = 3 + np.exp(-rows_NK[:, 0])
    fitted = LogLinear().fit(rows_NK, response_N)
    np.testing.assert_allclose(fitted.predict(rows_NK), response_N, atol=0.02)
    assert np.isfinite(fitted.predict(np.eye(12))).all()


def test_domain_that_no_row_has_is_taken_to_do_nothing(rows_NK):
    rows_NK = np.concatenate([rows_NK, np.zeros((60, 1))], axis=1)
    assert LogLinear().fit(rows_NK, law(rows_NK[:, :4])).parameters_[-1] == 0
