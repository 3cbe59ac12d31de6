"""The figures of a comparison. They are drawn without a display, from tables alone.

An arm keeps its colour, line and marker in all figures that are told the same `arms`, which are by default those of the
table.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tikmix_pipeline.report.comparison_influence import ALL_ARMS, averaged_points
from tikmix_pipeline.report.comparison_scores import IN_DOMAIN, MEAN_OF_SPLIT, MEAN_OF_TASKS, OUT_OF_DOMAIN
from tikmix_pipeline.report.figure_style import (
    FEWEST_PAIRS,
    GREY,
    arm_styles,
    cut_interval,
    explanation,
    headline,
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

_NAMED_DOMAINS = 19
"""So many domains have a colour; the others are one."""

_WIDE_RANGE = 3
"""Totals that differ by more than this factor are drawn on a logarithmic axis."""

_SAME_TOTAL = 1.03
"""Totals that differ by less than this factor would be drawn over each other."""


def loss_over_total_tokens(curves: "DataFrame", *, arms: Sequence[str] | None = None, origin: str = "") -> "Figure":
    """Draw bits per byte over all tokens that an arm has read, those spent on deciding included.

    On the left the whole run, a line per arm and a band from the lowest seed to the highest; deciding costs tokens and
    leaves the loss where it is, so it is a level stretch. On the right the ends alone, with bars over seeds; those of
    about the same total stand side by side. `curves` is what `loss_curves` returned.
    """
    styles = arm_styles(arms or list(curves["arm"].unique()))
    figure = new_figure(11.0, 4.6)
    whole, ends = figure.subplots(1, 2, width_ratios=(1.35, 1))
    last = {}
    for arm, rows in curves.groupby("arm", sort=False):
        means = rows.groupby("round").agg(
            total=("total_tokens", "mean"),
            train=("train_tokens", "mean"),
            bpb=("bpb", "mean"),
            low=("bpb", "min"),
            high=("bpb", "max"),
        )
        _run(whole, means, styles[arm], arm)
        last[arm] = means.iloc[-1]
    _ends(ends, last, styles)
    finals = curves[curves["round"] == curves.groupby(["arm", "seed"])["round"].transform("max")]["total_tokens"]
    for axes in (whole, ends):
        _token_axis(axes, is_wide=finals.max() > _WIDE_RANGE * finals.min())
    whole.set_ylabel("bits per byte, mean of tasks")
    whole.set_title("The whole run (band: lowest to highest seed)", fontsize=10)
    ends.set_title("After the last round (bar: lowest to highest seed)", fontsize=10)
    headline(figure, "Scores over tokens, those of deciding included", origin)
    legend_beside(figure, whole)
    return figure


def _token_axis(axes: "Axes", *, is_wide: bool) -> None:
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

    if is_wide:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlabel("tokens read, in training and to decide")
    axes.grid(alpha=0.25, lw=0.5)


def _run(axes: "Axes", means: "DataFrame", style: dict[str, Any], arm: str) -> None:
    """Draw an arm's mean, from which it moves right before a round by what deciding took."""
    import pandas as pd

    trained = means["train"].diff()
    before = means.assign(total=means["total"] - trained, bpb=means["bpb"].shift()).dropna()
    before["low"], before["high"] = means["low"].shift(), means["high"].shift()
    # the points before and after each round, in the order in which a run passes them
    path = pd.concat([before.assign(place=0), means.assign(place=1)]).sort_values(["round", "place"])
    axes.plot(path["total"], path["bpb"], lw=1.4, **(style | {"marker": ""}))
    axes.fill_between(path["total"], path["low"], path["high"], color=style["color"], alpha=0.12, lw=0)
    axes.plot(means["total"], means["bpb"], ms=4, **(style | {"linestyle": "none"}))
    axes.plot([], [], ms=4, lw=1.4, label=arm, **style)


def _ends(axes: "Axes", last: Mapping[str, Any], styles: Mapping[str, dict[str, Any]]) -> None:
    """Draw each arm's end with its bar, moved aside from those of about the same total."""
    from matplotlib.transforms import offset_copy

    groups: list[list[str]] = []
    for arm in sorted(last, key=lambda arm: float(last[arm]["total"])):
        if groups and last[arm]["total"] < _SAME_TOTAL * last[groups[-1][0]]["total"]:
            groups[-1].append(arm)
        else:
            groups.append([arm])
    # what is drawn beside its place does not count for the limits
    axes.update_datalim([(row["total"], row[end]) for row in last.values() for end in ("low", "high")])
    axes.margins(x=0.16)
    for group in groups:
        for place, arm in enumerate(sorted(group, key=list(last).index)):
            shift = 7 * (place - (len(group) - 1) / 2)
            moved = offset_copy(axes.transData, axes.get_figure(root=True), x=shift, units="points")
            end = last[arm]
            bar = [[end["bpb"] - end["low"]], [end["high"] - end["bpb"]]]
            look = styles[arm] | {"linestyle": "none", "transform": moved}
            axes.errorbar([end["total"]], [end["bpb"]], yerr=bar, ms=6, lw=1.2, **look)


