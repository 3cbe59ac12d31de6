"""Nodes of the `optimize` pipeline where another method decides: `tikmix.strategy` names it."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tikmix_pipeline.datasets.paths import WorkFolder
from tikmix_pipeline.parameters import (
    BaselineParameters,
    EngineParameters,
    InfluenceParameters,
    ModelParameters,
    OptimizeParameters,
    RunParameters,
    TikmixParameters,
    TrainParameters,
)
from tikmix_pipeline.parameters.decision import OF_BOUNDS
from tikmix_pipeline.parameters.training import NOT_OF_A_BRANCH
from tikmix_pipeline.pipelines.branches import branch_code, code_key, relevant_to_scores
from tikmix_pipeline.pipelines.steps import Relevant, step
from tikmix_pipeline.pipelines.types import Bounds, TokenShards

_LOG = logging.getLogger(__name__)

_OF_BOUNDS = OF_BOUNDS - {"max_change"}


def _relevant_to_rule(parameters: RunParameters, round_number: int, root: Path) -> Mapping[str, Any]:
    del round_number, root
    return {
        "optimize": parameters.optimize.model_dump(mode="json", include=_OF_BOUNDS),
        "train": {"tokens_per_chunk": parameters.train.tokens_per_chunk},
        "tikmix": parameters.tikmix.model_dump(mode="json", include={"strategy", "rounds"}),
        "unimax": parameters.baselines.unimax.model_dump(mode="json"),
    }


def _relevant_to(name: str, *, guided: bool) -> Relevant:
    """Say what matters to a baseline; `guided` is one that looks at targets."""

    def relevant(parameters: RunParameters, round_number: int, root: Path) -> Mapping[str, Any]:
        del round_number, root
        return {
            "optimize": parameters.optimize.model_dump(mode="json", include=_OF_BOUNDS),
            "train": parameters.train.model_dump(mode="json", exclude=NOT_OF_A_BRANCH)
            | {"tokens_per_chunk": parameters.train.tokens_per_chunk},
            **({"influence": relevant_to_scores(parameters.influence)} if guided else {}),
            "model": parameters.model.model_dump(mode="json", include={"preset", "attention"}),
            "seed": parameters.seed,
            name: getattr(parameters.baselines, name).model_dump(mode="json", exclude={"workers"}),
        }

    return relevant


@step(_relevant_to_rule)
def decide_by_rule(
    stock: Mapping[str, Any],
    train: TrainParameters,
    optimize: OptimizeParameters,
    tikmix: TikmixParameters,
    baselines: BaselineParameters,
) -> dict[str, Any]:
    """Decide by how many tokens each domain has, and by nothing else."""
    from tikmix_pipeline.baselines.result import Baseline, inside
    from tikmix_pipeline.baselines.unimax import unimax
    from tikmix_pipeline.mixture.records import TokenBudget
    from tikmix_pipeline.mixture.simplex import prior_mixture

    run, bounds = TokenBudget.from_json(stock), _bounds(stock, optimize)
    if tikmix.strategy == "unimax":
        to_come = (tikmix.rounds - 1) * train.tokens_per_chunk
        found = unimax(run.supplies(), tokens=to_come, parameters=baselines.unimax, bounds=bounds)
        return _decided(tikmix.strategy, found)
    wanted = prior_mixture("uniform" if tikmix.strategy == "uniform" else "proportional", run.available)
    weights, notes = inside(bounds, wanted)
    return _decided(tikmix.strategy, Baseline(weights, notes=notes))


@step(_relevant_to("ngram", guided=True))
def decide_by_ngrams(
    stock: Mapping[str, Any],
    corpus: TokenShards,
    train: TrainParameters,
    optimize: OptimizeParameters,
    influence: InfluenceParameters,
    baselines: BaselineParameters,
) -> dict[str, Any]:
    """Decide by the mixture of n-gram models that makes the tasks' query halves most likely."""
    from tikmix_pipeline.baselines.ngram import ngram

    bounds = _bounds(stock, optimize)
    texts = _guiding_texts(corpus, influence, train, None)
    return _decided("ngram", ngram(corpus, texts, parameters=baselines.ngram, bounds=bounds))


