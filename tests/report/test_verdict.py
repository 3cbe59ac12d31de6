"""The verdict of a run: its figures against bits per byte and a bootstrap, and its sentence for every outcome."""

import math

import numpy as np
import pandas as pd
import pytest

from tikmix_pipeline.report.verdict import Verdict, in_a_sentence, verdict_on, verdict_rows

TASKS = ("piqa", "siqa")


def items(change: float = 0.0, *, seed: int = 0, spread: float = 0.2, size: int = 60) -> pd.DataFrame:
    """Nats and bytes of the items of two tasks and one domain, every task's loss higher by so many bits per byte."""
    common, own = np.random.default_rng(0), np.random.default_rng([seed, 1])
    tables = []
    for name, kind, measure in [
        *((task, "task", measure) for task in TASKS for measure in ("answer", "text")),
        ("code", "domain", "text"),
    ]:
        length_I = common.integers(20, 200, size).astype(float)
        bits_I = common.normal(2.5, 0.3, size) + own.normal(0, spread, size)
        bits_I += change if kind == "task" else -change
        columns = {"name": name, "kind": kind, "measure": measure, "item": np.arange(size)}
        tables.append(pd.DataFrame(columns | {"nats": bits_I * length_I * math.log(2), "bytes": length_I}))
    return pd.concat(tables, ignore_index=True)


def verdict(change: float, *, deciding: tuple[str, ...] = TASKS, method: float = 12.0, **given: float) -> Verdict:
    return verdict_on(
        items(change, seed=1, **given),
        items(seed=2, **given),
        deciding=deciding,
        training_flops=100.0,
        method_flops=method,
    )


def test_a_difference_is_that_of_the_bits_per_byte_of_the_two_models() -> None:
    decided, kept = items(-0.3, seed=1), items(seed=2)
    found = verdict_on(decided, kept, deciding=TASKS, training_flops=1.0, method_flops=0.0)

    def bits_per_byte(table: pd.DataFrame, name: str) -> float:
        rows = table[(table["name"] == name) & (table["measure"] == "text")]
        return float(rows["nats"].sum() / math.log(2) / rows["bytes"].sum())

    for task in TASKS:
        assert found.tasks[task].decided == pytest.approx(bits_per_byte(decided, task))
        assert found.tasks[task].kept == pytest.approx(bits_per_byte(kept, task))
    assert found.mean_of_tasks is not None
    expected = np.mean([bits_per_byte(decided, task) - bits_per_byte(kept, task) for task in TASKS])
    assert found.mean_of_tasks.difference == pytest.approx(expected)
    assert found.mean_of_heldout == found.heldout["code"]


def test_models_are_paired_by_item_whatever_the_order_of_the_rows() -> None:
    decided, kept = items(-0.3, seed=1), items(seed=2)
    shuffled = kept.sample(frac=1, random_state=0)
    arguments = {"deciding": TASKS, "training_flops": 1.0, "method_flops": 0.0}
    assert verdict_on(decided, shuffled, **arguments) == verdict_on(decided, kept, **arguments)  # type: ignore[arg-type]


def test_what_items_have_in_common_does_not_widen_the_interval() -> None:
    """One item is far harder than another for both models; their difference is the same on all."""
    kept = items()
    decided = kept.assign(nats=kept["nats"] - 0.01 * kept["bytes"])
    found = verdict_on(decided, kept, deciding=TASKS, training_flops=1.0, method_flops=0.0).mean_of_tasks
    assert found is not None
    assert found.difference == pytest.approx(-0.01 / math.log(2))
    assert found.high - found.low < 1e-9


@pytest.mark.parametrize("broken", ["fewer", "others"])
def test_models_that_were_scored_on_other_items_are_not_compared(broken: str) -> None:
    kept = items()
    other = kept.iloc[1:] if broken == "fewer" else kept.assign(bytes=kept["bytes"] + 1)
    for pair in ((kept, other), (other, kept)):
        with pytest.raises(ValueError, match="not scored on the same items"):
            verdict_on(*pair, deciding=TASKS, training_flops=1.0, method_flops=0.0)


@pytest.mark.parametrize(
    ("change", "word", "direction"),
    [(-0.3, "Better than keeping the prior: 0.", "lower"), (0.3, "Worse than keeping the prior: 0.", "higher")],
)
def test_a_clear_difference_is_better_or_worse_and_its_interval_has_no_sign(
    change: float, word: str, direction: str
) -> None:
    found = verdict(change)
    told = in_a_sentence(found)
    assert told.startswith(word)
    mean = found.mean_of_tasks
    assert mean is not None
    low, high = sorted((abs(mean.low), abs(mean.high)))
    assert f" bits per byte {direction} on the mean of 2 tasks (95 % interval {low:.3f} to {high:.3f} over" in told
    assert "of other seeds it tells nothing" in told
    other = "higher" if direction == "lower" else "lower"
    assert f" {other} on held-out text of the domains (" in told
    assert told.endswith(", for 12\u00a0% more compute.")


def test_a_difference_within_its_interval_is_level_whatever_its_sign() -> None:
    for change in (-0.001, 0.001):
        told = in_a_sentence(verdict(change, spread=0.5))
        assert told.startswith("Level with keeping the prior: 0.0")
        assert " lower to 0." in told


def test_a_difference_that_is_shown_as_nothing_is_level_however_sure() -> None:
    found = verdict(-0.0003, spread=1e-6)
    assert found.mean_of_tasks is not None
    assert found.mean_of_tasks.sign == -1
    assert in_a_sentence(found).startswith("Level with keeping the prior: 0.000")


def test_tasks_that_only_judge_have_a_clause_of_their_own() -> None:
    told = in_a_sentence(verdict(-0.3, deciding=("siqa",)))
    assert "bits per byte lower on the task (95 % interval" in told
    assert "lower on the task that only judges (" in told


def test_where_no_task_decides_the_held_out_text_is_what_counts() -> None:
    told = in_a_sentence(verdict(0.3, deciding=()))
    assert told.startswith("Better than keeping the prior: 0.")
    assert "bits per byte lower on held-out text of the domains (95 % interval" in told
    assert "over their windows" in told
    assert "higher on the mean of 2 tasks that only judge (" in told


def test_a_decision_that_costs_nothing_says_so() -> None:
    assert in_a_sentence(verdict(-0.3, method=0.0)).endswith(", for no more compute.")


def test_a_single_item_leaves_the_verdict_open() -> None:
    told = in_a_sentence(verdict(-0.3, size=1))
    assert told.startswith("Undecided against keeping the prior: 0.")
    assert "95 % interval not known" in told
    assert verdict_rows(verdict(-0.3, size=1))[0][-1] == "not known"


def test_the_table_has_every_task_and_the_means() -> None:
    rows = verdict_rows(verdict(-0.3, deciding=("siqa",)))
    names = ["piqa", "siqa", "mean of tasks", "mean of those that only judge", "mean of held-out text"]
    assert [row[0] for row in rows] == names
    assert {len(row) for row in rows} == {5}


def test_a_verdict_is_read_back_as_it_was_written() -> None:
    for deciding in (TASKS, ("siqa",), ()):
        found = verdict(-0.3, deciding=deciding)
        assert Verdict.from_json(found.to_json()) == found
