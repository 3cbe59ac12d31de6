import numpy as np
import pytest

from tikmix_pipeline.influence.group import effect_with_error
from tikmix_pipeline.influence.standard_error import influence_with_error

TASKS, DOMAINS, CHUNKS, DIMENSION = 2, 3, 8, 10
REFERENCE_K = np.array([0.5, 0.3, 0.2])
TASK_TOKENS, DOMAIN_TOKENS = np.full((TASKS, CHUNKS), 50), np.full((DOMAINS, CHUNKS), 100)


def table(task_TMd: np.ndarray, domain_KLd: np.ndarray) -> np.ndarray:
    return np.einsum("tmd,kld->tmkl", task_TMd, domain_KLd)


def planted(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.random.Generator]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(TASKS, DIMENSION)), rng.normal(size=(DOMAINS, DIMENSION)), rng


def noisy(mean_Sd: np.ndarray, noise: float, rng: np.random.Generator) -> np.ndarray:
    return mean_Sd[:, None] + noise * rng.normal(size=(len(mean_Sd), CHUNKS, DIMENSION))


def test_effect_is_the_gain_of_one_percent_of_the_tokens_over_the_reference():
    task_Td, domain_Kd, rng = planted()
    products = table(noisy(task_Td, 1.0, rng), noisy(domain_Kd, 1.0, rng))
    influence_TK, _ = influence_with_error(products, TASK_TOKENS, DOMAIN_TOKENS)
    effect_TK, _ = effect_with_error(products, TASK_TOKENS, DOMAIN_TOKENS, REFERENCE_K, calibration=2.0)
    for k in range(DOMAINS):
        moved_K = 0.99 * REFERENCE_K + 0.01 * np.eye(DOMAINS)[k]
        np.testing.assert_allclose(effect_TK[:, k], 2.0 * influence_TK @ (moved_K - REFERENCE_K), rtol=1e-9)


def test_effects_weighted_by_the_reference_sum_to_zero():
    task_Td, domain_Kd, rng = planted()
    products = table(noisy(task_Td, 1.0, rng), noisy(domain_Kd, 1.0, rng))
    effect_TK, _ = effect_with_error(products, TASK_TOKENS, DOMAIN_TOKENS, REFERENCE_K)
    np.testing.assert_allclose(effect_TK @ REFERENCE_K, 0, atol=1e-15)


@pytest.mark.parametrize(("task_noise", "domain_noise"), [(0.4, 0.4), (2.0, 0.1), (0.1, 2.0), (1.5, 1.5)])
def test_squared_error_of_an_effect_is_its_variance_over_draws(task_noise, domain_noise):
    """The task's sample is common to all domains; taken for independent, it would be counted for each of them."""
    task_Td, domain_Kd, rng = planted()
    repeats = 3000
    task_RTMd, domain_RKLd = (
        mean[:, None] + noise * rng.normal(size=(repeats, len(mean), CHUNKS, DIMENSION))
        for mean, noise in ((task_Td, task_noise), (domain_Kd, domain_noise))
    )
    # every draw has tasks of its own: the rows of a table do not know of each other
    products = np.einsum("rtmd,rkld->rtmkl", task_RTMd, domain_RKLd).reshape(-1, CHUNKS, DOMAINS, CHUNKS)
    effect, error = effect_with_error(products, np.tile(TASK_TOKENS, (repeats, 1)), DOMAIN_TOKENS, REFERENCE_K)
    effect_RTK, error_RTK = (values.reshape(repeats, TASKS, DOMAINS) for values in (effect, error))
    np.testing.assert_allclose((error_RTK**2).mean(0), effect_RTK.var(0), rtol=0.12)


def test_domain_that_is_all_of_the_reference_has_no_effect_and_no_error():
    task_Td, domain_Kd, rng = planted()
    products = table(noisy(task_Td, 1.0, rng), noisy(domain_Kd, 1.0, rng))
    effect_TK, error_TK = effect_with_error(products, TASK_TOKENS, DOMAIN_TOKENS, np.array([1.0, 0.0, 0.0]))
    assert (effect_TK[:, 0] == 0).all()
    assert (error_TK[:, 0] == 0).all()
    assert (error_TK[:, 1:] > 0).all()


def test_noise_common_to_all_domains_cancels():
    """A task sample whose gradients differ only in a direction that all domains share tells the domains apart well."""
    task_Td, domain_Kd, rng = planted()
    domain_Kd[:, 0] = 1.0
    chunks = np.repeat(task_Td[:, None], CHUNKS, axis=1)
    chunks[..., 0] += 5 * rng.normal(size=(TASKS, CHUNKS))
    products = table(chunks, np.repeat(domain_Kd[:, None], CHUNKS, axis=1))
    _, stderr_TK = influence_with_error(products, TASK_TOKENS, DOMAIN_TOKENS)
    _, effect_error_TK = effect_with_error(products, TASK_TOKENS, DOMAIN_TOKENS, REFERENCE_K)
    assert (effect_error_TK < 1e-10 * 0.01 * stderr_TK).all()
