import io
import math

import matplotlib.figure
import numpy as np
import pandas as pd
import pytest
from report_examples import mixture

from tikmix_pipeline.report.run_figures import (
    bits_per_byte_over_rounds,
    candidates_side_by_side,
    importance_heat_map,
    measured_over_predicted,
    mixture_over_rounds,
    predicted_over_measured,
    search_trace,
)


@pytest.mark.parametrize("count", [3, 12, 20])
def test_every_domain_has_a_colour_of_its_own(count: int) -> None:
    weights = {f"domain-{number}": 1 / count for number in range(count)}
    axes = mixture_over_rounds([mixture(0, weights), mixture(1, weights)]).axes[0]
    assert len({patch.get_facecolor() for patch in axes.patches}) == count


def test_bars_of_every_round_reach_one_and_the_last_is_named_next() -> None:
    mixtures = [mixture(number, {"code": 0.25, "web": 0.75}) for number in range(3)]
    axes = mixture_over_rounds(mixtures).axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["round 0", "round 1", "next"]
    assert max(patch.get_y() + patch.get_height() for patch in axes.patches) == pytest.approx(1)


def test_scores_are_a_line_per_task() -> None:
    rows = [(number, task, 3.0 - number) for number in range(3) for task in ("piqa", "siqa")]
    axes = bits_per_byte_over_rounds(pd.DataFrame(rows, columns=["round", "task", "bits_per_byte"])).axes[0]
    assert [line.get_label() for line in axes.lines] == ["piqa", "siqa"]


def candidates(ceiling: float = 0.5) -> pd.DataFrame:
    row = {"pearson": 0.75, "pearson_low": 0.25, "pearson_high": 1.0, "slope": 2.0}
    row |= {"pearson_ceiling": ceiling, "reachable": ceiling}
    return pd.DataFrame(
        [
            {"curvature": label, "task": task, "best": label == "kfac", **row}
            for label in ("identity", "kfac")
            for task in ("piqa", "siqa", "mean of tasks", "mean gain")
        ]
    )


def replicates(missing: str | None = None) -> pd.DataFrame:
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
    figure = measured_over_predicted(replicates(), candidates()[lambda rows: rows["curvature"] == "kfac"])
    titles = [axes.get_title().partition(":")[0] for axes in figure.axes]
    assert titles == ["piqa", "siqa", "mean gain"]
    axes = figure.axes[0]
    assert [container.get_label() for container in axes.containers] == ["code", "web"]
    assert [container.lines[0].get_xydata().tolist() for container in axes.containers] == [[[-1, -0.75]], [[2, 2.25]]]
    assert any(getattr(line, "_slope", None) == 2.0 for line in axes.lines)


def test_domain_whose_branches_failed_has_no_point() -> None:
    figure = measured_over_predicted(replicates(missing="web"), candidates()[lambda rows: rows["curvature"] == "kfac"])
    assert [container.get_label() for container in figure.axes[0].containers] == ["code"]


@pytest.mark.parametrize("ceiling", [0.5, float("nan")])
def test_candidates_stand_in_their_order_with_the_ceiling_drawn(ceiling: float) -> None:
    figure = candidates_side_by_side(candidates(ceiling))
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["kfac", "identity"], "from bottom to top"
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["between two replicates", "a perfect prediction"]
    figure.savefig(io.BytesIO())


def predictions(targets: int) -> pd.DataFrame:
    rows = [
        (surrogate, f"t{target}", float(n), n + shift)
        for surrogate, shift in (("gp", 0.5), ("linear", 5.0))
        for target in range(targets)
        for n in range(5)
    ]
    return pd.DataFrame(rows, columns=["surrogate", "target", "measured", "predicted"])


def quality(targets: int) -> pd.DataFrame:
    rows = [(s, f"t{n}", rho / (n + 1)) for s, rho in (("gp", 1.0), ("linear", 0.1)) for n in range(targets)]
    return pd.DataFrame(rows, columns=["surrogate", "target", "spearman"]).assign(verdict="test")


def trace(domains: int) -> pd.DataFrame:
    shares_RK = np.random.default_rng(0).dirichlet(np.ones(domains), 5)
    concentration = [math.nan, *np.geomspace(50, 5000, 4)]
    steps = {"search_round": range(5), "concentration": concentration, "best": -1.0, "centre": -0.5}
    return pd.DataFrame(steps).join(pd.DataFrame(shares_RK, columns=[f"d{n}" for n in range(domains)]))


def drawn(figure: matplotlib.figure.Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=40)
    return buffer.getvalue()


@pytest.mark.parametrize("targets", [1, 5, 13])
def test_every_target_has_a_panel_with_its_correlation(targets: int) -> None:
    figure = predicted_over_measured(predictions(targets), quality(targets), "gp")
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == [f"t{n}\nSpearman {1 / (n + 1):.3f}" for n in range(targets)]
    assert drawn(figure)


def test_points_are_those_of_one_surrogate() -> None:
    (points,) = predicted_over_measured(predictions(1), quality(1), "gp").axes[0].collections
    assert points.get_offsets().tolist() == [[n, n + 0.5] for n in range(5)]


def test_constant_target_is_called_undefined() -> None:
    points = predictions(1).assign(measured=2.0)
    figure = predicted_over_measured(points, quality(1).assign(spearman=math.nan), "gp")
    assert figure.axes[0].get_title() == "t0\nSpearman undefined"
    assert drawn(figure)


def test_no_correlation_is_told_of_four_points() -> None:
    points = predictions(1)
    few = predicted_over_measured(points[points["measured"] < 4], quality(1), "gp")
    assert few.axes[0].get_title() == "t0\nSpearman not told (4 points)"
    domains = measured_over_predicted(replicates(), candidates()[lambda rows: rows["curvature"] == "kfac"])
    assert domains.axes[0].get_title() == "piqa: Pearson not told (2 points)"


def test_importance_keeps_the_order_of_targets_and_domains() -> None:
    rows = [(t, d, v) for t, d, v in zip("bbaa", "yxyx", [0.5, 0.25, -0.001, math.nan], strict=True)]
    figure = importance_heat_map(pd.DataFrame(rows, columns=["target", "domain", "importance"]))
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["b", "a"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["y", "x"]
    assert [text.get_text() for text in axes.texts] == ["0.50", "0.25", "0.00", ""]
    assert drawn(figure)


@pytest.mark.parametrize(("domains", "names"), [(3, 3), (12, 12), (26, 12)])
def test_search_names_the_domains_that_matter_and_shares_fill_the_whole(domains: int, names: int) -> None:
    figure = search_trace(trace(domains))
    below = figure.axes[1]
    labels = below.get_legend_handles_labels()[1]
    assert len(labels) == names
    assert (labels[-1] == f"{domains - names + 1} others") == (domains > names)
    highest = max(path.vertices[:, 1].max() for area in below.collections for path in area.get_paths())
    assert highest == pytest.approx(1)
    assert drawn(figure)


def test_search_of_one_round_can_be_drawn() -> None:
    assert drawn(search_trace(trace(3).head(1)))
