"""Problems of second order as a decision has them, with the mixture that the Python solver decides."""

import math
from dataclasses import dataclass

import numpy as np

from tikmix_pipeline.influence.report import SpreadRecord
from tikmix_pipeline.influence.standard_error import Spread
from tikmix_pipeline.mixture.bounds import mixture_bounds
from tikmix_pipeline.mixture.constraints import Supply
from tikmix_pipeline.mixture.decision import Decision
from tikmix_pipeline.mixture.records import TokenBudget
from tikmix_pipeline.mixture.response import response_problem
from tikmix_pipeline.mixture.response_fit import FittedResponse, MeasuredResponse
from tikmix_pipeline.mixture.second_order import DomainProducts
from tikmix_pipeline.parameters import OptimizeParameters
from tikmix_pipeline.report.whatif_page import render_whatif
from tikmix_pipeline.report.whatif_problem import whatif_problem
from tikmix_pipeline.report.whatif_records import WhatIfProblem


def names(letter, count):
    return [f"{letter}{k}" for k in range(count)]


@dataclass(frozen=True)
class Case:
    """A problem, and what it asks for."""

    name: str
    problem: WhatIfProblem
    decision: Decision


def case(
    name, seed, domains=7, tasks=5, *, caps=None, current=None, measured=None, errors=False, opposed=False, **given
):
    """Solve a problem whose S, D and Q belong together and whose Q has full rank, so that one mixture is the best."""
    rng = np.random.default_rng(seed)
    common = rng.normal(size=40)
    domain_Kp, task_Tp = rng.normal(size=(domains, 40)) + common, rng.normal(size=(tasks, 40)) + common
    curvature_p = rng.lognormal(size=40)
    damped_p = 1 / (curvature_p + 0.3)
    stderr_KK = rng.uniform(0.5, 2.0, size=(domains, domains)) if errors else None
    products = DomainProducts(
        domain_Kp * damped_p @ domain_Kp.T, domain_Kp * (curvature_p * damped_p**2) @ domain_Kp.T, stderr_KK
    )
    influence_TK = task_Tp * damped_p @ domain_Kp.T
    if opposed:
        influence_TK[1] = -influence_TK[0]
    prior_K = rng.dirichlet(np.full(domains, 2.0))
    ngram_K = rng.dirichlet(np.full(domains, 1.0))
    parameters = OptimizeParameters.model_validate({"max_epochs": 1, **given})
    supplies = {d: Supply(1000 * cap) for d, cap in zip(names("d", domains), caps or [math.inf] * domains, strict=True)}
    bounds = mixture_bounds(parameters, supplies, 1000, dict(zip(supplies, prior_K.tolist(), strict=True)))
    problem = response_problem(
        influence_TK,
        products,
        prior_K,
        bounds,
        parameters,
        domains=names("d", domains),
        tasks=names("t", tasks),
        current_K=prior_K if current is None else np.array(current),
        measured=measured,
        stderr_TK=np.abs(influence_TK) / 10,
        ngram_K=ngram_K,
    )
    return Case(name, whatif_problem(problem), problem.decision())


def budget_of(found, **changes):
    """A token budget over the domains of a case."""
    domains = found.problem.domains
    given = {"available": dict.fromkeys(domains, 3e9), "consumed": dict.fromkeys(domains, 1e9), "chunk_tokens": 10**9}
    current = dict(zip(domains, found.problem.current_K, strict=True))
    return TokenBudget.model_validate({"round": 2, "current": current, **given, **changes})


def spread_of(found, seed=0):
    """A spread over a few chunks of every task and domain, with errors of a tenth of the influence."""
    rng = np.random.default_rng(seed)
    contrast_TK = np.array(found.problem.contrast_TK)
    shape = (len(contrast_TK), 4, contrast_TK.shape[1], 4)
    products = contrast_TK[:, None, :, None] + 0.5 * np.abs(contrast_TK).mean() * rng.normal(size=shape)
    counts = Spread.of(products, np.full(shape[:2], 100), np.full(shape[2:], 100))
    parts = {name: values.tolist() for name, values in vars(counts).items()}
    return SpreadRecord(tasks=found.problem.tasks, domains=found.problem.domains, **parts)


