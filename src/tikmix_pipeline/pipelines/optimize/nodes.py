"""Nodes of the `optimize` pipeline that decide by TiKMiX-D."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from tikmix_pipeline.mixture.decision import Decision, summary_lines
from tikmix_pipeline.mixture.direct import Problem, problem_of
from tikmix_pipeline.mixture.records import AskedMixtures, DecisionRecord, MixtureRecord, TokenBudget
from tikmix_pipeline.mixture.response_branches import BranchLosses
from tikmix_pipeline.parameters.base import View
from tikmix_pipeline.parameters.decision import AveragingParameters, DirectParameters
from tikmix_pipeline.parameters.measurement import TaskLossParameters, heldout_target
from tikmix_pipeline.pipelines.views import TitledView, tables_by_kind

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from tikmix_pipeline.corpus.shards import TokenShards
    from tikmix_pipeline.influence.report import Measurement
    from tikmix_pipeline.report.whatif_records import WhatIfProblem

DECISIONS = logging.getLogger(f"{__name__}.decisions")
"""What is said of decisions: their tables, and by the attribute `SENTENCES_OF` for which round sentences are."""
SENTENCES_OF = "sentences_of"


class MixtureView(View):
    """What the mixture of TiKMiX-D depends on besides influence."""

    optimize: DirectParameters
    tikmix: AveragingParameters


class DirectView(MixtureView):
    """What a decision of TiKMiX-D depends on; the name is that of the strategy, or of the prior that is kept."""

    name: str


class BranchedMixtureView(MixtureView):
    """What the mixture of TiKMiX-D depends on besides influence and branches.

    What a task's loss covers counts only where a guardrail asks for bits per byte.
    """

    influence: TaskLossParameters | None


class BranchedView(BranchedMixtureView):
    """What a decision of TiKMiX-D with branches depends on."""

    name: str


class DecisionFigureView(TitledView):
    """How many measurements a decision is the mean of, and the mixture that it is drawn towards, in words."""

    rounds: int
    anchor: str


def decide(
    view: DirectView, budget: TokenBudget, prior: MixtureRecord, *measured: pd.DataFrame | DecisionRecord
) -> DecisionRecord:
    """Decide the mixture of the next round on the influence of the rounds so far.

    Among what was measured are, for gains of second order, products of domains and the influence of their chunks, and
    the mixture of n-gram models where `optimize.anchor` asks for it.
    """
    decision = _problem(view, budget, prior, measured).decision(view.optimize)
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
    branches = _branch_losses(view.influence, ratios, losses, measurement, corpus)
    decision = _problem(view, budget, prior, measured, branches).decision(view.optimize)
    return _told(decision, view.name, budget.round + 1)


def draw_decision(view: DecisionFigureView, decision: DecisionRecord, budget: TokenBudget) -> Figure:
    """Draw what was decided on, and what came of it."""
    from tikmix_pipeline.report.effect_figures import decided_effects

    return decided_effects(decision, budget.current, rounds=view.rounds, origin=view.origin, anchor=view.anchor)


def ask_tasks(
    view: MixtureView, budget: TokenBudget, prior: MixtureRecord, *measured: pd.DataFrame | DecisionRecord
) -> AskedMixtures:
    """Say what each task would get if it alone decided."""
    from tikmix_pipeline.mixture.asked import asked_mixtures

    return asked_mixtures(_problem(view, budget, prior, measured), view.optimize)


def ask_tasks_on_branches(
    view: BranchedMixtureView,
    budget: TokenBudget,
    prior: MixtureRecord,
    ratios: pd.DataFrame,
    losses: pd.DataFrame,
    measurement: Measurement,
    corpus: TokenShards,
    *measured: pd.DataFrame | DecisionRecord,
) -> AskedMixtures:
    """Say what each task would get if it alone decided, with what branches say of the response."""
    from tikmix_pipeline.mixture.asked import asked_mixtures

    branches = _branch_losses(view.influence, ratios, losses, measurement, corpus)
    return asked_mixtures(_problem(view, budget, prior, measured, branches), view.optimize)


def state_problem(
    view: MixtureView, budget: TokenBudget, prior: MixtureRecord, *measured: pd.DataFrame | DecisionRecord
) -> WhatIfProblem:
    """State what a decision of second order was made of."""
    return _stated(_problem(view, budget, prior, measured), view.optimize)


def state_problem_on_branches(
    view: BranchedMixtureView,
    budget: TokenBudget,
    prior: MixtureRecord,
    ratios: pd.DataFrame,
    losses: pd.DataFrame,
    measurement: Measurement,
    corpus: TokenShards,
    *measured: pd.DataFrame | DecisionRecord,
) -> WhatIfProblem:
    """State what a decision of second order was made of, with what branches say of the response."""
    branches = _branch_losses(view.influence, ratios, losses, measurement, corpus)
    return _stated(_problem(view, budget, prior, measured, branches), view.optimize)


def _stated(problem: Problem, optimize: DirectParameters) -> WhatIfProblem:
    from tikmix_pipeline.report.whatif_problem import whatif_problem

    if problem.response is None:
        raise ValueError("optimize.method is paper, which has no problem of second order")
    return whatif_problem(problem.response(slice(None), optimize), problem.nothing)


def _problem(
    view: MixtureView,
    budget: TokenBudget,
    prior: MixtureRecord,
    measured: Sequence[pd.DataFrame | DecisionRecord],
    branches: BranchLosses | None = None,
) -> Problem:
    tables, ngram = without_anchor(measured)
    found, parts = tables_by_kind(tables), [table for table in tables if "part" in table]
    return problem_of(budget, prior, view.optimize, view.tikmix, *found, branches=branches, ngram=ngram, parts=parts)


def without_anchor(
    measured: Sequence[pd.DataFrame | DecisionRecord],
) -> tuple[list[pd.DataFrame], Mapping[str, float] | None]:
    """Return the tables that were measured, and the mixture of n-gram models if it is among them."""
    records = [one for one in measured if isinstance(one, DecisionRecord)]
    tables = [one for one in measured if not isinstance(one, DecisionRecord)]
    return tables, records[0].weights if records else None


def _branch_losses(
    influence: TaskLossParameters | None,
    ratios: pd.DataFrame,
    losses: pd.DataFrame,
    measurement: Measurement,
    corpus: TokenShards,
) -> BranchLosses:
    at_checkpoint = {**measurement.task_loss, **measurement.domain_loss}
    sizes = {} if influence is None else bytes_by_target(corpus, measurement.task_loss, influence)
    return BranchLosses(ratios, losses, at_checkpoint, sizes)


def bytes_by_target(corpus: TokenShards, tasks: Iterable[str], influence: TaskLossParameters) -> dict[str, float]:
    """Return the UTF-8 bytes per token that carries loss, of domains' text and of targets that have such tokens."""
    from tikmix_pipeline.corpus.tasks import TaskItems

    items, sizes = TaskItems.open(corpus.tasks_file), {}
    for task in tasks:
        loss = influence.loss_of(task)
        if task in items.tasks and loss != "choice":
            sizes[task] = items.bytes_per_token(task, "query", loss)
    for domain in corpus.domains:
        sizes[domain] = sizes[heldout_target(domain)] = corpus.bytes_per_token(domain)
    return sizes


def _told(decision: Decision, name: str, number: int) -> DecisionRecord:
    _say(decision.guardrail_notes, number)
    DECISIONS.info("TiKMiX-D for round %d\n%s", number, "\n".join(summary_lines(decision)))
    _say(decision.notes, number)
    return decision.to_record(name, number)


def _say(sentences: Sequence[str], number: int) -> None:
    if sentences:
        DECISIONS.info("%s", "\n".join(sentences), extra={SENTENCES_OF: number})
