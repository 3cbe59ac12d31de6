import numpy as np
import pytest

from tikmix_pipeline.influence.stability import influence_of_halves, rank_stability

TASKS, DOMAINS, PARTS = 2, 6, 8
TOKENS = np.full((TASKS, PARTS), 10), np.full((DOMAINS, PARTS), 10)


def products(noise: float, signal: float = 1.0, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    means_TK = signal * np.arange(DOMAINS) * np.array([[1.0], [-2.0]])
    return means_TK[:, None, :, None] + noise * rng.normal(size=(TASKS, PARTS, DOMAINS, PARTS))


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
    """Parts of a task that differ, parts of a domain that do not."""
    rng = np.random.default_rng(0)
    table = np.repeat(rng.normal(size=(TASKS, PARTS, DOMAINS, 1)), PARTS, axis=3)
    for first, second in influence_of_halves(table, *TOKENS, splits=4, halve_tasks=False):
        np.testing.assert_allclose(first, second)
    assert all((a != b).any() for a, b in influence_of_halves(table, *TOKENS, splits=4))


def test_constant_influence_and_a_single_domain_have_no_ranks():
    assert np.isnan(rank_stability(np.ones((TASKS, PARTS, DOMAINS, PARTS)), *TOKENS)).all()
    single = np.random.default_rng(0).normal(size=(1, 4, 1, 4))
    assert np.isnan(rank_stability(single, np.full((1, 4), 1), np.full((1, 4), 1))).all()


def test_stability_is_the_same_at_every_call():
    table = products(3.0)
    np.testing.assert_array_equal(rank_stability(table, *TOKENS), rank_stability(table, *TOKENS))
