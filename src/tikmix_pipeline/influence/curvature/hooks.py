"""What the layers of a model hand to the sums of a pass in each batch: inputs and output gradients.

A forward hook keeps a layer's input until the gradient of its output arrives; once all calls of a layer in a batch have
theirs, they are handed over and let go, so that at no time the gradients of all layers are held. `backward` goes to the
outputs of the embeddings only, so no gradient of any weight is computed, and `.grad` is never written; a backward pass
that is after these too can come by as well.

Axes: B sequences, P positions, N loss-carrying positions, i inputs of a layer, o outputs.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tikmix_pipeline.corpus.batches import TokenBatch
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.influence.curvature.layers import list_names

_REMEDY = (
    "Set influence.curvature=identity, which takes all parameters (adam does too, for a checkpoint trained here), or "
    "leave the layer's group (linear, embedding, head or elementwise) out of influence.groups."
)


@dataclass(frozen=True)
class Positions:
    """The loss-carrying positions of a batch; `counts_B` is how many there are in each sequence.

    `everywhere` says that all are, and rows need no copy. No position after the first `lengths_B` of a sequence has a
    gradient.
    """

    carries_BP: Tensor
    everywhere: bool
    counts_B: tuple[int, ...]
    lengths_B: tuple[int, ...]

    @classmethod
    def of(cls, batch: TokenBatch, device: torch.device) -> "Positions":
        """Shift the batch's mask: the input at position s - 1 predicts token s."""
        carries_BP = batch.loss_BS[:, 1:]
        last_B = carries_BP.shape[1] - np.argmax(carries_BP[:, ::-1], axis=1)
        counts_B = carries_BP.sum(1)
        lengths_B = np.where(counts_B > 0, last_B, 0)
        on_device = torch.from_numpy(carries_BP).to(device)
        return cls(on_device, bool(carries_BP.all()), tuple(counts_B.tolist()), tuple(lengths_B.tolist()))

    def rows(self, values_BPi: Tensor, layer: str) -> Tensor:
        """Return the values of a layer at these positions, (N, i).

        Values that are not laid out by sequence and position, as behind a router of experts, raise a TikmixError.
        """
        if values_BPi.ndim != 3 or values_BPi.shape[:2] != self.carries_BP.shape:
            raise TikmixError(
                f"The Fisher cannot tell the positions in layer {layer}, which works on {tuple(values_BPi.shape)} for "
                f"{tuple(self.carries_BP.shape)} sequences and positions. {_REMEDY}"
            )
        return values_BPi.flatten(0, 1) if self.everywhere else values_BPi[self.carries_BP]

    def require_sequences(self, values: Tensor, layer: str) -> Tensor:
        """Return the values of a layer, or raise a TikmixError if their first axis is not the batch's sequences."""
        if values.ndim < 3 or len(values) != len(self.counts_B):
            raise TikmixError(
                f"The Fisher cannot tell the sequences in layer {layer}, which works on {tuple(values.shape)} for "
                f"{len(self.counts_B)} sequences. {_REMEDY}"
            )
        return values


@dataclass
class Call:
    """One call of a layer in a batch."""

    inputs: Tensor
    """Detached."""
    gradient: Tensor | None = None
    """Of the summed loss by its output, once the backward pass has come by."""


Calls = Sequence[tuple[Tensor, Tensor]]
"""Input and output gradient of each call of a layer in one batch."""
Receive = Callable[[str, Calls, Positions], None]
"""Takes the name of a layer, its calls in the batch, and the batch's positions."""


