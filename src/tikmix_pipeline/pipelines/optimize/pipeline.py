"""Wiring of the `optimize` pipeline."""

from typing import Any

from kedro.pipeline import Node, Pipeline

from tikmix_pipeline.parameters.decision import BASELINES
from tikmix_pipeline.pipelines.names import of_round
from tikmix_pipeline.pipelines.optimize.baselines import DECIDED_BY
from tikmix_pipeline.pipelines.optimize.nodes import decide
from tikmix_pipeline.pipelines.stages import stage_round
from tikmix_pipeline.run import run_context


def create_pipeline(**_: Any) -> Pipeline:
    """Decide the mixture that follows one round, by the run's strategy."""
    baseline = run_context().parameters.tikmix.strategy in BASELINES
    return baseline_of_round(0) if baseline else decision_of_round(stage_round(decision_of_round))


def baseline_of_round(number: int) -> Pipeline:
    """Decide by another method than TiKMiX; the mixture is for all rounds after the first."""
    function, inputs = DECIDED_BY[run_context().parameters.tikmix.strategy]
    names = {"prior": of_round(0, "mixture"), "work": of_round(number, "baseline_work")}
    return Pipeline(
        [
            Node(
                function,
                [of_round(number, "stock"), *(names.get(name, name) for name in inputs)],
                of_round(number, "baseline"),
                name="decide_baseline",
                namespace=f"round_{number}",
            )
        ]
    )


def decision_of_round(number: int) -> Pipeline:
    """Decide, at the end of round `number`, from its influence and that of the rounds before."""
    return Pipeline(
        [
            Node(
                decide,
                [
                    of_round(number, "stock"),
                    of_round(0, "mixture"),
                    "params:optimize",
                    "params:tikmix",
                    *(of_round(earlier, "influence") for earlier in run_context().remembered(number)),
                ],
                of_round(number, "decision"),
                name="optimize_mixture",
                namespace=f"round_{number}",
            )
        ]
    )
