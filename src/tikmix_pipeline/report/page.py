"""The report of `remix` as one page of HTML that needs nothing else: no network, no script, no font."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tikmix_pipeline.report import number_format, sentences
from tikmix_pipeline.report.number_format import gain_unit, shared_power, true_minus, with_error
from tikmix_pipeline.report.page_drawings import gain_drawing, mixture_drawing, supply_drawing
from tikmix_pipeline.report.remix_report import Cell, DomainRow, Reading, RemixReport

if TYPE_CHECKING:
    from jinja2 import Environment

_WIDEST_NAME = 22
"""Characters of a domain's or task's name that a table makes room for on one line."""
_LEVEL_HEADS = 5
"""Heads of columns that have room on one line, if they have no more letters than the next figure."""
_LEVEL_LETTERS = 60
_DARKEST = 0.62
"""Opacity of the strongest influence: its text is still to be read."""


def render_report(report: RemixReport) -> str:
    """Return the page; the same report gives the same text."""
    return _environment().get_template("report.html").render(_shown(report))


def page_digest() -> str:
    """Return the SHA-256 of the templates: another one, another page."""
    digest = hashlib.sha256()
    for template in sorted((Path(__file__).parent / "templates").iterdir()):
        digest.update(template.read_bytes())
    return digest.hexdigest()


def _shown(report: RemixReport) -> dict[str, Any]:
    """Return what the template shows and cannot work out itself."""
    tasks = report.tasks
    task_names, domain_names = [row.name for row in tasks], [row.name for row in report.domains]
    by_weight = sorted(report.domains, key=lambda row: -row.recommended)
    by_supply = sorted(report.domains, key=lambda row: -_used_supply(row))
    differs = bool(report.unconstrained_differs)
    free_gains = [row.unconstrained_gain for row in tasks if row.unconstrained_gain is not None]
    power = shared_power([*(row.gain for row in tasks), *free_gains])
    return {
        "report": report,
        "name_width": min(max(map(len, (*task_names, *domain_names)), default=1) + 2, _WIDEST_NAME),
        "recommendation": sentences.recommendation(report),
        "moved": sentences.moved_share(report.domains),
        "clear_gains": sum(row.error_known and row.reading is Reading.GAINS for row in tasks),
        "cost_share": report.cost.flops / report.cost.chunk_flops,
        "domains_by_weight": by_weight,
        "mixture_drawing": mixture_drawing(by_weight, unconstrained=differs),
        "power": power,
        "gain_unit": gain_unit(power),
        "missing_errors": sentences.missing_errors(tasks),
        "gain_drawing": gain_drawing(tasks, unconstrained=differs),
        "cost_of_constraints": sentences.cost_of_constraints(tasks),
        "domains_by_supply": by_supply,
        "supply_drawing": supply_drawing(by_supply),
        "rank_agreement": sentences.rank_agreement(report.rank_stability),
        "least_stable": sentences.least_stable(tasks),
        "influence": influence_table(report.cells, task_names, domain_names),
    }


def _used_supply(row: DomainRow) -> float:
    used = row.epochs / row.max_epochs if row.max_epochs else math.inf
    return used if math.isfinite(used) else 0.0


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader(__package__),
        # names of domains and tasks are the user's: they may hold anything
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    written = ("abbreviated", "correlation", "listed", "operations", "percentage_points", "share", "times", "to_error")
    environment.filters.update({name: getattr(number_format, name) for name in (*written, "with_error")})
    environment.filters["tokens_left"] = sentences.tokens_left
    return environment


@dataclass(frozen=True)
class Square:
    """One square: what it says, its shade from -1 (most harm) to 1 (most help), and all of it in words."""

    text: str
    shade: float
    described: str

    @property
    def opacity(self) -> float:
        """How much of its colour a square has."""
        return round(abs(self.shade) * _DARKEST, 3)


@dataclass(frozen=True)
class InfluenceTable:
    """The influence of every domain on every task, each task scaled by its strongest domain.

    Influence has a unit of its own for each task, so only shares of the task's strongest are comparable from one column
    to the next.

    Attributes:
        tasks: heads of the columns.
        rows: name of the domain and its squares.
        without_error: how many squares have an error that is not known.
    """

    tasks: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Square, ...]], ...]
    without_error: int

    @property
    def upright(self) -> bool:
        """Whether the heads of the columns need more room than the columns have."""
        return len(self.tasks) > _LEVEL_HEADS or sum(map(len, self.tasks)) > _LEVEL_LETTERS


def influence_table(cells: Sequence[Cell], tasks: Sequence[str], domains: Sequence[str]) -> InfluenceTable | None:
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
    without_error = sum(cell.stderr is None or not math.isfinite(cell.stderr) for cell in measured.values())
    return InfluenceTable(tuple(tasks), rows, without_error)


def _square(cell: Cell | None, strongest: Mapping[str, float], task: str, domain: str) -> Square:
    if cell is None:
        return Square("·", 0.0, f"{domain} on {task}: not measured")
    scaled = cell.influence / strongest[task] if strongest[task] else 0.0
    text = true_minus(f"{scaled * 100:.0f}")
    # in its own unit, which may be of any size
    power = 0 if cell.influence == 0 else 3 * math.floor(math.log10(abs(cell.influence)) / 3)
    figure = with_error(cell.influence, cell.stderr, power) + (f" × 10^{power}" if power else "")
    described = f"{domain} on {task}: {figure}"
    if cell.within_error:
        return Square(f"{text}?", 0.0, f"{described}, not distinguishable from zero")
    return Square(text, scaled, described)
