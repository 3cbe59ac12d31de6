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
| elementwise (norms) | diagonal | exact gradient of each sequence, squared: see `fisher_pass.ElementwiseDiagonal` |

Expectations are over positions whose next token carries loss; products of gradients at different positions are left
out (the expand setting of Eschenhagen et al. 2023). A vocabulary costs V here, never V². Empirically, d = E[(p − y)²]
with y the one-hot label of the text.

Layers that read the very same tensor (queries, keys and values; gate and up) have the same A. It is summed, decomposed
and stored once; should they ever read different tensors, each goes on with a copy of its own.

Cost: a forward pass, a backward pass without weight gradients, and about half a product of size N·n² per factor, whose
upper triangle is the lower one. Memory: the n² factors; sums are in float32, or float64 for float64 weights.
References: Martens and Grosse 2015 (1503.05671); Grosse et al. 2023 (2308.03296) for its use in influence.

Axes: B sequences, P positions, N loss-carrying positions, i inputs (and one more for a bias), o outputs, V vocabulary.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from tikmix_pipeline.distributed.mesh import Mesh
from tikmix_pipeline.influence.curvature.factors import LayerFactors
from tikmix_pipeline.influence.curvature.fisher_pass import (
    ElementwiseDiagonal,
    FisherPass,
    LayerSums,
    OwnerRank,
    owners_of,
    with_bias,
)
from tikmix_pipeline.influence.curvature.head_batch import HeadBatch
from tikmix_pipeline.influence.curvature.hooks import Call, Calls, Positions
from tikmix_pipeline.influence.curvature.layers import Layer, Layout

_STRIP_ROWS, _MOST_STRIPS = 96, 8
"""Least rows of a strip of a symmetric product, and most strips: (k + 1)/2k of the work is left of k strips."""


class ActivationCovariance(LayerSums):
    """A = E[a aᵀ] over all inputs of a linear layer, or of several that read the same."""

    def __init__(self, layer: Layer, owner: OwnerRank) -> None:
        _, inputs = layer.matrix_shape
        super().__init__(layer, owner, {"input": (inputs, inputs)}, {"input_rows": ()})

    def add_inputs(self, inputs: Sequence[Tensor], at: Positions) -> None:
        """Add the inputs of one batch, one per call of the layer."""
        for inputs_BPi in inputs:
            rows_Ni = with_bias(at.rows(inputs_BPi, self.layer.name), self.layer)
            with self.adding("input") as total_ii, self.adding("input_rows") as rows:
                _add_gram(total_ii, rows_Ni)
                rows.add_(len(rows_Ni))

    def copy(self, layer: Layer) -> "ActivationCovariance":
        """Return the same sums for another layer to go on with."""
        other = ActivationCovariance(layer, self.owner)
        for role, values in self.sums.items():
            other.sums[role].copy_(values)
        return other

    def finish(self, tokens: int) -> dict[str, Tensor]:
        """Return A, the mean over the rows that were read."""
        if not self.sums:
            return {}
        return {"input": _mirrored(self.sums["input"].div_(self.sums["input_rows"].clamp(min=1)))}


class OutputGradientCovariance(LayerSums):
    """G = E[g gᵀ] of a linear layer's pre-activation gradients; of a layer called twice per token, twice as large."""

    def __init__(self, layer: Layer, owner: OwnerRank) -> None:
        outputs, _ = layer.matrix_shape
        super().__init__(layer, owner, {"output": (outputs, outputs)})

    def add(self, calls: Calls, at: Positions) -> None:
        """Add the layer's calls in one batch."""
        with self.adding("output") as total_oo:
            for _, gradient_BPo in calls:
                _add_gram(total_oo, at.rows(gradient_BPo, self.layer.name))

    def finish(self, tokens: int) -> dict[str, Tensor]:
        """Return G over `tokens` predictions; the sums are spent."""
        return {role: _mirrored(values) for role, values in super().finish(tokens).items()}


class EmbeddingFactors(LayerSums):
    """Frequencies f of the input tokens, which are the diagonal of A, and G = E[g gᵀ] of the output gradients."""

    def __init__(self, layer: Layer, owner: OwnerRank) -> None:
        vocabulary, width = layer.matrix_shape
        super().__init__(layer, owner, {"output": (width, width)}, {"count": (vocabulary,)})

    def add(self, calls: Calls, at: Positions) -> None:
        """Add the layer's calls in one batch."""
        with self.adding("count") as count_V, self.adding("output") as total_ii:
            for ids_BP, gradient_BPi in calls:
                count_V.add_(torch.bincount(ids_BP[at.carries_BP], minlength=len(count_V)))
                _add_gram(total_ii, at.rows(gradient_BPi, self.layer.name))

    def finish(self, tokens: int) -> dict[str, Tensor]:
        """Return f and G over `tokens` predictions; the sums are spent."""
        if not self.sums:
            return {}
        count_V = self.sums["count"].to(self.sums["output"])
        output_ii = _mirrored(self.sums["output"].div_(tokens))
        return {"frequency": count_V / count_V.sum().clamp(min=1), "output": output_ii}


