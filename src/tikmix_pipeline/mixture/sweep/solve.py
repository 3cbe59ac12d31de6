"""TiKMiX-M: the mixture that a surrogate of measured responses says is best.

    minimise    F(w) = α·std(P̂(w)) − β·Σ_t P̂_t(w) − γ·H(w)       (`sweep.objective: sum`: −Σ_t P̂_t(w))
    subject to  Σ_j w_j = 1,  low ≤ w ≤ high,  groups within their limits,  P̂(w) ≥ P̂(w_reference) task by task,
                D's guardrails where it has any (`mixture.sweep.guard`)

where P̂ is predicted by the surrogate, w_reference is the prior, moved inside the bounds, and the box is the one that
the candidates were drawn from. This is D's problem with `Ŝ w` replaced; what is not convex any more is searched instead
of solved. Where no mixture that was searched keeps the constraint, D's own does not either: then a task may do no worse
than the lower of what is predicted for the prior and for D's. D's mixture, which keeps its guardrails, stays if the
surrogate ranks mixtures no better than D does, or if none is predicted to be better than D's.

Axes: N mixtures, K domains, T targets, S starts.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from tikmix_pipeline.errors import quoted
from tikmix_pipeline.mixture.influence_matrix import contrast, gain_scale
from tikmix_pipeline.mixture.records import DecisionRecord
from tikmix_pipeline.mixture.simplex import Box, FloatArray, Halfspaces, anchored_entropy, project
from tikmix_pipeline.mixture.sweep.decision import (
    EDGE,
    SurrogateDecision,
    beyond,
    box_notes,
    left_out_notes,
    out_of_reach_notes,
    search_notes,
)
from tikmix_pipeline.mixture.sweep.guard import SearchGuard
from tikmix_pipeline.mixture.sweep.regression_data import AGGREGATE, RegressionData, SweepObjective
from tikmix_pipeline.mixture.sweep.responses import Responses
from tikmix_pipeline.mixture.sweep.search import SearchResult, search
from tikmix_pipeline.parameters.sweep import SearchedParameters

Predict = Callable[[FloatArray], FloatArray]
"""From mixtures (N, K) to predicted responses (N, T); with `sweep.target: aggregate`, to the objective, (N,)."""

_TOLERANCE = 1e-9
"""By so much a normalised gain may fall short of the prior's."""


def solve_surrogate(
    predict: Predict,
    *,
    data: RegressionData,
    direct: DecisionRecord | None,
    box: Box,
    pareto: bool,
    sweep: SearchedParameters,
    seed: int,
    groups: Halfspaces | None = None,
    keep_direct: str | None = None,
    prior_K: FloatArray | None = None,
    guard: SearchGuard | None = None,
) -> SurrogateDecision:
    """Return the best mixture that the surrogate predicts, or D's.

    Args:
        predict: the surrogate.
        data: what it was fitted on, with scale and objective.
        direct: D's decision; its prior, reference and anchor are this decision's too. Without one the search starts
            from the best of the measured mixtures, and nothing can be kept instead.
        box: what the candidates cover; within D's bounds.
        pareto: no target may gain less than under the reference.
        sweep: the kind of response, and how to search.
        keep_direct: why D's mixture is kept whatever the search finds, in a sentence; None where it need not be.
        prior_K: the prior where there is no D. Without either, gains are over the mean of the measured mixtures, and no
            Pareto constraint holds: hardly any mixture does better than that on every target.
        guard: the guardrails that D was held by, which the searched mixture keeps too.

    Raises:
        ValueError: D decided on other domains, or the data has no objective.
    """
    problem = _Problem.of(predict, data, _objective(data, direct), sweep, guard)
    anchors = _Anchors.of(direct, prior_K, data.measured, box, groups)
    starts_SK = anchors.starts(data.measured, box, with_measured=problem.is_always_predicted)

    def searched(least_gain_T: FloatArray | None) -> SearchResult:
        evaluate = partial(problem.evaluate, least_gain_T=least_gain_T)
        return search(evaluate, starts_SK, box=box, groups=groups, parameters=sweep.search, seed=seed)

    notes = [] if keep_direct is None else [keep_direct]
    least_gain_T = None
    if pareto and anchors.has_prior and not data.is_aggregate:
        least_gain_T = problem.gains_of(problem.baseline(anchors.reference_K))
    found = searched(least_gain_T)
    if found.excess > 0 and least_gain_T is not None and anchors.direct_K is not None:
        direct_gain_T = problem.gains(anchors.direct_K[None])[0]
        notes += out_of_reach_notes(data.measured.targets, direct_gain_T < least_gain_T)
        least_gain_T = np.minimum(direct_gain_T, least_gain_T)
        found = searched(least_gain_T)
    is_no_better = _is_no_better(problem, anchors.direct_K, found, least_gain_T)
    notes += _notes(problem, anchors, found, box, pareto=pareto, is_no_better=is_no_better)
    is_kept = anchors.direct_K is not None and (keep_direct is not None or found.excess > 0 or is_no_better)
    return _decision(problem, anchors, found, is_kept=is_kept, notes=tuple(notes))


