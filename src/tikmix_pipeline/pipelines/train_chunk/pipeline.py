"""Wiring of the `train_chunk` pipeline."""

from functools import partial
from typing import Any

from kedro.pipeline import Node, Pipeline

from tikmix_pipeline.files import folder_signature
from tikmix_pipeline.parameters.base import OnDisk
from tikmix_pipeline.pipelines.cached_node import cached_node
from tikmix_pipeline.pipelines.names import of_kept_round, of_round
from tikmix_pipeline.pipelines.train_chunk import nodes
from tikmix_pipeline.pipelines.views import chunk_schedule, remaining_tokens
from tikmix_pipeline.run import Run, current_run


def create_pipeline(**_: Any) -> Pipeline:
    """Train and score the chunk of one round."""
    run = current_run()
    return training_of_round(run, run.round_of("train_chunk"))


def training_of_round(run: Run, number: int) -> Pipeline:
    """Train and score round `number`; the first round also makes the initial model and the prior mixture."""
    parameters, of, node = run.parameters, partial(of_round, number), partial(cached_node, number=number)
    checkpoint, mixture = of("checkpoint"), of("mixture")
    chunk = nodes.ChunkView.of(parameters, schedule=chunk_schedule(run, number))
    start = of_round(number - 1, "checkpoint") if number else "initial_checkpoint"
    started = [start, mixture, "corpus", of("resume_point")]
    trained = [of("train_log"), checkpoint]  # saved in this order: the checkpoint ends the resume point
    scores = nodes.EvaluationView.of(parameters)
    return Pipeline(
        [
            *(_beginning(run) if number == 0 else []),
            node(nodes.train_one_chunk, chunk, started, trained, name="train_chunk"),
            node(nodes.evaluate, scores, [checkpoint, "corpus"], of("evaluation")),
            node(nodes.count_tokens, budget_view(run, number), [checkpoint, mixture, "corpus"], of("token_budget")),
        ]
    )


def budget_view(run: Run, number: int) -> nodes.BudgetView:
    """Return what the token budget at the end of round `number` depends on besides what was trained."""
    chunk_tokens = run.parameters.train.tokens_per_chunk
    return nodes.BudgetView(chunk_tokens=chunk_tokens, remaining_tokens=remaining_tokens(run, number))


def final_evaluation(run: Run, last: int) -> Node:
    """Score the checkpoint of the last round, item by item."""
    scored = [of_round(last, "checkpoint"), "corpus"]
    return _evaluation_by_item(run, scored, ["final_evaluation", "final_items"], "final_evaluation")


def kept_prior(run: Run, *, after: str) -> list[Node]:
    """Train the rounds after the first once more, on the prior, and score the last; all that after a dataset is there.

    The chunks are those of the run's own rounds in all but their mixture: the same start, text, and learning rates.
    """
    last, prior = run.parameters.tikmix.rounds - 1, of_round(0, "mixture")
    chunks = []
    for number in range(1, last + 1):
        of = partial(of_kept_round, number)
        start = of_round(0, "checkpoint") if number == 1 else of_kept_round(number - 1, "checkpoint")
        view = nodes.KeptChunkView.of(run.parameters, schedule=chunk_schedule(run, number), number=number)
        trained = [of("train_log"), of("checkpoint")]
        inputs = [start, prior, "corpus", of("resume_point")]
        # not in the round's namespace, which Kedro wants in one piece: later rounds come before
        node = partial(cached_node, name=f"train_kept_round_{number}", stage="tikmix", after=[after])
        chunks.append(node(nodes.train_kept_chunk, view, inputs, trained))
    scored = [of_kept_round(last, "checkpoint"), "corpus"]
    return [*chunks, _evaluation_by_item(run, scored, ["kept_evaluation", "kept_items"], "kept_evaluation")]


def _evaluation_by_item(run: Run, scored: list[str], outputs: list[str], name: str) -> Node:
    view = nodes.FinalEvaluationView.of(run.parameters)
    return cached_node(nodes.evaluate_by_item, view, scored, outputs, name=name, stage="tikmix")


def _beginning(run: Run) -> list[Node]:
    parameters, checkpoint = run.parameters, run.parameters.model.checkpoint
    files = OnDisk(lambda: folder_signature(run.root / checkpoint) if checkpoint else [])
    initial = nodes.InitialView.of(parameters, files=files)
    prior = nodes.PriorView.of(parameters, chunk_tokens=parameters.train.tokens_per_chunk)
    recorded = [of_round(0, "mixture"), of_round(0, "mixture_rows")]
    return [
        cached_node(nodes.initialise_model, initial, ["corpus", "project"], "initial_checkpoint"),
        cached_node(nodes.record_prior, prior, "corpus", recorded),
    ]
