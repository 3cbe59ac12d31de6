"""TiKMiX-D on gains of second order (`optimize.method=response`), with guardrails.

    maximise    β Σ_u ω_u P̂_u(w) − α·std + γ·H(w)            with P̂_t = gain_t / n of `mixture.second_order`
    subject to  Σ_j w_j = 1,  low ≤ w ≤ high,  groups within their limits
                gain_t(w) ≥ 0 task by task (`optimize.pareto`), and the guardrails (`mixture.guardrails`)

n_t is the most that any mixture could gain on the task t over the prior, so that gain_t / n_t = 1 is the best possible,
and gains are told so; a constant added to a row of S changes neither. (A task that has next to nothing to gain is
divided by a share of its largest influence.) n is the mean of n_t over the targets, which leaves the mean of the gains
as it is, or n_t itself (`optimize.normaliser`). α and γ are 0 unless they are set, and std is then of the linear parts
of P̂, where a soft minimum (`mixture.fairness`) is of P̂ itself: it is the curvature that keeps the mixture from one
corner, in units that were measured. The problem is convex, and its solution is proven as the paper's is.

Axes: T tasks, U targets, K domains, C constraints.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from tikmix_pipeline.mixture.bounds import Bounds
from tikmix_pipeline.mixture.deciding_effects import deciding_effects
from tikmix_pipeline.mixture.decision import VISIBLE, Decision, binding_constraints, pareto_limits
from tikmix_pipeline.mixture.guardrail_room import Room
from tikmix_pipeline.mixture.guardrail_words import guardrail_sentences
from tikmix_pipeline.mixture.guardrails import (
    GuardedText,
    Told,
    gains_of_domains,
    guarded_texts,
    guardrail_constraints,
    guardrail_limits,
)
from tikmix_pipeline.mixture.influence_matrix import anchor_mixture, check_influence, contrast, magnitude
from tikmix_pipeline.mixture.least_gains import LeastGains
from tikmix_pipeline.mixture.objective import Objective, Targets
from tikmix_pipeline.mixture.own_share import TextGain, own_logarithms
from tikmix_pipeline.mixture.records import (
    BindingRecord,
    GuardrailRecord,
    SecondOrderRecord,
)
from tikmix_pipeline.mixture.response_branches import in_nats
from tikmix_pipeline.mixture.response_fit import MeasuredResponse
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


def response_problem(
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
    stderr_TK: FloatArray | None = None,
    ngram_K: FloatArray | None = None,
) -> "ResponseProblem":
    """Return the problem of second order that a decision solves.

    Where the prior is outside the bounds, Pareto constraint and guardrails hold against the nearest mixture inside.

    Args:
        influence_TK: S; positive where more of domain j lowers the loss of task t.
        products: of the domains among themselves, in the units of S.
        prior_K: the mixture that gains are over.
        bounds: over the same domains.
        parameters: the targets, the guardrails, r, and whether the Pareto constraint holds.
        current_K: the current mixture; None stands for the prior.
        measured: what branches of the checkpoint have told; None takes r from the parameters, and knows no nats.
        stderr_TK: the standard errors of S, where a guardrail on a task asks for them.
        ngram_K: the mixture of n-gram models, where `optimize.anchor` asks for it.

    Raises:
        TikmixError: an influence is not a finite number, or as `guarded_texts`.
        ValueError: the arguments disagree about the domains.
    """
    check_influence(influence_TK, tasks, domains)
    if tuple(domains) != bounds.domains:
        raise ValueError(f"influence is over the domains {tuple(domains)}, the bounds are over {bounds.domains}")
    now_K = prior_K if current_K is None else current_K
    if measured is not None and parameters.heldout_strength != "auto":
        measured = replace(measured, heldout=None)
    told = Told(
        domains=domains,
        tasks=tasks,
        influence_TK=influence_TK,
        heldout_KK=products.heldout_KK,
        heldout_strength=parameters.text_strength,
        log_KK=own_logarithms(products.heldout_KK, prior_K) if parameters.heldout_response == "logarithm" else None,
        prior_K=prior_K,
        saturation=parameters.saturation if measured is None else measured.fitted.saturation,
        curved_KK=products.curved_KK,
        measured=measured,
        influence_stderr_TK=stderr_TK,
        heldout_stderr_KK=products.heldout_stderr_KK,
    )
    anchor_K = anchor_mixture(now_K, parameters, ngram_K)
    return ResponseProblem(influence_TK, products, prior_K, now_K, anchor_K, bounds, parameters, told)


@dataclass(frozen=True, eq=False)
class _Solved:
    """The best mixture, and what it is held against."""

    best: Solution
    texts: list[GuardedText]
    price_C: FloatArray
    """Of each guardrail, the multiplier in the unit of the constraint."""
    unguarded: Solution
    unconstrained: Solution
    binding: tuple[BindingRecord, ...]


@dataclass(frozen=True, eq=False)
class ResponseProblem:
    """What is given, and the parts of the decision."""

    influence_TK: FloatArray
    products: DomainProducts
    prior_K: FloatArray
    now_K: FloatArray
    anchor_K: FloatArray | None
    bounds: Bounds
    parameters: DirectParameters
    told: Told

    def decision(self) -> Decision:
        """Solve the problem and say what came of it."""
        solved = self._solve()
        weights_K, free_K = solved.best.weights_K, solved.unconstrained.weights_K
        gain_T, best_T = self._gains(self.influence_TK, weights_K), self.scale
        second_order = self._record(solved)
        notes = solution_notes(solved.best, self.bounds, self.prior_K, self._reference)
        return Decision(
            domains=self.bounds.domains,
            tasks=tuple(self.told.tasks),
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
            anchor_K=self.anchor_K,
            second_order=second_order,
            effects=deciding_effects(
                self.influence_TK,
                self.now_K,
                curved_KK=self.products.curved_KK,
                saturation=self.saturation,
                stderr_TK=self.told.influence_stderr_TK,
            ),
            guardrail_notes=tuple(guardrail_sentences(second_order, solved.best.value)),
            notes=(*self._notes(), *notes, *self._room_notes(solved.texts)),
        )

    def _solve(self) -> _Solved:
        held = [self.told.tasks[t] for t in np.flatnonzero(self._held).tolist()]
        gains = self._pareto.joined(self._guards(self.texts))
        best = minimise(self._objective, self.bounds, self._reference, gains=gains)
        limits = [*pareto_limits(held, self._pareto), *guardrail_limits(self.texts)]
        binding = binding_constraints(best, self.bounds, gains, limits)
        is_guarded = any(constraint.kind == "guardrail" for constraint in binding)
        free = best_unconstrained(self._objective, best, self.bounds, binding, is_held=bool(len(gains)))
        without = self._unguarded if is_guarded else best
        return _Solved(best, self.texts, best.gain_multipliers_T[len(held) :], without, free, binding)

    @cached_property
    def _unguarded(self) -> Solution:
        return minimise(self._objective, self.bounds, self._reference, gains=self._pareto)

    @property
    def _asks_for_errors(self) -> bool:
        return any(one is not None and one.unit == "stderr" for one in self.parameters.guardrails.values())

    @property
    def saturation(self) -> float:
        """Return r."""
        return self.told.saturation

    @cached_property
    def _reference(self) -> FloatArray:
        return self.bounds.project(self.prior_K)

    @cached_property
    def contrasts(self) -> FloatArray:
        """Return the influence beyond what the prior does, (T, K), in the units of S."""
        return contrast(self.influence_TK, self.prior_K)

    @cached_property
    def counts(self) -> npt.NDArray[np.bool_]:
        """Return whether a task tells mixtures apart, (T,)."""
        counts_T: npt.NDArray[np.bool_] = np.abs(self.contrasts).max(axis=1) > 0
        return counts_T

    @cached_property
    def _targets(self) -> Targets:
        return Targets.of(self.told.tasks, self.counts, self.parameters)

    @cached_property
    def _mean(self) -> FloatArray:
        """The influence on the mean of the targets, in the units of S."""
        mean_K: FloatArray = self._targets.task_shares() @ self.contrasts
        return mean_K

    @cached_property
    def _best_gains(self) -> FloatArray:
        """The most that any mixture could gain on each task over the prior, (T,)."""
        largest_T = magnitude(self.contrasts)
        free, best_T = Bounds.simplex(self.bounds.domains), largest_T.copy()
        bent_KK = self.saturation * self.products.curved_KK
        for t, (row_K, largest) in enumerate(zip(self.contrasts, largest_T, strict=True)):
            objective = Objective(row_K[None] / largest, 0.0, 1.0, 0.0, curved_KK=bent_KK / largest)
            best = minimise(objective, free, self.prior_K).weights_K
            best_T[t] = float(self._gains(row_K[None], best)[0])
        return best_T

    @cached_property
    def scale(self) -> FloatArray:
        """n, what gains are shares of, (T,)."""
        scale_T: FloatArray = np.maximum(self._best_gains, _LEAST * magnitude(self.contrasts))
        return scale_T

    @cached_property
    def _unit(self) -> FloatArray:
        """What the gains of each task are divided by in the objective, (T,)."""
        if self.parameters.normaliser == "best":
            return self.scale
        return np.full_like(self.scale, float(self._targets.task_shares() @ self.scale) or 1.0)

    @cached_property
    def _objective(self) -> Objective:
        """F over the targets, in the unit that `optimize.normaliser` says."""
        scale_T = self._unit
        curved_TKK = self.saturation * self.products.curved_KK / scale_T[:, None, None]
        normalised_TK = self.contrasts / scale_T[:, None]
        return Objective.of(normalised_TK, self._targets, self.parameters, self.anchor_K, curved_TKK, self.prior_K)

    @cached_property
    def texts(self) -> list[GuardedText]:
        """Return what the guardrails ask; standard errors are those of the mixture that is the best without them."""
        moved_K = self._unguarded.weights_K - self._reference if self._asks_for_errors else None
        return list(guarded_texts(self.parameters.guardrails, replace(self.told, moved_K=moved_K)))

    def _gains(self, rows_TK: FloatArray, weights_K: FloatArray) -> FloatArray:
        """Return the gain of each row over the prior, (T,)."""
        weights_1K, curved_KK = weights_K[None], self.products.curved_KK
        gain_T: FloatArray = second_order_gains(rows_TK, curved_KK, self.saturation, weights_1K, self.prior_K)[0]
        return gain_T

    @cached_property
    def _held(self) -> npt.NDArray[np.bool_]:
        held_T: npt.NDArray[np.bool_] = self.counts & self.parameters.pareto
        return held_T

    @cached_property
    def _pareto(self) -> LeastGains:
        """Return that no task which is held may gain less than under the reference."""
        scale_T = self.scale[self._held]
        return LeastGains(
            self.contrasts[self._held] / scale_T[:, None],
            self._reference,
            np.zeros(len(scale_T)),
            self.saturation / scale_T,
            self.products.curved_KK,
        )

    def _guards(self, texts: Sequence[GuardedText]) -> LeastGains:
        return guardrail_constraints(
            [text.gain for text in texts],
            np.array([text.share for text in texts]),
            np.array([text.slack for text in texts]),
            mean_K=self._mean,
            reference_K=self._reference,
            saturation=self.saturation,
            curved_KK=self.products.curved_KK,
        )

    def _gain(self, row_K: FloatArray, weights_K: FloatArray) -> float:
        return float(self._gains(row_K[None], weights_K)[0])

    def _heldout_gains(self, weights_K: FloatArray) -> FloatArray:
        return np.array([self._of_text(gain, weights_K) for gain in gains_of_domains(self.told)])

    def _of_text(self, gain: TextGain, weights_K: FloatArray) -> float:
        return gain.over(weights_K, self.prior_K, self.saturation, self.products.curved_KK)

    def _record(self, solved: _Solved) -> SecondOrderRecord:
        """Return what is expected of held-out text, of other mixtures, and over the current one."""
        best_K, unguarded_K = solved.best.weights_K, solved.unguarded.weights_K
        now_T, best_T, free_T = (
            self._gains(self.influence_TK, weights_K)
            for weights_K in (self.now_K, best_K, solved.unconstrained.weights_K)
        )
        tasks, domains = self.told.tasks, self.bounds.domains
        return SecondOrderRecord(
            saturation=self.saturation,
            heldout_gain=by_name(domains, self._heldout_gains(best_K)),
            gain_over_current=by_name(tasks, best_T - now_T),
            unconstrained_gain_over_current=by_name(tasks, free_T - now_T),
            mean_influence=by_name(domains, self._mean),
            mean_gain=self._gain(self._mean, best_K),
            unguarded_mean_gain=self._gain(self._mean, unguarded_K),
            unguarded_objective=solved.unguarded.value,
            guardrails=tuple(self._guarded(solved)),
            **in_nats(self.told.measured, self._mean, self.products.curved_KK, best_K, self.prior_K, level=LEVEL),
        )

    def _guarded(self, solved: _Solved) -> Iterator[GuardrailRecord]:
        """Yield what each guardrail asks, what its text pays, and its price per unit of tolerance."""
        best_K, unguarded_K = solved.best.weights_K, solved.unguarded.weights_K
        binding = {one.name for one in solved.binding if one.kind == "guardrail"}
        of_tasks = self._gain(self._mean, best_K) - self._gain(self._mean, self._reference)
        unit = float(magnitude(self._mean[None])[0])
        for text, multiplier in zip(solved.texts, solved.price_C.tolist(), strict=True):
            per_tolerance = of_tasks / text.strength if text.guardrail.unit == "share" else text.per_unit
            known: dict[str, Any] = {} if text.loss is None else {"loss": text.loss}
            if text.gain.log_K.any():
                known["logarithm"] = by_name(self.bounds.domains, text.gain.log_K)
            yield GuardrailRecord(
                name=text.name,
                tolerance=text.guardrail.tolerance,
                unit=text.guardrail.unit,
                influence=by_name(self.bounds.domains, text.influence_K),
                share=text.share,
                slack=text.slack,
                strength=text.strength,
                gain=self._of_text(text.gain, best_K),
                unguarded_gain=self._of_text(text.gain, unguarded_K),
                price=max(0.0, multiplier * per_tolerance / unit) if text.name in binding else 0.0,
                **known,
            )

    def _notes(self) -> Iterator[str]:
        """Say which tasks have nothing to gain, and if branches have told nothing."""
        measured = self.told.measured
        if measured is not None and not measured.fitted.is_told:
            yield (
                f"The {measured.branches} branches differ by no more than their noise, so they do not tell what a "
                f"gain is in nats: optimize.saturation stands, {self.saturation:g}. More or longer branches would."
            )
        largest_T = magnitude(self.contrasts)
        rows = zip(self.told.tasks, self.contrasts, self._best_gains, largest_T, strict=True)
        for task, row_K, best, largest in rows:
            if not row_K.any():
                yield f"No domain influences the task '{task}': it is left out of the decision."
            elif best <= _GAINS * largest:
                yield f"No mixture is better for the task '{task}' than the prior."

    def _room_notes(self, texts: Sequence[GuardedText]) -> Iterator[str]:
        """Say which guardrails the bounds leave no mixture for against the prior, if that is outside them."""
        if np.abs(self._reference - self.prior_K).max() <= VISIBLE:
            return
        room = Room(self.bounds, self.prior_K, self._mean, self.saturation, self.products.curved_KK)
        yield from room.notes(texts)
