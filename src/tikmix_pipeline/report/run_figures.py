"""The figures of a run. They are drawn without a display, from tables alone."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame


def _figure(width: float, height: float) -> "tuple[Figure, Axes]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def influence_heat_map(influence: "DataFrame") -> "Figure":
    """Draw influence by task and domain, each task's row scaled to its largest absolute entry.

    Each cell says the scaled influence and, where it is within two standard errors of zero, a question mark.
    """
    import numpy as np

    wide = influence.pivot(index="task", columns="domain", values="influence")
    error = influence.pivot(index="task", columns="domain", values="stderr")
    scale_T1 = np.abs(wide.to_numpy()).max(axis=1, keepdims=True)
    scaled_TK = wide.to_numpy() / np.where(scale_T1 == 0, 1.0, scale_T1)
    figure, axes = _figure(1.8 + 1.0 * wide.shape[1], 1.4 + 0.5 * wide.shape[0])
    image = axes.imshow(scaled_TK, cmap="RdBu", vmin=-1, vmax=1, aspect="auto")
    axes.set_xticks(range(wide.shape[1]), wide.columns, rotation=30, ha="right")
    axes.set_yticks(range(wide.shape[0]), wide.index)
    for (row, column), value in np.ndenumerate(scaled_TK):
        unsure = abs(wide.iat[row, column]) < 2 * error.iat[row, column]
        colour = "white" if abs(value) > 0.65 else "black"
        axes.text(column, row, f"{value:.2f}{'?' if unsure else ''}", ha="center", va="center", color=colour)
    figure.colorbar(image, ax=axes, label="influence / largest of the task")
    axes.set_title("Group Influence: what more of a domain would do for a task\n(? = within 2 standard errors of 0)")
    return figure


def mixture_over_rounds(mixtures: Sequence[Mapping[str, Any]]) -> "Figure":
    """Draw the mixtures of all rounds as stacked bars; the last is the one decided for the next chunk."""
    domains = list(mixtures[0]["weights"])
    figure, axes = _figure(2.6 + 1.1 * len(mixtures), 4.2)
    labels = [f"round {mixture['round']}" for mixture in mixtures[:-1]] + ["next"]
    bottoms = [0.0] * len(mixtures)
    for domain, colour in zip(domains, colours(len(domains)), strict=True):
        weights = [mixture["weights"][domain] for mixture in mixtures]
        bars = axes.bar(labels, weights, bottom=bottoms, label=domain, color=colour, width=0.75)
        axes.bar_label(bars, [f"{w:.0%}" if w >= 0.04 else "" for w in weights], label_type="center", fontsize=8)
        bottoms = [bottom + weight for bottom, weight in zip(bottoms, weights, strict=True)]
    axes.set_ylim(0, 1)
    axes.set_ylabel("share of training tokens")
    axes.set_title("Mixture by round")
    handles, names = axes.get_legend_handles_labels()
    axes.legend(handles[::-1], names[::-1], loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return figure


def bits_per_byte_over_rounds(scores: "DataFrame") -> "Figure":
    """Draw each task's bits per byte by round.

    Args:
        scores: columns `round`, `task`, `bits_per_byte`.
    """
    figure, axes = _figure(6.0, 4.0)
    tasks = scores.groupby("task", sort=False)
    for (task, rows), colour in zip(tasks, colours(len(tasks)), strict=True):
        axes.plot(rows["round"], rows["bits_per_byte"], marker="o", label=task, color=colour)
    axes.set_xticks(sorted(scores["round"].unique()))
    axes.set_xlabel("after round")
    axes.set_ylabel("bits per byte of the gold answer")
    axes.set_title("Tasks (evaluation half)")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return figure


def measured_over_predicted(points: "DataFrame", rows: "DataFrame") -> "Figure":
    """Draw measured gains over predicted effects, a panel per task and a point per domain.

    Bars span the replicates, and the line has the slope through the origin.

    Args:
        points: columns `task`, `domain`, `predicted` and `measured`, a row per replicate.
        rows: of the comparison, those of one candidate.
    """
    import matplotlib.figure

    tasks = list(points["task"].unique())
    columns = min(3, len(tasks))
    lines = -(-len(tasks) // columns)
    figure = matplotlib.figure.Figure(figsize=(3.6 * columns + 1.6, 3.1 * lines + 0.6), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False).flatten()
    by_task = rows.set_index("task")
    for axes, task in zip(panels, tasks, strict=False):
        _scatter(axes, points[points["task"] == task], by_task.loc[task])
    for axes in panels[len(tasks) :]:
        axes.set_axis_off()
    figure.supxlabel("predicted fall of the task's loss, nats per token")
    figure.supylabel("measured")
    figure.suptitle(f"What more of one domain did, over what was predicted: {rows['curvature'].iloc[0]}")
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside right center", frameon=False)
    return figure


def _scatter(axes: "Axes", points: "DataFrame", row: Any) -> None:
    domains = points.groupby("domain", sort=False)
    for (domain, of_domain), colour in zip(domains, colours(len(domains)), strict=True):
        measured = of_domain["measured"].dropna()
        if not len(measured):
            continue
        mean = measured.mean()
        bars = [[mean - measured.min()], [measured.max() - mean]]
        predicted = of_domain["predicted"].iloc[0]
        axes.errorbar([predicted], [mean], yerr=bars, fmt="o", color=colour, label=domain, capsize=2, markersize=5)
    if not math.isnan(row["slope"]):
        axes.axline((0, 0), slope=row["slope"], color="grey", lw=0.8, ls="--")
    axes.axhline(0, color="lightgrey", lw=0.6, zorder=0)
    axes.axvline(0, color="lightgrey", lw=0.6, zorder=0)
    axes.ticklabel_format(scilimits=(-2, 3))
    correlation = f"Pearson {row['pearson']:.2f}, ceiling {row['pearson_ceiling']:.2f}"
    axes.set_title(f"{points['task'].iloc[0]}: {correlation}", fontsize=9)


def candidates_side_by_side(rows: "DataFrame") -> "Figure":
    """Draw each candidate's mean Pearson correlation with its interval, and how high any could come.

    Args:
        rows: of the comparison; those of the mean of tasks are drawn.
    """
    from tikmix_pipeline.influence.agreement import MEAN_OF_TASKS

    means = rows[rows["task"] == MEAN_OF_TASKS].iloc[::-1]
    figure, axes = _figure(7.0, 1.6 + 0.38 * len(means))
    for place, row in enumerate(means.to_dict("records")):
        colour = "tab:blue" if row["best"] else "tab:grey"
        axes.plot([row["pearson_low"], row["pearson_high"]], [place, place], color=colour, lw=2, solid_capstyle="butt")
        axes.plot([row["pearson"]], [place], "o", color=colour)
    axes.axvline(means["pearson_ceiling"].iloc[0], color="black", ls=":", label="between two replicates")
    axes.axvline(means["reachable"].iloc[0], color="black", ls="--", label="a perfect prediction")
    axes.set_yticks(range(len(means)), means["curvature"])
    axes.set_xlabel("Pearson correlation of measured and predicted, mean over tasks")
    axes.set_title("Which curvature predicts\n(bars: middle 95 % over resampled replicates)", fontsize=10)
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.22), ncols=2, frameon=False)
    return figure


def colours(count: int) -> Sequence[Any]:
    """Return `count` colours that differ, up to 20."""
    from matplotlib import colormaps

    palette = colormaps["tab10" if count <= 10 else "tab20"]
    return [palette(index % palette.N) for index in range(count)]
