import io

import pandas as pd
import pytest

from tikmix_pipeline.report.run_figures import (
    bits_per_byte_over_rounds,
    candidates_side_by_side,
    influence_heat_map,
    measured_over_predicted,
    mixture_over_rounds,
)


def influence_table() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "task": ["piqa", "piqa", "siqa", "siqa"],
            "domain": ["code", "web", "code", "web"],
            "influence": [4.0, -2.0, 0.1, 1.0],
            "stderr": [0.1, 0.1, 0.2, 0.1],
        }
    )


def test_heat_map_scales_each_task_and_marks_what_may_be_zero() -> None:
    axes = influence_heat_map(influence_table()).axes[0]
    assert [text.get_text() for text in axes.texts] == ["1.00", "-0.50", "0.10?", "1.00"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["piqa", "siqa"]


@pytest.mark.parametrize("count", [3, 12, 20])
def test_every_domain_has_a_colour_of_its_own(count: int) -> None:
    weights = {f"domain-{number}": 1 / count for number in range(count)}
    axes = mixture_over_rounds([{"round": 0, "weights": weights}, {"round": 1, "weights": weights}]).axes[0]
    assert len({patch.get_facecolor() for patch in axes.patches}) == count


def test_bars_of_every_round_reach_one_and_the_last_is_named_next() -> None:
    mixtures = [{"round": number, "weights": {"code": 0.25, "web": 0.75}} for number in range(3)]
    axes = mixture_over_rounds(mixtures).axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["round 0", "round 1", "next"]
    assert max(patch.get_y() + patch.get_height() for patch in axes.patches) == pytest.approx(1)


def test_scores_are_a_line_per_task() -> None:
    rows = [(number, task, 3.0 - number) for number in range(3) for task in ("piqa", "siqa")]
    axes = bits_per_byte_over_rounds(pd.DataFrame(rows, columns=["round", "task", "bits_per_byte"])).axes[0]
    assert [line.get_label() for line in axes.lines] == ["piqa", "siqa"]


def comparison(ceiling: float = 0.5) -> pd.DataFrame:
    row = {"pearson": 0.75, "pearson_low": 0.25, "pearson_high": 1.0, "slope": 2.0}
    row |= {"pearson_ceiling": ceiling, "reachable": ceiling}
    return pd.DataFrame(
        [
            {"curvature": label, "task": task, "best": label == "kfac", **row}
            for label in ("identity", "kfac")
            for task in ("piqa", "siqa", "mean of tasks", "mean gain")
        ]
    )


def points(missing: str | None = None) -> pd.DataFrame:
    return pd.DataFrame(
        [
            (task, domain, predicted, float("nan") if domain == missing else predicted + replicate)
            for task in ("piqa", "siqa", "mean gain")
            for domain, predicted in (("code", -1.0), ("web", 2.0))
            for replicate in (0.0, 0.5)
        ],
        columns=["task", "domain", "predicted", "measured"],
    )


def test_measured_gains_are_a_panel_per_task_with_the_slope_through_the_origin() -> None:
    figure = measured_over_predicted(points(), comparison()[lambda rows: rows["curvature"] == "kfac"])
    titles = [axes.get_title().partition(":")[0] for axes in figure.axes]
    assert titles == ["piqa", "siqa", "mean gain"]
    axes = figure.axes[0]
    assert [container.get_label() for container in axes.containers] == ["code", "web"]
    assert [container.lines[0].get_xydata().tolist() for container in axes.containers] == [[[-1, -0.75]], [[2, 2.25]]]
    assert any(getattr(line, "_slope", None) == 2.0 for line in axes.lines)


def test_domain_whose_branches_failed_has_no_point() -> None:
    figure = measured_over_predicted(points(missing="web"), comparison()[lambda rows: rows["curvature"] == "kfac"])
    assert [container.get_label() for container in figure.axes[0].containers] == ["code"]


@pytest.mark.parametrize("ceiling", [0.5, float("nan")])
def test_candidates_stand_in_their_order_with_the_ceiling_drawn(ceiling: float) -> None:
    figure = candidates_side_by_side(comparison(ceiling))
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["kfac", "identity"], "from bottom to top"
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["between two replicates", "a perfect prediction"]
    figure.savefig(io.BytesIO())
