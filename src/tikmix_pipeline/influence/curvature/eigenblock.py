"""One block of C in its eigenbasis, functions f of its eigenvalues μ ≥ 0 at a scale λ > 0, and f(C) times gradients.

A block covers one weight matrix W_oi, with its bias as a last column where it has one, and has Kronecker eigenvectors:

    C = (Q_G ⊗ Q_A) diag(μ) (Q_G ⊗ Q_A)ᵀ,        f(C) X = Q_G ((Q_Gᵀ X Q_A) ∘ f(μ)) Q_Aᵀ.

A side on which C is already diagonal needs no eigenvectors; with neither side the block is a plain diagonal, of any
shape. f is taken in float64 each time and then cast to the precision of the gradients:

| `influence.inverse` | f(μ) | |
|---|---|---|
| damped | 1 / (μ + λ) | the inverse of C + λI |
| horizon | (1 − exp(−μ/λ)) / μ, and 1/λ at μ = 0 | gradient flow on the quadratic model for the time 1/λ |

Both are 1/λ where μ ≪ λ and 1/μ where μ ≫ λ, both fall with μ, and both tend to the plain gradient, λ·f → 1, as λ
grows; for λ → 0 either is the inverse. `horizon` says what a change of the data does to the weights within a finite
time: from the checkpoint, with the gradient of the mixture moved by δ, gradient flow moves the weights by −f(C) δ in
the time τ = 1/λ, and plain gradient descent has τ = Σ learning rates (Bae et al. 2024, 2405.12186, take the same
function).

λ per block is `influence.damping` in `influence.damping_unit`: times the block's mean eigenvalue (`relative`), as it is
(`absolute`), or over the time of the coming chunk (`horizon`). That time is the sum of its learning rates for gradient
descent. AdamW divides each step by √v̂ + ε, so where the checkpoint brings AdamW's state, the sum is divided by the mean
of √v̂ + ε over the block. The unit of μ is that of the per-token Fisher everywhere.

Axes: N gradients, o rows of the matrix (outputs of a layer), i columns (inputs, and the bias).
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.influence.curvature.layers import Layout
from tikmix_pipeline.parameters.measurement import DampingUnit, Inverse

Function = Callable[[Tensor, float], Tensor]

_SERIES_BELOW = 1e-8
"""Where 1 − x/2 equals (1 − e⁻ˣ)/x in float64."""


def damped(eigenvalues: Tensor, scale: float) -> Tensor:
    """Return 1/(μ + λ)."""
    return 1 / (eigenvalues + scale)


def horizon(eigenvalues: Tensor, scale: float) -> Tensor:
    """Return (1 − exp(−μ/λ))/μ, and its limit 1/λ at zero; accurate for every ratio of μ to λ."""
    ratio = eigenvalues / scale
    near_zero = ratio < _SERIES_BELOW
    away = torch.where(near_zero, 1.0, eigenvalues)
    return torch.where(near_zero, (1 - ratio / 2) / scale, -torch.expm1(-ratio) / away)


FUNCTIONS: dict[Inverse, Function] = {"damped": damped, "horizon": horizon}


@dataclasses.dataclass(frozen=True)
class DampingFunction:
    """The function f of the eigenvalues at one scale; without a function it is f = 1."""

    function: Function | None = None
    scale: float = 0.0
    """λ. Zero stands for a block without any curvature, by which λ is measured; f is then zero, not infinite."""

    def __call__(self, eigenvalues: Tensor) -> Tensor:
        """Return f(μ) in float64, in a tensor of its own."""
        eigenvalues = eigenvalues.double()
        if self.function is None:
            return torch.ones_like(eigenvalues)
        return torch.zeros_like(eigenvalues) if self.scale == 0 else self.function(eigenvalues, self.scale)


UNDAMPED = DampingFunction()


@dataclasses.dataclass(frozen=True)
class Damping:
    """How λ is found for each block; `horizon` is the sum of the learning rates of the coming chunk.

    A unit `horizon` without one raises a TikmixError.
    """

    damping: float
    unit: DampingUnit
    horizon: float | None

    def __post_init__(self) -> None:
        if self.unit == "horizon" and not self.horizon:
            raise TikmixError(
                "influence.damping_unit=horizon divides influence.damping by the sum of the learning rates of the "
                "coming chunk, and there is no chunk to come. Use influence.damping_unit=relative or absolute."
            )

    def scale(self, mean_eigenvalue: float, step_divisor: float = 1.0) -> float:
        """Return λ of a block with this mean eigenvalue, whose optimiser divides its steps by `step_divisor`."""
        if self.unit == "relative":
            return self.damping * mean_eigenvalue
        return self.damping * step_divisor / self.horizon if self.unit == "horizon" and self.horizon else self.damping


@dataclasses.dataclass(frozen=True)
class EigenBlock:
    """A layout, its eigenvalues μ, the eigenvectors (as columns) of the sides that have any, and f.

    `kind` says how the block is approximated, for the report. Of a piece, `span` is the slice [start, stop) along the
    first axis of its parameters that it covers.
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
        matrix_Noi = self.rotate(rows)
        dtype = matrix_Noi.dtype
        matrix_Noi = matrix_Noi * self.damping_function(self.eigenvalues_oi).to(dtype)
        if self.rows_oo is not None:
            matrix_Noi = self.rows_oo.to(dtype) @ matrix_Noi
        if self.columns_ii is not None:
            matrix_Noi = matrix_Noi @ self.columns_ii.to(dtype).T
        return self.layout.scatter(matrix_Noi)

    def rotate(self, rows: Mapping[str, Tensor]) -> Tensor:
        """Return each of N gradients in the basis of eigenvectors, (N, o, i), in their precision."""
        matrix_Noi = self.layout.gather(rows)
        if self.rows_oo is not None:
            matrix_Noi = self.rows_oo.to(matrix_Noi.dtype).T @ matrix_Noi
        if self.columns_ii is not None:
            matrix_Noi = matrix_Noi @ self.columns_ii.to(matrix_Noi.dtype)
        return matrix_Noi

    def flops(self, rows: int) -> float:
        """Return the operations of `precondition` for so many gradients, of which matrix products count."""
        dense = sum(len(side) for side in (self.rows_oo, self.columns_ii) if side is not None)
        return 4.0 * rows * self.size * dense

    @property
    def is_divisible(self) -> bool:
        """Whether the block can be cut along the first axis of its parameters, which C does not mix."""
        return self.rows_oo is None and self.eigenvalues_oi.ndim > 0

    def slice(self, start: int, stop: int) -> "EigenBlock":
        """Return rows `start` to `stop` of a whole block that is divisible, as a piece."""
        return dataclasses.replace(self, eigenvalues_oi=self.eigenvalues_oi[start:stop], span=(start, stop))

    def pieces(self, most_scalars: int) -> Sequence["EigenBlock"]:
        """Split the block along the first axis of its parameters into pieces of no more scalars, exactly.

        C does not mix rows where it has no eigenvectors for them, so f of a piece, at the λ of the block, is the piece
        of f. A block that does mix them cannot be split and is returned whole, and so is a single row.
        """
        if not self.is_divisible or self.size <= most_scalars:
            return [self]
        rows = len(self.eigenvalues_oi)
        at_once = max(1, most_scalars * rows // self.size)
        first = 0 if self.span is None else self.span[0]
        parts = zip(range(0, rows, at_once), torch.split(self.eigenvalues_oi, at_once), strict=True)
        return [
            dataclasses.replace(self, eigenvalues_oi=part, span=(first + start, first + start + len(part)))
            for start, part in parts
        ]
