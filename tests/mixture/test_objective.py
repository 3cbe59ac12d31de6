"""The objective, and what it counts: tasks and groups of tasks with their weights."""

import numpy as np
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.mixture.bounds import Bounds
from tikmix_pipeline.mixture.direct import solve_direct
from tikmix_pipeline.mixture.objective import KINK, Objective, Targets, balanced, check_tasks, spread, total
from tikmix_pipeline.mixture.simplex import Halfspaces
from tikmix_pipeline.mixture.sweep.regression_data import SweepObjective
from tikmix_pipeline.parameters import OptimizeParameters

SEEDS = st.integers(0, 2**32 - 1)
TASKS = ("arc", "mmlu", "sums", "trivia")
RNG = np.random.default_rng(0)
INFLUENCE = RNG.normal(size=(4, 6)) + 1
PRIOR = RNG.dirichlet(np.ones(6))
GROUPS = {"knowledge": ["mmlu", "trivia"]}


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
    anchored = Objective(plain.normalised_UK, 1.0, 1.0, 1.0, anchor_K=np.full(5, 0.2))
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
        constraints=Halfspaces(objective.normalised_UK, objective.normalised_UK @ feasible - slack),
        box=(feasible * 0.5, np.minimum(1, feasible * 1.5)),
    )
    assert bound <= objective.value(feasible) + 1e-12


def test_lower_bound_is_tight_at_the_closed_form_solution():
    rng = np.random.default_rng(0)
    objective = random_objective(rng, uniformity=0.0)
    logits = objective.normalised_UK.sum(axis=0)
    best = np.exp(logits) / np.exp(logits).sum()
    sum_multiplier = float(objective.gradient(best)[0])
    box = np.zeros(5), np.ones(5)
    no_constraints = Halfspaces(np.zeros((0, 5)), np.zeros(0))
    bound = objective.lower_bound(best, sum_multiplier, np.zeros(0), constraints=no_constraints, box=box)
    assert bound == pytest.approx(objective.value(best), abs=1e-12)


def parameters_of(**given):
    return OptimizeParameters.model_validate({"method": "paper", **given})


def targets_of(counts=(True,) * 4, **given):
    return Targets.of(TASKS, np.array(counts), parameters_of(**given))


def solve(influence=INFLUENCE, tasks=TASKS, **given):
    bounds = Bounds.simplex([f"d{k}" for k in range(6)])
    return solve_direct(influence, PRIOR, bounds, parameters_of(**given), domains=bounds.domains, tasks=tasks)


@given(SEEDS, st.integers(1, 20), st.sampled_from([1.0, 0.7, 1e-3, 3.3]))
@settings(deadline=None)
def test_equal_weights_are_the_plain_sum_and_deviation_to_the_last_bit(seed, tasks, weight):
    gains = np.random.default_rng(seed).normal(size=(5, tasks))
    weights = balanced([weight] * tasks)
    assert np.array_equal(weights, np.ones(tasks))
    assert np.array_equal(total(gains, weights), gains.sum(axis=1))
    assert np.array_equal(spread(gains, weights), gains.std(axis=1))
    assert total(gains[0], weights) == gains[0].sum()
    assert spread(gains[0], weights) == gains[0].std()


def test_equal_weights_leave_a_decision_as_it_was_to_the_last_bit():
    plain, weighted = solve(), solve(task_weights=dict.fromkeys(TASKS, 0.3))
    assert np.array_equal(plain.weights_K, weighted.weights_K)
    assert plain.objective == weighted.objective


@given(SEEDS)
@settings(deadline=None, max_examples=20)
def test_whole_weights_are_copies_of_a_task(seed):
    """Weights 3 and 1 are four targets of which three are alike, up to the scale of T."""
    rng = np.random.default_rng(seed)
    rows, weights_K = rng.normal(size=(2, 5)), rng.dirichlet(np.ones(5))
    weighted = Objective(rows, 1.0, 1.0, 0.0, weight_U=balanced([3.0, 1.0]))
    copied = Objective(rows[[0, 0, 0, 1]], 1.0, 1.0, 0.0)
    assert weighted.terms(weights_K)["std"] == pytest.approx(copied.terms(weights_K)["std"], abs=1e-12)
    assert 2 * weighted.terms(weights_K)["gain"] == pytest.approx(copied.terms(weights_K)["gain"], abs=1e-12)


@given(SEEDS)
@settings(deadline=None, max_examples=20)
def test_the_gradient_is_the_slope_of_the_weighted_value(seed):
    rng = np.random.default_rng(seed)
    objective = Objective(rng.normal(size=(4, 5)), 1.0, 1.0, 1.0, weight_U=balanced(rng.uniform(0.1, 3, 4).tolist()))
    weights_K, direction = rng.dirichlet(np.full(5, 3.0)) * 0.9 + 0.02, rng.normal(size=5) * 1e-6
    rise = objective.value(weights_K + direction, KINK) - objective.value(weights_K - direction, KINK)
    assert rise == pytest.approx(2 * objective.gradient(weights_K) @ direction, abs=1e-11, rel=1e-4)