class HeadFactors(LayerSums):
    """A = E[h hᵀ] of the output head's inputs and d, the diagonal of its G (see `head_batch`)."""

    def __init__(self, layer: Layer, owner: OwnerRank) -> None:
        vocabulary, width = layer.matrix_shape
        super().__init__(layer, owner, {"variance": (vocabulary,), "input": (width, width)})

    def end_batch(self, head: HeadBatch | None, at: Positions) -> None:
        """Add the batch."""
        if head is not None:
            with self.adding("input") as total_ii, self.adding("variance") as variance_V:
                for _, rows in head.of_sequences(at.counts_B):
                    _add_gram(total_ii, with_bias(rows.inputs_ni, self.layer))
                    variance_V.add_(rows.squares().sum(0).to(variance_V))

    def finish(self, tokens: int) -> dict[str, Tensor]:
        """Return A and d over `tokens` predictions; the sums are spent."""
        found = super().finish(tokens)
        return found | {role: _mirrored(found[role]) for role in ("input",) if role in found}


def _add_gram(total_ii: Tensor, rows_Ni: Tensor) -> None:
    """Add the lower triangle of rowsᵀ rows, and of a strip of rows at a time what stands right of it."""
    rows_Ni = rows_Ni.to(total_ii.dtype)
    for start, stop in _strips(len(total_ii)):
        total_ii[start:stop, :stop].addmm_(rows_Ni[:, start:stop].T, rows_Ni[:, :stop])


def _strips(size: int) -> Iterator[tuple[int, int]]:
    """Cut the rows of a symmetric matrix into strips that a product is still fast for."""
    strips = max(1, min(_MOST_STRIPS, size // _STRIP_ROWS))
    return pairwise(size * strip // strips for strip in range(strips + 1))


def _mirrored(total_ii: Tensor) -> Tensor:
    """Return the symmetric matrix with this lower triangle, in place."""
    for start, stop in _strips(len(total_ii)):
        total_ii[:start, start:stop] = total_ii[start:stop, :start].T
    return total_ii


class KfacPass(FisherPass):
    """The Kronecker factors of all layers."""

    def __init__(self, layers: Sequence[Layer], mesh: Mesh) -> None:
        layer_sums: dict[str, LayerSums] = {}
        for layer, owner in zip(layers, owners_of(list(map(_dense_size, layers)), mesh.world), strict=True):
            if layer.kind == "elementwise":
                layer_sums[layer.name] = ElementwiseDiagonal(layer, owner, mesh.full_tensor)
            elif layer.kind == "linear":
                layer_sums[layer.name] = OutputGradientCovariance(layer, owner)
            else:
                layer_sums[layer.name] = (EmbeddingFactors if layer.kind == "embedding" else HeadFactors)(layer, owner)
        super().__init__(layers, layer_sums)
        self._process_group = mesh.world
        self._inputs: dict[str, ActivationCovariance] = {}
        self._source_of: dict[str, str] = {}
        """For every linear layer, the one whose activation covariance is its own too."""

    def end_forward(self, calls: Mapping[str, Sequence[Call]], at: Positions) -> None:
        """Add the inputs of all linear layers, once for those that share them."""
        linear = [name for name, layer in self.layers.items() if layer.kind == "linear"]
        read = {name: [call.inputs for call in calls.get(name, ())] for name in linear}
        if not self._source_of:
            first: dict[object, str] = {}
            self._set_sources(
                {name: first.setdefault((_identity(read[name]), self.layers[name].has_bias), name) for name in linear}
            )
        for name, source in list(self._source_of.items()):
            if name != source and _identity(read[name]) != _identity(read[source]):
                self._inputs[name] = self._inputs[source].copy(self.layers[name])
                self._source_of[name] = name
        for source, covariance in self._inputs.items():
            covariance.add_inputs(read[source], at)

    def notes(self) -> dict[str, Any]:
        """Return what `prepare` needs beside the sums, as JSON can hold it."""
        return {"source_of": self._source_of}

    def prepare(self, notes: Mapping[str, Any]) -> None:
        """Make room for sums that were saved with these notes."""
        self._set_sources(notes["source_of"])

    def all_sums(self) -> list[tuple[str, LayerSums]]:
        """Return the sums of each layer with its name."""
        return [*super().all_sums(), *self._inputs.items()]

    def factors(self) -> list[LayerFactors]:
        """Return, for every block, which of the tensors it is made of."""
        return [factors for layer in self.layers.values() for factors in self._factors(layer)]

    def _factors(self, layer: Layer) -> Iterator[LayerFactors]:
        name = layer.name
        if layer.kind == "elementwise":
            for key, parameter in layer.parameters.items():
                tensors = {"eigenvalues": f"{name}/{key}"}
                yield LayerFactors(name, layer.group, "diagonal", Layout(parameter), tensors)
        elif layer.kind == "linear":
            tensors = {"output": f"{name}/output", "input": f"{self._source_of[name]}/input"}
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

    def _set_sources(self, source_of: Mapping[str, str]) -> None:
        self._source_of = dict(source_of)
        sources = [self.layers[source] for source in dict.fromkeys(source_of.values())]
        owners = owners_of([(layer.matrix_shape[1] - layer.has_bias) ** 2 for layer in sources], self._process_group)
        self._inputs = {
            layer.name: ActivationCovariance(layer, owner) for layer, owner in zip(sources, owners, strict=True)
        }


def _dense_size(layer: Layer) -> int:
    """Return the scalars of the dense factor on a layer's output side, or of the one that a vocabulary has."""
    if layer.kind == "elementwise":
        return 1
    outputs, inputs = layer.matrix_shape
    return outputs**2 if layer.kind == "linear" else (inputs - layer.has_bias) ** 2


def _identity(read: Sequence[Tensor]) -> object:
    """Identify what a layer read by its memory, which the calls keep alive; of several calls by those calls alone."""
    if len(read) != 1:
        return id(read)
    (values,) = read
    return values.data_ptr(), values.shape, values.stride()
