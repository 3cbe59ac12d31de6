"""Wiring of the `reweight` pipeline."""

from typing import Any

from kedro.pipeline import Node, Pipeline

from tikmix_pipeline.parameters.decision import BASELINES
from tikmix_pipeline.pipelines.names import of_round
from tikmix_pipeline.pipelines.reweight.exports import export_mixtures, state_gains, state_no_gains
from tikmix_pipeline.pipelines.reweight.nodes import keep_mixture, record_decision
from tikmix_pipeline.pipelines.stages import stage_round
from tikmix_pipeline.run import run_context


def create_pipeline(**_: Any) -> Pipeline:
    """Record the mixture that follows one round, and write it for the trainers of `reweight.exports`."""
    number = stage_round(record_of_round)
    return Pipeline([record_of_round(number), exports_of_round(number)])


def record_of_round(number: int) -> Pipeline:
    """Record what round `number` decided as the mixture of round `number + 1`, or that its own mixture is kept."""
    if number >= deciding_rounds():
        return _keeping(number)
    return Pipeline(
        [
            Node(
                record_decision,
                [
                    chosen_decision(number),
                    of_round(number, "stock"),
                    of_round(0, "mixture"),
                    "params:tikmix",
                    "params:reweight",
                ],
                [of_round(number + 1, "mixture"), of_round(number + 1, "mixture_rows")],
                name="record_mixture",
                namespace=f"round_{number}",
            )
        ]
    )


def _keeping(number: int) -> Pipeline:
    return Pipeline(
        [
            Node(
                keep_mixture,
                [
                    of_round(number, "mixture"),
                    of_round(number, "stock"),
                    "params:optimize",
                    "params:reweight",
                ],
                [of_round(number + 1, "mixture"), of_round(number + 1, "mixture_rows")],
                name="keep_mixture",
                namespace=f"round_{number}",
            )
        ]
    )


def exports_of_round(number: int) -> Pipeline:
    """Write the mixtures up to that of round `number + 1` for the trainers of `reweight.exports`, if there are any."""
    parameters = run_context().parameters
    if not parameters.reweight.exports:
        return Pipeline([])
    rounds = [of_round(earlier, name) for earlier in range(number + 1) for name in ("mixture", "stock")]
    told = ["corpus", "params:reweight", "params:train", "params:optimize", "params:experiment"]
    exports = Node(
        export_mixtures,
        [of_round(number, "gains"), *told, *rounds, of_round(number + 1, "mixture")],
        of_round(number, "exports"),
        name="export_mixtures",
        namespace=f"round_{number}",
    )
    return Pipeline([gains_of_round(number), exports])


def gains_of_round(number: int) -> Pipeline:
    """Say what the mixture decided at the end of round `number` is expected to gain, where that was measured."""
    strategy = run_context().parameters.tikmix.strategy
    before, after = of_round(number, "mixture"), of_round(number + 1, "mixture")
    measured = [of_round(number, "spread"), before, after, chosen_decision(number), "params:influence"]
    is_measured = number < deciding_rounds() and strategy in ("direct", "surrogate")
    function, inputs = (state_gains, measured) if is_measured else (state_no_gains, [after])
    gains = of_round(number, "gains")
    return Pipeline([Node(function, inputs, gains, name="state_gains", namespace=f"round_{number}")])


def deciding_rounds() -> int:
    """Return how many rounds decide on the mixture of the next; after them it is kept."""
    context = run_context()
    # a single stage of a round beyond the loop decides as one within it would
    within = context.parameters.tikmix.deciding_rounds
    return within if within < context.parameters.tikmix.rounds else context.rounds


def chosen_decision(number: int) -> str:
    """Return whose decision at the end of round `number` counts."""
    strategy = run_context().parameters.tikmix.strategy
    if strategy in BASELINES:
        return of_round(number, "baseline")
    return of_round(number, "sweep_decision" if strategy == "surrogate" else "decision")
