"""Which round a single stage acts on: the one named, or the first in which the stage is still to be done."""

from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from kedro.pipeline import Pipeline

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.run import RunContext, run_context
from tikmix_pipeline.store.provenance import Recipe, artifact_status, recorded_recipe


def stage_round(part: Callable[[int], Pipeline]) -> int:
    """Return the round that a stage acts on; the last one when all are done.

    Args:
        part: builds the stage of one round.
    """
    context = run_context()
    if context.parameters.round is not None:
        return context.parameters.round
    try:
        expected = expected_recipes(context)
    except TikmixError:  # a source is missing; a run that needs it says so, and others, over tables, need none
        return 0
    for number in range(context.rounds):
        outputs = {name for node in part(number).nodes if node.namespace for name in node.outputs}
        if not all(_is_done(context, name, expected[name]) for name in outputs):
            return number
    return context.rounds - 1


def _is_done(context: RunContext, name: str, recipe: Recipe) -> bool:
    # the rows that a round adds to a table of all rounds go with an artifact of the round alone
    return name.endswith("_rows") or artifact_status(artifact_path(context, name), recipe)[0] == "fresh"


@lru_cache(maxsize=1)
def expected_recipes(context: RunContext) -> Mapping[str, Recipe]:
    """Return the recipe of every artifact of the loop, its validation and its sweep under the current parameters."""
    from tikmix_pipeline.pipelines.influence.pipeline import influence_of_round
    from tikmix_pipeline.pipelines.optimize.pipeline import decision_of_round
    from tikmix_pipeline.pipelines.recipes import recipes_of
    from tikmix_pipeline.pipelines.reweight.pipeline import exports_of_round
    from tikmix_pipeline.pipelines.sweep.pipeline import sweep_of_round
    from tikmix_pipeline.pipelines.tikmix.pipeline import create_pipeline, unrolled
    from tikmix_pipeline.pipelines.validate.pipeline import validation_of_round

    stages = (influence_of_round, decision_of_round, exports_of_round)

    def recipes_with(loop: Pipeline, rounds: int) -> dict[str, Recipe]:
        beside = [validation_of_round(number) for number in range(rounds)]
        beside += [part(number) for number in range(rounds) for part in stages]
        if context.parameters.sweep.response != "table":
            beside += [sweep_of_round(number) for number in range(rounds)]
        # what the strategy needs of these is in the loop already
        within = {node.name for node in loop.nodes}
        apart = [node for part in beside for node in part.nodes if node.name not in within]
        return recipes_of(Pipeline([*loop.nodes, *apart]), context.parameters, context.root)

    recipes = recipes_with(create_pipeline(), context.parameters.tikmix.rounds)
    if context.rounds > context.parameters.tikmix.rounds:
        # a stage beyond the loop; the loop's own recipes stay as they are
        recipes = recipes_with(unrolled(context.rounds), context.rounds) | recipes
    return recipes


def recipes_of_tables(context: RunContext) -> Mapping[str, Recipe]:
    """Return the recipe of every artifact of a sweep over a user's tables, which needs nothing of the loop."""
    from tikmix_pipeline.pipelines.recipes import recipes_of
    from tikmix_pipeline.pipelines.sweep.pipeline import sweep_of_tables

    return recipes_of(sweep_of_tables(), context.parameters, context.root)


def recipes_of_remix(context: RunContext) -> Mapping[str, Recipe]:
    """Return the recipe of every artifact of a `remix`; what earlier rounds have made is expected as it was written."""
    from tikmix_pipeline.pipelines.recipes import recipes_of
    from tikmix_pipeline.pipelines.remix.pipeline import create_pipeline, made_earlier

    pipeline = create_pipeline()
    earlier = {name: recorded_recipe(artifact_path(context, name)) for name in made_earlier(pipeline)}
    given = {name: recipe.fingerprint for name, recipe in earlier.items()}
    return {**earlier, **recipes_of(pipeline, context.parameters, context.root, given)}


def recipes_of_comparison(context: RunContext) -> Mapping[str, Recipe]:
    """Return the recipe of every artifact of a comparison, which follows from the recipes of its arms."""
    from tikmix_pipeline.pipelines.compare.pipeline import create_pipeline
    from tikmix_pipeline.pipelines.recipes import recipes_of

    return recipes_of(create_pipeline(), context.parameters, context.root)


def artifact_path(context: RunContext, name: str) -> Path:
    """Return where the catalog keeps an artifact."""
    from kedro.io import CatalogConfigResolver

    resolver = CatalogConfigResolver(dict(context.catalog), default_runtime_patterns={})
    entry: dict[str, Any] = resolver.resolve_pattern(name)
    return context.root / str(entry["filepath"])
