"""Hooks that carry inputs and output gradients from the layers of a model to their second moments.

A forward hook keeps a layer's input until the gradient of its output arrives. The backward pass goes to the outputs of
the embeddings only, so no gradient of any weight is computed, and `.grad` is never written.

Axes: B sequences, P positions, N loss-carrying positions, V vocabulary.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.influence.curvature.layers import Layer
from tikmix_pipeline.influence.curvature.report import list_names
from tikmix_pipeline.influence.curvature.statistics import (
    ElementwiseMoments,
    EmbeddingMoments,
    HeadMoments,
    LinearMoments,
    Positions,
)

_Add = Callable[[Tensor, Tensor, Positions], None]


class Taps:
    """The second moments of all layers, and the hooks that feed them."""

    def __init__(self, model: nn.Module, layers: Sequence[Layer]) -> None:
        self.linear: dict[str, LinearMoments] = {}
        self.embedding: dict[str, EmbeddingMoments] = {}
        self.elementwise: dict[str, ElementwiseMoments] = {}
        self.head: dict[str, HeadMoments] = {}
        self._model = model
        self._head_module: nn.Module | None = None
        self._adders: dict[str, tuple[nn.Module, _Add]] = {}
        for layer in layers:
            self._add_layer(layer)
        self._silent = set(self._adders)
        self._at = Positions(torch.empty(0, 0, dtype=torch.bool), everywhere=True)
        self._roots: list[Tensor] = []
        self._head_call: tuple[Tensor, Tensor] | None = None

    def _add_layer(self, layer: Layer) -> None:
        bias = "bias" in layer.parameters
        if layer.kind == "elementwise":
            elementwise = self.elementwise[layer.name] = ElementwiseMoments(layer.name, layer.module)
            self._adders[layer.name] = layer.module, elementwise.add
            return
        weight = layer.module.get_parameter("weight").detach()
        if layer.kind == "linear":
            weight_oi = weight if isinstance(layer.module, nn.Linear) else weight.T
            linear = self.linear[layer.name] = LinearMoments(layer.name, weight_oi, bias=bias)
            self._adders[layer.name] = layer.module, linear.add
        elif layer.kind == "embedding":
            embedding = self.embedding[layer.name] = EmbeddingMoments(layer.name, weight)
            self._adders[layer.name] = layer.module, embedding.add
        else:
            self.head[layer.name] = HeadMoments(layer.name, weight, bias=bias)
            self._head_module = layer.module

    @contextlib.contextmanager
    def attached(self) -> Iterator[None]:
        """Hook the layers for the duration of the body."""
        with contextlib.ExitStack() as stack:
            for module in self._model.modules():
                if isinstance(module, nn.Embedding):
                    stack.callback(module.register_forward_pre_hook(self._expand_ids).remove)
                    stack.callback(module.register_forward_hook(self._keep_root).remove)
            for name, (module, add) in self._adders.items():
                stack.callback(module.register_forward_hook(self._gradient_tap(name, add)).remove)
            if self._head_module is not None:
                stack.callback(self._head_module.register_forward_hook(self._keep_head_call).remove)
            yield

    @contextlib.contextmanager
    def batch(self, at: Positions) -> Iterator[None]:
        """Take a batch whose loss is at these positions, and let go of its tensors at the end."""
        self._at = at
        try:
            yield
        finally:
            self._roots, self._head_call = [], None

    def add_head(self, logits_BPV: Tensor, probability_NV: Tensor) -> None:
        """Add the batch to the head's moments, whose expectation over labels needs no sample."""
        if not self.head:
            return
        if self._head_call is None:
            raise TikmixError("influence.curvature=kfac: the model's output head did not run. Use adam or identity.")
        (head,) = self.head.values()
        inputs_BPi, outputs_BPV = self._head_call
        if outputs_BPV is logits_BPV:
            slope = probability_NV.new_ones(())
        else:
            (slope_BPV,) = torch.autograd.grad(logits_BPV.sum(), outputs_BPV, retain_graph=True)
            slope = slope_BPV[self._at.carries_BP].to(probability_NV)
        head.add(inputs_BPi, slope, probability_NV, self._at)

    def backward(self, loss: Tensor) -> None:
        """Send the gradient of the summed loss through the hooks.

        Raises:
            TikmixError: a layer with trainable parameters got no gradient.
        """
        if not self._roots:
            raise TikmixError("influence.curvature=kfac needs a model that reads its tokens through nn.Embedding.")
        torch.autograd.grad(loss, self._roots, allow_unused=True)
        for moments in self.elementwise.values():
            moments.end_batch()
        if self._silent:
            raise TikmixError(
                f"influence.curvature=kfac: no gradient reaches layer {list_names(sorted(self._silent))}. Freeze its "
                "parameters (requires_grad=False), or use influence.curvature=adam or identity."
            )

    def _expand_ids(self, _module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Look positions up for every sequence, though a model may ask once for all: gradients come by sequence."""
        return (args[0].expand(self._at.carries_BP.shape), *args[1:])

    def _keep_root(self, _module: nn.Module, _args: tuple[Any, ...], output: Tensor) -> None:
        if not output.requires_grad:
            output.requires_grad_()
        self._roots.append(output)

    def _keep_head_call(self, _module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        self._head_call = args[0].detach(), output

    def _gradient_tap(self, name: str, add: _Add) -> Callable[[nn.Module, tuple[Any, ...], Tensor], None]:
        def tap(_module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            if len(args) != 1:
                raise TikmixError(
                    f"influence.curvature=kfac: layer {name} takes {len(args)} positional inputs instead of one. "
                    "Use influence.curvature=adam or identity."
                )
            inputs = args[0].detach()

            def arrived(gradient: Tensor) -> None:
                self._silent.discard(name)
                add(inputs, gradient, self._at)

            output.register_hook(arrived)  # type: ignore[no-untyped-call]

        return tap
