"""Nodes that sum up a whole run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tikmix_pipeline.mixture.records import DecisionRecord, MixtureRecord
from tikmix_pipeline.parameters.base import NoParameters
from tikmix_pipeline.report.terminal_tables import RunSummary, run_summary

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def summarise(
    view: NoParameters, final: pd.DataFrame, decision: DecisionRecord, *rounds: MixtureRecord | pd.DataFrame
) -> RunSummary:
    """Gather mixtures and scores of all rounds.

    `rounds` are the mixtures of all rounds and of the one to come, then the evaluations of all rounds.
    """
    mixtures = [one for one in rounds if isinstance(one, MixtureRecord)]
    evaluations = [one for one in rounds if not isinstance(one, MixtureRecord)]
    return run_summary(final, decision, mixtures, evaluations)


def draw_run(view: NoParameters, summary: RunSummary) -> tuple[Figure, Figure]:
    """Draw mixtures and scores over the rounds."""
    from tikmix_pipeline.report.run_figures import bits_per_byte_over_rounds, mixture_over_rounds

    return mixture_over_rounds(summary.mixtures), bits_per_byte_over_rounds(summary.task_scores())
