"""Tables of the notebook: what held a mixture, two runs beside each other, and whether it came true."""

import math

import pytest
from report_examples import mixture

from tikmix_pipeline.mixture.records import BindingRecord, DecisionRecord
from tikmix_pipeline.report.run_summary import RunSummary
from tikmix_pipeline.report.side_by_side import constraints_table, predicted_and_measured, side_by_side
from tikmix_pipeline.report.verdict import ScoreDifference, Verdict

TASKS = ("a", "b", "c", "d", "e")


def binding(name, kind, reason, multiplier):
    return BindingRecord(
        name=name, kind=kind, reason=reason, parameter="optimize.max_weight", bound=0.5, multiplier=multiplier
    )


def decision(gains, scale=2.0, bound=()):
    return DecisionRecord(
        strategy="direct",
        round=1,
        weights={"code": 0.5, "web": 0.5},
        expected_gain=gains,
        gain_scale=dict.fromkeys(gains, scale),
        binding=bound,
        notes=(),
    )


def summary(bits=1.5, web=0.5, verdict=None):
    scores = {"task": dict.fromkeys(TASKS, bits), "domain": {"code": bits, "web": 2.0}}
    return RunSummary(
        mixtures=(mixture(0, {"code": 0.5, "web": 0.5}), mixture(1, {"code": 1 - web, "web": web})),
        bits_per_byte=(scores,),
        final_bits_per_byte=scores,
        response=None,
        expected_gain={},
        notes=(),
        held={},
        verdict=verdict,
    )


def verdict(tasks):
    found = {
        task: ScoreDifference(decided=2.0, kept=2.0 - change, difference=change, low=change - 0.1, high=change + 0.1)
        for task, change in tasks.items()
    }
    mean = next(iter(found.values()))
    costs = {"training_flops": 1.0, "method_flops": 0.5}
    return Verdict(tasks=found, heldout={}, deciding=tuple(tasks), mean_of_heldout=mean, **costs)


def test_what_held_a_mixture_stands_with_its_price_the_dearest_first():
    held = (binding("web", "upper", "user", 0.1), binding("code", "upper", "user", 3.0))
    table = constraints_table(decision({"a": 1.0}, bound=(*held, binding("verse", "lower", "simplex", 9.0))))
    assert table.to_numpy().tolist() == [
        ["code", "at most 0.5 (optimize.max_weight)", 3.0],
        ["web", "at most 0.5 (optimize.max_weight)", 0.1],
    ]


def test_of_two_runs_the_difference_is_the_second_from_the_first():
    tables = side_by_side(summary(), summary(bits=1.25, web=0.75), ("one", "other"))
    assert list(tables) == [
        "mixture decided for the next chunk",
        "tasks, bits per byte",
        "held-out text, bits per byte",
    ]
    assert tables["tasks, bits per byte"].loc["a"].tolist() == [1.5, 1.25, -0.25]
    assert tables["mixture decided for the next chunk"]["difference"].to_dict() == {"code": -0.25, "web": 0.25}


def test_runs_of_one_name_have_columns_of_their_own():
    assert list(side_by_side(summary(), summary(), ("one", "one"))["tasks, bits per byte"])[:2] == ["one", "one (2)"]


def test_predictions_are_shares_and_what_came_is_a_gain_where_the_score_fell():
    found = verdict(dict(zip(TASKS, (-0.3, -0.2, -0.1, 0.0, 0.1), strict=True)))
    gains = dict(zip(TASKS, (5.0, 4.0, 3.0, 2.0, 1.0), strict=True))
    table, word = predicted_and_measured(summary(verdict=found), [decision(gains), decision(gains, scale=1.0)])
    assert table.loc["a"].tolist() == pytest.approx([(2.5 + 5.0) / 2, 0.3, 0.2, 0.4])
    assert word == "Spearman of predicted and measured over tasks: 1.00."


def test_of_four_tasks_no_correlation_is_told():
    found = verdict(dict.fromkeys(TASKS[:4], -0.1))
    _, word = predicted_and_measured(summary(verdict=found), [decision(dict.fromkeys(TASKS[:4], 1.0))])
    assert word.endswith("not told (4 points).")


def test_a_task_that_did_not_decide_has_no_prediction():
    table, _ = predicted_and_measured(summary(verdict=verdict({"a": -0.1, "b": -0.2})), [decision({"a": 1.0})])
    assert math.isnan(table.loc["b", "predicted"])


def test_without_a_verdict_the_table_is_empty_and_says_why():
    table, word = predicted_and_measured(summary(), [decision({"a": 1.0})])
    assert not len(table)
    assert "tikmix.verdict" in word
