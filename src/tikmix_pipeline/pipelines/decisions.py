"""What the nodes that decide have in common: the bounds of the coming chunk, and the influence decided on."""

from collections.abc import Mapping, Sequence
from typing import Any

from tikmix_pipeline.parameters import OptimizeParameters, TikmixParameters, TrainParameters
from tikmix_pipeline.pipelines.types import Bounds, Checkpoint, Table, TokenShards


def coming_bounds(
    checkpoint: Checkpoint,
    corpus: TokenShards,
    optimize: OptimizeParameters,
    train: TrainParameters,
    prior: Mapping[str, float] | None = None,
) -> Bounds:
    """Return the bounds on each domain's share of the chunk that follows a checkpoint.

    Pins to `current` hold the mixture in force: the checkpoint's, or the prior where it was trained elsewhere.
    """
    from tikmix_pipeline.mixture.bounds import Supply, mixture_bounds, within_reach

    read = checkpoint.tokens_read()
    supplies = {domain: Supply(corpus.tokens(domain), read.get(domain, 0)) for domain in corpus.domains}
    current = checkpoint.mixture()
    bounds = mixture_bounds(optimize, supplies, train.tokens_per_chunk, current or prior)
    if optimize.max_change is None or current is None:
        return bounds
    return within_reach(bounds, current, optimize.max_change)


def remembered(tables: Sequence[Table], domains: Sequence[str], tikmix: TikmixParameters) -> tuple[list[str], Any]:
    """Return the tasks and the influence (T, K) that a decision rests on, from the tables of the rounds so far."""
    from tikmix_pipeline.mixture.memory import remember

    matrices = [influence_matrix(table, domains) for table in tables]
    tasks, influence_TK = matrices[-1]
    if tikmix.memory == "none":
        return tasks, influence_TK
    errors = [influence_matrix(table, domains, "stderr")[1] for table in tables]
    return tasks, remember([matrix for _, matrix in matrices], errors if tikmix.memory == "precision" else None)


def influence_matrix(table: Table, domains: Sequence[str], values: str = "influence") -> tuple[list[str], Any]:
    """Turn a table of `task, domain, influence, stderr` into task names and a (T, K) matrix of one of the last two."""
    import pandas as pd

    wide = table.pivot(index="task", columns="domain", values=values).loc[pd.unique(table["task"]), [*domains]]
    return list(wide.index), wide.to_numpy(dtype="float64")
