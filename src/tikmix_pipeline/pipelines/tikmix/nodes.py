"""Nodes that sum up a whole run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tikmix_pipeline.mixture.records import AskedMixtures, DecisionRecord, MixtureRecord
from tikmix_pipeline.parameters.base import NoParameters, View
from tikmix_pipeline.parameters.training import ConfigParameters, ContextParameters
from tikmix_pipeline.pipelines.views import TitledView
from tikmix_pipeline.report.run_summary import RunSummary, run_summary
from tikmix_pipeline.report.verdict import Verdict, verdict_on

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from tikmix_pipeline.influence.report import Measurement
    from tikmix_pipeline.lm.checkpoint import Checkpoint
    from tikmix_pipeline.lm.cost_records import BranchCostRecord


class VerdictView(View):
    """What the verdict depends on besides the scores: who decided, and how long the training was."""

    model: ConfigParameters
    train: ContextParameters
    trained_tokens: int
    deciding: tuple[str, ...]


def give_verdict(
    view: VerdictView,
    decided: pd.DataFrame,
    kept: pd.DataFrame,
    checkpoint: Checkpoint,
    *decisions: Measurement | BranchCostRecord | DecisionRecord,
) -> Verdict:
    """Compare the run with keeping the prior, item by item; `decisions` say what deciding took."""
    from tikmix_pipeline.lm.cost import training_cost

    config, context = checkpoint.config(view.model), view.train.context
    return verdict_on(
        decided,
        kept,
        deciding=view.deciding,
        training_flops=training_cost(config, context=context, tokens=view.trained_tokens).flops,
        method_flops=sum((one.cost.flops for one in decisions if one.cost is not None), 0.0),
    )


def summarise(
    view: NoParameters,
    final: pd.DataFrame,
    decision: DecisionRecord,
    *told: MixtureRecord | pd.DataFrame | AskedMixtures | Verdict,
) -> RunSummary:
    """Gather mixtures and scores of all rounds.

    `told` are the mixtures of all rounds and of the one to come, then the evaluations of all rounds, and what tasks ask
    for and the verdict, where there are any.
    """
    mixtures = [one for one in told if isinstance(one, MixtureRecord)]
    asked = next((one for one in told if isinstance(one, AskedMixtures)), None)
    verdict = next((one for one in told if isinstance(one, Verdict)), None)
    evaluations = [one for one in told if not isinstance(one, MixtureRecord | AskedMixtures | Verdict)]
    return run_summary(final, decision, mixtures, evaluations, asked, verdict)


def draw_run(view: TitledView, summary: RunSummary) -> tuple[Figure, Figure]:
    """Draw mixtures and scores over the rounds."""
    from tikmix_pipeline.report.run_figures import bits_per_byte_over_rounds, mixture_over_rounds

    mixtures = mixture_over_rounds(summary.mixtures, origin=view.origin)
    return mixtures, bits_per_byte_over_rounds(summary.task_scores(), origin=view.origin)
