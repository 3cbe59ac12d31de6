"""Wiring of the `train_chunk` pipeline."""

from typing import Any

from kedro.pipeline import Node, Pipeline

from tikmix_pipeline.pipelines.names import of_round, start_checkpoint
from tikmix_pipeline.pipelines.reweight.nodes import record_prior
from tikmix_pipeline.pipelines.stages import stage_round
from tikmix_pipeline.pipelines.train_chunk.nodes import evaluate, initialise, take_stock, train_one_chunk


def create_pipeline(**_: Any) -> Pipeline:
    """Train and score the chunk of one round."""
    return training_of_round(stage_round(training_of_round))


def training_of_round(number: int) -> Pipeline:
    """Train and score round `number`; the first round also makes the initial model and the prior mixture."""
    nodes = [
        Node(
            train_one_chunk,
            [
                start_checkpoint(number),
                of_round(number, "mixture"),
                "corpus",
                "params:model",
                "params:train",
                "params:tikmix.rounds",
                "params:seed",
                of_round(number, "resume_point"),
            ],
            # saved in this order: the checkpoint ends the resume point
            [of_round(number, "train_log"), of_round(number, "checkpoint")],
            name="train_chunk",
            namespace=f"round_{number}",
        ),
        Node(
            evaluate,
            [of_round(number, "checkpoint"), "corpus", "params:model", "params:train"],
            of_round(number, "evaluation"),
            name="evaluate",
            namespace=f"round_{number}",
        ),
        Node(
            take_stock,
            [of_round(number, "checkpoint"), of_round(number, "mixture"), "corpus", "params:train"],
            of_round(number, "stock"),
            name="take_stock",
            namespace=f"round_{number}",
        ),
    ]
    return Pipeline([*(_beginning() if number == 0 else []), *nodes])


def _beginning() -> list[Node]:
    return [
        Node(
            initialise,
            ["corpus", "project", "params:model", "params:train", "params:seed"],
            "initial_checkpoint",
            name="initialise_model",
        ),
        Node(
            record_prior,
            ["corpus", "params:tikmix", "params:train", "params:optimize", "params:reweight"],
            [of_round(0, "mixture"), of_round(0, "mixture_rows")],
            name="record_prior",
        ),
    ]
