import math

import numpy as np
import pandas as pd
import pytest
from comparison_examples import TEXTS, column, normal_scores, scores_of
from scipy.stats import kstest, ttest_rel

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.report.comparison_scores import (
    MEAN_OF_SPLIT,
    MEAN_OF_TASKS,
    arm_costs,
    arm_statistics,
    best_on,
    is_task,
    loss_curves,
    measures_of,
    paired_differences,
    wide_scores,
)

TWO_RUNS = {("b", 1): [1, 2, 6, 10, 20], ("b", 0): 3.0, ("a", 0): 4.0}


def test_means_weigh_tasks_equally_and_leave_heldout_text_out():
    row = wide_scores(scores_of(TWO_RUNS)).loc["b", 1]
    assert row["in_domain", MEAN_OF_SPLIT["in_domain"]] == 1.5
    assert row["out_of_domain", MEAN_OF_SPLIT["out_of_domain"]] == 6
    assert row["all", MEAN_OF_TASKS] == 3
    assert row["heldout", MEAN_OF_SPLIT["heldout"]] == 15


def test_arms_and_tasks_keep_their_order_and_seeds_are_sorted():
    wide = wide_scores(scores_of(TWO_RUNS))
    assert list(wide.index) == [("b", 0), ("b", 1), ("a", 0)]
    assert [task for _, task in wide.columns] == [
        *("piqa", "siqa", "mean of in-domain tasks", "arc", "mean of out-of-domain tasks", "mean of all tasks"),
        *("code", "web", "mean of held-out text"),
    ]
    assert list(wide.columns[is_task(wide)].get_level_values("task")) == ["piqa", "siqa", "arc"]


def test_answers_have_no_heldout_text():
    wide = wide_scores(scores_of(TWO_RUNS), "bpb_answer")
    assert "heldout" not in wide.columns.get_level_values("split")
    assert wide.loc[("b", 1), ("all", MEAN_OF_TASKS)] == 1.5


def test_choices_are_of_tasks_with_options_alone():
    scores = scores_of(TWO_RUNS)
    assert measures_of(scores) == measures_of(scores.assign(choice=np.nan)) == ["bpb", "bpb_answer"]
    scores["choice"] = scores["bpb"].where(scores["task"].isin(["siqa", "arc", "code"]))
    assert measures_of(scores) == ["bpb", "bpb_answer", "choice"]
    row = wide_scores(scores, "choice").loc["b", 1]
    assert set(row.index.get_level_values("task")) == {"siqa", "arc", *MEAN_OF_SPLIT.values(), MEAN_OF_TASKS} - {
        MEAN_OF_SPLIT["heldout"]
    }
    assert row["all", MEAN_OF_TASKS] == 4


def test_mean_over_choices_with_an_undefined_one_is_undefined():
    scores = scores_of({("a", 0): [np.nan, 1, 1, 1, 1], ("b", 0): 1.0})
    wide = wide_scores(scores.assign(choice=scores["bpb"].where(scores["split"] != "heldout")), "choice")
    assert np.isnan(wide.loc[("a", 0), ("all", MEAN_OF_TASKS)])
    assert wide.loc[("b", 0), ("all", MEAN_OF_TASKS)] == 1


def test_split_without_tasks_has_no_mean():
    scores = scores_of(TWO_RUNS)
    wide = wide_scores(scores[scores["split"] != "out_of_domain"])
    assert MEAN_OF_SPLIT["out_of_domain"] not in wide.columns.get_level_values("task")
    assert wide.loc[("b", 1), ("all", MEAN_OF_TASKS)] == 1.5


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_mean_with_an_undefined_score_is_undefined(value: float):
    wide = wide_scores(scores_of({("a", 0): [value, 1, 1, 1, 1], ("b", 0): 1.0}))
    assert np.isnan(wide.loc["a", 0][["in_domain", "all"]].xs("piqa", level="task")).all()
    assert np.isnan(wide.loc[("a", 0), ("all", MEAN_OF_TASKS)])
    assert wide.loc[("a", 0), ("out_of_domain", "arc")] == 1
    assert wide.loc["b"].notna().all(axis=None)


