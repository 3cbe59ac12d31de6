"""Second moments that K-FAC is made of, one class per kind of layer, summed batch by batch.

Each class is fed the input of its layer and the gradient of the summed loss by the layer's output. Only positions whose
next token carries loss count in the factors. Sums are in float32, or in float64 for float64 weights, whatever lower
precision the model runs in; they are all the state there is, and are normalised in place at the end.

Axes: B sequences, P positions, N loss-carrying positions, i inputs (and one more for a bias), o outputs, V vocabulary.
"""

import copy
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tikmix_pipeline.influence.curvature.head import HeadBatch
from tikmix_pipeline.influence.curvature.layers import Layer
from tikmix_pipeline.influence.curvature.positions import Positions
from tikmix_pipeline.influence.gradients import sum_dtype

Calls = Sequence[tuple[Tensor, Tensor]]
"""Input and output gradient of each call of a layer in one batch."""


class Moments:
    """Sums over batches.

    Attributes:
        sums: by role.
    """

    sums: dict[str, Tensor]

    def add(self, calls: Calls, at: Positions) -> None:
        """Add a layer's calls in one batch, when their gradients have arrived."""

    def end_batch(self, head: HeadBatch | None, at: Positions) -> None:
        """Add what had to wait for the end of the backward pass."""

    def finish(self, tokens: int) -> dict[str, Tensor]:
        """Return the moments of `tokens` predictions by role; the sums are spent."""
        return {role: values.div_(tokens) for role, values in self.sums.items()}


class InputMoments:
    """A = E[a aᵀ] over all inputs of a linear layer, or of several that read the same."""

    def __init__(self, layer: Layer) -> None:
        weight = layer.module.get_parameter("weight")
        width = weight.shape[0 if layer.layout.transposed else 1] + layer.has_bias
        self._layer = layer
        self.sums = {"input": _zeros(weight, width, width), "input_rows": _zeros(weight, dtype=torch.int64)}

    def add(self, inputs: Sequence[Tensor], at: Positions) -> None:
        """Add the inputs of one batch, one per call of the layer."""
        for inputs_BPi in inputs:
            rows_Ni = with_bias(at.rows(inputs_BPi, self._layer.name), self._layer).to(self.sums["input"].dtype)
            self.sums["input"] += rows_Ni.T @ rows_Ni
            self.sums["input_rows"] += len(rows_Ni)

    def copy(self, layer: Layer) -> "InputMoments":
        """Return the same sums for another layer to go on with."""
        other = InputMoments(layer)
        for role, values in self.sums.items():
            other.sums[role].copy_(values)
        return other

    def finish(self) -> Tensor:
        """Return A."""
        return self.sums["input"].div_(self.sums["input_rows"].clamp(min=1))


class LinearMoments(Moments):
    """G = E[g gᵀ] of a linear layer's pre-activation gradients; of a layer called twice per token, twice as large."""

    def __init__(self, layer: Layer) -> None:
        weight = layer.module.get_parameter("weight")
        outputs = weight.shape[1 if layer.layout.transposed else 0]
        self._layer = layer
        self.sums = {"output": _zeros(weight, outputs, outputs)}

    def add(self, calls: Calls, at: Positions) -> None:
        """Add a layer's calls in one batch."""
        for _, gradient_BPo in calls:
            _add_gram(self.sums["output"], at.rows(gradient_BPo, self._layer.name))


class EmbeddingMoments(Moments):
    """Frequencies f of the input tokens, which are the diagonal of A, and G = E[g gᵀ] of the output gradients."""

    def __init__(self, layer: Layer) -> None:
        weight_Vi = layer.module.get_parameter("weight")
        vocabulary, width = weight_Vi.shape
        self._layer = layer
        self.sums = {
            "count": _zeros(weight_Vi, vocabulary, dtype=torch.int64),
            "output": _zeros(weight_Vi, width, width),
        }

    def add(self, calls: Calls, at: Positions) -> None:
        """Add a layer's calls in one batch."""
        for ids_BP, gradient_BPi in calls:
            self.sums["count"] += torch.bincount(ids_BP[at.carries_BP], minlength=len(self.sums["count"]))
            _add_gram(self.sums["output"], at.rows(gradient_BPi, self._layer.name))

    def finish(self, tokens: int) -> dict[str, Tensor]:
        """Return f and G of `tokens` predictions; the sums are spent."""
        count_V = self.sums["count"].to(self.sums["output"])
        return {"frequency": count_V / count_V.sum().clamp(min=1), "output": self.sums["output"].div_(tokens)}


