"""One pass over the text: sums that the layers of a model feed, batch by batch.

Each process sees its sequences of a batch, and every sum is kept by one process, to which all add. Memory for sums so
falls with the number of processes, at the price of sending a sum to its owner once per batch.

Sums are in float32, or in float64 for float64 weights, whatever lower precision the model runs in; they are all the
state there is, and are normalised in place at the end.

Axes: B sequences, P positions, N loss-carrying positions, V vocabulary.
"""

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tikmix_pipeline.distributed.process_group import ProcessGroup, share_out
from tikmix_pipeline.influence.curvature.head_batch import HeadBatch
from tikmix_pipeline.influence.curvature.hooks import Call, Calls, Positions
from tikmix_pipeline.influence.curvature.layers import Layer
from tikmix_pipeline.influence.gradients import sum_dtype

_Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class OwnerRank:
    """The rank that keeps some sums, among the processes that add to them."""

    process_group: ProcessGroup
    rank: int


def owners_of(sizes: Sequence[float], process_group: ProcessGroup) -> list[OwnerRank]:
    """Spread sums of these sizes evenly over the processes."""
    return [OwnerRank(process_group, rank) for rank in share_out(sizes, process_group.world_size)]


class LayerSums:
    """The sums of one layer, by role; all of them at their owner, and none in any other process."""

    def __init__(self, layer: Layer, owner: OwnerRank, shapes: _Shapes, counts: _Shapes | None = None) -> None:
        """Start at zero, with sums of these shapes by role, and with `counts`, which are integers.

        The layer's parameters decide the device, and the precision that gradients by them are summed in.
        """
        like = next(layer.module.parameters(recurse=False))
        self.layer, self.owner, self.dtype = layer, owner, sum_dtype(like)
        self._device = like.device
        self._blank = {role: (shape, self.dtype) for role, shape in shapes.items()}
        self._blank |= {role: (shape, torch.int64) for role, shape in (counts or {}).items()}
        is_owner = owner.process_group.rank == owner.rank
        self.sums = {role: self._zeros(role) for role in self._blank} if is_owner else {}

    def add(self, calls: Calls, at: Positions) -> None:
        """Add the layer's calls in one batch, when their gradients have arrived."""

    def end_batch(self, head: HeadBatch | None, at: Positions) -> None:
        """Add what had to wait for the end of the backward pass."""

    def finish(self, tokens: int) -> dict[str, Tensor]:
        """Return the means over `tokens` predictions by role; the sums are spent."""
        return {role: values.div_(tokens) for role, values in self.sums.items()}

    @contextlib.contextmanager
    def adding(self, role: str) -> Iterator[Tensor]:
        """Yield a tensor for this process's share of a batch to be added into; all processes call this together."""
        process_group, owner = self.owner.process_group, self.owner.rank
        if process_group.world_size == 1:
            yield self.sums[role]
            return
        share = self._zeros(role)
        yield share
        process_group.reduce(share, owner)
        if role in self.sums:
            self.sums[role] += share

    def _zeros(self, role: str) -> Tensor:
        shape, dtype = self._blank[role]
        return torch.zeros(shape, dtype=dtype, device=self._device)


