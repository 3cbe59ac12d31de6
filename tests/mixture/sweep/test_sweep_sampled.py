import numpy as np
import pytest

from tikmix_pipeline.mixture.sweep.sampled import mean_correlation, sampled_influence

T, K, L = 2, 3, 4
GENERATOR = np.random.default_rng(0)
INFLUENCE = GENERATOR.normal(1.0, 0.5, size=(T, K, L))
TOKENS = np.full((K, L), 100.0)
WEIGHTS = GENERATOR.dirichlet(np.ones(K), size=50)
ADDITIVE = WEIGHTS @ INFLUENCE.mean(axis=2).T


def sampled(weights: np.ndarray, influence: np.ndarray = INFLUENCE, tokens: int | None = None, seed: int = 0):
    return sampled_influence(weights, [influence], [TOKENS], tokens=tokens, factors_RT=np.ones((1, T)), seed=seed)


def test_sampled_influence_is_additive_influence_where_all_parts_of_a_domain_are_alike():
    alike = np.repeat(INFLUENCE[:, :, :1], L, axis=2)
    assert sampled(WEIGHTS, alike) == pytest.approx(WEIGHTS @ alike[:, :, 0].T)


def test_sampled_influence_is_unbiased():
    draws = np.stack([sampled(WEIGHTS, seed=seed) for seed in range(400)])
    error = draws.std(axis=0) / np.sqrt(len(draws))
    assert np.all(np.abs(draws.mean(axis=0) - ADDITIVE) < 5 * error)


def test_larger_samples_are_less_noisy():
    errors = [np.abs(sampled(WEIGHTS, tokens=tokens) - ADDITIVE).mean() for tokens in (1_000, 10_000, 100_000)]
    assert errors[0] > 2 * errors[1] > 4 * errors[2]


def test_a_sample_has_the_variance_of_drawing_its_parts():
    """The oracle: draw every part of one domain one by one."""
    weights, count = np.array([[1.0, 0.0, 0.0]]), 12
    draws = np.array([sampled(weights, tokens=count * 100, seed=seed)[0, 0] for seed in range(3000)])
    one_by_one = GENERATOR.choice(INFLUENCE[0, 0], size=(3000, count)).mean(axis=1)
    assert draws.std() == pytest.approx(one_by_one.std(), rel=0.1)


def test_a_domain_without_weight_has_no_say():
    weights = np.array([[0.5, 0.5, 0.0]])
    changed = INFLUENCE.copy()
    changed[:, 2] = 1e9
    assert sampled(weights, changed) == pytest.approx(sampled(weights))


def test_rounds_count_alike_in_the_units_they_are_given():
    factors = np.array([[2.0, 3.0], [1.0, 1.0]])
    alike = np.repeat(INFLUENCE[:, :, :1], L, axis=2)
    both = sampled_influence(WEIGHTS, [alike, 2 * alike], [TOKENS, TOKENS], tokens=None, factors_RT=factors, seed=0)
    assert both == pytest.approx(WEIGHTS @ alike[:, :, 0].T * np.array([2.0, 2.5]))


def test_correlation_is_that_of_numpy_averaged_over_tasks():
    noisy = ADDITIVE + GENERATOR.normal(size=ADDITIVE.shape)
    expected = np.mean([np.corrcoef(ADDITIVE[:, t], noisy[:, t])[0, 1] for t in range(T)])
    assert mean_correlation(ADDITIVE, noisy) == pytest.approx(expected)
    assert np.isnan(mean_correlation(ADDITIVE, np.ones_like(ADDITIVE)))