def test_task_and_domain_of_one_name_stay_apart():
    scores = scores_of({("a", 0): [1, 2, 3, 4, 5]}).replace({"task": {"code": "piqa"}})
    wide = wide_scores(scores)
    assert (wide.loc[("a", 0), ("in_domain", "piqa")], wide.loc[("a", 0), ("heldout", "piqa")]) == (1, 4)


BREAK = {
    "column": lambda scores: scores.drop(columns="method_flops"),
    "empty": lambda scores: scores.head(0),
    "twice": lambda scores: pd.concat([scores, scores.tail(1)]),
    "task": lambda scores: scores.drop(index=scores.index[scores["arm"] == "a"][[0, 2]]),
    "split": lambda scores: scores.replace({"split": {"heldout": "test"}}),
    "tasks": lambda scores: scores[scores["split"] == "heldout"],
    "costs": lambda scores: scores.assign(train_tokens=np.arange(len(scores))),
}


@pytest.mark.parametrize(
    ("how", "complaint"),
    [
        ("column", "scores lacks the column method_flops"),
        ("empty", "scores has no rows"),
        ("twice", "two rows of arm a, seed 0, split heldout, task web"),
        ("task", r"Arm 'a', seed 0, has no score of piqa \(in_domain\) and 1 more, which other arms have"),
        ("split", "the split test: expected in_domain, out_of_domain, heldout"),
        ("tasks", "no tasks, only held-out text"),
        ("costs", "Arm 'b', seed 1, has more than one train_tokens"),
    ],
)
def test_scores_that_do_not_compare_are_refused(how: str, complaint: str):
    with pytest.raises(TikmixError, match=complaint):
        wide_scores(BREAK[how](scores_of(TWO_RUNS)))


DIFFERENCES = (-0.1, -0.2, 0.0, -0.4)


def pair(differences: tuple[float, ...]) -> pd.DataFrame:
    """Return an arm that differs from a reference by so much, whose seeds are far apart."""
    seeds = {("reference", seed): 1.0 + seed for seed in range(len(differences))}
    return scores_of(seeds | {("arm", seed): 1.0 + seed + shift for seed, shift in enumerate(differences)})


def test_means_and_deviations_are_over_seeds():
    row = column(arm_statistics(normal_scores(2, 5)), "arm-1", "piqa")
    scores = normal_scores(2, 5)
    values = scores[(scores["arm"] == "arm-1") & (scores["task"] == "piqa")]["bpb"]
    assert (row["seeds"], row["mean"], row["sd"]) == (
        5,
        pytest.approx(values.mean()),
        pytest.approx(values.std(ddof=1)),
    )


def test_one_seed_has_a_mean_and_no_deviation():
    row = column(arm_statistics(scores_of({("a", 0): 2.0})), "a", "piqa")
    assert row["mean"] == 2
    assert math.isnan(row["sd"])


@pytest.mark.parametrize("seeds", [2, 3, 12])
def test_interval_and_p_value_are_those_of_scipys_paired_t_test(seeds: int):
    scores = normal_scores(3, seeds)
    for arm in ("arm-1", "arm-2"):
        row = column(paired_differences(scores, reference="arm-0"), arm, "siqa")
        one, other = (
            scores[(scores["arm"] == name) & (scores["task"] == "siqa")]["bpb"].to_numpy() for name in (arm, "arm-0")
        )
        test = ttest_rel(one, other)
        interval = test.confidence_interval(0.95)
        assert row["p_value"] == pytest.approx(test.pvalue)
        assert (row["low"], row["high"]) == (pytest.approx(interval.low), pytest.approx(interval.high))
        assert row["distinguishable"] == (test.pvalue < 0.05)