class ElementwiseDiagonal(LayerSums):
    """Diagonal Fisher of a layer that scales or shifts elementwise, such as a norm: `E[(Σ_p ∂ℓ_n/∂θ)²]`.

    The gradient of one whole sequence, u_b = Σ_p x̂_bp ∘ δ_bp for a norm's weight, is recomputed exactly from the
    layer's input and outgoing gradient. Sampled labels are independent and every score has mean zero, so all cross
    terms between tokens vanish in expectation, and Σ_b u_b² / N estimates the per-token Fisher without bias. With the
    labels of the text, it is the empirical Fisher of sequences, per token.
    """

    def __init__(self, layer: Layer, owner: OwnerRank, full_tensor: Callable[[Tensor], Tensor]) -> None:
        """Take the function that gathers a parameter that is sharded, too."""
        parameters = dict(layer.module.named_parameters(recurse=False))
        super().__init__(layer, owner, {key: tuple(parameters[key].shape) for key in layer.parameters})
        # without the hooks that will feed this object
        self._module = copy.deepcopy(layer.module)
        self._weights = {key: full_tensor(parameter.detach()).to(self.dtype) for key, parameter in parameters.items()}
        self._calls: list[tuple[Tensor, Tensor]] = []

    def add(self, calls: Calls, at: Positions) -> None:
        """Keep the layer's calls until the backward pass is over: a gradient is taken of each."""
        self._calls += [
            (at.require_sequences(inputs, self.layer.name), at.require_sequences(gradient, self.layer.name))
            for inputs, gradient in calls
        ]

    def end_batch(self, head: HeadBatch | None, at: Positions) -> None:
        """Square the gradients of the batch's sequences, summed over the calls of the layer."""

        per_call = [self._by_sequence(*(values.to(self.dtype) for values in call)) for call in self._calls]
        for key in self.layer.parameters if per_call else ():
            with self.adding(key) as total:
                gradient_B = torch.stack([gradients[key] for gradients in per_call]).sum(0)
                total.add_(gradient_B.square().sum(0))
        self._calls.clear()

    def _by_sequence(self, inputs: Tensor, gradient: Tensor) -> dict[str, Tensor]:
        """Return the gradient of each sequence by each parameter, (B, ...).

        Every sequence has a copy of the weights for itself; `torch.func.grad` would import the compiler, for seconds.
        """

        def outputs_of(weights: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
            outputs: Tensor = torch.func.functional_call(self._module, dict(weights), (inputs,))
            return outputs

        copies = {key: torch.stack([values] * len(inputs)).requires_grad_() for key, values in self._weights.items()}
        with torch.enable_grad():
            total = (torch.func.vmap(outputs_of)(copies, inputs) * gradient).sum()
        return dict(zip(copies, torch.autograd.grad(total, list(copies.values()), materialize_grads=True), strict=True))


def with_bias(values: Tensor, layer: Layer) -> Tensor:
    """Append a one to every row where the layer has a bias: the bias is its weight."""
    return F.pad(values, (0, 1), value=1.0) if layer.has_bias else values


class FisherPass:
    """The sums of some layers, and all that a fit needs to fill, save and restore them."""

    def __init__(self, layers: Sequence[Layer], layer_sums: Mapping[str, LayerSums]) -> None:
        self.layers = {layer.name: layer for layer in layers}
        self._layer_sums = dict(layer_sums)

    @property
    def hooked(self) -> dict[str, nn.Module]:
        """The layers whose output gradients are needed."""
        return {name: layer.module for name, layer in self.layers.items() if layer.kind != "head"}

    @property
    def head(self) -> nn.Module | None:
        """The head, if it takes part."""
        return next((layer.module for layer in self.layers.values() if layer.kind == "head"), None)

    def end_forward(self, calls: Mapping[str, Sequence[Call]], at: Positions) -> None:
        """Add what is known before the backward pass: nothing, as a rule."""

    def receive(self, name: str, calls: Calls, at: Positions) -> None:
        """Add one layer's calls in a batch, when their gradients have arrived."""
        self._layer_sums[name].add(calls, at)

    def end_batch(self, head: HeadBatch | None, at: Positions) -> None:
        """Add what is known only when the backward pass is over."""
        for layer_sums in self._layer_sums.values():
            layer_sums.end_batch(head, at)

    def notes(self) -> dict[str, Any]:
        """Return what `prepare` needs beside the sums, as JSON can hold it."""
        return {}

    def prepare(self, notes: Mapping[str, Any]) -> None:
        """Make room for sums that were saved with these notes."""

    def all_sums(self) -> list[tuple[str, LayerSums]]:
        """Return the sums of each layer with its name."""
        return list(self._layer_sums.items())

    def sums(self) -> dict[str, Tensor]:
        """Return all sums by name, themselves and not copies."""
        return {f"{name}/{role}": values for name, of in self.all_sums() for role, values in of.sums.items()}

    def finish(self, tokens: int) -> dict[str, Tensor]:
        """Return the means over `tokens` predictions by name; the sums are spent."""
        return {f"{name}/{role}": values for name, of in self.all_sums() for role, values in of.finish(tokens).items()}
