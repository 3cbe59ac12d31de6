"""`Decision`: a decided mixture and why it is what it is."""

from dataclasses import dataclass
from typing import Any, Literal

from tikmix_pipeline.mixture.simplex import FloatArray


@dataclass(frozen=True)
class Binding:
    """A constraint that the decided mixture leans on.

    Attributes:
        name: the domain, the group of domains, or the task for `pareto`.
        kind: `lower` or `upper` bound on a domain's weight, `group_lower` or `group_upper` on the sum of a group's, or
            a task's `pareto` constraint.
        reason: where a bound comes from: `simplex`, `user`, `repetition`, `change`; `prior` for `pareto`.
        parameter: the parameter to change to move it; empty for the simplex.
        bound: the bound on the weight or the sum, or the least normalised gain of the task.
        price: the multiplier: how fast the objective would fall if the constraint were loosened. Where others hold the
            mixture in the same place, as where tasks that conflict leave no other, it falls by less, or not at all.
    """

    name: str
    kind: Literal["lower", "upper", "group_lower", "group_upper", "pareto"]
    reason: str
    parameter: str
    bound: float
    price: float


@dataclass(frozen=True, eq=False)
class Decision:
    """The mixture of the next chunk. Axes: T tasks, K domains.

    Attributes:
        domains: names, in the order of axis K.
        tasks: names, in the order of axis T.
        weights_K: the mixture.
        prior_K: the mixture it is compared with.
        reference_K: the mixture no task may do worse than: the prior, moved inside the bounds.
        expected_gain_T: `S (w − w_prior)`: to first order, how much faster each task's loss falls than under the
            prior, in the units of S.
        normalised_gain_T: `P̂ = P / n`; 1 is the most any mixture could reach on a task that some domain helps.
        normaliser_T: n.
        objective: `α·std(P̂) − β·ΣP̂ − γ·H(w)`, over the targets (`mixture.targets`).
        terms: `std`, `gain` and `entropy`, without their weights.
        optimality_gap: no mixture within the constraints has an objective lower by more than this.
        binding: the constraints that hold the mixture back, dearest first.
        notes: what a reader should know, in sentences.
        unconstrained_K: the best mixture for the same objective if nothing but the simplex held it: no bounds, groups,
            pins, repetition, largest change or Pareto constraint.
        unconstrained_gain_T: what it would gain over the prior, in the units of S.
        unconstrained_objective: its objective.
        anchor_K: the mixture that the entropy is relative to; None for the uniform one.
    """

    domains: tuple[str, ...]
    tasks: tuple[str, ...]
    weights_K: FloatArray
    prior_K: FloatArray
    reference_K: FloatArray
    expected_gain_T: FloatArray
    normalised_gain_T: FloatArray
    normaliser_T: FloatArray
    objective: float
    terms: dict[str, float]
    optimality_gap: float
    binding: tuple[Binding, ...]
    notes: tuple[str, ...]
    unconstrained_K: FloatArray
    unconstrained_gain_T: FloatArray
    unconstrained_objective: float
    anchor_K: FloatArray | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain types that JSON can hold."""

        def by_domain(values_K: FloatArray) -> dict[str, float]:
            return dict(zip(self.domains, values_K.tolist(), strict=True))

        def by_task(values_T: FloatArray) -> dict[str, float]:
            return dict(zip(self.tasks, values_T.tolist(), strict=True))

        return {
            "weights": by_domain(self.weights_K),
            "prior": by_domain(self.prior_K),
            "reference": by_domain(self.reference_K),
            "expected_gain": by_task(self.expected_gain_T),
            "normalised_gain": by_task(self.normalised_gain_T),
            "normaliser": by_task(self.normaliser_T),
            "objective": self.objective,
            "terms": dict(self.terms),
            "optimality_gap": self.optimality_gap,
            "binding": [vars(binding).copy() for binding in self.binding],
            "notes": list(self.notes),
            "unconstrained": {
                "weights": by_domain(self.unconstrained_K),
                "expected_gain": by_task(self.unconstrained_gain_T),
                "objective": self.unconstrained_objective,
            },
            "anchor": None if self.anchor_K is None else by_domain(self.anchor_K),
        }
