import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.mixture.sweep.far_runs import near_runs

FILE = Path("metrics.csv")
ROOT = Path(__file__).parents[3]
SURFACES = sorted(ROOT.glob("benchmarks/surfaces/*/branches.csv"))
CASES = ROOT.parent / "shared" / "cases" / "tables"
REGMIX = ROOT.parent / "shared" / "regmix"


def mixtures(runs, seed=0):
    return np.random.default_rng(seed).dirichlet(np.ones(4), size=runs)


def near(values, weights_NK=None, higher=False, far_runs="leave_out"):
    """Read one column `web`, or the columns of a frame, of runs in the lines from 2 on."""
    scores = values if isinstance(values, pd.DataFrame) else pd.DataFrame({"web": np.asarray(values, dtype=float)})
    scores.index = pd.Index([f"r{n}" for n in range(len(scores))])
    lines = pd.Series(range(2, len(scores) + 2), index=scores.index)
    weights_NK = mixtures(len(scores)) if weights_NK is None else weights_NK
    return near_runs(FILE, scores, lines, [higher] * scores.shape[1], weights_NK, far_runs)


def losses(weights_NK):
    return 2.5 + 0.3 * np.exp(-2 * weights_NK[:, 0]) + np.random.default_rng(1).normal(0, 0.01, len(weights_NK))


@pytest.mark.parametrize("runs", [24, 64])
@pytest.mark.parametrize(
    ("to_score", "value", "higher"),
    [
        (lambda loss_N: loss_N, 10.8, False),
        (lambda loss_N: loss_N, -1, False),
        (lambda loss_N: loss_N, 0, False),
        (lambda loss_N: loss_N, 1e12, False),
        (np.exp, 5000, False),
        (np.exp, -1, False),
        (lambda loss_N: 1.6 - 0.4 * loss_N, -1, True),
        (lambda loss_N: 1.6 - 0.4 * loss_N, -999, True),
        (lambda loss_N: 1.6 - 0.4 * loss_N, 58.1, True),
        (lambda loss_N: -40 * loss_N, -900, True),
        (lambda loss_N: -40 * loss_N, 1, True),
    ],
)
def test_a_run_that_cannot_be_as_the_others_is_left_out_and_told(caplog, runs, to_score, value, higher):
    score_N = to_score(losses(mixtures(runs)))
    assert near(score_N, higher=higher) == list(range(runs))
    score_N[5] = value
    caplog.clear()
    assert near(score_N, higher=higher) == [n for n in range(runs) if n != 5]
    (said,) = (record.getMessage() for record in caplog.records if record.levelno == logging.WARNING)
    assert f"metrics.csv: 1 of {runs} runs are left out" in said
    assert f"line 7, column 'web': 'r5' has {value:g}, where the median is {np.median(score_N):.4g}" in said


def test_of_several_columns_the_one_that_is_farthest_off_is_named(caplog):
    score_N = losses(mixtures(24))
    frame = pd.DataFrame({"web": score_N, "code": score_N + 1})
    frame.loc[5, ["web", "code"]] = [9.0, 90.0]
    assert 5 not in near(frame)
    assert "column 'code': 'r5' has 90" in caplog.text


def test_more_than_a_few_such_runs_are_refused():
    score_N = losses(mixtures(64))
    score_N[:6] = 10.8
    assert near(score_N) == list(range(6, 64))
    score_N[6] = 10.8
    with pytest.raises(
        TikmixError, match=r"metrics\.csv: 7 of 64 runs .* \(10%\): line 2, .*; and 4 more\. Mend these"
    ):
        near(score_N)


@pytest.mark.parametrize("count", [1, 7])
def test_runs_that_the_user_keeps_count_and_are_named(caplog, count):
    score_N = losses(mixtures(64))
    score_N[:count] = 10.8
    assert near(score_N, far_runs="keep") == list(range(64))
    assert f"{count} of 64 runs have scores far from all others', and count" in caplog.text
    assert "line 2, column 'web': 'r0' has 10.8" in caplog.text


def test_the_only_good_run_of_a_target_stays():
    score_N = losses(mixtures(24))
    score_N[5] = 0.7 * score_N.min()
    assert near(score_N) == list(range(24))
    score_N[5] = 2 * score_N.max()
    assert 5 not in near(score_N), "as far off to the worse side"


