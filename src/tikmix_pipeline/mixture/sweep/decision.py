"""`SurrogateDecision`: a mixture decided on a surrogate, and what it was weighed against."""

from dataclasses import dataclass
from typing import Any, Literal

from tikmix_pipeline.mixture.simplex import FloatArray
from tikmix_pipeline.mixture.sweep.search import SearchResult


@dataclass(frozen=True, eq=False)
class SurrogateDecision:
    """The mixture of the next chunk. Axes: T targets, K domains.

    Attributes:
        domains: names, in the order of axis K.
        targets: names, in the order of axis T.
        weights_K: the mixture.
        prior_K: the mixture it is compared with.
        reference_K: the mixture no target may do worse than: the prior, moved inside the bounds.
        expected_gain_T: how much lower each target's response is predicted to be than under the prior, in its unit.
        normalised_gain_T: P̂, which the objective is made of.
        objective: F, as predicted.
        terms: the parts of F without their weights.
        direct_K: D's mixture; None without one.
        direct_objective: F of it, as predicted.
        searched_K: the best mixture of the search, which is `weights_K` unless D's was kept.
        searched_objective: F of it, as predicted.
        additive_gain_T: `S (w − w_prior)`, where there is an influence matrix.
        kept: whose mixture it is.
        notes: what a reader should know, in sentences.
        search: how the search went.
    """

    domains: tuple[str, ...]
    targets: tuple[str, ...]
    weights_K: FloatArray
    prior_K: FloatArray
    reference_K: FloatArray
    expected_gain_T: FloatArray
    normalised_gain_T: FloatArray
    objective: float
    terms: dict[str, float]
    direct_K: FloatArray | None
    direct_objective: float | None
    searched_K: FloatArray
    searched_objective: float
    additive_gain_T: FloatArray | None
    kept: Literal["surrogate", "direct"]
    notes: tuple[str, ...]
    search: SearchResult

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the search as plain types that JSON can hold."""

        def by_domain(values_K: FloatArray) -> dict[str, float]:
            return dict(zip(self.domains, values_K.tolist(), strict=True))

        def by_target(values_T: FloatArray) -> dict[str, float]:
            return dict(zip(self.targets, values_T.tolist(), strict=True))

        return {
            "weights": by_domain(self.weights_K),
            "prior": by_domain(self.prior_K),
            "reference": by_domain(self.reference_K),
            "expected_gain": by_target(self.expected_gain_T),
            "normalised_gain": by_target(self.normalised_gain_T),
            "objective": self.objective,
            "terms": dict(self.terms),
            "direct_weights": None if self.direct_K is None else by_domain(self.direct_K),
            "direct_objective": self.direct_objective,
            "searched_weights": by_domain(self.searched_K),
            "searched_objective": self.searched_objective,
            "additive_gain": None if self.additive_gain_T is None else by_target(self.additive_gain_T),
            "kept": self.kept,
            "binding": [],
            "notes": list(self.notes),
        }
