"""Second moments that K-FAC is made of, one class per kind of layer, summed batch by batch.

Each class is fed the input of its layer and the gradient of the summed loss by the layer's output. Only positions whose
next token carries loss count in the factors. Sums are in float32, or in float64 for float64 weights, whatever lower
precision the model runs in; they are all the state there is, and are normalised in place at the end.

Axes: B sequences, P positions, N loss-carrying positions, i inputs (and one more for a bias), o outputs, V vocabulary.
"""

import copy
from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from tikmix_pipeline.distributed.mesh import SINGLE_MESH
from tikmix_pipeline.influence.curvature.head import HeadBatch
from tikmix_pipeline.influence.curvature.layers import Layer
from tikmix_pipeline.influence.curvature.positions import Positions
from tikmix_pipeline.influence.curvature.sums import HERE, Home, Sums

Calls = Sequence[tuple[Tensor, Tensor]]
"""Input and output gradient of each call of a layer in one batch."""


class Moments(Sums):
    """The sums of one layer."""

    def add(self, calls: Calls, at: Positions) -> None:
        """Add a layer's calls in one batch, when their gradients have arrived."""

    def end_batch(self, head: HeadBatch | None, at: Positions) -> None:
        """Add what had to wait for the end of the backward pass."""

    def finish(self, tokens: int) -> dict[str, Tensor]:
        """Return the moments of `tokens` predictions by role; the sums are spent."""
        return {role: values.div_(tokens) for role, values in self.sums.items()}


class InputMoments(Sums):
    """A = E[a aᵀ] over all inputs of a linear layer, or of several that read the same."""

    def __init__(self, layer: Layer, home: Home = HERE) -> None:
        weight = layer.module.get_parameter("weight")
        width = weight.shape[0 if layer.layout.transposed else 1] + layer.has_bias
        super().__init__(home, weight, {"input": (width, width)}, {"input_rows": ()})
        self._layer = layer

    def add(self, inputs: Sequence[Tensor], at: Positions) -> None:
        """Add the inputs of one batch, one per call of the layer."""
        for inputs_BPi in inputs:
            rows_Ni = with_bias(at.rows(inputs_BPi, self._layer.name), self._layer)
            with self.adding("input") as total_ii, self.adding("input_rows") as rows:
                _add_gram(total_ii, rows_Ni)
                rows.add_(len(rows_Ni))

    def copy(self, layer: Layer) -> "InputMoments":
        """Return the same sums for another layer to go on with."""
        other = InputMoments(layer, self.home)
        for role, values in self.sums.items():
            other.sums[role].copy_(values)
        return other

    def finish(self) -> dict[str, Tensor]:
        """Return A."""
        if not self.sums:
            return {}
        return {"input": self.sums["input"].div_(self.sums["input_rows"].clamp(min=1))}


class LinearMoments(Moments):
    """G = E[g gᵀ] of a linear layer's pre-activation gradients; of a layer called twice per token, twice as large."""

    def __init__(self, layer: Layer, home: Home = HERE) -> None:
        weight = layer.module.get_parameter("weight")
        outputs = weight.shape[1 if layer.layout.transposed else 0]
        super().__init__(home, weight, {"output": (outputs, outputs)})
        self._layer = layer

    def add(self, calls: Calls, at: Positions) -> None:
        """Add a layer's calls in one batch."""
        with self.adding("output") as total_oo:
            for _, gradient_BPo in calls:
                _add_gram(total_oo, at.rows(gradient_BPo, self._layer.name))


class EmbeddingMoments(Moments):
    """Frequencies f of the input tokens, which are the diagonal of A, and G = E[g gᵀ] of the output gradients."""

    def __init__(self, layer: Layer, home: Home = HERE) -> None:
        weight_Vi = layer.module.get_parameter("weight")
        vocabulary, width = weight_Vi.shape
        super().__init__(home, weight_Vi, {"output": (width, width)}, {"count": (vocabulary,)})
        self._layer = layer

    def add(self, calls: Calls, at: Positions) -> None:
        """Add a layer's calls in one batch."""
        with self.adding("count") as count_V, self.adding("output") as total_ii:
            for ids_BP, gradient_BPi in calls:
                count_V.add_(torch.bincount(ids_BP[at.carries_BP], minlength=len(count_V)))
                _add_gram(total_ii, at.rows(gradient_BPi, self._layer.name))

    def finish(self, tokens: int) -> dict[str, Tensor]:
        """Return f and G of `tokens` predictions; the sums are spent."""
        if not self.sums:
            return {}
        count_V = self.sums["count"].to(self.sums["output"])
        return {"frequency": count_V / count_V.sum().clamp(min=1), "output": self.sums["output"].div_(tokens)}


