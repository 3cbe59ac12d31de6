"""Wiring of the `sweep` pipeline.

    decision ─> draw_candidates ─> ratios ─> <response> ─> metrics
    ratios, metrics ─┬─> judge_surrogates ─> quality ──┐
                     ├─> fit_surrogate ─> surrogate ───┼─> search_mixture ─> sweep_decision
    decision ────────┴─────────────────────────────────┘

The response is `sample_influence` or `train_candidates`; a user's own tables come in by `read_tables` instead, and need
nothing else of a run.
"""

from typing import Any

from kedro.pipeline import Node, Pipeline

from tikmix_pipeline.parameters import RunParameters
from tikmix_pipeline.pipelines.influence.pipeline import measured_checkpoint
from tikmix_pipeline.pipelines.names import of_round
from tikmix_pipeline.pipelines.stages import stage_round
from tikmix_pipeline.pipelines.sweep.nodes import (
    draw_sweep,
    fit_surrogate,
    judge_surrogates,
    judge_tables,
    search_mixture,
    search_tables,
)
from tikmix_pipeline.pipelines.sweep.oracle import choose_measured
from tikmix_pipeline.pipelines.sweep.responses import (
    draw_candidates,
    measure_own_tokens,
    read_tables,
    sample_influence,
    train_candidates,
)
from tikmix_pipeline.run import run_context


def create_pipeline(**_: Any) -> Pipeline:
    """Sweep at the end of one round, or over a user's own tables."""
    if run_context().parameters.sweep.response == "table":
        return sweep_of_tables()
    return sweep_of_round(stage_round(sweep_of_round))


def sweep_of_tables() -> Pipeline:
    """Judge, fit and search over tables; the results stand where those of round 0 would."""
    parameters = run_context().parameters
    number = 0
    ratios, metrics = of_round(number, "sweep_ratios"), of_round(number, "sweep_metrics")
    test = [of_round(number, name) for name in ("sweep_test_ratios", "sweep_test_metrics")]
    tests = test if parameters.sweep.table.test_ratios else []
    return _in_round(
        number,
        [
            Node(read_tables, ["project", "params:sweep"], [ratios, metrics, *tests], name="read_tables"),
            Node(
                judge_tables,
                [ratios, metrics, *_decided_by(), *tests],
                _judged(number),
                name="judge_surrogates",
            ),
            _fit(number, []),
            Node(
                search_tables,
                [of_round(number, "surrogate"), ratios, metrics, *_decided_by()],
                [of_round(number, "sweep_decision"), of_round(number, "sweep_trace")],
                name="search_mixture",
            ),
            _draw(number),
        ],
    )


def sweep_of_round(number: int) -> Pipeline:
    """Sweep at the checkpoint of round `number`, around what `optimize` has decided there."""
    parameters = run_context().parameters
    ratios, metrics, design = (of_round(number, f"sweep_{name}") for name in ("ratios", "metrics", "design"))
    decision = of_round(number, "decision")
    influences = [of_round(earlier, "influence") for earlier in run_context().remembered(number)]
    if parameters.sweep.choose == "measured":
        return _in_round(number, _measured_alone(number, parameters))
    quality, decided, trace = (of_round(number, f"sweep_{name}") for name in ("quality", "decision", "trace"))
    return _in_round(
        number,
        [
            _draw_candidates(number),
            *_responses(number, parameters),
            Node(
                judge_surrogates,
                [ratios, metrics, *_decided_by(), *influences],
                _judged(number),
                name="judge_surrogates",
            ),
            _fit(number, influences),
            Node(
                search_mixture,
                [
                    of_round(number, "surrogate"),
                    ratios,
                    metrics,
                    quality,
                    design,
                    decision,
                    *_decided_by(),
                    *influences,
                ],
                [decided, trace],
                name="search_mixture",
            ),
            _draw(number),
        ],
    )


def _measured_alone(number: int, parameters: RunParameters) -> list[Node]:
    """Return the nodes of a sweep that needs no surrogate."""
    ratios, metrics = (of_round(number, f"sweep_{name}") for name in ("ratios", "metrics"))
    decision = of_round(number, "decision")
    return [
        _draw_candidates(number),
        *_responses(number, parameters),
        Node(choose_measured, [ratios, metrics, decision], of_round(number, "sweep_decision"), name="choose_measured"),
    ]


def _draw_candidates(number: int) -> Node:
    return Node(
        draw_candidates,
        [
            *(of_round(number, name) for name in ("decision", "stock")),
            *("params:optimize", "params:sweep", "params:seed"),
        ],
        [of_round(number, "sweep_ratios"), of_round(number, "sweep_design")],
        name="draw_candidates",
    )


def _responses(number: int, parameters: RunParameters) -> list[Node]:
    ratios, metrics = of_round(number, "sweep_ratios"), of_round(number, "sweep_metrics")
    checkpoint = [of_round(number, "checkpoint"), of_round(number, "mixture"), "corpus", "params:model", "params:train"]
    measured = [*checkpoint, "params:influence", "params:sweep", "params:tikmix.rounds", "params:seed"]
    if parameters.sweep.response == "lookahead":
        branches, cost = of_round(number, "sweep_branches"), of_round(number, "sweep_cost")
        return [
            Node(
                train_candidates,
                [ratios, *measured, "params:engine", branches],
                [metrics, cost],
                name="train_candidates",
            )
        ]
    parts = [of_round(earlier, "part_influence") for earlier in run_context().remembered(number)]
    sample = Node(
        sample_influence,
        [ratios, "params:sweep", "params:tikmix", "params:seed", *parts],
        metrics,
        name="sample_influence",
    )
    if not parameters.sweep.exact:
        return [sample]
    factors = [of_round(number, "factors")] if parameters.influence.needs_factors else []
    exact = Node(
        measure_own_tokens,
        [ratios, parts[-1], measured_checkpoint(number), *measured[1:], of_round(number, "sweep_gradients"), *factors],
        of_round(number, "sweep_exact"),
        name="measure_own_tokens",
    )
    return [sample, exact]


def _fit(number: int, influences: list[str]) -> Node:
    return Node(
        fit_surrogate,
        [of_round(number, "sweep_ratios"), of_round(number, "sweep_metrics"), *_decided_by(), *influences],
        [of_round(number, "surrogate"), of_round(number, "sweep_importance")],
        name="fit_surrogate",
    )


def _draw(number: int) -> Node:
    return Node(
        draw_sweep,
        [of_round(number, f"sweep_{name}") for name in ("predictions", "quality", "importance", "trace")]
        + ["params:sweep"],
        [of_round(number, f"{name}_figure") for name in ("surrogate", "importance", "search")],
        name="draw_sweep",
    )


def _judged(number: int) -> list[str]:
    return [of_round(number, f"sweep_{name}") for name in ("quality", "quality_rows", "predictions")]


def _decided_by() -> list[str]:
    return ["params:optimize", "params:sweep", "params:tikmix", "params:seed"]


def _in_round(number: int, nodes: list[Node]) -> Pipeline:
    return Pipeline(nodes, namespace=f"round_{number}", prefix_datasets_with_namespace=False)
