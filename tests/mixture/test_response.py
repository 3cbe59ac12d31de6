"""Decisions by second order: convex, proven, guarded, and blind to what all domains do alike."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from response_examples import NO_GUARD, decide, gains, measured, names, random_problem, solve, table

from tikmix_pipeline.mixture.bounds import Bounds
from tikmix_pipeline.mixture.decision import summary_lines
from tikmix_pipeline.mixture.direct import solve_direct
from tikmix_pipeline.mixture.influence_matrix import average_influence
from tikmix_pipeline.mixture.objective import Objective
from tikmix_pipeline.mixture.records import DecisionRecord
from tikmix_pipeline.mixture.response import response_problem
from tikmix_pipeline.mixture.second_order import DomainProducts, second_order_gains
from tikmix_pipeline.parameters import OptimizeParameters

SEEDS = st.integers(0, 2**32 - 1)

ALLOWED = 1 / 1.75
"""What held-out text may pay by default of what the tasks gain, both in the units of S."""


@given(SEEDS, st.integers(1, 6), st.integers(2, 12), st.booleans())
@settings(deadline=None, max_examples=60)
def test_the_mixture_is_proven_the_best_and_harms_no_task(seed, tasks, domains, guarded):
    influence, products, prior = random_problem(seed, tasks, domains)
    decision = solve(influence, products, prior, **({} if guarded else NO_GUARD))
    assert decision.weights_K.sum() == pytest.approx(1, abs=1e-8)
    assert decision.optimality_gap <= 1e-5 * max(1, abs(decision.objective))
    scale = np.abs(influence).max()
    assert np.all(gains(influence, products, decision.weights_K, prior) >= -1e-6 * scale)


@given(SEEDS, st.sampled_from(["common", "best"]))
@settings(deadline=None, max_examples=40)
def test_no_mixture_of_a_fine_grid_is_better(seed, normaliser):
    influence, products, prior = random_problem(seed, 2, 3)
    decision = solve(influence, products, prior, pareto=False, normaliser=normaliser)
    unit_T = decision.gain_scale_T if normaliser == "best" else np.full(2, decision.gain_scale_T.mean())
    steps = 60
    grid = np.array([[i, j, steps - i - j] for i in range(steps + 1) for j in range(steps + 1 - i)]) / steps
    task_NT = np.array([gains(influence, products, weights, prior) for weights in grid])
    text_N = np.array([gains(products.heldout_KK.mean(0), products, weights, prior) for weights in grid])
    value_N = (task_NT / unit_T).mean(axis=1)
    is_guarded = text_N + ALLOWED * task_NT.mean(axis=1) >= 0
    best = (gains(influence, products, decision.weights_K, prior) / unit_T).mean()
    assert value_N[is_guarded].max(initial=0) <= best + 1e-6
    # and what was decided is one that is guarded
    text = gains(products.heldout_KK.mean(0), products, decision.weights_K, prior)
    of_tasks = gains(influence.mean(0), products, decision.weights_K, prior)
    assert text + ALLOWED * of_tasks >= -1e-6 * np.abs(influence).max()


def test_a_task_that_has_little_to_gain_asks_for_little_unless_it_is_told_to_ask_for_a_share():
    """The first task gains by domain 0 a hundred times what the second gains by domain 1."""
    influence, prior = np.array([[1.0, 0.0], [0.0, 0.01]]), np.full(2, 0.5)
    products = DomainProducts(np.zeros((2, 2)), 0.01 * np.eye(2))
    common, best = (
        solve(influence, products, prior, pareto=False, normaliser=normaliser, **NO_GUARD)
        for normaliser in ("common", "best")
    )
    assert common.weights_K[0] == pytest.approx(1)
    assert best.weights_K[0] < 0.8
    np.testing.assert_array_equal(common.gain_scale_T, best.gain_scale_T)


def test_the_best_possible_gain_of_a_task_is_a_share_of_one():
    influence, products, prior = random_problem(3, 1, 5)
    decision = solve(influence, products, prior, **NO_GUARD)
    assert decision.normalised_gain_T == pytest.approx([1.0])
    rng = np.random.default_rng(0)
    others = [gains(influence, products, rng.dirichlet(np.ones(5)), prior)[0] for _ in range(200)]
    assert max(others) <= decision.gain_scale_T[0]


@given(SEEDS, st.floats(-100, 100))
@settings(deadline=None, max_examples=30)
def test_a_constant_added_to_a_row_changes_nothing(seed, constant):
    influence, products, prior = random_problem(seed, 3, 6)
    moved = influence + constant * np.array([[1.0], [0.0], [2.0]])
    before, after = (solve(rows, products, prior) for rows in (influence, moved))
    np.testing.assert_allclose(after.weights_K, before.weights_K, atol=2e-4)
    np.testing.assert_allclose(after.expected_gain_T, before.expected_gain_T, rtol=1e-3, atol=1e-6)


def test_there_is_no_cliff_where_a_task_s_largest_influence_is_small():
    """By the paper's normaliser b = .1, .02 and .0011 give all to one domain, and b = .0009 gives 56/40/4/0."""
    products = DomainProducts(np.eye(4), np.eye(4))
    prior = np.full(4, 0.25)
    weights = []
    for b in (0.1, 0.02, 0.0011, 0.0009, -0.02):
        influence = np.array([[1.0, 0.2, 0.1, 0.3], [0.3, 1.0, 0.2, 0.1], [-1.0, -0.6, b, -0.8]])
        weights.append(solve(influence, products, prior, pareto=False, **NO_GUARD).weights_K)
    for one, other in zip(weights[1:], weights, strict=False):
        assert np.abs(one - other).sum() < 0.1
    paper = OptimizeParameters.model_validate({"method": "paper", "pareto": False})
    mixtures = []
    for b in (0.0011, 0.0009):
        influence = np.array([[1.0, 0.2, 0.1, 0.3], [0.3, 1.0, 0.2, 0.1], [-1.0, -0.6, b, -0.8]])
        bounds = Bounds.simplex(names("d", 4))
        found = solve_direct(influence, prior, bounds, paper, domains=names("d", 4), tasks=names("t", 3))
        mixtures.append(found.weights_K)
    assert np.abs(mixtures[0] - mixtures[1]).sum() > 1  # which is why


