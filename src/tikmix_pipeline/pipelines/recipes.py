"""The recipe of every artifact of a DAG, from its steps, their parameters and each other."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node

from tikmix_pipeline.parameters import RunParameters
from tikmix_pipeline.store.code import code_of
from tikmix_pipeline.store.provenance import Recipe

_ROUND = re.compile(r"^round_(\d+)")


def round_of(node: Node) -> int:
    """Return the round a node belongs to; 0 outside the rounds."""
    found = _ROUND.match(node.namespace or "")
    return int(found[1]) if found else 0


def recipes_of(
    pipeline: Pipeline, parameters: RunParameters, root: Path, given: Mapping[str, str] | None = None
) -> dict[str, Recipe]:
    """Give each dataset that a step makes its recipe.

    Inputs that no step makes (parameters, folders, resume points) count through the step's own `relevant` values, or by
    the fingerprints in `given`.
    """
    recipes: dict[str, Recipe] = {}
    fingerprints = dict(given or {})
    for node in pipeline.nodes:
        function: Any = node.func
        code = code_of(function)
        recipe = Recipe(
            step=node.name,
            code=code.digest,
            parameters={**function.relevant(parameters, round_of(node), root), "versions": code.libraries},
            inputs={name: fingerprints[name] for name in sorted(node.inputs) if name in fingerprints},
        )
        recipes |= dict.fromkeys(node.outputs, recipe)
        fingerprints |= dict.fromkeys(node.outputs, recipe.fingerprint)
    return recipes
