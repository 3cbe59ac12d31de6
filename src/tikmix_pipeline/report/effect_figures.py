"""What more of each domain does for each task: as a round measured it, and as its decision saw it.

Both are effects over a mixture, in per cent of the strongest effect on the task: positive, and blue, means that more of
the domain helps the task, whatever its raw influence is. What lies within two standard errors of zero has no colour and
a question mark. The page of `remix` shows the same.

Axes: T tasks, K domains.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tikmix_pipeline.mixture.deciding_effects import effect_rows
from tikmix_pipeline.mixture.records import ByDomain, DecisionRecord
from tikmix_pipeline.report.figure_style import amounts, harm_and_help, headline, heat_map, new_figure
from tikmix_pipeline.report.number_format import effect
from tikmix_pipeline.report.remix_report import ERRORS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame

_SCALE = "per cent of the strongest effect on the task\nless of it helps ←   → more of it helps"
_HOW = "± standard error; ?: less than two of them from 0"


def measured_effects(influence: "DataFrame", *, origin: str = "") -> "Figure":
    """Draw what a round measured, against the mixture that it was trained under.

    The columns of `influence` are `task`, `domain`, `share` and `share_stderr`.
    """
    tasks, domains = influence["task"].nunique(), influence["domain"].nunique()
    width, height = _size(tasks, domains)
    figure = new_figure(width, 1.7 + height)
    rows = influence[["task", "domain"]].assign(effect=influence["share"], stderr=influence["share_stderr"])
    _effects(figure.subplots(), rows)
    headline(figure, f"Measured in this round: what more of a domain would do for a task\n({_HOW})", origin)
    return figure


def decided_effects(
    decision: DecisionRecord, current: ByDomain, *, rounds: int, origin: str = "", anchor: str = ""
) -> "Figure":
    """Draw what a decision of TiKMiX-D rested on, and below it the mixtures that it went between.

    Args:
        decision: it and its effects.
        current: the mixture that they are over.
        rounds: how many measurements they are the mean of.
        origin: of which experiment and round the figure is.
        anchor: what the mixture that the entropy is relative to is called; empty where there is none.

    Raises:
        ValueError: the decision does not say its effects.
    """
    import pandas as pd

    if decision.effect is None:
        raise ValueError("the decision does not say its effects")
    effects = pd.DataFrame(effect_rows(decision))
    mixtures: dict[str, ByDomain] = {"now": current}
    if anchor and decision.anchor is not None:
        mixtures[anchor] = decision.anchor
    mixtures["next"] = decision.weights
    tasks, domains = len(decision.effect), len(current)
    width, height = _size(tasks, domains)
    figure = new_figure(width, 2.4 + height + 0.32 * len(mixtures))
    above, below = figure.subplots(2, 1, height_ratios=(height, 0.32 * len(mixtures)))
    _effects(above, effects)
    _mixtures(below, mixtures, list(current))
    basis = "this round's measurement" if rounds == 1 else f"the mean of {rounds} rounds"
    order = ", to second order" if decision.second_order is not None else ""
    headline(figure, f"Decided on {basis}{order}: what more of a domain does for a task\n({_HOW})", origin)
    return figure


def _size(tasks: int, domains: int) -> tuple[float, float]:
    """Return a figure's width, and the height of its squares, in inches: few of them leave room for title and scale."""
    return max(6.5, 2.4 + 0.95 * domains), max(2.2, 0.5 * tasks)


def _effects(axes: "Axes", rows: "DataFrame") -> None:
    """Draw effects and their errors, without colour where they may be nothing."""
    wide = {of: rows.pivot(index="task", columns="domain", values=of) for of in ("effect", "stderr")}
    shown = {of: table.loc[rows["task"].unique(), rows["domain"].unique()] for of, table in wide.items()}
    strongest_T1 = shown["effect"].abs().to_numpy(dtype=np.float64).max(axis=1, keepdims=True)
    unit_T1 = np.where(strongest_T1 > 0, strongest_T1, 1) / 100
    effect_TK, error_TK = (shown[of].to_numpy(dtype=np.float64) / unit_T1 for of in ("effect", "stderr"))
    unsure_TK = np.abs(effect_TK) < ERRORS * error_TK
    texts = [
        [_cell(*cell) for cell in zip(*row, strict=True)]
        for row in zip(effect_TK.tolist(), error_TK.tolist(), unsure_TK.tolist(), strict=True)
    ]
    heat_map(
        axes,
        np.where(unsure_TK, 0.0, effect_TK),
        texts,
        rows=list(shown["effect"].index),
        columns=list(shown["effect"].columns),
        label=_SCALE,
        cmap=harm_and_help(),
        vmin=-100,
        vmax=100,
    )


def _cell(percent: float, error: float, unsure: bool) -> str:
    text = effect(percent, unsure=unsure)
    return text if np.isnan(error) else f"{text}\n± {error:.0f}"


def _mixtures(axes: "Axes", mixtures: Mapping[str, ByDomain], domains: list[str]) -> None:
    weights_MK = np.array([[weights[domain] for domain in domains] for weights in mixtures.values()], dtype=np.float64)
    texts = [[_percent(weight) for weight in row] for row in weights_MK.tolist()]
    colouring: dict[str, Any] = {"cmap": amounts(), "vmin": 0, "vmax": 1}
    heat_map(axes, weights_MK, texts, rows=list(mixtures), columns=domains, label="", **colouring)
    axes.set_xticks([])
    axes.set_title("share of the tokens", fontsize=9)


def _percent(weight: float) -> str:
    return "< 0.1 %" if 0 < weight < 0.0005 else f"{100 * weight:.1f} %"
