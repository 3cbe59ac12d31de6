"""Agreement of predictions with planted gains."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import pearsonr, spearmanr

from tikmix_pipeline.influence.agreement import (
    BASELINE,
    MEAN_GAIN,
    Agreement,
    agreement,
    agreement_table,
    raised,
    spearman_brown,
    validation_points,
)
from tikmix_pipeline.parameters.validation import Candidate

# axes: R replicates, T tasks, K domains


def planted(replicates: int, tasks: int, domains: int, *, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Predictions of unit variance, and gains that are three times as large, each with noise of its own."""
    generator = np.random.default_rng(seed)
    predicted_TK = generator.normal(size=(tasks, domains))
    gains_RTK = 3 * predicted_TK + noise * generator.normal(size=(replicates, tasks, domains))
    return gains_RTK, predicted_TK


def figures(found: Agreement) -> tuple[float, ...]:
    return (found.spearman, found.pearson, found.ceiling, found.pearson_ceiling, found.reliability)


def test_each_task_equals_the_definitions():
    gains_RTK, predicted_TK = planted(3, 2, 8, noise=2.0)
    found = agreement(gains_RTK, predicted_TK)
    pairs = [(0, 1), (0, 2), (1, 2)]
    for t, task in enumerate(found.tasks):
        gain_K, predicted_K = gains_RTK[:, t].mean(axis=0), predicted_TK[t]
        assert task.pearson == pytest.approx(pearsonr(gain_K, predicted_K).statistic)
        assert task.spearman == pytest.approx(spearmanr(gain_K, predicted_K).statistic)
        assert task.slope == pytest.approx(np.linalg.lstsq(predicted_K[:, None], gain_K)[0][0])
        single = [(gains_RTK[a, t], gains_RTK[b, t]) for a, b in pairs]
        assert task.ceiling == pytest.approx(np.mean([spearmanr(*pair).statistic for pair in single]))
        assert task.pearson_ceiling == pytest.approx(np.mean([pearsonr(*pair).statistic for pair in single]))
    assert found.mean.pearson == pytest.approx(np.mean([task.pearson for task in found.tasks]))
    mean_gain = pearsonr(gains_RTK.mean(axis=(0, 1)), predicted_TK.mean(axis=0)).statistic
    assert found.of_mean_gain.pearson == pytest.approx(mean_gain)


def test_exact_prediction_reaches_one_and_its_slope():
    gains_RTK, predicted_TK = planted(2, 3, 5, noise=0.0)
    for task in [*(found := agreement(gains_RTK, predicted_TK)).tasks, found.mean, found.of_mean_gain]:
        assert figures(task) == pytest.approx((1, 1, 1, 1, 1))
        assert task.slope == pytest.approx(3)
        assert task.pearson_interval == pytest.approx((1, 1))


def test_planted_correlation_slope_and_ceiling_are_recovered():
    """Signal 9, noise 9 per replicate: ceiling 1/2, reliability of four 4/5, reach of a perfect prediction its root."""
    found = agreement(*planted(4, 1, 20_000, noise=3.0), resamples=2).tasks[0]
    assert found.pearson_ceiling == pytest.approx(0.5, abs=0.02)
    assert found.reliability == pytest.approx(0.8, abs=0.02)
    assert found.pearson == pytest.approx(math.sqrt(0.8), abs=0.02)
    assert found.reachable == pytest.approx(found.pearson, abs=0.02)
    assert found.slope == pytest.approx(3, abs=0.05)
    assert found.ceiling == pytest.approx(6 / math.pi * math.asin(0.5 / 2), abs=0.02), "Spearman of a normal pair"


def test_reliability_grows_with_replicates_as_spearman_and_brown_say():
    assert spearman_brown(np.array([0.5, 1.0, 0.0, -0.4]), 3) == pytest.approx([0.75, 1, 0, 0])
    assert spearman_brown(np.array([0.5]), 1) == pytest.approx([0.5])


def test_correlations_see_no_shift_and_no_scale():
    gains_RTK, predicted_TK = planted(3, 2, 8, noise=2.0)
    before = agreement(gains_RTK, predicted_TK)
    after = agreement(5 * gains_RTK - 2, 0.01 * predicted_TK + 7)
    for one, other in zip(before.tasks, after.tasks, strict=True):
        assert figures(other) == pytest.approx(figures(one))


def test_slope_scales_with_gains_and_against_predictions():
    gains_RTK, predicted_TK = planted(3, 2, 8, noise=2.0)
    before, after = agreement(gains_RTK, predicted_TK), agreement(5 * gains_RTK, 0.1 * predicted_TK)
    for one, other in zip(before.tasks, after.tasks, strict=True):
        assert other.slope == pytest.approx(50 * one.slope)
        assert other.slope_interval == pytest.approx(tuple(50 * end for end in one.slope_interval))