class HeadMoments(Moments):
    """A = E[h hᵀ] of the output head's inputs and d, the diagonal of its G (see `head`)."""

    def __init__(self, layer: Layer, home: Home = HERE) -> None:
        weight_Vi = layer.module.get_parameter("weight")
        vocabulary, width = weight_Vi.shape
        width += layer.has_bias
        super().__init__(home, weight_Vi, {"variance": (vocabulary,), "input": (width, width)})
        self._layer = layer

    def end_batch(self, head: HeadBatch | None, at: Positions) -> None:
        """Add the batch."""
        if head is not None:
            with self.adding("input") as total_ii, self.adding("variance") as variance_V:
                _add_gram(total_ii, with_bias(head.inputs_Ni, self._layer))
                variance_V.add_(head.squares().sum(0).to(variance_V))


class ElementwiseMoments(Moments):
    """Diagonal Fisher of a layer that scales or shifts elementwise, such as a norm: `E[(Σ_p ∂ℓ_n/∂θ)²]`.

    The gradient of one whole sequence, u_b = Σ_p x̂_bp ∘ δ_bp for a norm's weight, is recomputed exactly from the
    layer's input and outgoing gradient. Sampled labels are independent and every score has mean zero, so all cross
    terms between tokens vanish in expectation, and Σ_b u_b² / N estimates the per-token Fisher without bias. With the
    labels of the text, it is the empirical Fisher of sequences, per token.
    """

    def __init__(
        self, layer: Layer, home: Home = HERE, whole: Callable[[Tensor], Tensor] = SINGLE_MESH.full_tensor
    ) -> None:
        """Take a layer, and what makes its parameters whole where they are spread."""
        parameters = dict(layer.module.named_parameters(recurse=False))
        super().__init__(
            home, next(iter(parameters.values())), {key: tuple(parameters[key].shape) for key in layer.parameters}
        )
        self._layer = layer
        # without the hooks that will feed this object
        self._module = copy.deepcopy(layer.module)
        self._weights = {name: whole(parameter.detach()).to(self.dtype) for name, parameter in parameters.items()}
        self._calls: list[tuple[Tensor, Tensor]] = []

    def add(self, calls: Calls, at: Positions) -> None:
        """Keep a layer's calls until the backward pass is over: a gradient is taken of each."""
        for pair in calls:
            self._calls.append(tuple(at.require_sequences(values, self._layer.name) for values in pair))  # type: ignore[arg-type]

    def end_batch(self, head: HeadBatch | None, at: Positions) -> None:
        """Square the gradients of the batch's sequences, summed over the calls of the layer."""

        def alignment(weights: Mapping[str, Tensor], inputs: Tensor, gradient: Tensor) -> Tensor:
            outputs: Tensor = torch.func.functional_call(self._module, dict(weights), (inputs,))
            return (outputs * gradient).sum()

        by_sequence = torch.func.vmap(torch.func.grad(alignment), in_dims=(None, 0, 0))
        per_call = [
            by_sequence(self._weights, inputs.to(self.dtype), gradient.to(self.dtype))
            for inputs, gradient in self._calls
        ]
        for name in self._layer.parameters if per_call else ():
            with self.adding(name) as total:
                gradient_B = torch.stack([call[name] for call in per_call]).sum(0)
                total.add_(gradient_B.square().sum(0))
        self._calls.clear()


def with_bias(values: Tensor, layer: Layer) -> Tensor:
    """Append a one to every row where the layer has a bias: the bias is its weight."""
    return F.pad(values, (0, 1), value=1.0) if layer.has_bias else values


def _add_gram(total_ii: Tensor, rows_Ni: Tensor) -> None:
    rows_Ni = rows_Ni.to(total_ii.dtype)
    total_ii += rows_Ni.T @ rows_Ni
