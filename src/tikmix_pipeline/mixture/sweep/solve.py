"""TiKMiX-M: the mixture that a surrogate of measured responses says is best.

    minimise    F(w) = α·std(P̂(w)) − β·Σ_t P̂_t(w) − γ·H(w)       (`sweep.objective: sum`: −Σ_t P̂_t(w))
    subject to  Σ_j w_j = 1,  low ≤ w ≤ high,  groups within their limits,  P̂(w) ≥ P̂(w_reference) task by task

where P̂ is predicted by the surrogate, w_reference is the prior, moved inside the bounds, and the box is the one that
the candidates were drawn from. This is D's problem with `Ŝ w` replaced; what is not convex any more is searched instead
of solved. Where no mixture that was searched keeps the constraint, D's own does not either: then a task may do no worse
than the lower of what is predicted for the prior and for D's. D's mixture stays if the surrogate ranks mixtures no
better than D does, or if none is predicted to be better than D's.

Axes: N mixtures, K domains, T targets.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tikmix_pipeline.errors import quoted
from tikmix_pipeline.mixture.projection import Halfspaces
from tikmix_pipeline.mixture.simplex import FloatArray, entropy
from tikmix_pipeline.mixture.sweep.decision import SurrogateDecision
from tikmix_pipeline.mixture.sweep.goal import AGGREGATE
from tikmix_pipeline.mixture.sweep.regression_data import Modelled
from tikmix_pipeline.mixture.sweep.responses import Responses
from tikmix_pipeline.mixture.sweep.search import SearchResult, project, search
from tikmix_pipeline.parameters.decision import OptimizeParameters
from tikmix_pipeline.parameters.sweep import SweepParameters

Predict = Callable[[FloatArray], FloatArray]
"""From mixtures (N, K) to predicted responses (N, T); with `sweep.target: aggregate`, to `Goal.aggregate`, (N,)."""

_TOLERANCE = 1e-9
"""By so much a normalised gain may fall short of the prior's."""

_EDGE = 1e-6
_BEYOND = 1e-3
"""A mixture that is further outside the box than this is predicted by extrapolation."""


def solve_surrogate(
    predict: Predict,
    *,
    modelled: Modelled,
    direct: Mapping[str, Any] | None,
    box: tuple[FloatArray, FloatArray],
    parameters: OptimizeParameters,
    sweep: SweepParameters,
    seed: int,
    groups: Halfspaces | None = None,
    keep_direct: str | None = None,
    prior_K: FloatArray | None = None,
) -> SurrogateDecision:
    """Return the best mixture that the surrogate predicts, or D's.

    Without D's decision the search starts from the best of the measured mixtures, and nothing can be kept instead.

    Args:
        predict: the fitted surrogate.
        modelled: what it was fitted on, with scale and goal.
        direct: D's decision, as `Decision.to_dict` writes it; its prior and reference are this decision's too.
        box: the smallest and the largest weight of each domain; within D's bounds.
        parameters: α, β, γ and whether the Pareto constraint holds.
        sweep: the objective, and how to search.
        seed: the same seed gives the same mixture.
        groups: limits on groups of domains, as in `Bounds.halfspaces`; None: there are none.
        keep_direct: why D's mixture is kept whatever the search finds, in a sentence; None where it need not be.
        prior_K: the prior where there is no D. Without either, gains are over the mean of the measured mixtures, and no
            Pareto constraint holds: hardly any mixture does better than that on every target.
    """
    modelled = _anchored(modelled, direct)
    problem = _Problem(predict, modelled, is_known=sweep.response == "influence")
    anchors = _Anchors.of(direct, prior_K, modelled.measured, box, groups)
    least_gain_T = _least_gains(problem, anchors, parameters)
    found = _search(problem, anchors, box, groups, least_gain_T, sweep, seed)
    out_of_reach_T = None
    if found.excess > 0 and least_gain_T is not None and anchors.direct_K is not None:
        direct_gain_T = problem.gains(anchors.direct_K[None])[0]
        out_of_reach_T, least_gain_T = direct_gain_T < least_gain_T, np.minimum(direct_gain_T, least_gain_T)
        found = _search(problem, anchors, box, groups, least_gain_T, sweep, seed)
    is_no_better = _is_no_better(problem, anchors.direct_K, found, least_gain_T)
    is_kept = anchors.direct_K is not None and (keep_direct is not None or found.excess > 0 or is_no_better)
    notes = (
        *([keep_direct] if keep_direct is not None else []),
        *_reach_notes(modelled, out_of_reach_T),
        *_constraint_notes(problem, anchors, found, parameters, is_no_better=is_no_better),
        *_box_notes(problem, anchors, found.weights_K, box),
        *_target_notes(modelled),
    )
    return _decision(problem, anchors, found, is_kept=is_kept, notes=notes)


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
        direct: Mapping[str, Any] | None,
        prior_K: FloatArray | None,
        responses: Responses,
        box: tuple[FloatArray, FloatArray],
        groups: Halfspaces | None,
    ) -> "_Anchors":
        if direct is not None:
            prior_K, reference_K, direct_K = (
                _in_order(direct[key], responses) for key in ("prior", "reference", "weights")
            )
            return cls(prior_K, reference_K, direct_K)
        stand_in_K: FloatArray = responses.weights_NK.mean(axis=0)
        known_K = stand_in_K if prior_K is None else prior_K
        return cls(known_K, project(known_K[None], box, groups)[0], None, has_prior=prior_K is not None)


