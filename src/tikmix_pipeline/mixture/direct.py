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

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tikmix_pipeline.mixture.bounds import Bounds
from tikmix_pipeline.mixture.deciding_effects import deciding_effects
from tikmix_pipeline.mixture.decision import Decision, binding_constraints, pareto_limits
from tikmix_pipeline.mixture.influence_matrix import (
    anchor_mixture,
    averaged_errors,
    averaged_influence,
    check_influence,
    contrast,
    gain_scale,
    normaliser,
    normaliser_notes,
)
from tikmix_pipeline.mixture.least_gains import LeastGains
from tikmix_pipeline.mixture.objective import Objective, Targets
from tikmix_pipeline.mixture.records import MixtureRecord, TokenBudget
from tikmix_pipeline.mixture.response import ResponseProblem, response_problem
from tikmix_pipeline.mixture.response_branches import BranchLosses, measured_response
from tikmix_pipeline.mixture.second_order import averaged_measurement
from tikmix_pipeline.mixture.simplex import FloatArray, by_name, check_mixture
from tikmix_pipeline.mixture.solver import minimise
from tikmix_pipeline.mixture.told_apart import why_nothing_is_told
from tikmix_pipeline.mixture.unconstrained import best_unconstrained, solution_notes
from tikmix_pipeline.parameters.decision import AveragingParameters, DirectParameters, FirstOrderParameters

if TYPE_CHECKING:
    import pandas as pd

_NO_CHANGE = 1e-9
"""How far a weight may move where nothing is decided; bounds that leave the current mixture out still move it."""


def decide_direct(
    budget: TokenBudget,
    prior: MixtureRecord,
    optimize: DirectParameters,
    averaging: AveragingParameters,
    influences: Sequence["pd.DataFrame"],
    products: Sequence["pd.DataFrame"] = (),
    branches: BranchLosses | None = None,
    ngram: Mapping[str, float] | None = None,
    parts: Sequence["pd.DataFrame"] = (),
) -> Decision:
    """Return what TiKMiX-D decides on the tables of influence of the rounds so far, oldest first.

    `products` are those of the domains with each other, which gains of second order rest on (`optimize.method`),
    `branches` what was trained to measure these, and `ngram` is the mixture that `optimize.anchor` may ask for. `parts`
    are the influence of the rounds' gradient chunks: where they do not tell domains apart, such gains decide nothing.

    Raises:
        TikmixError: as `solve_direct`, `response_problem` or `measured_response`, no mixture is within the bounds, or
            the rounds cannot be averaged.
    """
    problem = problem_of(budget, prior, optimize, averaging, influences, products, branches, ngram, parts)
    return problem.decision(optimize)


@dataclass(frozen=True, eq=False)
class Problem:
    """What a decision rests on, and how it is made of some tasks of that."""

    domains: Sequence[str]
    tasks: list[str]
    influence_TK: FloatArray
    """Averaged over the rounds; of gains of second order, their contrasts."""
    solve: Callable[[slice, DirectParameters], Decision]
    """Decides on these of the tasks, by such parameters."""
    nothing: str | None = None
    """Why nothing is decided, in a sentence, if so."""
    response: Callable[[slice, DirectParameters], ResponseProblem] | None = None
    """What is solved, where gains are of second order."""

    def decision(self, parameters: DirectParameters) -> Decision:
        """Return what is decided on all of the tasks; the current mixture where nothing is."""
        if self.nothing is None:
            return self.solve(slice(None), parameters)
        kept = {"max_change": _NO_CHANGE, "pareto": False, "guardrails": {}}
        found = self.solve(slice(None), parameters.model_copy(update=kept))
        return replace(found, binding=(), notes=(self.nothing, *found.notes))


def problem_of(
    budget: TokenBudget,
    prior: MixtureRecord,
    optimize: DirectParameters,
    averaging: AveragingParameters,
    influences: Sequence["pd.DataFrame"],
    products: Sequence["pd.DataFrame"] = (),
    branches: BranchLosses | None = None,
    ngram: Mapping[str, float] | None = None,
    parts: Sequence["pd.DataFrame"] = (),
) -> Problem:
    """Return what `decide_direct` solves; arguments and errors are its own."""
    if optimize.method == "paper":
        tasks, influence_TK = averaged_influence(influences, budget.domains, averaging)
        stderr_TK = averaged_errors(influences, budget.domains, averaging)
        _, now_K = _mixtures(budget, prior.weights)

        def by_paper(which: slice, parameters: DirectParameters) -> Decision:
            found = _decider(budget, prior.weights, parameters, tasks[which], ngram)(influence_TK[which])
            return replace(found, effects=deciding_effects(influence_TK[which], now_K, stderr_TK=stderr_TK[which]))

        return Problem(budget.domains, tasks, influence_TK, by_paper)
    prior_K, current_K = _mixtures(budget, prior.weights)
    averaged, together = averaged_measurement(influences, products, budget.domains, averaging, prior_K)
    counts_T = np.abs(averaged.contrast_TK).max(axis=1) > 0
    share_T = Targets.of(averaged.tasks, counts_T, optimize).task_shares()
    shares = by_name(averaged.tasks, share_T)
    nothing = why_nothing_is_told(parts, shares) if parts else None
    measured = None
    if branches is not None:
        measured = measured_response(
            branches,
            shares=shares,
            mean_K=share_T @ averaged.contrast_TK,
            curved_KK=together.curved_KK,
            domains=budget.domains,
            rule=optimize.saturation,
        )

    def by_response(which: slice, parameters: DirectParameters) -> ResponseProblem:
        return response_problem(
            averaged.contrast_TK[which],
            together,
            prior_K,
            budget.step_bounds(parameters),
            parameters,
            domains=budget.domains,
            tasks=averaged.tasks[which],
            current_K=current_K,
            measured=measured,
            stderr_TK=averaged.stderr_TK[which],
            ngram_K=_ngram(budget, ngram),
        )

    def solved(which: slice, parameters: DirectParameters) -> Decision:
        return by_response(which, parameters).decision()

    return Problem(budget.domains, averaged.tasks, averaged.contrast_TK, solved, nothing, by_response)


