"""What the constraints bind, and what they cost in expected gain."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tikmix_pipeline.report.content import RemixReport, TaskRow
from tikmix_pipeline.report.notation import NOT_KNOWN, nats, power_of, share, with_error


@dataclass(frozen=True)
class Held:
    """What is held by which constraint, in words."""

    kind: str
    name: str
    held_by: str


def held(report: RemixReport) -> list[Held]:
    """Return the domains, then the tasks, that a constraint holds."""
    domains = [Held("domain", row.name, row.held_by) for row in report.domains]
    tasks = [Held("task", row.name, row.held_by) for row in report.tasks]
    return [one for one in (*domains, *tasks) if one.held_by]


def cost_sentence(tasks: Sequence[TaskRow]) -> str:
    """Compare the gains with those of the mixture that would be chosen without constraints, by mean and by count."""
    gains = _mean([row.gain for row in tasks])
    free = _mean([math.nan if row.unconstrained_gain is None else row.unconstrained_gain for row in tasks])
    if not (math.isfinite(gains) and math.isfinite(free)):
        return f"What the constraints cost is {NOT_KNOWN}."
    power = power_of([gains, free])
    unit, now, then = nats(power), with_error(gains, None, power), with_error(free, None, power)
    more = sum(row.unconstrained_gain is not None and row.unconstrained_gain > row.gain for row in tasks)
    lost = f", so the constraints cost {share((free - gains) / free, 0)} of it" if free > gains >= 0 else ""
    would = f"be {then} instead of {now} {unit}{lost}" if now != then else f"be the same to two digits, {now} {unit}"
    if len(tasks) == 1:
        return f"Without the constraints the expected gain of the task would {would}."
    return (
        f"Without the constraints the mean expected gain of the tasks would {would}; "
        f"{more} of {len(tasks)} tasks would gain more."
    )


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan
