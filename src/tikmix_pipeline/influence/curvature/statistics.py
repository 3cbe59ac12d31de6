"""Second moments that K-FAC is made of, one class per kind of layer, summed batch by batch.

Each class is fed the input of its layer and the gradient of the summed loss, with labels sampled from the model, by
the layer's output. Only positions whose next token carries loss count. The sums are in the precision of the weights
and are normalised at the end.

Axes: B sequences, P positions, N loss-carrying positions, i inputs (and one more for a bias), o outputs, V vocabulary.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tikmix_pipeline.corpus.batches import TokenBatch
from tikmix_pipeline.errors import TikmixError


@dataclass(frozen=True)
class Positions:
    """Which positions of a batch predict a loss-carrying token.

    Attributes:
        carries_BP: True at those positions.
        everywhere: all are; rows then need no copy.
    """

    carries_BP: Tensor
    everywhere: bool

    @classmethod
    def of(cls, batch: TokenBatch, device: torch.device) -> "Positions":
        """Shift the batch's mask: the input at position s - 1 predicts token s."""
        carries_BP = batch.loss_BS[:, 1:]
        return cls(torch.from_numpy(carries_BP).to(device), bool(carries_BP.all()))

    def rows(self, values_BPi: Tensor, layer: str) -> Tensor:
        """Return the values of a layer at these positions, (N, i).

        Raises:
            TikmixError: the values are not laid out by sequence and position, as behind a router of experts.
        """
        if values_BPi.ndim != 3 or values_BPi.shape[:2] != self.carries_BP.shape:
            raise TikmixError(
                f"influence.curvature=kfac cannot tell the positions in layer {layer}, which works on "
                f"{tuple(values_BPi.shape)} for {tuple(self.carries_BP.shape)} sequences and positions. "
                "Use influence.curvature=adam or identity."
            )
        return values_BPi.flatten(0, 1) if self.everywhere else values_BPi[self.carries_BP]


class LinearMoments:
    """A = E[a aᵀ] of a linear layer's inputs and G = E[g gᵀ] of its pre-activation gradients."""

    def __init__(self, layer: str, weight_oi: Tensor, *, bias: bool) -> None:
        outputs, inputs = weight_oi.shape
        self._layer = layer
        self._bias = bias
        self._input_ii = weight_oi.new_zeros(inputs + bias, inputs + bias)
        self._gradient_oo = weight_oi.new_zeros(outputs, outputs)
        self._rows = 0

    def add(self, inputs_BPi: Tensor, gradient_BPo: Tensor, at: Positions) -> None:
        """Add one call of the layer."""
        gradient_No = at.rows(gradient_BPo, self._layer)
        self._rows += len(gradient_No)
        self._input_ii += _gram(at.rows(inputs_BPi, self._layer), bias=self._bias)
        self._gradient_oo += _gram(gradient_No)

    def factors(self, tokens: int) -> tuple[Tensor, Tensor]:
        """Return `(G, A)` of `tokens` predictions; a layer called twice per token has a G twice as large."""
        return self._gradient_oo / tokens, self._input_ii / max(self._rows, 1)


class EmbeddingMoments:
    """Frequencies f of the input tokens, which are the diagonal of A, and G = E[g gᵀ] of the output gradients."""

    def __init__(self, layer: str, weight_Vi: Tensor) -> None:
        vocabulary, width = weight_Vi.shape
        self._layer = layer
        self._count_V = torch.zeros(vocabulary, dtype=torch.int64, device=weight_Vi.device)
        self._gradient_ii = weight_Vi.new_zeros(width, width)

    def add(self, ids_BP: Tensor, gradient_BPi: Tensor, at: Positions) -> None:
        """Add one call of the layer."""
        self._count_V += torch.bincount(ids_BP[at.carries_BP], minlength=len(self._count_V))
        self._gradient_ii += _gram(at.rows(gradient_BPi, self._layer))

    def factors(self, tokens: int) -> tuple[Tensor, Tensor]:
        """Return `(f, G)` of `tokens` predictions."""
        count_V = self._count_V.to(self._gradient_ii)
        return count_V / count_V.sum().clamp(min=1), self._gradient_ii / tokens


