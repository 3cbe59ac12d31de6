"""Nodes of branches that are chosen one batch after the other (`sweep.design: sequential`)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from tikmix_pipeline.mixture.records import DecisionRecord, SweepDesign, TokenBudget
from tikmix_pipeline.parameters.decision import AveragingParameters, FirstOrderParameters
from tikmix_pipeline.parameters.sweep import SequentialRunParameters
from tikmix_pipeline.pipelines.sweep.evidence import without_evidence
from tikmix_pipeline.pipelines.views import MixtureBranchesView, TitledView, losses_of_branches, tables_by_kind

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from tikmix_pipeline.corpus.shards import TokenShards
    from tikmix_pipeline.datasets.paths import WorkFolder
    from tikmix_pipeline.lm.checkpoint import Checkpoint
    from tikmix_pipeline.lm.cost_records import BranchCostRecord

_LOG = logging.getLogger(__name__)


class SequenceView(MixtureBranchesView):
    """What branches that are chosen one batch after the other depend on."""

    sweep: SequentialRunParameters
    optimize: FirstOrderParameters
    tikmix: AveragingParameters


def train_in_sequence(
    view: SequenceView,
    direct: DecisionRecord,
    budget: TokenBudget,
    checkpoint: Checkpoint,
    corpus: TokenShards,
    work: WorkFolder,
    *measured: pd.DataFrame,
) -> tuple[pd.DataFrame, pd.DataFrame, SweepDesign, pd.DataFrame, BranchCostRecord]:
    """Train branches, each chosen for what those before it and influence let expect.

    Returns:
        Mixtures, losses on the query half of every target, the bounds that mixtures are within, why each branch was
        trained and what came of it, and what all branches took.
    """
    from tikmix_pipeline.mixture.sweep.sequence import run_sequence

    def train(ratios: pd.DataFrame) -> tuple[pd.DataFrame, BranchCostRecord]:
        own = view.sweep
        return losses_of_branches(view, ratios, checkpoint, corpus, work, items=own.items, workers=own.workers)

    tables, evidence = without_evidence(measured)
    found = run_sequence(
        train,
        direct,
        budget,
        *tables_by_kind(tables),
        view.optimize,
        view.sweep,
        view.tikmix,
        evidence=evidence,
        seed=view.seed,
    )
    _LOG.info("%s", found.stopped_for)
    return found.ratios, found.losses, found.design, found.steps, found.cost


def draw_sequence(view: TitledView, steps: pd.DataFrame) -> Figure:
    """Draw what was expected of each branch, and what came."""
    from tikmix_pipeline.report.sequence_figure import sequence_figure

    return sequence_figure(steps, origin=view.origin)
