import numpy as np
import torch

from tikmix_pipeline.influence.curvature.kronecker import nearest_kronecker


def random_term(seed: int, rows: int = 6, size: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(size, size, generator=generator, dtype=torch.float64)
    return torch.rand(rows, generator=generator, dtype=torch.float64), root @ root.T


def dense(term: tuple[torch.Tensor, torch.Tensor]) -> np.ndarray:
    return np.kron(np.diag(term[0].numpy()), term[1].numpy())


def test_product_is_the_leading_singular_pair_of_the_rearranged_sum():
    first, second = random_term(0), random_term(1)
    matrix = sum(np.outer(v.numpy(), m.numpy().flatten()) for v, m in (first, second))
    u, s, v = np.linalg.svd(matrix, full_matrices=False)
    nearest = nearest_kronecker(first, second)
    expected = s[0] * np.outer(u[:, 0], v[0])
    np.testing.assert_allclose(np.outer(nearest[0].numpy(), nearest[1].numpy().flatten()), expected, rtol=1e-9)


def test_sum_of_proportional_diagonals_is_exact():
    diagonal, first = random_term(0)
    _, second = random_term(1)
    nearest = nearest_kronecker((diagonal, first), (3 * diagonal, second))
    np.testing.assert_allclose(dense(nearest), dense((diagonal, first + 3 * second)), rtol=1e-12, atol=1e-14)


def test_product_is_positive_semi_definite():
    for seed in range(20):
        diagonal, matrix = nearest_kronecker(random_term(seed), random_term(seed + 100))
        assert (diagonal >= 0).all()
        assert (torch.linalg.eigvalsh(matrix) >= -1e-12).all()


def test_zero_terms_are_no_special_case():
    term = random_term(0)
    zero = (torch.zeros(6).double(), torch.zeros(3, 3).double())
    np.testing.assert_allclose(dense(nearest_kronecker(term, zero)), dense(term), rtol=1e-12, atol=1e-14)
    assert (dense(nearest_kronecker(zero, zero)) == 0).all()