def test_differences_are_arm_minus_reference_and_pairing_removes_what_seeds_share():
    row = column(paired_differences(pair(DIFFERENCES), reference="reference"), "arm", MEAN_OF_TASKS)
    assert row["difference"] == pytest.approx(-0.175)
    assert row["sd"] == pytest.approx(np.std(DIFFERENCES, ddof=1))
    assert row["sd"] < 0.2 < arm_statistics(pair(DIFFERENCES))["sd"].min()


def test_tie_counts_half_of_a_seed():
    row = column(paired_differences(pair((-0.5, 0.0)), reference="reference"), "arm", "piqa")
    assert row["share_won"] == 0.75


def test_win_probability_is_that_of_a_new_seed():
    """Below the difference of a fifth seed lies what four seeds say with a probability that is uniform."""
    rng = np.random.default_rng(0)
    stated = []
    for _ in range(60):
        drawn_SC = rng.normal(size=(5, len(TEXTS)))
        values = {("r", s): 0.0 for s in range(4)} | {("arm", s): list(drawn_SC[s] - drawn_SC[4]) for s in range(4)}
        rows = paired_differences(scores_of(values), reference="r").set_index("task")
        stated += rows.loc[[task for task, _ in TEXTS], "win_probability"].tolist()
    assert kstest(stated, "uniform").pvalue > 0.2


@pytest.mark.parametrize(("shift", "probability", "p_value"), [(-0.5, 1.0, 0.0), (0.5, 0.0, 0.0), (0.0, 0.5, 1.0)])
def test_seeds_that_agree_exactly_leave_no_doubt(shift: float, probability: float, p_value: float):
    row = column(paired_differences(pair((shift,) * 3), reference="reference"), "arm", "piqa")
    assert (row["win_probability"], row["p_value"], row["difference"]) == (probability, p_value, shift)
    assert row["distinguishable"] == (shift != 0)


def test_one_seed_has_a_difference_and_no_interval():
    row = column(paired_differences(pair((-0.5,)), reference="reference"), "arm", "piqa")
    assert (row["difference"], row["share_won"], row["note"]) == (-0.5, 1.0, "one seed: no interval")
    assert row[["sd", "low", "high", "p_value", "win_probability"]].isna().all()
    assert not row["distinguishable"]


def test_arms_are_paired_over_the_seeds_that_both_have():
    values = {("reference", seed): 1.0 + seed for seed in (0, 1, 2)} | {("arm", seed): 0.5 + seed for seed in (1, 2, 7)}
    row = column(paired_differences(scores_of(values), reference="reference"), "arm", "piqa")
    assert (row["seeds"], row["difference"]) == (2, -0.5)
    assert row["note"] == "only over the seeds that both have: 1, 2"


def test_arms_without_a_seed_in_common_have_no_difference():
    row = column(paired_differences(scores_of({("r", 0): 1.0, ("arm", 1): 2.0}), reference="r"), "arm", "piqa")
    assert (row["seeds"], row["note"], row["distinguishable"]) == (0, "no seed in common", False)
    assert math.isnan(row["difference"])


def test_diverged_arm_has_no_difference_where_its_score_is_missing():
    values = {("r", 0): 1.0, ("r", 1): 1.0, ("arm", 0): 2.0, ("arm", 1): [np.inf, 2, 2, 2, 2]}
    differences = paired_differences(scores_of(values), reference="r")
    for task in ("piqa", MEAN_OF_TASKS):
        row = column(differences, "arm", task)
        assert row["note"] == "no finite score of both at seed 1"
        assert row[["difference", "low", "win_probability", "share_won"]].isna().all()
    assert column(differences, "arm", "siqa")["difference"] == 1


def test_unknown_reference_is_refused_with_the_arms_there_are():
    with pytest.raises(
        TikmixError, match="no scores of 'doremi', which the arms are compared with, only of reference, arm"
    ):
        paired_differences(pair(DIFFERENCES), reference="doremi")


def test_reference_alone_compares_with_nothing():
    differences = paired_differences(scores_of({("r", 0): 1.0}), reference="r")
    assert not len(differences)
    assert "distinguishable" in differences.columns


