"""Wiring of the `influence` pipeline.

    checkpoint ─> rebalance ─┬─> fit_factors ───────┬─> compute_influence ─> influence, its chunks and errors,
                             └─> collect_gradients ─┘                        measurement

With `influence.gradients=stream` one node, `stream_influence`, takes the place of the last two. The first round, which
was trained under the prior, needs no rebalancing. With `influence.tokens=auto` the factors go to `collect_gradients`
too, which asks what its gradients imply; else, of one process, the fit comes first and leaves the gradients of the
domains behind, whose text so passes once. A curvature that needs no fit has no factors.
"""

from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from kedro.pipeline import Node, Pipeline

from tikmix_pipeline.parameters.base import ParameterGroup
from tikmix_pipeline.parameters.measurement import GradientParameters
from tikmix_pipeline.parameters.training import (
    GrowingParameters,
    MeasuredParameters,
    ProductParameters,
    StreamedTraining,
    StreamParameters,
)
from tikmix_pipeline.pipelines.cached_node import cached_node
from tikmix_pipeline.pipelines.influence import nodes
from tikmix_pipeline.pipelines.influence.streaming import plan_gradients
from tikmix_pipeline.pipelines.names import measured_checkpoint, of_round
from tikmix_pipeline.pipelines.views import TitledView, branch_schedule, horizon, measured_train
from tikmix_pipeline.run import Run, current_run

_Matrix = TypeVar("_Matrix", nodes.InfluenceView, nodes.StreamView)


def create_pipeline(**_: Any) -> Pipeline:
    """Measure influence at the end of one round."""
    run = current_run()
    return influence_of_round(run, run.round_of("influence"))


def influence_of_round(run: Run, number: int) -> Pipeline:
    """Measure influence at the checkpoint of round `number`."""
    of, node = partial(of_round, number), partial(cached_node, number=number)
    plan = plan_gradients(run, number)
    in_one_pass = not plan.is_streamed and _passes_once(run)
    (checkpoint, *factors), before = _measured(run, number, in_one_pass=in_one_pass)
    outputs = [of(name) for name in ("influence", "part_influence", "spread", "measurement")]
    titled = TitledView.of(run.parameters, number=number)
    drawing = node(nodes.draw_influence, titled, of("influence"), of("influence_figure"))
    if plan.is_streamed:
        streaming = _matrix_view(nodes.StreamView, StreamedTraining, run, number, turn=number, reason=plan.reason)
        read = [checkpoint, of("mixture"), "corpus", of("streaming"), *factors]
        return Pipeline([*before, node(nodes.stream_influence, streaming, read, outputs), drawing])
    view = _matrix_view(nodes.InfluenceView, MeasuredParameters, run, number)
    if view.rebalancing_steps == 0:
        view = replace(view, train=view.train.without(StreamParameters))  # its steps tell what rebalancing has cost
    collecting = _collect(run, number, checkpoint, factors, in_one_pass=in_one_pass)
    read = [checkpoint, of("mixture"), of("gradients"), *factors]
    multiplying = [node(nodes.compute_influence, view, read, outputs), *_multiply_domains(run, number, view, read)]
    return Pipeline([*before, collecting, *multiplying, drawing])


def _multiply_domains(run: Run, number: int, view: nodes.InfluenceView, read: list[str]) -> list[Node]:
    """Multiply the domains' gradients with each other, if the decision asks for it."""
    if run.parameters.optimize.method != "response":
        return []
    checkpoint, _, *gradients = read
    own = nodes.ProductsView.of(
        run.parameters,
        train=measured_train(run, ProductParameters, needs_optimizer=run.parameters.influence.needs_optimizer),
        horizon=view.horizon,
    )
    found = of_round(number, "domain_products")
    return [cached_node(nodes.compute_domain_products, own, [checkpoint, *gradients], found, number=number)]


