import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.report.comparison_influence import (
    ALL_ARMS,
    influence_against_score,
    mixture_influence,
    rank_stability,
)

DOMAINS = [f"d{k}" for k in range(8)]
TASKS = ["piqa", "siqa", "arc"]


def influence_rows(
    drift: float, noise: float, *, arms: str = "ab", seeds: int = 3, rounds: int = 3, stderr: float | None = None
) -> pd.DataFrame:
    """Draw influence that moves away from its first ranks by `drift` a round, measured with `noise`."""
    rng = np.random.default_rng(0)
    now_TK, rows = rng.normal(size=(len(TASKS), len(DOMAINS))), []
    for number in range(rounds):
        for arm in arms:
            for seed in range(seeds):
                measured_TK = now_TK + noise * rng.normal(size=now_TK.shape)
                rows += [
                    (arm, seed, number, task, domain, measured_TK[t, k], noise if stderr is None else stderr)
                    for t, task in enumerate(TASKS)
                    for k, domain in enumerate(DOMAINS)
                ]
        now_TK = now_TK + drift * rng.normal(size=now_TK.shape)
    columns = ["arm", "seed", "round", "task", "domain", "influence", "stderr"]
    return pd.DataFrame(rows, columns=columns)


def pair(table: pd.DataFrame, arm: str, first: int, second: int) -> pd.Series:
    chosen = (table["arm"] == arm) & (table["round"] == first) & (table["other_round"] == second)
    (row,) = (row for _, row in table[chosen].iterrows())
    return row


def test_stability_is_the_mean_over_tasks_and_seeds_of_scipys_correlation():
    rows = influence_rows(0.5, 0.2)
    wide = rows.pivot(index=["arm", "seed", "task"], columns=["round", "domain"], values="influence")
    expected = [spearmanr(wide.loc[key][0], wide.loc[key][2]).statistic for key in wide.index]
    table = rank_stability(rows)
    assert pair(table, ALL_ARMS, 0, 2)["spearman"] == pytest.approx(np.mean(expected))
    of_a = [value for key, value in zip(wide.index, expected, strict=True) if key[0] == "a"]
    assert pair(table, "a", 0, 2)["spearman"] == pytest.approx(np.mean(of_a))


def test_every_pair_of_rounds_has_a_row_for_each_arm_and_for_all():
    table = rank_stability(influence_rows(0.1, 0.1))
    assert list(table["arm"].unique()) == ["a", "b", ALL_ARMS]
    assert [tuple(pair) for pair in table[table["arm"] == "a"][["round", "other_round"]].to_numpy()] == [
        (0, 1),
        (0, 2),
        (1, 2),
    ]
    assert set(table["seeds"]) == {3}
    assert set(table["tasks"]) == {3}
    assert set(table["resampled"]) == {"seeds and tasks"}


def test_interval_holds_the_correlation_and_is_the_same_at_every_call():
    table = rank_stability(influence_rows(0.5, 0.3))
    assert ((table["low"] <= table["spearman"]) & (table["spearman"] <= table["high"])).all()
    assert (table["low"] < table["high"]).all()
    pd.testing.assert_frame_equal(table, rank_stability(influence_rows(0.5, 0.3)))


def test_what_noise_alone_does_is_within_reach_and_what_drift_does_is_below():
    noise = pair(rank_stability(influence_rows(0.0, 0.5)), ALL_ARMS, 0, 2)
    assert noise["spearman"] == pytest.approx(noise["reachable"], abs=0.12)
    assert noise["reachable"] < 0.95
    drift = pair(rank_stability(influence_rows(2.0, 0.05)), ALL_ARMS, 0, 2)
    assert drift["high"] < 0.9 < drift["reachable"]


def test_influence_that_is_all_noise_reaches_nothing():
    assert set(rank_stability(influence_rows(0.5, 0.1, stderr=100.0))["reachable"]) == {0}


def test_arms_that_share_their_measurements_count_once_per_seed():
    """Copies of an arm are no new evidence: the interval stays as wide."""
    rows = influence_rows(0.5, 0.3, arms="a")
    copies = pd.concat([rows.assign(arm=name) for name in "abcdef"])
    one, many = (pair(rank_stability(table), ALL_ARMS, 0, 2) for table in (rows, copies))
    assert (one["low"], one["high"]) == (pytest.approx(many["low"]), pytest.approx(many["high"]))


def test_one_seed_is_resampled_over_tasks_and_one_task_too_over_nothing():
    rows = influence_rows(0.5, 0.3, seeds=1)
    assert set(rank_stability(rows)["resampled"]) == {"tasks"}
    single = rank_stability(rows[rows["task"] == "piqa"])
    assert set(single["resampled"]) == {"nothing"}
    assert single[["low", "high"]].isna().all(axis=None)


def test_arm_that_measured_once_has_no_row():
    rows = influence_rows(0.5, 0.3)
    table = rank_stability(rows[(rows["arm"] == "a") | (rows["round"] == 0)])
    assert list(table["arm"].unique()) == ["a", ALL_ARMS]
    assert pair(table, ALL_ARMS, 0, 1)["spearman"] == pair(table, "a", 0, 1)["spearman"]


