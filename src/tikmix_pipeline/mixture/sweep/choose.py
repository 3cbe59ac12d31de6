"""How a sweep decides: it searches the surrogate of a round or of a user's tables, or goes by what was measured.

Axes: K domains.
"""

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from tikmix_pipeline.errors import TikmixError, quoted
from tikmix_pipeline.mixture.bounds import Bounds, unlimited_bounds
from tikmix_pipeline.mixture.records import DecisionRecord, SweepDesign
from tikmix_pipeline.mixture.simplex import Box, FloatArray, by_name, check_mixture
from tikmix_pipeline.mixture.sweep.branches_told import BranchesTold
from tikmix_pipeline.mixture.sweep.decision import SurrogateDecision
from tikmix_pipeline.mixture.sweep.guard import SearchGuard
from tikmix_pipeline.mixture.sweep.known import why_nothing_is_known
from tikmix_pipeline.mixture.sweep.phases import phase_groups, phase_note, phases_of
from tikmix_pipeline.mixture.sweep.quality import better_than_additive
from tikmix_pipeline.mixture.sweep.regression_data import RegressionData
from tikmix_pipeline.mixture.sweep.responses import Responses
from tikmix_pipeline.mixture.sweep.solve import solve_surrogate
from tikmix_pipeline.parameters.decision import PriorParameters, SearchObjectiveParameters, WeightBoundsParameters
from tikmix_pipeline.parameters.sweep import SearchedParameters

if TYPE_CHECKING:
    import pandas as pd

_LOG = logging.getLogger(__name__)

_HELP = (
    "More runs would help, runs that differ more, several of the same mixture, or scores with less noise; other "
    "targets (sweep.table.targets) or another surrogate (sweep.surrogate) may. sweep.require_better=false searches all "
    "the same."
)


def search_sweep(
    surrogate: Any,
    data: RegressionData,
    design: SweepDesign,
    direct: DecisionRecord,
    judged: tuple["pd.DataFrame", "pd.DataFrame"],
    optimize: SearchObjectiveParameters,
    sweep: SearchedParameters,
    *,
    seed: int,
    guard: SearchGuard | None = None,
) -> SurrogateDecision:
    """Search a round's surrogate within the design's box; D's mixture is kept where the surrogate predicts no better.

    How well it predicts is in `judged`, the tables that `quality_tables` makes; `guard` are D's guardrails.
    """
    reason = _reason_to_keep(*judged, sweep.kind, seed=seed)
    domains = data.measured.domains

    def searched(keep_direct: str | None) -> SurrogateDecision:
        return solve_surrogate(
            surrogate.predict,
            data=data,
            direct=direct,
            box=design.arrays(domains),
            groups=unlimited_bounds(optimize, domains).halfspaces(),
            pareto=optimize.pareto,
            sweep=sweep,
            seed=seed,
            keep_direct=keep_direct,
            guard=guard,
        )

    found = searched(reason if sweep.require_better else None)
    if sweep.kind != "response":
        return found
    told = BranchesTold.of(surrogate, data)
    alike = told.alike(found) if sweep.require_better else None
    found = found if alike is None else searched(alike)
    return replace(found, notes=(told.expected(found), *found.notes))


def _reason_to_keep(quality: "pd.DataFrame", predictions: "pd.DataFrame", kind: str, *, seed: int) -> str | None:
    """Say why D's mixture is to be kept, if the surrogate knows nothing, or nothing better than influence does."""
    rows = quality.to_dict("records")
    nothing = why_nothing_is_known(rows, predictions, kind, seed=seed)
    if kind == "response" and nothing is None:  # it starts from what influence tells, to second order
        return None
    is_better, compared = better_than_additive(rows, kind)
    _LOG.info("%s", compared if nothing is None else nothing)
    return nothing or (None if is_better else compared)