class ModuleHooks:
    """Hooks on the layers of a model."""

    def __init__(
        self, model: nn.Module, layers: Mapping[str, nn.Module], head: nn.Module | None, receive: Receive
    ) -> None:
        self.calls: dict[str, list[Call]] = {}
        """The calls of each layer in this batch that are not handed over yet."""
        self._model = model
        self._layers = dict(layers)
        self._head = head
        self._receive = receive
        self._without_gradient = set(layers)
        self._at: Positions | None = None
        self._roots: list[Tensor] = []
        self._head_call: tuple[Tensor, Tensor] | None = None

    @contextlib.contextmanager
    def attached(self) -> Iterator[None]:
        """Hook the layers for the duration of the body."""
        with contextlib.ExitStack() as stack:
            for module in self._model.modules():
                if isinstance(module, nn.Embedding):
                    stack.callback(module.register_forward_pre_hook(self._expand_ids).remove)
                    stack.callback(module.register_forward_hook(self._keep_root).remove)
            for name, module in self._layers.items():
                stack.callback(module.register_forward_hook(partial(self._keep_call, name)).remove)
            if self._head is not None:
                stack.callback(self._head.register_forward_hook(self._keep_head_call).remove)
            yield

    @contextlib.contextmanager
    def batch(self, at: Positions) -> Iterator[None]:
        """Take a batch, and let go of its tensors at the end."""
        self._at = at
        try:
            yield
        finally:
            self._at, self.calls, self._roots, self._head_call = None, {}, [], None

    def head_call(self) -> tuple[Tensor, Tensor]:
        """Return the head's input, detached, and its output in this batch; raise a TikmixError if it did not run."""
        if self._head_call is None:
            raise TikmixError(f"The Fisher: the model's output head did not run. {_REMEDY}")
        return self._head_call

    def backward(self, outputs_No: Tensor, gradient_No: Tensor, *, again: bool = False) -> None:
        """Send the gradient of the summed loss by what the model ends with, logits or hidden states, through the hooks.

        With `again` there will be another backward pass, which the hooks let by. A layer that gets no gradient raises a
        TikmixError.
        """
        if not self._layers:
            return
        if not self._roots:
            raise TikmixError("The Fisher needs a model that reads its tokens through nn.Embedding.")
        torch.autograd.grad(outputs_No, self._roots, gradient_No, allow_unused=True, retain_graph=again)
        self.end_backward()

    def end_backward(self) -> None:
        """Hand over the rest, once a backward pass has come by; a layer without a gradient raises a TikmixError."""
        for name in list(self.calls):
            self._hand_over(name)
        if self._without_gradient:
            raise TikmixError(
                f"The Fisher: no gradient reaches layer {list_names(sorted(self._without_gradient))}. {_REMEDY}"
            )

    def _keep_call(self, name: str, _module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        if len(args) != 1:
            raise TikmixError(f"The Fisher: layer {name} takes {len(args)} positional inputs instead of one. {_REMEDY}")
        if self._at is None:  # a pass of somebody else
            return
        call = Call(args[0].detach())
        self.calls.setdefault(name, []).append(call)
        output.register_hook(partial(self._arrived, name, call))  # type: ignore[no-untyped-call]

    def _arrived(self, name: str, call: Call, gradient: Tensor) -> None:
        if name not in self.calls:  # handed over in an earlier backward pass
            return
        self._without_gradient.discard(name)
        call.gradient = gradient
        if all(other.gradient is not None for other in self.calls[name]):
            self._hand_over(name)

    def _hand_over(self, name: str) -> None:
        calls = self.calls.pop(name)
        arrived = [(call.inputs, call.gradient) for call in calls if call.gradient is not None]
        if arrived and self._at is not None:
            self._receive(name, arrived, self._at)

    def _expand_ids(self, _module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Look positions up for every sequence, though a model may ask once for all: gradients come by sequence."""
        return (args[0].expand(self._at.carries_BP.shape), *args[1:]) if self._at is not None else args

    def _keep_root(self, _module: nn.Module, _args: tuple[Any, ...], output: Tensor) -> None:
        if self._at is None:
            return
        if not output.requires_grad:
            output.requires_grad_()
        self._roots.append(output)

    def _keep_head_call(self, _module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        if self._at is not None:
            self._head_call = args[0].detach(), output
