"""The branches of a sequential design: what was expected of each, and what came."""

from typing import TYPE_CHECKING

from tikmix_pipeline.report.figure_style import BLUE, ORANGE, headline, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame


def sequence_figure(steps: "DataFrame", *, origin: str = "") -> "Figure":
    """Draw each branch's measured gain over the reference, and the expected one with its standard deviation.

    The columns are those of `sweep/steps.parquet`; branches are in the order of their training. Those that were trained
    before anything could be expected have no expectation.
    """
    figure = new_figure(8.4, 4.2)
    axes = figure.subplots()
    axes.axhline(0, color="grey", lw=0.8)
    axes.errorbar(
        steps.index,
        steps["expected_gain"],
        yerr=steps["deviation"],
        fmt="o",
        color=ORANGE,
        mfc="white",
        capsize=3,
        label="expected before, ± one standard deviation",
    )
    axes.plot(steps.index, steps["measured_gain"], "o", color=BLUE, ms=4, label="measured")
    best = steps["measured_gain"].fillna(float("-inf")).cummax()
    axes.step(steps.index, best, where="post", color=BLUE, lw=0.8, ls=":", label="best so far")
    axes.set_xticks(steps.index, steps["run"], rotation=30, ha="right", rotation_mode="anchor", fontsize=8)
    axes.set_ylabel("gain over the reference,\nnats per token, mean of the targets")
    headline(figure, "Branches in the order of their training", origin)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, frameon=False, fontsize=8)
    return figure
