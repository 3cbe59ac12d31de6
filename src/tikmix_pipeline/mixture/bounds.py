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
from typing import Literal

import numpy as np

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.mixture.constraints import Demand, Supply, demands_of
from tikmix_pipeline.mixture.infeasible import refuse_clash, round_up
from tikmix_pipeline.mixture.projection import Halfspaces
from tikmix_pipeline.mixture.simplex import ROUNDING, FloatArray
from tikmix_pipeline.parameters.decision import BoundsParameters, RepetitionParameters

__all__ = [
    "Bounds",
    "GroupLimit",
    "Limit",
    "Supply",
    "mixture_bounds",
    "require_supply",
    "unlimited_bounds",
    "within_reach",
]


@dataclass(frozen=True)
class Limit:
    """One bound on one domain's weight.

    Attributes:
        weight: the bound.
        reason: `simplex` (a weight is from 0 to 1), `user`, `repetition` or `change`.
        parameter: the parameter that sets it; empty for the simplex.
    """

    weight: float
    reason: Literal["simplex", "user", "repetition", "change"] = "simplex"
    parameter: str = ""


@dataclass(frozen=True)
class GroupLimit:
    """One side of what a group's weights may sum to.

    Attributes:
        name: the group's.
        members: positions of its domains on axis K.
        side: which side the limit is on.
        limit: the bound on the sum.
    """

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

    def box(self) -> tuple[FloatArray, FloatArray]:
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
        """Return the mixture inside the bounds that is nearest to `weights_K` in the Euclidean norm.

        Where no group stands in the way that is `clip(w + shift, low, high)` for the one shift at which it sums to 1. A
        mixture inside is its own projection.
        """
        boxed_K = self._project_into_box(weights_K)
        halfspaces = self.halfspaces()
        # the nearest in the box is the nearest of all if the groups let it be
        if not halfspaces.shortfall(boxed_K[None])[0]:
            return boxed_K
        nearest_K: FloatArray = halfspaces.nearest(weights_K[None], self.box())[0]
        return nearest_K

    def _project_into_box(self, weights_K: FloatArray) -> FloatArray:
        low_K, high_K = self.box()
        if np.all((low_K <= weights_K) & (weights_K <= high_K)) and abs(weights_K.sum() - 1) <= ROUNDING:
            return weights_K.copy()
        below, above = float((low_K - weights_K).min()), float((high_K - weights_K).max())
        for _ in range(100):
            shift = (below + above) / 2
            if np.clip(weights_K + shift, low_K, high_K).sum() < 1:
                below = shift
            else:
                above = shift
        return np.clip(weights_K + above, low_K, high_K)


def mixture_bounds(
    parameters: BoundsParameters,
    supplies: Mapping[str, Supply],
    chunk_tokens: int,
    current: Mapping[str, float] | None = None,
) -> Bounds:
    """Return the tightest bound on each domain on either side, and the limits on groups.

    Args:
        parameters: the user's bounds; `optimize.max_change` is for `within_reach`.
        supplies: the text of each domain; its keys are the domains.
        chunk_tokens: C, the training tokens of the coming chunk.
        current: the weights that `optimize.pinned: current` holds; without them such a pin is left open.

    Raises:
        TikmixError: a parameter names an unknown domain, a domain has no text, or no mixture satisfies all bounds; the
            message says which of them clash and what would make room.
    """
    demands = demands_of(parameters, supplies, chunk_tokens, current)
    limits = [_tightest(demands, domain) for domain in supplies]
    if parameters.groups or not _is_roomy(limits):
        refuse_clash(demands, tuple(supplies))
    return Bounds(
        domains=tuple(supplies),
        lower=tuple(low for low, _ in limits),
        # what does not clash may still cross by rounding
        upper=tuple(high if high.weight >= low.weight else replace(high, weight=low.weight) for low, high in limits),
        groups=tuple(_group_limits(demands, tuple(supplies))),
    )


