"""K-FAC: the per-token Fisher, in Kronecker-factored blocks.

    F = (1/N) Σ_n E_{y ~ p(·|context_n)} [∇ log p(y) ∇ log p(y)ᵀ]

over the N loss-carrying tokens of the fit, which is the Gauss-Newton matrix of the *mean* loss per token: the same unit
as the mean gradients. Labels are sampled from the model's own predictions with a seed (`fisher=true`), or are those of
the text (`fisher=empirical`, another object). The block of each layer:

| layer | block | |
|---|---|---|
| linear, W_oi | G ⊗ A | A = E[a aᵀ] of inputs (and a 1 for the bias), G = E[g gᵀ] of pre-activation gradients |
| embedding, W_vi | diag(f) ⊗ G | f = frequency of the input token: a one-hot input makes A diagonal |
| output head, W_vi | diag(d) ⊗ A | d = E[p ∘ (1 − p)], exact over labels; the off-diagonal E[−p_u p_v] is left out |
| tied embedding and head, W_vi | diag(c) ⊗ B | the Kronecker product nearest to the sum of the two above |
| elementwise (norms) | diagonal | exact gradient of each sequence, squared: see `fisher_pass.ElementwiseMoments` |

Expectations are over positions whose next token carries loss; products of gradients at different positions are left
out (the expand setting of Eschenhagen et al. 2023). A vocabulary costs V here, never V². Empirically, d = E[(p − y)²]
with y the one-hot label of the text.

Layers that read the very same tensor (queries, keys and values; gate and up) have the same A. It is summed, decomposed
and stored once; should they ever read different tensors, each goes on with a copy of its own.

Cost: a forward pass, a backward pass without weight gradients, and one product of size N·n² per factor. Memory: the n²
factors; sums are in float32, or float64 for float64 weights.
References: Martens and Grosse 2015 (1503.05671); Grosse et al. 2023 (2308.03296) for its use in influence.

Axes: B sequences, P positions, N loss-carrying positions, i inputs (and one more for a bias), o outputs, V vocabulary.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from tikmix_pipeline.distributed.mesh import SINGLE_MESH, Mesh
from tikmix_pipeline.influence.curvature.factors import LayerFactors
from tikmix_pipeline.influence.curvature.fisher_pass import (
    HERE,
    Calls,
    ElementwiseMoments,
    Home,
    Moments,
    Pass,
    Sums,
    homes_of,
    with_bias,
)
from tikmix_pipeline.influence.curvature.head import HeadBatch
from tikmix_pipeline.influence.curvature.hooks import Call, Positions
from tikmix_pipeline.influence.curvature.layers import Layer, Layout
from tikmix_pipeline.parameters.measurement import Group


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


def _add_gram(total_ii: Tensor, rows_Ni: Tensor) -> None:
    rows_Ni = rows_Ni.to(total_ii.dtype)
    total_ii += rows_Ni.T @ rows_Ni


_OF_KIND: dict[Group, type[LinearMoments | EmbeddingMoments | HeadMoments]] = {
    "linear": LinearMoments,
    "embedding": EmbeddingMoments,
    "head": HeadMoments,
}


class KfacPass(Pass):
    """The second moments of all layers."""

    def __init__(self, layers: Sequence[Layer], mesh: Mesh = SINGLE_MESH) -> None:
        """Take the layers, and who fits."""
        homes = homes_of([_sides(layer)[0] ** 2 for layer in layers], mesh.world)
        moments: dict[str, Moments] = {
            layer.name: ElementwiseMoments(layer, home, mesh.full_tensor)
            if layer.kind == "elementwise"
            else _OF_KIND[layer.kind](layer, home)
            for layer, home in zip(layers, homes, strict=True)
        }
        super().__init__(layers, moments)
        self._process_group = mesh.world
        self._linear = [layer.name for layer in layers if layer.kind == "linear"]
        self._inputs: dict[str, InputMoments] = {}
        self._leader_of: dict[str, str] = {}

    def end_forward(self, calls: Mapping[str, Sequence[Call]], at: Positions) -> None:
        """Add the inputs of all linear layers, once for those that share them."""
        read = {name: [call.inputs for call in calls.get(name, ())] for name in self._linear}
        if not self._leader_of:
            self._set_leaders(_leaders(read, self.layers))
        for name, leader in list(self._leader_of.items()):
            if name != leader and _what(read[name]) != _what(read[leader]):
                self._inputs[name] = self._inputs[leader].copy(self.layers[name])
                self._leader_of[name] = name
        for leader, moments in self._inputs.items():
            moments.add(read[leader], at)

    def sums(self) -> dict[str, Tensor]:
        """Return all sums by name, themselves and not copies."""
        inputs = {f"{name}/{role}": t for name, moments in self._inputs.items() for role, t in moments.sums.items()}
        return super().sums() | inputs

    def notes(self) -> dict[str, Any]:
        """Return what `prepare` needs to know beside the sums."""
        return {"leader_of": self._leader_of}

    def prepare(self, notes: Mapping[str, Any]) -> None:
        """Make room for the sums that were saved with these notes."""
        self._set_leaders(notes["leader_of"])

    def finish(self, tokens: int) -> dict[str, Tensor]:
        """Return the moments of `tokens` predictions by name; the sums are spent."""
        inputs = {f"{name}/{role}": t for name, moments in self._inputs.items() for role, t in moments.finish().items()}
        return super().finish(tokens) | inputs

    def factors(self) -> list[LayerFactors]:
        """Say which of the moments each block is made of."""
        return [factors for layer in self.layers.values() for factors in self._factors(layer)]

    def _factors(self, layer: Layer) -> Iterator[LayerFactors]:
        name = layer.name
        if layer.kind == "elementwise":
            for key, parameter in layer.parameters.items():
                tensors = {"eigenvalues": f"{name}/{key}"}
                yield LayerFactors(name, layer.group, "diagonal", Layout(parameter), tensors)
        elif layer.kind == "linear":
            tensors = {"output": f"{name}/output", "input": f"{self._leader_of[name]}/input"}
            yield LayerFactors(name, layer.group, "kronecker", layer.layout, tensors)
        elif layer.kind == "embedding":
            tensors = {"frequency": f"{name}/frequency", "output": f"{name}/output"}
            if layer.tied:
                (head,) = [name for name, other in self.layers.items() if other.kind == "head"]
                tensors |= {"variance": f"{head}/variance", "input": f"{head}/input"}
            kind = "tied embedding and head" if layer.tied else "embedding"
            yield LayerFactors(name, layer.group, kind, layer.layout, tensors)
        elif not layer.tied:
            tensors = {"variance": f"{name}/variance", "input": f"{name}/input"}
            yield LayerFactors(name, layer.group, "head", layer.layout, tensors)

    def _set_leaders(self, leader_of: Mapping[str, str]) -> None:
        self._leader_of = dict(leader_of)
        leaders = [self.layers[leader] for leader in dict.fromkeys(leader_of.values())]
        homes = homes_of([_sides(leader)[1] ** 2 for leader in leaders], self._process_group)
        self._inputs = {leader.name: InputMoments(leader, home) for leader, home in zip(leaders, homes, strict=True)}


def _sides(layer: Layer) -> tuple[int, int]:
    """Return the rows of the dense moments on a layer's output and input side; there is one where tokens are a side."""
    if layer.kind == "elementwise":
        return 1, 1
    outputs, inputs = layer.module.get_parameter("weight").shape
    if layer.kind != "linear":
        return inputs, inputs
    return (inputs, outputs) if layer.layout.transposed else (outputs, inputs)


def _leaders(read: Mapping[str, Sequence[Tensor]], layers: Mapping[str, Layer]) -> dict[str, str]:
    """Name, for every layer, the first one that read the very same and has a bias like it."""
    first: dict[object, str] = {}
    return {name: first.setdefault((_what(read[name]), layers[name].has_bias), name) for name in read}


def _what(read: Sequence[Tensor]) -> object:
    """Identify what a layer read by its memory, which the calls keep alive; of several calls by those calls alone."""
    if len(read) != 1:
        return id(read)
    (values,) = read
    return values.data_ptr(), values.shape, values.stride()