def _least_gains(problem: "_Problem", anchors: _Anchors, parameters: OptimizeParameters) -> FloatArray | None:
    """Return what every target has to gain, P̂ of the reference; None where nothing is held back."""
    is_constrained = parameters.pareto and anchors.has_prior and not problem.modelled.is_aggregate
    return problem.gains_of(problem.baseline(anchors.reference_K)) if is_constrained else None


def _search(
    problem: "_Problem",
    anchors: _Anchors,
    box: tuple[FloatArray, FloatArray],
    groups: Halfspaces | None,
    least_gain_T: FloatArray | None,
    sweep: SweepParameters,
    seed: int,
) -> SearchResult:
    """Search from D's mixture, else from the measured ones; and from the reference, which harms no target."""
    starts_SK = problem.modelled.measured.weights_NK if anchors.direct_K is None else anchors.direct_K[None]
    if _beyond(anchors.reference_K, box).max() <= _EDGE:
        starts_SK = np.concatenate([starts_SK, anchors.reference_K[None]])
    return search(
        lambda weights_NK: problem.evaluate(weights_NK, least_gain_T),
        starts_SK,
        box=box,
        groups=groups,
        parameters=sweep.search,
        seed=seed,
    )


def _is_no_better(
    problem: "_Problem", direct_K: FloatArray | None, found: SearchResult, least_gain_T: FloatArray | None
) -> bool:
    """Say whether D's mixture, where it harms no target either, is predicted to be as good as the best of the search.

    The search starts from it, but moves it inside the box of the candidates first.
    """
    if direct_K is None or found.excess > 0:
        return False
    value_1, excess_1 = problem.evaluate(direct_K[None], least_gain_T)
    return bool(excess_1[0] <= 0 and found.value >= value_1[0] - _TOLERANCE)


def _decision(
    problem: "_Problem", anchors: _Anchors, found: SearchResult, *, is_kept: bool, notes: tuple[str, ...]
) -> SurrogateDecision:
    modelled = problem.modelled
    weights_K = anchors.direct_K if is_kept and anchors.direct_K is not None else found.weights_K
    influence_TK = None if modelled.is_aggregate else modelled.influence_TK
    return SurrogateDecision(
        domains=modelled.measured.domains,
        targets=modelled.responses.targets,
        weights_K=weights_K,
        prior_K=anchors.prior_K,
        reference_K=anchors.reference_K,
        expected_gain_T=problem.baseline(anchors.prior_K) - problem.predicted(weights_K[None])[0],
        normalised_gain_T=problem.gains(weights_K[None])[0],
        objective=problem.objective(weights_K),
        terms=problem.terms(weights_K),
        direct_K=anchors.direct_K,
        direct_objective=None if anchors.direct_K is None else problem.objective(anchors.direct_K),
        searched_K=found.weights_K,
        searched_objective=found.value,
        additive_gain_T=None if influence_TK is None else influence_TK @ (weights_K - anchors.prior_K),
        kept="direct" if is_kept else "surrogate",
        notes=notes,
        search=found,
    )


