"""Wiring of the `tikmix` pipeline: the rounds unrolled into one DAG."""

from collections.abc import Callable
from typing import Any

from kedro.pipeline import Node, Pipeline

from tikmix_pipeline.parameters.decision import BASELINES
from tikmix_pipeline.pipelines.corpus import create_pipeline as create_corpus
from tikmix_pipeline.pipelines.influence.pipeline import influence_of_round
from tikmix_pipeline.pipelines.names import of_round
from tikmix_pipeline.pipelines.optimize.pipeline import baseline_of_round, decision_of_round
from tikmix_pipeline.pipelines.reweight.pipeline import (
    chosen_decision,
    deciding_rounds,
    exports_of_round,
    record_of_round,
)
from tikmix_pipeline.pipelines.sweep.pipeline import sweep_of_round
from tikmix_pipeline.pipelines.tikmix.nodes import draw_run, summarise
from tikmix_pipeline.pipelines.train_chunk.nodes import evaluate_fully
from tikmix_pipeline.pipelines.train_chunk.pipeline import training_of_round
from tikmix_pipeline.run import run_context


def create_pipeline(**_: Any) -> Pipeline:
    """Corpus, `tikmix.rounds` rounds, exports, final evaluation and summary."""
    rounds = run_context().parameters.tikmix.rounds
    return Pipeline([unrolled(rounds), exports_of_round(rounds - 1), _ending(rounds)])


def unrolled(rounds: int) -> Pipeline:
    """Return the corpus and so many rounds, without the ending: what every single stage is a part of."""
    # one flat list: adding pipelines up one by one takes time quadratic in the rounds
    parts = [part(number) for number in range(rounds) for part in _stages(number)]
    return Pipeline([create_corpus(), *parts])


def _stages(number: int) -> list[Callable[[int], Pipeline]]:
    """Return what a round is made of: one that does not decide measures nothing."""
    return [training_of_round, *(_deciding_stages() if number < deciding_rounds() else []), record_of_round]


def _deciding_stages() -> list[Callable[[int], Pipeline]]:
    """Return the stages that decide on a mixture under the run's strategy."""
    strategy = run_context().parameters.tikmix.strategy
    if strategy in BASELINES:
        return [baseline_of_round]
    return [influence_of_round, decision_of_round, *([sweep_of_round] if strategy == "surrogate" else [])]


def _ending(rounds: int) -> Pipeline:
    last, last_decided = rounds - 1, min(rounds, deciding_rounds()) - 1
    mixtures = [of_round(number, "mixture") for number in range(rounds + 1)]
    evaluations = [of_round(number, "evaluation") for number in range(rounds)]
    return Pipeline(
        [
            Node(
                evaluate_fully,
                [of_round(last, "checkpoint"), "corpus", "params:model", "params:train"],
                "final_evaluation",
                name="final_evaluation",
            ),
            Node(
                summarise,
                ["final_evaluation", chosen_decision(last_decided), *mixtures, *evaluations],
                "summary",
                name="summarise",
            ),
            Node(draw_run, "summary", ["mixture_figure", "bits_per_byte_figure"], name="draw_run"),
        ]
    )
