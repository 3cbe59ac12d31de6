"""From Kronecker factors to eigenvectors and eigenvalues.

    G ⊗ A = (Q_G ⊗ Q_A) (diag(μ_G) ⊗ diag(μ_A)) (Q_G ⊗ Q_A)ᵀ

A factor that is diagonal, as on the token side of an embedding or a head, needs no eigenvectors. Decompositions are in
float64 on the device where the factors are, each once however many layers share the factor.

The sum of two products, as of a tied embedding and head, is replaced by the product nearest to it:

    min over c, B of ‖ diag(p) ⊗ P + diag(q) ⊗ Q − diag(c) ⊗ B ‖_F

Written with vec, the sum is the rank-two matrix [p q] [vec P, vec Q]ᵀ, and the minimiser is its leading singular pair
(Van Loan and Pitsianis, 1993). For p, q ≥ 0 and positive semi-definite P, Q both Gram matrices are non-negative, so by
Perron-Frobenius the pair is a non-negative combination: c ≥ 0, and B = αP + βQ is positive semi-definite.

Axes: o rows of a block (outputs, or the vocabulary v), i and n columns.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.influence.curvature.factors import Factors, LayerFactors

_Eigen = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Kronecker:
    """A Kronecker product in its eigenbasis.

    Eigenvalues are in float64, eigenvectors as columns in the precision of the factors; `rows_oo` is None where the
    output side is diagonal.
    """

    row_values_o: Tensor
    column_values_i: Tensor
    columns_ii: Tensor
    rows_oo: Tensor | None = None

    def eigenvalues_oi(self) -> Tensor:
        """Return all eigenvalues of the product, in the precision of the factors."""
        return torch.outer(self.row_values_o, self.column_values_i).to(self.columns_ii.dtype)


class Decompositions:
    """Decomposes the blocks of K-FAC factors, each when it is asked for.

    What layers share is kept until each of them has had it once, and then let go.
    """

    def __init__(self, factors: Factors, device: torch.device, layers: Iterable[LayerFactors]) -> None:
        """Take the factors, and the layers whose blocks will be asked for."""
        self._factors = factors
        self._device = device
        dense = (layer.tensors.get(role) for layer in layers for role in ("output", "input"))
        self._users = Counter(name for name in dense if name is not None)
        self._done: dict[str, tuple[_Eigen, int]] = {}

    def of(self, layer: LayerFactors) -> Kronecker:
        """Decompose the block of one layer; raise a TikmixError if its factors are not finite."""
        if "variance" in layer.tensors and "frequency" in layer.tensors:
            diagonal_V, width_ii = nearest_kronecker(
                (self.tensor(layer, "frequency"), self.tensor(layer, "output")),
                (self.tensor(layer, "variance"), self.tensor(layer, "input")),
            )
            values, vectors = eigenbasis(width_ii, layer.layer)
            return Kronecker(diagonal_V, values, vectors.to(self.tensor(layer, "output").dtype))
        if layer.kind == "kronecker":
            rows, columns = self._eigen(layer, "output"), self._eigen(layer, "input")
            return Kronecker(rows[0], columns[0], columns[1], rows[1])
        diagonal, dense = ("frequency", "output") if "frequency" in layer.tensors else ("variance", "input")
        return Kronecker(self.tensor(layer, diagonal).double(), *self._eigen(layer, dense))

    def tensor(self, layer: LayerFactors, role: str) -> Tensor:
        """Return a tensor of a layer, on the device; as in `of` it must be finite."""
        return require_finite(self._factors.tensors[layer.tensors[role]].to(self._device), layer.layer)

    def _eigen(self, layer: LayerFactors, role: str) -> _Eigen:
        name = layer.tensors[role]
        found, times = self._done.pop(name, (None, 0))
        if found is None:
            factor = self.tensor(layer, role)
            values, vectors = eigenbasis(factor, layer.layer)
            found = values, vectors.to(factor.dtype)
        if times + 1 < self._users[name]:
            self._done[name] = found, times + 1
        return found


def eigenbasis(factor: Tensor, of: str) -> tuple[Tensor, Tensor]:
    """Return eigenvalues, ascending, and eigenvectors as columns, both in float64, of the factor of layer `of`.

    Rounding that makes eigenvalues negative is clamped; a factor that is not finite raises a TikmixError.
    """
    eigenvalues, eigenvectors = torch.linalg.eigh(require_finite(factor, of).double())
    # in the order of memory that files have, so that products round alike with what is read back
    return eigenvalues.clamp(min=0), eigenvectors.contiguous()


def require_finite(factor: Tensor, of: str) -> Tensor:
    """Return the factor of layer `of`, or raise a TikmixError if it is not finite."""
    if not factor.isfinite().all():
        raise TikmixError(
            f"The curvature of {of} is not finite. The checkpoint has diverged, or its weights are in a precision too "
            "low to measure at: load it in float32."
        )
    return factor


def nearest_kronecker(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Return `(c, B)` with diag(c) ⊗ B nearest to diag(p) ⊗ P + diag(q) ⊗ Q; `first` is (p, P), `second` is (q, Q).

    p and q are non-negative vectors, P and Q positive semi-definite matrices. c has unit Euclidean norm; both c and B
    are zero when the sum is.
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
