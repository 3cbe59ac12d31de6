"""How every figure looks: colours, layout, legends, heat maps, and SVG for pages. Drawn without a display."""

import io
import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.container import BarContainer
    from matplotlib.figure import Figure
    from numpy.typing import NDArray
    from pandas import DataFrame

BLUE, VERMILLION, ORANGE, GREEN = "#0072b2", "#d55e00", "#e69f00", "#009e73"
SKY, PURPLE, YELLOW, GREY = "#56b4e9", "#cc79a7", "#f0e442", "#9aa4ae"
"""Okabe and Ito's colours, told apart by colour-blind readers, and a grey. In figures and pages alike blue is what was
decided, what helps and what was measured, vermillion what harms, grey what is current or no choice of ours."""
QUIET, LIGHT, PAPER = "#57606a", "#e4e8ec", "#fffffe"
"""Of text beside the matter, of what fills, and of the ground."""

_HUES = (BLUE, ORANGE, GREEN, VERMILLION, SKY, PURPLE, YELLOW, GREY)
_LIGHTER, _DARKER = 0.55, -0.45
_STRONGEST = 0.8
"""How much of its hue the strongest effect has: its text is still to be read."""
_MARKERS = "osD^vP"
_LUMINANCE = (0.299, 0.587, 0.114)
_LETTERS_PER_INCH = 11
"""Of a headline."""
FEWEST_PAIRS = 5
"""Points that a correlation needs to be told."""

Place = Literal["outside right center", "outside right lower"]


def colours(count: int) -> Sequence[Any]:
    """Return `count` colours that differ, up to 24: the palette, then lighter, then darker."""
    from matplotlib.colors import to_rgb

    shaded = [_shaded(to_rgb(hue), by) for by in (0.0, _LIGHTER, _DARKER) for hue in _HUES]
    return [shaded[index % len(shaded)] for index in range(count)]


def _shaded(colour: tuple[float, float, float], by: float) -> tuple[float, float, float]:
    """Mix with white by a positive share, with black by a negative one."""
    red, green, blue = (part + by * (1 - part) if by > 0 else part * (1 + by) for part in colour)
    return red, green, blue


def ink_on(colour: Any) -> str:
    """Return the colour of text that is to be read on another."""
    from matplotlib.colors import to_rgb

    light = sum(weight * part for weight, part in zip(_LUMINANCE, to_rgb(colour), strict=True))
    return "white" if light < 0.4 else "black"


def told_correlation(value: float, pairs: int, decimals: int = 2) -> str:
    """Write a correlation, unless it is of too few points to say anything."""
    if pairs < FEWEST_PAIRS:
        return f"not told ({pairs} points)"
    return "undefined" if math.isnan(value) else f"{value:.{decimals}f}"


