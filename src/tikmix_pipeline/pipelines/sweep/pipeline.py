"""Wiring of the `sweep` pipeline.

    decision ─> draw_candidates ─> ratios ─> <response> ─> metrics
    ratios, metrics ─┬─> judge_surrogates ─> quality ──┐
                     ├─> fit_surrogate ─> surrogate ───┼─> search_mixture ─> sweep_decision
    decision ────────┴─────────────────────────────────┘

The response is `sample_influence` or `train_candidates`; a user's own tables come in by `read_tables` instead, and need
nothing else of a run.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from kedro.pipeline import Node, Pipeline

from tikmix_pipeline.files import sha256_of_file
from tikmix_pipeline.parameters.base import NoParameters, OnDisk
from tikmix_pipeline.parameters.decision import ObjectiveParameters
from tikmix_pipeline.parameters.training import GrowingParameters
from tikmix_pipeline.pipelines.cached_node import cached_node
from tikmix_pipeline.pipelines.names import domain_products, influences, measured_checkpoint, of_round
from tikmix_pipeline.pipelines.sweep import nodes, sequence
from tikmix_pipeline.pipelines.sweep.evidence import EvidenceView, gather_evidence
from tikmix_pipeline.pipelines.views import TitledView, horizon, measured_train
from tikmix_pipeline.run import Run, current_run

_SEED_OF_TABLES = 0
"""What is decided on a user's tables depends on what they hold, and on no seed of a run."""


def create_pipeline(**_: Any) -> Pipeline:
    """Sweep at the end of one round, or over a user's own tables."""
    run = current_run()
    if run.parameters.sweep.response == "table":
        return sweep_of_tables(run)
    return sweep_of_round(run, run.round_of("sweep"))


def sweep_of_tables(run: Run) -> Pipeline:
    """Judge, fit and search over tables; the results stand where those of round 0 would."""
    parameters, of, node = run.parameters, partial(of_round, 0), partial(cached_node, number=0)
    ratios, metrics = of("sweep_ratios"), of("sweep_metrics")
    tests = [of("sweep_test_ratios"), of("sweep_test_metrics")] if parameters.sweep.table.test_ratios else []
    read = nodes.TablesView.of(parameters, files=OnDisk(lambda: _table_digests(run)))
    searched = [of("surrogate"), ratios, metrics, of("sweep_quality"), of("sweep_predictions")]
    found = [of("sweep_decision"), of("sweep_trace")]
    search = nodes.TablesSearchView.of(parameters, seed=_SEED_OF_TABLES)
    return Pipeline(
        [
            node(nodes.read_tables, read, "project", [ratios, metrics, *tests]),
            _judge(run, 0, nodes.judge_tables, tests, seed=_SEED_OF_TABLES),
            _fit(run, 0, [], seed=_SEED_OF_TABLES),
            node(nodes.search_tables, search, searched, found, name="search_mixture"),
            _draw(run, 0),
        ]
    )


def sweep_of_round(run: Run, number: int) -> Pipeline:
    """Sweep at the checkpoint of round `number`, around what `optimize` has decided there."""
    parameters, of, node = run.parameters, partial(of_round, number), partial(cached_node, number=number)
    ratios, metrics, decision, decided = map(of, ("sweep_ratios", "sweep_metrics", "decision", "sweep_decision"))
    averaged, elsewhere = influences(run, number), _elsewhere(run, number)
    evidence = [of("sweep_evidence")] if elsewhere else []
    if parameters.sweep.design == "sequential":
        titled = TitledView.of(run.parameters, number=number)
        drawn = node(sequence.draw_sequence, titled, of("sweep_steps"), of("sequence_figure"))
        measured = [*elsewhere, _train_in_sequence(run, number, evidence), drawn]
    else:
        design = nodes.DesignView.of(parameters)
        drawn = node(nodes.draw_candidates, design, [decision, of("token_budget")], [ratios, of("sweep_design")])
        measured = [*elsewhere, drawn, *_measure(run, number, ratios, metrics)]
    if parameters.sweep.choose == "measured":
        return Pipeline([*measured, node(nodes.choose_measured, NoParameters(), [ratios, metrics, decision], decided)])
    judged = [of("sweep_quality"), of("sweep_predictions"), of("sweep_design"), decision]
    searched = [of("surrogate"), ratios, metrics, *judged, *averaged, *domain_products(run, number)]
    search = nodes.SearchView.of(parameters)
    told = [*domain_products(run, number), *evidence, decision] if parameters.sweep.kind == "response" else []
    learned = [*averaged, *told]
    return Pipeline(
        [
            *measured,
            _judge(run, number, nodes.judge_surrogates, learned, seed=parameters.seed),
            _fit(run, number, learned, seed=parameters.seed),
            node(nodes.search_mixture, search, searched, [decided, of("sweep_trace")]),
            _draw(run, number),
        ]
    )