def page_of(found, *, problem=..., decision=None, experiment="team", checkpoint="checkpoints/step-200"):
    """The page of a case, or of the same one but for what is given."""
    problem = found.problem if problem is ... else problem
    decision = decision or found.decision.to_record("direct", 3)
    spread, budget = spread_of(found), budget_of(found)
    names = {"experiment": experiment, "checkpoint": checkpoint}
    return render_whatif(problem, decision, spread, budget, calibration=None, **names)


def told_by_branches():
    """What six branches have told."""
    fitted = FittedResponse(0.01, 0.6, True, np.array([[1e-4, 1e-5], [1e-5, 4e-4]]), 0.002, 4.0)
    losses = {**dict.fromkeys(names("d", 7), 4.0), **dict.fromkeys(names("t", 5), 3.0)}
    return MeasuredResponse(fitted, 6, losses, dict.fromkeys(losses, 4.0))


def cases():
    """Small and large, guarded and not, held by bounds, caps, groups and pins, by every objective there is."""
    plain, loose = {"anchor": "uniform"}, {"guardrails": {"heldout": None}}
    sizes = [
        case(f"{how} over {count} domains", count, count, **given)
        for count in range(3, 19, 3)
        for how, given in (
            ("the defaults", {}),
            ("without entropy", plain),
            ("without guardrails", loose),
            ("gains alone", {**plain, **loose, "pareto": False}),
            ("a strict guardrail", {"guardrails": {"heldout": {"tolerance": 0.2}}, **plain}),
        )
    ]
    each = {"guardrails": {"each_domain": {"tolerance": 0.5}, "heldout": {"tolerance": 0.1}}}
    groups = {"even": {"domains": ["d0", "d2", "d4"], "max": 0.3}, "odd": {"domains": ["d1", "d3"], "min": 0.3}}
    uneven = {"task_weights": {"t0": 3.0, "t1": 0.0, "g": 2.0, "t2": 2.0}, "task_groups": {"g": ["t2", "t3"]}}
    in_nats = {"d6": {"tolerance": 0.005, "unit": "nats"}, "d2": {"tolerance": 0.1, "unit": "percent"}}
    logarithm = {"heldout_response": "logarithm"}
    in_bits = {"d3": {"tolerance": 0.001, "unit": "bits_per_byte"}}
    return [
        *sizes,
        case("a guardrail for each domain", 30, 9, **each),
        case("caps and floors", 31, 7, max_weight=0.25, min_weight=0.03),
        case("little text", 32, 7, caps=[0.1, 0.2, 0.15, 0.3, 0.3, 1.0, 1.0], **plain),
        case("groups", 103, 7, groups=groups, **loose),
        case("pins", 34, 7, pinned={"d1": 0.2, "d2": "current"}, **plain),
        case("weights and groups of tasks", 35, 7, **uneven),
        case("shares of each task's best", 36, 7, normaliser="best", **uneven),
        case("tasks that want opposite things", 44, 7, opposed=True),
        case("tasks that leave no room", 45, 7, opposed=True, saturation=0.0),
        case("a soft minimum", 37, 7, fairness="softmin", temperature=0.2),
        case("a small spread", 38, 7, uniformity=1.0, entropy=0.5),
        case("a gain of its own", 39, 7, gain=2.0, entropy=1.0, anchor="current"),
        case("standard errors", 101, 7, errors=True, guardrails={"heldout": {"tolerance": 0.3, "unit": "stderr"}}),
        case("nats and per cent", 42, 7, measured=told_by_branches(), branches=6, guardrails=in_nats),
        case("bits per byte", 101, 7, measured=told_by_branches(), branches=6, guardrails=in_bits),
        case("own shares by their logarithm", 101, 7, guardrails={"heldout": {"tolerance": 0.3}}, **logarithm),
        case("each by its logarithm", 30, 9, **each, **logarithm),
        case("bits per byte by it", 101, 7, measured=told_by_branches(), branches=6, guardrails=in_bits, **logarithm),
    ]