def test_best_arm_of_each_task_is_counted_and_ties_are_shared():
    values = {("a", 0): [1, 2, 2, 0, 0], ("b", 0): [1, 1, 3, 9, 9], ("c", 0): [1, 4, 4, 9, 9]}
    counts = best_on(scores_of(values)).set_index("arm")
    assert counts["best_on"].to_dict() == pytest.approx({"a": 1 / 3 + 1, "b": 1 / 3 + 1, "c": 1 / 3})
    assert counts["best_on"].sum() == pytest.approx(3)
    assert set(counts["tasks"]) == {3}


def test_best_is_judged_over_the_seeds_that_all_arms_have():
    """Else an arm could be best by having run an easy seed alone."""
    values = {("a", 0): 5.0, ("a", 1): 1.0, ("b", 0): 4.0}
    assert best_on(scores_of(values)).set_index("arm")["best_on"].to_dict() == {"a": 0, "b": 3}


def test_arm_that_diverged_is_best_on_nothing():
    values = {("a", 0): [np.nan, 9, 9, 9, 9], ("b", 0): [5, 10, 10, 10, 10]}
    assert best_on(scores_of(values)).set_index("arm")["best_on"].to_dict() == {"a": 2, "b": 1}


def test_costs_are_averaged_over_seeds_and_told_as_a_share_of_training():
    scores = scores_of(dict.fromkeys([("a", 0), ("a", 1), ("b", 0)], 1.0), a=50.0)
    scores.loc[scores["seed"] == 1, "method_tokens"] = 150.0
    costs = arm_costs(scores).set_index("arm")
    assert costs.loc["a", ["seeds", "method_tokens", "method_share", "method_flops"]].tolist() == [2, 100, 0.1, 3e5]
    assert costs.loc["b", "method_share"] == 0


def test_interval_covers_a_true_difference_nineteen_times_of_twenty():
    rng = np.random.default_rng(1)
    covered = []
    for _ in range(60):
        shifts = rng.normal(0.3, 1.0, (3, len(TEXTS)))
        values = {("r", s): 1.0 for s in range(3)} | {("arm", s): list(1.0 + shifts[s]) for s in range(3)}
        rows = paired_differences(scores_of(values), reference="r")
        rows = rows[rows["task"].isin([task for task, _ in TEXTS])]
        covered += ((rows["low"] < 0.3) & (rows["high"] > 0.3)).tolist()
    assert np.mean(covered) == pytest.approx(0.95, abs=0.03)


ROUNDS = pd.DataFrame(
    [(arm, seed, number, 100 * (number + 1), 3.0 - number) for arm in "ba" for seed in (0, 1) for number in (1, 0, 2)],
    columns=["arm", "seed", "round", "train_tokens", "bpb"],
)


def costs(*rows: tuple[str, int, int, float]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["arm", "seed", "round", "method_tokens"])


def totals(curves: pd.DataFrame, arm: str, seed: int) -> list[float]:
    return curves[(curves["arm"] == arm) & (curves["seed"] == seed)]["total_tokens"].tolist()


def test_cost_counts_from_the_round_that_it_decided_on():
    curves = loss_curves(ROUNDS, costs(("b", 0, 1, 7.0), ("b", 0, 1, 3.0), ("b", 0, 2, 5.0), ("a", 1, 2, 1.0)))
    assert totals(curves, "b", 0) == [100, 210, 315]
    assert totals(curves, "b", 1) == [100, 200, 300]
    assert totals(curves, "a", 1) == [100, 200, 301]


def test_rounds_are_sorted_within_a_run_and_arms_keep_their_order():
    curves = loss_curves(ROUNDS, costs())
    assert list(curves["arm"].unique()) == ["b", "a"]
    assert curves["round"].tolist() == [0, 1, 2] * 4


def test_cost_of_a_round_that_was_not_trained_is_refused():
    with pytest.raises(TikmixError, match="Arm 'b', seed 0, has a cost of deciding round 3, but no score"):
        loss_curves(ROUNDS, costs(("b", 0, 3, 7.0)))
