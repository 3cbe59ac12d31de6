"""The influence of every domain on every task as a heat map, each task scaled by its strongest domain.

Influence has a unit of its own for each task, so only shares of the task's strongest are comparable from one column to
the next.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tikmix_pipeline.report.content import Cell
from tikmix_pipeline.report.notation import minus, with_error
from tikmix_pipeline.report.verdict import error_known, within_error

SHADES = 4
"""Shades of either colour."""

_LEVEL_HEADS = 5
_LEVEL_LETTERS = 60


@dataclass(frozen=True)
class Square:
    """One square: what it says, its shade from -`SHADES` to `SHADES`, and all of it in words."""

    text: str
    shade: int
    described: str


@dataclass(frozen=True)
class InfluenceMap:
    """Squares by domain and task.

    Attributes:
        tasks: heads of the columns.
        rows: name of the domain and its squares.
        without_error: squares whose error is not known.
    """

    tasks: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Square, ...]], ...]
    without_error: int

    @property
    def upright(self) -> bool:
        """Whether the heads of the columns need more room than the columns have."""
        return len(self.tasks) > _LEVEL_HEADS or sum(map(len, self.tasks)) > _LEVEL_LETTERS


def influence_map(cells: Sequence[Cell], tasks: Sequence[str], domains: Sequence[str]) -> InfluenceMap | None:
    """Lay out the squares, None where nothing was measured."""
    measured = {
        (cell.task, cell.domain): cell
        for cell in cells
        if cell.task in tasks and cell.domain in domains and math.isfinite(cell.influence)
    }
    if not measured:
        return None
    strongest: dict[str, float] = {}
    for cell in measured.values():
        strongest[cell.task] = max(strongest.get(cell.task, 0.0), abs(cell.influence))
    rows = tuple(
        (domain, tuple(_square(measured.get((task, domain)), strongest, task, domain) for task in tasks))
        for domain in domains
    )
    return InfluenceMap(
        tasks=tuple(tasks),
        rows=rows,
        without_error=sum(not error_known(cell.stderr) for cell in measured.values()),
    )


def _square(cell: Cell | None, strongest: Mapping[str, float], task: str, domain: str) -> Square:
    if cell is None:
        return Square("·", 0, f"{domain} on {task}: not measured")
    scaled = cell.influence / strongest[task] if strongest[task] else 0.0
    unclear = within_error(cell.influence, cell.stderr)
    text = minus(f"{scaled * 100:.0f}") + ("?" if unclear else "")
    shade = 0 if unclear else int(math.copysign(math.ceil(abs(scaled) * SHADES), scaled))
    figure = _figure(cell)
    return Square(text, shade, f"{domain} on {task}: {figure}{', not distinguishable from zero' if unclear else ''}")


def _figure(cell: Cell) -> str:
    """Write the influence in its own unit, which may be of any size."""
    power = 0 if cell.influence == 0 else 3 * math.floor(math.log10(abs(cell.influence)) / 3)
    suffix = f" × 10^{power}" if power else ""
    return f"{with_error(cell.influence, cell.stderr, power)}{suffix}"
