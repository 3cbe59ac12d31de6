"""The sentences of the report of `remix`: what to do, what to expect of it, what holds it back, how sure it is."""

import math
from collections.abc import Sequence

from tikmix_pipeline.report.figure_style import FEWEST_PAIRS
from tikmix_pipeline.report.number_format import (
    NOT_KNOWN,
    abbreviated,
    brief_share,
    correlation,
    in_unit,
    listed,
    share,
    shared_power,
    with_error,
)
from tikmix_pipeline.report.remix_report import DomainRow, RemixReport, TaskRow

_NAMED_MOVES = 3
"""Domains that the recommendation names."""
_NOTHING = 5e-4
"""Share of the tokens below which a change is not worth a sentence."""
_TRIFLE = 1e-6
_AGREEMENT = (
    (0.9, "put the domains in almost the same order"),
    (0.7, "put the domains in a similar order"),
    (0.4, "agree on the order of domains in part only"),
    (-1.0, "hardly agree on the order of domains"),
)
"""A reading aid: correlations from which on the words are used."""
_UNSTABLE = 0.7
"""Rank stability below which a task is named."""


def recommendation(report: RemixReport) -> str:
    """Say in one sentence what to change in the coming chunk and which tasks are expected to gain."""
    chunk = f"the next {abbreviated(report.chunk_tokens)} tokens"
    moved = moved_share(report.domains)
    if moved < _NOTHING:
        scope = "that the constraints allow " if report.unconstrained_differs else ""
        return f"Keep the current mixture for {chunk}: no change {scope}is expected to serve the tasks better."
    away, towards = moves(report.domains)
    expected = expectation(report.tasks, report.gain_unit)
    return f"Move {brief_share(moved)} of {chunk} from {away} to {towards}: {expected}."


def moved_share(domains: Sequence[DomainRow]) -> float:
    """Return the share of the chunk's tokens that another domain gets under the recommended mixture."""
    return sum(max(0.0, row.recommended - row.current) for row in domains)


def moves(domains: Sequence[DomainRow]) -> tuple[str, str]:
    """Say which domains give and which receive; the three largest moves by name, the others by number."""
    by_size = sorted(domains, key=lambda row: -abs(row.recommended - row.current))
    named = {row.name for row in by_size[:_NAMED_MOVES]}
    giving = [row.name for row in by_size if row.recommended - row.current < -_TRIFLE]
    receiving = [row.name for row in by_size if row.recommended - row.current > _TRIFLE]
    return _named_or_counted(giving, named), _named_or_counted(receiving, named)


def expectation(tasks: Sequence[TaskRow], unit: str) -> str:
    """Say how many tasks are expected to gain, how many to lose, and of how many that lies within the error.

    Of one task it is said how much, in that unit of gains (`number_format.gain_unit`).
    """
    if len(tasks) == 1:
        return _expectation_of_one(tasks[0], unit)
    gaining, losing = [row for row in tasks if row.gain > 0], [row for row in tasks if row.gain < 0]
    unclear_gains, unclear_losses = (sum(row.within_error for row in rows) for rows in (gaining, losing))
    clear_losses = len(losing) - unclear_losses
    unknown = sum(not row.error_known for row in tasks)
    clauses = [f"{_how_many(len(gaining), len(tasks))} expected to gain"]
    if unclear_gains or unclear_losses:
        clauses.append(_within_error(unclear_gains, len(gaining), unclear_losses))
    if clear_losses:
        clauses.append(f"{clear_losses} {_be(clear_losses)} expected to lose")
    if unknown:
        clauses.append("no errors are known" if unknown == len(tasks) else f"the error of {unknown} is not known")
    return "; ".join(clauses)


def missing_errors(tasks: Sequence[TaskRow]) -> str:
    """Say which gains have no known error; nothing where all have one."""
    names = [row.name for row in tasks if not row.error_known]
    if len(names) == len(tasks):
        return "The errors of these gains are not known: none can be told from zero."
    return f"The error is not known for {listed(names)}." if names else ""


