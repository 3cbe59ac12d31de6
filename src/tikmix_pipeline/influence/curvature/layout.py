"""Where the matrix of a block lies in a gradient.

Axes: N gradients, o rows of the matrix (outputs of a layer), i columns (inputs, and the bias).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """A weight and the bias that makes its last column, or one parameter of any shape.

    Attributes:
        weight: name of the weight.
        bias: name of the bias, if any.
        transposed: the weight is stored as (inputs, outputs).
    """

    weight: str
    bias: str | None = None
    transposed: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters in the block."""
        return (self.weight,) if self.bias is None else (self.weight, self.bias)

    def gather(self, rows: Mapping[str, Tensor]) -> Tensor:
        """Return the block of N gradients as N matrices, (N, o, i)."""
        matrix_Noi = rows[self.weight].mT if self.transposed else rows[self.weight]
        return matrix_Noi if self.bias is None else torch.cat([matrix_Noi, rows[self.bias][..., None]], dim=-1)

    def scatter(self, matrix_Noi: Tensor) -> dict[str, Tensor]:
        """Undo `gather`."""
        weight_Noi = matrix_Noi if self.bias is None else matrix_Noi[..., :-1]
        parts = {self.weight: weight_Noi.mT if self.transposed else weight_Noi}
        return parts if self.bias is None else parts | {self.bias: matrix_Noi[..., -1]}
