"""What a method of this room decides: a mixture, and what it took to find it.

Axes: K domains.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tikmix_pipeline.lm.cost_records import Cost
from tikmix_pipeline.mixture.bounds import Bounds

Detail = float | Sequence[str] | Mapping[str, float] | None
"""What a method says of its decision beside the mixture: a number, domains, or a number for each domain."""

_MOVED = 1e-6


@dataclass(frozen=True)
class Baseline:
    """A mixture that is decided once, and what was spent on the decision."""

    weights: dict[str, float]
    cost: Cost = field(default_factory=Cost)
    notes: tuple[str, ...] = ()
    """What a reader should know, in sentences."""
    details: Mapping[str, Detail] = field(default_factory=dict)
    """What else the method has to say, by name."""


def within_bounds(bounds: Bounds | None, weights: Mapping[str, float]) -> tuple[dict[str, float], tuple[str, ...]]:
    """Move a mixture inside the bounds, which are of the same domains; return it, and a note if that changed it."""
    if bounds is None:
        return dict(weights), ()
    wanted_K = np.array([weights[domain] for domain in bounds.domains])
    weights_K = bounds.project(wanted_K)
    moved = np.abs(weights_K - wanted_K)
    by_domain = dict(zip(bounds.domains, weights_K.tolist(), strict=True))
    note = (
        f"The bounds changed the mixture by {moved.sum() / 2:.1%} of the tokens, that of "
        f"'{bounds.domains[int(moved.argmax())]}' most."
    )
    return {domain: by_domain[domain] for domain in weights}, (note,) if moved.max() > _MOVED else ()
