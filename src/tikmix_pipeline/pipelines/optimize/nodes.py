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
    from tikmix_pipeline.mixture.bounds import Supply, mixture_bounds
    from tikmix_pipeline.mixture.direct import solve_direct
    from tikmix_pipeline.mixture.memory import remember
    from tikmix_pipeline.mixture.report import summary_lines
    from tikmix_pipeline.mixture.simplex import check_mixture

    domains = list(corpus.domains)
    matrices = [influence_matrix(table, domains) for table in influences]
    tasks, influence_TK = matrices[-1][0], matrices[-1][1]
    if tikmix.memory == "mean":
        influence_TK = remember([matrix for _, matrix in matrices])
    read = checkpoint.tokens_read()
    supplies = {domain: Supply(corpus.tokens(domain), read[domain]) for domain in domains}
    bounds = mixture_bounds(optimize, supplies, train.tokens_per_chunk)
    prior_K = check_mixture(prior["weights"], domains, "the prior mixture")
    decision = solve_direct(influence_TK, prior_K, bounds, optimize, domains=domains, tasks=tasks)
    _LOG.info("The mixture of round %d\n%s", len(influences), "\n".join(summary_lines(decision)))
    return {"strategy": tikmix.strategy, "round": len(influences), **decision.to_dict()}


def influence_matrix(table: Table, domains: list[str]) -> tuple[list[str], Any]:
    """Turn a table of `task, domain, influence` into task names and a (T, K) matrix."""
    import pandas as pd

    wide = table.pivot(index="task", columns="domain", values="influence").loc[pd.unique(table["task"]), domains]
    return list(wide.index), wide.to_numpy(dtype="float64")
