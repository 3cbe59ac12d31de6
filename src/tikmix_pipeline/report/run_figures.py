"""The figures of a run: mixtures and scores by round; of a validation; and of a sweep.

They are drawn from tables alone. Axes: T tasks or targets, K domains.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tikmix_pipeline.influence.agreement import MEAN_OF_TASKS
from tikmix_pipeline.mixture.records import MixtureRecord
from tikmix_pipeline.report.figure_style import (
    BLUE,
    FEWEST_PAIRS,
    GREY,
    ORANGE,
    amounts,
    colours,
    headline,
    heat_map,
    ink_on,
    legend_beside,
    new_figure,
    panel_grid,
    stacked_bars,
    told_correlation,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame

_NAMED_DOMAINS = 12
"""In the search's figure, so many domains have a colour; the others are one."""

_LONG_NAME = 24
"""Letters of a target's name from which on it needs a smaller type to fit over its panel."""


def mixture_over_rounds(mixtures: Sequence[MixtureRecord], *, origin: str = "") -> "Figure":
    """Draw the mixtures of all rounds as stacked bars; the last is the one decided for the next chunk."""
    import pandas as pd

    figure = new_figure(2.6 + 1.1 * len(mixtures), 4.2)
    axes = figure.subplots()
    labels = [f"round {mixture.round}" for mixture in mixtures[:-1]] + ["next"]
    shares = pd.DataFrame([mixture.weights for mixture in mixtures], index=labels)
    for bars, weights in zip(stacked_bars(axes, shares, width=0.75), shares.to_numpy().T, strict=True):
        told = [f"{w:.0%}" if w >= 0.04 else "" for w in weights]
        ink = ink_on(bars.patches[0].get_facecolor())
        axes.bar_label(bars, told, label_type="center", fontsize=8, color=ink)
    axes.set_ylim(0, 1)
    axes.set_ylabel("share of training tokens")
    headline(figure, "Mixture by round", origin)
    legend_beside(figure, axes, upwards=True)
    return figure


def bits_per_byte_over_rounds(scores: "DataFrame", *, origin: str = "") -> "Figure":
    """Draw each task's bits per byte by round, named in the order in which the lines end.

    The columns are `round`, `task` and `bits_per_byte`.
    """
    figure = new_figure(6.4, 4.0)
    axes = figure.subplots()
    last = scores.groupby("task")["bits_per_byte"].last()
    tasks = sorted(scores.groupby("task", sort=False), key=lambda one: -last[one[0]])
    for (task, rows), colour in zip(tasks, colours(len(tasks)), strict=True):
        axes.plot(rows["round"], rows["bits_per_byte"], marker="o", label=task, color=colour)
    axes.set_xticks(sorted(scores["round"].unique()))
    axes.set_xlabel("after round")
    axes.set_ylabel("bits per byte of the right answer,\nfixed part of the evaluation half")
    axes.grid(axis="y", alpha=0.25, lw=0.5)
    headline(figure, "Bits per byte of the tasks, lower is better", origin)
    legend_beside(figure, axes)
    return figure


def measured_over_predicted(points: "DataFrame", rows: "DataFrame", *, origin: str = "") -> "Figure":
    """Draw measured gains over predicted effects, a panel per task and a point per domain.

    Bars span the replicates, and the line has the slope through the origin. `points` has the columns `task`, `domain`,
    `predicted` and `measured`, a row per replicate; `rows` are those of `compared_rows` for one candidate.
    """
    tasks = list(points["task"].unique())
    figure, panels = panel_grid(len(tasks), 3, (3.6, 3.1), (1.6, 0.6))
    by_task = rows.set_index("task")
    for axes, task in zip(panels, tasks, strict=True):
        _gains(axes, points[points["task"] == task], by_task.loc[task])
    figure.supxlabel("predicted effect on the task, in units of influence")
    figure.supylabel("measured fall of its loss, nats per token")
    headline(figure, f"What more of one domain did, over what was predicted: {rows['curvature'].iloc[0]}", origin)
    legend_beside(figure, panels[0])
    return figure


def _gains(axes: "Axes", points: "DataFrame", row: Any) -> None:
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
    pairs = points["domain"].nunique()
    correlation = f"Pearson {told_correlation(row['pearson'], pairs)}"
    if pairs >= FEWEST_PAIRS:
        correlation += f", ceiling {row['pearson_ceiling']:.2f}"
    axes.set_title(f"{points['task'].iloc[0]}: {correlation}", fontsize=9)


def candidates_side_by_side(rows: "DataFrame", *, origin: str = "") -> "Figure":
    """Draw each candidate's mean Pearson correlation in `compared_rows`, its interval, and how high any could come."""
    means = rows[rows["task"] == MEAN_OF_TASKS].iloc[::-1]
    figure = new_figure(7.0, 1.6 + 0.38 * len(means))
    axes = figure.subplots()
    for place, row in enumerate(means.to_dict("records")):
        colour = BLUE if row["best"] else GREY
        axes.plot([row["pearson_low"], row["pearson_high"]], [place, place], color=colour, lw=2, solid_capstyle="butt")
        axes.plot([row["pearson"]], [place], "o", color=colour)
    axes.axvline(means["pearson_ceiling"].iloc[0], color="black", ls=":", label="between two replicates")
    axes.axvline(means["reachable"].iloc[0], color="black", ls="--", label="a perfect prediction")
    axes.set_yticks(range(len(means)), means["curvature"])
    axes.set_xlabel("Pearson correlation of measured and predicted, mean over tasks")
    headline(figure, "Which curvature predicts (bars: middle 95 % over resampled replicates)", origin)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, frameon=False, fontsize=8)
    return figure


