"""Bounds on each domain's weight and on the sums of groups, from the user and from how much text there is.

What is asked is in `mixture.constraints`; here it becomes a box, the tightest bound on either side of each weight, and
half-spaces, one per side of a group. Every bound remembers where it comes from, so that a report can say what to
change, and bounds that no mixture satisfies are refused with the parameters at fault (`mixture.infeasible`). Nor may a
weight move further than `optimize.max_change` from the current mixture: influence is local, and says little of
mixtures far away.

Axes: K domains, G sides of groups.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Literal

import numpy as np

from tikmix_pipeline.mixture.constraints import Constraint, Supply, constraints_of
from tikmix_pipeline.mixture.infeasible import refuse_infeasible
from tikmix_pipeline.mixture.simplex import ROUNDING, Box, FloatArray, Halfspaces, project_onto_box
from tikmix_pipeline.parameters.decision import WeightBoundsParameters
from tikmix_pipeline.parameters.guardrails import GuardrailUnit

Reason = Literal["simplex", "user", "repetition", "change", "prior"]
"""Where a limit comes from; `simplex`: a weight is from 0 to 1; `prior`: no task may do worse than under the prior."""

_weight = attrgetter("weight")


@dataclass(frozen=True)
class Limit:
    """One limit on a domain's weight, on the sum of a group's weights, or on a task's gain, and what sets it."""

    weight: float
    reason: Reason = "simplex"
    parameter: str = ""
    unit: GuardrailUnit | None = None
    """Of a guardrail's tolerance, which stands in the place of a weight."""


@dataclass(frozen=True)
class GroupLimit:
    """One side of what a group's weights may sum to; its members are positions on axis K."""

    name: str
    members: tuple[int, ...]
    side: Literal["lower", "upper"]
    limit: Limit


@dataclass(frozen=True)
class Bounds:
    """What a mixture lies within: a box, and the limits on groups; they hold at least one mixture."""

    domains: tuple[str, ...]
    lower: tuple[Limit, ...]
    upper: tuple[Limit, ...]
    groups: tuple[GroupLimit, ...] = ()

    @classmethod
    def simplex(cls, domains: Sequence[str]) -> "Bounds":
        """Return the bounds of any mixture."""
        return cls(tuple(domains), (Limit(0.0),) * len(domains), (Limit(1.0),) * len(domains))

    def box(self) -> Box:
        """Return the smallest weights `low_K` and the largest `high_K`."""
        return np.array([limit.weight for limit in self.lower]), np.array([limit.weight for limit in self.upper])

    def halfspaces(self) -> Halfspaces:
        """Return the limits on groups as constraints `rows w ≥ least`, in their order.

        They are wider by what rounding may miss, so that limits that leave a single sum leave it in floats too.
        """
        rows_GK, least_G = np.zeros((len(self.groups), len(self.domains))), np.zeros(len(self.groups))
        for g, group in enumerate(self.groups):
            sign = 1 if group.side == "lower" else -1
            rows_GK[g, [*group.members]], least_G[g] = sign, sign * group.limit.weight - ROUNDING
        return Halfspaces(rows_GK, least_G)

    def project(self, weights_K: FloatArray) -> FloatArray:
        """Return the mixture inside the bounds that is nearest to `weights_K`; one inside is its own projection."""
        low_K, high_K = box = self.box()
        is_inside = np.all((low_K <= weights_K) & (weights_K <= high_K)) and abs(weights_K.sum() - 1) <= ROUNDING
        boxed_1K = weights_K[None].copy() if is_inside else project_onto_box(weights_K[None], box, halvings=100)
        halfspaces = self.halfspaces()
        # the nearest in the box is the nearest of all if the groups let it be
        nearest_1K = halfspaces.nearest(weights_K[None], box) if halfspaces.shortfall(boxed_1K)[0] else boxed_1K
        nearest_K: FloatArray = nearest_1K[0]
        return nearest_K


