import math

import pytest
from report_examples import domain, task, team_report

from tikmix_pipeline.report.constraint_cost import cost_sentence, held
from tikmix_pipeline.report.content import Cell
from tikmix_pipeline.report.gain_chart import gain_chart
from tikmix_pipeline.report.influence_map import influence_map
from tikmix_pipeline.report.mixture_chart import mixture_lines
from tikmix_pipeline.report.scale import Scale
from tikmix_pipeline.report.supply_chart import supply_lines
from tikmix_pipeline.report.sureness import order_sentence, shakiest
from tikmix_pipeline.report.verdict import Verdict


def test_bars_are_proportional_to_weights_and_the_heaviest_comes_first():
    lines = mixture_lines([domain("a", 0.5, 0.2), domain("b", 0.5, 0.8, unconstrained=0.4)])
    assert [line.name for line in lines] == ["b", "a"]
    assert lines[0].recommended_bar.width == 100
    assert lines[0].unconstrained_at == 50
    assert lines[1].current_bar.width == pytest.approx(2.5 * lines[1].recommended_bar.width)
    assert (lines[0].change, lines[1].change) == ("+30.0", "−30.0")


def test_error_bars_reach_zero_exactly_where_the_verdict_turns():
    chart = gain_chart([task("clear", 0.009, 0.004), task("unclear", 0.007, 0.004), task("loser", -0.02, 0.004)])
    clear, unclear, loser = chart.lines
    assert clear.bar.left > chart.zero_at > unclear.bar.left
    assert [line.verdict for line in chart.lines] == [Verdict.GAINS, Verdict.UNCLEAR, Verdict.LOSES]
    assert loser.bar.left + loser.bar.width < chart.zero_at
    assert chart.clear == 1


def test_a_gain_without_error_has_no_bar_and_says_so():
    known, unknown, missing = gain_chart([task("a"), task("b", 0.01, None), task("c", math.nan, math.nan)]).lines
    assert known.bar is not None
    assert (unknown.bar, unknown.reading) == (None, "gains; its error is not known")
    assert (missing.bar, missing.at, missing.gain) == (None, None, "not known")


def test_small_gains_share_a_power_of_ten():
    chart = gain_chart([task("a", 1.2e-5, 4e-6), task("b", 1e-6, 2e-6)])
    assert "10⁻⁶" in chart.unit
    assert [line.gain.replace("\u00a0", " ") for line in chart.lines] == ["12 ± 4", "1 ± 2"]


def test_without_any_gain_the_chart_has_a_middle():
    assert gain_chart([task("a", 0.0, 0.0)]).zero_at == 50


def test_influence_is_scaled_by_task_and_marked_where_unclear():
    cells = [
        Cell("t", "a", 4e-9, 1e-9),
        Cell("t", "b", -2e-9, 1.5e-9),
        Cell("u", "a", -5.0, None),
        Cell("u", "b", math.nan, None),
    ]
    chart = influence_map(cells, ["t", "u"], ["a", "b"])
    (_, (first, second)), (_, (third, fourth)) = chart.rows
    assert [square.text for square in (first, second, third, fourth)] == ["100", "−100", "−50?", "·"]
    assert [square.shade for square in (first, second, third, fourth)] == [4, -4, 0, 0]
    assert chart.without_error == 1
    assert "4.0 ± 1.0 × 10^-9" in first.described.replace("\u00a0", " ")
    assert fourth.described == "b on u: not measured"


def test_without_influence_there_is_no_map():
    assert influence_map([Cell("t", "a", math.nan, None)], ["t"], ["a"]) is None
    assert influence_map([Cell("other", "a", 1.0, None)], ["t"], ["a"]) is None
    assert influence_map([Cell("t", "a", 0.0, 0.0)], ["t"], ["a"]).rows[0][1][0].text == "0"


def test_supply_bars_share_what_may_be_read():
    (line,) = supply_lines([domain(available_tokens=100.0, max_epochs=4.0, consumed_tokens=100.0, chunk_tokens=200.0)])
    assert (line.consumed_bar.width, line.chunk_bar.left, line.chunk_bar.width) == (25, 25, 50)
    assert line.left == "100"


def test_the_domain_nearest_to_its_limit_comes_first():
    rows = [domain("far", epochs=1.0), domain("near", epochs=3.9), domain("roomy", epochs=4.0, max_epochs=40.0)]
    assert [line.name for line in supply_lines(rows)] == ["near", "far", "roomy"]


@pytest.mark.parametrize(
    ("consumed", "chunk", "max_epochs", "left"),
    [(300, 100, 4.0, "none"), (300, 150, 4.0, "50 too many"), (0, 0, 0.0, "none")],
)
def test_what_is_left_is_told_in_words_where_it_is_no_number(consumed, chunk, max_epochs, left):
    row = domain(
        available_tokens=100.0,
        consumed_tokens=consumed,
        chunk_tokens=chunk,
        epochs=(consumed + chunk) / 100,
        max_epochs=max_epochs,
    )
    (line,) = supply_lines([row])
    assert line.left == left
    assert line.chunk_bar.left + line.chunk_bar.width <= 100


def test_scales_hold_zero_and_survive_what_is_no_number():
    scale = Scale.around([3.0, math.nan, math.inf])
    assert -1 < scale.low < 0 < scale.at(3.0) < 100
    assert scale.at(99.0) == 100


def test_the_cost_of_the_constraints_is_a_share_of_the_free_gain():
    tasks = [task("a", 0.010, unconstrained_gain=0.030), task("b", 0.010, unconstrained_gain=0.010)]
    said = cost_sentence(tasks).replace("\u00a0", " ")
    assert "0.020 instead of 0.010 nats per token, so the constraints cost 50 % of it; 1 of 2 tasks" in said
    assert "not known" in cost_sentence([task("a", math.nan)])
    assert "same to two digits" in cost_sentence([task("a")])


def test_a_single_task_has_no_mean():
    said = cost_sentence([task("a", 0.010, unconstrained_gain=0.020)])
    assert said.startswith("Without the constraints the expected gain of the task would be 0.020 instead of 0.010")
    assert "tasks" not in said


def test_what_is_no_number_is_not_marked():
    (line, _) = mixture_lines([domain("a", unconstrained=math.nan), domain("b", 0.5, 0.4)])
    assert (line.unconstrained_at, line.unconstrained) == (None, "not known")


def test_what_binds_is_listed_domains_first():
    assert [(one.kind, one.name) for one in held(team_report())] == [
        ("domain", "web"),
        ("domain", "math"),
        ("task", "hellaswag"),
    ]


@pytest.mark.parametrize(
    ("stability", "words"),
    [
        (0.95, "almost the same"),
        (0.8, "similar order"),
        (0.5, "in part only"),
        (-0.2, "hardly"),
        (None, "not measured"),
    ],
)
def test_the_order_of_domains_is_judged_in_words(stability, words):
    assert words in order_sentence(stability)


def test_shaky_tasks_are_named_worst_first():
    stabilities = {"a": 0.5, "b": 0.95, "c": 0.1, "d": None, "e": math.nan}
    assert shakiest([task(name, rank_stability=value) for name, value in stabilities.items()]) == ["c", "a"]
