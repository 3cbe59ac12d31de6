"""Nodes of the `reweight` pipeline: the mixture is recorded, its gains are stated, and trainers' files are written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tikmix_pipeline.export.registry import write_folder
from tikmix_pipeline.export.schedule import Domain, Gain, Phase, Schedule
from tikmix_pipeline.mixture import recording
from tikmix_pipeline.mixture.recording import first_order_gains_record, gains_record, second_order_gains_record
from tikmix_pipeline.mixture.records import DecisionRecord, Gains, GainUnit, MixtureRecord, TokenBudget
from tikmix_pipeline.parameters.base import NoParameters, View
from tikmix_pipeline.parameters.decision import (
    ExportParameters,
    RepetitionParameters,
    RoundingParameters,
    StepBoundsParameters,
    StrategyParameters,
)
from tikmix_pipeline.parameters.measurement import CalibratedParameters
from tikmix_pipeline.parameters.training import StreamParameters

if TYPE_CHECKING:
    import pandas as pd

    from tikmix_pipeline.corpus.shards import TokenShards
    from tikmix_pipeline.influence.report import SpreadRecord


_GAIN_UNITS: Mapping[GainUnit, str] = {
    "share": "share of the best possible, over the mixture in force",
    "nats": "nats per token by influence.calibration, over the mixture in force",
}


class RecordView(View):
    """How a decided mixture is recorded."""

    tikmix: StrategyParameters
    reweight: RoundingParameters


class KeptView(View):
    """How a mixture is recorded that is kept, within what text there is for it."""

    optimize: StepBoundsParameters
    reweight: RoundingParameters


class GainsView(View):
    """How gains become nats, if they do."""

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
    record = recording.record_decision(decision, budget, prior, strategy=view.tikmix.strategy, rounding=view.reweight)
    return record, recording.mixture_table(record)


def keep_mixture(view: KeptView, mixture: MixtureRecord, budget: TokenBudget) -> tuple[MixtureRecord, pd.DataFrame]:
    """Record the mixture of a round for the next one too, as far as there is text for it."""
    record = recording.keep_mixture(mixture, budget, view.optimize, view.reweight)
    return record, recording.mixture_table(record)


def state_gains(
    view: GainsView, spread: SpreadRecord, before: MixtureRecord, after: MixtureRecord, decision: DecisionRecord
) -> Gains:
    """Say what each task is expected to gain over the current mixture, and what it would without constraints.

    Gains rest on what the decision rests on; TiKMiX-M's is of mixtures, and first-order gains are this round's then,
    with nothing known of a mixture without constraints.
    """
    from tikmix_pipeline.influence.report import expected_gains, gain_errors

    calibration = view.influence.calibration
    errors = gain_errors(spread, before.weights, after.weights)
    if decision.second_order is not None:
        return second_order_gains_record(decision, errors, calibration=calibration)
    if decision.effect is not None:
        return first_order_gains_record(decision, before.weights, after.weights, errors, calibration=calibration)
    gains = expected_gains(spread, before.weights, after.weights, calibration=calibration)
    return gains_record(gains, unit="share" if calibration is None else "nats")


def state_no_gains(view: NoParameters, decided: MixtureRecord) -> Gains:
    """Say that nothing was measured that tells what to expect of a mixture."""
    return gains_record({}, None)


def export_mixtures(
    view: ExportView, gains: Gains, corpus: TokenShards, *history: MixtureRecord | TokenBudget
) -> Callable[[Path], Any]:
    """Write all mixtures so far in the formats of `reweight.exports`.

    `history` is mixture and token budget of every round, then the mixture that was decided; `gains` are of that one.
    """
    mixtures = [record for record in history if isinstance(record, MixtureRecord)]
    budgets = [record for record in history if isinstance(record, TokenBudget)]
    decided, budget = mixtures[-1], budgets[-1]
    batch = view.reweight.batch_tokens or view.train.tokens_per_step
    starts = [0, *(round(sum(one.consumed.values())) for one in budgets)]
    # of two that begin at one place the first is left out: nothing was trained under it
    by_start = {start: mixture.weights for start, mixture in zip(starts, mixtures, strict=True)}
    # those that are gone have no weight in the last mixture, but had some before
    ever = dict.fromkeys(name for mixture in reversed(mixtures) for name in mixture.weights)
    schedule = Schedule(
        phases=[Phase(round(start / batch), start, weights) for start, weights in by_start.items()],
        domains=[_exported_domain(view, name, corpus, budget) for name in ever],
        batch_tokens=batch,
        context=view.reweight.context or view.train.context,
        chunk_tokens=budget.chunk_tokens,
        experiment=view.experiment,
        round=decided.round,
        epochs=decided.epochs,
        expected_gain={task: Gain(gain.gain, gain.stderr) for task, gain in gains.tasks.items()},
        gain_unit=_GAIN_UNITS[gains.unit],
        remaining_tokens=budget.remaining_tokens,
    )
    return lambda folder: write_folder(view.reweight.exports, schedule, folder)


def _exported_domain(view: ExportView, name: str, corpus: TokenShards, budget: TokenBudget) -> Domain:
    documents = corpus.documents(name) if name in corpus.domains else 0
    return Domain(
        name=name,
        path=view.reweight.paths.get(name, name),
        available_tokens=budget.available.get(name),
        mean_tokens_per_document=corpus.tokens(name) / documents if documents else None,
        consumed_tokens=round(budget.consumed.get(name, 0)),
        max_epochs=view.optimize.max_epochs,
    )