def arm_styles(arms: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return colour, line and marker of each arm, by its place; up to 24 have a colour of their own."""
    return {
        arm: {
            "color": colour,
            "linestyle": "-" if place < len(_HUES) else "--",
            "marker": _MARKERS[place % len(_MARKERS)],
        }
        for place, (arm, colour) in enumerate(zip(arms, colours(len(arms)), strict=True))
    }


def headline(figure: "Figure", title: str, origin: str = "") -> None:
    """Say above all panels what a figure shows, and below that of which experiment and round, in lines that fit."""
    fits = int(figure.get_figwidth() * _LETTERS_PER_INCH)
    lines = [wrapped for line in [*title.split("\n"), origin] for wrapped in textwrap.wrap(line, fits)]
    figure.suptitle("\n".join(lines), fontsize=11)


def cut_interval(axes: "Axes", low: float, high: float, at: float, limits: tuple[float, float], **look: Any) -> None:
    """Draw an interval along x at a height, with an arrow where it goes on beyond the axis."""
    first, last = limits
    axes.plot([max(low, first), min(high, last)], [at, at], lw=2, solid_capstyle="butt", **look)
    for end, is_cut, marker in ((first, low < first, "<"), (last, high > last, ">")):
        if is_cut:
            axes.plot([end], [at], marker=marker, ms=7, clip_on=False, **look)


def new_figure(width: float, height: float) -> "Figure":
    """Return an empty figure of so many inches, whose panels make room for their labels."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def panel_grid(
    count: int, columns: int, panel: tuple[float, float], margin: tuple[float, float], *, shared: bool = False
) -> "tuple[Figure, list[Axes]]":
    """Return a figure with `count` panels in rows of at most so many columns.

    Width and height of a panel, and of the figure beyond its panels, are inches. Panels that are `shared` have the same
    scales, labelled at the edges alone.
    """
    columns = min(columns, count)
    lines = -(-count // columns)
    figure = new_figure(panel[0] * columns + margin[0], panel[1] * lines + margin[1])
    panels = list(figure.subplots(lines, columns, squeeze=False, sharex=shared, sharey=shared).flatten())
    for axes in panels[count:]:
        axes.set_axis_off()
    return figure, panels[:count]


def explanation(reason: str) -> "Figure":
    """Say why there is nothing to draw: a run's figures are always there."""
    figure = new_figure(6.0, 1.2)
    figure.text(0.5, 0.5, reason, ha="center", va="center")
    return figure


def legend_beside(
    figure: "Figure", axes: "Axes", *, upwards: bool = False, place: Place = "outside right center"
) -> None:
    """Name what a panel shows to the right of all panels; `upwards` as bars are stacked, from the last to the first."""
    handles, names = axes.get_legend_handles_labels()
    order = slice(None, None, -1 if upwards else 1)
    figure.legend(handles[order], names[order], loc=place, frameon=False, fontsize=8)


def stacked_bars(axes: "Axes", shares: "DataFrame", width: float) -> "list[BarContainer]":
    """Draw a bar per row of shares, with a part for each column in a colour of its own; return the parts."""
    bottom = 0 * shares.iloc[:, 0]
    parts = []
    for (name, share), colour in zip(shares.items(), colours(shares.shape[1]), strict=True):
        parts.append(axes.bar(shares.index, share, bottom=bottom, color=colour, width=width, label=name))
        bottom = bottom + share
    return parts


def heat_map(
    axes: "Axes",
    values: "NDArray[Any]",
    texts: Sequence[Sequence[str]],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    label: str,
    **colouring: Any,
) -> None:
    """Draw a table of figures, of named rows and columns, as coloured squares, each with its text.

    `label` names the scale of the colours, which are `cmap`, `vmin` and `vmax` as Matplotlib's `imshow` takes them;
    without one no scale is drawn.
    """
    image = axes.imshow(values, aspect="auto", **colouring)
    axes.set_xticks(range(len(columns)), columns, rotation=30, ha="right", rotation_mode="anchor", fontsize=9)
    axes.set_yticks(range(len(rows)), rows, fontsize=9)
    shades: Any = image.to_rgba(values)
    for row, line in enumerate(texts):
        for column, text in enumerate(line):
            ink = ink_on(shades[row, column])
            axes.text(column, row, text, ha="center", va="center", color=ink, fontsize=8, linespacing=1.05)
    if label:
        axes.figure.colorbar(image, ax=axes, label=label)


def harm_and_help() -> "Colormap":
    """Return the colours of effects from -1 to 1: vermillion harms, blue helps, as on the pages."""
    from matplotlib.colors import LinearSegmentedColormap, to_hex, to_rgb

    harm, help_ = (to_hex(_shaded(to_rgb(colour), 1 - _STRONGEST)) for colour in (VERMILLION, BLUE))
    return LinearSegmentedColormap.from_list("harm and help", [harm, "white", help_], N=257)


def amounts() -> "Colormap":
    """Return the colours of what has no sign, from nothing to much."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("amounts", ["white", BLUE])


def svg_group(figure: "Figure", name: str, page_colours: Mapping[str, str]) -> str:
    """Return what a figure shows as a `<g id="name">` to put inside a page's SVG; equal figures give equal text.

    Text stays text. Coordinates are points (1/72 inch) from the upper left corner. No other part of the page may have
    the name. `page_colours` gives colours the page's own property to be used instead: `{"#0072b2": "--recommended"}`.
    """
    from matplotlib import rc_context

    buffer = io.StringIO()
    # ids that are referred to depend on the salt alone, so they repeat from run to run, and not in a page
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    drawn = buffer.getvalue()
    drawn = drawn[drawn.index('<g id="figure_1">') : drawn.rindex("</g>") + len("</g>")]
    # nothing refers to ids like axes_1, which would repeat in a page of several figures
    drawn = re.sub(r' id="[a-z0-9.]+_\d+"', "", drawn).replace("<g>", f'<g id="{name}">', 1)
    drawn = re.sub(r"\s*\n\s*", " ", drawn).replace("> <", "><")
    for colour, name_in_page in page_colours.items():
        drawn = drawn.replace(colour, f"var({name_in_page})")
    return drawn