@pytest.mark.parametrize("rows", [influence_rows(0.5, 0.3, rounds=1), influence_rows(0.5, 0.3).query("domain == 'd0'")])
def test_one_round_or_one_domain_has_no_stability(rows: pd.DataFrame):
    table = rank_stability(rows)
    assert not len(table)
    assert "reachable" in table.columns


def measured(seeds: int = 2) -> pd.DataFrame:
    influence = {("piqa", "code"): 4.0, ("piqa", "web"): -2.0, ("siqa", "code"): 0.0, ("siqa", "web"): 0.5}
    rows = [(seed, *key, value * (1 + seed)) for seed in range(seeds) for key, value in influence.items()]
    return pd.DataFrame(rows, columns=["seed", "task", "domain", "influence"])


def mixtures(**shares: float) -> pd.DataFrame:
    """Return the mixtures of two seeds by the arm's share of code."""
    rows = [
        (arm, seed, domain, weight)
        for arm, code in shares.items()
        for seed in (0, 1)
        for domain, weight in (("web", 1 - code), ("code", code))
    ]
    return pd.DataFrame(rows, columns=["arm", "seed", "domain", "weight"])


def test_total_influence_is_that_of_the_seeds_own_measurement():
    found = mixture_influence(measured(), mixtures(a=0.25)).set_index("seed")
    assert found["total"].tolist() == pytest.approx([4 * 0.25 - 2 * 0.75 + 0.5 * 0.75, 2 * (4 * 0.25 - 1.5 + 0.375)])
    assert found["scaled"].tolist() == pytest.approx([0.25 - 0.5 * 0.75 + 1.0 * 0.75] * 2), "no task outweighs another"


def test_task_without_influence_adds_nothing():
    nothing = measured().assign(influence=0.0)
    assert (mixture_influence(nothing, mixtures(a=0.5))[["total", "scaled"]] == 0).all(axis=None)


def test_mixture_of_other_domains_is_refused():
    with pytest.raises(TikmixError, match="Arm 'a', seed 0: its mixture is of code, its seed's influence of code, web"):
        mixture_influence(measured(), mixtures(a=0.5).query("domain == 'code'"))


def test_seeds_that_were_not_measured_are_left_out():
    assert mixture_influence(measured(seeds=1), mixtures(a=0.5, b=0.1))["seed"].tolist() == [0, 0]


def test_arms_that_measure_nothing_have_nothing_to_correlate():
    assert not len(rank_stability(influence_rows(0.5, 0.3).head(0)))
    points = mixture_influence(measured().head(0), mixtures(a=0.5)).assign(bpb=1.0)
    rows = influence_against_score(points)
    assert rows["mixtures"].tolist() == [0, 0]
    assert rows[["pearson", "pearson_low", "spearman"]].isna().all(axis=None)


def points(mixtures: int, noise: float) -> pd.DataFrame:
    """Return mixtures whose bits per byte fall with influence, at seeds that shift all of them."""
    rng = np.random.default_rng(0)
    total_N = rng.normal(size=mixtures)
    rows = [
        (f"m{n}", seed, total_N[n], -total_N[n], 5 + 3 * seed - total_N[n] + noise * rng.normal())
        for n in range(mixtures)
        for seed in (0, 1)
    ]
    return pd.DataFrame(rows, columns=["arm", "seed", "total", "scaled", "bpb"])


def test_influence_that_lowers_bits_per_byte_correlates_positively():
    total, scaled = influence_against_score(points(10, noise=0.3)).to_dict("records")
    assert 0.8 < total["pearson"] < 1
    assert total["pearson_low"] < total["pearson"] < total["pearson_high"]
    assert scaled["pearson"] == pytest.approx(-total["pearson"])
    assert (total["mixtures"], total["seeds"], total["note"]) == (10, 2, "")


def test_only_seeds_that_all_mixtures_have_are_averaged():
    """Else a mixture that ran a hard seed alone would look worse."""
    rows = points(10, noise=0.0)
    partial = influence_against_score(rows[(rows["seed"] == 0) | (rows["arm"] != "m3")]).to_dict("records")[0]
    assert (partial["seeds"], partial["note"]) == (1, "only over the seeds that all have: 0")
    assert partial["pearson"] == pytest.approx(1)


def test_mixtures_that_diverged_are_left_out_and_named():
    rows = points(10, noise=0.3)
    rows.loc[rows["arm"].isin(["m1", "m2"]), "bpb"] = np.nan
    row = influence_against_score(rows).to_dict("records")[0]
    assert (row["mixtures"], row["note"]) == (8, "left out, as not finite: m1, m2")


def test_mixtures_without_a_seed_in_common_are_not_correlated():
    rows = points(2, noise=0.0)
    row = influence_against_score(rows[(rows["seed"] == 0) == (rows["arm"] == "m0")]).to_dict("records")[0]
    assert (row["mixtures"], row["note"]) == (0, "no seed has all arms")
    assert np.isnan(row["pearson"])
