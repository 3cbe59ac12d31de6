"""What a mixture is asked to satisfy, parameter by parameter: the user's bounds, pins and groups, and repetition.

A domain may not be read more than `optimize.max_epochs` times by the end of the C tokens to come, under one mixture:
`w_j · C + consumed_j ≤ max_epochs · available_j`. C is the coming chunk, or all that is left of a run whose length is
known: a decision that looks to the end of the chunk alone may take all that may be read of a domain at once.

Axes: R sums of weights that one parameter bounds.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tikmix_pipeline.errors import TikmixError, require_known
from tikmix_pipeline.mixture.simplex import ROUNDING, FloatArray
from tikmix_pipeline.parameters.decision import DomainBounds, RepetitionParameters, WeightBoundsParameters


@dataclass(frozen=True)
class Supply:
    """How much text of a domain there is, in training tokens."""

    available: float
    """More than none; `math.inf` where repetition is no concern."""
    consumed: float = 0
    """What was trained on so far, repetitions counted."""


@dataclass(frozen=True)
class Constraint:
    """One parameter and the sums of weights that it bounds.

    The `members` are the domains of each sum: single ones, a group's, or single ones whose limits come from how much
    text there is (`repetition`), which alone has `supplies`, one for each member, and C.
    """

    parameter: str
    value: float
    side: Literal["least", "most", "exactly"]
    members: tuple[tuple[str, ...], ...]
    kind: Literal["domain", "pin", "group", "repetition"] = "domain"
    supplies: tuple[Supply, ...] = ()
    tokens: int = 1

    def limits(self) -> FloatArray:
        """Return the limit of each sum, `limit_R`; no weight is negative, whatever was read."""
        return np.maximum(0, self._unbounded())

    def slopes(self) -> FloatArray:
        """Return how fast each limit moves as the parameter loosens, `slope_R`: 0 where too much was read already."""
        return np.where(self._unbounded() >= -ROUNDING, self._per_unit(), 0)

    def per_unit(self) -> float:
        """Return by how much one more unit of the parameter moves the limit that it moves furthest."""
        return float(self._per_unit().max())

    def openings(self) -> list[float]:
        """Return the larger values of the parameter from which on a limit moves that is 0 until then, rising."""
        return sorted({read for supply in self.supplies if (read := supply.consumed / supply.available) > self.value})

    def _per_unit(self) -> FloatArray:
        if self.kind != "repetition":
            return np.ones(len(self.members))
        return np.array([supply.available for supply in self.supplies]) / self.tokens

    def _unbounded(self) -> FloatArray:
        if self.kind != "repetition":
            return np.full(len(self.members), self.value)
        readable = [self.value * supply.available - supply.consumed for supply in self.supplies]
        return np.array(readable) / self.tokens


def constraints_of(
    parameters: WeightBoundsParameters,
    supplies: Mapping[str, Supply],
    tokens: int,
    current: Mapping[str, float] | None,
) -> list[Constraint]:
    """Return all that the parameters ask for beyond the simplex; what could never bind is left out.

    The `tokens` are C. Where there is no current mixture, pins to it are left out. Without `max_epochs` no text is read
    too often.

    Raises:
        TikmixError: a parameter names an unknown domain, or a domain has no text.
    """
    require_known("optimize.bounds", "domain", parameters.bounds, supplies)
    require_known("optimize.pinned", "domain", parameters.pinned, supplies)
    for name, group in parameters.groups.items():
        require_known(f"optimize.groups.{name}", "domain", group.domains, supplies)
    for domain, supply in supplies.items():
        if supply.available <= 0:
            raise TikmixError(f"The domain '{domain}' has no training tokens. Give it text, or leave it out.")
    singles = tuple((domain,) for domain in supplies)
    everywhere = DomainBounds(min=parameters.min_weight, max=parameters.max_weight)
    found = []
    for domain, pin in parameters.pinned.items():
        weight = (None if current is None else current[domain]) if pin == "current" else pin
        if weight is not None:
            found.append(Constraint(f"optimize.pinned.{domain}", weight, "exactly", ((domain,),), "pin"))
    found += _sides(everywhere, "optimize.{side}_weight", singles, "domain")
    for domain, bounds in parameters.bounds.items():
        found += _sides(bounds, f"optimize.bounds.{domain}.{{side}}", ((domain,),), "domain")
    for name, group in parameters.groups.items():
        summed = tuple(dict.fromkeys(group.domains))
        found += _sides(group, f"optimize.groups.{name}.{{side}}", (summed,), "group")
    limited = {domain: supply for domain, supply in supplies.items() if math.isfinite(supply.available)}
    if limited and isinstance(parameters, RepetitionParameters):
        members, known = tuple((domain,) for domain in limited), tuple(limited.values())
        most = parameters.max_epochs
        found.append(Constraint("optimize.max_epochs", most, "most", members, "repetition", known, tokens))
    return found


def _sides(
    bounds: DomainBounds, parameter: str, members: tuple[tuple[str, ...], ...], kind: Literal["domain", "group"]
) -> Iterator[Constraint]:
    if bounds.min > 0:
        yield Constraint(parameter.format(side="min"), bounds.min, "least", members, kind)
    if bounds.max < 1:
        yield Constraint(parameter.format(side="max"), bounds.max, "most", members, kind)
