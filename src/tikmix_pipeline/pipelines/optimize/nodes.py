"""Nodes of the `optimize` pipeline: TiKMiX-D, or another method where `tikmix.strategy` names one."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from tikmix_pipeline.mixture.decision import Decision, summary_lines
from tikmix_pipeline.mixture.direct import decide_direct
from tikmix_pipeline.mixture.recording import baseline_record
from tikmix_pipeline.mixture.records import DecisionRecord, MixtureRecord, TokenBudget
from tikmix_pipeline.mixture.response_branches import BranchLosses
from tikmix_pipeline.parameters.base import View, unrecorded
from tikmix_pipeline.parameters.baselines import (
    DoremiParameters,
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
from tikmix_pipeline.parameters.measurement import ScoringParameters, TaskLoss
from tikmix_pipeline.parameters.training import ContextParameters, EngineParameters, ModelParameters, StepParameters
from tikmix_pipeline.pipelines.views import branch_key, tables_by_kind
from tikmix_pipeline.store.code import code_of

if TYPE_CHECKING:
    import pandas as pd

    from tikmix_pipeline.corpus.shards import TokenShards
    from tikmix_pipeline.datasets.paths import WorkFolder
    from tikmix_pipeline.influence.report import Measurement

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


class BranchedView(DirectView):
    """What TiKMiX-D depends on besides influence and branches.

    What a task's loss covers counts only where a guardrail asks for bits per byte.
    """

    task_loss: TaskLoss | None


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


def decide(
    view: DirectView, budget: TokenBudget, prior: MixtureRecord, *measured: pd.DataFrame | DecisionRecord
) -> DecisionRecord:
    """Decide the mixture of the next round on the influence of the rounds so far, and their products of domains.

    The mixture of n-gram models is among what was measured where `optimize.anchor` asks for it.
    """
    tables, ngram = without_anchor(measured)
    decision = decide_direct(budget, prior, view.optimize, view.tikmix, *tables_by_kind(tables), ngram=ngram)
    return _told(decision, view.name, budget.round + 1)


def decide_on_branches(
    view: BranchedView,
    budget: TokenBudget,
    prior: MixtureRecord,
    ratios: pd.DataFrame,
    losses: pd.DataFrame,
    measurement: Measurement,
    corpus: TokenShards,
    *measured: pd.DataFrame | DecisionRecord,
) -> DecisionRecord:
    """Decide the mixture of the next round with what branches say of the response."""
    at_checkpoint = {**measurement.task_loss, **measurement.domain_loss}
    sizes = {} if view.task_loss is None else _bytes_per_token(corpus, measurement.task_loss, view.task_loss)
    branches = BranchLosses(ratios, losses, at_checkpoint, sizes)
    tables, ngram = without_anchor(measured)
    found = tables_by_kind(tables)
    decision = decide_direct(budget, prior, view.optimize, view.tikmix, *found, branches=branches, ngram=ngram)
    return _told(decision, view.name, budget.round + 1)


def without_anchor(
    measured: Sequence[pd.DataFrame | DecisionRecord],
) -> tuple[list[pd.DataFrame], Mapping[str, float] | None]:
    """Return the tables that were measured, and the mixture of n-gram models if it is among them."""
    records = [one for one in measured if isinstance(one, DecisionRecord)]
    tables = [one for one in measured if not isinstance(one, DecisionRecord)]
    return tables, records[0].weights if records else None


def _bytes_per_token(corpus: TokenShards, tasks: Iterable[str], task_loss: TaskLoss) -> dict[str, float]:
    """Return the UTF-8 bytes per loss-carrying token of each domain's text and of each task that was measured."""
    from tikmix_pipeline.corpus.tasks import TaskItems

    items = TaskItems.open(corpus.tasks_file)
    of_tasks = {task: items.bytes_per_token(task, "query", task_loss) for task in tasks if task in items.tasks}
    return of_tasks | {domain: corpus.bytes_per_token(domain) for domain in corpus.domains}


def _told(decision: Decision, name: str, number: int) -> DecisionRecord:
    _LOG.info("TiKMiX-D for round %d\n%s", number, "\n".join(summary_lines(decision)))
    return decision.to_record(name, number)


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