def test_there_is_no_cliff_where_the_prior_serves_a_task_nearly_best():
    """As in `remix`, whose prior is the current mixture: next to nothing to gain is no reason to outvote the others."""
    prior = np.array([0.5, 0.3, 0.2])
    products, weights = DomainProducts(np.eye(3), np.eye(3)), []
    for epsilon in (0.0, 0.0134, 0.0138, 0.05):
        nearly = 0.85 * prior + epsilon * np.array([1, -0.5, -0.5])
        influence = np.array([nearly, [0.0, 1.0, 0.3]])
        weights.append(solve(influence, products, prior, pareto=False, **NO_GUARD).weights_K)
    for one, other in zip(weights[1:], weights, strict=False):
        assert np.abs(one - other).sum() < 0.15


@pytest.mark.parametrize("seed", range(8))
def test_a_task_that_all_domains_serve_alike_says_nothing_whatever_rounding_leaves(seed):
    products, prior = DomainProducts(np.eye(3), 0.1 * np.eye(3)), np.random.default_rng(seed).dirichlet(np.ones(3))
    flat = solve(np.array([[1.0, 0.2, 0.1], [0.1, 0.1, 0.1]]), products, prior, **NO_GUARD)
    alone = solve(np.array([[1.0, 0.2, 0.1], [0.0, 0.0, 0.0]]), products, prior, **NO_GUARD)
    np.testing.assert_allclose(flat.weights_K, alone.weights_K, atol=1e-6)


def test_without_curvature_all_goes_to_the_best_domain():
    products = DomainProducts(np.zeros((3, 3)), np.zeros((3, 3)))
    decision = solve(np.array([[1.0, 0.5, 0.0]]), products, np.full(3, 1 / 3), **NO_GUARD)
    assert decision.weights_K == pytest.approx([1, 0, 0], abs=1e-6)


def test_the_more_a_step_saturates_the_more_domains_share():
    influence, products, prior = random_problem(1, 3, 8)
    shares = [solve(influence, products, prior, saturation=r, **NO_GUARD).weights_K.max() for r in (0.1, 0.5, 2.0)]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > shares[-1] + 0.05


def test_bounds_hold_and_the_prior_outside_them_is_told():
    influence, products, _ = random_problem(4, 2, 3)
    decision = solve(influence, products, np.array([0.8, 0.1, 0.1]), caps=[0.5, 1, 1])
    assert decision.weights_K[0] <= 0.5 + 1e-12
    assert any("outside the bounds" in note for note in decision.notes)


def test_a_task_that_the_prior_serves_best_is_told_and_counts_by_its_losses():
    products = DomainProducts(np.eye(2), np.eye(2))
    decision = solve(np.array([[1.0, 1.0], [0.0, 1.0]]), products, np.array([0.5, 0.5]), saturation=0.0, **NO_GUARD)
    assert decision.weights_K == pytest.approx([0, 1], abs=1e-6)
    assert any("No domain influences the task 't0'" in note for note in decision.notes)


