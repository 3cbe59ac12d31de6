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
from tikmix_pipeline.pipelines.decisions import as_rows
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
    from tikmix_pipeline.mixture.bounds import require_supply
    from tikmix_pipeline.mixture.prior import prior_mixture
    from tikmix_pipeline.mixture.recording import record_mixture
    from tikmix_pipeline.mixture.stock import Stock

    tokens = {domain: corpus.tokens(domain) for domain in corpus.domains}
    require_supply(optimize, tokens, tikmix.rounds * train.tokens_per_chunk)
    weights = prior_mixture(tikmix.prior, tokens)
    record = record_mixture(
        weights,
        round_number=0,
        strategy="prior",
        decimals=reweight.decimals,
        stock=Stock(-1, tokens, dict.fromkeys(tokens, 0), train.tokens_per_chunk, weights),
    )
    return record, as_rows(record)


@step(_relevant)
def record_decision(
    decision: Mapping[str, Any],
    stock: Mapping[str, Any],
    prior: Mapping[str, Any],
    tikmix: TikmixParameters,
    reweight: ReweightParameters,
) -> tuple[dict[str, Any], Table]:
    """Record the mixture of the next round: the decided one, or the prior where that is the strategy."""
    from tikmix_pipeline.mixture.recording import record_mixture
    from tikmix_pipeline.mixture.stock import Stock

    kept = tikmix.strategy == "prior"
    record = record_mixture(
        prior["weights"] if kept else decision["weights"],
        round_number=decision["round"],
        strategy=tikmix.strategy,
        decimals=reweight.decimals,
        stock=Stock.from_dict(stock),
    )
    if not kept:
        record |= {"expected_gain": decision["expected_gain"], "binding": decision["binding"]}
    if "direct_weights" in decision:
        record |= {"direct_weights": decision["direct_weights"], "kept": decision["kept"]}
    return record, as_rows(record)


@step(_relevant_to_kept)
def keep_mixture(
    mixture: Mapping[str, Any],
    stock: Mapping[str, Any],
    optimize: OptimizeParameters,
    reweight: ReweightParameters,
) -> tuple[dict[str, Any], Table]:
    """Record the mixture of a round for the next one too, as far as there is text for it."""
    from tikmix_pipeline.mixture.recording import record_mixture
    from tikmix_pipeline.mixture.simplex import check_mixture
    from tikmix_pipeline.mixture.stock import Stock

    run = Stock.from_dict(stock)
    in_force_K = check_mixture(mixture["weights"], run.domains, "the mixture in force")
    weights_K = run.bounds(optimize).project(in_force_K)
    record = record_mixture(
        dict(zip(run.domains, weights_K.tolist(), strict=True)),
        round_number=mixture["round"] + 1,
        strategy=mixture["strategy"],
        decimals=reweight.decimals,
        stock=run,
    )
    return record, as_rows(record)