def gradients_of_round(run: Run, number: int, *, with_factors: bool = True) -> Pipeline:
    """Keep the gradients of round `number`, whatever `influence.gradients` says.

    `with_factors` says that those of `influence` are wanted too, which then take one pass together.
    """
    in_one_pass = with_factors and _passes_once(run)
    (checkpoint, *factors), before = _measured(run, number, in_one_pass=in_one_pass)
    return Pipeline([*before, _collect(run, number, checkpoint, factors, in_one_pass=in_one_pass)])


def _passes_once(run: Run) -> bool:
    """Tell whether the fit measures gradients on its way: not on ranks, nor where their amount is yet to be found."""
    return run.parameters.train.world_size == 1 and run.parameters.influence.tokens != "auto"


def _measured(run: Run, number: int, *, in_one_pass: bool) -> tuple[list[str], list[Node]]:
    """Return the checkpoint that is measured and the factors of its curvature, and the nodes that make these."""
    parameters, of = run.parameters, partial(of_round, number)
    checkpoint = measured_checkpoint(run, number)
    factors = [of("factors")] if parameters.influence.needs_factors else []
    before = [] if checkpoint == of("checkpoint") else [_rebalancing(run, number, checkpoint)]
    inputs = [*fitted_on(run, number, of("factors")), *([of("gradients_folder")] if in_one_pass else [])]
    gradients = parameters.influence.narrowed(GradientParameters) if in_one_pass else None
    view = nodes.FactorView.of(parameters, gradients=gradients)
    before += [cached_node(nodes.fit_factors, view, inputs, name, number=number) for name in factors]
    return [checkpoint, *factors], before


def fitted_on(run: Run, number: int, factors: str) -> list[str]:
    """Return what factors of that name are fitted on at the end of round `number`, and where such a fit stands."""
    mixture = [of_round(number, "mixture")] if run.parameters.influence.factor_mixture == "current" else []
    return [measured_checkpoint(run, number), "corpus", f"{factors}_progress", *mixture]


def _matrix_view(kind: type[_Matrix], facet: type[ParameterGroup], run: Run, number: int, **derived: Any) -> _Matrix:
    influence, train = run.parameters.influence, run.parameters.train
    is_balanced = measured_checkpoint(run, number) != of_round(number, "checkpoint")
    measured = measured_train(run, facet, needs_optimizer=influence.needs_optimizer)
    return kind.of(
        run.parameters,
        train=measured,
        horizon=horizon(run, number),
        rebalancing_steps=influence.rebalancing_steps(train) if is_balanced else 0,
        **derived,
    )


def _rebalancing(run: Run, number: int, balanced: str) -> Node:
    steps = run.parameters.influence.rebalancing_steps(run.parameters.train)
    schedule = branch_schedule(run, number, steps=steps, anneal=False)
    view = nodes.RebalanceView.of(run.parameters, steps=steps, schedule=schedule)
    inputs = [of_round(number, "checkpoint"), of_round(number, "mixture"), of_round(0, "mixture"), "corpus"]
    return cached_node(nodes.rebalance, view, inputs, balanced, number=number)


def _collect(run: Run, number: int, checkpoint: str, factors: list[str], *, in_one_pass: bool) -> Node:
    parameters = run.parameters
    node = partial(cached_node, outputs=of_round(number, "gradients"), name="collect_gradients", number=number)
    inputs = [checkpoint, "corpus", of_round(number, "gradients_folder")]
    if parameters.influence.tokens != "auto":
        after = factors if in_one_pass else []
        return node(nodes.collect_gradients, nodes.GradientView.of(parameters, turn=number), inputs, after=after)
    growth = nodes.GrowthView.of(
        parameters,
        train=measured_train(run, GrowingParameters, needs_optimizer=parameters.influence.needs_optimizer),
        horizon=horizon(run, number),
        turn=number,
    )
    inputs += [of_round(number, "token_budget"), of_round(0, "mixture"), *factors]
    return node(nodes.collect_gradients_until_stable, growth, inputs)
