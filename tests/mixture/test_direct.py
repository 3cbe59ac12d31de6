import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.mixture.bounds import mixture_bounds
from tikmix_pipeline.mixture.constraints import Supply
from tikmix_pipeline.mixture.direct import decide_direct, implied_mixture, solve_direct
from tikmix_pipeline.mixture.objective import Objective
from tikmix_pipeline.mixture.records import MixtureRecord, TokenBudget
from tikmix_pipeline.parameters import OptimizeParameters, TikmixParameters

FEASIBLE = 1e-8
SEEDS = st.integers(0, 2**32 - 1)
WEIGHTS = st.sampled_from(
    [{}, {"entropy": 0.0}, {"entropy": 0.05, "uniformity": 3.0}, {"uniformity": 0.0, "entropy": 0.0}, {"gain": 0.0}]
)


def names(letter, count):
    return [f"{letter}{i}" for i in range(count)]


def solve(influence, prior=None, caps=None, chunk=1000, **parameters):
    """Decide on an influence matrix; `caps` are upper bounds by repetition, the prior is uniform unless given."""
    influence = np.asarray(influence, dtype=float)
    tasks, domains = names("task", influence.shape[0]), names("domain", influence.shape[1])
    prior = np.full(len(domains), 1 / len(domains)) if prior is None else np.asarray(prior, dtype=float)
    caps = [math.inf] * len(domains) if caps is None else caps
    supplies = {domain: Supply(cap * chunk) for domain, cap in zip(domains, caps, strict=True)}
    checked = OptimizeParameters.model_validate({"method": "paper", "max_epochs": 1, **parameters})
    bounds = mixture_bounds(checked, supplies, chunk)
    return solve_direct(influence, prior, bounds, checked, domains=domains, tasks=tasks)


def random_problem(seed, tasks, domains):
    """Influence of all scales and signs, a prior, and caps which some priors exceed."""
    rng = np.random.default_rng(seed)
    influence = (rng.normal(size=(tasks, domains)) + rng.uniform(0, 1)) * 10.0 ** rng.uniform(-9, 3, size=(tasks, 1))
    prior = rng.dirichlet(np.ones(domains))
    caps = rng.dirichlet(np.full(domains, 3.0)) * rng.uniform(1.05, 4)
    return influence, prior, caps


def assert_feasible(decision, influence, reference, caps):
    weights = decision.weights_K
    assert weights.sum() == pytest.approx(1, abs=FEASIBLE)
    assert np.all(weights >= 0)
    assert np.all(weights <= np.minimum(caps, 1) + 1e-15)
    largest = np.maximum(np.abs(influence).max(axis=1), 1e-300)
    assert np.all(influence @ (weights - reference) / largest >= -2 * FEASIBLE)


@given(SEEDS, st.integers(1, 10), st.integers(1, 30), WEIGHTS)
@settings(deadline=None, max_examples=80)
def test_decision_is_on_the_simplex_inside_the_bounds_and_harms_no_task(seed, tasks, domains, weights):
    influence, prior, caps = random_problem(seed, tasks, domains)
    decision = solve(influence, prior, caps, **weights)
    assert_feasible(decision, influence, decision.reference_K, caps)
    assert decision.optimality_gap <= 1e-3 * max(1, abs(decision.objective))


def mixtures_of_three(steps):
    first, second = np.meshgrid(np.arange(steps + 1), np.arange(steps + 1), indexing="ij")
    keep = first + second <= steps
    grid = np.stack([first[keep], second[keep], steps - first[keep] - second[keep]], axis=1)
    return grid / steps


def grid_oracle(decision, influence, caps, **weights):
    """The least value of the paper's formula over a fine grid of feasible mixtures, written out anew."""
    alpha, gamma = (weights.get(name, 1.0) for name in ("uniformity", "entropy"))
    counting = influence.any(axis=1).sum()
    beta = weights.get("gain", 9 / max(1, counting))
    grid = mixtures_of_three(400)
    no_worse = np.all((grid - decision.reference_K) @ (influence / decision.normaliser_T[:, None]).T >= -1e-12, axis=1)
    grid = grid[no_worse & np.all(grid <= caps, axis=1)]
    gains = grid @ (influence / decision.normaliser_T[:, None])[influence.any(axis=1)].T
    gains = gains if gains.shape[1] else np.zeros((len(grid), 1))
    entropies = -np.where(grid > 0, grid * np.log(np.where(grid > 0, grid, 1)), 0).sum(axis=1)
    return float((alpha * gains.std(axis=1) - beta * gains.sum(axis=1) - gamma * entropies).min(initial=np.inf))


