"""The Kronecker product nearest to a sum of two, where the first factor of each is diagonal.

    min over c, B of ‖ diag(p) ⊗ P + diag(q) ⊗ Q − diag(c) ⊗ B ‖_F

Written with vec, the sum is the rank-two matrix [p q] [vec P, vec Q]ᵀ, and the minimiser is its leading singular pair
(Van Loan and Pitsianis, 1993). For p, q ≥ 0 and positive semi-definite P, Q both Gram matrices below are non-negative,
so by Perron-Frobenius the pair is a non-negative combination: c ≥ 0, and B = αP + βQ is positive semi-definite.
"""

import torch
from torch import Tensor


def nearest_kronecker(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Return `(c, B)` with diag(c) ⊗ B nearest to the sum of diag(p) ⊗ P and diag(q) ⊗ Q.

    Args:
        first: `(p, P)`, a non-negative vector and a positive semi-definite matrix.
        second: `(q, Q)`, of the same shapes.

    Returns:
        `c`, of unit Euclidean norm, and `B`; both zero when the sum is zero.
    """
    diagonals_v2 = torch.stack([first[0], second[0]], dim=1).double()
    dense_2nn = torch.stack([first[1], second[1]]).double()
    diagonal_gram_22 = diagonals_v2.T @ diagonals_v2
    dense_gram_22 = torch.einsum("anm,bnm->ab", dense_2nn, dense_2nn)
    eigenvalues, eigenvectors = torch.linalg.eig(dense_gram_22 @ diagonal_gram_22)
    leading = eigenvectors[:, eigenvalues.real.argmax()].real.abs()
    c = diagonals_v2 @ leading
    c = c / c.norm().clamp(min=torch.finfo(c.dtype).tiny)
    return c, torch.einsum("a,anm->nm", diagonals_v2.T @ c, dense_2nn)
