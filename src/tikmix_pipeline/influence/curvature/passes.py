"""One pass over the text: sums that layers feed, batch by batch.

Axes: B sequences, P positions, V vocabulary.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from tikmix_pipeline.influence.curvature.head import HeadBatch
from tikmix_pipeline.influence.curvature.layers import Layer
from tikmix_pipeline.influence.curvature.moments import Calls, Moments
from tikmix_pipeline.influence.curvature.positions import Positions
from tikmix_pipeline.influence.curvature.taps import Call


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
