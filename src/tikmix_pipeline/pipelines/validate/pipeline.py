"""Wiring of the `validate` pipeline.

    checkpoint ─┬─> train_branches ─> branch_losses ───────────────────┬─> compare_with_branches ─> validation
                ├─> fit_<kind> ──────────┬─> predict_effects ──────────┘
                └─> collect_gradients ───┘

The gradients are those of the `influence` pipeline, and so are the factors of its own curvature if a candidate needs
the same: what one of the two has made the other takes.
"""

from functools import partial
from typing import Any

from kedro.pipeline import Node, Pipeline

from tikmix_pipeline.parameters import RunParameters
from tikmix_pipeline.parameters.measurement import FITTED, Curvature, FactorParameters
from tikmix_pipeline.parameters.training import ProductParameters
from tikmix_pipeline.pipelines.cached_node import cached_node
from tikmix_pipeline.pipelines.influence.nodes import FactorView, fit_factors
from tikmix_pipeline.pipelines.influence.pipeline import fitted_on, gradients_of_round
from tikmix_pipeline.pipelines.names import measured_checkpoint, of_round
from tikmix_pipeline.pipelines.validate import nodes
from tikmix_pipeline.pipelines.views import branch_horizon, branch_schedule, measured_train
from tikmix_pipeline.run import Run, current_run


def create_pipeline(**_: Any) -> Pipeline:
    """Validate influence at the end of one round, measuring what is not measured yet."""
    run = current_run()
    return with_measurement(run, run.round_of("validate"))


def with_measurement(run: Run, number: int) -> Pipeline:
    """Validate the influence of round `number`, with the nodes that measure what this needs."""
    shared = {of_round(number, "gradients"), of_round(number, "factors"), measured_checkpoint(run, number)}
    # its candidates each multiply the gradients, so they are kept whatever influence.gradients says
    own = validation_of_round(run, number)
    measurement = gradients_of_round(run, number, with_factors=of_round(number, "factors") in own.inputs())
    return Pipeline([measurement.to_outputs(*sorted(shared & own.inputs() & measurement.all_outputs())), own])


def validation_of_round(run: Run, number: int) -> Pipeline:
    """Validate the influence at the checkpoint of round `number`, its gradients given."""
    candidates = run.parameters.validation.candidates
    kinds = [kind for kind in FITTED if any(one.curvature == kind for one in candidates)]
    factors = {kind: of_round(number, _factors(kind, run.parameters)) for kind in kinds}
    fits = [_fit(run, number, kind, name) for kind, name in factors.items() if name != of_round(number, "factors")]
    return Pipeline([*fits, *_comparison(run, number, list(factors.values()))])


def _factors(kind: Curvature, parameters: RunParameters) -> str:
    """Return the name of the factors of a kind: those of `influence` where they are the same."""
    influence = parameters.influence
    groups = parameters.validation.groups_of(kind, influence)
    same = kind == influence.curvature and set(groups) == set(influence.groups)
    return "factors" if same else f"factors_{kind}"


def _fit(run: Run, number: int, kind: Curvature, name: str) -> Node:
    groups = run.parameters.validation.groups_of(kind, run.parameters.influence)
    influence = run.parameters.influence.model_copy(update={"curvature": kind, "groups": groups})
    view = FactorView.of(run.parameters, influence=influence.narrowed(FactorParameters), gradients=None)
    inputs = fitted_on(run, number, name)
    return cached_node(fit_factors, view, inputs, name, name=f"fit_{kind}", stage="validate", number=number)


def _comparison(run: Run, number: int, factors: list[str]) -> list[Node]:
    parameters, own = run.parameters, run.parameters.validation
    of, node = partial(of_round, number), partial(cached_node, number=number)
    steps = own.steps(parameters.train)
    branches = nodes.BranchesView.of(
        parameters, steps=steps, schedule=branch_schedule(run, number, steps=steps, anneal=own.anneal)
    )
    needs_optimizer = any(candidate.needs_optimizer for candidate in own.candidates)
    prediction = nodes.PredictionView.of(
        parameters,
        train=measured_train(run, ProductParameters, needs_optimizer=needs_optimizer),
        horizon=branch_horizon(run, number, steps=steps, anneal=own.anneal),
    )
    lengths = {
        "branch_tokens": steps * parameters.train.tokens_per_step,
        "chunk_tokens": parameters.train.tokens_per_chunk,
    }
    comparison = nodes.ComparisonView.of(parameters, **lengths)
    drawing = nodes.DrawingView.of(parameters, number=number)
    mixture, losses, predictions, compared = map(of, ("mixture", "branch_losses", "predictions", "validation"))
    trained_from = [of("checkpoint"), mixture, "corpus", of("branches")]
    measured = [measured_checkpoint(run, number), mixture, of("gradients"), *factors]
    tables, figures = [compared, of("validation_rows")], [of("validation_figure"), of("candidates_figure")]
    return [
        node(nodes.train_branches, branches, trained_from, losses),
        node(nodes.predict_effects, prediction, measured, predictions),
        node(nodes.compare_with_branches, comparison, [losses, predictions, mixture], tables),
        node(nodes.draw_validation, drawing, [losses, predictions, compared], figures),
    ]
