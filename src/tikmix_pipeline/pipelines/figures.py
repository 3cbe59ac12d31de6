"""The figures of a run. They are drawn without a display, from tables alone."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tikmix_pipeline.pipelines.types import Figure, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def _figure(width: float, height: float) -> "tuple[Figure, Axes]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def influence_heat_map(influence: Table) -> Figure:
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


def mixture_over_rounds(mixtures: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw the mixtures of all rounds as stacked bars; the last is the one decided for the next chunk."""
    domains = list(mixtures[0]["weights"])
    figure, axes = _figure(2.6 + 1.1 * len(mixtures), 4.2)
    labels = [f"round {mixture['round']}" for mixture in mixtures[:-1]] + ["next"]
    bottoms = [0.0] * len(mixtures)
    for domain, colour in zip(domains, _colours(len(domains)), strict=True):
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


def bits_per_byte_over_rounds(scores: Table) -> Figure:
    """Draw each task's bits per byte by round.

    Args:
        scores: columns `round`, `task`, `bits_per_byte`.
    """
    figure, axes = _figure(6.0, 4.0)
    colours = _colours(scores["task"].nunique())
    for (task, rows), colour in zip(scores.groupby("task", sort=False), colours, strict=True):
        axes.plot(rows["round"], rows["bits_per_byte"], marker="o", label=task, color=colour)
    axes.set_xticks(sorted(scores["round"].unique()))
    axes.set_xlabel("after round")
    axes.set_ylabel("bits per byte of the gold answer")
    axes.set_title("Tasks (evaluation half)")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return figure


def _colours(count: int) -> Sequence[Any]:
    """Return `count` colours that differ, up to 20."""
    from matplotlib import colormaps

    palette = colormaps["tab10" if count <= 10 else "tab20"]
    return [palette(index % palette.N) for index in range(count)]
