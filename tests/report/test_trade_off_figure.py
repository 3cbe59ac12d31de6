"""What tasks gain against what held-out text pays."""

import io

import matplotlib.figure
import numpy as np
import pandas as pd
import pytest

from tikmix_pipeline.report.comparison_scores import paired_differences
from tikmix_pipeline.report.trade_off_figure import trade_off

LOSSES = {
    "proportional": {"quiz": 3.0, "riddle": 2.0, "code": 1.0},
    "direct": {"quiz": 2.5, "riddle": 1.9, "code": 1.2},
    "uniform": {"quiz": 3.1, "riddle": 2.2, "code": 0.9},
}
SPLITS = {"quiz": "in_domain", "riddle": "out_of_domain", "code": "heldout"}


def scores(*, seeds: int = 3, texts: tuple[str, ...] = ("quiz", "riddle", "code")) -> pd.DataFrame:
    """Return losses that differ over seeds by as much under every arm."""
    costs = {"method_flops": 0.0, "method_tokens": 0.0, "train_tokens": 100.0}
    rows = [
        {"arm": arm, "seed": seed, "task": text, "split": SPLITS[text], "bpb": of_arm[text] + seed, **costs}
        for arm, of_arm in LOSSES.items()
        for seed in range(seeds)
        for text in texts
    ]
    return pd.DataFrame(rows)


def figure_of(table: pd.DataFrame) -> matplotlib.figure.Figure:
    figure = trade_off(paired_differences(table, reference="proportional"))
    figure.savefig(io.BytesIO(), format="png", dpi=40)
    return figure


def points(figure: matplotlib.figure.Figure, panel: int) -> dict[str, tuple[float, float]]:
    """Return where the arms of a panel are drawn."""
    handles, names = figure.axes[panel].get_legend_handles_labels()
    return {name: tuple(np.round(np.ravel(handle.get_data()), 9)) for handle, name in zip(handles, names, strict=True)}


@pytest.mark.parametrize("seeds", [1, 3])
def test_an_arm_stands_where_its_differences_are_and_better_tasks_are_up(seeds: int) -> None:
    figure = figure_of(scores(seeds=seeds))
    assert [axes.get_title() for axes in figure.axes] == ["mean of in-domain tasks", "mean of out-of-domain tasks"]
    assert points(figure, 0) == {"direct": (0.2, -0.5), "uniform": (-0.1, 0.1)}
    assert points(figure, 1) == {"direct": (0.2, -0.1), "uniform": (-0.1, 0.2)}
    assert all(axes.yaxis_inverted() for axes in figure.axes)


def test_a_comparison_without_tasks_of_a_split_has_one_panel() -> None:
    assert [axes.get_title() for axes in figure_of(scores(texts=("quiz", "code"))).axes] == ["mean of in-domain tasks"]


@pytest.mark.parametrize(
    "table", [scores(texts=("quiz", "riddle")), scores()[lambda rows: rows["arm"] == "proportional"]]
)
def test_a_figure_of_nothing_says_why(table: pd.DataFrame) -> None:
    assert "no held-out text" in figure_of(table).texts[0].get_text()
