import math

import pytest
from report_examples import CHUNK, domain, large_report, task, team_report

from tikmix_pipeline.report.sentences import (
    cost_of_constraints,
    expectation,
    least_stable,
    missing_errors,
    moves,
    rank_agreement,
    recommendation,
    tokens_left,
)


def sentence(domains, tasks, **changes):
    report = team_report(domains=tuple(domains), tasks=tuple(tasks), **changes)
    return recommendation(report).replace("\u00a0", " ")


def test_it_says_what_moves_and_what_to_expect():
    domains = [domain("web", 0.60, 0.48), domain("code", 0.30, 0.38), domain("math", 0.10, 0.14)]
    tasks = [
        *(task(f"clear-{t}") for t in range(6)),
        *(task(f"small-{t}", 0.001) for t in range(2)),
        task("loser", -0.02),
    ]
    assert sentence(domains, tasks) == (
        "Move 12 % of the next 10 B tokens from web to code and math: 8 of 9 tasks are expected to gain; the gain of 2 "
        "is within its error; 1 is expected to lose."
    )


def test_two_domains_and_one_task():
    said = sentence([domain("a", 0.5, 0.48), domain("b", 0.5, 0.52)], [task("mmlu", 0.0121, 0.0038)])
    assert said == (
        "Move 2.0 % of the next 10 B tokens from a to b: "
        "the task mmlu is expected to gain 0.012 ± 0.004 nats per token."
    )


def test_nothing_changes():
    domains = [domain("a", 0.5, 0.5), domain("b", 0.5, 0.5)]
    kept = "Keep the current mixture for the next 10 B tokens: no change "
    assert (
        sentence(domains, [task(gain=0.0)], unconstrained_differs=False)
        == f"{kept}is expected to serve the tasks better."
    )
    assert "no change that the constraints allow is" in sentence(domains, [task(gain=0.0)], unconstrained_differs=True)


@pytest.mark.parametrize(
    ("gains", "said"),
    [
        ([(0.02, 0.004)] * 3, "all 3 tasks are expected to gain"),
        ([(0.02, 0.004)] * 2, "both tasks are expected to gain"),
        ([(0.02, 0.004), (0.0, 0.0), (0.0, 0.0)], "1 of 3 tasks is expected to gain"),
        ([(-0.02, 0.004)] * 3, "none of the 3 tasks is expected to gain; 3 are expected to lose"),
        ([(0.001, 0.004)] * 2, "both tasks are expected to gain; every one of these gains is within its error"),
        ([(0.001, 0.004), (0.0, 0.0)], "1 of 2 tasks is expected to gain; that gain is within its error"),
        (
            [(0.001, 0.004), (0.02, 0.004), (-0.001, 0.004)],
            "2 of 3 tasks are expected to gain; the gain of 1 and the loss of 1 are within their errors",
        ),
        ([(-0.001, 0.004)] * 2, "neither of the 2 tasks is expected to gain; the loss of 2 is within its error"),
        ([(0.02, None), (0.02, 0.004)], "both tasks are expected to gain; the error of 1 is not known"),
        ([(0.02, None), (0.02, math.nan)], "both tasks are expected to gain; no errors are known"),
    ],
)
def test_gains_are_counted_with_their_errors(gains, said):
    assert expectation([task(f"task-{t}", *gain) for t, gain in enumerate(gains)], "nats") == said


@pytest.mark.parametrize(
    ("gain", "stderr", "said"),
    [
        (-0.02, 0.004, "the task mmlu is expected to lose 0.020 ± 0.004 nats per token"),
        (0.002, 0.004, "the task mmlu is expected to gain 0.002 ± 0.004 nats per token, which is within its error"),
        (0.02, None, "the task mmlu is expected to gain 0.020 nats per token, with an error that is not known"),
        (1.2e-5, 4e-6, "the task mmlu is expected to gain 12 ± 4 × 10⁻⁶ nats per token"),
        (0.0, 0.1, "the task mmlu is not expected to change"),
        (math.nan, None, "what the task mmlu would gain is not known"),
    ],
)
def test_a_single_task_is_told_with_its_gain(gain, stderr, said):
    assert expectation([task("mmlu", gain, stderr)], "nats").replace("\u00a0", " ") == said


