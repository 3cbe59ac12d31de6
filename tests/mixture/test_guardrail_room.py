"""Where bounds alone cost guarded text more than its guardrail allows, they are named as infeasible ones are."""

import re

import numpy as np
import pytest
from response_examples import gains, names

from tikmix_pipeline.mixture.bounds import unlimited_bounds
from tikmix_pipeline.mixture.response import response_problem
from tikmix_pipeline.mixture.second_order import DomainProducts
from tikmix_pipeline.parameters import OptimizeParameters

INFLUENCE = np.array([[1.0, 0.0, -0.2], [0.8, 0.1, 0.0]])
HELDOUT = np.array([[0.5, -0.2, -0.2], [-1.0, 1.0, 0.0], [-1.0, 0.0, 1.0]])
PRODUCTS = DomainProducts(HELDOUT, 0.2 * np.eye(3))
PRIOR = np.array([0.2, 0.4, 0.4])


def decide(**given):
    parameters = OptimizeParameters.model_validate(
        {
            "method": "response",
            "anchor": "uniform",
            "heldout_response": "second_order",
            "heldout_strength": 1,
            **given,
        }
    )
    bounds = unlimited_bounds(parameters, names("d", 3), dict(zip(names("d", 3), PRIOR.tolist(), strict=True)))
    return response_problem(
        INFLUENCE, PRODUCTS, PRIOR, bounds, parameters, domains=bounds.domains, tasks=names("t", 2)
    ).decision()


def told(**given):
    return [note for note in decide(**given).notes if "against the prior itself" in note]


def grid(allowed, steps=120):
    """All mixtures on a fine mesh that are allowed."""
    mesh = np.array([[i, j, steps - i - j] for i in range(steps + 1) for j in range(steps + 1 - i)]) / steps
    return [weights for weights in mesh if allowed(weights)]


def room(weights, tolerance=0.1):
    of_tasks = gains(INFLUENCE.mean(0), PRODUCTS, weights, PRIOR)
    return gains(HELDOUT.mean(0), PRODUCTS, weights, PRIOR) + tolerance * of_tasks


GUARD = {"guardrails": {"heldout": {"tolerance": 0.1}}}


def test_bounds_that_leave_no_room_are_named_and_the_guardrail_holds_against_the_nearest_mixture():
    bounds = {"d0": {"min": 0.7}, "d2": {"max": 0.5}}
    assert max(map(room, grid(lambda weights: weights[0] >= 0.7))) < 0
    (note,) = told(bounds=bounds, **GUARD)
    assert note.startswith("No mixture within these bounds keeps the guardrail on held-out text")
    assert "'d0' at least 0.7 (optimize.bounds.d0.min)" in note
    assert "d2" not in note  # without it there would be no room either
    decision = decide(bounds=bounds, **GUARD)
    assert room(decision.weights_K) >= room(decision.reference_K) - 1e-7


def test_each_cure_makes_room_and_hardly_more_than_that():
    (note,) = told(bounds={"d0": {"min": 0.7}}, **GUARD)
    lowest = float(re.search(r"lower optimize\.bounds\.d0\.min from 0\.7 to (\d+\.?\d*)", note)[1])
    tolerance = float(re.search(r"raise optimize\.guardrails\.heldout\.tolerance from 0\.1 to (\d+\.?\d*)", note)[1])
    assert not told(bounds={"d0": {"min": lowest}}, **GUARD)
    assert told(bounds={"d0": {"min": lowest + 0.002}}, **GUARD)
    assert not told(bounds={"d0": {"min": 0.7}}, guardrails={"heldout": {"tolerance": tolerance}})
    assert told(bounds={"d0": {"min": 0.7}}, guardrails={"heldout": {"tolerance": tolerance - 0.01}})


def test_of_bounds_that_only_together_leave_no_room_each_is_named():
    """Text of d1 or of d2 could make up for d0, and neither may."""
    (note,) = told(bounds={"d1": {"max": 0.1}, "d2": {"max": 0.1}}, **GUARD)
    for domain, other in (("d1", "d2"), ("d2", "d1")):
        assert f"'{domain}' at most 0.1 (optimize.bounds.{domain}.max)" in note
        value = float(re.search(rf"raise optimize\.bounds\.{domain}\.max from 0\.1 to (\d+\.?\d*)", note)[1])
        assert not told(bounds={domain: {"max": value}, other: {"max": 0.1}}, **GUARD)


def test_limits_on_groups_are_named_with_their_domains():
    (note,) = told(groups={"rest": {"domains": ["d1", "d2"], "max": 0.3}}, **GUARD)
    assert "'d1', 'd2' together at most 0.3 (optimize.groups.rest.max)" in note
    value = float(re.search(r"raise optimize\.groups\.rest\.max from 0\.3 to (\d+\.?\d*)", note)[1])
    assert not told(groups={"rest": {"domains": ["d1", "d2"], "max": value}}, **GUARD)


def test_a_pin_is_named_as_one():
    (note,) = told(pinned={"d0": 0.8}, **GUARD)
    assert "'d0' pinned to 0.8 (optimize.pinned.d0)" in note
    value = float(re.search(r"lower optimize\.pinned\.d0 from 0\.8 to (\d+\.?\d*)", note)[1])
    assert not told(pinned={"d0": value}, **GUARD)


def test_what_holds_several_domains_is_to_be_loosened():
    (note,) = told(min_weight=0.33, **GUARD)
    assert "loosen optimize.min_weight" in note


@pytest.mark.parametrize("given", [{}, {"bounds": {"d0": {"min": 0.21}}}, {"bounds": {"d0": {"max": 0.1}}}])
def test_nothing_is_said_where_there_is_room(given):
    assert not told(guardrails={"heldout": {"tolerance": 0.5}}, **given)