@dataclass(frozen=True, eq=False)
class _Problem:
    """The surrogate and what is asked of it; `is_known` where a response is `−S w` but for the noise of a sample."""

    predict: Predict
    modelled: Modelled
    is_known: bool

    def predicted(self, weights_NK: FloatArray) -> FloatArray:
        """Return the predicted responses, (N, T), or aggregates, (N, 1)."""
        return self.predict(weights_NK).reshape(len(weights_NK), -1)

    def known(self, weights_K: FloatArray) -> FloatArray | None:
        """Return the responses of a mixture that needs no surrogate: of influence any, of branches one that was run.

        A user's tables have no reference: of any mixture of theirs the surrogate is asked, as of all others.
        """
        modelled = self.modelled
        if modelled.is_aggregate or modelled.influence_TK is None:
            return None
        if self.is_known:
            known_T: FloatArray = -modelled.influence_TK @ weights_K
            return known_T
        apart_N = np.abs(modelled.measured.weights_NK - weights_K).max(axis=1)
        nearest = int(apart_N.argmin())
        measured_T: FloatArray = modelled.measured.response_NT[nearest]
        return measured_T if apart_N[nearest] <= _EDGE else None

    def baseline(self, weights_K: FloatArray) -> FloatArray:
        """Return a mixture's responses to compare others with, predicted if they are not known."""
        known_T = self.known(weights_K)
        return self.predicted(weights_K[None])[0] if known_T is None else known_T

    def gains_of(self, response: FloatArray) -> FloatArray:
        """Return P̂ of responses, or aggregates with their sign turned."""
        return -response if self.modelled.is_aggregate else self.modelled.scale.gains(response)

    def gains(self, weights_NK: FloatArray) -> FloatArray:
        """Return what `gains_of` makes of the predictions."""
        return self.gains_of(self.predicted(weights_NK))

    def evaluate(self, weights_NK: FloatArray, least_gain_T: FloatArray | None) -> tuple[FloatArray, FloatArray]:
        """Return F of each mixture, and by how much its targets fall short of their least gains, all together."""
        gain_NT = self.gains(weights_NK)
        aggregate_N = -gain_NT[:, 0] if self.modelled.is_aggregate else self.modelled.goal.aggregate(gain_NT)
        excess_N = np.zeros(len(weights_NK))
        if least_gain_T is not None:
            short_NT = least_gain_T - gain_NT
            excess_N = np.where(short_NT > _TOLERANCE, short_NT, 0).sum(axis=1)
        return aggregate_N + self.modelled.goal.entropy(weights_NK), excess_N

    def objective(self, weights_K: FloatArray) -> float:
        """Return F of one mixture."""
        return float(self.evaluate(weights_K[None], None)[0][0])

    def terms(self, weights_K: FloatArray) -> dict[str, float]:
        """Return the parts of F without their weights."""
        gain_T = self.gains(weights_K[None])[0]
        if self.modelled.is_aggregate:
            return {AGGREGATE: float(-gain_T[0]), "entropy": self._entropy(weights_K)}
        spread_1, total_1 = self.modelled.goal.terms(gain_T[None])
        return {"std": float(spread_1[0]), "gain": float(total_1[0]), "entropy": self._entropy(weights_K)}

    def _entropy(self, weights_K: FloatArray) -> float:
        anchor_K = self.modelled.goal.anchor_K
        return entropy(weights_K) + (0.0 if anchor_K is None else float(weights_K @ np.log(anchor_K)))


def _anchored(modelled: Modelled, direct: Mapping[str, Any] | None) -> Modelled:
    """Return the model with D's anchor in its goal."""
    anchor = (direct or {}).get("anchor")
    if anchor is None:
        return modelled
    return replace(modelled, goal=replace(modelled.goal, anchor_K=_in_order(anchor, modelled.measured)))