@given(SEEDS, st.integers(1, 5), WEIGHTS)
@settings(deadline=None, max_examples=40)
def test_no_mixture_of_a_fine_grid_is_better(seed, tasks, weights):
    influence, prior, caps = random_problem(seed, tasks, 3)
    decision = solve(influence, prior, caps, **weights)
    best_of_grid = grid_oracle(decision, influence, caps, **weights)
    assert decision.objective <= best_of_grid + 1e-6 * max(1, abs(decision.objective))


@given(st.lists(st.lists(st.integers(-4, 4), min_size=3, max_size=3), min_size=1, max_size=7), WEIGHTS)
@settings(deadline=None, max_examples=80)
def test_ties_zeros_and_opposed_tasks_are_decided_as_well_as_a_grid_can(rows, weights):
    """Whole numbers make tasks that agree, contradict each other or are untouched: degenerate constraints."""
    influence = np.array(rows) / 4
    decision = solve(influence, [0.2, 0.3, 0.5], **weights)
    assert_feasible(decision, influence, decision.prior_K, np.ones(3))
    assert decision.objective <= grid_oracle(decision, influence, np.ones(3), **weights) + 1e-6


def test_the_fine_grid_comes_as_near_as_its_mesh_allows():
    influence = np.array([[1.0, 0.2, 0.1], [0.3, 0.9, 0.4]])
    decision = solve(influence, [0.2, 0.3, 0.5])
    best_of_grid = grid_oracle(decision, influence, np.ones(3))
    assert decision.objective == pytest.approx(best_of_grid, abs=1e-3)


def test_without_spread_bounds_and_pareto_the_solution_is_the_closed_form():
    rng = np.random.default_rng(1)
    influence = rng.normal(size=(9, 26)) + 1
    decision = solve(influence, uniformity=0.0, gain=0.7, entropy=1.3, pareto=False)
    logits = 0.7 / 1.3 * (influence / influence.max(axis=1, keepdims=True)).sum(axis=0)
    closed_form = np.exp(logits) / np.exp(logits).sum()
    assert decision.weights_K == pytest.approx(closed_form, abs=1e-5)


@pytest.mark.parametrize("copies", [1, 3, 9])
def test_a_mixture_does_not_depend_on_how_many_alike_tasks_want_it(copies):
    """With nine of them it is what the paper's own weights give."""
    influence = np.random.default_rng(2).normal(size=(1, 6)) + 1
    decision = solve(np.repeat(influence, copies, axis=0), pareto=False)
    of_paper = solve(np.repeat(influence, 9, axis=0), gain=1.0, pareto=False)
    assert decision.weights_K == pytest.approx(of_paper.weights_K, abs=1e-5)


def test_a_planted_optimum_is_recovered():
    """The logarithm of the planted mixture, shifted to have 1 as its maximum, is the influence whose optimum it is."""
    planted = np.array([0.5, 0.25, 0.15, 0.07, 0.03])
    influence = (1 + np.log(planted / planted.max()))[None]
    decision = solve(influence, gain=1.0, pareto=False)
    assert decision.weights_K == pytest.approx(planted, abs=1e-6)


def test_without_entropy_the_best_domain_takes_all_it_may():
    assert solve([[0.2, 1.0, 0.5]], entropy=0.0).weights_K == pytest.approx([0, 1, 0], abs=1e-6)
    capped = solve([[0.2, 1.0, 0.5]], caps=[1, 0.6, 0.3], entropy=0.0)
    assert capped.weights_K == pytest.approx([0.1, 0.6, 0.3], abs=1e-6)


def test_uniformity_alone_makes_tasks_gain_alike():
    decision = solve([[1.0, 0.0], [0.0, 3.0]], [0.5, 0.5], uniformity=1.0, gain=0.0, entropy=0.0, pareto=False)
    assert decision.normalised_gain_T == pytest.approx([0.5, 0.5], abs=1e-5)


