"""Wiring of the `reweight` pipeline."""

from typing import Any

from kedro.pipeline import Node, Pipeline

from tikmix_pipeline.parameters.view import NoParameters
from tikmix_pipeline.pipelines.cached_node import cached_node
from tikmix_pipeline.pipelines.names import chosen_decision, deciding_rounds, of_round
from tikmix_pipeline.pipelines.reweight import nodes
from tikmix_pipeline.run import Run, current_run

_STAGE = "reweight"


def create_pipeline(**_: Any) -> Pipeline:
    """Record the mixture that follows one round, and write it for the trainers of `reweight.exports`."""
    run = current_run()
    number = run.round_of(_STAGE)
    return Pipeline([record_of_round(run, number), exports_of_round(run, number)])


def record_of_round(run: Run, number: int) -> Pipeline:
    """Record what round `number` decided as the mixture of round `number + 1`, or that its own mixture is kept."""
    budget = of_round(number, "token_budget")
    recorded = [of_round(number + 1, "mixture"), of_round(number + 1, "mixture_rows")]
    place: dict[str, Any] = {"stage": _STAGE, "number": number}
    if number >= deciding_rounds(run):
        view, inputs = nodes.KeptView.of(run.parameters), [of_round(number, "mixture"), budget]
        return Pipeline([cached_node(nodes.keep_mixture, view, inputs, recorded, name="keep_mixture", **place)])
    decided = [chosen_decision(run, number), budget, of_round(0, "mixture")]
    record = nodes.RecordView.of(run.parameters)
    return Pipeline([cached_node(nodes.record_decision, record, decided, recorded, name="record_mixture", **place)])


def exports_of_round(run: Run, number: int) -> Pipeline:
    """Write the mixtures up to that of round `number + 1` for the trainers of `reweight.exports`, if there are any."""
    if not run.parameters.reweight.exports:
        return Pipeline([])
    rounds = [of_round(earlier, name) for earlier in range(number + 1) for name in ("mixture", "token_budget")]
    exports = cached_node(
        nodes.export_mixtures,
        nodes.ExportView.of(run.parameters),
        [of_round(number, "gains"), "corpus", *rounds, of_round(number + 1, "mixture")],
        of_round(number, "exports"),
        name="export_mixtures",
        stage=_STAGE,
        number=number,
    )
    return Pipeline([gains_of_round(run, number), exports])


def gains_of_round(run: Run, number: int) -> Node:
    """Say what the mixture decided at the end of round `number` is expected to gain, where that was measured."""
    before, after = of_round(number, "mixture"), of_round(number + 1, "mixture")
    is_measured = number < deciding_rounds(run) and run.parameters.tikmix.strategy in ("direct", "surrogate")
    place: dict[str, Any] = {"name": "state_gains", "stage": _STAGE, "number": number}
    gains = of_round(number, "gains")
    if not is_measured:
        return cached_node(nodes.state_no_gains, NoParameters(), after, gains, **place)
    measured = [of_round(number, "spread"), before, after, chosen_decision(run, number)]
    return cached_node(nodes.state_gains, nodes.GainsView.of(run.parameters), measured, gains, **place)
