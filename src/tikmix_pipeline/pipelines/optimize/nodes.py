"""Nodes of the `optimize` pipeline."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tikmix_pipeline.parameters import OptimizeParameters, RunParameters, TikmixParameters
from tikmix_pipeline.pipelines.steps import step
from tikmix_pipeline.pipelines.types import Table

_LOG = logging.getLogger(__name__)


def _relevant(parameters: RunParameters, round_number: int, root: Path) -> Mapping[str, Any]:
    del round_number, root
    return {
        "optimize": parameters.optimize.model_dump(mode="json"),
        "tikmix": parameters.tikmix.model_dump(mode="json", exclude={"rounds"}),
    }


@step(_relevant)
def decide(
    stock: Mapping[str, Any],
    prior: Mapping[str, Any],
    optimize: OptimizeParameters,
    tikmix: TikmixParameters,
    *influences: Table,
) -> dict[str, Any]:
    """Decide the mixture of the next round."""
    from tikmix_pipeline.mixture.direct import solve_direct
    from tikmix_pipeline.mixture.report import summary_lines
    from tikmix_pipeline.mixture.simplex import check_mixture
    from tikmix_pipeline.mixture.stock import Stock
    from tikmix_pipeline.pipelines.decisions import remembered

    run = Stock.from_dict(stock)
    tasks, influence_TK = remembered(influences, run.domains, tikmix)
    bounds = run.bounds(optimize)
    prior_K = check_mixture(prior["weights"], run.domains, "the prior mixture")
    current_K = check_mixture(run.in_force, run.domains, "the mixture in force")
    decision = solve_direct(
        influence_TK, prior_K, bounds, optimize, domains=run.domains, tasks=tasks, current_K=current_K
    )
    number = run.round + 1
    _LOG.info("TiKMiX-D for round %d\n%s", number, "\n".join(summary_lines(decision)))
    strategy = "prior" if tikmix.strategy == "prior" else "direct"
    return {"strategy": strategy, "round": number, **decision.to_dict()}
