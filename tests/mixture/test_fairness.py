"""A smooth least gain in the place of the spread: GRAPE's inner game in closed form, and decisions proven as before."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from response_examples import NO_GUARD, gains, names, random_problem, solve
from scipy.optimize import minimize

from tikmix_pipeline.mixture.bounds import Bounds
from tikmix_pipeline.mixture.direct import solve_direct
from tikmix_pipeline.mixture.fairness import SoftLeast, softmin, softmin_say
from tikmix_pipeline.mixture.objective import Objective, Targets, balanced
from tikmix_pipeline.mixture.simplex import Halfspaces
from tikmix_pipeline.mixture.sweep.regression_data import SweepObjective
from tikmix_pipeline.parameters import OptimizeParameters

SEEDS = st.integers(0, 2**32 - 1)


def random_gains(seed, targets):
    rng = np.random.default_rng(seed)
    return rng.normal(size=targets), balanced(rng.uniform(0.2, 3, targets).tolist())


@given(SEEDS, st.integers(1, 7), st.sampled_from([0.01, 0.1, 1.0, 10.0]))
@settings(deadline=None)
def test_it_lies_between_the_least_gain_and_the_weighted_mean(seed, targets, temperature):
    gain_U, weight_U = random_gains(seed, targets)
    found = softmin(gain_U, weight_U, temperature)
    assert gain_U.min() - 1e-12 <= found <= (weight_U * gain_U).mean() + 1e-12
    # as the temperature falls it comes near the least, and as it rises near the mean
    assert softmin(gain_U, weight_U, 1e-4) == pytest.approx(gain_U.min(), abs=1e-3)
    assert softmin(gain_U, weight_U, 1e4) == pytest.approx((weight_U * gain_U).mean(), abs=1e-2)


@given(SEEDS)
@settings(deadline=None, max_examples=20)
def test_it_is_the_value_of_the_game_of_targets_against_domains(seed):
    """The weights of targets that lower the mean gain most, with their relative entropy as a price."""
    gain_U, weight_U = random_gains(seed, 4)
    share_U, temperature = weight_U / 4, 0.3

    def value(say_U):
        say_U = np.maximum(say_U, 1e-12)
        return say_U @ gain_U + temperature * (say_U * np.log(say_U / share_U)).sum()

    found = minimize(
        value,
        share_U,
        method="SLSQP",
        bounds=[(0, 1)] * 4,
        constraints=[{"type": "eq", "fun": lambda say_U: say_U.sum() - 1}],
        options={"ftol": 1e-12, "maxiter": 500},
    )
    assert softmin(gain_U, weight_U, temperature) == pytest.approx(found.fun, abs=1e-6)
    assert softmin_say(gain_U, weight_U, temperature) == pytest.approx(found.x, abs=1e-3)


def test_nothing_overflows_where_gains_are_far_apart_or_there_are_none():
    far = np.array([[-1e6, 0.0], [3.0, 1e6]])
    assert softmin(far, np.ones(2), 0.1) == pytest.approx([-1e6, 3.0], abs=0.1)
    assert softmin_say(far[0], np.ones(2), 0.1) == pytest.approx([1.0, 0.0])
    assert softmin(np.zeros((3, 0)), np.ones(0), 0.1).tolist() == [0.0, 0.0, 0.0]
    nothing = SoftLeast(0.1, np.zeros((0, 2)), np.ones(0))
    assert nothing.value(np.array([0.5, 0.5])) == 0
    assert nothing.slope(np.array([0.5, 0.5])).tolist() == [0.0, 0.0]


def random_objective(rng, temperature=0.2, curved=True):
    """An objective over three targets and five domains, with a curvature of its own for each target."""
    roots = rng.normal(size=(3, 5, 5)) / 3
    curved_UKK = np.einsum("uij,ukj->uik", roots, roots) if curved else None
    weight_U, rows_UK = balanced([1.0, 2.0, 0.5]), rng.normal(size=(3, 5))
    reference_K = rng.dirichlet(np.ones(5))
    least = SoftLeast(temperature, rows_UK, weight_U, curved_UKK, reference_K if curved else None)
    together = None if curved_UKK is None else np.tensordot(weight_U, curved_UKK, 1)
    return Objective(rows_UK, 2.0, 1.5, 0.3, weight_U=weight_U, curved_KK=together, least=least)


@given(SEEDS, st.booleans())
@settings(deadline=None, max_examples=40)
def test_gradient_is_the_slope_of_the_value(seed, curved):
    rng = np.random.default_rng(seed)
    objective = random_objective(rng, curved=curved)
    weights = rng.dirichlet(np.full(5, 3.0)) * 0.9 + 0.02
    direction = rng.normal(size=5) * 1e-6
    rise = objective.value(weights + direction) - objective.value(weights - direction)
    assert rise == pytest.approx(2 * objective.gradient(weights) @ direction, abs=1e-10, rel=1e-4)


@given(SEEDS, st.booleans(), st.sampled_from([0.01, 0.2]))
@settings(deadline=None, max_examples=40)
def test_lower_bound_holds_for_any_prices_on_any_feasible_mixture(seed, curved, temperature):
    rng = np.random.default_rng(seed)
    objective = random_objective(rng, temperature, curved)
    some, feasible = rng.dirichlet(np.ones(5), size=2)
    rows_CK = rng.normal(size=(2, 5))
    bound = objective.lower_bound(
        some,
        float(rng.normal()),
        rng.exponential(size=2),
        constraints=Halfspaces(rows_CK, rows_CK @ feasible - rng.uniform(0, 0.1, 2)),
        box=(feasible * 0.5, np.minimum(1, feasible * 1.5)),
    )
    assert bound <= objective.value(feasible) + 1e-9


@given(SEEDS, st.sampled_from([0.03, 0.1, 0.5]))
@settings(deadline=None, max_examples=25)
def test_the_paper_s_decision_is_proven_and_what_a_generic_solver_finds(seed, temperature):
    rng = np.random.default_rng(seed)
    influence, prior = rng.normal(size=(3, 4)) + 0.5, rng.dirichlet(np.full(4, 3.0))
    parameters = OptimizeParameters(method="paper", fairness="softmin", temperature=temperature, pareto=False)
    bounds = Bounds.simplex(names("d", 4))
    decision = solve_direct(influence, prior, bounds, parameters, domains=bounds.domains, tasks=names("t", 3))
    rows = influence / decision.normaliser_T[:, None]

    def value(weights):
        """The formula written out anew."""
        gain = rows @ weights
        # where the solver tries weights far outside, the sum of exponentials itself would overflow
        soft = -temperature * (np.logaddexp.reduce(-gain / temperature) - np.log(len(gain)))
        entropy = -(weights * np.log(np.maximum(weights, 1e-300))).sum()
        return -9 * soft - 3 * gain.sum() - entropy

    found = generic(value, 4)
    assert decision.objective == pytest.approx(value(decision.weights_K), abs=1e-9)
    assert decision.optimality_gap <= 1e-5 * max(1, abs(decision.objective))
    assert decision.objective <= found.fun + 1e-6
    assert decision.weights_K == pytest.approx(found.x, abs=5e-3)
    assert set(decision.terms) == {"softmin", "gain", "entropy"}


def generic(value, domains):
    return minimize(
        value,
        np.full(domains, 1 / domains),
        method="SLSQP",
        bounds=[(1e-9, 1)] * domains,
        constraints=[{"type": "eq", "fun": lambda weights: weights.sum() - 1}],
        options={"ftol": 1e-12, "maxiter": 1000},
    )


@given(SEEDS)
@settings(deadline=None, max_examples=20)
def test_to_second_order_it_is_of_the_gains_themselves_and_proven(seed):
    influence, products, prior = random_problem(seed, 3, 4)
    given = {"fairness": "softmin", "gain": 0.0, "pareto": False, "normaliser": "best", **NO_GUARD}
    decision = solve(influence, products, prior, **given)

    def value(weights):
        gain = gains(influence, products, weights, prior) / decision.gain_scale_T
        return 9 * 0.1 * (np.logaddexp.reduce(-gain / 0.1) - np.log(len(gain)))

    found = generic(value, 4)
    assert decision.objective == pytest.approx(value(decision.weights_K), abs=1e-8)
    assert decision.objective <= found.fun + 1e-6
    assert decision.optimality_gap <= 1e-5 * max(1, abs(decision.objective))


@pytest.mark.parametrize("seed", range(6))
def test_the_task_that_gains_least_gains_no_less_than_without_it(seed):
    """GRAPE's minimax, all of it: nothing counts but the least gain."""
    influence, products, prior = random_problem(seed, 4, 6)
    given = {"pareto": False, "normaliser": "best", **NO_GUARD}
    of_mean = solve(influence, products, prior, **given)
    of_least = solve(influence, products, prior, fairness="softmin", temperature=0.01, gain=0.0, **given)
    assert of_least.normalised_gain_T.min() >= of_mean.normalised_gain_T.min() - 1e-3
    assert of_mean.normalised_gain_T.sum() >= of_least.normalised_gain_T.sum() - 1e-6


