"""What a few branches say of the response, and how sure they are of it."""

import math

import numpy as np
import pandas as pd
import pytest

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.mixture.bounds import Bounds, mixture_bounds
from tikmix_pipeline.mixture.constraints import Supply
from tikmix_pipeline.mixture.response_branches import (
    DIRECT,
    REFERENCE,
    BranchLosses,
    branch_mixtures,
    measured_response,
)
from tikmix_pipeline.mixture.response_fit import coordinates, fit_response
from tikmix_pipeline.parameters import OptimizeParameters

DOMAINS = ["d0", "d1", "d2", "d3"]


def problem(seed, branches):
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(4, 4))
    mean, curved, reference = rng.normal(size=4), root @ root.T / 2, np.full(4, 0.25)
    return rng, mean, curved, reference, rng.dirichlet(np.full(4, 0.7), size=branches)


@pytest.mark.parametrize("r", [0.1, 0.5, 1.2])
def test_branches_without_noise_give_scale_and_saturation_whatever_the_rule(r):
    _, mean, curved, reference, weights = problem(0, 8)
    x, z = coordinates(mean, curved, weights, reference)
    fitted = fit_response(x, z, 0.03 * (x - r * z), rule=0.5)
    assert fitted.scale == pytest.approx(0.03, rel=1e-3)
    assert fitted.saturation == pytest.approx(r, rel=1e-2)


def test_where_branches_say_little_the_rule_says_the_rest():
    """Two branches of much noise leave r near the rule; forty of little have their own."""
    found = {}
    for count, noise in ((2, 0.03), (40, 0.003)):
        values = []
        for seed in range(30):
            rng, mean, curved, reference, weights = problem(seed, count)
            x, z = coordinates(mean, curved, weights, reference)
            gains = 0.03 * (x - 1.5 * z) + rng.normal(0, noise, count)
            values.append(fit_response(x, z, gains, rule=0.5).saturation)
        found[count] = float(np.median(values))
    assert found[2] < 1.2
    assert found[40] == pytest.approx(1.5, rel=0.2)


@pytest.mark.parametrize("branches", [5, 12])
def test_nine_of_ten_branches_are_inside_the_interval_for_nine_of_ten(branches):
    inside = []
    for seed in range(300):
        rng, mean, curved, reference, weights = problem(seed, branches + 20)
        x, z = coordinates(mean, curved, weights, reference)
        gains = 0.03 * (x - 0.5 * z) + rng.normal(0, 0.01, len(x))
        fitted = fit_response(x[:branches], z[:branches], gains[:branches], rule=0.5)
        at = x[branches:], z[branches:]
        inside.append(np.abs(fitted.mean_gain(*at) - gains[branches:]) <= fitted.half_width(*at, 0.9))
    assert np.mean(inside) == pytest.approx(0.9, abs=0.04)


@pytest.mark.parametrize("seed", range(6))
def test_the_reference_s_own_branch_counts_for_nothing(seed):
    rng, mean, curved, _, weights = problem(seed, 6)
    reference = rng.dirichlet(np.ones(4))
    x, z = coordinates(mean, curved, np.vstack([reference, weights]), reference)
    gains = 0.02 * (x - 0.4 * z) + np.array([0.0, 1, -1, 1, -1, 1, -1]) * 1e-4
    with_it, without = fit_response(x, z, gains, 0.5), fit_response(x[1:], z[1:], gains[1:], 0.5)
    assert (with_it.scale, with_it.noise, with_it.freedom) == (without.scale, without.noise, without.freedom)


def test_branches_that_differ_by_noise_alone_tell_no_scale_and_leave_the_rule():
    told = []
    for seed in range(60):
        rng, mean, curved, reference, weights = problem(seed, 5)
        x, z = coordinates(mean, curved, weights, reference)
        fitted = fit_response(x, z, rng.normal(0, 0.01, 5), rule=0.5)
        told.append(fitted.is_told)
        if not fitted.is_told:
            assert fitted.saturation == 0.5
        assert 0.1 <= fitted.saturation <= 2.5
    assert np.mean(told) < 0.4