def test_a_mixture_that_is_far_out_may_score_far_out():
    """A design around one mixture, with a corner beside it."""
    around_NK = np.random.default_rng(0).dirichlet(np.full(4, 300.0), size=24)
    around_NK[5] = [0, 0, 0, 1]
    score_N = 2 + 0.5 * (around_NK[:, 0] + 0.01) ** -0.3
    deviation = 1.4826 * np.median(np.abs(score_N - np.median(score_N)))
    assert score_N[5] - np.median(score_N) > 20 * deviation
    assert near(score_N, around_NK) == list(range(24))
    around_NK[5] = around_NK[4]
    assert near(score_N, around_NK) == [n for n in range(24) if n != 5], "the score of a corner, of no corner"


@pytest.mark.parametrize("strength", [0.3, 1, 5])
@pytest.mark.parametrize("runs", [24, 64])
@pytest.mark.parametrize("to_score", [lambda loss: loss, np.exp, lambda loss: -loss])
def test_a_bad_corner_of_a_power_law_stays(runs, strength, to_score):
    for seed in range(10):
        weights_NK = np.random.default_rng(seed).dirichlet(np.full(4, strength), size=runs)
        weights_NK[0] = [0, 0, 0, 1]
        score_N = to_score(2 + 0.5 * (weights_NK[:, 0] + 0.01) ** -0.3)
        assert near(score_N, weights_NK) == list(range(runs))


def test_runs_that_agree_but_for_little_tell_nothing():
    assert near([2.5] * 23 + [2.6]) == list(range(24))
    assert near([0.25] * 14 + [0.24, 0.26, 0.23, 0.27, 0.22, 0.28, 0.21, 0.29, 0.25, 0.2], higher=True) == [*range(24)]
    assert near([2.5] * 23 + [9]) == list(range(23))
    assert near([0.0] * 24) == list(range(24))
    assert near([0.0] * 12 + [1.0] * 12) == list(range(24))


def test_of_very_few_runs_none_is_the_odd_one():
    assert near([2.5, 2.6, 2.4, 2.5, 2.55, 2.45, 10.8]) == list(range(7))
    assert near([2.5, 2.6, 2.4, 2.5, 2.55, 2.45, 2.5, 10.8]) == list(range(7))


@pytest.mark.parametrize("path", SURFACES, ids=lambda path: path.parent.name)
@pytest.mark.parametrize("to_score", [lambda loss: loss, np.exp])
def test_real_branches_stay_all_of_them_and_24_at_a_time(path, to_score):
    table = pd.read_csv(path).drop(columns="branch")
    is_weight = table.columns.str.startswith("weight/")
    weights, scores = table.loc[:, is_weight], table.loc[:, ~is_weight]
    draw = np.random.default_rng(0)
    for chosen in (np.arange(len(table)), *(draw.choice(len(table), 24, replace=False) for _ in range(20))):
        found = near(to_score(scores.iloc[chosen]), weights.iloc[chosen].to_numpy())
        assert len(found) == len(chosen)


def test_there_are_real_branches_to_tell():
    assert len(SURFACES) == 4


@pytest.mark.skipif(not REGMIX.is_dir(), reason="RegMix's table is not in ../shared/regmix")
@pytest.mark.parametrize("split", ["train", "test"])
def test_the_runs_of_regmix_stay_all_of_them_and_24_at_a_time(split):
    weights, scores = (
        pd.read_csv(REGMIX / f"{split}_{kind}_1m.csv", index_col="index") for kind in ("mixture", "pile_loss")
    )
    draw = np.random.default_rng(0)
    for chosen in (np.arange(len(scores)), *(draw.choice(len(scores), 24, replace=False) for _ in range(100))):
        assert len(near(scores.iloc[chosen], weights.iloc[chosen].to_numpy())) == len(chosen)


@pytest.mark.skipif(not CASES.is_dir(), reason="the cases are not in ../shared/cases/tables")
@pytest.mark.parametrize("size", ["", "small_"])
def test_the_runs_of_the_stored_cases_stay(size):
    weights, scores = (
        pd.read_csv(CASES / f"{size}{kind}.csv", index_col="run").sort_index() for kind in ("ratios", "metrics")
    )
    assert weights.index.equals(scores.index)
    assert len(near(scores, weights.to_numpy())) == len(weights)
