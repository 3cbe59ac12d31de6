"""The sentence that the report opens with: what to do, and what to expect of it."""

import math
from collections.abc import Sequence

from tikmix_pipeline.report.content import DomainRow, RemixReport, TaskRow
from tikmix_pipeline.report.notation import brief_share, large, listed, nats, power_of, with_error
from tikmix_pipeline.report.verdict import error_known, within_error

NAMED_MOVES = 3
"""Domains that the headline names."""

_NOTHING = 5e-4
"""Share of the tokens below which a change is not worth a headline."""
_TRIFLE = 1e-6


def headline(report: RemixReport) -> str:
    """Say in one sentence what to change in the coming chunk and which tasks are expected to gain."""
    chunk = f"the next {large(report.chunk_tokens)} tokens"
    moved = moved_share(report.domains)
    if moved < _NOTHING:
        scope = "that the constraints allow " if report.unconstrained_differs else ""
        return f"Keep the current mixture for {chunk}: no change {scope}is expected to serve the tasks better."
    away, towards = moves(report.domains)
    return f"Move {brief_share(moved)} of {chunk} from {away} to {towards}: {expectation(report.tasks)}."


def moved_share(domains: Sequence[DomainRow]) -> float:
    """Return the share of the chunk's tokens that another domain gets under the recommended mixture."""
    return sum(max(0.0, row.recommended - row.current) for row in domains)


def moves(domains: Sequence[DomainRow]) -> tuple[str, str]:
    """Say which domains give and which receive; the three largest moves by name, the others by number."""
    by_size = sorted(domains, key=lambda row: -abs(row.recommended - row.current))
    named = {row.name for row in by_size[:NAMED_MOVES]}
    giving = [row.name for row in by_size if row.recommended - row.current < -_TRIFLE]
    receiving = [row.name for row in by_size if row.recommended - row.current > _TRIFLE]
    return _side(giving, named), _side(receiving, named)


def expectation(tasks: Sequence[TaskRow]) -> str:
    """Say how many tasks are expected to gain, how many to lose, and of how many that lies within the error."""
    if len(tasks) == 1:
        return _single(tasks[0])
    gaining, losing = [row for row in tasks if row.gain > 0], [row for row in tasks if row.gain < 0]
    unclear = sum(within_error(row.gain, row.stderr) for row in gaining)
    unclear_losses = sum(within_error(row.gain, row.stderr) for row in losing)
    clear_losses = len(losing) - unclear_losses
    unknown = sum(not error_known(row.stderr) for row in tasks)
    clauses = [f"{_how_many(len(gaining), len(tasks))} expected to gain"]
    if unclear or unclear_losses:
        clauses.append(_within(unclear, len(gaining), unclear_losses))
    if clear_losses:
        clauses.append(f"{clear_losses} {_be(clear_losses)} expected to lose")
    if unknown:
        clauses.append("no errors are known" if unknown == len(tasks) else f"the error of {unknown} is not known")
    return "; ".join(clauses)


def _side(names: Sequence[str], named: set[str]) -> str:
    shown = [name for name in names if name in named]
    others = len(names) - len(shown)
    if others == 1:
        # a name is as short as "1 other"
        return listed(names)
    if not shown:
        return f"{others} domains"
    return listed([*shown, f"{others} others"] if others else shown)


def _single(task: TaskRow) -> str:
    if math.isnan(task.gain):
        return f"what the task {task.name} would gain is not known"
    if not task.gain:
        return f"the task {task.name} is not expected to change"
    power = power_of([task.gain])
    size = with_error(abs(task.gain), task.stderr, power)
    clause = f"the task {task.name} is expected to {'gain' if task.gain > 0 else 'lose'} {size} {nats(power)}"
    if within_error(task.gain, task.stderr):
        return f"{clause}, which is within its error"
    return clause if error_known(task.stderr) else f"{clause}, with an error that is not known"


def _how_many(count: int, of: int) -> str:
    if count == of:
        return f"{'both' if of == 2 else f'all {of}'} tasks are"
    if count == 0:
        return f"{'neither' if of == 2 else 'none'} of the {of} tasks is"
    return f"{count} of {of} tasks {_be(count)}"


def _within(gains: int, gaining: int, losses: int) -> str:
    if gains == gaining and not losses:
        return "that gain is within its error" if gaining == 1 else "every one of these gains is within its error"
    whose = listed([f"the {kind} of {count}" for kind, count in (("gain", gains), ("loss", losses)) if count])
    return f"{whose} {'are within their errors' if gains and losses else 'is within its error'}"


def _be(count: int) -> str:
    return "is" if count == 1 else "are"