def test_of_many_domains_the_three_largest_moves_are_named():
    away, towards = moves(large_report().domains)
    assert f"{away}, {towards}".count("domain-") == 3
    assert away.endswith(" others")
    assert towards.endswith(" others")


def test_a_side_without_a_large_move_is_counted():
    domains = [*(domain(f"big-{k}", 0.1, 0.2) for k in range(3)), *(domain(f"small-{k}", 0.1, 0.04) for k in range(5))]
    assert moves(domains) == ("5 domains", "big-0, big-1 and big-2")


def test_one_left_over_is_named_rather_than_counted():
    domains = [domain("a", 0.7, 0.4), domain("b", 0.1, 0.2), domain("c", 0.1, 0.21), domain("d", 0.1, 0.19)]
    assert moves(domains) == ("a", "c, b and d")


def test_the_size_of_the_chunk_is_told():
    assert sentence([domain("a", 0.5, 0.4), domain("b", 0.5, 0.6)], [task()], chunk_tokens=CHUNK * 120).startswith(
        "Move 10 % of the next 1.2 T tokens"
    )


def test_gains_without_an_error_are_named():
    assert missing_errors([task("a"), task("b")]) == ""
    assert missing_errors([task("a"), task("b", 0.01, None)]) == "The error is not known for b."
    assert "none can be told from zero" in missing_errors([task("b", 0.01, None), task("c", 0.01, math.nan)])


@pytest.mark.parametrize(
    ("consumed", "chunk", "max_epochs", "left"),
    [(100, 200, 4.0, "100"), (300, 100, 4.0, "none"), (300, 150, 4.0, "50 too many"), (0, 0, 0.0, "none")],
)
def test_what_is_left_is_told_in_words_where_it_is_no_number(consumed, chunk, max_epochs, left):
    row = domain(available_tokens=100.0, consumed_tokens=consumed, chunk_tokens=chunk, max_epochs=max_epochs)
    assert tokens_left(row) == left


def test_what_is_left_of_unknown_text_is_not_known():
    assert {tokens_left(domain(available_tokens=tokens)) for tokens in (math.nan, math.inf)} == {"not known"}


def test_the_cost_of_the_constraints_is_a_share_of_the_free_gain():
    tasks = [task("a", 0.010, unconstrained_gain=0.030), task("b", 0.010, unconstrained_gain=0.010)]
    said = cost_of_constraints(tasks, "nats").replace("\u00a0", " ")
    assert "0.020 instead of 0.010 nats per token, so the constraints cost 50 % of it; 1 of 2 tasks" in said
    assert "not known" in cost_of_constraints([task("a", math.nan)], "nats")
    assert "same to two digits" in cost_of_constraints([task("a")], "nats")


def test_gains_whose_scale_is_not_measured_are_told_as_shares():
    assert expectation([task("mmlu", 0.25, 0.04)], "share").replace("\u00a0", " ") == (
        "the task mmlu is expected to gain 0.25 ± 0.04 (share of the best possible)"
    )
    said = cost_of_constraints([task("a", 0.2, unconstrained_gain=0.4)], "share")
    assert "would be 0.40 instead of 0.20 (share of the best possible), so the constraints cost" in said


def test_a_single_task_has_no_mean():
    said = cost_of_constraints([task("a", 0.010, unconstrained_gain=0.020)], "nats")
    assert said.startswith("Without the constraints the expected gain of the task would be 0.020 instead of 0.010")
    assert "tasks" not in said


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
    assert words in rank_agreement(stability, 7)


def test_unstable_tasks_are_named_worst_first():
    stabilities = {"a": 0.5, "b": 0.95, "c": 0.1, "d": None, "e": math.nan}
    assert least_stable([task(name, rank_stability=value) for name, value in stabilities.items()]) == ["c", "a"]


def test_of_four_domains_no_rank_correlation_is_told():
    assert rank_agreement(0.9, 4) == (
        "Whether two halves of the measured text agree on the order of 4 domains tells next to nothing."
    )