def predicted_over_measured(
    predictions: "DataFrame", quality: "DataFrame", surrogate: str, *, origin: str = ""
) -> "Figure":
    """Draw a surrogate's predictions of rows it was not fitted on over what was measured, a panel per target.

    `predictions` has the columns `surrogate`, `target`, `measured` and `predicted`, a row per candidate; `quality` has
    `surrogate`, `target`, `spearman` and `verdict`.
    """
    points = predictions[predictions["surrogate"] == surrogate]
    rows = quality[quality["surrogate"] == surrogate].set_index("target")
    targets = list(dict.fromkeys(points["target"]))
    figure, panels = panel_grid(len(targets), 3 if len(targets) <= 9 else 5, (2.6, 2.5), (0.6, 0.8))
    for axes, target in zip(panels, targets, strict=True):
        of_target = points[points["target"] == target]
        axes.scatter(of_target["measured"], of_target["predicted"], s=6, alpha=0.6, linewidths=0, color=BLUE)
        low, high = of_target["measured"].min(), of_target["measured"].max()
        if high > low:
            axes.axline((low, low), (high, high), color="grey", lw=0.8, ls="--", zorder=0)
        axes.locator_params(nbins=4)
        axes.tick_params(labelsize=7)
        axes.ticklabel_format(scilimits=(-3, 4))
        spearman = rows["spearman"].get(target, math.nan)
        figures = told_correlation(spearman, len(of_target), 3)
        axes.set_title(f"{target}\nSpearman {figures}", fontsize=9 if len(target) <= _LONG_NAME else 7)
    figure.supxlabel("measured response")
    figure.supylabel("predicted")
    headline(figure, f"{surrogate}: predicted over measured, {rows['verdict'].iloc[0]}", origin)
    return figure


def importance_heat_map(importance: "DataFrame", *, origin: str = "") -> "Figure":
    """Draw how much a surrogate's error grows when a domain's share is shuffled, in the target's standard deviations.

    `importance` has the columns `target`, `domain` and `importance`, and a row of every pair.
    """
    wide = importance.pivot(index="target", columns="domain", values="importance")
    wide = wide.loc[importance["target"].unique(), importance["domain"].unique()]
    values_TK = wide.to_numpy(dtype=float)
    targets, domains = values_TK.shape
    figure = new_figure(2.8 + 0.5 * domains, 2.2 + 0.34 * targets)
    axes = figure.subplots()
    heat_map(
        axes,
        values_TK,
        # no -0.00
        [["" if math.isnan(value) else f"{round(value, 2) + 0:.2f}" for value in row] for row in values_TK],
        rows=list(wide.index),
        columns=list(wide.columns),
        label="growth of the error / std of the target",
        cmap=amounts(),
        vmin=0,
        vmax=np.nanmax(values_TK, initial=1e-12),
    )
    headline(figure, "What the surrogate looks at: permutation importance", origin)
    return figure


def search_trace(trace: "DataFrame", *, origin: str = "") -> "Figure":
    """Draw how the search narrowed: the predicted objective above, the centre's mixture below.

    The columns are `search_round` (0 is the start, which has no concentration), `concentration`, `best`, `centre`, then
    one per domain with the centre's share of it.
    """
    figure = new_figure(8.4, 6.4)
    above, below = figure.subplots(2, 1, sharex=True)
    rounds = trace["search_round"]
    above.plot(rounds, trace["best"], color=BLUE, label="best so far")
    above.plot(rounds, trace["centre"], color=ORANGE, label="centre")
    above.set_ylabel("predicted objective\n(lower is better)")
    narrow = above.twinx()
    narrow.plot(rounds, trace["concentration"], color="grey", ls=":")
    narrow.set_yscale("log")
    narrow.set_ylabel("concentration of the draws (dotted)", color="grey")
    above.legend(loc="lower left", frameon=False, fontsize=8, ncols=2, bbox_to_anchor=(0, 1.0))
    shares = _largest_shares(trace.drop(columns=["search_round", "concentration", "best", "centre"]))
    below.stackplot(rounds, shares.to_numpy().T, labels=list(shares.columns), colors=colours(shares.shape[1]))
    below.set_ylim(0, 1)
    below.set_xlim(rounds.min(), max(rounds.max(), rounds.min() + 1))
    below.locator_params(axis="x", integer=True)
    below.set_xlabel("round of the search")
    below.set_ylabel("share of training tokens\nat the centre")
    legend_beside(figure, below, upwards=True, place="outside right lower")
    headline(figure, "Search on the surrogate: Dirichlet draws around the best, from wide to narrow", origin)
    return figure


def _largest_shares(shares: "DataFrame") -> "DataFrame":
    """Return the shares by domain, those that stay small under one name."""
    if shares.shape[1] <= _NAMED_DOMAINS:
        return shares
    named = shares.max().nlargest(_NAMED_DOMAINS - 1).index
    large = shares[[name for name in shares.columns if name in named]]
    rest = shares.drop(columns=large.columns)
    return large.assign(**{f"{rest.shape[1]} others": rest.sum(axis=1)})
