"""Bounds on groups of domains and pinned weights: projection, decisions within them, and what they cost."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.mixture.bounds import mixture_bounds, within_reach
from tikmix_pipeline.mixture.constraints import Supply
from tikmix_pipeline.mixture.decision import in_words, summary_lines
from tikmix_pipeline.mixture.direct import solve_direct
from tikmix_pipeline.parameters import OptimizeParameters

SEEDS = st.integers(0, 2**32 - 1)
INFLUENCE = np.array([[1.0, 0.6, 0.2, 0.1], [0.2, 1.0, 0.4, 0.1], [0.5, 0.3, 0.1, 0.8]])


def domains_of(count):
    return [f"d{k}" for k in range(count)]


def bounds_of(count, parameters, caps=None, current=None):
    caps = [math.inf] * count if caps is None else caps
    supplies = {domain: Supply(cap * 1000) for domain, cap in zip(domains_of(count), caps, strict=True)}
    return mixture_bounds(parameters, supplies, 1000, current)


def solve(influence, prior=None, caps=None, current=None, **given):
    parameters = OptimizeParameters.model_validate({"method": "paper", "max_epochs": 1, **given})
    tasks, count = [f"t{t}" for t in range(len(influence))], influence.shape[1]
    prior = np.full(count, 1 / count) if prior is None else prior
    bounds = bounds_of(count, parameters, caps, current)
    return solve_direct(influence, prior, bounds, parameters, domains=domains_of(count), tasks=tasks)


def random_groups(rng, count, number, inside):
    """Overlapping groups around a mixture that satisfies them; some are fixed to a sum."""
    groups = {}
    for g in range(number):
        members = rng.choice(count, size=rng.integers(1, max(2, count // 2)), replace=False)
        total = float(inside[members].sum())
        low, high = (
            (total, total) if rng.random() < 0.2 else (total * rng.uniform(0, 1), min(1, total + rng.random() / 3))
        )
        groups[f"g{g}"] = {"domains": [f"d{k}" for k in members], "min": low, "max": high}
    return groups


@given(SEEDS, st.integers(2, 12), st.integers(1, 4))
@settings(deadline=None, max_examples=25)
def test_projection_is_that_of_a_quadratic_program(seed, count, number):
    rng = np.random.default_rng(seed)
    inside, point = rng.dirichlet(np.ones(count)), rng.dirichlet(np.full(count, 0.5))
    caps = inside + rng.uniform(0, 0.5, size=count)
    groups = random_groups(rng, count, number, inside)
    bounds = bounds_of(count, OptimizeParameters.model_validate({"max_epochs": 1, "groups": groups}), caps)
    found, halfspaces = bounds.project(point), bounds.halfspaces()
    assert halfspaces.shortfall(found[None])[0] <= 1e-9
    assert found.sum() == pytest.approx(1, abs=1e-9)
    assert np.all((found >= 0) & (found <= caps + 1e-12))
    oracle = minimize(
        lambda w: 0.5 * np.square(w - point).sum(),
        inside,
        jac=lambda w: w - point,
        bounds=np.column_stack(bounds.box()),
        constraints=[
            {"type": "eq", "fun": lambda w: w.sum() - 1},
            {"type": "ineq", "fun": lambda w: halfspaces.rows_GK @ w - halfspaces.least_G},
        ],
        method="SLSQP",
        options={"ftol": 1e-15},
    )
    # no point that is allowed may be nearer, and a step towards one that is allowed may not come nearer
    assert np.square(found - point).sum() <= 2 * oracle.fun + 1e-9 or not oracle.success
    assert (point - found) @ (inside - found) <= 1e-9


def grid_of_four(steps=40):
    axes = np.indices((steps + 1,) * 3).reshape(3, -1).T
    axes = axes[axes.sum(axis=1) <= steps]
    return np.column_stack([axes, steps - axes.sum(axis=1)]) / steps


@pytest.mark.parametrize(
    "given",
    [
        {"groups": {"a": {"domains": ["d0", "d1"], "max": 0.4}}},
        {"groups": {"a": {"domains": ["d0", "d1"], "max": 0.5}, "b": {"domains": ["d1", "d2"], "min": 0.6}}},
        {"groups": {"a": {"domains": ["d2", "d3"], "min": 0.75, "max": 0.75}}, "task_weights": {"t0": 3.0}},
        {"pinned": {"d3": 0.25}, "groups": {"a": {"domains": ["d0", "d3"], "max": 0.5}}, "pareto": False},
        {"pinned": {"d0": 0.1, "d1": 0.0}, "task_groups": {"both": ["t0", "t1"]}, "task_weights": {"both": 0.5}},
    ],
)
def test_no_mixture_of_a_grid_is_better_within_groups_and_pins(given):
    decision = solve(INFLUENCE, **given)
    grid = grid_of_four()
    normalised = INFLUENCE / INFLUENCE.max(axis=1, keepdims=True)
    for domain, weight in given.get("pinned", {}).items():
        assert decision.weights_K[int(domain[1])] == pytest.approx(weight, abs=1e-9)
        grid = grid[np.isclose(grid[:, int(domain[1])], weight)]
    for group in given.get("groups", {}).values():
        members = [int(domain[1]) for domain in group["domains"]]
        low, high = group.get("min", 0), group.get("max", 1)
        assert low - 1e-8 <= decision.weights_K[members].sum() <= high + 1e-8
        grid = grid[(grid[:, members].sum(axis=1) >= low - 1e-9) & (grid[:, members].sum(axis=1) <= high + 1e-9)]
    if given.get("pareto", True):
        grid = grid[np.all((grid - decision.reference_K) @ normalised.T >= -1e-12, axis=1)]
    weights = np.array([given.get("task_weights", {}).get(f"t{t}", 1.0) for t in range(3)])
    if "task_groups" in given:
        normalised, weights = np.array([normalised[:2].mean(axis=0), normalised[2]]), np.array([0.5, 1.0])
    weights = weights / weights.mean()
    gains = grid @ normalised.T
    spread = np.sqrt((weights * (gains - np.average(gains, axis=1, weights=weights)[:, None]) ** 2).mean(axis=1))
    entropies = -(grid * np.log(np.maximum(grid, 1e-300))).sum(axis=1)
    values = spread - 9 / len(weights) * (gains @ weights) - entropies
    assert decision.objective <= values.min(initial=np.inf) + 1e-6
    assert decision.optimality_gap <= 1e-5


def test_fifty_domains_twenty_tasks_and_six_groups_are_proven_the_best():
    for seed in range(4):
        rng = np.random.default_rng(seed)
        influence = rng.normal(size=(20, 50)) + 1
        inside = rng.dirichlet(np.ones(50))
        groups = random_groups(rng, 50, 6, inside)
        decision = solve(influence, rng.dirichlet(np.ones(50)), inside + 0.1, groups=groups)
        assert decision.optimality_gap <= 1e-6 * max(1, abs(decision.objective)) * 2
        assert any(binding.kind.startswith("group") for binding in decision.binding)


def test_the_price_of_a_group_is_what_loosening_it_saves():
    step = 1e-4
    tight, loose = (
        solve(INFLUENCE, groups={"web": {"domains": ["d0", "d1"], "max": most}}, pareto=False)
        for most in (0.4, 0.4 + step)
    )
    (binding,) = tight.binding
    assert (binding.name, binding.kind, binding.reason) == ("web", "group_upper", "user")
    assert binding.parameter == "optimize.groups.web.max"
    assert binding.multiplier == pytest.approx((tight.objective - loose.objective) / step, rel=1e-2)
    assert "group web: at most 0.4 (optimize.groups.web.max)" in summary_lines(tight)


def test_a_pin_is_told_as_what_holds_its_domain_also_where_it_is_zero():
    decision = solve(INFLUENCE, pinned={"d1": 0.0, "d2": "current"}, current={"d2": 0.3}, pareto=False)
    assert decision.weights_K[1:3].tolist() == [0.0, 0.3]
    held = {binding.name: (binding.reason, binding.parameter) for binding in decision.binding}
    assert held["d1"] == ("user", "optimize.pinned.d1")
    assert held["d2"] == ("user", "optimize.pinned.d2")
    assert "pinned to 0.3 (optimize.pinned.d2)" in [in_words(one) for one in decision.binding if one.name == "d2"]


def test_where_every_domain_is_pinned_there_is_one_mixture():
    decision = solve(INFLUENCE, pinned={"d0": 0.1, "d1": 0.2, "d2": 0.3, "d3": 0.4})
    assert decision.weights_K == pytest.approx([0.1, 0.2, 0.3, 0.4], abs=1e-12)
    assert decision.optimality_gap <= 1e-9


def test_pins_and_groups_go_before_the_largest_change():
    parameters = OptimizeParameters.model_validate(
        {"pinned": {"d0": 0.5}, "groups": {"a": {"domains": ["d1", "d2"], "min": 0.45}}}
    )
    bounds = bounds_of(4, parameters)
    found = within_reach(bounds, dict(zip(domains_of(4), [0.1, 0.1, 0.1, 0.7], strict=True)), 0.02)
    low_K, high_K = found.box()
    assert found.lower[0].parameter == found.upper[0].parameter == "optimize.pinned.d0"
    assert found.groups == bounds.groups
    assert found.halfspaces().has_room((low_K, high_K))
    assert np.ptp(np.stack([low_K, high_K])[:, 1:], axis=0) == pytest.approx([0.04, 0.04, 0.04], abs=0.021)


def test_limits_that_leave_a_single_sum_only_by_rounding_are_kept():
    third = {"min": 0.0, "max": 0.3333333333}
    groups = {name: {"domains": [name], **third} for name in ("d0", "d1", "d2")}
    decision = solve(INFLUENCE[:, :3], groups=groups)
    assert decision.weights_K == pytest.approx([1 / 3] * 3, abs=1e-8)
    assert bounds_of(3, OptimizeParameters.model_validate({"groups": groups})).project(
        np.array([1.0, 0.0, 0.0])
    ) == pytest.approx([1 / 3] * 3, abs=1e-8)


def test_a_prior_outside_a_group_is_replaced_by_the_nearest_mixture_inside():
    decision = solve(INFLUENCE, groups={"a": {"domains": ["d0", "d1"], "max": 0.3}})
    assert decision.reference_K == pytest.approx([0.15, 0.15, 0.35, 0.35])
    assert any("outside the bounds on 'a'" in note for note in decision.notes)


def test_a_group_of_all_domains_asks_nothing():
    free = solve(INFLUENCE)
    same = solve(INFLUENCE, groups={"all": {"domains": domains_of(4), "min": 0.2, "max": 1.0}})
    assert same.weights_K == pytest.approx(free.weights_K, abs=1e-7)


def test_what_the_constraints_cost_is_the_distance_to_the_closed_form():
    given = {"uniformity": 0.0, "pinned": {"d0": 0.05}, "groups": {"a": {"domains": ["d1", "d2"], "max": 0.2}}}
    decision = solve(INFLUENCE, caps=[1, 1, 1, 0.9], **given)
    logits = 3 * (INFLUENCE / INFLUENCE.max(axis=1, keepdims=True)).sum(axis=0)
    closed = np.exp(logits) / np.exp(logits).sum()
    assert decision.unconstrained_K == pytest.approx(closed, abs=1e-4)
    assert decision.unconstrained_gain_T == pytest.approx(INFLUENCE @ (decision.unconstrained_K - 0.25))
    assert decision.unconstrained_objective < decision.objective
    stored = decision.to_record("direct", 1).to_json()["unconstrained"]
    assert stored["objective"] == decision.unconstrained_objective
    assert list(stored["weights"]) == domains_of(4)
    assert any("The constraints cost" in line for line in summary_lines(decision))


def test_where_nothing_binds_the_unconstrained_mixture_is_the_decision_itself():
    decision = solve(INFLUENCE, pareto=False)
    assert decision.unconstrained_K is decision.weights_K
    assert any("cost nothing" in line for line in summary_lines(decision))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"groups": {"web": {"domains": ["d0", "dd1"]}}},
            "optimize.groups.web names the domain 'dd1', which is not there",
        ),
        ({"pinned": {"d11": 0.5}}, "optimize.pinned names the domain 'd11', which is not there. Did you mean 'd1'?"),
    ],
)
def test_misspelt_domains_are_refused_with_the_nearest_name(given, message):
    with pytest.raises(TikmixError) as caught:
        bounds_of(4, OptimizeParameters.model_validate(given))
    assert message in str(caught.value)
