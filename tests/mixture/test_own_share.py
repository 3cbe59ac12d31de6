"""Held-out text by the logarithm of its domain's own share: gains, constraints, and decisions that keep them."""

import re
from typing import Any

import numpy as np
import pytest

from tikmix_pipeline.mixture.bounds import unlimited_bounds
from tikmix_pipeline.mixture.decision import Decision
from tikmix_pipeline.mixture.guardrails import guardrail_constraints
from tikmix_pipeline.mixture.own_share import FLOOR, Logarithms, TextGain, own_logarithms
from tikmix_pipeline.mixture.response import response_problem
from tikmix_pipeline.mixture.second_order import DomainProducts
from tikmix_pipeline.parameters import OptimizeParameters

PRIOR = np.array([0.5, 0.3, 0.2])
HELDOUT = np.array([[4.0, -0.2, 0.1], [0.3, 3.0, -0.1], [0.2, 0.1, 5.0]])
INFLUENCE = np.array([[0.1, 0.2, 3.0], [0.0, 0.3, 2.0]])
PRODUCTS = DomainProducts(HELDOUT, 0.2 * np.eye(3))
NAMES = ("a", "b", "c")


def by_hand(text: int, weights_K: np.ndarray) -> float:
    """The formula of the module, written out."""
    gain = 0.0
    for other in range(3):
        if other != text:
            gain += HELDOUT[text, other] * (weights_K[other] - PRIOR[other])
    share = (weights_K[text] + FLOOR * PRIOR[text]) / (PRIOR[text] + FLOOR * PRIOR[text])
    return gain + HELDOUT[text, text] * PRIOR[text] * float(np.log(share))


def gain_of(text: int) -> TextGain:
    return TextGain.logarithm(HELDOUT[text], own_logarithms(HELDOUT, PRIOR)[text], PRIOR)


def decide(**given: Any) -> Decision:
    told = {"heldout_response": "logarithm", "saturation": 0.5, "anchor": "uniform", "pareto": False, **given}
    parameters = OptimizeParameters.model_validate({"method": "response", **told})
    bounds = unlimited_bounds(parameters, NAMES, dict(zip(NAMES, PRIOR.tolist(), strict=True)))
    return response_problem(
        INFLUENCE, PRODUCTS, PRIOR, bounds, parameters, domains=NAMES, tasks=("quiz", "riddle")
    ).decision()


@pytest.mark.parametrize("text", [0, 1, 2])
@pytest.mark.parametrize("weights", [[1.0, 0.0, 0.0], [0.0, 0.2, 0.8], [0.4, 0.4, 0.2], [0.5, 0.3, 0.2]])
def test_gains_are_those_of_the_formula(text: int, weights: list[float]) -> None:
    weights_K = np.array(weights)
    assert gain_of(text).over(weights_K, PRIOR, 0.5, PRODUCTS.curved_KK) == pytest.approx(by_hand(text, weights_K))


def test_neglected_text_loses_more_than_to_second_order_and_wanted_text_gains_less() -> None:
    little, much = np.array([0.01, 0.3, 0.69]), np.array([0.9, 0.05, 0.05])
    for weights_K in (little, much):
        linear = TextGain.second_order(HELDOUT[0]).over(weights_K, PRIOR, 0.0, PRODUCTS.curved_KK)
        assert gain_of(0).over(weights_K, PRIOR, 0.0, PRODUCTS.curved_KK) < linear


def test_a_domain_that_harms_its_own_text_or_is_not_in_the_prior_has_no_logarithm() -> None:
    heldout_KK, prior_K = np.diag([-1.0, 2.0, 3.0]), np.array([0.5, 0.5, 0.0])
    assert own_logarithms(heldout_KK, prior_K).tolist() == np.diag([0.0, 1.0, 0.0]).tolist()
    gain = TextGain.logarithm(heldout_KK[2], own_logarithms(heldout_KK, prior_K)[2], prior_K)
    assert gain.over(np.array([0.0, 0.0, 1.0]), prior_K, 0.0, np.zeros((3, 3))) == pytest.approx(3.0)


def test_slopes_are_those_of_differences_and_the_sum_is_concave() -> None:
    logarithms = Logarithms(np.array([[2.0, 0.0, 1.0], [0.0, 3.0, 0.0]]), FLOOR * PRIOR)
    generator = np.random.default_rng(0)
    for _ in range(20):
        one_K, other_K = generator.dirichlet(np.ones(3), 2)
        step_K = 1e-6 * (other_K - one_K)
        moved = (logarithms.at((one_K + step_K)[None]) - logarithms.at((one_K - step_K)[None]))[0] / 2
        np.testing.assert_allclose(logarithms.slopes(one_K) @ step_K, moved, rtol=1e-4, atol=1e-12)
        at_NC = logarithms.at(np.stack([one_K, other_K, (one_K + other_K) / 2]))
        assert (at_NC[2] >= (at_NC[0] + at_NC[1]) / 2).all()


