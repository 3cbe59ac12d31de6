"""Wiring of the `tikmix` pipeline: the rounds unrolled into one DAG."""

from collections.abc import Callable
from typing import Any

from kedro.pipeline import Node, Pipeline

from tikmix_pipeline.parameters.base import NoParameters
from tikmix_pipeline.parameters.decision import BASELINES
from tikmix_pipeline.pipelines.cached_node import cached_node
from tikmix_pipeline.pipelines.corpus.pipeline import corpus_of
from tikmix_pipeline.pipelines.influence.pipeline import influence_of_round
from tikmix_pipeline.pipelines.names import chosen_decision, deciding_rounds, decision_costs, of_round
from tikmix_pipeline.pipelines.optimize.pipeline import asked_of_round, baseline_of_round, decision_of_round
from tikmix_pipeline.pipelines.reweight.pipeline import exports_of_round, record_of_round
from tikmix_pipeline.pipelines.sweep.pipeline import sweep_of_round
from tikmix_pipeline.pipelines.tikmix.nodes import VerdictView, draw_run, give_verdict, summarise
from tikmix_pipeline.pipelines.train_chunk.pipeline import final_evaluation, kept_prior, training_of_round
from tikmix_pipeline.pipelines.views import TitledView
from tikmix_pipeline.run import Run, current_run

Stage = Callable[[Run, int], Pipeline]


def create_pipeline(**_: Any) -> Pipeline:
    """Corpus, `tikmix.rounds` rounds, exports, final evaluation and summary."""
    return loop_of(current_run())


def loop_of(run: Run) -> Pipeline:
    """Corpus, `tikmix.rounds` rounds, exports, final evaluation and summary."""
    rounds = run.parameters.tikmix.rounds
    return Pipeline([unrolled(run, rounds), exports_of_round(run, rounds - 1), *_ending(run, rounds)])


def unrolled(run: Run, rounds: int) -> Pipeline:
    """Return the corpus and so many rounds, without the ending: what every single stage is a part of."""
    # one flat list: adding pipelines up one by one takes time quadratic in the rounds
    parts = [stage(run, number) for number in range(rounds) for stage in _stages(run, number)]
    return Pipeline([corpus_of(run), *parts])


def _stages(run: Run, number: int) -> list[Stage]:
    """Return what a round is made of under the run's strategy: one that does not decide measures nothing."""
    strategy = run.parameters.tikmix.strategy
    deciding: list[Stage] = [
        influence_of_round,
        decision_of_round,
        *([sweep_of_round] if strategy == "surrogate" else []),
    ]
    if strategy in BASELINES:
        deciding = [baseline_of_round]
    return [training_of_round, *(deciding if number < deciding_rounds(run) else []), record_of_round]


def _ending(run: Run, rounds: int) -> list[Node]:
    last_decided = min(rounds, deciding_rounds(run)) - 1
    told = [of_round(number, "mixture") for number in range(rounds + 1)]
    told += [of_round(number, "evaluation") for number in range(rounds)]
    nodes = [final_evaluation(run, rounds - 1)]
    if run.parameters.tikmix.strategy in ("direct", "surrogate"):
        nodes.append(asked_of_round(run, last_decided))
        told.append("asked_mixtures")
    if run.parameters.tikmix.has_verdict:
        # the run's own results come first
        nodes += [*kept_prior(run, after=of_round(rounds, "mixture")), _verdict(run, rounds)]
        told.append("verdict")
    decided = chosen_decision(run, last_decided)
    figures = ["mixture_figure", "bits_per_byte_figure"]
    return [
        *nodes,
        cached_node(summarise, NoParameters(), ["final_evaluation", decided, *told], "summary"),
        cached_node(draw_run, TitledView.of(run.parameters, number=None), "summary", figures),
    ]


def _verdict(run: Run, rounds: int) -> Node:
    influence, train = run.parameters.influence, run.parameters.train
    measured = influence.targets != "heldout"
    view = VerdictView.of(
        run.parameters,
        trained_tokens=rounds * train.tokens_per_chunk,
        deciding=tuple(influence.deciding([*run.parameters.corpus.tasks])) if measured else (),
    )
    # the last round trains under what the one before it decided
    costs = [name for _, name in decision_costs(run, min(deciding_rounds(run), rounds - 1))]
    return cached_node(
        give_verdict, view, ["final_items", "kept_items", of_round(rounds - 1, "checkpoint"), *costs], "verdict"
    )
