from typing import Any

from tikmix_pipeline.summary import summary_table


def summary() -> dict[str, Any]:
    scores = {"task": {"piqa": 2.5, "siqa": 3.5}, "domain": {"code": 1.25, "web": 1.5}}
    return {
        "mixtures": [{"weights": {"code": 0.5, "web": 0.5}}, {"weights": {"code": 0.125, "web": 0.875}}],
        "bits_per_byte": [scores],
        "final_bits_per_byte": scores,
        "expected_gain": {"piqa": 1.5, "siqa": -0.25},
        "held": {"web": "at most 0.875 (optimize.max_weight)"},
        "notes": ["No domain helps siqa."],
    }


def test_table_shows_mixtures_scores_gains_and_what_holds_the_decision_back() -> None:
    lines = [" ".join(line.split()) for line in summary_table(summary(), "mine").splitlines()]
    assert "code 50.0% 12.5%" in lines
    assert "piqa 2.500 2.500 +1.5" in lines
    assert "mean of tasks 3.000 3.000" in lines
    assert "web 1.500 1.500" in lines
    assert "web: at most 0.875 (optimize.max_weight)" in lines
    assert "No domain helps siqa." in lines


def test_table_says_where_the_figures_are_and_how_to_open_the_page() -> None:
    text = summary_table(summary(), "mine")
    assert "data/08_reporting/mine/" in text
    assert "make ui" in text


def test_columns_stand_below_their_headings() -> None:
    block = summary_table(summary(), "mine").strip().split("\n\n")[0].splitlines()
    ends = [[position for position, letter in enumerate(line) if letter == "%"] for line in block[2:]]
    assert ends[0] == ends[1]