@dataclass(frozen=True, eq=False)
class _Anchors:
    """Mixtures that are there before the search; `has_prior` is false if the prior is only a stand-in."""

    prior_K: FloatArray
    reference_K: FloatArray
    direct_K: FloatArray | None
    has_prior: bool = True

    @classmethod
    def of(
        cls,
        direct: DecisionRecord | None,
        prior_K: FloatArray | None,
        responses: Responses,
        box: Box,
        groups: Halfspaces | None,
    ) -> "_Anchors":
        if direct is not None:
            named = (direct.prior or {}, direct.reference or {}, direct.weights)
            prior_K, reference_K, direct_K = (_in_order(weights, responses) for weights in named)
            return cls(prior_K, reference_K, direct_K)
        known_K: FloatArray = responses.weights_NK.mean(axis=0) if prior_K is None else prior_K
        return cls(known_K, project(known_K[None], box, groups)[0], None, has_prior=prior_K is not None)

    def starts(self, responses: Responses, box: Box, *, with_measured: bool) -> FloatArray:
        """Return where the search begins: D's mixture or those measured, and the reference, which harms no target."""
        starts_SK = responses.weights_NK if self.direct_K is None or with_measured else self.direct_K[None]
        is_inside = beyond(self.reference_K, box).max() <= EDGE
        return np.concatenate([starts_SK, self.reference_K[None]]) if is_inside else starts_SK


@dataclass(frozen=True, eq=False)
class _Problem:
    """The surrogate and what is asked of it; `is_known` where a response is `−S w` but for the noise of a sample.

    `is_always_predicted` where a branch of a mixture is no better known than the surrogate has it, which knows it.
    """

    predict: Predict
    data: RegressionData
    objective: SweepObjective
    is_known: bool
    guard: SearchGuard | None = None
    is_always_predicted: bool = False

    @classmethod
    def of(
        cls,
        predict: Predict,
        data: RegressionData,
        objective: SweepObjective,
        sweep: SearchedParameters,
        guard: SearchGuard | None,
    ) -> "_Problem":
        is_sequence = sweep.kind == "response"
        return cls(predict, data, objective, sweep.response == "influence", guard, is_sequence)

    def predicted(self, weights_NK: FloatArray) -> FloatArray:
        """Return the predicted responses, (N, T), or aggregates, (N, 1)."""
        return self.predict(weights_NK).reshape(len(weights_NK), -1)

    def known(self, weights_K: FloatArray) -> FloatArray | None:
        """Return the responses of a mixture that needs no surrogate: of influence any, of branches one that was run.

        A user's tables have no reference: of any mixture of theirs the surrogate is asked, as of all others.
        """
        if self.data.is_aggregate or self.data.influence_TK is None or self.is_always_predicted:
            return None
        if self.is_known:
            return -self.data.influence_TK @ weights_K
        apart_N = np.abs(self.data.measured.weights_NK - weights_K).max(axis=1)
        nearest = int(apart_N.argmin())
        measured_T: FloatArray = self.data.measured.response_NT[nearest]
        return measured_T if apart_N[nearest] <= EDGE else None

    def baseline(self, weights_K: FloatArray) -> FloatArray:
        """Return a mixture's responses to compare others with, predicted if they are not known."""
        known_T = self.known(weights_K)
        return self.predicted(weights_K[None])[0] if known_T is None else known_T

    def gains_of(self, response: FloatArray) -> FloatArray:
        """Return P̂ of responses, or aggregates with their sign turned."""
        return -response if self.data.is_aggregate else self.data.scale.gains(response)

    def gains(self, weights_NK: FloatArray) -> FloatArray:
        """Return what `gains_of` makes of the predictions."""
        return self.gains_of(self.predicted(weights_NK))

    def evaluate(self, weights_NK: FloatArray, least_gain_T: FloatArray | None) -> tuple[FloatArray, FloatArray]:
        """Return F of each mixture, and by how much targets and guarded texts miss their least gains, all together."""
        gain_NT = self.gains(weights_NK)
        aggregate_N = -gain_NT[:, 0] if self.data.is_aggregate else self.objective.aggregate(gain_NT)
        excess_N = np.zeros(len(weights_NK)) if self.guard is None else self.guard.shortfall(weights_NK)
        if least_gain_T is not None:
            short_NT = least_gain_T - gain_NT
            excess_N = excess_N + np.where(short_NT > _TOLERANCE, short_NT, 0).sum(axis=1)
        return aggregate_N + self.objective.entropy(weights_NK), excess_N

    def value(self, weights_K: FloatArray) -> float:
        """Return F of one mixture."""
        return float(self.evaluate(weights_K[None], None)[0][0])

    def terms(self, weights_K: FloatArray) -> dict[str, float]:
        """Return the parts of F without their weights."""
        gain_T = self.gains(weights_K[None])[0]
        relative = anchored_entropy(weights_K, self.objective.anchor_K)
        if self.data.is_aggregate:
            return {AGGREGATE: float(-gain_T[0]), "entropy": relative}
        even_1, total_1 = self.objective.terms(gain_T[None])
        return {self.objective.parameters.fairness: float(even_1[0]), "gain": float(total_1[0]), "entropy": relative}


