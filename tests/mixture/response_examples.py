"""Problems of second order that are small and consistent, and decisions on them."""

import math

import numpy as np
import pandas as pd

from tikmix_pipeline.mixture.bounds import mixture_bounds
from tikmix_pipeline.mixture.constraints import Supply
from tikmix_pipeline.mixture.direct import decide_direct
from tikmix_pipeline.mixture.records import MixtureRecord, TokenBudget
from tikmix_pipeline.mixture.response import response_problem
from tikmix_pipeline.mixture.response_fit import FittedResponse, MeasuredResponse
from tikmix_pipeline.mixture.second_order import DomainProducts
from tikmix_pipeline.parameters import OptimizeParameters, TikmixParameters

NO_GUARD = {"guardrails": {"heldout": None}}


def names(letter, count):
    return [f"{letter}{k}" for k in range(count)]


def random_problem(seed, tasks, domains):
    """Gradients of domains and tasks in a few dimensions, so that S, D and Q belong together."""
    rng = np.random.default_rng(seed)
    common = rng.normal(size=12)
    domain_Kp = rng.normal(size=(domains, 12)) + common
    task_Tp = rng.normal(size=(tasks, 12)) + common
    curvature_p = rng.lognormal(size=12)
    damped_p = 1 / (curvature_p + 0.3)
    linear = domain_Kp * damped_p @ domain_Kp.T
    curved = domain_Kp * (curvature_p * damped_p**2) @ domain_Kp.T
    return task_Tp * damped_p @ domain_Kp.T, DomainProducts(linear, curved), rng.dirichlet(np.full(domains, 2.0))


def solve(influence, products, prior, caps=None, **given):
    tasks, domains = names("t", len(influence)), names("d", influence.shape[1])
    parameters = OptimizeParameters.model_validate(
        {"method": "response", "anchor": "uniform", "max_epochs": 1, "heldout_response": "second_order", **given}
    )
    caps = [math.inf] * len(domains) if caps is None else caps
    bounds = mixture_bounds(parameters, {d: Supply(cap * 1000) for d, cap in zip(domains, caps, strict=True)}, 1000)
    return response_problem(influence, products, prior, bounds, parameters, domains=domains, tasks=tasks).decision()


def gains(rows, products, weights, prior, r=0.85):
    """The formula of the method, written out anew for one mixture."""
    bent = weights @ products.curved_KK @ weights - prior @ products.curved_KK @ prior
    return rows @ (weights - prior) - r / 2 * bent


def table(influence, error=0.1):
    return pd.DataFrame(
        [
            {"task": f"t{t}", "domain": f"d{k}", "influence": value, "stderr": error}
            for t, row in enumerate(influence)
            for k, value in enumerate(row)
        ]
    )


def product_table(products):
    count = len(products.curved_KK)
    stderr = products.heldout_stderr_KK
    return pd.DataFrame(
        {
            "text": np.repeat(names("d", count), count),
            "domain": np.tile(names("d", count), count),
            "influence": products.heldout_KK.ravel(),
            "curved": products.curved_KK.ravel(),
            **({} if stderr is None else {"stderr": stderr.ravel()}),
        }
    )


def decide(tables, products, parts=(), **given):
    count = len(products[0].curved_KK)
    domains = names("d", count)
    current = dict.fromkeys(domains, 1 / count)
    available = dict.fromkeys(domains, 1e9)
    budget = TokenBudget(round=0, available=available, consumed={}, chunk_tokens=1000, current=current)
    prior = MixtureRecord(round=0, strategy="prior", chunk_tokens=1000, weights=current, tokens={}, epochs={})
    told = {"method": "response", "anchor": "uniform", "heldout_response": "second_order", **given}
    optimize = OptimizeParameters.model_validate(told)
    averaging = TikmixParameters(memory="precision")
    return decide_direct(
        budget, prior, optimize, averaging, tables, [product_table(one) for one in products], parts=parts
    )


def measured(is_told=True, **losses):
    fitted = FittedResponse(0.1, 0.85, is_told, np.eye(2) * 1e-4, 0.01, 4.0)
    return MeasuredResponse(fitted, 6, losses)
