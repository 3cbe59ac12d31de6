"""How much data each domain has: read so far, read in the coming chunk, left until the allowed repetition."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tikmix_pipeline.report.content import DomainRow
from tikmix_pipeline.report.notation import NOT_KNOWN, large, times
from tikmix_pipeline.report.scale import Scale, Span

_ROUNDING = 1e-6


@dataclass(frozen=True)
class SupplyLine:
    """One domain of the chart, numbers as they are written; the bars share the width of what may be read in all."""

    name: str
    available: str
    size_source: str
    consumed: str
    chunk: str
    left: str
    epochs: str
    max_epochs: str
    consumed_bar: Span
    chunk_bar: Span
    described: str


def supply_lines(domains: Sequence[DomainRow]) -> list[SupplyLine]:
    """Return the lines, the domain that comes closest to its limit first."""
    return [_line(row) for row in sorted(domains, key=lambda row: -_used(row))]


def _used(row: DomainRow) -> float:
    used = row.epochs / row.max_epochs if row.max_epochs else math.inf
    return used if math.isfinite(used) else 0.0


def _line(row: DomainRow) -> SupplyLine:
    read = row.consumed_tokens + row.chunk_tokens
    allowed = row.available_tokens * row.max_epochs
    ends = [end for end in (allowed, read) if math.isfinite(end)]
    scale = Scale(0.0, max(ends, default=1.0) or 1.0)
    left = _left(allowed - read, allowed) if math.isfinite(allowed) else NOT_KNOWN
    epochs, most = times(row.epochs), times(row.max_epochs)
    return SupplyLine(
        name=row.name,
        available=large(row.available_tokens),
        size_source=row.size_source,
        consumed=large(row.consumed_tokens),
        chunk=large(row.chunk_tokens),
        left=left,
        epochs=epochs,
        max_epochs=most,
        consumed_bar=scale.span(0.0, row.consumed_tokens),
        chunk_bar=scale.span(row.consumed_tokens, read),
        described=f"{row.name}: read {epochs} times by the end of the chunk, allowed: {most}, left: {left}",
    )


def _left(tokens: float, allowed: float) -> str:
    if tokens < -_ROUNDING * allowed:
        return f"{large(-tokens)} too many"
    return large(max(tokens, 0.0)) if tokens > _ROUNDING * allowed else "none"
