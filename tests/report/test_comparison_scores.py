import numpy as np
import pandas as pd
import pytest
from comparison_examples import scores_of

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.report.comparison_scores import MEAN_OF_SPLIT, MEAN_OF_TASKS, is_task, wide_scores

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
