"""A sweep over four domains and three tasks whose true responses are known, and decisions on it."""

import math

import numpy as np

from tikmix_pipeline.mixture.bounds import mixture_bounds
from tikmix_pipeline.mixture.constraints import Supply
from tikmix_pipeline.mixture.direct import solve_direct
from tikmix_pipeline.mixture.sweep.design import dirichlet
from tikmix_pipeline.mixture.sweep.regression_data import RegressionData, SweepObjective
from tikmix_pipeline.mixture.sweep.responses import Responses, Scale
from tikmix_pipeline.mixture.sweep.solve import solve_surrogate
from tikmix_pipeline.parameters import OptimizeParameters, SweepParameters

DOMAINS = ("books", "code", "maths", "web")
TASKS = ("facts", "proofs", "sums")
INFLUENCE = np.array([[1.0, 0.2, 0.1, 0.5], [0.1, 0.4, 1.0, 0.2], [0.3, 0.9, 0.6, 0.1]])
PRIOR = np.array([0.3, 0.2, 0.1, 0.4])
WHOLE = (np.zeros(4), np.ones(4))


def additive(weights_NK):
    return -weights_NK @ INFLUENCE.T


def interacting(weights_NK):
    """Diminishing returns of every task's own domain, help between pairs of them, and harm by a third."""
    books, code, maths, web = weights_NK.T
    return np.stack(
        [
            -np.log(0.05 + books) - 3 * books * web + code,
            -np.log(0.05 + maths) - 4 * maths * code + 0.5 * web,
            -np.log(0.10 + code) - 2 * code * books + books**2,
        ],
        axis=1,
    )


def bounds_of(parameters, caps=None):
    supplies = {name: Supply((caps or {}).get(name, math.inf) * 1000) for name in DOMAINS}
    return mixture_bounds(parameters, supplies, 1000)


def measured(response_of, weights_NK, noise=0.0):
    response_NT = response_of(weights_NK)
    response_NT = response_NT + noise * response_NT.std(axis=0) * np.random.default_rng(5).normal(
        size=response_NT.shape
    )
    runs = tuple(f"{n:03d}" for n in range(len(weights_NK)))
    return Responses(runs, DOMAINS, TASKS, weights_NK, response_NT)


def candidates(parameters, count=128):
    return dirichlet(
        PRIOR,
        count=count,
        min_strength=0.3,
        max_strength=5,
        max_ratio=15,
        bounds=bounds_of(parameters),
        seed=0,
    )


def grid_of(box, steps=50):
    """All mixtures of four domains on a fine mesh, inside the box."""
    axes = np.indices((steps + 1,) * 3).reshape(3, -1).T
    axes = axes[axes.sum(axis=1) <= steps]
    grid = np.column_stack([axes, steps - axes.sum(axis=1)]) / steps
    return grid[np.all((grid >= box[0] - 1e-12) & (grid <= box[1] + 1e-12), axis=1)]


def true_objective(response_of, scale, weights_NK, objective="direct"):
    """The paper's formula, written out anew, with as much of the mean gain as of the sum over its nine tasks."""
    gains = (scale.offset_T - response_of(weights_NK)) / scale.scale_T
    if objective == "sum":
        return -gains.sum(axis=1)
    entropies = -np.where(weights_NK > 0, weights_NK * np.log(np.where(weights_NK > 0, weights_NK, 1)), 0).sum(axis=1)
    return gains.std(axis=1) - 9 * gains.mean(axis=1) - entropies


def decide(response_of=additive, *, predict=None, direct=None, box=WHOLE, responses=None, scale=None, **options):
    parameters = options.pop("parameters", OptimizeParameters(method="paper"))
    sweep = options.pop("sweep", SweepParameters(response="lookahead"))
    weights_NK = candidates(parameters).weights_NK
    responses = responses or measured(response_of, weights_NK)
    scale = scale or Scale.of_range(response_of(weights_NK))
    searched = SweepObjective.of(responses, scale, sweep, parameters)
    return solve_surrogate(
        predict or response_of,
        data=RegressionData(responses, scale, searched, options.pop("influence", None), sweep.target == "aggregate"),
        direct=direct,
        box=box,
        pareto=parameters.pareto,
        sweep=sweep,
        seed=0,
        **options,
    )


def direct_decision(parameters=None):
    parameters = parameters or OptimizeParameters(method="paper")
    return solve_direct(INFLUENCE, PRIOR, bounds_of(parameters), parameters, domains=DOMAINS, tasks=TASKS)


def record_of(decision):
    return decision.to_record("direct", 1)
