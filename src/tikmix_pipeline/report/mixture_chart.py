"""The mixture as paired bars: current above recommended, and a mark where it would lie without constraints."""

from collections.abc import Sequence
from dataclasses import dataclass

from tikmix_pipeline.report.content import DomainRow
from tikmix_pipeline.report.notation import points, share
from tikmix_pipeline.report.scale import Scale, Span


@dataclass(frozen=True)
class MixtureLine:
    """One domain of the chart, numbers as they are written."""

    name: str
    current: str
    recommended: str
    change: str
    unconstrained: str
    held_by: str
    current_bar: Span
    recommended_bar: Span
    unconstrained_at: float | None
    described: str


def mixture_lines(domains: Sequence[DomainRow]) -> list[MixtureLine]:
    """Return the lines, the heaviest recommended domain first; the widest bar fills the chart."""
    widest = max((max(row.current, row.recommended, row.unconstrained or 0.0) for row in domains), default=1.0)
    scale = Scale(0.0, widest or 1.0)
    return [_line(row, scale) for row in sorted(domains, key=lambda row: -row.recommended)]


def _line(row: DomainRow, scale: Scale) -> MixtureLine:
    current, recommended, unconstrained = share(row.current), share(row.recommended), share(row.unconstrained)
    free = "" if row.unconstrained is None else f", without constraints {unconstrained}"
    return MixtureLine(
        name=row.name,
        current=current,
        recommended=recommended,
        change=points(row.recommended - row.current),
        unconstrained=unconstrained,
        held_by=row.held_by,
        current_bar=scale.span(0.0, row.current),
        recommended_bar=scale.span(0.0, row.recommended),
        unconstrained_at=None if row.unconstrained is None else scale.mark(row.unconstrained),
        described=f"{row.name}: current {current}, recommended {recommended}{free}",
    )
