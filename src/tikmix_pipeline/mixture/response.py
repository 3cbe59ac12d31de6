"""TiKMiX-D on gains of second order (`optimize.method=response`), with guardrails.

    maximise    β Σ_u ω_u P̂_u(w) − α·std + γ·H(w)            with P̂_t = gain_t / n_t of `mixture.second_order`
    subject to  Σ_j w_j = 1,  low ≤ w ≤ high,  groups within their limits
                gain_t(w) ≥ 0 task by task (`optimize.pareto`), and the guardrails (`mixture.guardrails`)

n_t is the most that any mixture could gain on the task t over the prior, so that P̂_t = 1 is the best possible; a
constant added to a row of S changes neither. (A task that has next to nothing to gain is divided by a share of its
largest influence.) α and γ are 0 unless they are set, and std is then of the linear parts of P̂: it is the curvature
that keeps the mixture from one corner, in units that were measured. The problem is convex, and its solution is proven
as the paper's is.

Axes: T tasks, U targets, K domains, C constraints.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from tikmix_pipeline.mixture.bounds import Bounds, Limit
from tikmix_pipeline.mixture.decision import Decision, binding_constraints, pareto_limits
from tikmix_pipeline.mixture.guardrails import GuardedText, as_least_gains, guarded_texts, in_sentences
from tikmix_pipeline.mixture.influence_matrix import anchor_mixture, check_influence, contrast, magnitude
from tikmix_pipeline.mixture.least_gains import LeastGains
from tikmix_pipeline.mixture.objective import Objective, Targets
from tikmix_pipeline.mixture.records import (
    BindingKind,
    BindingRecord,
    ExpectedGain,
    GuardrailRecord,
    SecondOrderRecord,
)
from tikmix_pipeline.mixture.response_fit import MeasuredResponse, coordinates
from tikmix_pipeline.mixture.second_order import DomainProducts, second_order_gains
from tikmix_pipeline.mixture.simplex import FloatArray, by_name
from tikmix_pipeline.mixture.solver import Solution, minimise
from tikmix_pipeline.mixture.unconstrained import best_unconstrained, solution_notes
from tikmix_pipeline.parameters.decision import DirectParameters

LEVEL = 0.9
"""Of the interval that an expected gain is told with."""

_LEAST = 0.05
"""The least best gain of a task, as a share of the largest influence of a domain on it. A smaller one, as of a task
that the prior serves well already, would make noise of it outvote the others."""

_GAINS = 1e-3
"""A best gain below this share is none."""


def solve_response(
    influence_TK: FloatArray,
    products: DomainProducts,
    prior_K: FloatArray,
    bounds: Bounds,
    parameters: DirectParameters,
    *,
    domains: Sequence[str],
    tasks: Sequence[str],
    current_K: FloatArray | None = None,
    measured: MeasuredResponse | None = None,
) -> Decision:
    """Return the best mixture to second order, and why it is the best.

    Where the prior is outside the bounds, Pareto constraint and guardrails hold against the nearest mixture inside.

    Args:
        influence_TK: S; positive where more of domain j lowers the loss of task t.
        products: of the domains among themselves, in the units of S.
        prior_K: the mixture that gains are over.
        bounds: over the same domains.
        parameters: the targets, the guardrails, r, and whether the Pareto constraint holds.
        current_K: the current mixture; None stands for the prior.
        measured: what branches of the checkpoint have told; None takes r from the parameters, and knows no nats.

    Raises:
        TikmixError: an influence is not a finite number, or as `guarded_texts`.
        ValueError: the arguments disagree about the domains.
    """
    check_influence(influence_TK, tasks, domains)
    if tuple(domains) != bounds.domains:
        raise ValueError(f"influence is over the domains {tuple(domains)}, the bounds are over {bounds.domains}")
    now_K = prior_K if current_K is None else current_K
    problem = _Problem(influence_TK, products, prior_K, now_K, bounds, parameters, tuple(tasks), measured)
    return problem.decision()


@dataclass(frozen=True, eq=False)
class _Solved:
    """The best mixture, and what it is held against."""

    best: Solution
    unguarded: Solution
    unconstrained: Solution
    binding: tuple[BindingRecord, ...]


@dataclass(frozen=True, eq=False)
class _Problem:
    """What is given, and the parts of the decision."""

    influence_TK: FloatArray
    products: DomainProducts
    prior_K: FloatArray
    now_K: FloatArray
    bounds: Bounds
    parameters: DirectParameters
    tasks: tuple[str, ...]
    measured: MeasuredResponse | None

    def decision(self) -> Decision:
        """Solve the problem and say what came of it."""
        solved = self._solve()
        weights_K, free_K = solved.best.weights_K, solved.unconstrained.weights_K
        gain_T, best_T = self._gains(self.influence_TK, weights_K), self._scale
        second_order = self._record(solved)
        notes = solution_notes(solved.best, self.bounds, self.prior_K, self._reference)
        return Decision(
            domains=self.bounds.domains,
            tasks=self.tasks,
            weights_K=weights_K,
            prior_K=self.prior_K,
            reference_K=self._reference,
            expected_gain_T=gain_T,
            gain_scale_T=best_T,
            normalised_gain_T=gain_T / best_T,
            normaliser_T=best_T,
            objective=solved.best.value,
            terms=self._objective.terms(weights_K),
            optimality_gap=solved.best.gap,
            binding=solved.binding,
            unconstrained_K=free_K,
            unconstrained_gain_T=self._gains(self.influence_TK, free_K),
            unconstrained_objective=solved.unconstrained.value,
            anchor_K=self._objective.anchor_K,
            second_order=second_order,
            notes=(*in_sentences(second_order), *self._notes(), *notes),
        )

    def _solve(self) -> _Solved:
        held_T = self._counts & self.parameters.pareto
        pareto = self._pareto(held_T)
        gains = pareto.joined(self._guards())
        best = minimise(self._objective, self.bounds, self._reference, gains=gains)
        held = [self.tasks[t] for t in np.flatnonzero(held_T).tolist()]
        limits = [*pareto_limits(held, pareto), *_guardrail_limits(self._guarded)]
        binding = binding_constraints(best, self.bounds, gains, limits)
        is_guarded = any(constraint.kind == "guardrail" for constraint in binding)
        unguarded = minimise(self._objective, self.bounds, self._reference, gains=pareto) if is_guarded else best
        free = best_unconstrained(self._objective, best, self.bounds, binding, is_held=bool(len(gains)))
        return _Solved(best, unguarded, free, binding)

    @cached_property
    def _saturation(self) -> float:
        return self.parameters.saturation if self.measured is None else self.measured.fitted.saturation

    @cached_property
    def _reference(self) -> FloatArray:
        return self.bounds.project(self.prior_K)

    @cached_property
    def _contrast(self) -> FloatArray:
        return contrast(self.influence_TK, self.prior_K)

    @cached_property
    def _counts(self) -> npt.NDArray[np.bool_]:
        counts_T: npt.NDArray[np.bool_] = np.abs(self._contrast).max(axis=1) > 0
        return counts_T

    @cached_property
    def _targets(self) -> Targets:
        return Targets.of(self.tasks, self._counts, self.parameters)

    @cached_property
    def _mean(self) -> FloatArray:
        """The influence on the mean of the targets, in the units of S."""
        mean_K: FloatArray = self._targets.task_shares() @ self._contrast
        return mean_K

    @cached_property
    def _best_gains(self) -> FloatArray:
        """The most that any mixture could gain on each task over the prior, (T,)."""
        largest_T = magnitude(self._contrast)
        free, best_T = Bounds.simplex(self.bounds.domains), largest_T.copy()
        bent_KK = self._saturation * self.products.curved_KK
        for t, (row_K, largest) in enumerate(zip(self._contrast, largest_T, strict=True)):
            objective = Objective(row_K[None] / largest, 0.0, 1.0, 0.0, curved_KK=bent_KK / largest)
            best = minimise(objective, free, self.prior_K).weights_K
            best_T[t] = float(self._gains(row_K[None], best)[0])
        return best_T

    @cached_property
    def _scale(self) -> FloatArray:
        """n, what gains are shares of, (T,)."""
        scale_T: FloatArray = np.maximum(self._best_gains, _LEAST * magnitude(self._contrast))
        return scale_T

    @cached_property
    def _objective(self) -> Objective:
        """F over the targets, in shares of the best possible."""
        scale_T = self._scale
        curved_TKK = self._saturation * self.products.curved_KK / scale_T[:, None, None]
        anchor_K = anchor_mixture(self.now_K, self.parameters)
        return Objective.of(self._contrast / scale_T[:, None], self._targets, self.parameters, anchor_K, curved_TKK)

    @cached_property
    def _guarded(self) -> list[GuardedText]:
        found = guarded_texts(
            self.parameters.guardrails,
            domains=self.bounds.domains,
            tasks=self.tasks,
            influence_TK=self.influence_TK,
            heldout_KK=self.products.heldout_KK,
            measured=self.measured,
        )
        return list(found)

    def _gains(self, rows_TK: FloatArray, weights_K: FloatArray) -> FloatArray:
        """Return the gain of each row over the prior, (T,)."""
        weights_1K, curved_KK = weights_K[None], self.products.curved_KK
        gain_T: FloatArray = second_order_gains(rows_TK, curved_KK, self._saturation, weights_1K, self.prior_K)[0]
        return gain_T

    def _pareto(self, held_T: npt.NDArray[np.bool_]) -> LeastGains:
        """Return that no task which is held may gain less than under the reference."""
        scale_T = self._scale[held_T]
        return LeastGains(
            self._contrast[held_T] / scale_T[:, None],
            self._reference,
            np.zeros(len(scale_T)),
            self._saturation / scale_T,
            self.products.curved_KK,
        )

    def _guards(self) -> LeastGains:
        """Return the guardrails in the unit of the tasks' mean influence, so that prices do not depend on that of S."""
        guards = as_least_gains(
            self._guarded,
            self._mean,
            self._reference,
            saturation=self._saturation,
            curved_KK=self.products.curved_KK,
        )
        zeros_C = np.zeros(len(guards))
        return guards.scaled(zeros_C, zeros_C + magnitude(self._mean[None]))

    def _record(self, solved: _Solved) -> SecondOrderRecord:
        """Return what is expected of held-out text, of other mixtures, and over the current one."""
        best_K, unguarded_K = solved.best.weights_K, solved.unguarded.weights_K

        def gain(row_K: FloatArray, weights_K: FloatArray) -> float:
            return float(self._gains(row_K[None], weights_K)[0])

        guarded = (
            GuardrailRecord(
                name=text.name,
                tolerance=text.guardrail.tolerance,
                unit=text.guardrail.unit,
                gain=gain(text.row_K, best_K),
                unguarded_gain=gain(text.row_K, unguarded_K),
            )
            for text in self._guarded
        )
        now_T, best_T, free_T = (
            self._gains(self.influence_TK, weights_K)
            for weights_K in (self.now_K, best_K, solved.unconstrained.weights_K)
        )
        return SecondOrderRecord(
            saturation=self._saturation,
            heldout_gain=by_name(self.bounds.domains, self._gains(self.products.heldout_KK, best_K)),
            gain_over_current=by_name(self.tasks, best_T - now_T),
            unconstrained_gain_over_current=by_name(self.tasks, free_T - now_T),
            mean_gain=gain(self._mean, best_K),
            unguarded_mean_gain=gain(self._mean, unguarded_K),
            guardrails=tuple(guarded),
            **self._in_nats(best_K),
        )

    def _in_nats(self, weights_K: FloatArray) -> dict[str, Any]:
        """Return what branches let say in nats, nothing without them."""
        if self.measured is None:
            return {}
        fitted = self.measured.fitted
        if not fitted.is_told:
            return {"branches": self.measured.branches}
        at = coordinates(self._mean, self.products.curved_KK, weights_K[None], self.prior_K)
        nats, half_width = float(fitted.mean_gain(*at)[0]), float(fitted.half_width(*at, LEVEL)[0])
        expected = ExpectedGain(nats=nats, half_width=half_width, level=LEVEL)
        return {"scale": fitted.scale, "branches": self.measured.branches, "expected": expected}

    def _notes(self) -> Iterator[str]:
        """Say which tasks have nothing to gain, and if branches have told nothing."""
        if self.measured is not None and not self.measured.fitted.is_told:
            yield (
                f"The {self.measured.branches} branches differ by no more than their noise, so they do not tell what a "
                f"gain is in nats: optimize.saturation stands, {self._saturation:g}. More or longer branches would."
            )
        largest_T = magnitude(self._contrast)
        for task, row_K, best, largest in zip(self.tasks, self._contrast, self._best_gains, largest_T, strict=True):
            if not row_K.any():
                yield f"No domain influences the task '{task}': it is left out of the decision."
            elif best <= _GAINS * largest:
                yield f"No mixture is better for the task '{task}' than the prior."


def _guardrail_limits(texts: Sequence[GuardedText]) -> Iterator[tuple[str, BindingKind, Limit]]:
    for text in texts:
        limit = Limit(text.guardrail.tolerance, "prior", f"optimize.guardrails.{text.name}")
        yield text.name, "guardrail", limit
