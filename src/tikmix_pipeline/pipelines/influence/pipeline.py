"""Wiring of the `influence` pipeline.

    checkpoint ─> rebalance ─┬─> fit_factors ───────┬─> compute_influence ─> influence, its parts and errors,
                             └─> collect_gradients ─┘                        measurement

The first round, which the prior was in force in, needs no rebalancing. With `influence.tokens=auto` the factors go to
`collect_gradients` too, which asks what its gradients imply. A curvature that needs no fit has no factors.
"""

from typing import Any

from kedro.pipeline import Node, Pipeline

from tikmix_pipeline.parameters import InfluenceParameters
from tikmix_pipeline.pipelines.influence.balancing import rebalance
from tikmix_pipeline.pipelines.influence.nodes import (
    collect_gradients_until_stable,
    collect_part_gradients,
    compute_influence,
    draw_influence,
    fit_curvature_factors,
)
from tikmix_pipeline.pipelines.names import of_round
from tikmix_pipeline.pipelines.stages import stage_round
from tikmix_pipeline.run import run_context


def create_pipeline(**_: Any) -> Pipeline:
    """Measure influence at the end of one round."""
    return influence_of_round(stage_round(influence_of_round))


def influence_of_round(number: int) -> Pipeline:
    """Measure influence at the checkpoint of round `number`."""
    parameters = run_context().parameters.influence
    factors = [of_round(number, "factors")] if parameters.needs_factors else []
    fitted = [_fit(number)] if parameters.needs_factors else []
    return Pipeline(
        [
            *_rebalancing(number),
            *fitted,
            _collect(number, parameters, factors),
            Node(
                compute_influence,
                [
                    measured_checkpoint(number),
                    of_round(number, "mixture"),
                    of_round(number, "gradients"),
                    "params:model",
                    "params:train",
                    "params:influence",
                    "params:tikmix.rounds",
                    *factors,
                ],
                [of_round(number, name) for name in ("influence", "part_influence", "spread", "measurement")],
                name="compute_influence",
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


def measured_checkpoint(number: int) -> str:
    """Return what influence is measured at: the round's checkpoint, or a copy of it in balance with the prior."""
    parameters = run_context().parameters
    in_balance = number == 0 or parameters.tikmix.strategy == "prior" or not parameters.influence.rebalance_tokens
    return of_round(number, "checkpoint" if in_balance else "balanced")


def _rebalancing(number: int) -> list[Node]:
    balanced = measured_checkpoint(number)
    if balanced == of_round(number, "checkpoint"):
        return []
    return [
        Node(
            rebalance,
            [
                of_round(number, "checkpoint"),
                of_round(number, "mixture"),
                of_round(0, "mixture"),
                *("corpus", "params:model", "params:train", "params:influence", "params:tikmix.rounds", "params:seed"),
            ],
            balanced,
            name="rebalance",
            namespace=f"round_{number}",
        )
    ]


def _fit(number: int) -> Node:
    return Node(
        fit_curvature_factors,
        [*_measured(number), "params:influence", "params:seed", of_round(number, "factors_progress")],
        of_round(number, "factors"),
        name="fit_factors",
        namespace=f"round_{number}",
    )


def _collect(number: int, parameters: InfluenceParameters, factors: list[str]) -> Node:
    fixed = parameters.tokens != "auto"
    checkpoint, *rest = _measured(number)
    inputs = (
        [checkpoint, *rest, "params:influence", "params:seed"]
        if fixed
        else [
            checkpoint,
            of_round(number, "stock"),
            of_round(0, "mixture"),
            *rest,
            "params:influence",
            "params:optimize",
            "params:tikmix.rounds",
            "params:seed",
        ]
    )
    return Node(
        collect_part_gradients if fixed else collect_gradients_until_stable,
        [*inputs, of_round(number, "gradients_folder"), *([] if fixed else factors)],
        of_round(number, "gradients"),
        name="collect_gradients",
        namespace=f"round_{number}",
    )


def _measured(number: int) -> list[str]:
    return [measured_checkpoint(number), "corpus", "params:model", "params:train"]
