"""Wiring of the `influence` pipeline."""

from typing import Any

from kedro.pipeline import Node, Pipeline

from tikmix_pipeline.pipelines.influence.nodes import draw_influence, measure
from tikmix_pipeline.pipelines.names import of_round
from tikmix_pipeline.pipelines.stages import stage_round


def create_pipeline(**_: Any) -> Pipeline:
    """Measure influence at the end of one round."""
    return influence_of_round(stage_round(influence_of_round))


def influence_of_round(number: int) -> Pipeline:
    """Measure influence at the checkpoint of round `number`."""
    return Pipeline(
        [
            Node(
                measure,
                [
                    of_round(number, "checkpoint"),
                    of_round(number, "mixture"),
                    "corpus",
                    "params:model",
                    "params:train",
                    "params:influence",
                    "params:seed",
                ],
                [of_round(number, "influence"), of_round(number, "measurement")],
                name="measure_influence",
                namespace=f"round_{number}",
            ),
            Node(
                draw_influence,
                of_round(number, "influence"),
                of_round(number, "influence_figure"),
                name="draw_influence",
                namespace=f"round_{number}",
            ),
        ]
    )