def test_gains_of_many_mixtures_are_those_of_each():
    influence, products, prior = random_problem(6, 2, 5)
    weights_NK = np.random.default_rng(0).dirichlet(np.ones(5), size=7)
    found = second_order_gains(influence, products.curved_KK, 0.85, weights_NK, prior)
    expected = [gains(influence, products, weights, prior) for weights in weights_NK]
    np.testing.assert_allclose(found, expected)


def test_rounds_are_averaged_by_their_contrasts():
    """A round whose influence is large and alike everywhere has no preference, and little say."""
    none, clear = np.array([[10, 9.7, 9.5, 9.4]]), np.array([[0.2, 1, -0.8, -0.4]])
    products = DomainProducts(np.eye(4), np.eye(4))
    both = decide([table(none), table(clear)], [products, products], **NO_GUARD)
    alone = decide([table(clear)], [products], **NO_GUARD)
    assert alone.weights_K[1] > 0.95
    assert both.weights_K[1] > 0.65
    raw = average_influence([none, clear], [np.full((1, 4), 0.1)] * 2)
    assert raw.argmax() == 0  # of rows that are not centred, the round without a preference has .99 of the say
    shifted = decide([table(none - 9.65), table(clear + 50)], [products, products], **NO_GUARD)
    np.testing.assert_allclose(shifted.weights_K, both.weights_K, atol=1e-4)


def test_products_of_earlier_rounds_count_in_the_units_of_the_last():
    influence, products, _ = random_problem(8, 2, 4)
    scaled = DomainProducts(100 * products.heldout_KK, 100 * products.curved_KK)
    both = decide([table(100 * influence, 10), table(influence)], [scaled, products])
    alone = decide([table(influence)], [products])
    np.testing.assert_allclose(both.weights_K, alone.weights_K, atol=1e-4)


def test_a_task_without_influence_in_one_round_leaves_the_products_as_they_are():
    influence, products, _ = random_problem(8, 2, 4)
    flat = influence * np.array([[1.0], [1e-9]])
    with_it = decide([table(influence), table(flat)], [products, products], **NO_GUARD)
    assert with_it.second_order.mean_gain == pytest.approx(
        decide([table(flat)], [products], **NO_GUARD).second_order.mean_gain, rel=0.5
    )


def test_where_branches_do_not_tell_the_scale_nothing_is_said_in_nats():
    influence, products, prior = random_problem(9, 2, 4)
    parameters = OptimizeParameters.model_validate({"method": "response", "anchor": "uniform"})
    found = response_problem(
        influence,
        products,
        prior,
        Bounds.simplex(names("d", 4)),
        parameters,
        domains=names("d", 4),
        tasks=names("t", 2),
        measured=measured(is_told=False),
    ).decision()
    assert found.second_order.scale is None
    assert found.second_order.branches == 6
    assert any("do not tell what a gain is in nats" in note for note in found.notes)


def test_that_no_weight_is_negative_is_not_told():
    products = DomainProducts(np.zeros((3, 3)), np.zeros((3, 3)))
    decision = solve(np.array([[1.0, 0.5, 0.0]]), products, np.full(3, 1 / 3), **NO_GUARD)
    assert {binding.reason for binding in decision.binding} == {"simplex"}
    said = "\n".join(summary_lines(decision))
    assert "at least 0" not in said
    assert "at most 1" not in said


def test_the_record_of_a_decision_reads_back():
    influence, products, prior = random_problem(9, 2, 4)
    record = solve(influence, products, prior).to_record("direct", 1)
    assert DecisionRecord.from_json(record.to_json()) == record


def test_the_objective_s_bound_is_below_every_mixture_s_value():
    rng = np.random.default_rng(0)
    root = rng.normal(size=(5, 5))
    objective = Objective(rng.normal(size=(3, 5)), 1.0, 2.0, 0.3, curved_KK=root @ root.T)
    bounds = Bounds.simplex(names("d", 5))
    for _ in range(20):
        at_K = rng.dirichlet(np.ones(5))
        bound = objective.lower_bound(
            at_K, float(rng.normal()), np.zeros(0), constraints=bounds.halfspaces(), box=bounds.box()
        )
        assert all(objective.value(weights) >= bound - 1e-9 for weights in rng.dirichlet(np.ones(5), size=50))
    step = 1e-6 * (rng.dirichlet(np.ones(5)) - at_K)
    slope = (objective.value(at_K + step) - objective.value(at_K - step)) / 2
    assert slope == pytest.approx(objective.gradient(at_K) @ step, rel=1e-5)
