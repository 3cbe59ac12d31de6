"""D's guardrails hold for the mixture that M searches, by the response model and whatever the surrogate says."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from response_examples import decide as decide_second_order
from response_examples import gains, names, product_table, random_problem, table

from tikmix_pipeline.mixture.own_share import FLOOR
from tikmix_pipeline.mixture.records import DecisionRecord
from tikmix_pipeline.mixture.second_order import DomainProducts
from tikmix_pipeline.mixture.sweep.guard import search_guard
from tikmix_pipeline.mixture.sweep.regression_data import RegressionData
from tikmix_pipeline.mixture.sweep.responses import Responses
from tikmix_pipeline.mixture.sweep.solve import solve_surrogate
from tikmix_pipeline.parameters import OptimizeParameters, SweepParameters, TikmixParameters

SEEDS = st.integers(0, 2**32 - 1)
INFLUENCE = np.array([[1.0, 0.0, -0.2], [0.8, 0.1, 0.0]])
HELDOUT = np.array([[0.5, -0.2, -0.2], [-1.0, 1.0, 0.0], [-1.0, 0.0, 1.0]])
PRODUCTS = DomainProducts(HELDOUT, 0.2 * np.eye(3))
EVEN = np.full(3, 1 / 3)
WHOLE = (np.zeros(3), np.ones(3))


def decided(influence, products, **given):
    """D's decision as it is read back, with the guardrails that it hands on."""
    decision = decide_second_order([table(influence)], [products], heldout_strength=1, **given)
    record = decision.to_record("direct", 1)
    record = DecisionRecord.from_json(json.loads(json.dumps(record.to_json(), sort_keys=True)))
    averaging = TikmixParameters(memory="precision")
    domains = names("d", influence.shape[1])
    return record, search_guard(record, [table(influence)], [product_table(products)], domains, averaging)


def search(direct, guard, predict, box=WHOLE, target="each", asked=None, **given):
    domains, tasks = names("d", 3), names("t", 2)
    weights_NK = np.random.default_rng(0).dirichlet(np.ones(len(domains)), size=64)
    runs = tuple(map(str, range(64)))
    responses = Responses(runs, tuple(domains), tuple(tasks), weights_NK, predict(weights_NK))
    sweep = SweepParameters(response="lookahead", objective="sum", target=target)
    optimize = OptimizeParameters.model_validate({"method": "paper", "pareto": False, **given})
    data = RegressionData.of(responses, influence_TK=INFLUENCE, sweep=sweep, parameters=optimize)
    return solve_surrogate(
        asked or predict,
        data=data,
        direct=direct,
        box=box,
        pareto=optimize.pareto,
        sweep=sweep,
        seed=0,
        guard=guard,
    )


def greedy(weights_NK):
    """A surrogate that likes nothing but the first domain."""
    return -np.outer(weights_NK[:, 0], np.ones(2))


def within(weights, tolerance=0.3):
    """The formula of the guardrail, written out anew."""
    of_tasks = gains(INFLUENCE.mean(0), PRODUCTS, weights, EVEN)
    return gains(HELDOUT.mean(0), PRODUCTS, weights, EVEN) + tolerance * of_tasks


@given(SEEDS)
@settings(deadline=None, max_examples=25)
def test_the_mixture_of_direct_keeps_them_and_others_miss_them_by_the_formula(seed):
    influence, products, _ = random_problem(seed, 2, 4)
    record, guard = decided(influence, products, guardrails={"heldout": {"tolerance": 0.1}, "d1": {"tolerance": 0.2}})
    prior = np.full(4, 0.25)
    weights_K = np.array([*record.weights.values()])
    assert guard.shortfall(weights_K[None])[0] == 0
    assert guard.broken(weights_K) == []
    mean = influence.mean(0) - influence.mean(0) @ prior
    unit = np.abs(mean).max()
    for weights in np.random.default_rng(seed).dirichlet(np.ones(4), size=20):
        of_tasks = gains(mean, products, weights, prior)
        rooms = [
            gains(row, products, weights, prior) + tolerance * of_tasks
            for row, tolerance in ((products.heldout_KK.mean(0), 0.1), (products.heldout_KK[1], 0.2))
        ]
        expected = sum(max(0.0, -one / unit) for one in rooms)
        assert guard.shortfall(weights[None])[0] == pytest.approx(expected, abs=3e-6)


