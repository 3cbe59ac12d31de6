import numpy as np
import pytest

from tikmix_pipeline.baselines.likeliest_mixture import likeliest_mixture


def drawn_from(models_KV, mixture_K, count, *, seed):
    """Probabilities (K, N) of tokens that were drawn from a mixture of unigram models."""
    tokens_N = np.random.default_rng(seed).choice(models_KV.shape[1], size=count, p=mixture_K @ models_KV)
    return models_KV[:, tokens_N], np.full(count, 1 / count)


@pytest.fixture(name="models_KV")
def _models():
    return np.random.default_rng(0).dirichlet(np.full(50, 0.2), size=4) * 0.999 + 0.001 / 50


def test_planted_mixture_is_recovered(models_KV):
    planted_K = np.array([0.5, 0.3, 0.2, 0.0])
    fit = likeliest_mixture(*drawn_from(models_KV, planted_K, 100_000, seed=1), iterations=5_000, tolerance=1e-8)
    np.testing.assert_allclose(fit.weights_K, planted_K, atol=0.01)


def test_likelihood_never_falls_and_the_gap_bounds_what_is_missing(models_KV):
    probability_KN, weight_N = drawn_from(models_KV, np.array([0.4, 0.3, 0.2, 0.1]), 2_000, seed=2)
    best = likeliest_mixture(probability_KN, weight_N, iterations=20_000, tolerance=1e-10)
    early = likeliest_mixture(probability_KN, weight_N, iterations=5, tolerance=1e-10)
    assert len(early.likelihoods) == 6
    assert (np.diff(best.likelihoods) >= -1e-14).all()
    assert 0 < best.likelihoods[-1] - early.likelihoods[-1] <= early.gap
    assert "baselines.ngram.iterations = 5" in early.notes("baselines.ngram", iterations=5, tolerance=1e-10)[0]


def test_equals_a_grid_of_all_mixtures(models_KV):
    probability_KN, weight_N = drawn_from(models_KV[:2], np.array([0.7, 0.3]), 3_000, seed=3)
    fit = likeliest_mixture(probability_KN, weight_N, iterations=5_000, tolerance=1e-9)
    grid = np.linspace(0, 1, 1001)[1:-1]
    likelihood = [weight_N @ np.log(w * probability_KN[0] + (1 - w) * probability_KN[1]) for w in grid]
    assert fit.weights_K[0] == pytest.approx(grid[int(np.argmax(likelihood))], abs=2e-3)