def mixtures_by_arm(mixtures: "DataFrame", *, origin: str = "") -> "Figure":
    """Draw each arm's mixture by round as stacked bars, a panel per arm, on average over its seeds.

    The columns are `arm`, `seed`, `round`, `domain` and `weight`.
    """
    means = mixtures.groupby(["arm", "round", "domain"], sort=False)["weight"].mean().reset_index()
    domains = _named(means)
    means["domain"] = means["domain"].where(means["domain"].isin(domains), domains[-1])
    arms = list(means["arm"].unique())
    figure, panels = panel_grid(len(arms), 4, (2.5, 2.1), (1.9, 0.9), shared=True)
    for axes, arm in zip(panels, arms, strict=True):
        of_arm = means[means["arm"] == arm].groupby(["round", "domain"])["weight"].sum().unstack(fill_value=0)
        stacked_bars(axes, of_arm.reindex(columns=domains, fill_value=0), width=0.9)
        axes.set_title(arm, fontsize=9)
    for axes in panels[-4:]:
        axes.tick_params(labelbottom=True)
    panels[0].set_ylim(0, 1)
    panels[0].locator_params(axis="x", integer=True)
    figure.supxlabel("round", fontsize=10)
    figure.supylabel("share of training tokens", fontsize=10)
    headline(figure, "Mixture by round, mean over seeds", origin)
    legend_beside(figure, panels[0], upwards=True)
    return figure


def _named(means: "DataFrame") -> list[str]:
    """Return the domains that are drawn; the last stands for all others if there are too many."""
    domains = list(means["domain"].unique())
    if len(domains) <= _NAMED_DOMAINS + 1:
        return domains
    named = set(means.groupby("domain")["weight"].max().nlargest(_NAMED_DOMAINS).index)
    return [*(domain for domain in domains if domain in named), f"{len(domains) - _NAMED_DOMAINS} others"]


def rank_stability_over_rounds(
    stability: "DataFrame", *, arms: Sequence[str] | None = None, origin: str = ""
) -> "Figure":
    """Draw how ranks of domains agree with the first measurement and the one before, as `rank_stability` found."""
    if not len(stability):
        return explanation("No arm measured influence in two rounds.")
    measured = [arm for arm in stability["arm"].unique() if arm != ALL_ARMS]
    styles = arm_styles(arms or measured) | {ALL_ARMS: {"color": "black", "linestyle": "-", "marker": "o"}}
    figure = new_figure(10.0, 4.2)
    panels = figure.subplots(1, 2, sharey=True, sharex=True)
    first = stability["round"].min()
    neighbours = stability.groupby(["arm", "other_round"])["round"].transform("max")
    kinds = {
        f"with round {first}": stability[stability["round"] == first],
        "with the measurement before": stability[stability["round"] == neighbours],
    }
    for axes, (title, rows) in zip(panels, kinds.items(), strict=True):
        for arm in [*measured, ALL_ARMS]:
            of_arm = rows[rows["arm"] == arm].sort_values("other_round")
            wide = 2.2 if arm == ALL_ARMS else 1.2
            axes.plot(of_arm["other_round"], of_arm["spearman"], label=arm, lw=wide, ms=4, **styles[arm])
        everything = rows[rows["arm"] == ALL_ARMS].sort_values("other_round")
        number = everything["other_round"]
        # a band of one round has no width
        axes.vlines(number, everything["low"], everything["high"], color=GREY, alpha=0.3, lw=6, zorder=0)
        axes.plot(number, everything["reachable"], color=GREY, ls=":", marker="_", ms=14, label="if nothing changed")
        axes.axhline(0, color="lightgrey", lw=0.6, zorder=0)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("measured after round")
        axes.set_xticks(sorted(stability["other_round"].unique()))
        axes.margins(x=0.3)
    panels[0].set_ylabel("Spearman over domains, mean of tasks")
    panels[0].set_ylim(top=1.03)
    headline(figure, "Do the ranks of domains stay? (bar: middle 95 % over seeds and tasks, all arms)", origin)
    legend_beside(figure, panels[0])
    return figure


