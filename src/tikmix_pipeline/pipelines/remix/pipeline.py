"""Wiring of the `remix` pipeline.

    text ─> corpus ─┬─> adopt_checkpoint ─> checkpoint ───────────┬─> influence ─> optimize (─> sweep) ─> mixture
                    └─> count_external ─> token budget, current ──┘        └──────────> report, exports <──┘

Measuring and deciding are the nodes of the loop. What differs is where checkpoint and token budget come from, and that
gains and Pareto constraints hold against the current mixture instead of mixture 0. Artifacts of earlier rounds are
taken as they are.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from kedro.pipeline import Node, Pipeline

from tikmix_pipeline.files import sampled_signature, sha256_of_file
from tikmix_pipeline.parameters.base import NoParameters, OnDisk
from tikmix_pipeline.parameters.corpus import TextParameters
from tikmix_pipeline.pipelines.cached_node import cached_node
from tikmix_pipeline.pipelines.corpus.nodes import TextView, prepare
from tikmix_pipeline.pipelines.corpus.pipeline import source_files
from tikmix_pipeline.pipelines.influence.pipeline import influence_of_round
from tikmix_pipeline.pipelines.names import chosen_decision, counted_rounds, of_round
from tikmix_pipeline.pipelines.optimize.pipeline import decision_of_round, problem_of_round
from tikmix_pipeline.pipelines.remix import nodes
from tikmix_pipeline.pipelines.remix.external import (
    checkpoint_files,
    earlier_rounds,
    narrowed_corpus,
    remix_round,
    tokenizer_folder,
)
from tikmix_pipeline.pipelines.reweight.pipeline import exports_of_round, gains_of_round, record_of_round
from tikmix_pipeline.pipelines.sweep.pipeline import sweep_of_round
from tikmix_pipeline.run import Run, current_run


def create_pipeline(**_: Any) -> Pipeline:
    """Measure at the user's checkpoint, decide and record the mixture of the next chunk."""
    return remix_of(current_run())


def remix_of(run: Run) -> Pipeline:
    """Measure at the user's checkpoint, decide and record the mixture of the next chunk."""
    number = remix_round(run)
    return Pipeline([*_reading(run), *_beginning(run, number), *_deciding(run, number)])


def made_earlier(pipeline: Pipeline) -> list[str]:
    """Return the inputs that earlier rounds have made; the others are parameters, and places to work in."""
    kinds = {"mixture", "token_budget", "current_mixture", "influence", "part_influence", "measurement"}
    return [name for name in sorted(pipeline.inputs()) if name.startswith("round_") and name.split("_", 2)[2] in kinds]


def _reading(run: Run) -> list[Node]:
    corpus = narrowed_corpus(run.parameters)
    files = OnDisk(lambda: source_files(run, corpus))
    sample = TextView.of(run.parameters, corpus=corpus.narrowed(TextParameters), files=files)
    tokens = nodes.SampleTokensView.of(
        run.parameters,
        tokenizer=OnDisk(lambda: _tokenizer_identity(run)),
        tokenizer_folder=tokenizer_folder(run.parameters),
        tokenizer_parameter="corpus.tokenizer.path" if run.parameters.corpus.tokenizer.path else "model.checkpoint",
    )
    return [
        cached_node(prepare, sample, ["project", "downloads"], "text", name="sample_text", stage="remix"),
        cached_node(nodes.tokenize_sample, tokens, ["text", "project"], "corpus"),
    ]


def _tokenizer_identity(run: Run) -> Any:
    from tikmix_pipeline.corpus.tokenizer import tokenizer_digest, tokenizer_files

    folder = run.root / tokenizer_folder(run.parameters)
    # of the next checkpoint of the run the files are others, and the tokenizer is the same
    return tokenizer_digest(folder) or sampled_signature(tokenizer_files(folder))


def _beginning(run: Run, number: int) -> list[Node]:
    """Take the checkpoint and the budget, and list the current mixture, which need not be the one decided before."""
    parameters = run.parameters
    checkpoint, current = of_round(number, "checkpoint"), of_round(number, "current_mixture")
    adopted = nodes.AdoptedView.of(parameters, files=OnDisk(lambda: checkpoint_files(run)))
    told, before = external_view(run), round_before(number)
    node, counted = partial(cached_node, number=number), [of_round(number, "token_budget"), current]
    return [
        node(nodes.adopt_checkpoint, adopted, ["corpus", "project"], checkpoint),
        node(nodes.count_external, told, [checkpoint, "corpus", "project", *before], counted),
        node(nodes.list_current, NoParameters(), current, of_round(number, "mixture_rows")),
    ]