def _elsewhere(run: Run, number: int) -> list[Node]:
    """Return the node that gathers branches from elsewhere, where there are any and the surrogate learns from them."""
    parameters = run.parameters
    if parameters.sweep.kind != "response":
        return []
    # a round sweeps in a run of that strategy alone
    has_swept = parameters.sweep.earlier_rounds and parameters.tikmix.strategy == "surrogate"
    rounds = [of_round(n, f"sweep_{name}") for n in range(number if has_swept else 0) for name in ("ratios", "metrics")]
    if not rounds and parameters.sweep.table.ratios is None:
        return []
    view = EvidenceView.of(parameters, files=OnDisk(lambda: _table_digests(run)))
    inputs = ["project", of_round(number, "token_budget"), *rounds]
    return [cached_node(gather_evidence, view, inputs, of_round(number, "sweep_evidence"), number=number)]


def _train_in_sequence(run: Run, number: int, evidence: list[str]) -> Node:
    parameters, of = run.parameters, partial(of_round, number)
    steps = parameters.sweep.steps(parameters.train)
    view = sequence.SequenceView.of_steps(run, number, steps=steps, anneal=parameters.sweep.anneal)
    inputs = [of(name) for name in ("decision", "token_budget", "checkpoint")]
    measured = [*influences(run, number), *domain_products(run, number), *evidence]
    outputs = [of(f"sweep_{name}") for name in ("ratios", "metrics", "design", "steps", "cost")]
    return cached_node(
        sequence.train_in_sequence, view, [*inputs, "corpus", of("sweep_branches"), *measured], outputs, number=number
    )


def _objective(run: Run) -> ObjectiveParameters | None:
    """Return the parameters of the objective where surrogates predict the objective itself."""
    is_predicted = run.parameters.sweep.target == "aggregate"
    return run.parameters.optimize.narrowed(ObjectiveParameters) if is_predicted else None


def _table_digests(run: Run) -> list[str | None]:
    table = run.parameters.sweep.table.model_dump(mode="json")
    files = [run.root / path for key, path in table.items() if path and key.endswith(("ratios", "metrics"))]
    return [sha256_of_file(file) if file.is_file() else None for file in files]


def _measure(run: Run, number: int, ratios: str, metrics: str) -> list[Node]:
    """Return the nodes that give every candidate its response."""
    parameters, of, node = run.parameters, partial(of_round, number), partial(cached_node, number=number)
    if parameters.sweep.response == "lookahead":
        steps = parameters.sweep.steps(parameters.train)
        view = nodes.BranchView.of_steps(run, number, steps=steps, anneal=parameters.sweep.anneal)
        inputs = [ratios, of("checkpoint"), "corpus", of("sweep_branches")]
        return [node(nodes.train_candidates, view, inputs, [metrics, of("sweep_cost")])]
    chunks = [of_round(earlier, "part_influence") for earlier in run.averaged_rounds(number)]
    sampled = [ratios, *chunks, *influences(run, number)]
    sample = node(nodes.sample_influence, nodes.SampleView.of(parameters), sampled, metrics)
    if not parameters.sweep.exact:
        return [sample]
    factors = [of("factors")] if parameters.influence.needs_factors else []
    measured = [measured_checkpoint(run, number), "corpus", of("sweep_gradients"), *factors]
    own = nodes.OwnTokensView.of(
        parameters,
        train=measured_train(run, GrowingParameters, needs_optimizer=parameters.influence.needs_optimizer),
        horizon=horizon(run, number),
        turn=number,
    )
    return [sample, node(nodes.measure_own_tokens, own, [ratios, chunks[-1], *measured], of("sweep_exact"))]


def _judge(run: Run, number: int, judge: Callable[..., Any], others: list[str], *, seed: int) -> Node:
    view = nodes.JudgementView.of(run.parameters, optimize=_objective(run), seed=seed)
    inputs = [of_round(number, "sweep_ratios"), of_round(number, "sweep_metrics"), *others]
    judged = [of_round(number, f"sweep_{name}") for name in ("quality", "quality_rows", "predictions")]
    return cached_node(judge, view, inputs, judged, name="judge_surrogates", number=number)


def _fit(run: Run, number: int, averaged: list[str], *, seed: int) -> Node:
    view = nodes.FitView.of(run.parameters, optimize=_objective(run), seed=seed)
    inputs = [of_round(number, "sweep_ratios"), of_round(number, "sweep_metrics"), *averaged]
    fitted = [of_round(number, "surrogate"), of_round(number, "sweep_importance")]
    return cached_node(nodes.fit_surrogate, view, inputs, fitted, number=number)


def _draw(run: Run, number: int) -> Node:
    inputs = [of_round(number, f"sweep_{name}") for name in ("predictions", "quality", "importance", "trace")]
    figures = [of_round(number, f"{name}_figure") for name in ("surrogate", "importance", "search")]
    return cached_node(
        nodes.draw_sweep, nodes.FigureView.of(run.parameters, number=number), inputs, figures, number=number
    )