class HeadMoments(Moments):
    """A = E[h hᵀ] of the output head's inputs and d, the diagonal of its G (see `head`)."""

    def __init__(self, layer: Layer) -> None:
        weight_Vi = layer.module.get_parameter("weight")
        vocabulary, width = weight_Vi.shape
        width += layer.has_bias
        self._layer = layer
        self.sums = {"variance": _zeros(weight_Vi, vocabulary), "input": _zeros(weight_Vi, width, width)}

    def end_batch(self, head: HeadBatch | None, at: Positions) -> None:
        """Add the batch."""
        if head is not None:
            _add_gram(self.sums["input"], with_bias(head.inputs_Ni, self._layer))
            self.sums["variance"] += head.squares().sum(0).to(self.sums["variance"])


class ElementwiseMoments(Moments):
    """Diagonal Fisher of a layer that scales or shifts elementwise, such as a norm: `E[(Σ_p ∂ℓ_n/∂θ)²]`.

    The gradient of one whole sequence, u_b = Σ_p x̂_bp ∘ δ_bp for a norm's weight, is recomputed exactly from the
    layer's input and outgoing gradient. Sampled labels are independent and every score has mean zero, so all cross
    terms between tokens vanish in expectation, and Σ_b u_b² / N estimates the per-token Fisher without bias. With the
    labels of the text, it is the empirical Fisher of sequences, per token.
    """

    def __init__(self, layer: Layer) -> None:
        parameters = dict(layer.module.named_parameters(recurse=False))
        dtype = sum_dtype(next(iter(parameters.values())))
        self._layer = layer
        # without the hooks that will feed this object
        self._module = copy.deepcopy(layer.module).to(dtype)
        self._calls: list[tuple[Tensor, Tensor]] = []
        self.sums = {key: torch.zeros_like(parameters[key], dtype=dtype) for key in layer.parameters}

    def add(self, calls: Calls, at: Positions) -> None:
        """Keep a layer's calls until the backward pass is over: a gradient is taken of each."""
        for pair in calls:
            self._calls.append(tuple(at.require_sequences(values, self._layer.name) for values in pair))  # type: ignore[arg-type]

    def end_batch(self, head: HeadBatch | None, at: Positions) -> None:
        """Square the gradients of the batch's sequences, summed over the calls of the layer."""
        weights = {name: parameter.detach() for name, parameter in self._module.named_parameters(recurse=False)}
        dtype = next(iter(weights.values())).dtype

        def alignment(weights: Mapping[str, Tensor], inputs: Tensor, gradient: Tensor) -> Tensor:
            outputs: Tensor = torch.func.functional_call(self._module, dict(weights), (inputs,))
            return (outputs * gradient).sum()

        by_sequence = torch.func.vmap(torch.func.grad(alignment), in_dims=(None, 0, 0))
        per_call = [by_sequence(weights, inputs.to(dtype), gradient.to(dtype)) for inputs, gradient in self._calls]
        for name in self.sums if per_call else ():
            gradient_B = torch.stack([call[name] for call in per_call]).sum(0)
            self.sums[name] += gradient_B.square().sum(0)
        self._calls.clear()


def with_bias(values: Tensor, layer: Layer) -> Tensor:
    """Append a one to every row where the layer has a bias: the bias is its weight."""
    return F.pad(values, (0, 1), value=1.0) if layer.has_bias else values


def _zeros(weight: nn.Parameter, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
    return torch.zeros(shape, dtype=dtype or sum_dtype(weight), device=weight.device)


def _add_gram(total_ii: Tensor, rows_Ni: Tensor) -> None:
    rows_Ni = rows_Ni.to(total_ii.dtype)
    total_ii += rows_Ni.T @ rows_Ni
