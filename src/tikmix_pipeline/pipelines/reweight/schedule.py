"""From the rounds of an experiment to the schedule that trainers' files are written from."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tikmix_pipeline.export.schedule import Domain, Gain, Phase, Schedule
from tikmix_pipeline.mixture.records import Gains, MixtureRecord, TokenBudget
from tikmix_pipeline.parameters.decision import ExportParameters
from tikmix_pipeline.parameters.training import StreamParameters

if TYPE_CHECKING:
    from tikmix_pipeline.corpus.shards import TokenShards


def schedule_of(
    mixtures: Sequence[MixtureRecord],
    budgets: Sequence[TokenBudget],
    corpus: "TokenShards",
    gains: Gains,
    *,
    reweight: ExportParameters,
    train: StreamParameters,
    max_epochs: float,
    experiment: str,
    gain_unit: str,
) -> Schedule:
    """Return the schedule of all mixtures so far.

    Args:
        mixtures: of every round, then the one that was decided.
        budgets: of every round.
        corpus: tells how long documents are.
        gains: of the last mixture, by task.
        reweight: what trainers call the domains' data, and their batch and context.
        train: batch and context, where `reweight` gives none.
        max_epochs: how often a domain may be read.
        experiment: is named in the files.
        gain_unit: is named beside the gains.
    """
    decided, budget = mixtures[-1], budgets[-1]
    batch = reweight.batch_tokens or train.tokens_per_step
    # those that are gone have no weight in the last mixture, but had some before
    ever = dict.fromkeys(name for mixture in reversed(mixtures) for name in mixture.weights)
    return Schedule(
        phases=_phases(mixtures, budgets, batch),
        domains=[_domain(name, corpus, budget, reweight, max_epochs) for name in ever],
        batch_tokens=batch,
        context=reweight.context or train.context,
        chunk_tokens=budget.chunk_tokens,
        experiment=experiment,
        round=decided.round,
        epochs=decided.epochs,
        expected_gain={task: Gain(gain.gain, gain.stderr) for task, gain in gains.tasks.items()},
        gain_unit=gain_unit,
    )


def _phases(mixtures: Sequence[MixtureRecord], budgets: Sequence[TokenBudget], batch_tokens: int) -> list[Phase]:
    """Return every mixture with where it begins; one that nothing was trained under is left out."""
    starts = [0, *(round(sum(budget.consumed.values())) for budget in budgets)]
    by_start = {start: mixture.weights for start, mixture in zip(starts, mixtures, strict=True)}
    return [Phase(round(start / batch_tokens), start, weights) for start, weights in by_start.items()]


def _domain(
    name: str, corpus: "TokenShards", budget: TokenBudget, reweight: ExportParameters, max_epochs: float
) -> Domain:
    documents = corpus.documents(name) if name in corpus.domains else 0
    return Domain(
        name=name,
        path=reweight.paths.get(name, name),
        available_tokens=budget.available.get(name),
        mean_tokens_per_document=corpus.tokens(name) / documents if documents else None,
        consumed_tokens=round(budget.consumed.get(name, 0)),
        max_epochs=max_epochs,
    )
