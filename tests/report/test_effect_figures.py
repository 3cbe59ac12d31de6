"""Signs say what to do: blue and positive is what more of a domain helps, in figures as on the page."""

import math

import pandas as pd
import pytest

from tikmix_pipeline.mixture.records import DecisionRecord
from tikmix_pipeline.report.effect_figures import decided_effects, measured_effects

INFLUENCE = pd.DataFrame(
    {
        "task": ["piqa", "piqa", "siqa", "siqa"],
        "domain": ["web", "code", "web", "code"],
        "share": [1.0, -2.5, 0.1, 1.0],
        "share_stderr": [0.1, 0.1, 0.2, math.nan],
    }
)


def decision(**changes):
    return DecisionRecord(
        strategy="direct",
        round=2,
        weights={"web": 0.9996, "code": 0.0004},
        expected_gain={"piqa": 0.5},
        binding=(),
        notes=(),
        anchor={"web": 0.6, "code": 0.4},
        effect={"piqa": {"web": 2.0, "code": -1.0}},
        effect_stderr={"piqa": {"web": 0.5, "code": 0.8}},
        **changes,
    )


def squares(axes):
    """Return each square's text and colour, row by row."""
    (image,) = axes.images
    shades = image.to_rgba(image.get_array()).reshape(-1, 4)
    return list(zip([text.get_text().replace("\u00a0", " ") for text in axes.texts], shades.tolist(), strict=True))


def test_measured_effects_have_their_error_in_the_cell_and_what_may_be_nothing_has_no_colour():
    figure = measured_effects(INFLUENCE, origin="smoke · round 1")
    axes, scale = figure.axes
    (helps, blue), (harms, orange), (unsure, white), (alone, _) = squares(axes)
    assert [helps, harms, unsure, alone] == ["+40\n± 4", "−100\n± 4", "+10 ?\n± 20", "+100"]
    assert blue[2] > blue[0]
    assert orange[0] > orange[2]
    assert white[:3] == [1, 1, 1]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["web", "code"]
    assert "more of it helps" in scale.get_ylabel()
    assert figure.get_suptitle().splitlines()[-1] == "smoke · round 1"
    assert max(map(len, figure.get_suptitle().splitlines())) <= 11 * figure.get_figwidth(), "no title is cut"
    assert "nats" not in figure.get_suptitle() + scale.get_ylabel()


@pytest.mark.parametrize(("rounds", "basis"), [(1, "this round's measurement"), (3, "the mean of 3 rounds")])
def test_what_decided_is_named_and_stands_over_the_mixtures_that_it_led_between(rounds, basis):
    figure = decided_effects(decision(), {"web": 0.5, "code": 0.5}, rounds=rounds, anchor="n-gram models")
    effects, mixtures = figure.axes[:2]
    assert basis in " ".join(figure.get_suptitle().split())
    assert [text for text, _ in squares(effects)] == ["+100\n± 25", "−50 ?\n± 40"]
    assert [label.get_text() for label in mixtures.get_yticklabels()] == ["now", "n-gram models", "next"]
    assert [text for text, _ in squares(mixtures)][-2:] == ["100.0 %", "< 0.1 %"]


def test_without_an_anchor_none_is_shown():
    figure = decided_effects(decision(), {"web": 0.5, "code": 0.5}, rounds=1)
    assert [label.get_text() for label in figure.axes[1].get_yticklabels()] == ["now", "next"]
