"""What stands beside a solution: the best of all mixtures, if nothing held it, and what a reader should know."""

from collections.abc import Iterator, Sequence

import numpy as np

from tikmix_pipeline.errors import quoted
from tikmix_pipeline.mixture.bounds import Bounds
from tikmix_pipeline.mixture.decision import VISIBLE
from tikmix_pipeline.mixture.objective import Objective
from tikmix_pipeline.mixture.records import BindingRecord
from tikmix_pipeline.mixture.simplex import FloatArray
from tikmix_pipeline.mixture.solver import Solution, minimise

_WORTH_SAYING = 1e-3
"""The share of the objective that may be left to gain without a note."""

_SAME = 1e-6
"""Mixtures whose objectives differ by no more than this share of it are as good as each other, as for the solver."""


def best_unconstrained(
    objective: Objective, solution: Solution, bounds: Bounds, binding: Sequence[BindingRecord], *, is_held: bool
) -> Solution:
    """Return the best of all mixtures: the solution where that is proven, else what a search without constraints finds.

    That nothing seems to bind proves nothing: multipliers are not always to be had.
    """
    free_bounds = Bounds.simplex(bounds.domains)
    unit = max(1.0, abs(solution.value))
    binds = any(constraint.reason != "simplex" for constraint in binding)
    if not binds:
        # by how little any mixture's F could be lower, whatever held the solution
        bound = objective.lower_bound(
            solution.weights_K,
            objective.sum_multiplier(solution.weights_K),
            np.zeros(0),
            constraints=free_bounds.halfspaces(),
            box=free_bounds.box(),
        )
        is_unheld = not is_held and bounds == free_bounds and solution.gap <= _WORTH_SAYING * unit
        if is_unheld or solution.value - bound <= _SAME * unit:
            return solution
    free = minimise(objective, free_bounds, solution.weights_K)
    least = 0 if binds else _SAME * unit
    return free if solution.value - free.value > least else solution


def solution_notes(solution: Solution, bounds: Bounds, prior_K: FloatArray, reference_K: FloatArray) -> Iterator[str]:
    """Say what a reader should know of a solution: where it is measured from, and what is not proven of it."""
    low_K, high_K = bounds.box()
    halfspaces = bounds.halfspaces()
    beyond_K = (prior_K < low_K - VISIBLE) | (prior_K > high_K + VISIBLE)
    beyond_G = halfspaces.rows_GK @ prior_K < halfspaces.least_G - VISIBLE
    if beyond_K.any() or beyond_G.any():
        beyond = [domain for domain, is_beyond in zip(bounds.domains, beyond_K, strict=True) if is_beyond]
        beyond += [group.name for group, is_beyond in zip(bounds.groups, beyond_G, strict=True) if is_beyond]
        yield (
            f"The prior is outside the bounds on {quoted(beyond)}: no task does worse than under the nearest mixture "
            "inside them instead."
        )
    if solution.gap > _WORTH_SAYING * max(1.0, abs(solution.value)):
        yield (
            f"The solver could not prove its mixture the best: the objective, {solution.value:.6g}, might be lower by "
            f"up to {solution.gap:.2g}."
        )
    elif np.allclose(solution.weights_K, reference_K, rtol=0, atol=VISIBLE):
        yield "No mixture within the constraints is better than the prior inside the bounds, so that is kept."