def test_bounds_that_leave_one_mixture_are_refused_before_a_branch_is_trained():
    parameters = OptimizeParameters.model_validate({"pinned": dict.fromkeys(DOMAINS, 0.25)})
    bounds = mixture_bounds(parameters, dict.fromkeys(DOMAINS, Supply(math.inf)), 1000)
    with pytest.raises(TikmixError, match=r"leave 1 mixtures that differ.*optimize\.branches=0"):
        branch_mixtures(np.full(4, 0.25), np.full(4, 0.25), bounds, count=4, seed=0)


def test_branches_are_the_reference_the_decision_one_between_and_mixtures_that_fill_the_space():
    reference, direct = np.full(4, 0.25), np.array([0.85, 0.05, 0.05, 0.05])
    found = branch_mixtures(reference, direct, Bounds.simplex(DOMAINS), count=6, seed=0)
    assert list(found) == [REFERENCE, DIRECT, "between", "spread 03", "spread 04", "spread 05"]
    np.testing.assert_allclose(found["between"], (reference + direct) / 2)
    rows = np.stack(list(found.values()))
    np.testing.assert_allclose(rows.sum(axis=1), 1)
    apart = np.linalg.norm(np.sqrt(rows[:, None]) - np.sqrt(rows), axis=2) + np.eye(6)
    assert apart[3:].min() > 0.5


def test_branches_stay_inside_the_bounds():
    parameters = OptimizeParameters.model_validate({"max_weight": 0.4})
    bounds = mixture_bounds(parameters, dict.fromkeys(DOMAINS, Supply(math.inf)), 1000)
    found = branch_mixtures(np.full(4, 0.25), np.array([0.4, 0.4, 0.1, 0.1]), bounds, count=8, seed=0)
    assert len(found) == 8
    assert all(weights.max() <= 0.4 + 1e-6 for weights in found.values())


def test_a_decision_for_the_reference_has_a_branch_less():
    found = branch_mixtures(np.full(4, 0.25), np.full(4, 0.25), Bounds.simplex(DOMAINS), count=4, seed=0)
    assert next(iter(found)) == REFERENCE
    assert len(found) == 4
    assert DIRECT not in found


def losses_of(names, tasks=("t0", "t1")):
    _, mean, curved, reference, weights = problem(2, len(names) - 1)
    rows = np.vstack([reference, weights])
    x, z = coordinates(mean, curved, rows, reference)
    loss = 4 - 0.05 * (x - 0.7 * z)
    ratios = pd.DataFrame(rows, columns=DOMAINS).assign(run=names)
    losses = pd.DataFrame({"run": names, "t0": loss - 0.5, "t1": loss + 0.5})
    return BranchLosses(ratios, losses[["run", *tasks]], {}), mean, curved


def fitted(branches, mean, curved):
    shares = {"t0": 0.5, "t1": 0.5}
    return measured_response(branches, shares=shares, mean_K=mean, curved_KK=curved, domains=DOMAINS, rule=0.5)


def test_gains_are_of_the_mean_of_the_tasks_over_the_reference_s_branch():
    branches, mean, curved = losses_of([REFERENCE, DIRECT, "between", "spread 03", "spread 04"])
    found = fitted(branches, mean, curved)
    assert found.branches == 5
    assert found.fitted.scale == pytest.approx(0.05, rel=1e-3)
    assert found.fitted.saturation == pytest.approx(0.7, rel=1e-2)


def test_a_branch_that_failed_is_left_out_and_the_reference_cannot_be():
    branches, mean, curved = losses_of([REFERENCE, DIRECT, "between", "spread 03", "spread 04"])
    one_less = BranchLosses(branches.ratios, branches.losses.drop(index=3), {})
    assert fitted(one_less, mean, curved).branches == 4
    for missing in ([0], [1, 2, 3]):
        with pytest.raises(TikmixError, match=r"optimize\.branches .* came through"):
            fitted(BranchLosses(branches.ratios, branches.losses.drop(index=missing), {}), mean, curved)
