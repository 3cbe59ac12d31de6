"""Nodes that measure how a checkpoint responds, from a few branches of training (`optimize.branches`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tikmix_pipeline.mixture.records import DecisionRecord, MixtureRecord, TokenBudget
from tikmix_pipeline.parameters.base import View
from tikmix_pipeline.parameters.decision import (
    AveragingParameters,
    DirectParameters,
    ResponseBranchParameters,
)
from tikmix_pipeline.parameters.guardrails import IN_NATS
from tikmix_pipeline.pipelines.optimize.nodes import without_anchor
from tikmix_pipeline.pipelines.views import MixtureBranchesView, losses_of_branches, tables_by_kind

if TYPE_CHECKING:
    import pandas as pd

    from tikmix_pipeline.corpus.shards import TokenShards
    from tikmix_pipeline.datasets.paths import WorkFolder
    from tikmix_pipeline.lm.checkpoint import Checkpoint
    from tikmix_pipeline.lm.cost_records import BranchCostRecord


class BranchesView(View):
    """What the mixtures of the branches depend on."""

    optimize: DirectParameters
    tikmix: AveragingParameters
    count: int
    seed: int


class ResponseView(MixtureBranchesView):
    """What the losses of the branches depend on besides their mixtures."""

    optimize: ResponseBranchParameters


def choose_branches(
    view: BranchesView, budget: TokenBudget, prior: MixtureRecord, *measured: pd.DataFrame | DecisionRecord
) -> pd.DataFrame:
    """Choose what branches are trained under: the reference, what would be decided without them, and more around."""
    from tikmix_pipeline.mixture.direct import decide_direct
    from tikmix_pipeline.mixture.response_branches import branch_mixtures
    from tikmix_pipeline.mixture.sweep.responses import run_table

    guardrails = view.optimize.guardrails.items()
    told = {name: one for name, one in guardrails if one is None or one.unit not in IN_NATS}  # nobody knows of nats yet
    optimize = view.optimize.model_copy(update={"guardrails": told})
    tables, ngram = without_anchor(measured)
    decision = decide_direct(budget, prior, optimize, view.tikmix, *tables_by_kind(tables), ngram=ngram)
    bounds = budget.step_bounds(view.optimize)
    mixtures = branch_mixtures(decision.reference_K, decision.weights_K, bounds, count=view.count, seed=view.seed)
    return run_table({name: weights_K.tolist() for name, weights_K in mixtures.items()}, budget.domains)


def train_response_branches(
    view: ResponseView, ratios: pd.DataFrame, checkpoint: Checkpoint, corpus: TokenShards, work: WorkFolder
) -> tuple[pd.DataFrame, BranchCostRecord]:
    """Train a branch under every mixture that has none yet; return its losses, and what all of them took."""
    own = view.optimize
    return losses_of_branches(
        view,
        ratios,
        checkpoint,
        corpus,
        work,
        items=own.branch_items,
        workers=own.workers,
        heldout_windows=own.branch_windows,
    )
