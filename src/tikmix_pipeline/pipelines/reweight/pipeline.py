"""Wiring of the `reweight` pipeline."""

from functools import partial
from typing import Any

from kedro.pipeline import Node, Pipeline

from tikmix_pipeline.parameters.base import NoParameters
from tikmix_pipeline.pipelines.cached_node import cached_node
from tikmix_pipeline.pipelines.names import chosen_decision, deciding_rounds, of_round
from tikmix_pipeline.pipelines.reweight import nodes
from tikmix_pipeline.run import Run, current_run


def create_pipeline(**_: Any) -> Pipeline:
    """Record the mixture that follows one round, and write it for the trainers of `reweight.exports`."""
    run = current_run()
    number = run.round_of("reweight")
    return Pipeline([record_of_round(run, number), exports_of_round(run, number)])


def record_of_round(run: Run, number: int) -> Pipeline:
    """Record what round `number` decided as the mixture of round `number + 1`, or that its own mixture is kept."""
    budget = of_round(number, "token_budget")
    node = partial(
        cached_node, outputs=[of_round(number + 1, "mixture"), of_round(number + 1, "mixture_rows")], number=number
    )
    if number >= deciding_rounds(run):
        return Pipeline(
            [node(nodes.keep_mixture, nodes.KeptView.of(run.parameters), [of_round(number, "mixture"), budget])]
        )
    decided = [chosen_decision(run, number), budget, of_round(0, "mixture")]
    return Pipeline([node(nodes.record_decision, nodes.RecordView.of(run.parameters), decided, name="record_mixture")])


def exports_of_round(run: Run, number: int) -> Pipeline:
    """Write the mixtures up to that of round `number + 1` for the trainers of `reweight.exports`, if there are any."""
    if not run.parameters.reweight.exports:
        return Pipeline([])
    rounds = [of_round(earlier, name) for earlier in range(number + 1) for name in ("mixture", "token_budget")]
    inputs = [of_round(number, "gains"), "corpus", *rounds, of_round(number + 1, "mixture")]
    view, folder = nodes.ExportView.of(run.parameters), of_round(number, "exports")
    return Pipeline(
        [gains_of_round(run, number), cached_node(nodes.export_mixtures, view, inputs, folder, number=number)]
    )


def gains_of_round(run: Run, number: int) -> Node:
    """Say what the mixture decided at the end of round `number` is expected to gain, where that was measured."""
    before, after = of_round(number, "mixture"), of_round(number + 1, "mixture")
    node = partial(cached_node, outputs=of_round(number, "gains"), name="state_gains", number=number)
    if number >= deciding_rounds(run) or run.parameters.tikmix.strategy not in ("direct", "surrogate"):
        return node(nodes.state_no_gains, NoParameters(), after)
    measured = [of_round(number, "spread"), before, after, chosen_decision(run, number)]
    return node(nodes.state_gains, nodes.GainsView.of(run.parameters), measured)
