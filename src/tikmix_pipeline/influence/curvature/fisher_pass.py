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

from tikmix_pipeline.distributed.mesh import SINGLE_MESH
from tikmix_pipeline.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from tikmix_pipeline.influence.curvature.head import HeadBatch
from tikmix_pipeline.influence.curvature.hooks import Call, Positions
from tikmix_pipeline.influence.curvature.layers import Layer
from tikmix_pipeline.influence.gradients import sum_dtype
from tikmix_pipeline.influence.shares import share_out


@dataclass(frozen=True)
class Home:
    """Where some sums are kept.

    Attributes:
        process_group: the processes that add to them.
        owner: the one that keeps them.
    """

    process_group: ProcessGroup = SINGLE_PROCESS
    owner: int = 0


HERE = Home()


def homes_of(sizes: Sequence[float], process_group: ProcessGroup) -> list[Home]:
    """Spread sums of these sizes evenly over the processes."""
    return [Home(process_group, owner) for owner in share_out(sizes, process_group.world_size)]


_Shapes = Mapping[str, tuple[int, ...]]


class Sums:
    """Sums by role.

    Attributes:
        home: where they are kept.
        dtype: of those that are no counts.
        sums: the sums; of all roles at home, empty in every other process.
    """

    def __init__(self, home: Home, like: Tensor, shapes: _Shapes, counts: _Shapes | None = None) -> None:
        """Start at zero.

        Args:
            home: where the sums are kept.
            like: names the device, and the precision that gradients by it are summed in.
            shapes: by role.
            counts: shapes of sums of integers.
        """
        self.home = home
        self.dtype = sum_dtype(like)
        self._device = like.device
        self._blank = {role: (shape, self.dtype) for role, shape in shapes.items()}
        self._blank |= {role: (shape, torch.int64) for role, shape in (counts or {}).items()}
        is_home = home.process_group.rank == home.owner
        self.sums = {role: self._zeros(role) for role in self._blank} if is_home else {}

    @contextlib.contextmanager
    def adding(self, role: str) -> Iterator[Tensor]:
        """Yield a tensor for this process's part of a batch to be added into; all processes do this at a time."""
        process_group, owner = self.home.process_group, self.home.owner
        if process_group.world_size == 1:
            yield self.sums[role]
            return
        part = self._zeros(role)
        yield part
        process_group.reduce(part, owner)
        if role in self.sums:
            self.sums[role] += part

    def _zeros(self, role: str) -> Tensor:
        shape, dtype = self._blank[role]
        return torch.zeros(shape, dtype=dtype, device=self._device)


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


class Pass:
    """The moments of some layers, by layer, and all that a fit needs to fill, save and restore them."""

    def __init__(self, layers: Sequence[Layer], moments: Mapping[str, Moments]) -> None:
        self.layers = {layer.name: layer for layer in layers}
        self.moments = dict(moments)

    @property
    def tapped(self) -> dict[str, nn.Module]:
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
        self.moments[name].add(calls, at)

    def end_batch(self, head: HeadBatch | None, at: Positions) -> None:
        """Add what is known only when the backward pass is over."""
        for moments in self.moments.values():
            moments.end_batch(head, at)

    def sums(self) -> dict[str, Tensor]:
        """Return all sums by name, themselves and not copies."""
        return {f"{name}/{role}": t for name, moments in self.moments.items() for role, t in moments.sums.items()}

    def notes(self) -> dict[str, Any]:
        """Return what `prepare` needs beside the sums."""
        return {}

    def prepare(self, notes: Mapping[str, Any]) -> None:
        """Make room for sums that were saved with these notes."""

    def finish(self, tokens: int) -> dict[str, Tensor]:
        """Return the moments of `tokens` predictions by name; the sums are spent."""
        return {
            f"{name}/{role}": t for name, moments in self.moments.items() for role, t in moments.finish(tokens).items()
        }
