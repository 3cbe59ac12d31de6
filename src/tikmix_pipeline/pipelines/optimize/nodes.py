"""Nodes of the `optimize` pipeline: TiKMiX-D, or another method where `tikmix.strategy` names one."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from tikmix_pipeline.lm.schedule import Schedule
from tikmix_pipeline.mixture.decision import summary_lines
from tikmix_pipeline.mixture.direct import decide_direct
from tikmix_pipeline.mixture.recording import baseline_record
from tikmix_pipeline.mixture.records import DecisionRecord, MixtureRecord, TokenBudget
from tikmix_pipeline.mixture.response_branches import BranchLosses
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
from tikmix_pipeline.parameters.decision import (
    AveragingParameters,
    BoundsParameters,
    DirectParameters,
    StrategyParameters,
)
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
    import pandas as pd

    from tikmix_pipeline.corpus.shards import TokenShards
    from tikmix_pipeline.datasets.paths import WorkFolder
    from tikmix_pipeline.influence.report import Measurement
    from tikmix_pipeline.lm.checkpoint import Checkpoint

_LOG = logging.getLogger(__name__)


class DirectView(View):
    """What TiKMiX-D depends on besides influence; the name is that of the strategy, or of the prior that is kept."""

    optimize: DirectParameters
    tikmix: AveragingParameters
    name: str


class RuleView(View):
    """What a decision by the numbers of tokens alone depends on; those to come are the run's after its first chunk."""

    tikmix: StrategyParameters
    optimize: BoundsParameters
    unimax: UnimaxParameters | None
    tokens_to_come: int | None


class NgramView(View):
    """What a decision by n-gram models depends on."""

    train: ContextParameters
    optimize: BoundsParameters
    influence: ScoringParameters
    ngram: NgramParameters


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


def tables_by_kind(measured: Sequence[pd.DataFrame]) -> tuple[list[pd.DataFrame], list[pd.DataFrame]]:
    """Return the tables of influence on tasks, and those of products between domains."""
    products = [table for table in measured if "text" in table]
    return [table for table in measured if "text" not in table], products


def decide(view: DirectView, budget: TokenBudget, prior: MixtureRecord, *measured: pd.DataFrame) -> DecisionRecord:
    """Decide the mixture of the next round on the influence of the rounds so far, and their products of domains."""
    decision = decide_direct(budget, prior, view.optimize, view.tikmix, *tables_by_kind(measured))
    _LOG.info("TiKMiX-D for round %d\n%s", budget.round + 1, "\n".join(summary_lines(decision)))
    return decision.to_record(view.name, budget.round + 1)


def decide_on_branches(
    view: DirectView,
    budget: TokenBudget,
    prior: MixtureRecord,
    ratios: pd.DataFrame,
    losses: pd.DataFrame,
    measurement: Measurement,
    *measured: pd.DataFrame,
) -> DecisionRecord:
    """Decide the mixture of the next round with what branches say of the response."""
    branches = BranchLosses(ratios, losses, {**measurement.task_loss, **measurement.domain_loss})
    decision = decide_direct(budget, prior, view.optimize, view.tikmix, *tables_by_kind(measured), branches=branches)
    _LOG.info("TiKMiX-D for round %d\n%s", budget.round + 1, "\n".join(summary_lines(decision)))
    return decision.to_record(view.name, budget.round + 1)


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
