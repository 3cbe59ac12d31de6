"""Nodes of the `sweep` pipeline: candidates, a response of each (lower is better), a surrogate, and its search."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tikmix_pipeline.mixture.records import DecisionRecord, SweepDesign, TokenBudget
from tikmix_pipeline.mixture.sweep.regression_data import RegressionData, regression_data
from tikmix_pipeline.parameters.base import NoParameters, OnDisk, View
from tikmix_pipeline.parameters.decision import (
    AveragingParameters,
    ObjectiveParameters,
    SearchObjectiveParameters,
    StepBoundsParameters,
    TablesStrategyParameters,
)
from tikmix_pipeline.parameters.measurement import OwnTokensMeasurement
from tikmix_pipeline.parameters.sweep import (
    CandidateRunParameters,
    DesignParameters,
    DrawnParameters,
    FittedParameters,
    JudgementParameters,
    OwnTokensParameters,
    SampleParameters,
    SearchedParameters,
    SurrogateParameters,
    TablesParameters,
)
from tikmix_pipeline.parameters.training import GrowingParameters, LoadParameters
from tikmix_pipeline.pipelines.sweep.evidence import without_evidence
from tikmix_pipeline.pipelines.views import (
    MixtureBranchesView,
    TitledView,
    gradient_key,
    losses_of_branches,
    tables_by_kind,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from tikmix_pipeline.corpus.shards import TokenShards
    from tikmix_pipeline.datasets.paths import WorkFolder
    from tikmix_pipeline.influence.curvature.factors import Factors
    from tikmix_pipeline.lm.checkpoint import Checkpoint
    from tikmix_pipeline.lm.cost_records import BranchCostRecord
    from tikmix_pipeline.mixture.sweep.decision import SurrogateDecision
    from tikmix_pipeline.mixture.sweep.response_mean import ResponseMean

_LOG = logging.getLogger(__name__)


class DesignView(View):
    """What the candidates depend on."""

    sweep: DesignParameters
    optimize: StepBoundsParameters
    seed: int


class SampleView(View):
    """What sampled influence depends on besides the chunks that are measured."""

    sweep: SampleParameters
    tikmix: AveragingParameters
    seed: int


class OwnTokensView(View):
    """What the influence of candidates on tokens of their own depends on."""

    model: LoadParameters
    train: GrowingParameters
    influence: OwnTokensMeasurement
    sweep: OwnTokensParameters
    horizon: float
    seed: int
    turn: int


class BranchView(MixtureBranchesView):
    """What the branch of every candidate depends on."""

    sweep: CandidateRunParameters


class TablesView(View):
    """Which tables are read, and what they hold."""

    sweep: TablesParameters
    files: OnDisk


class FitView(View):
    """What the fitted surrogate depends on; the objective counts only where it is itself what it predicts."""

    sweep: FittedParameters
    optimize: ObjectiveParameters | None
    tikmix: AveragingParameters
    seed: int


class JudgementView(FitView):
    """What the quality of surrogates depends on."""

    sweep: JudgementParameters


class SearchView(View):
    """What the search depends on."""

    sweep: SearchedParameters
    optimize: SearchObjectiveParameters
    tikmix: AveragingParameters
    seed: int


class TablesSearchView(SearchView):
    """What the search over a user's tables depends on."""

    tikmix: TablesStrategyParameters


class FigureView(TitledView):
    """Whose predictions are drawn."""

    sweep: DrawnParameters


def draw_candidates(
    view: DesignView, decision: DecisionRecord, budget: TokenBudget
) -> tuple[pd.DataFrame, SweepDesign]:
    """Draw candidate mixtures, around D's or around the prior."""
    from tikmix_pipeline.mixture.sweep import design

    return design.draw_candidates(decision, budget, view.optimize, view.sweep, seed=view.seed)


