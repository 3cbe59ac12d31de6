"""Nodes of the `optimize` pipeline that decide by another method (`tikmix.strategy`), and the anchor of n-grams."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from tikmix_pipeline.lm.schedule import Schedule
from tikmix_pipeline.mixture.recording import baseline_record
from tikmix_pipeline.mixture.records import DecisionRecord, MixtureRecord, TokenBudget
from tikmix_pipeline.parameters.base import View, unrecorded
from tikmix_pipeline.parameters.baselines import (
    DgaParameters,
    DoremiParameters,
    FastmixParameters,
    MixminParameters,
    NgramParameters,
    RegmixParameters,
    UnimaxParameters,
)
from tikmix_pipeline.parameters.decision import BoundsParameters, StrategyParameters
from tikmix_pipeline.parameters.measurement import ScoringParameters
from tikmix_pipeline.parameters.training import (
    ContextParameters,
    EngineParameters,
    LoadParameters,
    ModelParameters,
    StepParameters,
)
from tikmix_pipeline.pipelines.views import branch_key
from tikmix_pipeline.store.code import code_of

if TYPE_CHECKING:
    from tikmix_pipeline.corpus.shards import TokenShards
    from tikmix_pipeline.datasets.paths import WorkFolder
    from tikmix_pipeline.lm.checkpoint import Checkpoint

_LOG = logging.getLogger(__name__)


class RuleView(View):
    """What a decision by the numbers of tokens alone depends on; those to come are the run's after its first chunk."""

    tikmix: StrategyParameters
    optimize: BoundsParameters
    unimax: UnimaxParameters | None
    tokens_to_come: int | None


class NgramModelView(View):
    """What the likeliest mixture of n-gram models depends on."""

    train: ContextParameters
    influence: ScoringParameters
    ngram: NgramParameters


class NgramView(NgramModelView):
    """What a decision by n-gram models depends on."""

    optimize: BoundsParameters


class DoremiView(View):
    """What a decision by DoReMi depends on."""

    model: ModelParameters
    train: StepParameters
    optimize: BoundsParameters
    doremi: DoremiParameters
    seed: int


class RegmixView(View):
    """What a decision by RegMix depends on."""

    model: ModelParameters
    train: StepParameters
    optimize: BoundsParameters
    influence: ScoringParameters
    regmix: RegmixParameters
    seed: int
    engine: EngineParameters = unrecorded()


class MixminView(View):
    """What a decision by MixMin depends on; the schedule is that of a branch."""

    model: LoadParameters
    train: StepParameters
    optimize: BoundsParameters
    influence: ScoringParameters
    mixmin: MixminParameters
    schedule: Schedule
    seed: int
    engine: EngineParameters = unrecorded()


class DgaView(View):
    """What a decision by DGA depends on; the schedule is that of the copy."""

    model: LoadParameters
    train: StepParameters
    optimize: BoundsParameters
    influence: ScoringParameters
    dga: DgaParameters
    schedule: Schedule
    seed: int


class FastmixView(View):
    """What a decision by FastMix depends on."""

    model: ModelParameters
    train: StepParameters
    optimize: BoundsParameters
    influence: ScoringParameters
    fastmix: FastmixParameters
    seed: int


def anchor_by_ngrams(view: NgramModelView, corpus: TokenShards) -> DecisionRecord:
    """Find the mixture of n-gram models that makes the tasks' query halves most likely, whatever the bounds."""
    from tikmix_pipeline.baselines.ngram import ngram

    texts = _guiding_texts(corpus, view.influence, view.train.context, view.ngram.items)
    return _record("ngram", ngram(corpus, texts, parameters=view.ngram))


def decide_by_rule(view: RuleView, budget: TokenBudget) -> DecisionRecord:
    """Decide by how many tokens each domain has, and by nothing else."""
    from tikmix_pipeline.baselines.unimax import by_rule

    bounds = budget.bounds(view.optimize)
    found = by_rule(view.tikmix.strategy, budget, bounds, unimax_parameters=view.unimax, tokens=view.tokens_to_come)
    return _record(view.tikmix.strategy, found)


def decide_by_ngrams(view: NgramView, budget: TokenBudget, corpus: TokenShards) -> DecisionRecord:
    """Decide by the mixture of n-gram models that makes the tasks' query halves most likely."""
    from tikmix_pipeline.baselines.ngram import ngram

    texts = _guiding_texts(corpus, view.influence, view.train.context, view.ngram.items)
    return _record("ngram", ngram(corpus, texts, parameters=view.ngram, bounds=budget.bounds(view.optimize)))


