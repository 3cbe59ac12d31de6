"""The figures of a sweep: how well a surrogate predicts, what matters to it, and how it was searched."""

import math
from typing import TYPE_CHECKING, Any

from tikmix_pipeline.report.run_figures import colours

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame

_NAMED_DOMAINS = 12
"""In the search's figure, so many domains have a colour; the others are one."""

_LONG_NAME = 24
"""Letters of a target's name from which on it needs a smaller type to fit over its panel."""


def predicted_over_measured(predictions: "DataFrame", quality: "DataFrame", surrogate: str) -> "Figure":
    """Draw a surrogate's predictions of rows it was not fitted on over what was measured, a panel per target.

    Args:
        predictions: columns `surrogate`, `target`, `measured` and `predicted`, a row per candidate.
        quality: columns `surrogate`, `target`, `spearman` and `verdict`.
        surrogate: the one to draw.
    """
    from matplotlib.figure import Figure

    points = predictions[predictions["surrogate"] == surrogate]
    rows = quality[quality["surrogate"] == surrogate].set_index("target")
    targets = list(dict.fromkeys(points["target"]))
    columns = min(len(targets), 3 if len(targets) <= 9 else 5)
    lines = math.ceil(len(targets) / columns)
    figure = Figure(figsize=(2.6 * columns + 0.6, 2.5 * lines + 0.8), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False).flatten()
    for axes, target in zip(panels, targets, strict=False):
        _scatter(axes, points[points["target"] == target])
        spearman = rows["spearman"].get(target, math.nan)
        figures = "undefined" if math.isnan(spearman) else f"{spearman:.3f}"
        axes.set_title(f"{target}\nSpearman {figures}", fontsize=9 if len(target) <= _LONG_NAME else 7)
    for axes in panels[len(targets) :]:
        axes.set_axis_off()
    figure.supxlabel("measured response")
    figure.supylabel("predicted")
    figure.suptitle(f"{surrogate}: predicted over measured, {rows['verdict'].iloc[0]}")
    return figure


def _scatter(axes: "Axes", points: "DataFrame") -> None:
    axes.scatter(points["measured"], points["predicted"], s=6, alpha=0.6, linewidths=0)
    low, high = points["measured"].min(), points["measured"].max()
    if high > low:
        axes.axline((low, low), (high, high), color="grey", lw=0.8, ls="--", zorder=0)
    axes.locator_params(nbins=4)
    axes.tick_params(labelsize=7)
    axes.ticklabel_format(scilimits=(-3, 4))


def importance_heat_map(importance: "DataFrame") -> "Figure":
    """Draw how much a surrogate's error grows when a domain's share is shuffled, in the target's standard deviations.

    Args:
        importance: columns `target`, `domain` and `importance`, whole.
    """
    import numpy as np
    from matplotlib.figure import Figure

    wide = importance.pivot(index="target", columns="domain", values="importance")
    wide = wide.loc[importance["target"].unique(), importance["domain"].unique()]
    values_TK = wide.to_numpy(dtype=float)
    targets, domains = values_TK.shape
    figure = Figure(figsize=(2.8 + 0.5 * domains, 2.2 + 0.34 * targets), layout="constrained")
    axes = figure.subplots()
    highest = np.nanmax(values_TK, initial=1e-12)
    image = axes.imshow(values_TK, cmap="Blues", vmin=0, vmax=highest, aspect="auto")
    axes.set_xticks(range(domains), wide.columns, rotation=45, ha="right", rotation_mode="anchor", fontsize=8)
    axes.set_yticks(range(targets), wide.index, fontsize=8)
    for (row, column), value in np.ndenumerate(values_TK):
        colour = "white" if value > 0.6 * highest else "black"
        figures = "" if math.isnan(value) else f"{round(value, 2) + 0:.2f}"  # no -0.00
        axes.text(column, row, figures, ha="center", va="center", color=colour, fontsize=7)
    figure.colorbar(image, ax=axes, label="growth of the error / std of the target")
    axes.set_title("What the surrogate looks at: permutation importance", fontsize=10)
    return figure


def search_trace(trace: "DataFrame") -> "Figure":
    """Draw how the search narrowed: the predicted objective above, the centre's mixture below.

    Args:
        trace: columns `search_round` (0 is the start, which has no concentration), `concentration`, `best`, `centre`,
            then a column per domain with the centre's share of it.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 6.4), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    rounds = trace["search_round"]
    above.plot(rounds, trace["best"], color="tab:blue", label="best so far")
    above.plot(rounds, trace["centre"], color="tab:orange", label="centre")
    above.set_ylabel("predicted objective\n(lower is better)")
    narrow = above.twinx()
    narrow.plot(rounds, trace["concentration"], color="grey", ls=":")
    narrow.set_yscale("log")
    narrow.set_ylabel("concentration of the draws (dotted)", color="grey")
    above.legend(loc="upper center", frameon=False, fontsize=8, ncols=2, bbox_to_anchor=(0.5, 1.14))
    shares = _largest_shares(trace)
    below.stackplot(rounds, shares.to_numpy().T, labels=list(shares.columns), colors=colours(shares.shape[1]))
    below.set_ylim(0, 1)
    below.set_xlim(rounds.min(), max(rounds.max(), rounds.min() + 1))
    below.xaxis.get_major_locator().set_params(integer=True)
    below.set_xlabel("round of the search")
    below.set_ylabel("share of training tokens\nat the centre")
    handles, names = below.get_legend_handles_labels()
    figure.legend(handles[::-1], names[::-1], loc="outside right lower", frameon=False, fontsize=8)
    figure.suptitle("Search on the surrogate: Dirichlet draws around the best, from wide to narrow", fontsize=11)
    return figure


def _largest_shares(trace: "DataFrame") -> Any:
    """Return the shares by domain, those that stay small under one name."""
    shares = trace.drop(columns=["search_round", "concentration", "best", "centre"])
    if shares.shape[1] <= _NAMED_DOMAINS:
        return shares
    named = shares.max().nlargest(_NAMED_DOMAINS - 1).index
    large = shares[[name for name in shares.columns if name in named]]
    rest = shares.drop(columns=large.columns)
    return large.assign(**{f"{rest.shape[1]} others": rest.sum(axis=1)})
