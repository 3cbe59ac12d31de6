"""Runs that diverged, were not measured or are copies decide nothing, and runs of an odd design do."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tikmix_pipeline.mixture.sweep.odd_runs import without_copies, without_odd_runs
from tikmix_pipeline.mixture.sweep.responses import Responses

FILE = Path("metrics.csv")


def scores(seed: int = 0, runs: int = 40) -> pd.DataFrame:
    """Return losses of three targets that spread by a twentieth."""
    values = np.random.default_rng(seed).normal(2.5, 0.1, (runs, 3))
    return pd.DataFrame(values, index=[f"r{n}" for n in range(runs)], columns=list("abc"))


@pytest.mark.parametrize("value", [10.8, 5000.0, 1e12, -8.0])
def test_a_run_that_is_far_from_the_others_in_most_scores_is_left_out_and_named(value: float, caplog):
    table = scores()
    table.loc["r5", ["a", "c"]] = value
    assert without_odd_runs(FILE, table) == [run for run in table.index if run != "r5"]
    assert "metrics.csv: 1 of 40 runs are left out, as they score far from the others" in caplog.text
    assert f"'a' is {value:.4g} in the first of them and 2." in caplog.text
    assert caplog.text.strip().endswith("'r5'")


@pytest.mark.parametrize("turned", [1, -1])
def test_minus_one_among_positive_scores_stands_for_none(turned: int, caplog):
    table = scores() * turned
    table.loc["r5", "b"] = -turned
    assert "r5" not in without_odd_runs(FILE, table)
    assert "as -1 among positive scores stands for one that was not measured: 'r5'" in caplog.text


@pytest.mark.parametrize("turned", [1, -1])
def test_a_score_of_one_is_a_score(turned: int, caplog):
    table = (scores() - 1.5) * turned
    table.loc["r5", "b"] = turned
    assert without_odd_runs(FILE, table) == list(table.index)
    table.loc["r6", "b"] = -3 * turned  # where scores have both signs, -1 may be one
    table.loc["r7", "b"] = -turned
    assert "r7" in without_odd_runs(FILE, table)
    assert not caplog.records


def test_one_odd_score_of_a_run_leaves_it_in(caplog):
    table = scores()
    table.loc["r5", "a"] = 50
    assert without_odd_runs(FILE, table) == list(table.index)
    assert not caplog.records


def test_runs_that_a_design_has_meant_count_and_are_told(caplog):
    table = scores()
    table.iloc[:6] += 8
    assert without_odd_runs(FILE, table) == list(table.index)
    assert "6 of 40 runs score far from the others ('r0', 'r1', 'r2', 'r3', 'r4')" in caplog.text


def test_one_run_of_few_may_have_diverged(caplog):
    table = scores(runs=8)
    table.loc["r5"] = 50
    assert "r5" not in without_odd_runs(FILE, table)


def test_scores_that_hardly_differ_and_few_runs_are_none_of_them_odd(caplog):
    table = scores() * 0 + 2.5
    table.iloc[3] = 2.52
    assert without_odd_runs(FILE, table) == list(table.index)
    table = scores(runs=7)
    table.iloc[3] = 50
    assert without_odd_runs(FILE, table) == list(table.index)
    assert not caplog.records


def test_of_runs_that_are_copies_one_counts(caplog):
    weights = np.array([[0.5, 0.5], [0.5, 0.5], [0.5, 0.5], [0.2, 0.8]])
    response = np.array([[1.0], [1.0], [1.5], [1.0]])
    found = Responses(("p", "q", "r", "s"), ("x", "y"), ("t",), weights, response)
    assert without_copies(FILE, found).runs == ("p", "r", "s")
    assert "1 of 4 runs are left out, as they have the mixture and the scores of another: 'q'" in caplog.text
    caplog.clear()
    assert without_copies(FILE, without_copies(FILE, found)).runs == ("p", "r", "s")
