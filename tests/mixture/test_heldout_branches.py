"""What branches have measured of held-out text takes the place of the rule in every guardrail on it."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tests.mixture.response_examples import measured, names, random_problem
from tikmix_pipeline.mixture.bounds import Bounds
from tikmix_pipeline.mixture.heldout_branches import HeldoutOfBranches, measured_strength
from tikmix_pipeline.mixture.response import ResponseProblem, response_problem
from tikmix_pipeline.mixture.response_branches import DIRECT, REFERENCE, BranchLosses, measured_response
from tikmix_pipeline.parameters import OptimizeParameters

SCALE = 0.1
"""c₁ of `measured`."""


def test_the_strength_is_how_many_times_the_nats_of_a_task_a_unit_is() -> None:
    told = np.array([0.0, -1.0, -2.0, 0.5])
    assert measured_strength(told, 2.5 * SCALE * told, SCALE, 1.0) == pytest.approx(2.5)
    noisy = 2.5 * SCALE * told + np.array([0.0, 0.02, -0.01, 0.0])  # orthogonal to what was told
    assert measured_strength(told, noisy, SCALE, 1.0) == pytest.approx(2.5)


@pytest.mark.parametrize(("factor", "found"), [(0.0, 1.75), (-3.0, 1.75), (100.0, 8.75), (0.001, 0.35)])
def test_nonsense_leaves_the_rule_or_ends_at_five_times_it(factor: float, found: float) -> None:
    told = np.array([-1.0, -2.0, 0.5])
    assert measured_strength(told, factor * SCALE * told, SCALE, 1.75) == pytest.approx(found)
    assert measured_strength(np.zeros(3), told, SCALE, 1.75) == 1.75


def branched(factor_K: np.ndarray, response: str, **given: object) -> ResponseProblem:
    """A problem with branches whose held-out text moved `factor_K` times as much as is told, domain by domain."""
    influence, products, prior = random_problem(1, 2, 3)
    parameters = OptimizeParameters.model_validate(
        {"anchor": "uniform", "branches": 6, "heldout_response": response, **given}
    )
    domains, tasks = names("d", 3), names("t", 2)
    losses = measured(**dict.fromkeys([*domains, *tasks], 3.0))
    sizes = dict(zip(domains, (2.0, 4.0, 5.0), strict=True))

    def problem(known: object) -> ResponseProblem:
        return response_problem(
            influence,
            products,
            prior,
            Bounds.simplex(tuple(domains)),
            parameters,
            domains=domains,
            tasks=tasks,
            measured=replace(losses, bytes_per_token=sizes, heldout=known),
        )

    weights = np.random.default_rng(0).dirichlet(np.ones(3), size=5)
    told = np.array([problem(None)._heldout_gains(w) for w in weights]) - problem(None)._heldout_gains(prior)
    return problem(HeldoutOfBranches(weights, prior, (factor_K * SCALE * told).T))


@pytest.mark.parametrize("response", ["second_order", "logarithm"])
def test_every_guardrail_on_text_takes_what_was_measured_of_its_own_text(response: str) -> None:
    units = ({"tolerance": 0.5}, {"tolerance": 0.5, "unit": "nats"}, {"tolerance": 0.1, "unit": "bits_per_byte"})
    for unit in units:
        guardrails = {"heldout": None, "d0": unit, "d2": unit}
        found = branched(np.array([2.0, 1.0, 0.8]), response, guardrails=guardrails).texts
        assert [text.strength for text in found] == pytest.approx([2.0, 0.8])
    (share, nats, bits) = (branched(np.full(3, 2.0), response, guardrails={"heldout": unit}).texts[0] for unit in units)
    assert share.share == pytest.approx(0.5 / 2)
    assert nats.slack == pytest.approx(0.5 / (2 * SCALE))
    per_byte = np.mean([1 / 2, 1 / 4, 1 / 5])
    assert bits.slack == pytest.approx(0.1 * np.log(2) / (2 * SCALE * per_byte))


def test_a_guarded_decision_loses_no_more_nats_than_it_may_by_what_was_measured() -> None:
    """The paying text's nats are those of the branches, 3 times what is told."""
    guardrails = {"heldout": {"tolerance": 0.01, "unit": "nats"}}
    problem = branched(np.full(3, 3.0), "logarithm", guardrails=guardrails, pareto=False)
    decided = problem.decision()
    prior_K = problem.prior_K
    lost = 3 * SCALE * (problem._heldout_gains(prior_K) - problem._heldout_gains(decided.weights_K)).mean()
    assert lost <= 0.01 + 1e-6
    assert [one.name for one in decided.binding if one.kind == "guardrail"] == ["heldout"]
    assert lost == pytest.approx(0.01, rel=1e-3)


def test_a_strength_that_was_given_holds_whatever_branches_say() -> None:
    (text,) = branched(
        np.full(3, 2.0), "logarithm", heldout_strength=1.3, guardrails={"heldout": {"tolerance": 1}}
    ).texts
    assert text.strength == 1.3


def test_gains_of_held_out_text_are_read_from_the_branches_that_came_through() -> None:
    domains, runs = ["d0", "d1"], [REFERENCE, DIRECT, "between"]
    mixtures = np.array([[0.5, 0.5], [0.9, 0.1], [0.7, 0.3]])
    text = {"heldout-d0": [3.0, 2.5, 2.7], "heldout-d1": [4.0, 4.6, 4.2]}
    losses = pd.DataFrame({"run": runs, "t0": [3.0, 2.9, 2.95], **text})
    told = {
        "shares": {"t0": 1.0},
        "mean_K": np.array([0.2, -0.2]),
        "curved_KK": np.eye(2),
        "domains": domains,
        "rule": 0.5,
    }
    ratios = pd.DataFrame(mixtures, columns=domains).assign(run=runs)
    found = measured_response(BranchLosses(ratios, losses, {}), **told).heldout
    assert found is not None
    np.testing.assert_allclose(found.gain_KN, [[0.0, 0.5, 0.3], [0.0, -0.6, -0.2]])
    np.testing.assert_allclose(found.reference_K, [0.5, 0.5])
    assert measured_response(BranchLosses(ratios, losses.drop(columns="heldout-d1"), {}), **told).heldout is None
