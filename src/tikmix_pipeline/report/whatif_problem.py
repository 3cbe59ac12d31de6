"""A problem of second order as the what-if page is told it."""

from tikmix_pipeline.mixture.guardrails import GuardedText
from tikmix_pipeline.mixture.response import LEVEL, ResponseProblem
from tikmix_pipeline.mixture.response_fit import MeasuredResponse
from tikmix_pipeline.parameters.decision import DirectParameters
from tikmix_pipeline.report.whatif_records import (
    GroupBound,
    WeightBounds,
    WhatIfBranches,
    WhatIfGuardrail,
    WhatIfObjective,
    WhatIfProblem,
)


def whatif_problem(problem: ResponseProblem, nothing: str | None = None) -> WhatIfProblem:
    """Return what a page needs to decide anew; `nothing` says why nothing was decided, if so.

    Raises:
        TikmixError: as `ResponseProblem.texts`.
    """
    bounds, anchor_K = problem.bounds, problem.anchor_K
    measured = problem.told.measured
    return WhatIfProblem(
        domains=list(bounds.domains),
        tasks=list(problem.told.tasks),
        contrast_TK=problem.contrasts.tolist(),
        counts_T=problem.counts.tolist(),
        scale_T=problem.scale.tolist(),
        curved_KK=problem.products.curved_KK.tolist(),
        saturation=problem.saturation,
        prior_K=problem.prior_K.tolist(),
        current_K=problem.now_K.tolist(),
        bounds=[
            WeightBounds(low=low.weight, high=high.weight, low_parameter=low.parameter, high_parameter=high.parameter)
            for low, high in zip(bounds.lower, bounds.upper, strict=True)
        ],
        groups=[
            GroupBound(name=group.name, members=list(group.members), side=group.side, weight=group.limit.weight)
            for group in bounds.groups
        ],
        objective=_objective(problem.parameters, None if anchor_K is None else anchor_K.tolist()),
        guardrails=[_guardrail(text) for text in problem.texts],
        branches=None if measured is None else _branches(measured),
        nothing=nothing,
    )


def _objective(parameters: DirectParameters, anchor_K: list[float] | None) -> WhatIfObjective:
    return WhatIfObjective(
        uniformity=parameters.spread_weight,
        fairness=parameters.fairness,
        temperature=parameters.temperature if parameters.fairness == "softmin" else None,
        gain=None if parameters.gain == "auto" else parameters.gain,
        entropy=parameters.entropy_weight,
        anchor=parameters.entropy_anchor,
        anchor_K=anchor_K,
        normaliser=parameters.normaliser,
        pareto=parameters.pareto,
        task_weights=dict(parameters.task_weights),
        task_groups={group: list(members) for group, members in parameters.task_groups.items()},
    )


def _guardrail(text: GuardedText) -> WhatIfGuardrail:
    return WhatIfGuardrail(
        name=text.name,
        parameter=text.parameter,
        unit=text.guardrail.unit,
        tolerance=text.guardrail.tolerance,
        row_K=text.gain.row_K.tolist(),
        log_K=text.gain.log_K.tolist(),
        floor_K=text.gain.floor_K.tolist(),
        bends=text.gain.bends,
        strength=text.strength,
        per_unit=text.per_unit,
        stderr_K=None if text.stderr_K is None else text.stderr_K.tolist(),
    )


def _branches(measured: MeasuredResponse) -> WhatIfBranches | None:
    from scipy.stats import t

    fitted = measured.fitted
    if not fitted.is_told:
        return None
    return WhatIfBranches(
        count=measured.branches,
        scale=fitted.scale,
        covariance=fitted.covariance.tolist(),
        noise=fitted.noise,
        quantile=float(t.ppf((1 + LEVEL) / 2, fitted.freedom)),
        level=LEVEL,
    )
