"""Nodes of the `optimize` pipeline."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tikmix_pipeline.parameters import OptimizeParameters, RunParameters, TikmixParameters, TrainParameters
from tikmix_pipeline.pipelines.steps import step
from tikmix_pipeline.pipelines.types import Checkpoint, Table, TokenShards

_LOG = logging.getLogger(__name__)


def _relevant(parameters: RunParameters, round_number: int, root: Path) -> Mapping[str, Any]:
    del round_number, root
    return {
        "optimize": parameters.optimize.model_dump(mode="json"),
        "tikmix": parameters.tikmix.model_dump(mode="json", exclude={"rounds"}),
        "train": {"tokens_per_chunk": parameters.train.tokens_per_chunk},
    }


@step(_relevant)
def decide(
    checkpoint: Checkpoint,
    prior: Mapping[str, Any],
    corpus: TokenShards,
    train: TrainParameters,
    optimize: OptimizeParameters,
    tikmix: TikmixParameters,
    *influences: Table,
) -> dict[str, Any]:
    """Decide the mixture of the next round."""
    from tikmix_pipeline.mixture.direct import solve_direct
    from tikmix_pipeline.mixture.report import summary_lines
    from tikmix_pipeline.mixture.simplex import check_mixture
    from tikmix_pipeline.pipelines.decisions import coming_bounds, remembered

    domains = list(corpus.domains)
    tasks, influence_TK = remembered(influences, domains, tikmix)
    bounds = coming_bounds(checkpoint, corpus, optimize, train, prior["weights"])
    prior_K = check_mixture(prior["weights"], domains, "the prior mixture")
    in_force = checkpoint.mixture()
    current_K = check_mixture(in_force, domains, "the mixture in force") if in_force else None
    decision = solve_direct(influence_TK, prior_K, bounds, optimize, domains=domains, tasks=tasks, current_K=current_K)
    _LOG.info("TiKMiX-D for round %d\n%s", len(influences), "\n".join(summary_lines(decision)))
    strategy = "prior" if tikmix.strategy == "prior" else "direct"
    return {"strategy": strategy, "round": len(influences), **decision.to_dict()}
