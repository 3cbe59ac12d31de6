"""Wiring of the `influence` pipeline.

    checkpoint ─> rebalance ─┬─> fit_factors ───────┬─> compute_influence ─> influence, its chunks and errors,
                             └─> collect_gradients ─┘                        measurement

The first round, which was trained under the prior, needs no rebalancing. With `influence.tokens=auto` the factors go to
`collect_gradients` too, which asks what its gradients imply. A curvature that needs no fit has no factors.
"""

from typing import Any

from kedro.pipeline import Node, Pipeline

from tikmix_pipeline.parameters.training import GrowingParameters, MeasuredParameters, StreamParameters
from tikmix_pipeline.parameters.view import NoParameters
from tikmix_pipeline.pipelines.cached_node import cached_node
from tikmix_pipeline.pipelines.influence import nodes
from tikmix_pipeline.pipelines.names import measured_checkpoint, of_round
from tikmix_pipeline.pipelines.views import branch_schedule, horizon, measured_train
from tikmix_pipeline.run import Run, current_run

_STAGE = "influence"


def create_pipeline(**_: Any) -> Pipeline:
    """Measure influence at the end of one round."""
    run = current_run()
    return influence_of_round(run, run.round_of(_STAGE))


def influence_of_round(run: Run, number: int) -> Pipeline:
    """Measure influence at the checkpoint of round `number`."""
    parameters = run.parameters
    factors = [of_round(number, "factors")] if parameters.influence.needs_factors else []
    train = measured_train(run, MeasuredParameters, needs_optimizer=parameters.influence.needs_optimizer)
    rebalancing = _rebalancing(run, number)
    matrix = nodes.InfluenceView.of(
        parameters,
        # its steps tell what rebalancing has cost
        train=train if rebalancing else train.without(StreamParameters),
        horizon=horizon(run, number),
        rebalancing_steps=parameters.influence.rebalancing_steps(parameters.train) if rebalancing else 0,
    )
    return Pipeline(
        [
            *rebalancing,
            *([_fit(run, number)] if factors else []),
            _collect(run, number, factors),
            cached_node(
                nodes.compute_influence,
                matrix,
                [
                    measured_checkpoint(run, number),
                    of_round(number, "mixture"),
                    of_round(number, "gradients"),
                    *factors,
                ],
                [of_round(number, name) for name in ("influence", "part_influence", "spread", "measurement")],
                name="compute_influence",
                stage=_STAGE,
                number=number,
            ),
            cached_node(
                nodes.draw_influence,
                NoParameters(),
                of_round(number, "influence"),
                of_round(number, "influence_figure"),
                name="draw_influence",
                stage=_STAGE,
                number=number,
            ),
        ]
    )


def _rebalancing(run: Run, number: int) -> list[Node]:
    balanced = measured_checkpoint(run, number)
    if balanced == of_round(number, "checkpoint"):
        return []
    steps = run.parameters.influence.rebalancing_steps(run.parameters.train)
    schedule = branch_schedule(run, number, steps=steps, anneal=False)
    return [
        cached_node(
            nodes.rebalance,
            nodes.RebalanceView.of(run.parameters, steps=steps, schedule=schedule),
            [of_round(number, "checkpoint"), of_round(number, "mixture"), of_round(0, "mixture"), "corpus"],
            balanced,
            name="rebalance",
            stage=_STAGE,
            number=number,
        )
    ]


def _fit(run: Run, number: int) -> Node:
    return cached_node(
        nodes.fit_curvature_factors,
        nodes.FactorView.of(run.parameters),
        [measured_checkpoint(run, number), "corpus", of_round(number, "factors_progress")],
        of_round(number, "factors"),
        name="fit_factors",
        stage=_STAGE,
        number=number,
    )


def _collect(run: Run, number: int, factors: list[str]) -> Node:
    parameters = run.parameters
    measured = [measured_checkpoint(run, number), "corpus", of_round(number, "gradients_folder")]
    place: dict[str, Any] = {"name": "collect_gradients", "stage": _STAGE, "number": number}
    gradients = of_round(number, "gradients")
    if parameters.influence.tokens != "auto":
        return cached_node(nodes.collect_gradients, nodes.GradientView.of(parameters), measured, gradients, **place)
    growth = nodes.GrowthView.of(
        parameters,
        train=measured_train(run, GrowingParameters, needs_optimizer=parameters.influence.needs_optimizer),
        horizon=horizon(run, number),
    )
    decided_on = [of_round(number, "token_budget"), of_round(0, "mixture")]
    return cached_node(
        nodes.collect_gradients_until_stable, growth, [*measured, *decided_on, *factors], gradients, **place
    )