def _in_order(weights: Mapping[str, float], responses: Responses) -> FloatArray:
    """Return weights by name as an array, refusing those of other domains."""
    if set(weights) != set(responses.domains):
        raise ValueError(f"D's decision is over {quoted(weights)}, the responses are over {quoted(responses.domains)}")
    return np.array([weights[domain] for domain in responses.domains], dtype=np.float64)


def _beyond(weights_K: FloatArray, box: tuple[FloatArray, FloatArray]) -> FloatArray:
    """Return how far each weight is outside the box."""
    beyond_K: FloatArray = np.maximum(np.maximum(box[0] - weights_K, weights_K - box[1]), 0)
    return beyond_K


def _constraint_notes(
    problem: _Problem, anchors: _Anchors, found: SearchResult, parameters: OptimizeParameters, *, is_no_better: bool
) -> Iterator[str]:
    if not anchors.has_prior:
        yield "There is no prior: gains are over the mean of the measured mixtures, and no Pareto constraint holds."
    elif problem.modelled.is_aggregate and parameters.pareto:
        yield "optimize.pareto holds nothing back: sweep.target: aggregate predicts no target by itself."
    if found.excess > 0:
        kept = "the one that comes nearest is taken" if anchors.direct_K is None else "D's mixture is kept"
        yield (
            "No mixture that was searched is predicted to do as well as the prior on every target, short by "
            f"{found.excess:.2g} in normalised gain, so {kept}. Widen the sweep (sweep.low, sweep.high, "
            "sweep.max_ratio), or set optimize.pareto to false."
        )
    elif is_no_better and anchors.direct_K is not None:
        yield (
            "No mixture that was searched is predicted to be better than D's (objective "
            f"{found.value:.4g} against {problem.objective(anchors.direct_K):.4g}), so D's mixture is kept."
        )
    elif found.value >= found.trace[0]["best"]:
        yield "The search found no mixture that is predicted to be better than the one it started from."


def _reach_notes(modelled: Modelled, out_of_reach_T: npt.NDArray[np.bool_] | None) -> Iterator[str]:
    if out_of_reach_T is not None and out_of_reach_T.any():
        yield (
            "No mixture that was searched is predicted to do as well as the prior on every target. On "
            f"{_named(modelled.measured.targets, out_of_reach_T)} D's mixture does worse too, and none may do worse "
            "than that. Widen the sweep (sweep.low, sweep.high, sweep.max_ratio) to look for one."
        )


def _box_notes(
    problem: _Problem, anchors: _Anchors, weights_K: FloatArray, box: tuple[FloatArray, FloatArray]
) -> Iterator[str]:
    low_K, high_K = box
    domains = problem.modelled.measured.domains
    beyond_K = _beyond(anchors.prior_K, box) > _BEYOND
    if beyond_K.any() and problem.known(anchors.prior_K) is None:
        yield (
            f"The prior is outside what the candidates cover on {_named(domains, beyond_K)}: what is "
            "predicted for it, and so the gain over it, is extrapolated."
        )
    if anchors.direct_K is not None and (direct_beyond_K := _beyond(anchors.direct_K, box) > _BEYOND).any():
        yield (
            f"D's mixture is outside what the candidates cover on {_named(domains, direct_beyond_K)}: what is "
            "predicted for it, which the searched mixture is weighed against, is extrapolated."
        )
    at_low_K, at_high_K = (weights_K - low_K <= _EDGE) & (low_K > 0), (high_K - weights_K <= _EDGE) & (high_K < 1)
    at_edge_K = (at_low_K | at_high_K) & (high_K - low_K > _EDGE)
    if at_edge_K.any():
        yield (
            "The searched mixture is at the edge of what the candidates cover on "
            f"{_named(domains, at_edge_K)}: a wider sweep might find a better one."
        )


def _target_notes(modelled: Modelled) -> Iterator[str]:
    counts_T = modelled.goal.counts_T
    if not counts_T.all():
        names = _named(modelled.measured.targets, ~counts_T)
        yield f"Nothing tells the candidates apart on {names}: left out of the objective."


def _named(names: Sequence[str], chosen: npt.NDArray[np.bool_]) -> str:
    return quoted([name for name, is_chosen in zip(names, chosen, strict=True) if is_chosen])
