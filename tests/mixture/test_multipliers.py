"""Multipliers of constraints against what loosening these saves, also where the reference is the best mixture."""

import math
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tikmix_pipeline.mixture.bounds import Bounds, mixture_bounds
from tikmix_pipeline.mixture.constraints import Supply
from tikmix_pipeline.mixture.decision import cost_of_constraints
from tikmix_pipeline.mixture.direct import solve_direct
from tikmix_pipeline.mixture.least_gains import LeastGains
from tikmix_pipeline.mixture.objective import Objective
from tikmix_pipeline.mixture.simplex import Halfspaces
from tikmix_pipeline.mixture.solver import minimise
from tikmix_pipeline.parameters import OptimizeParameters

SEEDS = st.integers(0, 2**32 - 1)
STEP = 1e-5


def domains_of(count):
    return [f"d{k}" for k in range(count)]


def solve(influence, prior, current=None, **given):
    tasks, domains = [f"t{t}" for t in range(len(influence))], domains_of(influence.shape[1])
    parameters = OptimizeParameters.model_validate({"method": "paper", **given})
    bounds = mixture_bounds(parameters, dict.fromkeys(domains, Supply(math.inf)), 1000)
    return solve_direct(influence, prior, bounds, parameters, domains=domains, tasks=tasks, current_K=current)


def random_influence(rng, tasks, domains):
    """Influence of either sign whose largest value on each task is 1, which is then its normaliser."""
    influence = rng.uniform(-1, 1, size=(tasks, domains))
    influence[np.arange(tasks), rng.integers(0, domains, size=tasks)] = 1
    return influence


@dataclass(frozen=True, eq=False)
class TaskBounds(Bounds):
    """Bounds with what tasks ask for among their half-spaces, where each can be loosened by itself."""

    tasks: Halfspaces = field(default_factory=lambda: Halfspaces(np.zeros((0, 1)), np.zeros(0)))

    def halfspaces(self):
        return self.tasks


@given(SEEDS, st.integers(2, 8))
@settings(deadline=None, max_examples=60)
def test_where_the_reference_is_the_best_the_multipliers_are_those_it_was_planted_with(seed, count):
    """`w ∝ exp((Σ_t S + λ·S) / γ)` is the best mixture of those that harm no task, and λ are the only multipliers."""
    rng = np.random.default_rng(seed)
    influence = random_influence(rng, int(rng.integers(1, count)), count)
    planted = rng.uniform(0.2, 2, size=len(influence))
    best, free = (np.exp(lift @ influence) for lift in (1 + planted, np.ones(len(influence))))
    best, free = best / best.sum(), free / free.sum()
    decision = solve(influence, best, uniformity=0.0, gain=1.0, entropy=1.0)
    assert decision.weights_K == pytest.approx(best, abs=1e-4)
    centred = influence - influence.mean(axis=1, keepdims=True)
    if np.linalg.cond(centred) < 20:
        multipliers = {binding.name: binding.multiplier for binding in decision.binding if binding.kind == "pareto"}
        assert [multipliers[f"t{t}"] for t in range(len(influence))] == pytest.approx(planted, rel=1e-2)
    assert decision.unconstrained_K == pytest.approx(free, abs=1e-4)
    assert decision.unconstrained_objective < decision.objective


@given(SEEDS, st.integers(2, 8), st.integers(1, 12))
@settings(deadline=None, max_examples=60)
def test_no_task_s_multiplier_is_below_what_loosening_it_saves(seed, count, number):
    """Where several tasks leave no mixture but the reference, loosening one may save less than its multiplier."""
    rng = np.random.default_rng(seed)
    influence, reference = random_influence(rng, number, count), rng.dirichlet(np.full(count, 2.0))
    objective = Objective(influence, uniformity=1.0, gain=9 / number, entropy=1.0)
    free, held = Bounds.simplex(domains_of(count)), Halfspaces(influence, influence @ reference - 1e-13)
    tight = minimise(objective, free, reference, gains=LeastGains.linear(influence, reference))
    bounds = TaskBounds(free.domains, free.lower, free.upper, tasks=held)
    savings = []
    for t in range(number):
        loose = replace(bounds, tasks=Halfspaces(influence, held.least_G - STEP * np.eye(number)[t]))
        savings.append((tight.value - minimise(objective, loose, tight.weights_K).value) / STEP)
    assert np.all(tight.gain_multipliers_T >= np.array(savings) * (1 - 1e-2) - 1e-2)
    costs_something = minimise(objective, free, reference).value < tight.value - 1e-5
    assert tight.gain_multipliers_T.max() > 1e-6 or not costs_something


