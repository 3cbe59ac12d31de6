"""Wiring of the `remix` pipeline.

    text ─> corpus ─┬─> adopt_checkpoint ─> checkpoint ──────────┬─> influence ─> optimize (─> sweep) ─> mixture
                    └─> take_stock_elsewhere ─> stock, in_force ─┘        └──────────> report, exports <──┘

Measuring and deciding are the nodes of the loop. What differs is where checkpoint and stock come from, and that gains
and Pareto constraints hold against the mixture in force instead of mixture 0. Artifacts of earlier rounds are taken as
they are.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from kedro.pipeline import Node, Pipeline

from tikmix_pipeline.pipelines.influence.pipeline import influence_of_round
from tikmix_pipeline.pipelines.names import of_round
from tikmix_pipeline.pipelines.optimize.pipeline import decision_of_round
from tikmix_pipeline.pipelines.remix.corpus import sample_text, tokenize_sample
from tikmix_pipeline.pipelines.remix.nodes import adopt_checkpoint, list_in_force, take_stock_elsewhere
from tikmix_pipeline.pipelines.remix.report import write_report
from tikmix_pipeline.pipelines.remix.rounds import recalled_rounds, remix_round
from tikmix_pipeline.pipelines.reweight.pipeline import (
    chosen_decision,
    exports_of_round,
    gains_of_round,
    record_of_round,
)
from tikmix_pipeline.pipelines.sweep.pipeline import sweep_of_round
from tikmix_pipeline.run import RunContext, as_current, run_context


def create_pipeline(**_: Any) -> Pipeline:
    """Measure at the user's checkpoint, decide and record the mixture of the next chunk."""
    number = remix_round(run_context())
    return Pipeline([_reading(), _beginning(number), _deciding(number)])


def made_earlier(pipeline: Pipeline) -> list[str]:
    """Return the inputs that earlier rounds have made; the others are parameters, and places to work in."""
    kinds = {"mixture", "stock", "in_force", "influence", "part_influence"}
    return [name for name in sorted(pipeline.inputs()) if name.startswith("round_") and name.split("_", 2)[2] in kinds]


def _reading() -> Pipeline:
    amounts = ["params:corpus", "params:influence", "params:train", "project", "downloads"]
    return Pipeline(
        [
            Node(sample_text, amounts, "text", name="sample_text"),
            Node(
                tokenize_sample,
                ["params:corpus", "params:model", "text", "project"],
                "corpus",
                name="tokenize_sample",
            ),
        ]
    )


def _beginning(number: int) -> Pipeline:
    """Take the checkpoint and the stock, and list the mixture in force, which need not be the one decided before."""
    checkpoint, in_force = of_round(number, "checkpoint"), of_round(number, "in_force")
    before = [of_round(number - 1, "stock"), of_round(number, "mixture")] if number else []
    told = ["params:remix", "params:tikmix", "params:train", "project", "params:experiment"]
    nodes = [
        Node(
            adopt_checkpoint,
            ["corpus", "params:model", "params:train", "project"],
            checkpoint,
            name="adopt_checkpoint",
        ),
        Node(
            take_stock_elsewhere,
            [checkpoint, "corpus", *told, *before],
            [of_round(number, "stock"), in_force],
            name="take_stock_elsewhere",
        ),
        Node(list_in_force, in_force, of_round(number, "mixture_rows"), name="list_in_force"),
    ]
    return Pipeline(nodes, namespace=f"round_{number}", prefix_datasets_with_namespace=False)


def _deciding(number: int) -> Pipeline:
    """Measure, decide and hand over, by the nodes of the loop."""
    stages = [influence_of_round, decision_of_round, record_of_round]
    if run_context().parameters.tikmix.strategy == "surrogate":
        stages.append(sweep_of_round)
    with as_current(_without_training(run_context(), number)):
        deciding, exports = [stage(number) for stage in stages], exports_of_round(number)
        handing_over = exports if exports.nodes else gains_of_round(number)
        chosen = chosen_decision(number)
    in_force = {of_round(earlier, "mixture"): of_round(earlier, "in_force") for earlier in range(number + 1)}
    # what the loop compares with is mixture 0, and here what the run would go on with
    now = in_force[of_round(number, "mixture")]
    compared = {of_round(0, "mixture"): now, of_round(number, "mixture"): now}
    report = _report(number, chosen, has_exports=bool(exports.nodes))
    return Pipeline([_renamed(Pipeline(deciding), compared), _renamed(handing_over, in_force), report])


def _report(number: int, chosen: str, *, has_exports: bool) -> Pipeline:
    recorded = ["influence", "stock", "in_force"]
    decided = [of_round(number + 1, "mixture"), chosen]
    told = ["params:model", "params:optimize", "params:experiment", "params:seed"]
    return Pipeline(
        [
            Node(
                write_report,
                [
                    of_round(number, "checkpoint"),
                    *(of_round(number, name) for name in recorded),
                    *decided,
                    *(of_round(number, name) for name in ("gains", "measurement")),
                    *told,
                    *([of_round(number, "exports")] if has_exports else []),
                ],
                [of_round(number, "report_content"), of_round(number, "report")],
                name="write_report",
                namespace=f"round_{number}",
            )
        ]
    )


def _renamed(pipeline: Pipeline, names: Mapping[str, str]) -> Pipeline:
    return Pipeline(pipeline, inputs={old: new for old, new in names.items() if old in pipeline.inputs()})


def _without_training(context: RunContext, number: int) -> RunContext:
    """Return a context in which every round decides, and measures its checkpoint as it is."""
    parameters = context.parameters
    own = {
        "round": number,
        "influence": parameters.influence.model_copy(update={"rebalance_tokens": 0}),
        "tikmix": parameters.tikmix.model_copy(update={"decisions": None}),
    }
    return replace(context, parameters=parameters.model_copy(update=own), recalled=recalled_rounds(context, number))