def implied_mixture(
    budget: TokenBudget, prior: Mapping[str, float], optimize: FirstOrderParameters, tasks: Sequence[str]
) -> Callable[[FloatArray], FloatArray]:
    """Return what makes a mixture of one round's influence, for a measurement that grows until the mixture is stable.

    Earlier rounds are left out: with them (`tikmix.memory`) the decision is steadier still. It is the paper's mixture,
    whatever decides in the end: influence that leaves one still leaves the other still. So does an anchor; of n-gram
    models nothing is known here, and the current mixture stands for theirs.
    """
    decide = _decider(budget, prior, optimize, tasks, budget.current)
    return lambda influence_TK: decide(influence_TK).weights_K


def _decider(
    budget: TokenBudget,
    prior: Mapping[str, float],
    optimize: FirstOrderParameters,
    tasks: Sequence[str],
    ngram: Mapping[str, float] | None,
) -> Callable[[FloatArray], Decision]:
    """Return `solve_direct` under a run's own bounds; the arguments are those of `decide_direct`."""
    prior_K, current_K = _mixtures(budget, prior)
    return partial(
        solve_direct,
        prior_K=prior_K,
        bounds=budget.step_bounds(optimize),
        parameters=optimize,
        domains=budget.domains,
        tasks=tasks,
        current_K=current_K,
        ngram_K=_ngram(budget, ngram),
    )


def _ngram(budget: TokenBudget, ngram: Mapping[str, float] | None) -> FloatArray | None:
    return None if ngram is None else check_mixture(ngram, budget.domains, "the mixture of n-gram models")


def _mixtures(budget: TokenBudget, prior: Mapping[str, float]) -> tuple[FloatArray, FloatArray]:
    """Return the prior and the current mixture."""
    prior_K = check_mixture(prior, budget.domains, "the prior mixture")
    return prior_K, check_mixture(budget.current, budget.domains, "the current mixture")


def solve_direct(
    influence_TK: FloatArray,
    prior_K: FloatArray,
    bounds: Bounds,
    parameters: FirstOrderParameters,
    *,
    domains: Sequence[str],
    tasks: Sequence[str],
    current_K: FloatArray | None = None,
    ngram_K: FloatArray | None = None,
) -> Decision:
    """Return the best mixture for an influence matrix, and why it is the best.

    Where the prior is outside the bounds, the Pareto constraint holds against the nearest mixture inside them.

    Args:
        influence_TK: S; positive where more of domain j lowers the loss of task t.
        prior_K: the mixture that no task may do worse than.
        bounds, parameters: over the same domains; α, β, γ, the targets, and whether the Pareto constraint holds.
        current_K, ngram_K: what `optimize.anchor` may ask for; without a current mixture the prior stands for it.

    Raises:
        TikmixError: an influence is not a finite number.
        ValueError: the arguments disagree about the domains, or there is no `ngram_K` to anchor to.
    """
    check_influence(influence_TK, tasks, domains)
    if tuple(domains) != bounds.domains:
        raise ValueError(f"influence is over the domains {tuple(domains)}, the bounds are over {bounds.domains}")
    normaliser_T = normaliser(influence_TK)
    counts_T: npt.NDArray[np.bool_] = np.abs(influence_TK).max(axis=1) > 0
    normalised_TK = influence_TK / normaliser_T[:, None]
    anchor_K = anchor_mixture(prior_K if current_K is None else current_K, parameters, ngram_K)
    objective = Objective.of(normalised_TK, Targets.of(tasks, counts_T, parameters), parameters, anchor_K)
    reference_K = bounds.project(prior_K)
    is_held_T = counts_T & parameters.pareto
    held = [tasks[t] for t in np.flatnonzero(is_held_T).tolist()]
    gains = LeastGains.linear(normalised_TK[is_held_T], reference_K)
    solution = minimise(objective, bounds, reference_K, gains=gains)
    binding = binding_constraints(solution, bounds, gains, pareto_limits(held, gains))
    unconstrained = best_unconstrained(objective, solution, bounds, binding, is_held=bool(held))
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
        notes=(*normaliser_notes(influence_TK, tasks), *solution_notes(solution, bounds, prior_K, reference_K)),
    )
