"""Which constraints a solution leans on, and what each of them costs.

Axes: T tasks, K domains, G limits on groups.
"""

from collections.abc import Iterator, Sequence
from typing import Literal

from tikmix_pipeline.mixture.bounds import Bounds
from tikmix_pipeline.mixture.decision import Binding
from tikmix_pipeline.mixture.simplex import FloatArray
from tikmix_pipeline.mixture.solver import Solution

VISIBLE = 1e-6
"""A constraint binds if it has no more room than this and loosening it would pay by more than this per unit."""

_KINDS: dict[str, Literal["group_lower", "group_upper"]] = {"lower": "group_lower", "upper": "group_upper"}


def binding_constraints(
    solution: Solution, bounds: Bounds, no_worse_TK: FloatArray, reference_K: FloatArray, tasks: Sequence[str]
) -> tuple[Binding, ...]:
    """Return the constraints that bind, dearest first.

    Args:
        solution: of `minimise` with the arguments that follow.
        bounds: the box of weights and the limits on groups.
        no_worse_TK: the influence on tasks that may not gain less than under the reference.
        reference_K: that mixture.
        tasks: names of axis T.
    """
    found = [*_bounds(solution, bounds), *_groups(solution, bounds), *_tasks(solution, no_worse_TK, reference_K, tasks)]
    return tuple(sorted(found, key=lambda constraint: -constraint.price))


def _bounds(solution: Solution, bounds: Bounds) -> Iterator[Binding]:
    """Yield the bounds on weights that bind."""
    for k, domain in enumerate(bounds.domains):
        low, high = bounds.lower[k], bounds.upper[k]
        weight, price = solution.weights_K[k], float(solution.bound_prices_K[k])
        if weight - low.weight <= VISIBLE and price > VISIBLE:
            yield Binding(domain, "lower", low.reason, low.parameter, low.weight, price)
        elif high.weight - weight <= VISIBLE and -price > VISIBLE:
            yield Binding(domain, "upper", high.reason, high.parameter, high.weight, -price)


def _groups(solution: Solution, bounds: Bounds) -> Iterator[Binding]:
    """Yield the limits on groups that bind."""
    halfspaces = bounds.halfspaces()
    room_G = halfspaces.rows_GK @ solution.weights_K - halfspaces.least_G
    for group, room, price in zip(bounds.groups, room_G.tolist(), solution.group_prices_G.tolist(), strict=True):
        if room <= VISIBLE and price > VISIBLE:
            limit = group.limit
            yield Binding(group.name, _KINDS[group.side], limit.reason, limit.parameter, limit.weight, price)


def _tasks(
    solution: Solution, normalised_TK: FloatArray, reference_K: FloatArray, tasks: Sequence[str]
) -> Iterator[Binding]:
    """Yield the tasks whose Pareto constraint binds."""
    least_gains_T = normalised_TK @ reference_K
    room_T = normalised_TK @ solution.weights_K - least_gains_T
    for task, least, room, price in zip(tasks, least_gains_T, room_T, solution.gain_prices_T, strict=True):
        if room <= VISIBLE and price > VISIBLE:
            yield Binding(task, "pareto", "prior", "optimize.pareto", float(least), float(price))
