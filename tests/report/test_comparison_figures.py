import io
import math
from collections.abc import Sequence

import matplotlib.axes
import matplotlib.figure
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgba

from tikmix_pipeline.report.comparison_figures import (
    differences_to_reference,
    loss_over_total_tokens,
    mixtures_by_arm,
    rank_stability_over_rounds,
    score_over_influence,
)
from tikmix_pipeline.report.comparison_influence import influence_against_score, rank_stability
from tikmix_pipeline.report.comparison_scores import loss_curves, paired_differences
from tikmix_pipeline.report.figure_style import arm_styles


def drawn(figure: matplotlib.figure.Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=40)
    return buffer.getvalue()


def names(arms: int) -> list[str]:
    return [f"arm-{number}" for number in range(arms)]


def curves(arms: int, *, method_tokens: float = 0.0, seeds: int = 2) -> pd.DataFrame:
    """Return runs of three rounds; the last arm spends so much before round 1."""
    rows = [
        (arm, seed, number, 100.0 * (number + 1), 3.0 - number + 0.1 * seed)
        for arm in names(arms)
        for seed in range(seeds)
        for number in range(3)
    ]
    costs = [(names(arms)[-1], seed, 1, method_tokens) for seed in range(seeds)]
    return loss_curves(
        pd.DataFrame(rows, columns=["arm", "seed", "round", "train_tokens", "bpb"]),
        pd.DataFrame(costs, columns=["arm", "seed", "round", "method_tokens"]),
    )


def legend_of(figure: matplotlib.figure.Figure) -> list[str]:
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


@pytest.mark.parametrize("arms", [1, 12])
def test_every_arm_is_named_once_and_drawn_in_both_panels(arms: int) -> None:
    figure = loss_over_total_tokens(curves(arms))
    assert legend_of(figure) == names(arms)
    whole, ends = figure.axes
    assert len(whole.collections) == arms, "a band each"
    assert len(ends.containers) == arms
    assert drawn(figure)


def test_deciding_moves_right_and_leaves_the_loss() -> None:
    whole, _ = loss_over_total_tokens(curves(2, method_tokens=50.0, seeds=1)).axes
    paths = [np.asarray(line.get_xydata()).tolist() for line in whole.lines if line.get_marker() == ""]
    assert paths[0] == [[100, 3], [100, 3], [200, 2], [200, 2], [300, 1]]
    assert paths[1] == [[100, 3], [150, 3], [250, 2], [250, 2], [350, 1]]


@pytest.mark.parametrize(("spent", "scale"), [(50.0, "linear"), (5000.0, "log")])
def test_totals_far_apart_are_drawn_on_a_logarithmic_axis(spent: float, scale: str) -> None:
    figure = loss_over_total_tokens(curves(3, method_tokens=spent))
    assert {axes.get_xscale() for axes in figure.axes} == {scale}
    assert drawn(figure)


def test_ends_of_the_same_total_do_not_lie_over_each_other() -> None:
    figure = loss_over_total_tokens(curves(12))
    drawn(figure)
    ends = figure.axes[1]
    markers = [container.lines[0] for container in ends.containers]
    places = sorted(float(line.get_transform().transform(np.asarray(line.get_xydata()))[0, 0]) for line in markers)
    assert min(np.diff(places)) > 0
    left, right = ends.get_window_extent().intervalx
    assert left < places[0] < places[-1] < right


def mixtures(arms: int, domains: int, seeds: int = 2) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = [
        (arm, seed, number, f"d{k}", weight)
        for arm in names(arms)
        for seed in range(seeds)
        for number in range(3)
        for k, weight in enumerate(rng.dirichlet(np.ones(domains)))
    ]
    return pd.DataFrame(rows, columns=["arm", "seed", "round", "domain", "weight"])


def tops(axes: matplotlib.axes.Axes) -> list[float]:
    bars = [bar for container in axes.containers for bar in container]
    return [max(b.get_y() + b.get_height() for b in bars if round(b.get_x() + 0.45) == number) for number in range(3)]


@pytest.mark.parametrize(("arms", "domains", "named"), [(1, 3, 3), (5, 20, 20), (12, 26, 20)])
def test_every_arm_has_a_panel_whose_bars_reach_one(arms: int, domains: int, named: int) -> None:
    figure = mixtures_by_arm(mixtures(arms, domains))
    panels = [axes for axes in figure.axes if axes.get_title()]
    assert [axes.get_title() for axes in panels] == names(arms)
    assert all(tops(axes) == pytest.approx([1, 1, 1]) for axes in panels)
    labels = legend_of(figure)
    assert len(labels) == named
    assert (labels[0] == f"{domains - named + 1} others") == (domains > named)
    assert drawn(figure)


def test_mixture_is_the_mean_over_seeds() -> None:
    rows = [
        ("a", seed, 0, domain, w)
        for seed, code in ((0, 0.25), (1, 0.75))
        for domain, w in (("code", code), ("web", 1 - code))
    ]
    axes = mixtures_by_arm(pd.DataFrame(rows, columns=["arm", "seed", "round", "domain", "weight"])).axes[0]
    assert [bar.get_height() for container in axes.containers for bar in container] == [0.5, 0.5]


