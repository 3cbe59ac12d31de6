"""Nodes of the `reweight` pipeline: the mixture is recorded, its gains are stated, and trainers' files are written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tikmix_pipeline.parameters.decision import (
    ExportParameters,
    RepetitionParameters,
    RoundingParameters,
    StepBoundsParameters,
    StrategyParameters,
)
from tikmix_pipeline.parameters.measurement import CalibratedParameters
from tikmix_pipeline.parameters.training import StreamParameters
from tikmix_pipeline.parameters.view import NoParameters, View

if TYPE_CHECKING:
    import pandas as pd

    from tikmix_pipeline.corpus.shards import TokenShards
    from tikmix_pipeline.influence.report import SpreadRecord
    from tikmix_pipeline.mixture.records import DecisionRecord, Gains, MixtureRecord, TokenBudget

_GAIN_UNIT = "nats per token by influence.calibration, over the mixture in force"


class RecordView(View):
    """How a decided mixture is recorded."""

    tikmix: StrategyParameters
    reweight: RoundingParameters


class KeptView(View):
    """How a mixture is recorded that is kept, within what text there is for it."""

    optimize: StepBoundsParameters
    reweight: RoundingParameters


class GainsView(View):
    """How gains become nats."""

    influence: CalibratedParameters


class ExportView(View):
    """For whom mixtures are written, and what their files say."""

    experiment: str
    reweight: ExportParameters
    train: StreamParameters
    optimize: RepetitionParameters


def record_decision(
    view: RecordView, decision: DecisionRecord, budget: TokenBudget, prior: MixtureRecord
) -> tuple[MixtureRecord, pd.DataFrame]:
    """Record the mixture of the next round: the decided one, or the prior where that is the strategy."""
    from tikmix_pipeline.mixture import recording

    record = recording.record_decision(decision, budget, prior, strategy=view.tikmix.strategy, rounding=view.reweight)
    return record, recording.mixture_table(record)


def keep_mixture(view: KeptView, mixture: MixtureRecord, budget: TokenBudget) -> tuple[MixtureRecord, pd.DataFrame]:
    """Record the mixture of a round for the next one too, as far as there is text for it."""
    from tikmix_pipeline.mixture import recording

    record = recording.keep_mixture(mixture, budget, view.optimize, view.reweight)
    return record, recording.mixture_table(record)


def state_gains(
    view: GainsView, spread: SpreadRecord, before: MixtureRecord, after: MixtureRecord, decision: DecisionRecord
) -> Gains:
    """Say what each task is expected to gain over the current mixture, and what it would without constraints.

    That is known of TiKMiX-D alone.
    """
    from tikmix_pipeline.influence.report import expected_gains
    from tikmix_pipeline.mixture.recording import gains_record

    calibration, free = view.influence.calibration, decision.unconstrained
    return gains_record(
        expected_gains(spread, before.weights, after.weights, calibration=calibration),
        None if free is None else expected_gains(spread, before.weights, free.weights, calibration=calibration),
    )


def state_no_gains(view: NoParameters, decided: MixtureRecord) -> Gains:
    """Say that nothing was measured that tells what to expect of a mixture."""
    from tikmix_pipeline.mixture.recording import gains_record

    return gains_record({}, None)


def export_mixtures(
    view: ExportView, gains: Gains, corpus: TokenShards, *history: MixtureRecord | TokenBudget
) -> Callable[[Path], Any]:
    """Write all mixtures so far in the formats of `reweight.exports`.

    Args:
        view: trainers, what these call the domains' data, and how often a domain may be read.
        gains: of the last mixture, by task; none where nothing was measured.
        corpus: tells how long documents are.
        history: mixture and token budget of every round, then the mixture that was decided.
    """
    from tikmix_pipeline.export.registry import write_folder
    from tikmix_pipeline.mixture.records import MixtureRecord, TokenBudget
    from tikmix_pipeline.pipelines.reweight.schedule import schedule_of

    schedule = schedule_of(
        [record for record in history if isinstance(record, MixtureRecord)],
        [record for record in history if isinstance(record, TokenBudget)],
        corpus,
        gains,
        reweight=view.reweight,
        train=view.train,
        max_epochs=view.optimize.max_epochs,
        experiment=view.experiment,
        gain_unit=_GAIN_UNIT,
    )
    return lambda folder: write_folder(view.reweight.exports, schedule, folder)
