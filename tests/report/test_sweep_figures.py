import io
import math

import matplotlib.figure
import numpy as np
import pandas as pd
import pytest

from tikmix_pipeline.report.sweep_figures import importance_heat_map, predicted_over_measured, search_trace


def predictions(targets: int) -> pd.DataFrame:
    rows = [
        (surrogate, f"t{target}", float(n), n + shift)
        for surrogate, shift in (("gp", 0.5), ("linear", 5.0))
        for target in range(targets)
        for n in range(4)
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
    assert points.get_offsets().tolist() == [[0, 0.5], [1, 1.5], [2, 2.5], [3, 3.5]]


def test_constant_target_is_called_undefined() -> None:
    points = predictions(1).assign(measured=2.0)
    figure = predicted_over_measured(points, quality(1).assign(spearman=math.nan), "gp")
    assert figure.axes[0].get_title() == "t0\nSpearman undefined"
    assert drawn(figure)


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
