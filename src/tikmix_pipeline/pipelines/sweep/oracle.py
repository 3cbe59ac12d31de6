"""The node of the `sweep` pipeline that takes the best of the mixtures that were really trained on."""

from collections.abc import Mapping
from typing import Any

from tikmix_pipeline.pipelines.steps import nothing, step
from tikmix_pipeline.pipelines.types import Table


@step(nothing)
def choose_measured(ratios: Table, metrics: Table, direct: Mapping[str, Any]) -> dict[str, Any]:
    """Take the candidate whose mean response over the targets is the lowest."""
    from tikmix_pipeline.mixture.records import DecisionRecord
    from tikmix_pipeline.mixture.sweep.choose import best_measured

    return best_measured(ratios, metrics, DecisionRecord.from_json(direct)).to_json()
