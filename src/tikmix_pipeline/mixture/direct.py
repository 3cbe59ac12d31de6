"""TiKMiX-D: the mixture of the next chunk, straight from the influence matrix.

    minimise    F(w) = α·std(P̂) − β·Σ_t P̂_t − γ·H(w)       with P = S w, P̂_t = P_t / n_t
    subject to  Σ_j w_j = 1,  low ≤ w ≤ high,  S w ≥ S w_prior task by task,  groups within their limits

as in arXiv 2508.17677, whose values are α = β = γ = 1, with T = 9 tasks, and no bounds but 0 and 1. Of the three terms
only the sum grows with T: with β = 1 the entropy drowns the gains of few tasks, and the default is β = 9/T. Tasks may
have weights and be grouped (`mixture.objective`); std and sum are then over those targets, and T is their number. With
neither std nor bounds nor Pareto constraints the solution is `w_j ∝ exp((β/γ) Σ_t S[t, j] / n_t)`. Some 20 ms for 26
domains and 9 tasks.

Axes: T tasks, U targets, K domains.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tikmix_pipeline.errors import quoted
from tikmix_pipeline.mixture.bounds import Bounds
from tikmix_pipeline.mixture.decision import VISIBLE, Decision, binding_constraints
from tikmix_pipeline.mixture.influence_matrix import (
    averaged_influence,
    check_influence,
    contrast,
    gain_scale,
    normaliser,
    normaliser_notes,
)
from tikmix_pipeline.mixture.objective import Objective, Targets
from tikmix_pipeline.mixture.records import BindingRecord, MixtureRecord, TokenBudget
from tikmix_pipeline.mixture.simplex import FloatArray, check_mixture
from tikmix_pipeline.mixture.solver import Solution, minimise
from tikmix_pipeline.parameters.decision import AveragingParameters, OptimizeParameters

if TYPE_CHECKING:
    import pandas as pd

_LEAST_ANCHOR = 0.01
"""The share of the uniform mixture in any anchor."""

_WORTH_SAYING = 1e-3
"""The share of the objective that may be left to gain without a note."""

_SAME = 1e-6
"""Mixtures whose objectives differ by no more than this share of it are as good as each other, as for the solver."""


def decide_direct(
    budget: TokenBudget,
    prior: MixtureRecord,
    optimize: OptimizeParameters,
    averaging: AveragingParameters,
    influences: Sequence["pd.DataFrame"],
) -> Decision:
    """Return what TiKMiX-D decides on the tables of influence of the rounds so far, oldest first.

    Raises:
        TikmixError: as `solve_direct`, no mixture is within the bounds, or the rounds cannot be averaged.
    """
    tasks, influence_TK = averaged_influence(influences, budget.domains, averaging)
    return _decider(budget, prior.weights, optimize, tasks)(influence_TK)


def implied_mixture(
    budget: TokenBudget, prior: Mapping[str, float], optimize: OptimizeParameters, tasks: Sequence[str]
) -> Callable[[FloatArray], FloatArray]:
    """Return what makes a mixture of one round's influence, for a measurement that grows until the mixture is stable.

    Earlier rounds are left out: with them (`tikmix.memory`) the decision is steadier still.
    """
    decide = _decider(budget, prior, optimize, tasks)
    return lambda influence_TK: decide(influence_TK).weights_K


def _decider(
    budget: TokenBudget, prior: Mapping[str, float], optimize: OptimizeParameters, tasks: Sequence[str]
) -> Callable[[FloatArray], Decision]:
    """Return `solve_direct` under a run's own bounds; the arguments are those of `implied_mixture`."""
    bounds = budget.step_bounds(optimize)
    prior_K = check_mixture(prior, budget.domains, "the prior mixture")
    current_K = check_mixture(budget.current, budget.domains, "the current mixture")
    return lambda influence_TK: solve_direct(
        influence_TK, prior_K, bounds, optimize, domains=budget.domains, tasks=tasks, current_K=current_K
    )


def solve_direct(
    influence_TK: FloatArray,
    prior_K: FloatArray,
    bounds: Bounds,
    parameters: OptimizeParameters,
    *,
    domains: Sequence[str],
    tasks: Sequence[str],
    current_K: FloatArray | None = None,
) -> Decision:
    """Return the best mixture for an influence matrix, and why it is the best.

    Where the prior is outside the bounds, the Pareto constraint holds against the nearest mixture inside them.

    Args:
        influence_TK: S; positive where more of domain j lowers the loss of task t.
        prior_K: the mixture that no task may do worse than.
        bounds: over the same domains.
        parameters: α, β, γ, the targets, and whether the Pareto constraint holds.
        current_K: the current mixture, where `optimize.anchor` asks for it; None stands for the prior.

    Raises:
        TikmixError: an influence is not a finite number.
        ValueError: the arguments disagree about the domains.
    """
    check_influence(influence_TK, tasks, domains)
    if tuple(domains) != bounds.domains:
        raise ValueError(f"influence is over the domains {tuple(domains)}, the bounds are over {bounds.domains}")
    normaliser_T = normaliser(influence_TK)
    counts_T: npt.NDArray[np.bool_] = np.abs(influence_TK).max(axis=1) > 0
    normalised_TK = influence_TK / normaliser_T[:, None]
    anchor_K = _anchor(prior_K if current_K is None else current_K, parameters)
    objective = Objective.of(normalised_TK, Targets.of(tasks, counts_T, parameters), parameters, anchor_K)
    reference_K = bounds.project(prior_K)
    is_held_T = counts_T & parameters.pareto
    no_worse_TK, held = normalised_TK[is_held_T], [tasks[t] for t in np.flatnonzero(is_held_T).tolist()]
    solution = minimise(objective, bounds, reference_K, no_worse_TK=no_worse_TK)
    binding = binding_constraints(solution, bounds, no_worse_TK, reference_K, held)
    unconstrained = _unconstrained(objective, solution, bounds, binding, is_held=bool(held))
    return Decision(
        domains=tuple(domains),
        tasks=tuple(tasks),
        weights_K=solution.weights_K,
        prior_K=prior_K,
        reference_K=reference_K,
        expected_gain_T=influence_TK @ (solution.weights_K - prior_K),
        gain_scale_T=gain_scale(contrast(influence_TK, prior_K)),
        normalised_gain_T=influence_TK @ solution.weights_K / normaliser_T,
        normaliser_T=normaliser_T,
        objective=solution.value,
        terms=objective.terms(solution.weights_K),
        optimality_gap=solution.gap,
        binding=binding,
        unconstrained_K=unconstrained.weights_K,
        unconstrained_gain_T=influence_TK @ (unconstrained.weights_K - prior_K),
        unconstrained_objective=unconstrained.value,
        anchor_K=anchor_K,
        notes=(*normaliser_notes(influence_TK, tasks), *_notes(solution, bounds, prior_K, reference_K)),
    )


def _anchor(current_K: FloatArray, parameters: OptimizeParameters) -> FloatArray | None:
    # a little of every domain, so that one that was left out may come back
    return None if parameters.anchor == "uniform" else (1 - _LEAST_ANCHOR) * current_K + _LEAST_ANCHOR / len(current_K)


def _unconstrained(
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


def _notes(solution: Solution, bounds: Bounds, prior_K: FloatArray, reference_K: FloatArray) -> Iterator[str]:
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