def cost_of_constraints(tasks: Sequence[TaskRow], unit: str) -> str:
    """Compare the gains with those of the mixture that would be chosen without constraints, by mean and by count.

    They are in that unit (`number_format.gain_unit`).
    """
    gains = _mean([row.gain for row in tasks])
    free = _mean([math.nan if row.unconstrained_gain is None else row.unconstrained_gain for row in tasks])
    if not (math.isfinite(gains) and math.isfinite(free)):
        return f"What the constraints cost is {NOT_KNOWN}."
    power = shared_power([gains, free])
    now, then = with_error(gains, None, power), with_error(free, None, power)
    told = in_unit(now, unit, power)
    more = sum(row.unconstrained_gain is not None and row.unconstrained_gain > row.gain for row in tasks)
    lost = f", so the constraints cost {share((free - gains) / free, 0)} of it" if free > gains >= 0 else ""
    would = f"be {then} instead of {told}{lost}" if now != then else f"be the same to two digits, {told}"
    if len(tasks) == 1:
        return f"Without the constraints the expected gain of the task would {would}."
    return (
        f"Without the constraints the mean expected gain of the tasks would {would}; "
        f"{more} of {len(tasks)} tasks would gain more."
    )


def rank_agreement(rank_stability: float | None, domains: int) -> str:
    """Say how well two halves of the measured text agree on so many domains, by Spearman's correlation."""
    if domains < FEWEST_PAIRS:
        return f"Whether two halves of the measured text agree on the order of {domains} domains tells next to nothing."
    if rank_stability is None or not math.isfinite(rank_stability):
        return "How far two halves of the measured text agree was not measured: the order may be chance."
    words = next((words for bound, words in _AGREEMENT if rank_stability >= bound), _AGREEMENT[-1][1])
    advice = "" if rank_stability >= _UNSTABLE else " Measuring more tokens per domain would make the order surer."
    return (
        f"Two halves of the measured text {words}: their rank correlation is {correlation(rank_stability)}, where 1 is "
        f"the same order and 0 is chance.{advice}"
    )


def least_stable(tasks: Sequence[TaskRow]) -> list[str]:
    """Return the tasks whose own order of domains is unstable, the worst first."""
    known = [(row.rank_stability, row.name) for row in tasks if row.rank_stability is not None]
    return [name for stability, name in sorted(known) if stability < _UNSTABLE]


def tokens_left(row: DomainRow) -> str:
    """Say how many tokens of a domain may be read after the coming chunk: a number, "none", or so many too many."""
    allowed = row.available_tokens * row.max_epochs
    if not math.isfinite(allowed):
        return NOT_KNOWN
    left = allowed - (row.consumed_tokens + row.chunk_tokens)
    if left < -_TRIFLE * allowed:
        return f"{abbreviated(-left)} too many"
    return abbreviated(left) if left > _TRIFLE * allowed else "none"


def _named_or_counted(names: Sequence[str], named: set[str]) -> str:
    shown = [name for name in names if name in named]
    others = len(names) - len(shown)
    if others == 1:
        # a name is as short as "1 other"
        return listed(names)
    if not shown:
        return f"{others} domains"
    return listed([*shown, f"{others} others"] if others else shown)


def _expectation_of_one(task: TaskRow, unit: str) -> str:
    if math.isnan(task.gain):
        return f"what the task {task.name} would gain is not known"
    if not task.gain:
        return f"the task {task.name} is not expected to change"
    power = shared_power([task.gain])
    size = in_unit(with_error(abs(task.gain), task.stderr, power), unit, power)
    clause = f"the task {task.name} is expected to {'gain' if task.gain > 0 else 'lose'} {size}"
    if task.within_error:
        return f"{clause}, which is within its error"
    return clause if task.error_known else f"{clause}, with an error that is not known"


def _how_many(count: int, of: int) -> str:
    if count == of:
        return f"{'both' if of == 2 else f'all {of}'} tasks are"
    if count == 0:
        return f"{'neither' if of == 2 else 'none'} of the {of} tasks is"
    return f"{count} of {of} tasks {_be(count)}"


def _within_error(gains: int, gaining: int, losses: int) -> str:
    if gains == gaining and not losses:
        return "that gain is within its error" if gaining == 1 else "every one of these gains is within its error"
    whose = listed([f"the {kind} of {count}" for kind, count in (("gain", gains), ("loss", losses)) if count])
    return f"{whose} {'are within their errors' if gains and losses else 'is within its error'}"


def _be(count: int) -> str:
    return "is" if count == 1 else "are"


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan
