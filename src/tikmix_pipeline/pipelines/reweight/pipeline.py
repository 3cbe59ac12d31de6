"""Wiring of the `reweight` pipeline."""

from typing import Any

from kedro.pipeline import Node, Pipeline

from tikmix_pipeline.pipelines.names import of_round
from tikmix_pipeline.pipelines.reweight.nodes import record_decision
from tikmix_pipeline.pipelines.stages import stage_round
from tikmix_pipeline.run_context import run_context


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
                    chosen_decision(number),
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


def chosen_decision(number: int) -> str:
    """Return whose decision at the end of round `number` counts: TiKMiX-M's where that is the strategy, else D's."""
    surrogate = run_context().parameters.tikmix.strategy == "surrogate"
    return of_round(number, "sweep_decision" if surrogate else "decision")
