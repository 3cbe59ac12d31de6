"""Nodes of the `reweight` pipeline, and the one that records mixture 0."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tikmix_pipeline.parameters import (
    OptimizeParameters,
    ReweightParameters,
    RunParameters,
    TikmixParameters,
    TrainParameters,
)
from tikmix_pipeline.parameters.decision import OF_BOUNDS
from tikmix_pipeline.pipelines.steps import step
from tikmix_pipeline.pipelines.types import Table, TokenShards


def _relevant(parameters: RunParameters, round_number: int, root: Path) -> Mapping[str, Any]:
    del round_number, root
    return {
        "reweight": parameters.reweight.model_dump(mode="json", include={"decimals"}),
        "tikmix": parameters.tikmix.model_dump(mode="json", include={"prior", "strategy"}),
    }


def _relevant_to_prior(parameters: RunParameters, round_number: int, root: Path) -> Mapping[str, Any]:
    relevant = dict(_relevant(parameters, round_number, root))
    return relevant | {
        "train": {"tokens_per_chunk": parameters.train.tokens_per_chunk},
        "tikmix": parameters.tikmix.model_dump(mode="json", include={"prior"}),
    }


def _relevant_to_kept(parameters: RunParameters, round_number: int, root: Path) -> Mapping[str, Any]:
    relevant = dict(_relevant(parameters, round_number, root))
    return relevant | {"optimize": parameters.optimize.model_dump(mode="json", include=OF_BOUNDS), "tikmix": {}}


@step(_relevant_to_prior)
def record_prior(
    corpus: TokenShards,
    tikmix: TikmixParameters,
    train: TrainParameters,
    optimize: OptimizeParameters,
    reweight: ReweightParameters,
) -> tuple[dict[str, Any], Table]:
    """Record mixture 0, the prior; refuse a run that the corpus is too small for."""
    from tikmix_pipeline.mixture.recording import mixture_table
    from tikmix_pipeline.mixture.recording import record_prior as record

    found = record(
        {domain: corpus.tokens(domain) for domain in corpus.domains},
        prior=tikmix,
        repetition=optimize,
        rounding=reweight,
        rounds=tikmix.rounds,
        chunk_tokens=train.tokens_per_chunk,
    )
    return found.to_json(), mixture_table(found)


@step(_relevant)
def record_decision(
    decision: Mapping[str, Any],
    stock: Mapping[str, Any],
    prior: Mapping[str, Any],
    tikmix: TikmixParameters,
    reweight: ReweightParameters,
) -> tuple[dict[str, Any], Table]:
    """Record the mixture of the next round: the decided one, or the prior where that is the strategy."""
    from tikmix_pipeline.mixture.recording import mixture_table
    from tikmix_pipeline.mixture.recording import record_decision as record
    from tikmix_pipeline.mixture.records import DecisionRecord, MixtureRecord, TokenBudget

    found = record(
        DecisionRecord.from_json(decision),
        TokenBudget.from_json(stock),
        MixtureRecord.from_json(prior),
        strategy=tikmix.strategy,
        rounding=reweight,
    )
    return found.to_json(), mixture_table(found)


@step(_relevant_to_kept)
def keep_mixture(
    mixture: Mapping[str, Any],
    stock: Mapping[str, Any],
    optimize: OptimizeParameters,
    reweight: ReweightParameters,
) -> tuple[dict[str, Any], Table]:
    """Record the mixture of a round for the next one too, as far as there is text for it."""
    from tikmix_pipeline.mixture.recording import keep_mixture as keep
    from tikmix_pipeline.mixture.recording import mixture_table
    from tikmix_pipeline.mixture.records import MixtureRecord, TokenBudget

    found = keep(MixtureRecord.from_json(mixture), TokenBudget.from_json(stock), optimize, reweight)
    return found.to_json(), mixture_table(found)