@pytest.mark.parametrize("tolerance", [0.1, 0.5, 2.0])
def test_a_decision_keeps_the_guardrail_and_no_mixture_that_keeps_it_is_better(tolerance: float) -> None:
    guardrail = {"heldout": {"tolerance": tolerance}}
    decision = decide(guardrails=guardrail)
    assert decision.second_order is not None
    (asked,) = decision.second_order.guardrails
    lost = -np.mean([by_hand(text, decision.weights_K) for text in range(3)])
    assert asked.gain == pytest.approx(-lost)
    assert asked.strength == 1
    assert lost <= tolerance * decision.second_order.mean_gain + 1e-6
    assert decision.optimality_gap < 1e-6
    assert [decision.second_order.heldout_gain[name] for name in NAMES] == pytest.approx(
        [by_hand(text, decision.weights_K) for text in range(3)]
    )
    free = decide(guardrails={"heldout": None})
    assert free.second_order is not None
    mean_K = (INFLUENCE - INFLUENCE @ PRIOR[:, None]).mean(axis=0)
    for weights_K in np.random.default_rng(1).dirichlet(np.full(3, 0.7), 4000):
        bent = 0.5 * 0.2 / 2 * (weights_K @ weights_K - PRIOR @ PRIOR)
        gained = mean_K @ (weights_K - PRIOR) - bent
        if -np.mean([by_hand(text, weights_K) for text in range(3)]) <= tolerance * gained:
            assert gained <= decision.second_order.mean_gain + 1e-6
    assert decision.second_order.mean_gain <= free.second_order.mean_gain + 1e-9


def test_text_counts_as_many_nats_as_tasks_unless_the_user_says_otherwise() -> None:
    strengths = {
        str(given): OptimizeParameters.model_validate(given).text_strength
        for given in ({}, {"heldout_response": "second_order"}, {"heldout_strength": 3.0})
    }
    assert list(strengths.values()) == [1.0, 1.75, 3.0]


def room(weights_K: np.ndarray, tolerance: float) -> float:
    """By how much a mixture is within a guardrail on all held-out text."""
    bent = 0.5 * 0.2 / 2 * (weights_K @ weights_K - PRIOR @ PRIOR)
    gained = float(INFLUENCE.mean(axis=0) @ (weights_K - PRIOR)) - bent
    return float(np.mean([by_hand(text, weights_K) for text in range(3)])) + tolerance * gained


def most_room(least_of_b: float, tolerance: float, steps: int = 100) -> float:
    """The most of it on a fine mesh of mixtures with at least so much of b."""
    mesh = [np.array([i, j, steps - i - j]) / steps for i in range(steps + 1) for j in range(steps + 1 - i)]
    return max(room(weights_K, tolerance) for weights_K in mesh if weights_K[1] >= least_of_b - 1e-9)


def test_bounds_that_leave_no_room_are_named_with_what_would() -> None:
    given = {"bounds": {"b": {"min": 0.6}}, "guardrails": {"heldout": {"tolerance": 0.1}}}
    assert most_room(0.6, 0.1) < 0
    (note,) = [one for one in decide(**given).notes if "against the prior itself" in one]
    lowest = float(re.search(r"lower optimize\.bounds\.b\.min from 0\.6 to (\d+\.?\d*)", note)[1])  # type: ignore[index]
    assert most_room(lowest - 0.01, 0.1) >= -1e-3 > most_room(lowest + 0.02, 0.1)
    given["bounds"]["b"]["min"] = lowest
    assert not [one for one in decide(**given).notes if "against the prior itself" in one]


def test_constraints_of_both_kinds_stand_beside_each_other() -> None:
    gains = [gain_of(0), TextGain.second_order(INFLUENCE[0])]
    held = guardrail_constraints(
        gains,
        np.array([0.5, 0.0]),
        np.array([0.1, 0.2]),
        mean_K=INFLUENCE.mean(axis=0),
        reference_K=PRIOR,
        saturation=0.5,
        curved_KK=PRODUCTS.curved_KK,
    )
    unit = np.abs(INFLUENCE.mean(axis=0)).max()
    mean = TextGain.second_order(INFLUENCE.mean(axis=0))
    for weights_K in np.random.default_rng(2).dirichlet(np.ones(3), 20):
        first, second, of_tasks = (gain.over(weights_K, PRIOR, 0.5, PRODUCTS.curved_KK) for gain in (*gains, mean))
        expected = np.array([first + 0.5 * of_tasks + 0.1, second + 0.2]) / unit
        np.testing.assert_allclose(held.room(weights_K[None])[0], expected, atol=1e-12)
        # the tangent at any mixture allows whatever the constraint does
        tangent = held.tangent(np.array([0.2, 0.2, 0.6]))
        assert (tangent.rows_GK @ weights_K - tangent.least_G >= held.room(weights_K[None])[0] - 1e-12).all()