def test_by_the_logarithm_of_own_shares_they_are_those_that_direct_was_held_by():
    influence, products, _ = random_problem(3, 2, 4)
    record, guard = decided(
        influence, products, guardrails={"heldout": {"tolerance": 0.1}}, heldout_response="logarithm"
    )
    weights_K, prior = np.array([*record.weights.values()]), np.full(4, 0.25)
    (asked,) = record.second_order.guardrails
    assert asked.logarithm is not None
    assert guard.shortfall(weights_K[None])[0] == 0
    assert guard.sentences(weights_K)[0] == record.guardrail_notes[0]
    own = np.maximum(np.diag(products.heldout_KK), 0)
    for weights in np.random.default_rng(3).dirichlet(np.ones(4), size=20):
        logarithms = 0.25 * np.log((weights + FLOOR / 4) / (0.25 + FLOOR / 4)) - (weights - prior)
        text = ((products.heldout_KK @ (weights - prior)) + own * logarithms).mean()
        mean = influence.mean(0) - influence.mean(0) @ prior
        room = (text + 0.1 * gains(mean, products, weights, prior)) / np.abs(mean).max()
        assert guard.constraints.room(weights[None])[0, 0] == pytest.approx(room, abs=3e-6)


def test_what_the_surrogate_likes_is_searched_within_them():
    direct, guard = decided(INFLUENCE, PRODUCTS, guardrails={"heldout": {"tolerance": 0.3}})
    free, held = search(direct, None, greedy), search(direct, guard, greedy)
    assert within(free.weights_K) < -0.1
    assert within(held.weights_K) >= -1e-5
    assert held.kept == "surrogate"
    # as far as they let it go, and so further than D
    assert held.weights_K[0] >= direct.weights["d0"] - 1e-6
    best = max(w[0] for w in np.random.default_rng(1).dirichlet(np.ones(3), size=20_000) if within(w) >= 0)
    assert held.weights_K[0] >= best - 0.02


def test_they_hold_beside_a_pareto_constraint_and_for_one_model_of_the_objective():
    direct, guard = decided(INFLUENCE, PRODUCTS, guardrails={"heldout": {"tolerance": 0.3}})
    held = search(direct, guard, greedy, pareto=True)
    assert within(held.weights_K) >= -1e-5
    together = search(direct, guard, greedy, target="aggregate", asked=lambda weights_NK: -weights_NK[:, 0])
    assert within(together.weights_K) >= -1e-5
    assert together.weights_K == pytest.approx(held.weights_K, abs=0.02)


def test_where_no_mixture_of_the_search_keeps_them_that_of_direct_stays_and_they_are_named():
    direct, guard = decided(INFLUENCE, PRODUCTS, guardrails={"heldout": {"tolerance": 0.1}})
    box = np.array([0.8, 0.0, 0.0]), np.ones(3)
    held = search(direct, guard, greedy, box=box)
    assert held.kept == "direct"
    assert held.weights_K.tolist() == [*direct.weights.values()]
    (note,) = [note for note in held.notes if "No mixture that was searched" in note]
    assert "keep the guardrails on 'heldout'" in note
    assert "optimize.guardrails" in note


def test_what_text_is_expected_to_pay_under_the_searched_mixture_is_said():
    direct, guard = decided(INFLUENCE, PRODUCTS, guardrails={"heldout": {"tolerance": 0.3}})
    held = search(direct, guard, greedy)
    paid = -gains(HELDOUT.mean(0), PRODUCTS, held.weights_K, EVEN)
    paid /= gains(INFLUENCE.mean(0), PRODUCTS, held.weights_K, EVEN)
    record = held.to_record("lookahead", 1)
    assert f"Held-out text is expected to lose {paid:.2f} of what the tasks gain" in record.guardrail_notes[0]
    assert DecisionRecord.from_json(record.to_json()) == record


def test_a_decision_without_guardrails_hands_on_none():
    assert decided(INFLUENCE, PRODUCTS, guardrails={"heldout": None})[1] is None
    record, _ = decided(INFLUENCE, PRODUCTS)
    assert search_guard(record, [table(INFLUENCE)], [], names("d", 3), TikmixParameters()) is None
    free = search(record, None, greedy).to_record("lookahead", 1)
    assert free.guardrail_notes is None
    assert "guardrail_notes" not in free.to_json()
