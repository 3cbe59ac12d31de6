"""A decided mixture: what TiKMiX-D and TiKMiX-M say of theirs; which constraints D's leans on, in words.

Axes: T tasks, K domains, G limits on groups.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tikmix_pipeline.mixture.bounds import Bounds, Limit
from tikmix_pipeline.mixture.deciding_effects import DecidingEffects
from tikmix_pipeline.mixture.least_gains import LeastGains
from tikmix_pipeline.mixture.records import BindingKind, BindingRecord, DecisionRecord, SecondOrderRecord, Unconstrained
from tikmix_pipeline.mixture.simplex import FloatArray, by_name
from tikmix_pipeline.mixture.solver import Solution

VISIBLE = 1e-6
"""A constraint binds if it has no more room than this and loosening it would pay by more than this per unit."""

_KINDS: dict[str, BindingKind] = {"lower": "group_lower", "upper": "group_upper"}
_GROUP_KINDS = {*_KINDS.values()}
_TOLERANCES: dict[str, str] = {
    "share": "of what the tasks gain",
    "stderr": "standard errors of its gain",
    "nats": "nats per token",
    "percent": "% of its loss",
    "bits_per_byte": "bits per byte",
}


@dataclass(frozen=True, eq=False, kw_only=True)
class DecidedMixture:
    """The mixture of the next chunk, whoever decided it."""

    domains: tuple[str, ...]
    tasks: tuple[str, ...]
    """Names in the order of axis T; TiKMiX-M's may be of other targets."""
    weights_K: FloatArray
    prior_K: FloatArray
    """The mixture it is compared with."""
    reference_K: FloatArray
    """The mixture no task may do worse than: the prior, moved inside the bounds."""
    expected_gain_T: FloatArray
    """How much lower each task's response is expected to be than under the prior, in its unit: of D `S (w − w_prior)`,
    in the units of S."""
    gain_scale_T: FloatArray | None
    """The expected gain that is told as 1, the best possible (`influence_matrix.gain_scale` over the prior); None where
    gains are in the unit of a measured response, which is told as it is."""
    normalised_gain_T: FloatArray
    """P̂, which the objective is made of; of D, 1 is the most any mixture could reach on a task that a domain helps."""
    objective: float
    """`α·std(P̂) − β·ΣP̂ − γ·H(w)`, over the targets (`mixture.objective`)."""
    terms: dict[str, float]
    """The parts of the objective without their weights."""
    notes: tuple[str, ...]
    """What a reader should know, in sentences."""
    guardrail_notes: tuple[str, ...] = ()
    """What guarded text is expected to pay, in sentences; they go first."""

    def record_of(self, strategy: str, round_number: int, **own: Any) -> DecisionRecord:
        """Return what is recorded of any decision, and its own fields, under the names of domains and tasks."""
        guarded: dict[str, Any] = {"guardrail_notes": self.guardrail_notes} if self.guardrail_notes else {}
        return DecisionRecord(
            strategy=strategy,
            round=round_number,
            weights=by_name(self.domains, self.weights_K),
            prior=by_name(self.domains, self.prior_K),
            reference=by_name(self.domains, self.reference_K),
            expected_gain=by_name(self.tasks, self.expected_gain_T),
            gain_scale=None if self.gain_scale_T is None else by_name(self.tasks, self.gain_scale_T),
            normalised_gain=by_name(self.tasks, self.normalised_gain_T),
            objective=self.objective,
            terms=self.terms,
            notes=self.notes,
            **guarded,
            **own,
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class Decision(DecidedMixture):
    """TiKMiX-D's mixture."""

    normaliser_T: FloatArray
    optimality_gap: float
    """No mixture within the constraints has an objective lower by more than this."""
    binding: tuple[BindingRecord, ...]
    """The constraints that hold the mixture back, the one with the largest multiplier first."""
    unconstrained_K: FloatArray
    """The best mixture for the same objective if nothing but the simplex held it: no bounds, groups, pins, repetition,
    largest change or Pareto constraint."""
    unconstrained_gain_T: FloatArray
    """What it would gain over the prior, in the units of S."""
    unconstrained_objective: float
    anchor_K: FloatArray | None = None
    """The mixture that the entropy is relative to; None for the uniform one."""
    second_order: SecondOrderRecord | None = None
    """What is known besides where gains are of second order."""
    effects: DecidingEffects | None = None
    """What moving tokens to each domain does by what was decided on."""

    def to_record(self, strategy: str, round_number: int) -> DecisionRecord:
        """Return what is recorded of it, as the decision of `strategy` on the mixture of a round."""
        known: dict[str, Any] = {} if self.second_order is None else {"second_order": self.second_order}
        if self.effects is not None:
            known["effect"] = self._by_task(self.effects.effect_TK)
            if self.effects.stderr_TK is not None:
                known["effect_stderr"] = self._by_task(self.effects.stderr_TK)
        return self.record_of(
            strategy,
            round_number,
            **known,
            normaliser=by_name(self.tasks, self.normaliser_T),
            optimality_gap=self.optimality_gap,
            binding=self.binding,
            unconstrained=Unconstrained(
                weights=by_name(self.domains, self.unconstrained_K),
                expected_gain=by_name(self.tasks, self.unconstrained_gain_T),
                objective=self.unconstrained_objective,
            ),
            anchor=None if self.anchor_K is None else by_name(self.domains, self.anchor_K),
        )

    def _by_task(self, values_TK: FloatArray) -> dict[str, dict[str, float]]:
        return {task: by_name(self.domains, row_K) for task, row_K in zip(self.tasks, values_TK, strict=True)}


def binding_constraints(
    solution: Solution, bounds: Bounds, gains: LeastGains, limits: Sequence[tuple[str, BindingKind, Limit]]
) -> tuple[BindingRecord, ...]:
    """Return the constraints that bind, the one with the largest multiplier first.

    The solution is that of `minimise` with the arguments that follow; `limits` say whose each of the least gains is.
    """
    halfspaces = bounds.halfspaces()
    room_G = halfspaces.rows_GK @ solution.weights_K - halfspaces.least_G
    room_T = gains.at(solution.weights_K) - gains.least()
    sides: list[tuple[str, BindingKind, Limit, float, float]] = []
    weights_K, multipliers_K = solution.weights_K.tolist(), solution.bound_multipliers_K.tolist()
    box = zip(bounds.domains, bounds.lower, bounds.upper, weights_K, multipliers_K, strict=True)
    for domain, low, high, weight, multiplier in box:
        sides.append((domain, "lower", low, weight - low.weight, multiplier))
        sides.append((domain, "upper", high, high.weight - weight, -multiplier))
    multipliers_G = solution.group_multipliers_G.tolist()
    for group, room, multiplier in zip(bounds.groups, room_G.tolist(), multipliers_G, strict=True):
        sides.append((group.name, _KINDS[group.side], group.limit, room, multiplier))
    figures = (values_T.tolist() for values_T in (room_T, solution.gain_multipliers_T))
    for (name, kind, limit), room, multiplier in zip(limits, *figures, strict=True):
        sides.append((name, kind, limit, room, multiplier))
    found = [
        BindingRecord(
            name=name,
            kind=kind,
            reason=limit.reason,
            parameter=limit.parameter,
            bound=limit.weight,
            multiplier=multiplier,
            **_unit_of(limit),
        )
        for name, kind, limit, room, multiplier in sides
        if room <= VISIBLE and multiplier > VISIBLE
    ]
    return tuple(sorted(found, key=lambda constraint: -constraint.multiplier))


def _unit_of(limit: Limit) -> dict[str, Any]:
    return {} if limit.unit is None else {"unit": limit.unit}


def pareto_limits(tasks: Sequence[str], gains: LeastGains) -> list[tuple[str, BindingKind, Limit]]:
    """Return whose the first of the least gains are: tasks that may not do worse than under the prior."""
    least = gains.least()[: len(tasks)].tolist()
    return [(task, "pareto", Limit(gain, "prior", "optimize.pareto")) for task, gain in zip(tasks, least, strict=True)]


def holder(binding: BindingRecord) -> str:
    """Say whom a constraint is about; a group may have a domain's name."""
    if binding.kind == "guardrail":
        return f"guardrail {binding.name}"
    return f"group {binding.name}" if binding.kind in _GROUP_KINDS else binding.name


def in_words(binding: BindingRecord) -> str:
    """Say which constraint binds and which parameter would loosen it."""
    if binding.kind == "pareto":
        return "may not do worse than under the prior (optimize.pareto)"
    if binding.kind == "guardrail":
        tolerance = tolerance_in_words(binding.bound, binding.unit or "share")
        return f"may get worse by no more than its tolerance, {tolerance} ({binding.parameter})"
    if binding.parameter.startswith("optimize.pinned."):
        return f"pinned to {binding.bound:.6g} ({binding.parameter})"
    side = "at least" if binding.kind in {"lower", "group_lower"} else "at most"
    cause = {"repetition": ", all its text allows", "change": ", as far as it may move"}.get(binding.reason, "")
    parameter = f" ({binding.parameter})" if binding.parameter else ""
    return f"{side} {binding.bound:.6g}{cause}{parameter}"


def tolerance_in_words(tolerance: float, unit: str) -> str:
    """Say how much worse guarded text may get."""
    return f"{tolerance:.6g} {_TOLERANCES[unit]}"


def told_constraints(binding: Sequence[BindingRecord]) -> list[BindingRecord]:
    """Return the constraints that are worth a word: not that every weight is from 0 to 1."""
    return [constraint for constraint in binding if constraint.reason != "simplex"]


def summary_lines(decision: Decision) -> list[str]:
    """Return the decision as lines of a table: domains by falling weight, groups that bind, tasks, and
    what the constraints cost.

    Beside each domain and task stands the constraint that holds it.
    """
    width = max(len(name) for name in (*decision.domains, *decision.tasks, "domain"))
    domain_held = {b.name: in_words(b) for b in told_constraints(decision.binding) if b.kind in {"lower", "upper"}}
    task_held = {b.name: in_words(b) for b in decision.binding if b.kind == "pareto"}
    weights_K, prior_K = decision.weights_K.tolist(), decision.prior_K.tolist()
    lines = [f"{'domain':<{width}}   prior  weight  change"]
    for k in sorted(range(len(weights_K)), key=lambda k: -weights_K[k]):
        domain, prior, weight = decision.domains[k], prior_K[k], weights_K[k]
        held = domain_held.get(domain, "")
        lines.append(f"{domain:<{width}} {prior:7.4f} {weight:7.4f} {weight - prior:+7.4f}  {held}".rstrip())
    lines += [f"{holder(b)}: {in_words(b)}" for b in decision.binding if b.kind in {*_GROUP_KINDS, "guardrail"}]
    lines.append(f"{'task':<{width}}  expected gain over the prior, share of the best possible")
    scale_T = np.ones(len(decision.tasks)) if decision.gain_scale_T is None else decision.gain_scale_T
    for task, share in zip(decision.tasks, (decision.expected_gain_T / scale_T).tolist(), strict=True):
        lines.append(f"{task:<{width}} {share:+13.3f}  {task_held.get(task, '')}".rstrip())
    return [*lines, cost_of_constraints(decision)]


def cost_of_constraints(decision: Decision) -> str:
    """Say what all constraints together cost: the objective without them, and where the weights would go."""
    cost = decision.objective - decision.unconstrained_objective
    if cost <= 0:
        return "The constraints cost nothing: no mixture would be better without them."
    moved_K = decision.unconstrained_K - decision.weights_K
    k = int(np.abs(moved_K).argmax())
    return (
        f"The constraints cost {cost:.3g} of the objective, {decision.objective:.4g} instead of "
        f"{decision.unconstrained_objective:.4g} (lower is better): without {_all_of_them(decision)} "
        f"{np.abs(moved_K).sum() / 2:.1%} of the tokens would go elsewhere, most with '{decision.domains[k]}' at "
        f"{decision.unconstrained_K[k]:.4f}."
    )


def _all_of_them(decision: Decision) -> str:
    is_guarded = decision.second_order is not None and decision.second_order.guardrails
    return "bounds, guardrails and Pareto constraint" if is_guarded else "bounds and Pareto constraint"
