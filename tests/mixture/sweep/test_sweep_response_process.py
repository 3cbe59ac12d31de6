"""The surrogate around the response model, and the branches that are chosen by it."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import spearmanr, t

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.mixture.bounds import Bounds
from tikmix_pipeline.mixture.second_order import second_order_gains
from tikmix_pipeline.mixture.sweep.branches_told import BranchesTold
from tikmix_pipeline.mixture.sweep.evidence import Evidence
from tikmix_pipeline.mixture.sweep.response_mean import ResponseMean
from tikmix_pipeline.mixture.sweep.response_process import ResponseProcess, ResponseProcesses
from tikmix_pipeline.mixture.sweep.sequential import (
    design_sequentially,
    expected_improvement,
    mean_gain,
    next_mixtures,
)
from tikmix_pipeline.mixture.sweep.surrogates import load_surrogate, save_surrogate

K, T = 5, 2
DOMAINS = tuple(f"d{k}" for k in range(K))
SHARES = np.full(T, 1 / T)


def problem(seed=0, scale=0.03, saturation=0.85, beyond=0.0, noise=0.0):
    """Return what influence tells, and losses that follow it but for `beyond` and noise."""
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(K, K))
    mean = ResponseMean(rng.normal(size=(T, K)), root @ root.T / 2, np.full(K, 1 / K), 0.85)
    bumps = rng.normal(size=(T, K))

    def losses(weights_NK):
        gain_NT = second_order_gains(mean.influence_TK, mean.curved_KK, saturation, weights_NK, mean.reference_K)
        other_NT = beyond * np.sqrt(weights_NK) @ bumps.T
        return 3 - scale * gain_NT + other_NT + noise * rng.normal(size=gain_NT.shape)

    return mean, losses, rng


def fitted(mean, losses, rng, rows):
    weights_NK = rng.dirichlet(np.full(K, 0.7), size=rows)
    processes = mean.processes()
    return processes.fit(weights_NK, losses(weights_NK)), weights_NK


@pytest.mark.parametrize("seed", range(4))
def test_where_influence_is_right_four_branches_tell_all_others(seed):
    mean, losses, rng = problem(seed)
    processes, _ = fitted(mean, losses, rng, 4)
    others_MK = rng.dirichlet(np.full(K, 0.7), size=60)
    predicted_M, measured_M = (side(others_MK).mean(axis=1) for side in (processes.predict, losses))
    assert spearmanr(predicted_M, measured_M).statistic > 0.95


def test_another_saturation_is_learned_from_few_branches():
    mean, losses, rng = problem(3, saturation=0.3)
    processes, _ = fitted(mean, losses, rng, 8)
    others_MK = rng.dirichlet(np.full(K, 0.7), size=60)
    told_M = second_order_gains(mean.influence_TK, mean.curved_KK, 0.85, others_MK, mean.reference_K).mean(axis=1)
    measured_M = losses(others_MK).mean(axis=1)
    ours = spearmanr(processes.predict(others_MK).mean(axis=1), measured_M).statistic
    assert ours > max(0.97, spearmanr(-told_M, measured_M).statistic)


def test_where_influence_is_wrong_many_branches_outvote_it():
    mean, _, rng = problem(1)
    weights_NK, others_MK = (rng.dirichlet(np.full(K, 0.7), size=rows) for rows in (40, 60))
    against = ResponseProcess(mean.influence_TK[0], mean.curved_KK, mean.reference_K, 0.85)
    told = -against._features(np.vstack([weights_NK, others_MK]))[0]
    opposite_N = -told  # what influence promises is what is lost
    process = against.fit(weights_NK, opposite_N[:40])
    assert spearmanr(process.predict(others_MK), opposite_N[40:]).statistic > 0.8


def test_intervals_hold_what_branches_measure():
    inside = []
    for seed in range(12):
        mean, losses, rng = problem(seed, beyond=0.02, noise=0.004)
        processes, _ = fitted(mean, losses, rng, 10)
        others_MK = rng.dirichlet(np.full(K, 0.7), size=80)
        found = processes.posterior(others_MK)
        half_MT = t.ppf(0.95, 8) * np.hypot(found.deviation_MT, found.noise_T)
        inside.append((np.abs(losses(others_MK) - found.mean_MT) <= half_MT).mean())
    assert 0.8 <= np.mean(inside) <= 0.97


def test_a_level_that_all_losses_share_changes_no_gain():
    mean, losses, rng = problem(2, beyond=0.01)
    weights_NK = rng.dirichlet(np.ones(K), size=8)
    response_NT = losses(weights_NK)
    one, other = (
        ResponseProcesses(mean.influence_TK, mean.curved_KK, mean.reference_K, 0.85).fit(
            weights_NK, response_NT + level
        )
        for level in (0.0, 7.0)
    )
    found, again = (p.gain(weights_NK[0], mean.reference_K, SHARES) for p in (one, other))
    np.testing.assert_allclose(found, again, rtol=1e-4, atol=1e-7)


def test_a_gain_is_surer_than_the_losses_it_is_of_and_that_over_itself_is_none():
    mean, losses, rng = problem(2, beyond=0.02, noise=0.002)
    processes, weights_NK = fitted(mean, losses, rng, 8)
    process = processes.processes_[0]
    gain, deviation = process.gain(weights_NK[0], weights_NK[1])
    (one, other), deviation_2 = process.posterior(weights_NK[:2])
    assert gain == pytest.approx(other - one)
    assert deviation <= np.hypot(*deviation_2) + 1e-12
    assert process.gain(weights_NK[0], weights_NK[0]) == pytest.approx((0.0, 0.0), abs=1e-6)


def test_a_target_that_never_moves_is_predicted_as_it_is():
    mean, _, rng = problem()
    weights_NK = rng.dirichlet(np.ones(K), size=8)
    processes = ResponseProcesses(mean.influence_TK, mean.curved_KK, mean.reference_K, 0.85)
    processes.fit(weights_NK, np.full((8, T), 2.5))
    assert np.array_equal(processes.predict(weights_NK), np.full((8, T), 2.5))
    assert processes.gain(weights_NK[0], weights_NK[1], SHARES) == (0.0, 0.0)


def elsewhere(losses, rng, rows, level=0.0, source=1):
    weights_EK = rng.dirichlet(np.full(K, 0.7), size=rows)
    return Evidence(weights_EK, losses(weights_EK) + level, np.full(rows, source))


def with_evidence(mean, evidence, weights_NK, response_NT):
    return replace(mean, evidence=evidence).processes().fit(weights_NK, response_NT)


@pytest.mark.parametrize("seed", range(3))
def test_branches_from_elsewhere_tell_what_influence_and_few_own_branches_do_not(seed):
    mean, losses, rng = problem(seed, beyond=0.05, noise=0.001)
    weights_NK, others_MK = (rng.dirichlet(np.full(K, 0.7), size=rows) for rows in (5, 80))
    own_NT, truth_M = losses(weights_NK), losses(others_MK).mean(axis=1)
    both = [with_evidence(mean, some, weights_NK, own_NT) for some in (None, elsewhere(losses, rng, 40, level=0.7))]
    alone, together = (spearmanr(one.predict(others_MK).mean(axis=1), truth_M).statistic for one in both)
    assert together > max(0.97, alone)
    deviations = [one.posterior(others_MK).deviation_MT.mean() for one in both]
    assert deviations[1] < deviations[0]


def test_branches_that_respond_in_another_way_are_not_believed():
    mean, losses, rng = problem(4, beyond=0.02, noise=0.001)
    weights_NK, others_MK = (rng.dirichlet(np.full(K, 0.7), size=rows) for rows in (16, 80))
    own_NT, truth_M = losses(weights_NK), losses(others_MK).mean(axis=1)
    noise = elsewhere(lambda weights_NK: 3 + 0.05 * rng.normal(size=(len(weights_NK), T)), rng, 40)
    alone, misled = (
        spearmanr(with_evidence(mean, some, weights_NK, own_NT).predict(others_MK).mean(axis=1), truth_M).statistic
        for some in (None, noise)
    )
    assert misled > alone - 0.03


def test_a_level_and_an_order_of_sources_change_nothing():
    mean, losses, rng = problem(2, beyond=0.02)
    weights_NK = rng.dirichlet(np.ones(K), size=6)
    own_NT, first, second = losses(weights_NK), elsewhere(losses, rng, 9), elsewhere(losses, rng, 7, source=2)

    def together(*parts):
        return Evidence(
            *(np.concatenate([getattr(p, name) for p in parts]) for name in ("weights_EK", "loss_ET", "source_E"))
        )

    raised = replace(first, loss_ET=first.loss_ET + 5)
    renamed = replace(second, source_E=second.source_E - 1), replace(raised, source_E=raised.source_E + 1)
    found = [
        with_evidence(mean, some, weights_NK, own_NT).posterior(weights_NK)
        for some in (together(first, second), together(raised, second), together(*renamed))
    ]
    for other in found[1:]:
        np.testing.assert_allclose(other.mean_MT, found[0].mean_MT, atol=2e-5)
        np.testing.assert_allclose(other.deviation_MT, found[0].deviation_MT, rtol=0.05, atol=1e-6)


def test_what_rows_and_levels_tell_is_that_of_a_joint_normal_with_wide_levels():
    """The oracle: levels with a variance so large that they are flat, all in one dense covariance."""
    mean, losses, rng = problem(5, beyond=0.03, noise=0.002)
    weights_NK = rng.dirichlet(np.ones(K), size=6)
    processes = with_evidence(mean, elsewhere(losses, rng, 8, level=2.0), weights_NK, losses(weights_NK))
    process, others_MK = processes.processes_[0], rng.dirichlet(np.ones(K), size=5)
    wide = 1e4
    same_NN = process.source_[:, None] == process.source_[None]
    covariance_NN = process._covariance(process.theta_) + wide * same_NN
    across_MN = process._kernel(others_MK, process.weights_) + wide * (process.source_ == 0)
    solved_NM = np.linalg.solve(covariance_NN, across_MN.T)
    mean_M = process._mean(others_MK) + solved_NM.T @ (process.response_ - process._mean(process.weights_))
    prior_M = process._kernel(others_MK, others_MK).diagonal() + wide
    deviation_M = np.sqrt(prior_M - (across_MN * solved_NM.T).sum(axis=1)) * process.correction_
    found = process.posterior(others_MK)
    np.testing.assert_allclose(found[0], mean_M, atol=1e-5)
    np.testing.assert_allclose(found[1], deviation_M, rtol=1e-2)


@pytest.mark.parametrize("rows", [0, 9])
def test_it_is_saved_and_read_back(tmp_path, rows):
    mean, losses, rng = problem(beyond=0.01)
    weights_NK = rng.dirichlet(np.full(K, 0.7), size=8)
    some = elsewhere(losses, rng, rows) if rows else None
    processes = with_evidence(mean, some, weights_NK, losses(weights_NK))
    save_surrogate(processes, tmp_path)
    assert np.array_equal(load_surrogate(tmp_path).predict(weights_NK), processes.predict(weights_NK))


def found(weights_K, direct_K, mean, kept="surrogate"):
    return SimpleNamespace(weights_K=weights_K, direct_K=direct_K, reference_K=mean.reference_K, kept=kept)


def test_a_mixture_that_branches_do_not_tell_from_that_of_direct_is_not_taken():
    mean, losses, rng = problem(0)
    exact, weights_NK = fitted(mean, losses, rng, 8)
    gains_N = losses(mean.reference_K[None]).mean() - losses(weights_NK).mean(axis=1)
    best_K, worst_K = weights_NK[gains_N.argmax()], weights_NK[gains_N.argmin()]
    sure = BranchesTold(exact, SHARES, 8)
    assert sure.alike(found(best_K, worst_K, mean)) is None
    nearly_K = 0.999 * best_K + 0.001 * worst_K
    noisy, _ = fitted(
        mean, lambda w_NK: losses(w_NK) + 0.05 * np.random.default_rng(1).normal(size=(len(w_NK), T)), rng, 8
    )
    unsure = BranchesTold(noisy, SHARES, 8).alike(found(best_K, nearly_K, mean))
    assert "8 branches do not tell the mixture that was found from D's" in unsure
    assert sure.alike(found(worst_K, best_K, mean)) is not None, "nor is one that is worse"
    assert sure.alike(found(best_K, worst_K, mean, kept="direct")) is None


def test_what_is_decided_is_told_in_nats_and_beside_that_of_direct():
    mean, losses, rng = problem(0)
    processes, weights_NK = fitted(mean, losses, rng, 8)
    told = BranchesTold(processes, SHARES, 8)
    gain, low, high = told.gain(weights_NK[0], mean.reference_K)
    assert low <= gain <= high
    assert f"{gain:.3g} nats per token ({low:.3g} to {high:.3g}); D's mixture" in told.expected(
        found(weights_NK[0], weights_NK[1], mean)
    )
    assert "D's mixture" not in told.expected(found(weights_NK[0], weights_NK[0], mean, kept="direct"))


def test_expected_improvement_is_the_mean_of_what_is_gained():
    draws = np.random.default_rng(0).normal(size=200_000)
    found = expected_improvement(np.array([0.1, -0.2, 0.0]), np.array([0.3, 0.1, 1e-12]), 0.05)
    assert found[0] == pytest.approx(np.maximum(0.1 + 0.3 * draws - 0.05, 0).mean(), rel=0.01)
    assert found[1] == pytest.approx(np.maximum(-0.2 + 0.1 * draws - 0.05, 0).mean(), rel=0.1)
    assert found[2] == pytest.approx(0, abs=1e-12)


def test_a_batch_does_not_choose_a_mixture_twice():
    mean, losses, rng = problem(4, beyond=0.05)
    processes, weights_NK = fitted(mean, losses, rng, 5)
    pool_MK = rng.dirichlet(np.ones(K), size=200)
    picks = [*next_mixtures(processes, pool_MK, weights_NK, SHARES, reference_K=mean.reference_K, count=4)]
    assert len({pick.index for pick in picks}) == 4
    best_M = mean_gain(processes, pool_MK, SHARES)[0]
    assert picks[0].expected_gain <= best_M.max() - mean_gain(processes, mean.reference_K[None], SHARES)[0][0] + 1e-9


def run(mean, losses, branches=10, bounds=None, batch=2, failing=()):
    bounds, trained = bounds or Bounds.simplex(DOMAINS), {}

    def measure(mixtures):
        for name, weights_K in mixtures.items():
            if name not in failing:
                trained.setdefault(name, losses(weights_K[None])[0])
        return {name: trained[name] for name in mixtures if name in trained}

    gain_K = mean.influence_TK.mean(axis=0)
    design = design_sequentially(
        measure,
        mean,
        direct_K=bounds.project(np.eye(K)[gain_K.argmax()]),
        reference_K=bounds.project(mean.reference_K),
        bounds=bounds,
        guard=None,
        share_T=SHARES,
        branches=branches,
        batch=batch,
        seed=0,
    )
    return design, trained


@pytest.mark.parametrize("seed", range(3))
def test_few_branches_find_what_is_nearly_the_best_of_all_mixtures(seed):
    mean, losses, rng = problem(seed, beyond=0.004, saturation=0.5)
    design, trained = run(mean, losses)
    every_NK = rng.dirichlet(np.full(K, 0.5), size=20_000)
    best, start = losses(every_NK).mean(axis=1).min(), losses(mean.reference_K[None]).mean()
    reached = min(float(loss_T.mean()) for loss_T in trained.values())
    assert start - reached > 0.9 * (start - best)
    steps = design.table(trained, SHARES)
    assert list(steps["chosen_for"][:2]) == ["what gains are over", "TiKMiX-D's mixture"]
    chosen = steps[steps["chosen_for"] == "expected improvement"]
    assert (chosen["expected_improvement"] > 0).all()
    assert chosen["measured_gain"].notna().all()


def test_where_nothing_more_is_to_be_expected_it_stops_before_the_branches_are_spent():
    mean, losses, _ = problem(0)
    rng = np.random.default_rng(5)
    design, _ = run(mean, lambda weights_NK: losses(weights_NK) + 0.02 * rng.normal(size=(1, T)), branches=40)
    assert 8 <= len(design.mixtures) < 40
    assert "below what one branch is off by" in design.stopped_for


def test_no_branch_is_outside_the_bounds():
    mean, losses, _ = problem(1, beyond=0.03)
    bounds = Bounds(DOMAINS, Bounds.simplex(DOMAINS).lower, tuple(limit for limit in Bounds.simplex(DOMAINS).upper))
    design, _ = run(mean, losses, bounds=bounds)
    for weights_K in design.mixtures.values():
        assert weights_K.sum() == pytest.approx(1, abs=1e-9)
        assert weights_K.min() >= 0


def test_a_branch_that_fails_is_left_out_and_one_that_gains_are_over_is_asked_for():
    mean, losses, _ = problem(1, beyond=0.03)
    design, trained = run(mean, losses, failing=("between",))
    assert np.isnan(design.table(trained, SHARES).set_index("run").loc["between", "measured_gain"])
    with pytest.raises(TikmixError, match="the reference's and 2 others are needed"):
        run(mean, losses, failing=("reference",))