def test_one_domain_takes_everything():
    decision = solve([[0.3], [-0.2]])
    assert decision.weights_K.tolist() == [1.0]
    assert decision.expected_gain_T.tolist() == [0.0, 0.0]


def test_one_task_has_no_spread():
    assert solve([[0.3, 0.1]]).terms["std"] == 0


@given(SEEDS, st.integers(1, 10), st.integers(1, 30))
@settings(deadline=None, max_examples=50)
def test_with_the_papers_weights_every_decision_is_proven_the_best(seed, tasks, domains):
    """The proof needs every multiplier to be right, so it checks the multipliers that are reported as well."""
    decision = solve(*random_problem(seed, tasks, domains))
    assert decision.optimality_gap <= 2e-6 * max(1, abs(decision.objective))


def test_a_task_that_all_domains_serve_alike_constrains_nothing():
    """As a constraint it would repeat the sum of weights, on which SLSQP used to give up early."""
    decision = solve([[0, 0, 1], [1, 1, 1]], [0.2, 0.3, 0.5])
    assert decision.optimality_gap <= 1e-5
    assert decision.weights_K[2] > 0.5


def test_tasks_that_nothing_influences_leave_the_decision_alone():
    influence = np.array([[1.0, 0.3, 0.1], [0.2, 0.5, 1.0]])
    with_idle = np.vstack([influence, np.zeros(3)])
    assert np.array_equal(solve(with_idle).weights_K, solve(influence).weights_K)
    assert solve(np.zeros((2, 3))).weights_K == pytest.approx([1 / 3] * 3, abs=1e-6)


@given(SEEDS)
@settings(deadline=None, max_examples=30)
def test_domains_of_equal_influence_get_equal_weights(seed):
    influence, _, _ = random_problem(seed, 4, 6)
    influence[:, 3] = influence[:, 1]
    weights = solve(influence).weights_K
    assert weights[3] == pytest.approx(weights[1], abs=1e-5)


@given(SEEDS)
@settings(deadline=None, max_examples=30)
def test_the_order_of_the_domains_does_not_matter(seed):
    influence, prior, caps = random_problem(seed, 4, 6)
    order = np.random.default_rng(seed).permutation(6)
    weights = solve(influence, prior, caps).weights_K
    assert solve(influence[:, order], prior[order], caps[order]).weights_K == pytest.approx(weights[order], abs=1e-4)


@given(SEEDS)
@settings(deadline=None, max_examples=30)
def test_the_scale_of_a_task_does_not_matter(seed):
    influence, prior, caps = random_problem(seed, 4, 6)
    powers_of_two = 2.0 ** np.random.default_rng(seed).integers(-40, 40, size=(4, 1))  # exact in floats
    assert np.array_equal(
        solve(influence * powers_of_two, prior, caps).weights_K, solve(influence, prior, caps).weights_K
    )


def test_a_task_that_every_domain_harms_is_steered_to_the_least_harm():
    """The paper's normaliser, max S = −1, would make −10/−1 = 10 of the worst harm: the most attractive domain."""
    decision = solve([[-1.0, -10.0, -5.0]])
    assert np.argsort(decision.weights_K).tolist() == [1, 2, 0]
    assert decision.expected_gain_T[0] > 0
    assert any("'task0'" in note and "sign" in note for note in decision.notes)


def test_expected_gain_is_in_the_units_of_the_influence():
    influence = np.array([[3e-4, 1e-4, 0.0]])
    decision = solve(influence, [0.2, 0.3, 0.5])
    assert decision.expected_gain_T == pytest.approx(influence @ (decision.weights_K - [0.2, 0.3, 0.5]))


def test_a_prior_outside_the_caps_is_replaced_by_the_nearest_mixture_inside():
    decision = solve([[1.0, 0.5, 0.2], [0.2, 0.5, 1.0]], [0.8, 0.1, 0.1], caps=[0.4, 1, 1])
    assert decision.reference_K == pytest.approx([0.4, 0.3, 0.3])
    assert any("prior is outside the bounds" in note for note in decision.notes)
    assert_feasible(decision, np.array([[1.0, 0.5, 0.2], [0.2, 0.5, 1.0]]), decision.reference_K, [0.4, 1, 1])


