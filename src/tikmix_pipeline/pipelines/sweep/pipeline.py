"""Wiring of the `sweep` pipeline.

    decision ─> draw_candidates ─> ratios ─> <response> ─> metrics
    ratios, metrics ─┬─> judge_surrogates ─> quality ──┐
                     ├─> fit_surrogate ─> surrogate ───┼─> search_mixture ─> sweep_decision
    decision ────────┴─────────────────────────────────┘

The response is `sample_influence` or `train_candidates`; a user's own tables come in by `read_tables` instead, and need
nothing else of a run.
"""

from functools import partial
from typing import Any

from kedro.pipeline import Node, Pipeline

from tikmix_pipeline.files import sha256_of_file
from tikmix_pipeline.parameters.decision import ObjectiveParameters
from tikmix_pipeline.parameters.training import GrowingParameters
from tikmix_pipeline.parameters.view import NoParameters, OnDisk
from tikmix_pipeline.pipelines.cached_node import cached_node
from tikmix_pipeline.pipelines.names import influences, measured_checkpoint, of_round
from tikmix_pipeline.pipelines.sweep import nodes
from tikmix_pipeline.pipelines.views import branch_schedule, horizon, measured_train
from tikmix_pipeline.run import Run, current_run

_STAGE = "sweep"


def create_pipeline(**_: Any) -> Pipeline:
    """Sweep at the end of one round, or over a user's own tables."""
    run = current_run()
    if run.parameters.sweep.response == "table":
        return sweep_of_tables(run)
    return sweep_of_round(run, run.round_of(_STAGE))


def sweep_of_tables(run: Run) -> Pipeline:
    """Judge, fit and search over tables; the results stand where those of round 0 would."""
    table, number = run.parameters.sweep.table, 0
    ratios, metrics = _responses(number)
    tests = [of_round(number, f"sweep_test_{name}") for name in ("ratios", "metrics")] if table.test_ratios else []
    files = OnDisk(lambda: _table_digests(run))
    node = partial(cached_node, stage=_STAGE, number=number)
    return Pipeline(
        [
            node(
                nodes.read_tables,
                nodes.TablesView.of(run.parameters, files=files),
                "project",
                [ratios, metrics, *tests],
                name="read_tables",
            ),
            node(
                nodes.judge_tables,
                nodes.JudgementView.of(run.parameters, optimize=_objective(run)),
                [ratios, metrics, *tests],
                _judged(number),
                name="judge_surrogates",
            ),
            _fit(run, number, []),
            node(
                nodes.search_tables,
                nodes.TablesSearchView.of(run.parameters),
                [of_round(number, "surrogate"), ratios, metrics],
                [of_round(number, "sweep_decision"), of_round(number, "sweep_trace")],
                name="search_mixture",
            ),
            _draw(run, number),
        ]
    )


def sweep_of_round(run: Run, number: int) -> Pipeline:
    """Sweep at the checkpoint of round `number`, around what `optimize` has decided there."""
    ratios, metrics = _responses(number)
    decision, averaged = of_round(number, "decision"), influences(run, number)
    decided, trace = of_round(number, "sweep_decision"), of_round(number, "sweep_trace")
    node = partial(cached_node, stage=_STAGE, number=number)
    measured = [_draw_candidates(run, number), *_measure(run, number)]
    if run.parameters.sweep.choose == "measured":
        chosen = [ratios, metrics, decision]
        return Pipeline(
            [*measured, node(nodes.choose_measured, NoParameters(), chosen, decided, name="choose_measured")]
        )
    searched = [of_round(number, name) for name in ("surrogate", "sweep_ratios", "sweep_metrics", "sweep_quality")]
    return Pipeline(
        [
            *measured,
            node(
                nodes.judge_surrogates,
                nodes.JudgementView.of(run.parameters, optimize=_objective(run)),
                [ratios, metrics, *averaged],
                _judged(number),
                name="judge_surrogates",
            ),
            _fit(run, number, averaged),
            node(
                nodes.search_mixture,
                nodes.SearchView.of(run.parameters),
                [*searched, of_round(number, "sweep_design"), decision, *averaged],
                [decided, trace],
                name="search_mixture",
            ),
            _draw(run, number),
        ]
    )