def sample_influence(view: SampleView, ratios: pd.DataFrame, *measured: pd.DataFrame) -> pd.DataFrame:
    """Take each candidate's influence from the gradient chunks that are measured already; no pass through the model.

    What was measured are `part_influence` of the rounds so far, and then `influence` of each.
    """
    from tikmix_pipeline.mixture.sweep.sampled import sampled_responses

    chunks, influences = measured[: len(measured) // 2], measured[len(measured) // 2 :]
    return sampled_responses(
        ratios, chunks, tokens=view.sweep.tokens, averaging=view.tikmix, seed=view.seed, influences=influences
    )


def measure_own_tokens(
    view: OwnTokensView,
    ratios: pd.DataFrame,
    chunks: pd.DataFrame,
    checkpoint: Checkpoint,
    corpus: TokenShards,
    work: WorkFolder,
    factors: Factors | None = None,
) -> pd.DataFrame:
    """Measure some candidates on tokens of their own, and set that beside what the measured chunks say of them."""
    from tikmix_pipeline.influence.measure import influence_of_samples_at
    from tikmix_pipeline.mixture.sweep.sampled import exact_beside_sampled

    tokens = view.sweep.tokens or int(chunks.drop_duplicates(["domain", "part"])["tokens"].sum())
    found = influence_of_samples_at(
        checkpoint,
        corpus,
        work.begin(),
        mixtures=ratios.iloc[: view.sweep.exact].set_index("run").to_dict("index"),
        tokens=tokens,
        model=view.model,
        train=view.train,
        influence=view.influence,
        seed=view.seed,
        turn=view.turn,
        code=gradient_key(view.model, view.influence),
        factors=factors,
        horizon=view.horizon,
    )
    return exact_beside_sampled(
        found.tasks, found.influence_TK.T, found.stderr_TK.T, ratios, chunks, tokens=view.sweep.tokens, seed=view.seed
    )


def train_candidates(
    view: BranchView,
    ratios: pd.DataFrame,
    checkpoint: Checkpoint,
    corpus: TokenShards,
    work: WorkFolder,
) -> tuple[pd.DataFrame, BranchCostRecord]:
    """Train a branch under every candidate that has none yet.

    Returns:
        The losses on the query half of every target, and what all branches took, whenever they were trained.
    """
    return losses_of_branches(
        view, ratios, checkpoint, corpus, work, items=view.sweep.items, workers=view.sweep.workers
    )


def read_tables(view: TablesView, root: Path) -> tuple[pd.DataFrame, ...]:
    """Read a user's mixtures and scores, and those of the test if there are any."""
    from tikmix_pipeline.mixture.sweep.tables import read_sweep_tables

    return read_sweep_tables(root, view.sweep.table)


def judge_surrogates(
    view: JudgementView, ratios: pd.DataFrame, metrics: pd.DataFrame, *measured: pd.DataFrame | DecisionRecord
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Cross-validate every surrogate beside the naive rules and the additive influence; two outputs are the same."""
    from tikmix_pipeline.mixture.sweep.quality import quality_tables

    data, mean, rounds = _measured_data(view, ratios, metrics, measured)
    rows, predictions = quality_tables(data, view.sweep, seed=view.seed, round_number=rounds - 1, mean=mean)
    return rows, rows, predictions


def _measured_data(
    view: FitView, ratios: pd.DataFrame, metrics: pd.DataFrame, measured: Sequence[pd.DataFrame | DecisionRecord]
) -> tuple[RegressionData, ResponseMean | None, int]:
    """Return what surrogates are fitted on, what influence tells of it to second order, and how many rounds did.

    What was measured are the influence of the rounds so far and, for the surrogate `response`, their products of
    domains, branches from elsewhere if there are any, and D's decision.
    """
    from tikmix_pipeline.mixture.sweep.response_mean import ResponseMean

    direct = [one for one in measured if isinstance(one, DecisionRecord)]
    tables, evidence = without_evidence([one for one in measured if not isinstance(one, DecisionRecord)])
    influences, products = tables_by_kind(tables)
    data = regression_data(ratios, metrics, view.sweep, view.optimize, view.tikmix, influences)
    if not direct:
        return data, None, len(influences)
    names = data.measured.domains, data.measured.targets
    mean = ResponseMean.of(direct[0], influences, products, *names, view.tikmix, evidence)
    return data, mean, len(influences)


def judge_tables(
    view: JudgementView, ratios: pd.DataFrame, metrics: pd.DataFrame, *test: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Judge every surrogate on the test's tables, or by cross-validation if there are none."""
    from tikmix_pipeline.mixture.sweep.quality import quality_tables

    data = regression_data(ratios, metrics, view.sweep, view.optimize, view.tikmix)
    pair = (test[0], test[1]) if test else None
    rows, predictions = quality_tables(data, view.sweep, seed=view.seed, round_number=0, test=pair)
    return rows, rows, predictions


def fit_surrogate(
    view: FitView, ratios: pd.DataFrame, metrics: pd.DataFrame, *measured: pd.DataFrame | DecisionRecord
) -> tuple[Callable[[Path], Any], pd.DataFrame]:
    """Fit the surrogate on all runs, and ask which domains it looks at."""
    from tikmix_pipeline.mixture.sweep.surrogates import fitted_surrogate, importance_table, save_surrogate

    data, mean, _ = _measured_data(view, ratios, metrics, measured)
    responses, folds = data.responses, view.sweep.folds
    surrogate = fitted_surrogate(view.sweep.kind, responses, folds=folds, seed=view.seed, mean=mean)
    return partial(save_surrogate, surrogate), importance_table(surrogate, responses, seed=view.seed)


def search_mixture(
    view: SearchView,
    surrogate: Any,
    ratios: pd.DataFrame,
    metrics: pd.DataFrame,
    quality: pd.DataFrame,
    predictions: pd.DataFrame,
    design: SweepDesign,
    direct: DecisionRecord,
    *measured: pd.DataFrame,
) -> tuple[DecisionRecord, pd.DataFrame]:
    """Search the surrogate for the mixture of the next round; D's is kept where it predicts no better.

    What was measured are the influence of the rounds so far and, where D's gains are of second order, their products of
    domains, by which D's guardrails hold here too.
    """
    from tikmix_pipeline.mixture.sweep.choose import search_sweep
    from tikmix_pipeline.mixture.sweep.guard import search_guard
    from tikmix_pipeline.mixture.sweep.quality import explained

    influences, products = tables_by_kind(measured)
    # of one model of the objective there is no telling what it knows of a target
    is_each = view.sweep.target == "each"
    known = explained(quality.to_dict("records"), view.sweep.kind) if is_each else None
    data = regression_data(ratios, metrics, view.sweep, view.optimize, view.tikmix, influences, known)
    guard = search_guard(direct, influences, products, data.measured.domains, view.tikmix)
    judged = quality, predictions
    found = search_sweep(
        surrogate, data, design, direct, judged, view.optimize, view.sweep, seed=view.seed, guard=guard
    )
    return _decided(found, view.sweep, direct.round)


def search_tables(
    view: TablesSearchView,
    surrogate: Any,
    ratios: pd.DataFrame,
    metrics: pd.DataFrame,
    quality: pd.DataFrame,
    predictions: pd.DataFrame,
) -> tuple[DecisionRecord, pd.DataFrame]:
    """Search the surrogate of a user's tables for the best mixture within what they cover."""
    from tikmix_pipeline.mixture.sweep import choose

    data = regression_data(ratios, metrics, view.sweep, view.optimize, view.tikmix)
    judged = quality, predictions
    found = choose.search_tables(surrogate, data, judged, view.tikmix, view.optimize, view.sweep, seed=view.seed)
    return _decided(found, view.sweep, 1)


def _decided(found: SurrogateDecision, sweep: SurrogateParameters, number: int) -> tuple[DecisionRecord, pd.DataFrame]:
    for note in (*found.guardrail_notes, *found.notes):
        _LOG.info("%s", note)
    return found.to_record(sweep.response, number), found.trace_table()


def choose_measured(
    view: NoParameters, ratios: pd.DataFrame, metrics: pd.DataFrame, direct: DecisionRecord
) -> DecisionRecord:
    """Take the candidate whose mean response over the targets is the lowest, of those that were really trained on."""
    from tikmix_pipeline.mixture.sweep.choose import best_measured

    return best_measured(ratios, metrics, direct)


def draw_sweep(
    view: FigureView,
    predictions: pd.DataFrame,
    quality: pd.DataFrame,
    importance: pd.DataFrame,
    trace: pd.DataFrame,
) -> tuple[Figure, Figure, Figure]:
    """Draw predictions over measurements, what the surrogate looks at, and how it was searched."""
    from tikmix_pipeline.report.run_figures import importance_heat_map, predicted_over_measured, search_trace

    predicted = predicted_over_measured(predictions, quality, view.sweep.kind, origin=view.origin)
    return predicted, importance_heat_map(importance, origin=view.origin), search_trace(trace, origin=view.origin)
