"""Which round a single stage acts on: the one named, or the first in which the stage is still to be done."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from tikmix_pipeline.datasets.recipes import Recipe, artifact_status
from tikmix_pipeline.pipelines.names import of_round
from tikmix_pipeline.run_context import RunContext, run_context

_MAKES = {"train_chunk": "checkpoint", "influence": "influence", "optimize": "decision", "reweight": "mixture"}
"""The artifact that tells whether a stage is done."""


def stage_round(stage: str) -> int:
    """Return the round that `stage` acts on; the last one when all are done."""
    context = run_context()
    if context.parameters.round is not None:
        return context.parameters.round
    expected = expected_recipes(context)
    for number in range(context.rounds):
        # reweight at the end of a round makes the mixture of the next
        name = of_round(number + 1 if stage == "reweight" else number, _MAKES[stage])
        if artifact_status(artifact_path(context, name), expected[name])[0] != "fresh":
            return number
    return context.rounds - 1


@lru_cache(maxsize=1)
def expected_recipes(context: RunContext) -> Mapping[str, Recipe]:
    """Return the recipe of every artifact of the loop under the current parameters."""
    from tikmix_pipeline.pipelines.recipes import recipes_of
    from tikmix_pipeline.pipelines.tikmix.pipeline import create_pipeline, unrolled

    loop = create_pipeline()
    longer = unrolled(context.rounds) if context.rounds > context.parameters.tikmix.rounds else loop
    return {
        **recipes_of(longer, context.parameters, context.root),
        **recipes_of(loop, context.parameters, context.root),
    }


def artifact_path(context: RunContext, name: str) -> Path:
    """Return where the catalog keeps an artifact."""
    from kedro.io import CatalogConfigResolver

    resolver = CatalogConfigResolver(dict(context.catalog), default_runtime_patterns={})
    entry: dict[str, Any] = resolver.resolve_pattern(name)
    return context.root / str(entry["filepath"])