def _responses(number: int) -> tuple[str, str]:
    return of_round(number, "sweep_ratios"), of_round(number, "sweep_metrics")


def _judged(number: int) -> list[str]:
    return [of_round(number, f"sweep_{name}") for name in ("quality", "quality_rows", "predictions")]


def _objective(run: Run) -> ObjectiveParameters | None:
    """Return the parameters of the objective where surrogates predict the objective itself."""
    is_predicted = run.parameters.sweep.target == "aggregate"
    return run.parameters.optimize.narrowed(ObjectiveParameters) if is_predicted else None


def _table_digests(run: Run) -> list[str | None]:
    table = run.parameters.sweep.table.model_dump(mode="json")
    files = [run.root / path for key, path in table.items() if path and key.endswith(("ratios", "metrics"))]
    return [sha256_of_file(file) if file.is_file() else None for file in files]


def _draw_candidates(run: Run, number: int) -> Node:
    return cached_node(
        nodes.draw_candidates,
        nodes.DesignView.of(run.parameters),
        [of_round(number, "decision"), of_round(number, "token_budget")],
        [of_round(number, "sweep_ratios"), of_round(number, "sweep_design")],
        name="draw_candidates",
        stage=_STAGE,
        number=number,
    )


def _measure(run: Run, number: int) -> list[Node]:
    """Return the nodes that give every candidate its response."""
    parameters, (ratios, metrics) = run.parameters, _responses(number)
    node = partial(cached_node, stage=_STAGE, number=number)
    if parameters.sweep.response == "lookahead":
        steps = parameters.sweep.steps(parameters.train)
        schedule = branch_schedule(run, number, steps=steps, anneal=parameters.sweep.anneal)
        inputs = [ratios, of_round(number, "checkpoint"), "corpus", of_round(number, "sweep_branches")]
        view = nodes.BranchView.of(parameters, steps=steps, schedule=schedule)
        outputs = [metrics, of_round(number, "sweep_cost")]
        return [node(nodes.train_candidates, view, inputs, outputs, name="train_candidates")]
    chunks = [of_round(earlier, "part_influence") for earlier in run.averaged_rounds(number)]
    sampled = nodes.SampleView.of(parameters)
    sample = node(nodes.sample_influence, sampled, [ratios, *chunks], metrics, name="sample_influence")
    if not parameters.sweep.exact:
        return [sample]
    factors = [of_round(number, "factors")] if parameters.influence.needs_factors else []
    measured = [measured_checkpoint(run, number), "corpus", of_round(number, "sweep_gradients")]
    exact = node(
        nodes.measure_own_tokens,
        nodes.OwnTokensView.of(
            parameters,
            train=measured_train(run, GrowingParameters, needs_optimizer=parameters.influence.needs_optimizer),
            horizon=horizon(run, number),
        ),
        [ratios, chunks[-1], *measured, *factors],
        of_round(number, "sweep_exact"),
        name="measure_own_tokens",
    )
    return [sample, exact]


def _fit(run: Run, number: int, averaged: list[str]) -> Node:
    return cached_node(
        nodes.fit_surrogate,
        nodes.FitView.of(run.parameters, optimize=_objective(run)),
        [*_responses(number), *averaged],
        [of_round(number, "surrogate"), of_round(number, "sweep_importance")],
        name="fit_surrogate",
        stage=_STAGE,
        number=number,
    )


def _draw(run: Run, number: int) -> Node:
    return cached_node(
        nodes.draw_sweep,
        nodes.FigureView.of(run.parameters),
        [of_round(number, f"sweep_{name}") for name in ("predictions", "quality", "importance", "trace")],
        [of_round(number, f"{name}_figure") for name in ("surrogate", "importance", "search")],
        name="draw_sweep",
        stage=_STAGE,
        number=number,
    )
