"""Expected gains as points with error bars around a common zero line."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tikmix_pipeline.report.content import TaskRow
from tikmix_pipeline.report.notation import NOT_KNOWN, listed, nats, power_of, to_error, with_error
from tikmix_pipeline.report.scale import Scale, Span
from tikmix_pipeline.report.verdict import ERRORS, Verdict, error_known, verdict_of


@dataclass(frozen=True)
class GainLine:
    """One task of the chart, numbers as they are written; `bar` is None where the error is not known."""

    name: str
    gain: str
    unconstrained: str
    verdict: Verdict
    error_known: bool
    held_by: str
    at: float | None
    unconstrained_at: float | None
    bar: Span | None
    described: str

    @property
    def reading(self) -> str:
        """What the gain says, in words."""
        return self.verdict if self.error_known else f"{self.verdict}; its error is not known"


@dataclass(frozen=True)
class GainChart:
    """All tasks on one scale.

    Attributes:
        lines: one per task, in the user's order.
        zero_at: where no gain lies, in per cent of the width.
        unit: of the numbers.
    """

    lines: tuple[GainLine, ...]
    zero_at: float
    unit: str

    @property
    def clear(self) -> int:
        """How many gains are known to be above zero."""
        return sum(line.error_known and line.verdict is Verdict.GAINS for line in self.lines)

    @property
    def without_error(self) -> str:
        """Which gains have no known error, as a sentence; empty where all have one."""
        names = [line.name for line in self.lines if not line.error_known]
        if len(names) == len(self.lines):
            return "The errors of these gains are not known: none can be told from zero."
        return f"The error is not known for {listed(names)}." if names else ""


def gain_chart(tasks: Sequence[TaskRow]) -> GainChart:
    """Lay out the gains; an error bar reaches as far either way as a gain must be to count."""
    free = [row.unconstrained_gain for row in tasks if row.unconstrained_gain is not None]
    scale = Scale.around([*(end for row in tasks for end in _ends(row)), *free])
    power = power_of([*(row.gain for row in tasks), *free])
    return GainChart(tuple(_line(row, scale, power) for row in tasks), scale.at(0.0), nats(power))


def _ends(row: TaskRow) -> tuple[float, float]:
    reach = ERRORS * row.stderr if row.stderr is not None and error_known(row.stderr) else 0.0
    return row.gain - reach, row.gain + reach


def _line(row: TaskRow, scale: Scale, power: int) -> GainLine:
    verdict = verdict_of(row.gain, row.stderr)
    gain, free = with_error(row.gain, row.stderr, power), row.unconstrained_gain
    return GainLine(
        name=row.name,
        gain=gain,
        unconstrained=NOT_KNOWN if free is None else to_error(free, row.stderr, power),
        verdict=verdict,
        error_known=error_known(row.stderr),
        held_by=row.held_by,
        at=scale.mark(row.gain),
        unconstrained_at=None if free is None else scale.mark(free),
        bar=scale.span(*_ends(row)) if math.isfinite(row.gain) and error_known(row.stderr) else None,
        described=f"{row.name}: {gain} {nats(power)}, {verdict}",
    )