@step(_relevant_to("doremi", guided=False))
def decide_by_doremi(
    stock: Mapping[str, Any],
    prior: Mapping[str, Any],
    corpus: TokenShards,
    model: ModelParameters,
    train: TrainParameters,
    optimize: OptimizeParameters,
    baselines: BaselineParameters,
    seed: int,
    work: WorkFolder,
) -> dict[str, Any]:
    """Decide by group DRO of a proxy against a reference."""
    from tikmix_pipeline.baselines.doremi import doremi

    bounds = _bounds(stock, optimize)
    found = doremi(
        corpus,
        prior["weights"],
        model=model,
        train=train,
        parameters=baselines.doremi,
        seed=seed,
        folder=work.begin(),
        key=code_key(_train_by_doremi),
        bounds=bounds,
    )
    return _decided("doremi", found)


def _train_by_doremi() -> Any:
    """Stand for what DoReMi's reference and proxy depend on; never called, only read."""
    from tikmix_pipeline.baselines.doremi import doremi

    return doremi


@step(_relevant_to("regmix", guided=True))
def decide_by_regmix(
    stock: Mapping[str, Any],
    prior: Mapping[str, Any],
    corpus: TokenShards,
    model: ModelParameters,
    train: TrainParameters,
    optimize: OptimizeParameters,
    influence: InfluenceParameters,
    baselines: BaselineParameters,
    engine: EngineParameters,
    seed: int,
    work: WorkFolder,
) -> dict[str, Any]:
    """Decide by a regression over many small proxies trained from scratch."""
    from tikmix_pipeline.baselines.regmix import regmix

    bounds = _bounds(stock, optimize)
    found = regmix(
        corpus,
        _guiding_texts(corpus, influence, train, baselines.regmix.items),
        prior["weights"],
        model=model,
        train=train,
        parameters=baselines.regmix,
        seed=seed,
        folder=work.begin(),
        key=branch_code(),
        bounds=bounds,
        engine=engine,
    )
    return _decided("regmix", found)


def _bounds(stock: Mapping[str, Any], optimize: OptimizeParameters) -> Bounds:
    from tikmix_pipeline.mixture.records import TokenBudget

    return TokenBudget.from_json(stock).bounds(optimize)


def _guiding_texts(
    corpus: TokenShards, influence: InfluenceParameters, train: TrainParameters, items: int | None
) -> Mapping[str, Any]:
    from tikmix_pipeline.influence.counterfactual import scored_texts

    return scored_texts(corpus, influence, items=items, context=train.context, halves=("query",))


def _decided(strategy: str, found: Any) -> dict[str, Any]:
    """Return a baseline's mixture, which is within the bounds, in the form of a decision."""
    from tikmix_pipeline.mixture.recording import baseline_record

    for note in found.notes:
        _LOG.info("%s: %s", strategy, note)
    cost, details = found.cost.to_dict(), found.details
    return baseline_record(strategy, found.weights, notes=found.notes, cost=cost, details=details).to_json()


DECIDED_BY: Mapping[str, tuple[Callable[..., Any], tuple[str, ...]]] = {
    **dict.fromkeys(
        ("uniform", "proportional", "unimax"),
        (decide_by_rule, ("params:train", "params:optimize", "params:tikmix", "params:baselines")),
    ),
    "ngram": (
        decide_by_ngrams,
        ("corpus", "params:train", "params:optimize", "params:influence", "params:baselines"),
    ),
    "doremi": (
        decide_by_doremi,
        (
            *("prior", "corpus", "params:model", "params:train", "params:optimize"),
            *("params:baselines", "params:seed", "work"),
        ),
    ),
    "regmix": (
        decide_by_regmix,
        (
            *("prior", "corpus", "params:model", "params:train", "params:optimize", "params:influence"),
            *("params:baselines", "params:engine", "params:seed", "work"),
        ),
    ),
}
"""The node of each baseline, and its inputs after the stock."""
