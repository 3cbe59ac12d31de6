"""The mixture that one measurement implies, for a measurement that grows until it is stable.

Axes: T tasks, K domains.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tikmix_pipeline.mixture.direct import solve_direct
from tikmix_pipeline.mixture.simplex import FloatArray, check_mixture
from tikmix_pipeline.mixture.stock import Stock
from tikmix_pipeline.parameters import OptimizeParameters


def implied_mixture(
    stock: Mapping[str, Any], prior: Mapping[str, float], optimize: OptimizeParameters, tasks: Sequence[str]
) -> Callable[[FloatArray], FloatArray]:
    """Return what TiKMiX-D makes of one round's influence under the run's own bounds and weights of the objective.

    Earlier rounds are left out: with them (`tikmix.memory`) the decision is steadier still.

    Args:
        stock: `Stock.to_dict()` of the round.
        prior: the prior mixture.
        optimize: how the decision is made.
        tasks: names of axis T.
    """
    run = Stock.from_dict(stock)
    domains, bounds = run.domains, run.bounds(optimize)
    prior_K = check_mixture(prior, domains, "the prior mixture")
    current_K = check_mixture(run.in_force, domains, "the mixture in force")

    def implied(influence_TK: FloatArray) -> FloatArray:
        decision = solve_direct(
            influence_TK, prior_K, bounds, optimize, domains=domains, tasks=list(tasks), current_K=current_K
        )
        return decision.weights_K

    return implied