def mixture_bounds(
    parameters: WeightBoundsParameters,
    supplies: Mapping[str, Supply],
    tokens: int,
    current: Mapping[str, float] | None = None,
) -> Bounds:
    """Return the tightest bound on each domain on either side, and the limits on groups.

    Args:
        parameters: the user's bounds; `optimize.max_change` is for `within_reach`.
        supplies: the text of each domain; its keys are the domains.
        tokens: C, the training tokens to come that a mixture is for.
        current: the weights that `optimize.pinned: current` holds; without them such a pin is left open.

    Raises:
        TikmixError: a parameter names an unknown domain, a domain has no text, or no mixture satisfies all bounds; the
            message says which of them are at fault and what would make room.
    """
    constraints = constraints_of(parameters, supplies, tokens, current)
    limits = [_tightest(constraints, domain) for domain in supplies]
    if parameters.groups or not _is_roomy(limits):
        refuse_infeasible(constraints, tuple(supplies))
    return Bounds(
        domains=tuple(supplies),
        lower=tuple(low for low, _ in limits),
        # bounds that some mixture satisfies may still cross by rounding
        upper=tuple(high if high.weight >= low.weight else replace(high, weight=low.weight) for low, high in limits),
        groups=tuple(_group_limits(constraints, tuple(supplies))),
    )


def within_reach(bounds: Bounds, current: Mapping[str, float], max_change: float) -> Bounds:
    """Return the bounds narrowed to weights with `|w_j − current_j| ≤ max_change`.

    What the other bounds ask for, pins and groups among them, goes first: where they have moved away from the current
    mixture, the distance is taken from the nearest mixture inside them. So there is always a mixture left.
    """
    current_K = bounds.project(np.array([current[domain] for domain in bounds.domains]))
    low, high = (
        [Limit(weight, "change", "optimize.max_change") for weight in reach_K.tolist()]
        for reach_K in (current_K - max_change, current_K + max_change)
    )
    # of limits that are as tight as each other, `max` and `min` return the first
    return replace(
        bounds,
        lower=tuple(max(pair, key=_weight) for pair in zip(bounds.lower, low, strict=True)),
        upper=tuple(min(pair, key=_weight) for pair in zip(bounds.upper, high, strict=True)),
    )


def unlimited_bounds(
    parameters: WeightBoundsParameters, domains: Iterable[str], current: Mapping[str, float] | None = None
) -> Bounds:
    """Return `mixture_bounds` as if there were text of every domain without end: those of the user alone."""
    return mixture_bounds(parameters, {domain: Supply(math.inf) for domain in domains}, 1, current)


def _tightest(constraints: Iterable[Constraint], domain: str) -> tuple[Limit, Limit]:
    """Return the bounds on one domain; of bounds as tight as each other a pin counts first, then the simplex."""
    lower, upper = [], []
    for constraint in constraints:
        if constraint.kind == "group" or (domain,) not in constraint.members:
            continue
        weight = float(constraint.limits()[constraint.members.index((domain,))])
        limit = Limit(weight, "repetition" if constraint.kind == "repetition" else "user", constraint.parameter)
        if constraint.side != "most":
            lower.append(limit)
        if constraint.side != "least":
            upper.append(limit)
    # a pin comes first among the constraints, so that it is named where others ask for the same
    is_pinned = bool(lower and upper and lower[0] is upper[0])
    low = max([*lower, Limit(0.0)] if is_pinned else [Limit(0.0), *lower], key=_weight)
    high = min([*upper, Limit(1.0)] if is_pinned else [Limit(1.0), *upper], key=_weight)
    return low, high


def _is_roomy(limits: Sequence[tuple[Limit, Limit]]) -> bool:
    """Say whether a box holds a mixture, which takes no linear program."""
    least, most = math.fsum(low.weight for low, _ in limits), math.fsum(high.weight for _, high in limits)
    return least <= 1 + ROUNDING and most >= 1 - ROUNDING and all(low.weight <= high.weight for low, high in limits)


def _group_limits(constraints: Iterable[Constraint], domains: Sequence[str]) -> Iterator[GroupLimit]:
    for constraint in constraints:
        if constraint.kind == "group":
            yield GroupLimit(
                name=constraint.parameter.removeprefix("optimize.groups.").rpartition(".")[0],
                members=tuple(domains.index(domain) for domain in constraint.members[0]),
                side="lower" if constraint.side == "least" else "upper",
                limit=Limit(constraint.value, "user", constraint.parameter),
            )
