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
from tikmix_pipeline.parameters.validation import CandidatesParameters
from tikmix_pipeline.pipelines.cached_node import cached_node
from tikmix_pipeline.pipelines.influence.pipeline import influence_of_round
from tikmix_pipeline.pipelines.names import measured_checkpoint, of_round
from tikmix_pipeline.pipelines.validate import nodes
from tikmix_pipeline.pipelines.views import branch_horizon, branch_schedule, measured_train
from tikmix_pipeline.run import Run, current_run

_STAGE = "validate"


def create_pipeline(**_: Any) -> Pipeline:
    """Validate influence at the end of one round, measuring what is not measured yet."""
    run = current_run()
    return with_measurement(run, run.round_of(_STAGE))


def with_measurement(run: Run, number: int) -> Pipeline:
    """Validate the influence of round `number`, with the nodes that measure what this needs."""
    shared = {of_round(number, "gradients"), of_round(number, "factors"), measured_checkpoint(run, number)}
    measurement = influence_of_round(run, number)
    own = validation_of_round(run, number)
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


def _needs_optimizer(own: CandidatesParameters) -> bool:
    return any(candidate.needs_optimizer for candidate in own.candidates)


def _fit(run: Run, number: int, kind: Curvature, name: str) -> Node:
    groups = run.parameters.validation.groups_of(kind, run.parameters.influence)
    influence = run.parameters.influence.model_copy(update={"curvature": kind, "groups": groups})
    return cached_node(
        nodes.fit_kind,
        nodes.KindView.of(run.parameters, influence=influence.narrowed(FactorParameters)),
        [measured_checkpoint(run, number), "corpus", f"{name}_progress"],
        name,
        name=f"fit_{kind}",
        stage=_STAGE,
        number=number,
    )


def _comparison(run: Run, number: int, factors: list[str]) -> list[Node]:
    parameters, own = run.parameters, run.parameters.validation
    steps = own.steps(parameters.train)
    branches = nodes.BranchesView.of(
        parameters, steps=steps, schedule=branch_schedule(run, number, steps=steps, anneal=own.anneal)
    )
    lengths = {
        "branch_tokens": steps * parameters.train.tokens_per_step,
        "chunk_tokens": parameters.train.tokens_per_chunk,
    }
    losses, predictions, comparison, mixture = (
        of_round(number, name) for name in ("branch_losses", "predictions", "validation", "mixture")
    )
    node = partial(cached_node, stage=_STAGE, number=number)
    return [
        node(
            nodes.train_branches,
            branches,
            [of_round(number, "checkpoint"), mixture, "corpus", of_round(number, "branches")],
            losses,
            name="train_branches",
        ),
        node(
            nodes.predict_effects,
            nodes.PredictionView.of(
                parameters,
                train=measured_train(run, ProductParameters, needs_optimizer=_needs_optimizer(own)),
                horizon=branch_horizon(run, number, steps=steps, anneal=own.anneal),
            ),
            [measured_checkpoint(run, number), mixture, of_round(number, "gradients"), *factors],
            predictions,
            name="predict_effects",
        ),
        node(
            nodes.compare_with_branches,
            nodes.ComparisonView.of(parameters, **lengths),
            [losses, predictions, mixture],
            [comparison, of_round(number, "validation_rows")],
            name="compare_with_branches",
        ),
        node(
            nodes.draw_validation,
            nodes.DrawingView.of(parameters),
            [losses, predictions, comparison],
            [of_round(number, "validation_figure"), of_round(number, "candidates_figure")],
            name="draw_validation",
        ),
    ]
