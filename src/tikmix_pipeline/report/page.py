"""The report of `remix` as one page of HTML that needs nothing else: no network, no script, no font.

A table of the page has one drawing by Matplotlib, with a band for each of its rows. The page holds the drawing once,
and each row shows its own band through a window (`viewBox`), so that bars stay beside their numbers at any width of a
screen or a sheet. Colours are those of the page's style, dark or light.
"""

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tikmix_pipeline.report import number_format, sentences
from tikmix_pipeline.report.figure_style import BLUE, FEWEST_PAIRS, GREY, LIGHT, PAPER, QUIET, VERMILLION, svg_group
from tikmix_pipeline.report.number_format import gain_unit, shared_power, with_error
from tikmix_pipeline.report.remix_report import ERRORS, Cell, DomainRow, ExportRow, Reading, RemixReport, TaskRow

if TYPE_CHECKING:
    from jinja2 import Environment
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDEST_NAME = 22
"""Characters of a domain's or task's name that a table makes room for on one line."""
_LEVEL_HEADS = 5
"""Heads of columns that have room on one line, if they have no more letters than the next figure."""
_LEVEL_LETTERS = 60
_DARKEST = 0.62
"""Opacity of the strongest influence: its text is still to be read."""
_CURRENT, _RECOMMENDED, _FREE, _ROOM = GREY, BLUE, VERMILLION, LIGHT
IN_PAGE = {
    _CURRENT: "--current",
    _RECOMMENDED: "--recommended",
    _FREE: "--free",
    _ROOM: "--room",
    QUIET: "--quiet",
    PAPER: "--paper",
}
"""The palette by the names that it has in `style.css`, which gives dark screens others."""
_WIDTH = 320
"""Points, which are about pixels on a wide screen."""
_EDGE = 6
"""Points left free at either end, so that marks there are whole."""


def render_report(report: RemixReport) -> str:
    """Return the page; the same report gives the same text."""
    return environment().get_template("report.html").render(_shown(report))


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
        "gain_unit": gain_unit(report.gain_unit, power),
        "missing_errors": sentences.missing_errors(tasks),
        "gain_drawing": gain_drawing(tasks, unconstrained=differs),
        "cost_of_constraints": sentences.cost_of_constraints(tasks, report.gain_unit),
        "domains_by_supply": by_supply,
        "supply_drawing": supply_drawing(by_supply),
        "is_ranked": len(report.domains) >= FEWEST_PAIRS,
        "rank_agreement": sentences.rank_agreement(report.rank_stability, len(report.domains)),
        "least_stable": sentences.least_stable(tasks),
        "deciding": influence_table(report.deciding, task_names, domain_names),
        "measured": influence_table(report.effects, task_names, domain_names),
        "shared_notes": shared_notes(report.exports),
    }


def _used_supply(row: DomainRow) -> float:
    used = row.epochs_ahead / row.max_epochs if row.max_epochs else math.inf
    return used if math.isfinite(used) else 0.0


def shared_notes(exports: Sequence[ExportRow]) -> dict[str, list[str]]:
    """Return what more than one trainer's card would say, and whose cards these are."""
    said: dict[str, list[str]] = {}
    for export in exports:
        for note in export.notes:
            said.setdefault(note, []).append(export.trainer)
    return {note: trainers for note, trainers in said.items() if len(trainers) > 1}


@cache
def environment() -> "Environment":
    """Return what renders the templates of this room: every name escaped, and none that is missing passed over."""
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
    error: str = ""
    """As the text, in per cent of the strongest; empty where it is not known."""

    @property
    def opacity(self) -> float:
        """How much of its colour a square has."""
        return round(abs(self.shade) * _DARKEST, 3)


@dataclass(frozen=True)
class InfluenceTable:
    """The effect of every domain on every task, each task scaled by its strongest domain.

    Effects have a unit of their own for each task, so only shares of the task's strongest are comparable from one
    column to the next.
    """

    tasks: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Square, ...]], ...]
    """Name of the domain and its squares."""
    without_error: int
    """How many squares have an error that is not known."""

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
    text = number_format.effect(100 * scaled, unsure=cell.within_error)
    is_known = cell.stderr is not None and math.isfinite(cell.stderr) and strongest[task]
    error = f"± {100 * cell.stderr / strongest[task]:.0f}" if is_known and cell.stderr is not None else ""
    # in its own unit, which may be of any size
    power = 0 if cell.influence == 0 else 3 * math.floor(math.log10(abs(cell.influence)) / 3)
    figure = with_error(cell.influence, cell.stderr, power) + (f" × 10^{power}" if power else "")
    described = f"{domain} on {task}: {figure}"
    if cell.within_error:
        return Square(text, 0.0, f"{described}, not distinguishable from zero", error)
    return Square(text, scaled, described, error)


@dataclass(frozen=True)
class BandedDrawing:
    """A drawing with a band per row of a table; height of one band and width of all are points."""

    name: str
    """Its id in the page."""
    svg: str
    """It itself, for the page's `<defs>`."""
    height: int
    zero: float = math.nan
    """Where zero lies, as a share of the width; nan where bars begin there."""
    width: int = _WIDTH

    def window(self, band: int) -> str:
        """Return the `viewBox` that shows one band; the first is 0."""
        return f"0 {band * self.height} {self.width} {self.height}"