class HeadMoments:
    """A = E[h hᵀ] of the output head's inputs and d = E[p ∘ (1 − p)], the diagonal of its G over all labels."""

    def __init__(self, layer: str, weight_Vi: Tensor, *, bias: bool) -> None:
        vocabulary, width = weight_Vi.shape
        self._layer = layer
        self._bias = bias
        self._variance_V = weight_Vi.new_zeros(vocabulary)
        self._input_ii = weight_Vi.new_zeros(width + bias, width + bias)

    def add(self, inputs_BPi: Tensor, slope_NV: Tensor, probability_NV: Tensor, at: Positions) -> None:
        """Add one batch.

        Args:
            inputs_BPi: final hidden states.
            slope_NV: derivative of the logits by the head's output, one unless the model scales or caps its logits.
            probability_NV: predicted distributions.
            at: the positions of the N rows.
        """
        self._input_ii += _gram(at.rows(inputs_BPi, self._layer), bias=self._bias)
        self._variance_V += (slope_NV.square() * probability_NV * (1 - probability_NV)).sum(0).to(self._variance_V)

    def factors(self, tokens: int) -> tuple[Tensor, Tensor]:
        """Return `(d, A)` of `tokens` predictions."""
        return self._variance_V / tokens, self._input_ii / tokens


class ElementwiseMoments:
    """Diagonal Fisher of a layer that scales or shifts elementwise, such as a norm: `E[(Σ_p ∂ℓ_n/∂θ)²]`.

    The gradient of one whole sequence, u_b = Σ_p x̂_bp ∘ δ_bp for a norm's weight, is recomputed exactly from the
    layer's input and outgoing gradient. Labels are sampled independently and every score has mean zero, so all cross
    terms between tokens vanish in expectation, and Σ_b u_b² / N estimates the per-token Fisher without bias.
    """

    def __init__(self, layer: str, module: nn.Module) -> None:
        self._layer = layer
        self._module = copy.deepcopy(module)  # without the hooks that will feed this object
        self._calls: list[tuple[Tensor, Tensor]] = []
        self._squares = {name: torch.zeros_like(p) for name, p in module.named_parameters(recurse=False)}

    def add(self, inputs: Tensor, gradient: Tensor, at: Positions) -> None:
        """Keep one call of the layer until the backward pass is over."""
        sequences = len(at.carries_BP)
        if len(inputs) != sequences or len(gradient) != sequences:
            raise TikmixError(
                f"influence.curvature=kfac cannot tell the sequences in layer {self._layer}, which works on "
                f"{tuple(inputs.shape)} for {sequences} sequences. Use influence.curvature=adam or identity."
            )
        self._calls.append((inputs, gradient))

    def end_batch(self) -> None:
        """Square the gradients of the batch's sequences, summed over the calls of the layer."""
        weights = {name: parameter.detach() for name, parameter in self._module.named_parameters(recurse=False)}

        def alignment(weights: Mapping[str, Tensor], inputs: Tensor, gradient: Tensor) -> Tensor:
            outputs: Tensor = torch.func.functional_call(self._module, dict(weights), (inputs,))
            return (outputs * gradient).sum()

        by_sequence = torch.func.vmap(torch.func.grad(alignment), in_dims=(None, 0, 0))
        per_call = [by_sequence(weights, inputs, gradient) for inputs, gradient in self._calls]
        for name in self._squares if per_call else ():
            gradient_B = torch.stack([call[name] for call in per_call]).sum(0)
            self._squares[name] += gradient_B.square().sum(0)
        self._calls.clear()

    def factors(self, tokens: int) -> dict[str, Tensor]:
        """Return the diagonal of `tokens` predictions, by the parameter's name in its module."""
        return {name: squares / tokens for name, squares in self._squares.items()}


def _gram(rows_Ni: Tensor, *, bias: bool = False) -> Tensor:
    if bias:
        rows_Ni = torch.cat([rows_Ni, rows_Ni.new_ones(len(rows_Ni), 1)], dim=1)
    return rows_Ni.T @ rows_Ni
