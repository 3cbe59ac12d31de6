import dataclasses

import numpy as np
import pytest
import torch
from curvature_fits import dense
from group_examples import DOMAINS, MODELS, collected, curvature_of, dealt
from influence_oracle import tiny_model

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.influence.between_domains import convex_part, domain_products, of_domains
from tikmix_pipeline.influence.curvature.build import Curvature
from tikmix_pipeline.influence.products import chunk_products
from tikmix_pipeline.influence.store import GradientStore

CPU = torch.device("cpu")


def oracle(store: GradientStore, curvature: Curvature) -> tuple[np.ndarray, np.ndarray]:
    """Both products with every block of C written out as a matrix."""
    linear = curved = 0.0
    for block in curvature:
        rows = {name: store.rows("domain", store.sets("domain"), name) for name in block.names}
        vectors_Np = block.layout.gather(rows).double().flatten(1)
        matrix_pp = dense(dataclasses.replace(block, eigenvalues_oi=block.eigenvalues_oi.double()))
        values, basis = torch.linalg.eigh(matrix_pp)
        applied_pp = basis @ torch.diag(block.damping_function(values.clamp(min=0))) @ basis.T
        linear += vectors_Np @ applied_pp @ vectors_Np.T
        curved += vectors_Np @ applied_pp @ matrix_pp @ applied_pp @ vectors_Np.T
    return linear.numpy(), curved.numpy()


@pytest.mark.parametrize(("family", "tied"), MODELS)
@pytest.mark.parametrize("name", ["identity", "adam", "diagonal", "kfac", "ekfac"])
@pytest.mark.parametrize("inverse", ["damped", "horizon"])
def test_products_are_those_with_the_curvature_as_a_matrix(family, tied, name, inverse, tmp_path):
    model = tiny_model(family, tied=tied)
    store, curvature = collected(tmp_path, model), curvature_of(model, name, inverse=inverse)
    found = domain_products(store, curvature, memory_megabytes=100, device=CPU)
    count = found.linear_KLKL.shape[0] * found.linear_KLKL.shape[1]
    for products, expected in zip((found.linear_KLKL, found.curved_KLKL), oracle(store, curvature), strict=True):
        np.testing.assert_allclose(products.reshape(count, count), expected, rtol=1e-6, atol=1e-9 * abs(expected).max())


@pytest.mark.parametrize("name", ["diagonal", "kfac"])
def test_memory_changes_nothing_but_the_last_digits(name, tmp_path):
    model = tiny_model("llama")
    store, curvature = collected(tmp_path, model), curvature_of(model, name)
    whole = domain_products(store, curvature, memory_megabytes=100, device=CPU)
    least = max(block.size for block in curvature) * 200 / 1e6
    little = domain_products(store, curvature, memory_megabytes=least, device=CPU)
    np.testing.assert_allclose(little.curved_KLKL, whole.curved_KLKL, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(little.linear_KLKL, whole.linear_KLKL, rtol=1e-9, atol=1e-12)


def test_too_little_memory_for_a_row_is_told(tmp_path):
    model = tiny_model("llama")
    store, curvature = collected(tmp_path, model), curvature_of(model, "kfac")
    with pytest.raises(TikmixError, match=r"influence\.memory_megabytes"):
        domain_products(store, curvature, memory_megabytes=1e-4, device=CPU)


def test_influence_of_a_domain_on_itself_as_a_task_is_the_same_product(tmp_path):
    model = tiny_model("llama")
    store = collected(tmp_path, model, dealt(tasks=DOMAINS))
    curvature = curvature_of(model, "kfac")
    expected, _ = chunk_products(store, curvature, memory_megabytes=100, device=CPU)
    found = domain_products(store, curvature, memory_megabytes=100, device=CPU)
    np.testing.assert_allclose(found.linear_KLKL, expected, rtol=1e-6, atol=1e-9)


def test_the_noise_of_a_chunk_is_not_in_a_domain_s_product_with_itself():
    """Chunks of one signal with independent noise: the square of the noise, 100 here, would drown the signal, 9."""
    rng = np.random.default_rng(0)
    signal_K = np.array([3.0, 1.0])
    means, errors = [], []
    for _ in range(400):
        chunks_KLp = rng.normal(0, 1, (2, 4, 400)) * 0.5
        chunks_KLp[..., 0] += signal_K[:, None]
        products = np.einsum("klp,jmp->kljm", chunks_KLp, chunks_KLp)
        mean_KK, error_KK = of_domains(products, np.array([[10, 10, 10, 10], [10, 10, 10, 10]]))
        means.append(mean_KK)
        errors.append(error_KK)
    expected = np.outer(signal_K, signal_K)
    np.testing.assert_allclose(np.mean(means, axis=0), expected, atol=4 * np.std(means, axis=0).max() / 20)
    # the standard error is that of repetitions
    np.testing.assert_allclose(np.sqrt(np.mean(np.square(errors), axis=0)), np.std(means, axis=0), rtol=0.25)


def test_products_of_means_weigh_chunks_by_their_tokens():
    rng = np.random.default_rng(0)
    chunks_KLp, tokens_KL = rng.normal(size=(3, 2, 5)), np.array([[1, 3], [2, 2], [4, 1]])
    means_Kp = np.einsum("klp,kl->kp", chunks_KLp, tokens_KL / tokens_KL.sum(1, keepdims=True))
    found, error_KK = of_domains(np.einsum("klp,jmp->kljm", chunks_KLp, chunks_KLp), tokens_KL)
    between = ~np.eye(3, dtype=bool)
    np.testing.assert_allclose(found[between], (means_Kp @ means_Kp.T)[between])
    np.testing.assert_allclose(np.diag(found), [chunks[0] @ chunks[1] for chunks in chunks_KLp])
    # one product says nothing of its error
    assert np.isnan(np.diag(error_KK)).all()
    assert np.isfinite(error_KK[between]).all()


def test_convex_part_is_the_nearest_matrix_without_a_negative_direction():
    rng = np.random.default_rng(0)
    positive = rng.normal(size=(4, 4))
    positive = positive @ positive.T
    np.testing.assert_allclose(convex_part(positive), positive, atol=1e-12)
    mixed = np.diag([2.0, -1.0])
    np.testing.assert_allclose(convex_part(mixed), np.diag([2.0, 0.0]))