def decide_by_doremi(
    view: DoremiView, budget: TokenBudget, prior: MixtureRecord, corpus: TokenShards, work: WorkFolder
) -> DecisionRecord:
    """Decide by group DRO of a proxy against a reference."""
    from tikmix_pipeline.baselines.doremi import doremi

    found = doremi(
        corpus,
        prior.weights,
        model=view.model,
        train=view.train,
        parameters=view.doremi,
        seed=view.seed,
        folder=work.begin(),
        key=code_of(doremi).key,
        bounds=budget.bounds(view.optimize),
    )
    return _record("doremi", found)


def decide_by_regmix(
    view: RegmixView, budget: TokenBudget, prior: MixtureRecord, corpus: TokenShards, work: WorkFolder
) -> DecisionRecord:
    """Decide by a regression over many small proxies trained from scratch."""
    from tikmix_pipeline.baselines.regmix import regmix

    found = regmix(
        corpus,
        _guiding_texts(corpus, view.influence, view.train.context, view.regmix.items),
        prior.weights,
        model=view.model,
        train=view.train,
        parameters=view.regmix,
        seed=view.seed,
        folder=work.begin(),
        key=branch_key(),
        bounds=budget.bounds(view.optimize),
        engine=view.engine,
    )
    return _record("regmix", found)


def decide_by_mixmin(
    view: MixminView, budget: TokenBudget, checkpoint: Checkpoint, corpus: TokenShards, work: WorkFolder
) -> DecisionRecord:
    """Decide by the likeliest mixture of branches that are trained on one domain each."""
    from tikmix_pipeline.baselines.mixmin import mixmin

    found = mixmin(
        checkpoint,
        corpus,
        _guiding_texts(corpus, view.influence, view.train.context, view.mixmin.items),
        model=view.model,
        train=view.train,
        schedule=view.schedule,
        parameters=view.mixmin,
        seed=view.seed,
        folder=work.begin(),
        key=branch_key(),
        bounds=budget.bounds(view.optimize),
        engine=view.engine,
    )
    return _record("mixmin", found)


def decide_by_dga(
    view: DgaView,
    budget: TokenBudget,
    current: MixtureRecord,
    checkpoint: Checkpoint,
    corpus: TokenShards,
    work: WorkFolder,
) -> DecisionRecord:
    """Decide by the alignment of gradients along the training of a copy of the checkpoint."""
    from tikmix_pipeline.baselines.dga import dga

    found = dga(
        checkpoint,
        corpus,
        _guiding_texts(corpus, view.influence, view.train.context, view.dga.items),
        current.weights,
        model=view.model,
        train=view.train,
        schedule=view.schedule,
        parameters=view.dga,
        seed=view.seed,
        folder=work.begin(),
        key=code_of(dga).key,
        bounds=budget.bounds(view.optimize),
    )
    return _record("dga", found)


def decide_by_fastmix(view: FastmixView, budget: TokenBudget, corpus: TokenShards, work: WorkFolder) -> DecisionRecord:
    """Decide by a proxy whose mixture is trained beside its weights."""
    from tikmix_pipeline.baselines.fastmix import fastmix

    found = fastmix(
        corpus,
        _guiding_texts(corpus, view.influence, view.train.context, view.fastmix.items),
        model=view.model,
        train=view.train,
        parameters=view.fastmix,
        seed=view.seed,
        folder=work.begin(),
        key=code_of(fastmix).key,
        bounds=budget.bounds(view.optimize),
    )
    return _record("fastmix", found)


def _guiding_texts(
    corpus: TokenShards, influence: ScoringParameters, context: int, items: int | Literal["measured"] | None
) -> Mapping[str, Any]:
    from tikmix_pipeline.influence.counterfactual import scored_texts

    if items == "measured":
        raise ValueError("a baseline's view says how many items it reads")
    return scored_texts(corpus, influence, items=items, context=context, halves=("query",))


def _record(strategy: str, found: Any) -> DecisionRecord:
    """Record a baseline's mixture, which is within the bounds, as the decision that it is."""
    for note in found.notes:
        _LOG.info("%s: %s", strategy, note)
    return baseline_record(strategy, found.weights, notes=found.notes, cost=found.cost.to_dict(), details=found.details)