def differences_to_reference(
    differences: "DataFrame", *, arms: Sequence[str] | None = None, origin: str = ""
) -> "Figure":
    """Draw each arm's paired difference to the reference with its interval, a panel per mean of tasks.

    A point is filled if its interval excludes 0. `differences` is what `paired_differences` returned.
    """
    if not len(differences):
        return explanation("There is no arm beside the reference.")
    names = [MEAN_OF_SPLIT[IN_DOMAIN], MEAN_OF_SPLIT[OUT_OF_DOMAIN], MEAN_OF_TASKS]
    drawn = [name for name in names if (differences["task"] == name).any()]
    compared = list(differences["arm"].unique())
    styles = arm_styles(arms or compared)
    figure = new_figure(3.3 * len(drawn) + 1.4, 1.7 + 0.3 * len(compared))
    panels = figure.subplots(1, len(drawn), sharey=True, sharex=True, squeeze=False).flatten()
    shown = differences[differences["task"].isin(drawn)]
    limits = _limits(shown)
    for axes, name in zip(panels, drawn, strict=True):
        for row in shown[shown["task"] == name].to_dict("records"):
            place, colour = len(compared) - 1 - compared.index(row["arm"]), styles[row["arm"]]["color"]
            cut_interval(axes, row["low"], row["high"], place, limits, color=colour)
            face = colour if row["distinguishable"] else "white"
            axes.plot([row["difference"]], [place], "o", color=colour, mfc=face, ms=6)
        axes.axvline(0, color="black", lw=0.8, zorder=0)
        axes.grid(axis="x", alpha=0.25, lw=0.5)
        axes.set_title(name, fontsize=10)
        axes.tick_params(axis="x", labelsize=8)
        axes.locator_params(axis="x", nbins=5)
    panels[0].set_xlim(limits)
    panels[0].set_yticks(range(len(compared)), compared[::-1])
    panels[0].set_ylim(-0.6, len(compared) - 0.4)
    reference = differences["reference"].iloc[0]
    figure.supxlabel(f"bits per byte, arm minus {reference}: left of 0 the arm is better", fontsize=10)
    intervals = "95 % t-interval; filled: it excludes 0" if shown["low"].notna().any() else "one seed: no interval"
    headline(figure, f"Against {reference}, seed by seed ({intervals})", origin)
    return figure


def _limits(rows: "DataFrame") -> tuple[float, float]:
    """Return how far to draw: 0, all points, and intervals as far as three times the furthest of them."""
    difference = rows["difference"].to_numpy(dtype=float)
    furthest = np.nanmax(np.abs(difference), initial=0.0)
    ends = np.concatenate([difference, *rows[["low", "high"]].to_numpy(dtype=float).T])
    ends = np.clip(ends, -3 * furthest, 3 * furthest) if furthest > 0 else ends
    low, high = np.nanmin(ends, initial=0.0), np.nanmax(ends, initial=0.0)
    margin = 0.06 * (high - low) or 1.0
    return float(low - margin), float(high + margin)


def score_over_influence(
    points: "DataFrame", rows: "DataFrame", *, arms: Sequence[str] | None = None, origin: str = ""
) -> "Figure":
    """Draw the final score of each arm over the total influence of its mixture, raw and scaled by task.

    `points` is what `influence_against_score` was given, and `rows` what it returned.
    """
    averaged, _, note = averaged_points(points)
    if not len(averaged):
        return explanation(f"No mixture has both an influence and a score{note and f': {note}'}.")
    styles = arm_styles(arms or list(points["arm"].unique()))
    figure = new_figure(10.0, 4.2)
    panels = figure.subplots(1, 2, sharey=True)
    titles = {"total": "summed over tasks", "scaled": "each task's row scaled to its largest entry"}
    for axes, row in zip(panels, rows.to_dict("records"), strict=True):
        for point in averaged.to_dict("records"):
            style = styles[point["arm"]] | {"linestyle": "none"}
            axes.plot([point[row["influence"]]], [point["bpb"]], label=point["arm"], ms=7, **style)
        figures = ", ".join(_correlation(row, kind) for kind in ("pearson", "spearman"))
        axes.set_title(f"{titles[row['influence']]}\n{figures}", fontsize=9)
        axes.set_xlabel("total Group Influence of the mixture")
    panels[0].set_ylabel("bits per byte, mean of tasks")
    panels[0].invert_yaxis()
    headline(figure, "Is the mixture that influence praises the better one? (better is up)", origin)
    legend_beside(figure, panels[0])
    return figure


def _correlation(row: dict[str, Any], kind: str) -> str:
    low, high, pairs = row[f"{kind}_low"], row[f"{kind}_high"], row["mixtures"]
    interval = "" if math.isnan(low) or pairs < FEWEST_PAIRS else f" ({low:.2f} to {high:.2f})"
    return f"{kind.capitalize()} {told_correlation(row[kind], pairs)}{interval}"
