import pandas as pd
import pytest
from comparison_examples import column, normal_scores, scores_of

from tikmix_pipeline.report.comparison_scores import MEAN_OF_TASKS
from tikmix_pipeline.report.comparison_table import comparison_summary, comparison_table

CLEAR = {
    (arm, seed): 1.0 + shift + 0.01 * seed for arm, shift in (("direct", 0.0), ("uniform", 0.5)) for seed in (0, 1, 2)
}
WITH_NOISE = CLEAR | {("unimax", seed): 1.0 + shift for seed, shift in enumerate((-0.1, 0.1, 0.05))}


def cells(table: str) -> dict[str, list[str]]:
    """Return the cells of each row of a Markdown table, by its first."""
    lines = [line for line in table.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return {row[0].strip("*"): row[1:] for row in rows}


def remarks(table: str) -> list[str]:
    return [line[2:] for line in table.splitlines() if line.startswith("- ")]


def test_tasks_are_rows_by_split_and_arms_are_columns():
    rows = cells(comparison_table(scores_of(WITH_NOISE), reference="direct"))
    assert list(rows)[2:] == [
        *("in-domain tasks", "piqa", "siqa", "mean of in-domain tasks"),
        *("out-of-domain tasks", "arc", "mean of out-of-domain tasks"),
        *("mean of all tasks", "held-out text of the domains", "code", "web", "mean of held-out text"),
        *("against direct, over the same seeds", "difference of all tasks", "difference of in-domain tasks"),
        *("difference of out-of-domain tasks", "win probability", "seeds won", "counts and costs"),
        *("best on (of 3 tasks)", "method FLOPs", "method tokens, share of training"),
    ]
    assert rows[""] == ["direct", "uniform", "unimax"]
    assert rows["piqa"] == ["**1.0100 ± 0.0100**", "1.5100 ± 0.0100", "1.0167 ± 0.1041"]


def test_lines_of_the_table_are_of_one_width():
    lines = [line for line in comparison_table(normal_scores(12, 3), reference="arm-3").splitlines() if line[:1] == "|"]
    assert len({len(line) for line in lines}) == 1


def test_differences_stand_under_their_arm_with_their_interval():
    rows = cells(comparison_table(scores_of(WITH_NOISE), reference="direct"))
    reference, clear, unsure = rows["difference of all tasks"]
    assert reference == "reference"
    assert clear == "+0.5000 (+0.5000 to +0.5000)"
    assert unsure.startswith("+0.0067 (-0.2")
    assert unsure.endswith("≈")
    assert rows["win probability"][1] == "< 1 %"
    assert rows["seeds won"][1:] == ["0 of 3", "1 of 3"]


def test_arm_that_cannot_be_told_apart_says_so():
    said = remarks(comparison_table(scores_of(WITH_NOISE), reference="direct"))
    assert len(said) == 1
    assert said[0].startswith("`unimax` is not distinguishable from `direct` on the mean of all tasks: +0.0067 (-0.2")
    assert said[0].endswith("over 3 seeds.")


def test_one_seed_has_no_interval_and_says_so():
    table = comparison_table(scores_of({("direct", 0): 1.0, ("uniform", 0): 1.5}), reference="direct")
    assert remarks(table) == [
        "`uniform` against `direct`: nothing can be told without an interval (one seed: no interval)."
    ]
    assert "±" not in table
    assert cells(table)["difference of all tasks"] == ["reference", "+0.5000"]


def test_arms_with_other_seeds_are_said_to_have_them():
    table = comparison_table(scores_of(CLEAR | {("unimax", 0): 2.0, ("unimax", 1): 2.1}), reference="direct")
    assert "`unimax` against `direct`: only over the seeds that both have: 0, 1." in remarks(table)
    assert any("their means are over different ones" in line for line in remarks(table))


def test_arms_trained_on_unequally_many_tokens_are_said_not_to_compare():
    scores = scores_of(CLEAR)
    scores.loc[scores["arm"] == "uniform", "train_tokens"] = 2000
    table = comparison_table(scores, reference="direct")
    assert "1,000 to 2,000 training tokens each" in table
    assert any("not trained on equally many tokens" in line for line in remarks(table))


def test_diverged_arm_leaves_the_others_their_table():
    values = CLEAR | {("doremi", seed): float("nan") for seed in (0, 1, 2)}
    table = comparison_table(scores_of(values), reference="direct")
    assert cells(table)["piqa"][2] == "-"
    assert cells(table)["difference of all tasks"][1:] == ["+0.5000 (+0.5000 to +0.5000)", "-"]
    assert any("`doremi`" in line and "no finite score of both at seed 0, 1, 2" in line for line in remarks(table))


def test_caption_names_measure_seeds_tokens_and_reference():
    caption = comparison_table(scores_of(CLEAR), reference="direct").splitlines()[0]
    for part in ("whole items (question and answer)", "seeds 0, 1, 2", "1,000 training tokens", "arm minus `direct`"):
        assert part in caption
    answers = comparison_table(scores_of(CLEAR), reference="direct", measure="bpb_answer")
    assert "gold answer" in answers.splitlines()[0]
    assert "held-out" not in answers.lower()
    scores = scores_of(CLEAR)
    choices = comparison_table(scores.assign(choice=scores["bpb_answer"]), reference="direct", measure="choice")
    assert "Nats per item" in choices.splitlines()[0]
    assert "held-out" not in choices.lower()


def test_costs_stand_under_their_arm():
    rows = cells(comparison_table(scores_of(CLEAR, direct=50.0), reference="direct"))
    assert rows["method FLOPs"] == ["3.00e+05", "0"]
    assert rows["method tokens, share of training"] == ["5 %", "0 %"]
    assert rows["best on (of 3 tasks)"] == ["3", "0"]


def test_pipe_in_a_name_does_not_break_the_table():
    scores = scores_of(CLEAR).replace({"task": {"piqa": "pi|qa"}})
    assert r"pi\|qa" in comparison_table(scores, reference="direct")


def test_summary_says_of_every_arm_and_task_what_the_table_says():
    scores = scores_of(WITH_NOISE, direct=50.0)
    summary = comparison_summary(scores, reference="direct")
    assert len(summary) == 3 * 9
    row = column(summary, "uniform", MEAN_OF_TASKS)
    assert (row["mean"], row["difference"]) == (pytest.approx(1.51), pytest.approx(0.5))
    assert (row["reference"], row["measure"], row["distinguishable"]) == ("direct", "bpb", True)
    own = column(summary, "direct", MEAN_OF_TASKS)
    assert own[["difference", "low", "high", "p_value"]].isna().all()
    assert (own["best_on"], own["method_share"], own["distinguishable"], own["note"]) == (3, 0.05, False, "")


def test_summaries_of_two_measures_can_be_stacked_and_stored(tmp_path):
    scores = scores_of(WITH_NOISE)
    both = pd.concat([comparison_summary(scores, reference="direct", measure=m) for m in ("bpb", "bpb_answer")])
    both.to_parquet(tmp_path / "summary.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "summary.parquet"), both)


def test_arms_that_did_not_come_through_are_named():
    expected = [(arm, seed) for arm in ("direct", "uniform", "wild") for seed in (0, 1, 2, 3)]
    said = remarks(comparison_table(scores_of(CLEAR), reference="direct", expected=expected))
    assert said == [
        "`direct` did not come through for the seeds 3, and is left out of those.",
        "`uniform` did not come through for the seeds 3, and is left out of those.",
        "`wild` did not come through for the seeds 0, 1, 2, 3, and is left out of those.",
    ]


def test_reference_alone_is_a_table():
    table = comparison_table(scores_of({("direct", 0): 1.0}), reference="direct")
    assert cells(table)["piqa"] == ["**1.0000**"]
    assert not remarks(table)
