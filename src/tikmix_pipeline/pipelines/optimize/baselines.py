"""Nodes of the `optimize` pipeline where another method decides: `tikmix.strategy` names it."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tikmix_pipeline.datasets.paths import WorkFolder
from tikmix_pipeline.parameters import (
    BaselineParameters,
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
from tikmix_pipeline.pipelines.types import Bounds, Checkpoint, TokenShards

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
    checkpoint: Checkpoint,
    corpus: TokenShards,
    train: TrainParameters,
    optimize: OptimizeParameters,
    tikmix: TikmixParameters,
    baselines: BaselineParameters,
) -> dict[str, Any]:
    """Decide by how many tokens each domain has, and by nothing else."""
    from tikmix_pipeline.baselines.result import Baseline, inside
    from tikmix_pipeline.baselines.unimax import unimax
    from tikmix_pipeline.mixture.bounds import Supply
    from tikmix_pipeline.mixture.prior import prior_mixture

    tokens = {domain: corpus.tokens(domain) for domain in corpus.domains}
    bounds = _bounds(checkpoint, corpus, optimize, train)
    if tikmix.strategy == "unimax":
        read = checkpoint.tokens_read()
        supplies = {domain: Supply(count, read.get(domain, 0)) for domain, count in tokens.items()}
        to_come = (tikmix.rounds - 1) * train.tokens_per_chunk
        return _decided(tikmix.strategy, unimax(supplies, tokens=to_come, parameters=baselines.unimax, bounds=bounds))
    wanted = prior_mixture("uniform" if tikmix.strategy == "uniform" else "proportional", tokens)
    weights, notes = inside(bounds, wanted)
    return _decided(tikmix.strategy, Baseline(weights, notes=notes))


@step(_relevant_to("ngram", guided=True))
def decide_by_ngrams(
    checkpoint: Checkpoint,
    corpus: TokenShards,
    train: TrainParameters,
    optimize: OptimizeParameters,
    influence: InfluenceParameters,
    baselines: BaselineParameters,
) -> dict[str, Any]:
    """Decide by the mixture of n-gram models that makes the tasks' query halves most likely."""
    from tikmix_pipeline.baselines.ngram import ngram

    bounds = _bounds(checkpoint, corpus, optimize, train)
    texts = _guiding_texts(corpus, influence, train, None)
    return _decided("ngram", ngram(corpus, texts, parameters=baselines.ngram, bounds=bounds))


@step(_relevant_to("doremi", guided=False))
def decide_by_doremi(
    checkpoint: Checkpoint,
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

    bounds = _bounds(checkpoint, corpus, optimize, train)
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
    checkpoint: Checkpoint,
    prior: Mapping[str, Any],
    corpus: TokenShards,
    model: ModelParameters,
    train: TrainParameters,
    optimize: OptimizeParameters,
    influence: InfluenceParameters,
    baselines: BaselineParameters,
    seed: int,
    work: WorkFolder,
) -> dict[str, Any]:
    """Decide by a regression over many small proxies trained from scratch."""
    from tikmix_pipeline.baselines.regmix import regmix

    bounds = _bounds(checkpoint, corpus, optimize, train)
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
    )
    return _decided("regmix", found)


def _bounds(
    checkpoint: Checkpoint, corpus: TokenShards, optimize: OptimizeParameters, train: TrainParameters
) -> Bounds:
    """Return the bounds of the coming chunk; how far a mixture may move is a matter of local measurements alone."""
    from tikmix_pipeline.pipelines.decisions import coming_bounds

    return coming_bounds(checkpoint, corpus, optimize.model_copy(update={"max_change": None}), train)


def _guiding_texts(
    corpus: TokenShards, influence: InfluenceParameters, train: TrainParameters, items: int | None
) -> Mapping[str, Any]:
    from tikmix_pipeline.influence.counterfactual import scored_texts

    return scored_texts(corpus, influence, items=items, context=train.context, halves=("query",))


def _decided(strategy: str, found: Any) -> dict[str, Any]:
    """Return a baseline's mixture, which is within the bounds, in the form of a decision."""
    for note in found.notes:
        _LOG.info("%s: %s", strategy, note)
    return {
        "strategy": strategy,
        "round": 1,
        "weights": found.weights,
        "expected_gain": {},
        "binding": [],
        "notes": list(found.notes),
        "cost": found.cost.to_dict(),
        "details": found.details,
    }


DECIDED_BY: Mapping[str, tuple[Callable[..., Any], tuple[str, ...]]] = {
    **dict.fromkeys(
        ("uniform", "proportional", "unimax"),
        (decide_by_rule, ("corpus", "params:train", "params:optimize", "params:tikmix", "params:baselines")),
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
            *("params:baselines", "params:seed", "work"),
        ),
    ),
}
"""The node of each baseline, and its inputs after the checkpoint."""
