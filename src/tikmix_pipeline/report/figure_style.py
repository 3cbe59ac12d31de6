"""How every figure looks: colours, layout, legends, heat maps, and SVG for pages. Drawn without a display."""

import io
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.container import BarContainer
    from matplotlib.figure import Figure
    from numpy.typing import NDArray
    from pandas import DataFrame

_MARKERS = "osD^vP"

Place = Literal["outside right center", "outside right lower"]


def colours(count: int) -> Sequence[Any]:
    """Return `count` colours that differ, up to 20."""
    from matplotlib import colormaps

    palette = colormaps["tab10" if count <= 10 else "tab20"]
    return [palette(index % palette.N) for index in range(count)]


def arm_styles(arms: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return colour, line and marker of each arm, by its place; up to 15 have a colour of their own."""
    from matplotlib import colormaps

    palette = [*map(colormaps["tab10"], range(10)), *map(colormaps["tab20b"], range(0, 20, 4))]
    return {
        arm: {
            "color": palette[place % len(palette)],
            "linestyle": "-" if place < 10 else "--",
            "marker": _MARKERS[place % len(_MARKERS)],
        }
        for place, arm in enumerate(arms)
    }


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

    `label` names the scale of the colours, which are `cmap`, `vmin` and `vmax` as Matplotlib's `imshow` takes them.
    """
    image = axes.imshow(values, aspect="auto", **colouring)
    axes.set_xticks(range(len(columns)), columns, rotation=30, ha="right", rotation_mode="anchor", fontsize=9)
    axes.set_yticks(range(len(rows)), rows, fontsize=9)
    for row, line in enumerate(texts):
        for column, text in enumerate(line):
            dark = abs(values[row, column]) > 0.65 * colouring["vmax"]
            axes.text(column, row, text, ha="center", va="center", color="white" if dark else "black", fontsize=8)
    axes.figure.colorbar(image, ax=axes, label=label)


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