def within_reach(bounds: Bounds, current: Mapping[str, float], max_change: float) -> Bounds:
    """Return the bounds narrowed to weights that differ from the mixture in force by at most `max_change`.

    What the other bounds ask for, pins and groups among them, goes first: where they have moved away from the mixture
    in force, the distance is taken from the nearest mixture inside them. So there is always a mixture left.

    Args:
        bounds: of the coming chunk.
        current: the weights in force, by domain.
        max_change: δ of `|w_j − current_j| ≤ δ`.
    """
    current_K = bounds.project(np.array([current[domain] for domain in bounds.domains]))

    def nearer(limit: Limit, reach: float, tighter: bool) -> Limit:
        return Limit(reach, "change", "optimize.max_change") if tighter else limit

    reaches = [(weight - max_change, weight + max_change) for weight in current_K.tolist()]
    return Bounds(
        domains=bounds.domains,
        lower=tuple(
            nearer(limit, low, low > limit.weight) for limit, (low, _) in zip(bounds.lower, reaches, strict=True)
        ),
        upper=tuple(
            nearer(limit, high, high < limit.weight) for limit, (_, high) in zip(bounds.upper, reaches, strict=True)
        ),
        groups=bounds.groups,
    )


def unlimited_bounds(
    parameters: BoundsParameters, domains: Iterable[str], current: Mapping[str, float] | None = None
) -> Bounds:
    """Return the user's bounds alone, as if there were text of every domain without end.

    Args:
        parameters: as in `mixture_bounds`.
        domains: the names there are.
        current: as in `mixture_bounds`.

    Raises:
        TikmixError: as in `mixture_bounds`.
    """
    return mixture_bounds(parameters, {domain: Supply(math.inf) for domain in domains}, 1, current)


def require_supply(parameters: RepetitionParameters, available: Mapping[str, int], run_tokens: int) -> None:
    """Refuse a run that is longer than all text read `max_epochs` times.

    Args:
        available: training tokens of each domain.
        run_tokens: training tokens of all rounds together.

    Raises:
        TikmixError: naming the least `optimize.max_epochs` that would do.
    """
    total = sum(available.values())
    if run_tokens > parameters.max_epochs * total:
        raise TikmixError(
            f"All rounds together train on {run_tokens} tokens, but the corpus has {total}, which may be read "
            f"optimize.max_epochs = {parameters.max_epochs:.6g} times. Raise it to {round_up(run_tokens / total)}, "
            "train less (train.chunk_tokens, tikmix.rounds) or add text."
        )


def _tightest(demands: Iterable[Demand], domain: str) -> tuple[Limit, Limit]:
    """Return the bounds on one domain; of bounds as tight as each other a pin counts first, then the simplex."""
    lower, upper = [], []
    for demand in demands:
        if demand.kind == "group" or (domain,) not in demand.members:
            continue
        weight = float(demand.limits()[demand.members.index((domain,))])
        limit = Limit(weight, "repetition" if demand.kind == "repetition" else "user", demand.parameter)
        if demand.side != "most":
            lower.append(limit)
        if demand.side != "least":
            upper.append(limit)
    # a pin comes first among the demands, so that it is named where others ask for the same
    is_pinned = bool(lower and upper and lower[0] is upper[0])
    low = max([*lower, Limit(0.0)] if is_pinned else [Limit(0.0), *lower], key=lambda limit: limit.weight)
    high = min([*upper, Limit(1.0)] if is_pinned else [Limit(1.0), *upper], key=lambda limit: limit.weight)
    return low, high


def _is_roomy(limits: Sequence[tuple[Limit, Limit]]) -> bool:
    """Say whether a box holds a mixture, which takes no linear program."""
    least, most = math.fsum(low.weight for low, _ in limits), math.fsum(high.weight for _, high in limits)
    return least <= 1 + ROUNDING and most >= 1 - ROUNDING and all(low.weight <= high.weight for low, high in limits)


def _group_limits(demands: Iterable[Demand], domains: Sequence[str]) -> Iterator[GroupLimit]:
    for demand in demands:
        if demand.kind == "group":
            yield GroupLimit(
                name=demand.parameter.removeprefix("optimize.groups.").rpartition(".")[0],
                members=tuple(domains.index(domain) for domain in demand.members[0]),
                side="lower" if demand.side == "least" else "upper",
                limit=Limit(demand.value, "user", demand.parameter),
            )
