"""The drawings in the tables of the report of `remix`, made by Matplotlib.

A table has one drawing with a band for each of its rows. The page holds the drawing once, and each row shows its own
band through a window (`viewBox`), so that bars stay beside their numbers at any width of a screen or a sheet. Colours
are those of the page's style, dark or light.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tikmix_pipeline.report.figure_style import svg_group
from tikmix_pipeline.report.remix_report import ERRORS, DomainRow, Reading, TaskRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours: told apart by colour-blind readers, and by lightness in grey print
_CURRENT, _RECOMMENDED, _FREE = "#9aa4ae", "#0072b2", "#d55e00"
_ROOM, _QUIET, _PAPER = "#e4e8ec", "#57606a", "#fffffe"
_IN_PAGE = {
    _CURRENT: "--current",
    _RECOMMENDED: "--recommended",
    _FREE: "--free",
    _ROOM: "--room",
    _QUIET: "--quiet",
    _PAPER: "--paper",
}
_WIDTH = 320
"""Points, which are about pixels on a wide screen."""
_EDGE = 6
"""Points left free at either end, so that marks there are whole."""


@dataclass(frozen=True)
class BandedDrawing:
    """A drawing with a band per row of a table.

    Attributes:
        name: its id in the page.
        svg: the drawing, for the page's `<defs>`.
        height: points of one band.
        zero: where zero lies, as a share of the width; nan where bars begin there.
        width: points of all bands.
    """

    name: str
    svg: str
    height: int
    zero: float = math.nan
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
            axes.text(at, 0.1, text, ha=side, va="center", color=_QUIET, fontsize=10)
    for row, task in enumerate(tasks, start=1):
        if not math.isfinite(task.gain):
            continue
        if task.error_known:
            axes.plot(_ends(task), [row - 0.1] * 2, color=_RECOMMENDED, lw=2, solid_capstyle="butt")
        face = _RECOMMENDED if task.reading in {Reading.GAINS, Reading.LOSES} else _PAPER
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
            axes.plot([value], [row], "D", ms=6, mfc=_FREE, mec=_PAPER, mew=0.8)


def _svg(figure: "Figure", name: str) -> str:
    for artist in figure.axes[0].get_children():
        artist.set_clip_on(False)
    return svg_group(figure, name, _IN_PAGE)