def test_a_prior_that_nothing_beats_is_kept_and_it_is_said():
    opposed = solve([[1.0, 0.0], [0.0, 1.0]], [0.3, 0.7], gain=2.0)
    assert opposed.weights_K == pytest.approx([0.3, 0.7], abs=1e-6)
    assert opposed.notes == (
        "No mixture within the constraints is better than the prior inside the bounds, so that is kept.",
    )


def test_what_binds_is_named_with_its_cause_and_its_price():
    influence = [[1.0, 0.6, 0.1, 0.0]]
    decision = solve(influence, caps=[0.2, 1, 1, 1], bounds={"domain3": {"min": 0.3}}, pareto=False)
    found = {(binding.name, binding.kind, binding.reason, binding.parameter) for binding in decision.binding}
    assert found == {
        ("domain0", "upper", "repetition", "optimize.max_epochs"),
        ("domain3", "lower", "user", "optimize.bounds.domain3.min"),
    }


def test_the_price_of_a_bound_is_what_loosening_it_saves():
    influence = [[1.0, 0.6, 0.1], [0.7, 1.0, 0.3]]
    step = 1e-4
    tight, loose = (solve(influence, caps=[cap, 1, 1]) for cap in (0.2, 0.2 + step))
    (binding,) = tight.binding
    assert binding.multiplier == pytest.approx((tight.objective - loose.objective) / step, rel=1e-2)


def test_the_price_of_a_task_is_what_its_constraint_costs():
    influence = np.array([[1.0, 0.2, 0.0], [0.9, 0.1, 0.2], [0.0, 0.4, 1.0]])
    decision = solve(influence, [0.1, 0.1, 0.8])
    (binding,) = [binding for binding in decision.binding if binding.kind == "pareto"]
    assert binding.name == "task2"
    assert decision.expected_gain_T[2] == pytest.approx(0, abs=FEASIBLE)
    assert solve(influence, [0.1, 0.1, 0.8], pareto=False).objective < decision.objective


def test_a_failed_solver_leaves_the_reference_and_says_so(monkeypatch):
    from scipy import optimize

    def diverge(_value, start, **_):
        return optimize.OptimizeResult(x=start * np.nan, multipliers=np.array([np.nan, np.nan]))

    monkeypatch.setattr(optimize, "minimize", diverge)
    decision = solve([[1.0, 0.0]], [0.3, 0.7])
    assert decision.weights_K.tolist() == [0.3, 0.7]
    assert "could not prove" in decision.notes[-1]


def test_an_infeasible_answer_of_the_solver_is_not_taken(monkeypatch):
    from scipy import optimize

    def cheat(_value, start, **_):
        return optimize.OptimizeResult(x=np.array([1.0, 0.5]), multipliers=np.zeros(2))

    monkeypatch.setattr(optimize, "minimize", cheat)
    assert solve([[1.0, 0.0]], [0.3, 0.7]).weights_K.tolist() == [0.3, 0.7]


def test_twenty_six_domains_and_nine_tasks_are_proven_the_best():
    influence, prior, _ = random_problem(0, 9, 26)
    decision = solve(influence, prior)
    assert decision.optimality_gap <= 1e-6 * max(1, abs(decision.objective))


def test_decision_becomes_json_and_back():
    decision = solve([[1.0, 0.5], [0.6, 0.5]], [0.4, 0.6], caps=[0.45, 1])
    stored = json.loads(json.dumps(decision.to_record("direct", 1).to_json(), allow_nan=False))
    assert stored["weights"] == dict(zip(decision.domains, decision.weights_K.tolist(), strict=True))
    assert stored["binding"][0]["reason"] == "repetition"
    assert set(stored["terms"]) == {"std", "gain", "entropy"}


def test_an_influence_that_is_no_number_is_refused():
    with pytest.raises(TikmixError, match="'domain1' on the task 'task0'"):
        solve([[1.0, math.nan]])