def test_the_objective_of_a_search_is_that_of_direct_for_the_same_gains():
    rng = np.random.default_rng(0)
    influence, weights_NK = rng.normal(size=(3, 4)), rng.dirichlet(np.ones(4), size=10)
    parameters = OptimizeParameters(
        method="paper", fairness="softmin", temperature=0.3, task_weights={"t1": 2.0}, entropy=0.4
    )
    every = np.ones(3, dtype=bool)
    targets = Targets.of(names("t", 3), every, parameters)
    searched = SweepObjective("direct", parameters, every, targets)
    direct = Objective.of(influence, targets, parameters, None)
    values = searched.aggregate(weights_NK @ influence.T) + searched.entropy(weights_NK)
    assert values == pytest.approx([direct.value(weights_K) for weights_K in weights_NK])


def test_its_weight_is_that_of_the_mean_unless_it_is_set():
    assert OptimizeParameters(method="paper", fairness="softmin").spread_weight == 9
    assert OptimizeParameters(fairness="softmin", method="response").spread_weight == 9
    assert OptimizeParameters(method="paper", fairness="softmin", uniformity=0.5).spread_weight == 0.5
    assert OptimizeParameters(method="response").spread_weight == 0
    assert OptimizeParameters(method="paper").spread_weight == 1
