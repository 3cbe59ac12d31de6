"""One block of C in its eigenbasis, and f(C) times many gradients.

A block covers one weight matrix W_oi, with its bias as a last column where it has one, and has Kronecker eigenvectors:

    C = (Q_G ⊗ Q_A) diag(μ) (Q_G ⊗ Q_A)ᵀ,        f(C) X = Q_G ((Q_Gᵀ X Q_A) ∘ f(μ)) Q_Aᵀ.

A side on which C is already diagonal needs no eigenvectors; with neither side the block is a plain diagonal, of any
shape. All that is done with C is a function f of its eigenvalues (`spectrum`), taken in float64 each time and then cast
to the precision of the gradients.

Axes: N gradients, o rows of the matrix (outputs of a layer), i columns (inputs, and the bias).
"""

import dataclasses
from collections.abc import Mapping, Sequence

from torch import Tensor

from tikmix_pipeline.influence.curvature.layers import Layout
from tikmix_pipeline.influence.curvature.spectrum import UNDAMPED, DampingFunction


@dataclasses.dataclass(frozen=True)
class EigenBlock:
    """A layout, its eigenvalues, the eigenvectors of the sides that have any, and f.

    Attributes:
        layout: which parameters, and how they form a matrix.
        kind: how the block is approximated, for the report.
        eigenvalues_oi: μ, non-negative, never changed after construction.
        rows_oo: eigenvectors of the output side as columns; None where C is diagonal there.
        columns_ii: eigenvectors of the input side as columns; None where C is diagonal there.
        damping_function: f and its λ.
        span: of a piece, the slice [start, stop) along the first axis of its parameters that it covers.
    """

    layout: Layout
    kind: str
    eigenvalues_oi: Tensor
    rows_oo: Tensor | None = None
    columns_ii: Tensor | None = None
    damping_function: DampingFunction = UNDAMPED
    span: tuple[int, int] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters in the block."""
        return self.layout.names

    @property
    def size(self) -> int:
        """Scalar parameters in the block."""
        return self.eigenvalues_oi.numel()

    @property
    def mean_eigenvalue(self) -> float:
        """Mean of the eigenvalues, taken in float64."""
        return self.eigenvalues_oi.double().mean().item()

    def precondition(self, rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return f(C) times each of N gradients.

        Working memory: about three times the N gradients of the block.

        Args:
            rows: of every parameter in the block, (N, *shape), or (N, stop − start, ...) for a piece; on the block's
                device, left as they are. Anything else in the mapping is ignored.

        Returns:
            The same shapes, in the precision of `rows`.
        """
        matrix_Noi = self.layout.gather(rows)
        dtype = matrix_Noi.dtype
        rows_oo = None if self.rows_oo is None else self.rows_oo.to(dtype)
        columns_ii = None if self.columns_ii is None else self.columns_ii.to(dtype)
        if rows_oo is not None:
            matrix_Noi = rows_oo.T @ matrix_Noi
        if columns_ii is not None:
            matrix_Noi = matrix_Noi @ columns_ii
        matrix_Noi = matrix_Noi * self.damping_function(self.eigenvalues_oi).to(dtype)
        if rows_oo is not None:
            matrix_Noi = rows_oo @ matrix_Noi
        if columns_ii is not None:
            matrix_Noi = matrix_Noi @ columns_ii.T
        return self.layout.scatter(matrix_Noi)

    def pieces(self, most_scalars: int) -> Sequence["EigenBlock"]:
        """Split the block along the first axis of its parameters into pieces of no more scalars, exactly.

        C does not mix rows where it has no eigenvectors for them, so f of a piece, at the λ of the block, is the piece
        of f. A block that does mix them cannot be split and is returned whole, and so is a single row.
        """
        divisible = self.rows_oo is None and self.eigenvalues_oi.ndim > 0
        if not divisible or self.size <= most_scalars:
            return [self]
        rows = len(self.eigenvalues_oi)
        at_once = max(1, most_scalars * rows // self.size)
        first = 0 if self.span is None else self.span[0]
        bounds = [(start, min(start + at_once, rows)) for start in range(0, rows, at_once)]
        return [
            dataclasses.replace(
                self, eigenvalues_oi=self.eigenvalues_oi[start:stop], span=(first + start, first + stop)
            )
            for start, stop in bounds
        ]