def test_bounds_over_other_domains_are_refused():
    bounds = mixture_bounds(OptimizeParameters(), {"web": Supply(math.inf), "code": Supply(math.inf)}, 1000)
    with pytest.raises(ValueError, match="bounds are over"):
        solve_direct(
            np.ones((1, 2)),
            np.full(2, 0.5),
            bounds,
            OptimizeParameters(method="paper"),
            domains=["code", "web"],
            tasks=["t"],
        )


@given(SEEDS, WEIGHTS)
@settings(deadline=None, max_examples=30)
def test_no_feasible_mixture_beats_the_proven_bound(seed, weights):
    """The prior mixed with the decision, and random mixtures near it, are feasible or worse."""
    influence, prior, _ = random_problem(seed, 3, 8)
    decision = solve(influence, prior, **weights)
    chosen = {"uniformity": 1.0, "gain": 9 / 3, "entropy": 1.0, **weights}
    objective = Objective(influence / decision.normaliser_T[:, None], **chosen)
    for share in np.linspace(0, 1, 21):
        mixed = share * prior + (1 - share) * decision.weights_K
        assert objective.value(mixed) >= decision.objective - decision.optimality_gap - 1e-9


@pytest.mark.parametrize("anchor", ["uniform", "current"])
def test_the_mixture_that_a_growing_measurement_waits_for_is_the_one_that_the_decision_makes(anchor):
    domains, tasks = ["books", "code", "web"], ["reading", "coding"]
    influence_TK = np.array([[1.0, 0.3, 0.5], [0.2, 1.0, 0.4]])
    current, weights = {"books": 0.7, "code": 0.1, "web": 0.2}, {"books": 0.4, "code": 0.3, "web": 0.3}
    budget = TokenBudget(
        round=0, available=dict.fromkeys(domains, 1e9), consumed={}, chunk_tokens=1000, current=current
    )
    prior = MixtureRecord(round=0, strategy="prior", chunk_tokens=1000, weights=weights, tokens={}, epochs={})
    optimize = OptimizeParameters.model_validate({"method": "paper", "anchor": anchor})
    table = pd.DataFrame(
        [
            {"task": task, "domain": domain, "influence": influence_TK[t, k], "stderr": 0.1}
            for t, task in enumerate(tasks)
            for k, domain in enumerate(domains)
        ]
    )
    decision = decide_direct(budget, prior, optimize, TikmixParameters(), [table])
    implied_K = implied_mixture(budget, weights, optimize, tasks)(influence_TK)
    assert implied_K == pytest.approx(decision.weights_K, abs=1e-9)
    if anchor == "current":  # which stands for the mixture of n-gram models while that is not known
        by_ngrams = OptimizeParameters.model_validate({"method": "paper", "anchor": "ngram"})
        assert implied_mixture(budget, weights, by_ngrams, tasks)(influence_TK) == pytest.approx(implied_K)


def test_an_anchor_of_n_gram_models_pulls_to_their_mixture_and_is_asked_for():
    supplies = {name: Supply(math.inf) for name in names("d", 3)}
    influence, bounds = np.array([[1.0, 0.9, 0.8]]), mixture_bounds(OptimizeParameters(), supplies, 1000)
    ngram, prior = np.array([0.1, 0.2, 0.7]), np.full(3, 1 / 3)

    def decided(**given):
        parameters = OptimizeParameters.model_validate({"method": "paper", "pareto": False, **given})
        return solve_direct(
            influence, prior, bounds, parameters, domains=bounds.domains, tasks=["t"], current_K=prior, ngram_K=ngram
        )

    far, near = decided(anchor="ngram", entropy=0.3), decided(anchor="ngram", entropy=1000.0)
    # next to the anchor, which has a hundredth of the uniform mixture in it
    assert near.weights_K == pytest.approx(0.99 * ngram + 0.01 / 3, abs=1e-3)
    assert far.weights_K[0] > near.weights_K[0]
    assert near.anchor_K == pytest.approx(0.99 * ngram + 0.01 / 3)
    assert decided().anchor_K is None
    parameters = OptimizeParameters(method="paper", anchor="ngram")
    with pytest.raises(ValueError, match="no mixture of n-gram models"):
        solve_direct(influence, prior, bounds, parameters, domains=bounds.domains, tasks=["t"])