def _objective(data: RegressionData, direct: DecisionRecord | None) -> SweepObjective:
    """Return the data's objective, with D's anchor in it."""
    if data.objective is None:
        raise ValueError("what is searched needs an objective: give its parameters to the regression data")
    if direct is None or direct.anchor is None:
        return data.objective
    return replace(data.objective, anchor_K=_in_order(direct.anchor, data.measured))


def _is_no_better(
    problem: _Problem, direct_K: FloatArray | None, found: SearchResult, least_gain_T: FloatArray | None
) -> bool:
    """Say whether D's mixture, where it harms no target either, is predicted to be as good as the best of the search.

    The search starts from it, but moves it inside the box of the candidates first.
    """
    if direct_K is None or found.excess > 0:
        return False
    value_1, excess_1 = problem.evaluate(direct_K[None], least_gain_T)
    return bool(excess_1[0] <= 0 and found.value >= value_1[0] - _TOLERANCE)


def _notes(
    problem: _Problem, anchors: _Anchors, found: SearchResult, box: Box, *, pareto: bool, is_no_better: bool
) -> Iterator[str]:
    measured, direct_K = problem.data.measured, anchors.direct_K
    if not anchors.has_prior:
        yield "There is no prior: gains are over the mean of the measured mixtures, and no Pareto constraint holds."
    elif problem.data.is_aggregate and pareto:
        yield "optimize.pareto holds nothing back: sweep.target: aggregate predicts no target by itself."
    direct_value = None if direct_K is None else problem.value(direct_K)
    broken = [] if problem.guard is None else problem.guard.broken(found.weights_K)
    yield from search_notes(found, direct_value, is_no_better=is_no_better, broken=broken)
    predicted_prior_K = anchors.prior_K if problem.known(anchors.prior_K) is None else None
    yield from box_notes(measured.domains, box, found.weights_K, direct_K=direct_K, predicted_prior_K=predicted_prior_K)
    yield from left_out_notes(measured.targets, problem.objective.counts_T)


def _decision(
    problem: _Problem, anchors: _Anchors, found: SearchResult, *, is_kept: bool, notes: tuple[str, ...]
) -> SurrogateDecision:
    data = problem.data
    weights_K = anchors.direct_K if is_kept and anchors.direct_K is not None else found.weights_K
    influence_TK = None if data.is_aggregate else data.influence_TK
    guard = problem.guard
    return SurrogateDecision(
        domains=data.measured.domains,
        tasks=data.responses.targets,
        weights_K=weights_K,
        prior_K=anchors.prior_K,
        reference_K=anchors.reference_K,
        expected_gain_T=problem.baseline(anchors.prior_K) - problem.predicted(weights_K[None])[0],
        gain_scale_T=None if influence_TK is None else gain_scale(contrast(influence_TK, anchors.prior_K)),
        normalised_gain_T=problem.gains(weights_K[None])[0],
        objective=problem.value(weights_K),
        terms=problem.terms(weights_K),
        direct_K=anchors.direct_K,
        direct_objective=None if anchors.direct_K is None else problem.value(anchors.direct_K),
        additive_gain_T=None if influence_TK is None else influence_TK @ (weights_K - anchors.prior_K),
        kept="direct" if is_kept else "surrogate",
        guardrail_notes=() if guard is None else guard.sentences(weights_K),
        notes=notes,
        search=found,
    )


def _in_order(weights: Mapping[str, float], responses: Responses) -> FloatArray:
    """Return weights by name as an array, refusing those of other domains."""
    if set(weights) != set(responses.domains):
        raise ValueError(f"D's decision is over {quoted(weights)}, the responses are over {quoted(responses.domains)}")
    return np.array([weights[domain] for domain in responses.domains], dtype=np.float64)
