import numpy as np
import pytest

from tikmix_pipeline.influence.standard_error import influence_of_parts, influence_with_error

DIMENSION = 12


def simulate(repeats: int, *, noise: float, tokens: np.ndarray, seed: int = 0):
    """Part products of one task and one domain whose part gradients are Gaussian around fixed means.

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


def test_influence_weights_parts_by_their_tokens():
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


def test_equal_parts_have_no_error():
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
    np.testing.assert_allclose(influence_of_parts(products, *tokens), influence_with_error(products, *tokens)[0])
