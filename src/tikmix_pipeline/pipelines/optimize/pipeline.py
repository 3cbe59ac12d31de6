"""Wiring of the `optimize` pipeline."""

from typing import Any

from kedro.pipeline import Node, Pipeline

from tikmix_pipeline.pipelines.names import of_round
from tikmix_pipeline.pipelines.optimize.nodes import decide
from tikmix_pipeline.pipelines.stages import stage_round


def create_pipeline(**_: Any) -> Pipeline:
    """Decide the mixture that follows one round."""
    return decision_of_round(stage_round(decision_of_round))


def decision_of_round(number: int) -> Pipeline:
    """Decide, at the end of round `number`, from its influence and that of the rounds before."""
    return Pipeline(
        [
            Node(
                decide,
                [
                    of_round(number, "checkpoint"),
                    of_round(0, "mixture"),
                    "corpus",
                    "params:train",
                    "params:optimize",
                    "params:tikmix",
                    *(of_round(earlier, "influence") for earlier in range(number + 1)),
                ],
                of_round(number, "decision"),
                name="optimize_mixture",
                namespace=f"round_{number}",
            )
        ]
    )