def test_a_group_of_tasks_decides_as_the_mean_of_its_rows():
    normalised = INFLUENCE / INFLUENCE.max(axis=1, keepdims=True)
    mean = (1 * normalised[1] + 3 * normalised[3]) / 4
    merged = np.stack([normalised[0], mean / mean.max(), normalised[2]])
    targets = targets_of(task_groups=GROUPS, task_weights={"trivia": 3.0, "knowledge": 2.0})
    assert targets.weight_U == pytest.approx([0.75, 1.5, 0.75])
    assert targets.rows(normalised)[1] == pytest.approx(mean)
    assert targets.gains(normalised.T)[:, 1] == pytest.approx(mean)
    grouped = solve(task_groups=GROUPS, task_weights={"trivia": 3.0}, pareto=False, gain=3.0, uniformity=0.0)
    scaled = {"task_weights": {"b": mean.max()}, "gain": 3.0 * (2 + mean.max()) / 3}
    by_hand = solve(merged, ("a", "b", "c"), pareto=False, uniformity=0.0, **scaled)
    assert grouped.weights_K == pytest.approx(by_hand.weights_K, abs=1e-5)


def test_copies_of_a_task_in_a_group_do_not_outvote_the_others():
    copies = np.vstack([INFLUENCE, INFLUENCE[3], INFLUENCE[3]])
    grouped = solve(copies, (*TASKS, "trivia2", "trivia3"), task_groups={"facts": ["trivia", "trivia2", "trivia3"]})
    assert grouped.weights_K == pytest.approx(solve().weights_K, abs=1e-5)


def test_a_task_of_weight_zero_is_out_of_the_objective_and_still_may_not_lose():
    opposed = np.vstack([INFLUENCE[:3], -INFLUENCE[:3].sum(axis=0)])
    free = solve(opposed, task_weights={"trivia": 0.0}, pareto=False)
    alone = solve(opposed[:3], TASKS[:3], pareto=False)
    assert np.array_equal(free.weights_K, alone.weights_K)
    held = solve(opposed, task_weights={"trivia": 0.0})
    assert held.expected_gain_T[3] >= -1e-7
    assert free.expected_gain_T[3] < -1e-3


def test_auto_gain_counts_targets():
    assert len(targets_of(task_groups=GROUPS).weight_U) == 3
    assert solve(task_groups=GROUPS).objective == pytest.approx(solve(task_groups=GROUPS, gain=3.0).objective)


def test_a_group_is_the_mean_of_those_of_its_tasks_that_tell_mixtures_apart():
    targets = targets_of(counts=(True, False, True, True), task_groups=GROUPS)
    assert targets.share_UT.tolist() == [[1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]


def test_a_sweeps_objective_is_that_of_direct_of_the_same_gains():
    given = {"task_groups": GROUPS, "task_weights": {"arc": 0.5, "knowledge": 2.0}}
    parameters, counts = parameters_of(**given), np.ones(4, dtype=bool)
    targets = Targets.of(TASKS, counts, parameters)
    of_direct = Objective(targets.rows(INFLUENCE), 1.0, 3.0, 1.0, weight_U=targets.weight_U)
    weights_NK = np.random.default_rng(1).dirichlet(np.ones(6), size=8)
    objective = SweepObjective("direct", parameters, counts, targets)
    values = objective.aggregate(weights_NK @ INFLUENCE.T) + objective.entropy(weights_NK)
    assert values == pytest.approx([of_direct.value(weights_K) for weights_K in weights_NK])
    summed = SweepObjective("sum", parameters, counts, targets).aggregate(weights_NK @ INFLUENCE.T)
    assert summed == pytest.approx([-of_direct.terms(weights_K)["gain"] for weights_K in weights_NK])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"task_weights": {"mmul": 2.0}}, "optimize.task_weights names 'mmul', which is neither a task nor one of"),
        ({"task_weights": {"mmul": 2.0}}, "Did you mean 'mmlu'?"),
        ({"task_groups": GROUPS, "task_weights": {"knowlege": 2.0}}, "Did you mean 'knowledge'?"),
        (
            {"task_groups": {"a": ["ark"]}},
            "optimize.task_groups.a names the task 'ark', which is not there. Did you mean",
        ),
        ({"task_groups": {"arc": ["mmlu"]}}, "optimize.task_groups.arc has the name of a task"),
        ({"task_weights": dict.fromkeys(TASKS, 0.0)}, "gives 0 to every task that decides"),
    ],
)
def test_names_that_are_not_there_are_refused_with_the_nearest(given, message):
    with pytest.raises(TikmixError) as caught:
        check_tasks(parameters_of(**given), TASKS)
    assert message in str(caught.value)


def test_a_task_in_two_groups_is_refused():
    with pytest.raises(pydantic.ValidationError, match="'mmlu' is listed in 'knowledge' and in 'other'"):
        parameters_of(task_groups={**GROUPS, "other": ["mmlu"]})
