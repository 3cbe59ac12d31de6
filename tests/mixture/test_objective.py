import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tikmix_pipeline.mixture.objective import KINK, Objective
from tikmix_pipeline.mixture.projection import Halfspaces

SEEDS = st.integers(0, 2**32 - 1)


def random_objective(rng, tasks=4, domains=5, **weights):
    return Objective(rng.normal(size=(tasks, domains)), **{"uniformity": 1.0, "gain": 1.0, "entropy": 1.0, **weights})


def test_value_is_the_papers_formula():
    objective = Objective(np.array([[1.0, 0.0], [0.5, 1.0]]), uniformity=2.0, gain=3.0, entropy=5.0)
    weights = np.array([0.25, 0.75])
    gains = [0.25, 0.875]
    entropy = -(0.25 * np.log(0.25) + 0.75 * np.log(0.75))
    expected = 2 * np.std(gains) - 3 * sum(gains) - 5 * entropy
    assert objective.value(weights) == pytest.approx(expected, abs=1e-15)
    assert objective.terms(weights) == pytest.approx({"std": np.std(gains), "gain": sum(gains), "entropy": entropy})


def test_an_anchor_turns_the_entropy_into_the_distance_from_it():
    anchor, weights = np.array([0.1, 0.9]), np.array([0.25, 0.75])
    objective = Objective(np.zeros((1, 2)), uniformity=0.0, gain=0.0, entropy=2.0, anchor_K=anchor)
    assert objective.value(weights) == pytest.approx(2 * (weights * np.log(weights / anchor)).sum())
    assert objective.value(anchor) == pytest.approx(0, abs=1e-15)


@given(SEEDS)
@settings(deadline=None)
def test_a_uniform_anchor_differs_from_the_papers_entropy_by_a_constant(seed):
    rng = np.random.default_rng(seed)
    plain = random_objective(rng)
    anchored = Objective(plain.normalised_TK, 1.0, 1.0, 1.0, anchor_K=np.full(5, 0.2))
    here, there = rng.dirichlet(np.ones(5), size=2)
    difference = plain.value(here) - plain.value(there)
    assert anchored.value(here) - anchored.value(there) == pytest.approx(difference, abs=1e-12)
    np.testing.assert_allclose(anchored.gradient(here) - plain.gradient(here), np.full(5, np.log(5)))


@given(SEEDS)
@settings(deadline=None)
def test_gradient_is_the_slope_of_the_value(seed):
    rng = np.random.default_rng(seed)
    objective = random_objective(rng, anchor_K=rng.dirichlet(np.full(5, 3.0)))
    weights = rng.dirichlet(np.full(5, 3.0)) * 0.9 + 0.02
    direction = rng.normal(size=5) * 1e-6
    rise = objective.value(weights + direction, KINK) - objective.value(weights - direction, KINK)
    assert rise == pytest.approx(2 * objective.gradient(weights) @ direction, abs=1e-11, rel=1e-4)


def test_gradient_is_finite_where_all_tasks_gain_alike_and_where_weights_are_zero():
    objective = Objective(np.ones((3, 2)), 1.0, 1.0, 1.0)
    assert np.isfinite(objective.gradient(np.array([0.0, 1.0]))).all()


@given(SEEDS, st.sampled_from([0.0, 0.1, 1.0]))
@settings(deadline=None)
def test_lower_bound_holds_for_any_prices_on_any_feasible_mixture(seed, entropy):
    rng = np.random.default_rng(seed)
    objective = random_objective(rng, entropy=entropy, anchor_K=rng.dirichlet(np.full(5, 3.0)))
    some, feasible = rng.dirichlet(np.ones(5), size=2)
    slack = rng.uniform(0, 0.1, size=4)
    bound = objective.lower_bound(
        some,
        rng.normal(),
        rng.exponential(size=4),
        constraints=Halfspaces(objective.normalised_TK, objective.normalised_TK @ feasible - slack),
        box=(feasible * 0.5, np.minimum(1, feasible * 1.5)),
    )
    assert bound <= objective.value(feasible) + 1e-12


def test_lower_bound_is_tight_at_the_closed_form_solution():
    rng = np.random.default_rng(0)
    objective = random_objective(rng, uniformity=0.0)
    logits = objective.normalised_TK.sum(axis=0)
    best = np.exp(logits) / np.exp(logits).sum()
    sum_multiplier = float(objective.gradient(best)[0])
    box = np.zeros(5), np.ones(5)
    no_constraints = Halfspaces(np.zeros((0, 5)), np.zeros(0))
    bound = objective.lower_bound(best, sum_multiplier, np.zeros(0), constraints=no_constraints, box=box)
    assert bound == pytest.approx(objective.value(best), abs=1e-12)