def mixture_drawing(domains: Sequence[DomainRow], *, unconstrained: bool) -> BandedDrawing:
    """Draw the current weight above the recommended one, with a mark at the unconstrained one where that is told."""
    figure, axes = _bands(len(domains), height := 26)
    rows = range(len(domains))
    axes.barh([row - 0.23 for row in rows], [d.current for d in domains], height=0.27, color=_CURRENT)
    axes.barh([row + 0.16 for row in rows], [d.recommended for d in domains], height=0.4, color=_RECOMMENDED)
    free = [math.nan if d.unconstrained is None else d.unconstrained for d in domains]
    if unconstrained:
        _diamonds(axes, free, [row + 0.16 for row in rows])
    _limit(axes, 0.0, *(d.current for d in domains), *(d.recommended for d in domains), *free)
    return BandedDrawing("drawing-mixture", _svg(figure, "drawing-mixture"), height)


def gain_drawing(tasks: Sequence[TaskRow], *, unconstrained: bool) -> BandedDrawing:
    """Draw gains as points with error bars, below a band that labels the zero line, which the page draws through.

    An error bar reaches as far either way as a gain must be to count as distinguishable from zero.
    """
    figure, axes = _bands(len(tasks) + 1, height := 29)
    free = [math.nan if task.unconstrained_gain is None else task.unconstrained_gain for task in tasks]
    ends = [end for task in tasks for end in _ends(task)]
    _limit(axes, 0.0, *ends, *free, margin=0.04)
    low, high = axes.get_xlim()
    for at, text, side in ((0.0, "0", "center"), (high, "gain →", "right"), (low, "← loss", "left")):
        if not at or abs(at) > 0.25 * (high - low):
            axes.text(at, 0.1, text, ha=side, va="center", color=QUIET, fontsize=10)
    for row, task in enumerate(tasks, start=1):
        if not math.isfinite(task.gain):
            continue
        if task.error_known:
            axes.plot(_ends(task), [row - 0.1] * 2, color=_RECOMMENDED, lw=2, solid_capstyle="butt")
        face = _RECOMMENDED if task.reading in {Reading.GAINS, Reading.LOSES} else PAPER
        axes.plot([task.gain], [row - 0.1], "o", ms=8, mfc=face, mec=_RECOMMENDED, mew=2)
    if unconstrained:
        _diamonds(axes, free, [row + 0.26 for row in range(1, len(tasks) + 1)])
    zero = round(-low / (high - low), 4)
    return BandedDrawing("drawing-gains", _svg(figure, "drawing-gains"), height, zero)


def supply_drawing(domains: Sequence[DomainRow]) -> BandedDrawing:
    """Draw what was read and what the coming chunk reads, as shares of what may be read of a domain in all."""
    figure, axes = _bands(len(domains), height := 18)
    read, chunk = [], []
    for domain in domains:
        used = domain.consumed_tokens + domain.chunk_tokens
        allowed = domain.available_tokens * domain.max_epochs
        whole = max((end for end in (allowed, used) if math.isfinite(end)), default=1.0) or 1.0
        read.append(domain.consumed_tokens / whole)
        chunk.append(domain.chunk_tokens / whole)
    rows = range(len(domains))
    axes.barh(rows, [1.0] * len(domains), height=0.55, color=_ROOM)
    axes.barh(rows, read, height=0.55, color=_CURRENT)
    # the outline shows a chunk that is a sliver of the whole
    axes.barh(rows, chunk, left=read, height=0.55, color=_RECOMMENDED, edgecolor=_RECOMMENDED, lw=1)
    _limit(axes, 0.0, 1.0)
    return BandedDrawing("drawing-supply", _svg(figure, "drawing-supply"), height)


def _bands(count: int, height: int) -> "tuple[Figure, Axes]":
    """Return a figure without frame or margin, in which row r of a table is at y = r."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH / 72, count * height / 72))
    figure.patch.set_visible(False)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_ylim(count - 0.5, -0.5)
    return figure, axes


def _limit(axes: "Axes", *values: float, margin: float = 0.0) -> None:
    """Let the width hold all finite values, a margin that is a share of their range, and whole marks at either end."""
    finite = [value for value in values if math.isfinite(value)]
    low, high = min(finite), max(finite)
    free = margin * (high - low) if high > low else 1.0
    low, high = (low - free, high + free) if margin else (low, high if high > low else 1.0)
    edge = _EDGE / (_WIDTH - 2 * _EDGE) * (high - low)
    axes.set_xlim(low - edge, high + edge)


def _ends(task: TaskRow) -> tuple[float, float]:
    reach = ERRORS * task.stderr if task.stderr is not None and task.error_known else 0.0
    return task.gain - reach, task.gain + reach


def _diamonds(axes: "Axes", values: Sequence[float], rows: Iterable[float]) -> None:
    for value, row in zip(values, rows, strict=True):
        if math.isfinite(value):
            axes.plot([value], [row], "D", ms=6, mfc=_FREE, mec=PAPER, mew=0.8)


def _svg(figure: "Figure", name: str) -> str:
    for artist in figure.axes[0].get_children():
        artist.set_clip_on(False)
    return svg_group(figure, name, IN_PAGE)