def external_view(run: Run) -> nodes.ExternalView:
    """Return what the team tells of its run."""
    current = run.parameters.remix.current
    file = run.root / current if isinstance(current, str) else None
    return nodes.ExternalView.of(
        run.parameters,
        chunk_tokens=run.parameters.remix.coming_chunk(run.parameters.train),
        file=OnDisk(lambda: sha256_of_file(file) if file is not None and file.is_file() else None),
    )


def round_before(number: int) -> list[str]:
    """Return what the round before has recorded: its token budget and the mixture decided then, if there was one."""
    return [of_round(number - 1, "token_budget"), of_round(number, "mixture")] if number else []


def _deciding(run: Run, number: int) -> list[Pipeline | Node]:
    """Measure, decide and hand over, by the nodes of the loop."""
    as_loop = _without_training(run, number)
    stages = [influence_of_round, decision_of_round, record_of_round]
    if run.parameters.tikmix.strategy == "surrogate":
        stages.append(sweep_of_round)
    deciding, exports = [stage(as_loop, number) for stage in stages], exports_of_round(as_loop, number)
    handing_over = exports if exports.nodes else Pipeline([gains_of_round(as_loop, number)])
    current = {of_round(one, "mixture"): of_round(one, "current_mixture") for one in range(number + 1)}
    # what the loop compares with is mixture 0, and here what the run would go on with
    now = current[of_round(number, "mixture")]
    compared = {of_round(0, "mixture"): now, of_round(number, "mixture"): now}
    rounds, chosen = len(counted_rounds(as_loop, number)), chosen_decision(as_loop, number)
    report = _report(run, number, chosen, rounds=rounds, has_exports=bool(exports.nodes))
    problem = _renamed(problem_of_round(as_loop, number), compared)
    page = _whatif(run, number, has_problem=bool(problem.nodes))
    told: list[Pipeline | Node] = [report, problem, page, *_score(run, number)]
    return [_renamed(Pipeline(deciding), compared), _renamed(handing_over, current), *told]


def _report(run: Run, number: int, chosen: str, *, rounds: int, has_exports: bool) -> Node:
    of = partial(of_round, number)
    inputs = [
        *map(of, ("checkpoint", "influence", "token_budget", "current_mixture")),
        *(of_round(number + 1, "mixture"), chosen, of("gains"), of("measurement")),
        *([of("exports")] if has_exports else []),
    ]
    checkpoint, page = str(run.parameters.model.checkpoint), OnDisk(_page_digest)
    parameters = run.parameters
    unnamed = [domain for domain in parameters.corpus.domains if domain not in parameters.reweight.paths]
    view = nodes.ReportView.of(
        parameters,
        checkpoint=checkpoint,
        page=page,
        rounds=rounds,
        without_path=tuple(unnamed) if has_exports else (),
    )
    return cached_node(nodes.write_report, view, inputs, [of("report_content"), of("report")], number=number)


def _whatif(run: Run, number: int, *, has_problem: bool) -> Node:
    of = partial(of_round, number)
    inputs = [*map(of, ("token_budget", "decision", "spread")), *([of("problem")] if has_problem else [])]
    checkpoint, page = str(run.parameters.model.checkpoint), OnDisk(_page_digest)
    view = nodes.WhatIfView.of(run.parameters, checkpoint=checkpoint, page=page)
    return cached_node(nodes.write_whatif, view, inputs, of("whatif"), number=number)


def _score(run: Run, number: int) -> list[Node]:
    """Hold the prediction of the round before against what came, if there is one."""
    prediction = run.parameters.remix.prediction
    if prediction is None or number == 0:
        return []
    file = OnDisk(lambda: sha256_of_file(run.root / prediction))
    view = nodes.PredictionView.of(run.parameters, number=number, file=file)
    measured = [of_round(number - 1, "measurement"), of_round(number, "measurement")]
    inputs = [*measured, of_round(number, "current_mixture"), "project"]
    return [cached_node(nodes.score_prediction, view, inputs, of_round(number, "prediction_score"), number=number)]


def _page_digest() -> str:
    from tikmix_pipeline.report.page import page_digest

    return page_digest()


def _renamed(pipeline: Pipeline, names: Mapping[str, str]) -> Pipeline:
    return Pipeline(pipeline, inputs={old: new for old, new in names.items() if old in pipeline.inputs()})


def _without_training(run: Run, number: int) -> Run:
    """Return a run in which every round decides, and measures its checkpoint as it is."""
    parameters = run.parameters
    own = {
        "round": number,
        "influence": parameters.influence.model_copy(update={"rebalance_steps": 0, "rebalance_tokens": None}),
        "tikmix": parameters.tikmix.model_copy(update={"decisions": None}),
    }
    return run.with_parameters(parameters.model_copy(update=own), earlier=earlier_rounds(run, number))
