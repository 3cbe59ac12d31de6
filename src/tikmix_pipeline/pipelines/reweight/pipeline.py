"""Wiring of the `reweight` pipeline."""

from typing import Any

from kedro.pipeline import Node, Pipeline

from tikmix_pipeline.pipelines.names import of_round
from tikmix_pipeline.pipelines.reweight.nodes import record_decision
from tikmix_pipeline.pipelines.stages import stage_round


def create_pipeline(**_: Any) -> Pipeline:
    """Record the mixture that follows one round."""
    return record_of_round(stage_round(record_of_round))


def record_of_round(number: int) -> Pipeline:
    """Record what round `number` decided as the mixture of round `number + 1`."""
    return Pipeline(
        [
            Node(
                record_decision,
                [
                    of_round(number, "decision"),
                    of_round(number, "checkpoint"),
                    of_round(0, "mixture"),
                    "corpus",
                    "params:tikmix",
                    "params:train",
                    "params:reweight",
                ],
                [of_round(number + 1, "mixture"), of_round(number + 1, "mixture_rows")],
                name="record_mixture",
                namespace=f"round_{number}",
            )
        ]
    )