def search_tables(
    surrogate: Any,
    data: RegressionData,
    judged: tuple["pd.DataFrame", "pd.DataFrame"],
    prior: PriorParameters,
    optimize: SearchObjectiveParameters,
    sweep: SearchedParameters,
    *,
    seed: int,
) -> SurrogateDecision:
    """Search the surrogate of a user's tables for the best mixture within what they cover.

    Raises:
        TikmixError: the surrogate knows nothing, by `judged` as in `search_sweep`; or as `table_prior`, `table_bounds`
            and `covered_box`.
    """
    quality, predictions = judged
    nothing = why_nothing_is_known(quality.to_dict("records"), predictions, sweep.kind, seed=seed)
    if nothing is not None and sweep.require_better:
        raise TikmixError(f"{nothing} Nothing is decided from noise. {_HELP}")
    prior_K = table_prior(prior, data.measured)
    bounds = table_bounds(optimize, data.measured, prior_K)
    found = solve_surrogate(
        surrogate.predict,
        data=data,
        direct=None,
        prior_K=prior_K,
        box=covered_box(data.measured, bounds),
        groups=bounds.halfspaces(),
        pareto=optimize.pareto,
        sweep=sweep,
        seed=seed,
    )
    note = phase_note(data.measured.domains) if _has_phases(data.measured) else None
    return found if note is None else replace(found, notes=(note, *found.notes))


def best_measured(ratios: "pd.DataFrame", metrics: "pd.DataFrame", direct: DecisionRecord) -> DecisionRecord:
    """Return the candidate whose mean response over the targets is the lowest, with no surrogate's word in it.

    Its gains are over D's reference, where that was measured too.
    """
    responses, mixtures = metrics.set_index("run"), ratios.set_index("run")
    means = responses.mean(axis=1)
    best = str(means.idxmin())
    _LOG.info("The best of %d mixtures that were trained on is %s: mean response %.4f", len(means), best, means[best])
    # of any name: a design around the prior holds it already
    reference = [run for run in responses.index if mixtures.loc[run].to_dict() == direct.reference]
    return DecisionRecord(
        strategy="surrogate",
        round=direct.round,
        weights=mixtures.loc[best].to_dict(),
        expected_gain=(responses.loc[reference[0]] - responses.loc[best]).to_dict() if reference else {},
        binding=(),
        notes=(f"The best of {len(means)} mixtures that were trained on: {best}.",),
        response="lookahead",
    )


def table_bounds(parameters: WeightBoundsParameters, responses: Responses, prior_K: FloatArray | None) -> Bounds:
    """Return the user's bounds on a table's domains; `current` pins to the prior, as there is no current mixture.

    Raises:
        TikmixError: as in `mixture_bounds`, or a domain is pinned to a prior that nobody knows.
    """
    pinned = [domain for domain, pin in parameters.pinned.items() if pin == "current"]
    if pinned and prior_K is None:
        raise TikmixError(
            f"optimize.pinned holds {quoted(pinned)} at the current mixture, but with tables there is none, and their "
            "prior is not known. Give weights, or set tikmix.prior to uniform or to weights of the tables' domains."
        )
    prior = None if prior_K is None else by_name(responses.domains, prior_K)
    groups = {**parameters.groups, **(phase_groups(responses.domains) if _has_phases(responses) else {})}
    return unlimited_bounds(parameters.model_copy(update={"groups": groups}), responses.domains, prior)


def _has_phases(responses: Responses) -> bool:
    """Say whether the phases that names tell of have equal parts in every run."""
    parts = [
        responses.weights_NK[:, [responses.domains.index(name) for name in members]].sum(axis=1)
        for members in phases_of(responses.domains).values()
    ]
    return bool(parts) and all(np.allclose(part_N, 1 / len(parts), atol=1e-9) for part_N in parts)


def covered_box(responses: Responses, bounds: Bounds) -> Box:
    """Return the smallest and the largest weight of each domain in any run, inside the bounds.

    Limits on groups stay the bounds' own; the box leaves room within them.

    Raises:
        TikmixError: no mixture is both inside the bounds and inside what the runs cover.
    """
    least_K, most_K = bounds.box()
    low_K = np.maximum(responses.weights_NK.min(axis=0), least_K)
    high_K = np.minimum(responses.weights_NK.max(axis=0), most_K)
    if not bounds.halfspaces().has_room((low_K, high_K)):
        raise TikmixError(
            "No mixture is inside both optimize.bounds (min_weight, max_weight, groups, pinned) and what the runs of "
            "the tables cover. Loosen the bounds: nothing is known of mixtures beyond the runs."
        )
    return low_K, high_K


def table_prior(parameters: PriorParameters, responses: Responses) -> FloatArray | None:
    """Return what a table's mixtures are compared with; None for `proportional`, as nothing is known of the text.

    Raises:
        TikmixError: the given weights are no mixture of the table's domains.
    """
    if parameters.prior == "proportional":
        return None
    if parameters.prior == "uniform":
        return np.full(len(responses.domains), 1 / len(responses.domains))
    return check_mixture(parameters.prior, responses.domains, "tikmix.prior")
