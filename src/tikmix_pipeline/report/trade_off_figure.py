"""What tasks gain under each arm of a comparison, against what held-out text of the training domains pays for it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tikmix_pipeline.report.comparison_scores import HELDOUT, IN_DOMAIN, MEAN_OF_SPLIT, OUT_OF_DOMAIN
from tikmix_pipeline.report.figure_style import arm_styles, explanation, headline, legend_beside, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame


def trade_off(differences: "DataFrame", *, arms: Sequence[str] | None = None, origin: str = "") -> "Figure":
    """Draw each arm as a point, a panel per mean of tasks: up, tasks are better; to the right, held-out text is worse.

    The cross of an arm is its two intervals. `differences` is what `paired_differences` returned of bits per byte.
    """
    of_mean = {name: rows.set_index("arm") for name, rows in differences.groupby("task")}
    heldout = of_mean.get(MEAN_OF_SPLIT[HELDOUT])
    panels = [name for split in (IN_DOMAIN, OUT_OF_DOMAIN) if (name := MEAN_OF_SPLIT[split]) in of_mean]
    if heldout is None or not panels:
        return explanation("There is no arm beside the reference, no task, or no held-out text.")
    styles = arm_styles(arms or list(heldout.index))
    figure = new_figure(4.1 * len(panels) + 1.6, 4.2)
    for axes, name in zip(figure.subplots(1, len(panels), squeeze=False).flatten(), panels, strict=True):
        _points(axes, heldout, of_mean[name], styles)
        axes.set_title(name, fontsize=10)
    reference = differences["reference"].iloc[0]
    figure.supxlabel("held-out text, bits per byte: left is better", fontsize=10)
    figure.supylabel("tasks, bits per byte: up is better", fontsize=10)
    headline(
        figure, f"What tasks gain, and what held-out text pays, against {reference} (where the lines cross)", origin
    )
    legend_beside(figure, figure.axes[0])
    return figure


def _points(axes: "Axes", heldout: "DataFrame", tasks: "DataFrame", styles: dict[str, dict[str, Any]]) -> None:
    for arm in heldout.index:
        x, y = heldout.loc[arm], tasks.loc[arm]
        look = styles[arm] | {"linestyle": "none"}
        for ends in (([x["low"], x["high"]], [y["difference"]] * 2), ([x["difference"]] * 2, [y["low"], y["high"]])):
            axes.plot(*ends, color=look["color"], lw=0.9, alpha=0.6)
        axes.plot([x["difference"]], [y["difference"]], label=arm, ms=7, **look)
    for line in (axes.axhline, axes.axvline):
        line(0, color="black", lw=0.8, zorder=0)
    axes.invert_yaxis()
    axes.grid(alpha=0.25, lw=0.5)
    axes.tick_params(labelsize=8)
