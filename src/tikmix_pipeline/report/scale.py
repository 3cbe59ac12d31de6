"""Where on a chart's width a value lies."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

_MARGIN = 0.04


@dataclass(frozen=True)
class Scale:
    """A straight scale from the chart's left edge to its right one."""

    low: float
    high: float

    @classmethod
    def around(cls, values: Iterable[float]) -> "Scale":
        """Return a scale that holds all finite values and zero, with a margin at either end that needs one."""
        finite = [0.0, *(value for value in values if math.isfinite(value))]
        low, high = min(finite), max(finite)
        margin = _MARGIN * (high - low) or 1.0
        return cls(low - margin, high + margin)

    def at(self, value: float) -> float:
        """Return the position of a value, in per cent of the width; outside is the edge, and what is no number zero."""
        if math.isnan(value):
            return self.at(0.0)
        return round(min(max((value - self.low) / (self.high - self.low), 0.0), 1.0) * 100, 2)

    def mark(self, value: float) -> float | None:
        """Return the position of a value to mark, None where there is no number to mark."""
        return self.at(value) if math.isfinite(value) else None

    def span(self, start: float, end: float) -> "Span":
        """Return the stretch between two values."""
        left = self.at(start)
        return Span(left, round(self.at(end) - left, 2))


@dataclass(frozen=True)
class Span:
    """A stretch of a chart, in per cent of its width."""

    left: float
    width: float
