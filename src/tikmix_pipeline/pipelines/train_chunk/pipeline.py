"""Wiring of the `train_chunk` pipeline."""

from typing import Any

from kedro.pipeline import Node, Pipeline

from tikmix_pipeline.files import folder_signature
from tikmix_pipeline.parameters.view import OnDisk
from tikmix_pipeline.pipelines.cached_node import cached_node
from tikmix_pipeline.pipelines.names import of_round, start_checkpoint
from tikmix_pipeline.pipelines.train_chunk import nodes
from tikmix_pipeline.pipelines.views import chunk_schedule
from tikmix_pipeline.run import Run, current_run

_STAGE = "train_chunk"


def create_pipeline(**_: Any) -> Pipeline:
    """Train and score the chunk of one round."""
    run = current_run()
    return training_of_round(run, run.round_of(_STAGE))


def training_of_round(run: Run, number: int) -> Pipeline:
    """Train and score round `number`; the first round also makes the initial model and the prior mixture."""
    parameters = run.parameters
    checkpoint, mixture = of_round(number, "checkpoint"), of_round(number, "mixture")
    chunk = nodes.ChunkView.of(parameters, schedule=chunk_schedule(run, number))
    budget = nodes.BudgetView.of(parameters, chunk_tokens=parameters.train.tokens_per_chunk)
    return Pipeline(
        [
            *(_beginning(run) if number == 0 else []),
            cached_node(
                nodes.train_one_chunk,
                chunk,
                [start_checkpoint(number), mixture, "corpus", of_round(number, "resume_point")],
                # saved in this order: the checkpoint ends the resume point
                [of_round(number, "train_log"), checkpoint],
                name="train_chunk",
                stage=_STAGE,
                number=number,
            ),
            cached_node(
                nodes.evaluate,
                nodes.EvaluationView.of(parameters),
                [checkpoint, "corpus"],
                of_round(number, "evaluation"),
                name="evaluate",
                stage=_STAGE,
                number=number,
            ),
            cached_node(
                nodes.count_tokens,
                budget,
                [checkpoint, mixture, "corpus"],
                of_round(number, "token_budget"),
                name="count_tokens",
                stage=_STAGE,
                number=number,
            ),
        ]
    )


def final_evaluation(run: Run, last: int) -> Node:
    """Score the checkpoint of the last round on everything."""
    return cached_node(
        nodes.evaluate_fully,
        nodes.FullEvaluationView.of(run.parameters),
        [of_round(last, "checkpoint"), "corpus"],
        "final_evaluation",
        name="final_evaluation",
        stage="tikmix",
    )


def _beginning(run: Run) -> list[Node]:
    parameters, checkpoint = run.parameters, run.parameters.model.checkpoint
    files = OnDisk(lambda: folder_signature(run.root / checkpoint) if checkpoint else [])
    prior = nodes.PriorView.of(
        parameters,
        chunk_tokens=parameters.train.tokens_per_chunk,
        rounds=parameters.tikmix.rounds,
    )
    return [
        cached_node(
            nodes.initialise,
            nodes.InitialView.of(parameters, files=files),
            ["corpus", "project"],
            "initial_checkpoint",
            name="initialise_model",
            stage=_STAGE,
        ),
        cached_node(
            nodes.record_prior,
            prior,
            "corpus",
            [of_round(0, "mixture"), of_round(0, "mixture_rows")],
            name="record_prior",
            stage=_STAGE,
        ),
    ]
