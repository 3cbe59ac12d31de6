"""Wiring of the `validate` pipeline.

    checkpoint ─┬─> train_branches ─> branch_losses ───────────────────┬─> compare_with_branches ─> validation
                ├─> fit_<kind> ──────────┬─> predict_effects ──────────┘
                └─> collect_gradients ───┘

The gradients are those of the `influence` pipeline, and so are the factors of its own curvature if a candidate needs
the same: what one of the two has made the other takes.
"""

from typing import Any

from kedro.pipeline import Node, Pipeline

from tikmix_pipeline.parameters import RunParameters
from tikmix_pipeline.parameters.measurement import Curvature
from tikmix_pipeline.pipelines.influence.pipeline import influence_of_round, measured_checkpoint
from tikmix_pipeline.pipelines.names import of_round
from tikmix_pipeline.pipelines.stages import stage_round
from tikmix_pipeline.pipelines.validate.nodes import (
    compare_with_branches,
    draw_validation,
    fit_diagonal,
    fit_ekfac,
    fit_kfac,
    predict_effects,
    train_branches,
)
from tikmix_pipeline.run import run_context

_FITS: dict[Curvature, Any] = {"diagonal": fit_diagonal, "kfac": fit_kfac, "ekfac": fit_ekfac}


def create_pipeline(**_: Any) -> Pipeline:
    """Validate influence at the end of one round, measuring what is not measured yet."""
    return _with_measurement(stage_round(_with_measurement))


def _with_measurement(number: int) -> Pipeline:
    shared = {of_round(number, "gradients"), of_round(number, "factors"), measured_checkpoint(number)}
    measurement = influence_of_round(number)
    own = validation_of_round(number)
    return Pipeline([measurement.to_outputs(*sorted(shared & own.inputs() & measurement.all_outputs())), own])


def validation_of_round(number: int) -> Pipeline:
    """Validate the influence at the checkpoint of round `number`, its gradients given."""
    parameters = run_context().parameters
    kinds = [kind for kind in _FITS if any(one.curvature == kind for one in parameters.validation.candidates)]
    measured = [measured_checkpoint(number), of_round(number, "mixture")]
    given = ["corpus", "params:model", "params:train", "params:influence", "params:validate"]
    trained = [of_round(number, "checkpoint"), of_round(number, "mixture"), *given]
    fits = {kind: of_round(number, _factors(kind, parameters)) for kind in kinds}
    nodes = {
        kind: Node(
            _FITS[kind],
            [measured[0], *given, "params:seed", f"{name}_progress"],
            name,
            name=f"fit_{kind}",
            namespace=f"round_{number}",
        )
        for kind, name in fits.items()
        if name != of_round(number, "factors")
    }
    return Pipeline([*nodes.values(), *_comparison(number, measured, trained, list(fits.values()))])


def _factors(kind: Curvature, parameters: RunParameters) -> str:
    """Return the name of the factors of a kind: those of `influence` where they are the same."""
    influence = parameters.influence
    groups = parameters.validation.groups_of(kind, influence)
    same = kind == influence.curvature and set(groups) == set(influence.groups)
    return "factors" if same else f"factors_{kind}"


def _comparison(number: int, measured: list[str], trained: list[str], factors: list[str]) -> list[Node]:
    namespace = f"round_{number}"
    losses, predictions, comparison = (of_round(number, n) for n in ("branch_losses", "predictions", "validation"))
    return [
        Node(
            train_branches,
            [*trained, "params:tikmix.rounds", "params:seed", "params:engine", of_round(number, "branches")],
            losses,
            name="train_branches",
            namespace=namespace,
        ),
        Node(
            predict_effects,
            [
                *measured,
                of_round(number, "gradients"),
                "params:model",
                "params:train",
                "params:influence",
                "params:validate",
                "params:tikmix.rounds",
                *factors,
            ],
            predictions,
            name="predict_effects",
            namespace=namespace,
        ),
        Node(
            compare_with_branches,
            [losses, predictions, of_round(number, "mixture"), "params:train", "params:validate", "params:seed"],
            [comparison, of_round(number, "validation_rows")],
            name="compare_with_branches",
            namespace=namespace,
        ),
        Node(
            draw_validation,
            [losses, predictions, comparison, "params:validate"],
            [of_round(number, "validation_figure"), of_round(number, "candidates_figure")],
            name="draw_validation",
            namespace=namespace,
        ),
    ]
