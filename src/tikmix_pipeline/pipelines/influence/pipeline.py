"""Wiring of the `influence` pipeline.

    checkpoint ─> rebalance ─┬─> fit_factors ───────┬─> compute_influence ─> influence, its chunks and errors,
                             └─> collect_gradients ─┘                        measurement

The first round, which was trained under the prior, needs no rebalancing. With `influence.tokens=auto` the factors go to
`collect_gradients` too, which asks what its gradients imply. A curvature that needs no fit has no factors.
"""

from functools import partial
from typing import Any

from kedro.pipeline import Node, Pipeline

from tikmix_pipeline.parameters.base import NoParameters
from tikmix_pipeline.parameters.training import GrowingParameters, MeasuredParameters, StreamParameters
from tikmix_pipeline.pipelines.cached_node import cached_node
from tikmix_pipeline.pipelines.influence import nodes
from tikmix_pipeline.pipelines.names import measured_checkpoint, of_round
from tikmix_pipeline.pipelines.views import branch_schedule, horizon, measured_train
from tikmix_pipeline.run import Run, current_run


def create_pipeline(**_: Any) -> Pipeline:
    """Measure influence at the end of one round."""
    run = current_run()
    return influence_of_round(run, run.round_of("influence"))


def influence_of_round(run: Run, number: int) -> Pipeline:
    """Measure influence at the checkpoint of round `number`."""
    parameters, influence = run.parameters, run.parameters.influence
    of, node = partial(of_round, number), partial(cached_node, number=number)
    checkpoint = measured_checkpoint(run, number)
    factors = [of("factors")] if influence.needs_factors else []
    rebalancing = [] if checkpoint == of("checkpoint") else [_rebalancing(run, number, checkpoint)]
    train = measured_train(run, MeasuredParameters, needs_optimizer=influence.needs_optimizer)
    matrix = nodes.InfluenceView.of(
        parameters,
        # its steps tell what rebalancing has cost
        train=train if rebalancing else train.without(StreamParameters),
        horizon=horizon(run, number),
        rebalancing_steps=influence.rebalancing_steps(parameters.train) if rebalancing else 0,
    )
    fitted_on = [checkpoint, "corpus", of("factors_progress")]
    measured = [checkpoint, of("mixture"), of("gradients"), *factors]
    outputs = [of(name) for name in ("influence", "part_influence", "spread", "measurement")]
    return Pipeline(
        [
            *rebalancing,
            *(node(nodes.fit_factors, nodes.FactorView.of(parameters), fitted_on, name) for name in factors),
            _collect(run, number, [checkpoint, "corpus", of("gradients_folder")], factors),
            node(nodes.compute_influence, matrix, measured, outputs),
            node(nodes.draw_influence, NoParameters(), of("influence"), of("influence_figure")),
        ]
    )


def _rebalancing(run: Run, number: int, balanced: str) -> Node:
    steps = run.parameters.influence.rebalancing_steps(run.parameters.train)
    schedule = branch_schedule(run, number, steps=steps, anneal=False)
    view = nodes.RebalanceView.of(run.parameters, steps=steps, schedule=schedule)
    inputs = [of_round(number, "checkpoint"), of_round(number, "mixture"), of_round(0, "mixture"), "corpus"]
    return cached_node(nodes.rebalance, view, inputs, balanced, number=number)


def _collect(run: Run, number: int, measured: list[str], factors: list[str]) -> Node:
    parameters = run.parameters
    node = partial(cached_node, outputs=of_round(number, "gradients"), name="collect_gradients", number=number)
    if parameters.influence.tokens != "auto":
        return node(nodes.collect_gradients, nodes.GradientView.of(parameters), measured)
    growth = nodes.GrowthView.of(
        parameters,
        train=measured_train(run, GrowingParameters, needs_optimizer=parameters.influence.needs_optimizer),
        horizon=horizon(run, number),
    )
    inputs = [*measured, of_round(number, "token_budget"), of_round(0, "mixture"), *factors]
    return node(nodes.collect_gradients_until_stable, growth, inputs)