def stability(arms: Sequence[str], rounds: int = 4) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = [
        (arm, seed, number, task, f"d{k}", rng.normal(), 0.1)
        for arm in arms
        for seed in range(2)
        for number in range(rounds)
        for task in ("piqa", "siqa")
        for k in range(5)
    ]
    columns = ["arm", "seed", "round", "task", "domain", "influence", "stderr"]
    return rank_stability(pd.DataFrame(rows, columns=columns), resamples=20)


def test_ranks_are_compared_with_the_first_round_and_with_the_one_before() -> None:
    rows = stability(["direct"])
    figure = rank_stability_over_rounds(rows)
    first, before = figure.axes
    assert (first.get_title(), before.get_title()) == ("with round 0", "with the measurement before")
    chain = [rows[(rows["round"] == n) & (rows["other_round"] == n + 1)]["spearman"].iloc[0] for n in range(3)]
    assert np.asarray(before.lines[0].get_ydata()).tolist() == chain
    assert legend_of(figure) == ["direct", "all arms", "if nothing changed"]
    assert drawn(figure)


def test_measurement_before_is_the_last_that_the_arm_made() -> None:
    rows = stability(["direct"])
    before = rank_stability_over_rounds(rows[(rows["round"] != 1) & (rows["other_round"] != 1)]).axes[1]
    assert np.asarray(before.lines[0].get_xdata()).tolist() == [2, 3]


def scores(arms: int, seeds: int, texts: Sequence[str] = ("in_domain", "out_of_domain", "heldout")) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = [
        (arm, seed, f"t-{split}", split, 2 + place + rng.normal(0, 0.1), 0.0, 0.0, 100)
        for place, arm in enumerate(names(arms))
        for seed in range(seeds)
        for split in texts
    ]
    costs = ["method_flops", "method_tokens", "train_tokens"]
    return pd.DataFrame(rows, columns=["arm", "seed", "task", "split", "bpb", *costs])


@pytest.mark.parametrize("arms", [2, 12])
def test_differences_are_a_row_per_arm_from_the_top_and_a_panel_per_mean(arms: int) -> None:
    figure = differences_to_reference(paired_differences(scores(arms, 3), reference="arm-0"))
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["mean of in-domain tasks", "mean of out-of-domain tasks", "mean of all tasks"]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == names(arms)[:0:-1]
    assert drawn(figure)


def test_point_is_filled_if_its_interval_excludes_zero() -> None:
    values = scores(3, 3)
    close = values["arm"] == "arm-1"
    values.loc[close, "bpb"] = values.loc[values["arm"] == "arm-0", "bpb"].to_numpy() + 0.01 * (
        values.loc[close, "seed"] - 1
    )
    axes = differences_to_reference(paired_differences(values, reference="arm-0")).axes[2]
    filled = [line.get_markerfacecolor() for line in axes.lines if line.get_marker() == "o"]
    assert [to_rgba(colour) == to_rgba("white") for colour in filled] == [True, False]


def test_one_seed_is_said_to_have_no_interval() -> None:
    figure = differences_to_reference(paired_differences(scores(3, 1), reference="arm-0"))
    assert "one seed: no interval" in figure.get_suptitle()
    assert drawn(figure)


@pytest.mark.parametrize("difference", [0.0, math.nan])
def test_arm_that_is_the_reference_or_diverged_can_be_drawn(difference: float) -> None:
    values = scores(2, 2)
    values.loc[values["arm"] == "arm-1", "bpb"] = values["bpb"].to_numpy()[:6] + difference
    assert drawn(differences_to_reference(paired_differences(values, reference="arm-0")))


def test_split_without_tasks_has_no_panel() -> None:
    differences = paired_differences(scores(2, 2, ("in_domain",)), reference="arm-0")
    assert [axes.get_title() for axes in differences_to_reference(differences).axes] == [
        "mean of in-domain tasks",
        "mean of all tasks",
    ]


@pytest.mark.parametrize("arms", [3, 12])
def test_every_mixture_is_a_point_over_its_influence(arms: int) -> None:
    rows = [(arm, 0, float(place), -float(place), 3.0 - place**2) for place, arm in enumerate(names(arms))]
    points = pd.DataFrame(rows, columns=["arm", "seed", "total", "scaled", "bpb"])
    figure = score_over_influence(points, influence_against_score(points))
    total, scaled = figure.axes
    assert [float(np.asarray(line.get_xdata())[0]) for line in total.lines] == list(range(arms))
    assert "Pearson" in scaled.get_title()
    assert "nan" not in scaled.get_title()
    assert legend_of(figure) == names(arms)
    assert drawn(figure)


def test_figure_of_nothing_says_why() -> None:
    alone = paired_differences(scores(1, 2), reference="arm-0")
    points = pd.DataFrame(columns=["arm", "seed", "total", "scaled", "bpb"])
    figures = {
        "no arm beside the reference": differences_to_reference(alone),
        "No arm measured influence in two rounds": rank_stability_over_rounds(stability(["direct"], rounds=1)),
        "No mixture has both": score_over_influence(points, influence_against_score(points)),
    }
    for reason, figure in figures.items():
        assert reason in figure.texts[0].get_text()
        assert drawn(figure)


def test_an_arm_keeps_its_look_where_others_are_missing() -> None:
    styles = arm_styles(names(15))
    figure = rank_stability_over_rounds(stability(["arm-7"]), arms=names(15))
    assert figure.axes[0].lines[0].get_color() == styles["arm-7"]["color"]