def test_opposite_prediction_is_minus_one():
    gains_RTK, predicted_TK = planted(2, 1, 6, noise=0.0)
    found = agreement(gains_RTK, -predicted_TK).tasks[0]
    assert (found.pearson, found.spearman, found.slope) == pytest.approx((-1, -1, -3))


@pytest.mark.parametrize("constant", ["gains", "predictions"])
def test_constant_row_is_undefined_and_leaves_the_mean_to_the_others(constant):
    gains_RTK, predicted_TK = planted(3, 2, 6, noise=1.0)
    if constant == "gains":
        gains_RTK[:, 0] = 0.1
    else:
        predicted_TK[0] = 0.0
    found = agreement(gains_RTK, predicted_TK)
    assert math.isnan(found.tasks[0].pearson)
    assert math.isnan(found.tasks[0].spearman)
    assert all(map(math.isnan, found.tasks[0].pearson_interval))
    assert found.mean.pearson == found.tasks[1].pearson


def test_no_prediction_at_all_has_no_slope():
    gains_RTK, _ = planted(3, 1, 6, noise=1.0)
    assert math.isnan(agreement(gains_RTK, np.zeros((1, 6))).tasks[0].slope)


def test_failed_branches_are_left_out():
    gains_RTK, predicted_TK = planted(3, 2, 8, noise=2.0)
    gains_RTK[:, :, 5] = np.nan
    found = agreement(gains_RTK, predicted_TK)
    kept = agreement(np.delete(gains_RTK, 5, axis=2), np.delete(predicted_TK, 5, axis=1))
    for one, other in zip([*found.tasks, found.of_mean_gain], [*kept.tasks, kept.of_mean_gain], strict=True):
        assert figures(one) == pytest.approx(figures(other))
        assert one.slope == pytest.approx(other.slope)
    gains_RTK[0] = np.nan
    assert agreement(gains_RTK, predicted_TK).tasks[0].ceiling == pytest.approx(
        agreement(gains_RTK[1:], predicted_TK).tasks[0].ceiling
    )


def test_one_replicate_has_no_ceiling_but_all_else():
    found = agreement(*planted(1, 2, 6, noise=1.0)).mean
    assert math.isnan(found.ceiling)
    assert math.isnan(found.reachable)
    assert found.pearson > 0.8
    assert found.pearson_interval == pytest.approx((found.pearson, found.pearson))


def test_interval_holds_the_figure_narrows_with_replicates_and_repeats_with_its_seed():
    few, many = (agreement(*planted(count, 1, 12, noise=6.0)).tasks[0] for count in (3, 24))
    width = [high - low for low, high in (few.pearson_interval, many.pearson_interval)]
    assert few.pearson_interval[0] <= few.pearson <= few.pearson_interval[1]
    assert width[1] < width[0] / 2
    assert agreement(*planted(24, 1, 12, noise=6.0)).tasks[0] == many
    assert agreement(*planted(24, 1, 12, noise=6.0), seed=1).tasks[0].pearson_interval != many.pearson_interval


def test_single_domain_correlates_with_nothing():
    found = agreement(*planted(2, 1, 1, noise=1.0)).mean
    assert math.isnan(found.pearson)
    assert math.isnan(found.spearman)


def test_tables_of_branches_are_compared_on_the_half_asked_for_and_the_best_candidate_is_drawn():
    candidates = [Candidate(curvature="identity"), Candidate(curvature="adam")]
    gain = {("evaluation", "a"): 3.0, ("evaluation", "b"): 1.0, ("evaluation", "c"): 2.0}
    gain |= {("query", domain): -gain["evaluation", domain] for domain in "abc"}
    losses = pd.DataFrame(
        {"replicate": number, "branch": branch, "task": "quiz", "half": half, "loss": loss}
        for number in range(2)
        for half in ("query", "evaluation")
        for branch, loss in [(BASELINE, 9.0), *((raised(domain), 9.0 - gain[half, domain]) for domain in "abc")]
    )
    predictions = pd.DataFrame(
        {"candidate": one.label, "task": "quiz", "domain": domain, "predicted": sign * gain["evaluation", domain]}
        for one, sign in zip(candidates, (-1, 1), strict=True)
        for domain in "abc"
    )
    about = {"seed": 0, "round_number": 1, "branch_tokens": 8, "chunk_tokens": 16}
    for half, best in {"evaluation": candidates[1], "query": candidates[0]}.items():
        table = agreement_table(losses, predictions, candidates, half=half, **about)
        assert table.loc[table["best"], "curvature"].unique().tolist() == [best.label]
        assert table["replicates"].unique().tolist() == [2]
        points, shown = validation_points(losses, predictions, table, half=half)
        assert shown["kind"].unique().tolist() == [best.curvature]
        np.testing.assert_allclose(points["predicted"], points["measured"])
        assert points["task"].unique().tolist() == ["quiz", MEAN_GAIN]
