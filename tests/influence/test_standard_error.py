import numpy as np
import pytest

from tikmix_pipeline.influence.standard_error import (
    influence_of_chunks,
    influence_of_halves,
    influence_with_error,
    rank_stability,
)

DIMENSION = 12


def simulate(repeats: int, *, noise: float, tokens: np.ndarray, seed: int = 0):
    """Chunk products of one task and one domain whose gradient chunks are Gaussian around fixed means.

    Returns:
        Estimates and standard errors over `repeats` draws, and the true influence.
    """
    rng = np.random.default_rng(seed)
    task, domain = rng.normal(size=(2, DIMENSION))
    scale = noise / np.sqrt(tokens / tokens.mean())
    task_RMd, domain_RLd = (
        mean + scale[:, None] * rng.normal(size=(repeats, len(tokens), DIMENSION)) for mean in (task, domain)
    )
    # every draw is a task of its own: the entries of a table do not know of each other
    products = np.einsum("rmd,rld->rml", task_RMd, domain_RLd)[:, :, None]
    estimates, errors = influence_with_error(products, np.tile(tokens, (repeats, 1)), tokens[None])
    return estimates[:, 0], errors[:, 0], task @ domain


@pytest.mark.parametrize("noise", [0.3, 2.0])
@pytest.mark.parametrize("tokens", [np.full(8, 100), np.array([60, 80, 100, 100, 100, 110, 120, 130])])
def test_squared_error_is_the_variance_over_draws(noise, tokens):
    """Small noise: the sides alone. Large noise: mostly their interaction, which must not be counted twice."""
    estimates, errors, truth = simulate(3000, noise=noise, tokens=tokens)
    assert np.mean(errors**2) == pytest.approx(estimates.var(), rel=0.1)
    assert abs(estimates.mean() - truth) < 4 * estimates.std() / np.sqrt(len(estimates))


def test_interval_of_two_errors_covers_the_truth():
    estimates, errors, truth = simulate(2000, noise=0.5, tokens=np.full(8, 100))
    assert 0.91 < np.mean(np.abs(estimates - truth) < 2 * errors) < 0.98


def test_influence_weights_chunks_by_their_tokens():
    rng = np.random.default_rng(1)
    task_TMd, domain_KLd = rng.normal(size=(2, 3, 5)), rng.normal(size=(4, 3, 5))
    task_tokens, domain_tokens = rng.integers(1, 9, (2, 3)), rng.integers(1, 9, (4, 3))
    products = np.einsum("tmd,kld->tmkl", task_TMd, domain_KLd)
    influence, error = influence_with_error(products, task_tokens, domain_tokens)
    task_Td = np.einsum("tmd,tm->td", task_TMd, task_tokens) / task_tokens.sum(1)[:, None]
    domain_Kd = np.einsum("kld,kl->kd", domain_KLd, domain_tokens) / domain_tokens.sum(1)[:, None]
    np.testing.assert_allclose(influence, task_Td @ domain_Kd.T, rtol=1e-12)
    assert error.shape == (2, 4)
    assert (error > 0).all()


def test_equal_chunks_have_no_error():
    _, error = influence_with_error(np.full((1, 4, 1, 4), 2.5), np.full((1, 4), 10), np.full((1, 4), 10))
    assert error[0, 0] == pytest.approx(0, abs=1e-12)


def test_parts_that_double_in_size_have_the_error_of_their_tokens():
    """As `influence.tokens=auto` makes them: with M/(M − 1) for its correction the error would be 2 % too small."""
    tokens = 100 * np.repeat([1, 1, 2, 4], 4)
    estimates, errors, _ = simulate(3000, noise=0.5, tokens=tokens)
    assert np.mean(errors**2) == pytest.approx(estimates.var(), rel=0.07)


def test_influence_alone_is_that_with_its_error():
    rng = np.random.default_rng(1)
    products = rng.normal(size=(2, 3, 4, 5))
    tokens = rng.integers(1, 9, (2, 3)), rng.integers(1, 9, (4, 5))
    np.testing.assert_allclose(influence_of_chunks(products, *tokens), influence_with_error(products, *tokens)[0])


TASKS, DOMAINS, CHUNKS = 2, 6, 8
TOKENS = np.full((TASKS, CHUNKS), 10), np.full((DOMAINS, CHUNKS), 10)


def products(noise: float, signal: float = 1.0, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    means_TK = signal * np.arange(DOMAINS) * np.array([[1.0], [-2.0]])
    return means_TK[:, None, :, None] + noise * rng.normal(size=(TASKS, CHUNKS, DOMAINS, CHUNKS))


def test_clear_ranks_are_stable_and_noise_is_not():
    np.testing.assert_allclose(rank_stability(products(0.01), *TOKENS), 1.0)
    noise_T = [rank_stability(products(1.0, signal=0.0, seed=seed), *TOKENS) for seed in range(20)]
    assert abs(np.mean(noise_T)) < 0.25


def test_halves_are_disjoint_and_weighted_by_tokens():
    table = np.zeros((1, 4, 1, 6))
    table[0] = np.arange(4)[:, None, None] + 10.0 * np.arange(6)
    tokens = np.array([[1, 1, 3, 3]]), np.array([[1, 1, 1, 1, 2, 2]])
    for first, second in influence_of_halves(table, *tokens, splits=6):
        assert first[0, 0] + second[0, 0] == pytest.approx(2 * influence(table, *tokens)[0, 0])
        assert first[0, 0] != second[0, 0]


def influence(table: np.ndarray, task_tokens: np.ndarray, domain_tokens: np.ndarray) -> np.ndarray:
    weights = [tokens / tokens.sum(1, keepdims=True) for tokens in (task_tokens, domain_tokens)]
    return np.einsum("tmkl,tm,kl->tk", table, *weights)


def test_halving_the_domains_alone_leaves_the_tasks_noise_out():
    """Chunks of a task that differ, chunks of a domain that do not."""
    rng = np.random.default_rng(0)
    table = np.repeat(rng.normal(size=(TASKS, CHUNKS, DOMAINS, 1)), CHUNKS, axis=3)
    for first, second in influence_of_halves(table, *TOKENS, splits=4, halve_tasks=False):
        np.testing.assert_allclose(first, second)
    assert all((a != b).any() for a, b in influence_of_halves(table, *TOKENS, splits=4))


def test_constant_influence_and_a_single_domain_have_no_ranks():
    assert np.isnan(rank_stability(np.ones((TASKS, CHUNKS, DOMAINS, CHUNKS)), *TOKENS)).all()
    single = np.random.default_rng(0).normal(size=(1, 4, 1, 4))
    assert np.isnan(rank_stability(single, np.full((1, 4), 1), np.full((1, 4), 1))).all()


def test_stability_is_the_same_at_every_call():
    table = products(3.0)
    np.testing.assert_array_equal(rank_stability(table, *TOKENS), rank_stability(table, *TOKENS))
