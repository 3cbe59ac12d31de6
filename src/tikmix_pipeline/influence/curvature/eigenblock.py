"""Block-diagonal curvatures, each block in its eigenbasis.

A block covers one weight matrix W_oi, with its bias as a last column where it has one, and has Kronecker eigenvectors:

    C = (Q_G ⊗ Q_A) diag(μ) (Q_G ⊗ Q_A)ᵀ,        f(C) X = Q_G ((Q_Gᵀ X Q_A) ∘ f(μ)) Q_Aᵀ.

A side on which C is already diagonal needs no eigenvectors; with neither side the block is a plain diagonal, of any
shape. Everything that is done with C is a function of its eigenvalues; here f(μ) = 1/(μ + λ) with

    λ = damping · mean(μ)     for each block by itself.

Axes: o rows of the matrix (outputs of a layer), i columns (inputs, and the bias).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.influence.curvature.report import BlockReport, CurvatureReport
from tikmix_pipeline.influence.gradients import Gradient


@dataclass(frozen=True)
class Layout:
    """Where the matrix of a block lies in a gradient.

    Attributes:
        weight: name of the weight.
        bias: name of the bias that makes the last column, if any.
        transposed: the weight is stored as (inputs, outputs).
    """

    weight: str
    bias: str | None = None
    transposed: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters in the block."""
        return (self.weight,) if self.bias is None else (self.weight, self.bias)

    def gather(self, gradient: Gradient) -> Tensor:
        """Return the block of a gradient as a matrix."""
        matrix_oi = gradient[self.weight].T if self.transposed else gradient[self.weight]
        return matrix_oi if self.bias is None else torch.cat([matrix_oi, gradient[self.bias][:, None]], dim=1)

    def scatter(self, matrix_oi: Tensor) -> Gradient:
        """Undo `gather`."""
        weight_oi = matrix_oi if self.bias is None else matrix_oi[:, :-1]
        parts = {self.weight: weight_oi.T if self.transposed else weight_oi}
        return parts if self.bias is None else parts | {self.bias: matrix_oi[:, -1]}


@dataclass(frozen=True)
class EigenBlock:
    """One block of C: a layout, its eigenvalues and the eigenvectors of the sides that have any.

    Attributes:
        layout: which parameters, and how they form a matrix.
        kind: how the block is approximated, for the report.
        eigenvalues_oi: μ, non-negative, never changed after construction.
        rows_oo: eigenvectors of the output side as columns; None where C is diagonal there.
        columns_ii: eigenvectors of the input side as columns; None where C is diagonal there.
    """

    layout: Layout
    kind: str
    eigenvalues_oi: Tensor
    rows_oo: Tensor | None = None
    columns_ii: Tensor | None = None

    def apply(self, gradient: Gradient, function: Callable[[Tensor], Tensor]) -> Gradient:
        """Return f(C) times the block of `gradient`, for an elementwise `function` f of the eigenvalues."""
        matrix_oi = self.layout.gather(gradient)
        if self.rows_oo is not None:
            matrix_oi = self.rows_oo.T @ matrix_oi
        if self.columns_ii is not None:
            matrix_oi = matrix_oi @ self.columns_ii
        matrix_oi = matrix_oi * function(self.eigenvalues_oi)
        if self.rows_oo is not None:
            matrix_oi = self.rows_oo @ matrix_oi
        if self.columns_ii is not None:
            matrix_oi = matrix_oi @ self.columns_ii.T
        return self.layout.scatter(matrix_oi)


def eigenbasis(moment: Tensor, of: str) -> tuple[Tensor, Tensor]:
    """Decompose a second moment in float64; rounding that makes eigenvalues negative is clamped.

    Returns:
        Eigenvalues, ascending, and eigenvectors as columns, both float64.

    Raises:
        TikmixError: the moment of layer `of` is not finite.
    """
    if not moment.isfinite().all():
        raise TikmixError(
            f"The curvature of {of} is not finite. The checkpoint has diverged, or its weights are in a precision too "
            "low to measure at: load it in float32."
        )
    eigenvalues, eigenvectors = torch.linalg.eigh(moment.double())
    return eigenvalues.clamp(min=0), eigenvectors


def damped_inverse(eigenvalues: Tensor, damping: float) -> Tensor:
    """Return 1/(μ + λ); zero where a block has no curvature at all and its λ is therefore zero."""
    if damping == 0:
        return torch.zeros_like(eigenvalues)
    return 1 / (eigenvalues + damping)


class BlockDiagonalCurvature:
    """A curvature made of eigen-blocks, each damped by a multiple of its own mean eigenvalue."""

    def __init__(self, name: str, blocks: Sequence[EigenBlock], *, damping: float) -> None:
        means = [block.eigenvalues_oi.double().mean().item() for block in blocks]
        self.blocks = tuple(blocks)
        self.dampings = tuple(damping * mean for mean in means)
        reports = [
            BlockReport(block.layout.names, block.kind, block.eigenvalues_oi.numel(), mean, damping * mean)
            for block, mean in zip(blocks, means, strict=True)
        ]
        self.report = CurvatureReport(name, tuple(reports))

    def precondition(self, gradient: Gradient) -> Gradient:
        """Return `(C + λI)⁻¹ gradient`; a block without any curvature gives zero."""
        result: Gradient = {}
        for block, damping in zip(self.blocks, self.dampings, strict=True):
            result |= block.apply(gradient, partial(damped_inverse, damping=damping))
        return {name: result[name] for name in gradient}
