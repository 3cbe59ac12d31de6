"""Functions f of the eigenvalues μ ≥ 0 of C, and the scale λ > 0 they are taken at.

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
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tikmix_pipeline.errors import TikmixError
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


@dataclass(frozen=True)
class DampingFunction:
    """The function f of the eigenvalues at one scale; without a function it is f = 1.

    Attributes:
        function: one of `FUNCTIONS`.
        scale: λ. Zero stands for a block that has no curvature at all, by which λ is measured; f is then zero, not
            infinite.
    """

    function: Function | None = None
    scale: float = 0.0

    def __call__(self, eigenvalues: Tensor) -> Tensor:
        """Return f(μ) in float64, in a tensor of its own."""
        eigenvalues = eigenvalues.double()
        if self.function is None:
            return torch.ones_like(eigenvalues)
        return torch.zeros_like(eigenvalues) if self.scale == 0 else self.function(eigenvalues, self.scale)


UNDAMPED = DampingFunction()


@dataclass(frozen=True)
class Damping:
    """How λ is found for each block.

    Attributes:
        damping: `influence.damping`.
        unit: `influence.damping_unit`.
        horizon: sum of the learning rates of the coming chunk.

    Raises:
        TikmixError: the unit is `horizon`, and there is none.
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
