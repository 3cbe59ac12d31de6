import pandas as pd
import pytest

from tikmix_pipeline.pipelines.figures import bits_per_byte_over_rounds, influence_heat_map, mixture_over_rounds


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