@given(SEEDS, st.integers(2, 8))
@settings(deadline=None, max_examples=60)
def test_the_multiplier_of_a_pin_is_what_loosening_it_saves(seed, count):
    """Up to all domains but one are pinned: of these only one mixture is left."""
    rng = np.random.default_rng(seed)
    influence, inside = random_influence(rng, 3, count), rng.dirichlet(np.full(count, 2.0))
    pinned = {f"d{k}": float(inside[k]) for k in rng.permutation(count)[: rng.integers(1, count)]}
    pins = {domain: {"min": weight, "max": weight} for domain, weight in pinned.items()}
    tight = solve(influence, inside, pinned=pinned, pareto=False)
    multipliers = {binding.name: (binding.kind, binding.multiplier) for binding in tight.binding}
    for domain, weight in pinned.items():
        kind, multiplier = multipliers.get(domain, ("upper", 0.0))
        moved = (
            {"min": max(0.0, weight - STEP), "max": weight}
            if kind == "lower"
            else {"min": weight, "max": weight + STEP}
        )
        loose = solve(influence, inside, bounds=pins | {domain: moved}, pareto=False)
        assert multiplier == pytest.approx(
            (tight.objective - loose.objective) / (moved["max"] - moved["min"]), rel=1e-2, abs=1e-2
        )


def test_where_all_domains_are_pinned_a_multiplier_is_what_the_others_weights_would_save_there():
    influence, pinned = np.array([[1.0, 0.5, 0.0]]), {"d0": 0.2, "d1": 0.3, "d2": 0.5}
    decision = solve(influence, np.full(3, 1 / 3), pinned=pinned, gain=2.0, uniformity=0.0, entropy=0.0)
    found = {binding.name: (binding.kind, pytest.approx(binding.multiplier)) for binding in decision.binding}
    assert found == {"d0": ("upper", 1.3), "d1": ("upper", 0.3), "d2": ("lower", 0.7)}
    assert decision.unconstrained_K == pytest.approx([1, 0, 0], abs=1e-6)


@given(SEEDS, st.integers(2, 8), st.integers(1, 12), st.sampled_from(["uniform", "current"]), st.booleans())
@settings(deadline=None, max_examples=60)
def test_without_constraints_it_is_never_worse_and_as_good_only_where_they_cost_nothing(
    seed, count, number, anchor, pareto
):
    rng = np.random.default_rng(seed)
    influence, prior = random_influence(rng, number, count), rng.dirichlet(np.full(count, 2.0))
    pinned = {f"d{k}": float(prior[k]) for k in rng.permutation(count)[: rng.integers(0, count + 1)]}
    decision = solve(influence, prior, prior, pinned=pinned, anchor=anchor, pareto=pareto)
    free = solve(influence, prior, prior, anchor=anchor, pareto=False)
    near = 2e-6 * max(1, abs(free.objective))
    assert decision.unconstrained_objective <= decision.objective
    assert decision.unconstrained_objective == pytest.approx(free.objective, abs=near)
    assert ("cost nothing" in cost_of_constraints(decision)) == (decision.unconstrained_objective == decision.objective)
    if decision.unconstrained_objective < decision.objective - near:
        assert decision.binding


def test_tasks_that_leave_the_current_mixture_alone_are_said_to_cost_something():
    opposed = solve(
        np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]), np.array([0.7, 0.3]), np.array([0.7, 0.3]), anchor="current"
    )
    assert opposed.weights_K == pytest.approx([0.7, 0.3], abs=1e-6)
    assert [(binding.name, binding.kind) for binding in opposed.binding] == [("t0", "pareto")]
    assert opposed.unconstrained_objective < opposed.objective - 0.1
    assert "instead of" in cost_of_constraints(opposed)
