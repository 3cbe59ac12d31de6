"""What is shown as the reason of a decision is what it was decided on, not the last measurement."""

import numpy as np
import pytest
from response_examples import NO_GUARD, gains, names, random_problem, solve, table

from tikmix_pipeline.mixture.deciding_effects import deciding_effects
from tikmix_pipeline.mixture.direct import decide_direct
from tikmix_pipeline.mixture.influence_matrix import average_influence
from tikmix_pipeline.mixture.recording import first_order_gains_record
from tikmix_pipeline.mixture.records import MixtureRecord, TokenBudget
from tikmix_pipeline.parameters import OptimizeParameters, TikmixParameters

FIRST, LAST = np.array([[2.0, 0.0, -1.0], [0.5, 1.0, 0.0]]), np.array([[-1.0, 0.5, 1.0], [1.0, -0.5, 0.0]])
NOW = np.array([0.5, 0.3, 0.2])


def paper(rounds, **given):
    domains = names("d", 3)
    now = dict(zip(domains, NOW.tolist(), strict=True))
    plenty = dict.fromkeys(domains, 1e9)
    budget = TokenBudget(round=len(rounds) - 1, available=plenty, consumed={}, chunk_tokens=1000, current=now)
    prior = MixtureRecord(round=0, strategy="prior", chunk_tokens=1000, weights=now, tokens={}, epochs={})
    parameters = OptimizeParameters.model_validate({"method": "paper", **given})
    decided = decide_direct(budget, prior, parameters, TikmixParameters(), [table(one) for one in rounds])
    return decided.to_record("direct", len(rounds)), now


def test_of_one_round_effects_are_its_contrasts():
    record, _ = paper([LAST])
    expected = LAST - (LAST @ NOW)[:, None]
    assert np.array([list(row.values()) for row in record.effect.values()]) == pytest.approx(expected)


def test_of_several_rounds_effects_are_their_mean_and_its_error_is_smaller():
    record, _ = paper([FIRST, LAST])
    mean = average_influence([FIRST, LAST], [np.full((2, 3), 0.1)] * 2)
    expected = mean - (mean @ NOW)[:, None]
    assert np.array([list(row.values()) for row in record.effect.values()]) == pytest.approx(expected)
    alone, _ = paper([LAST])
    assert record.effect_stderr["t1"]["d0"] < alone.effect_stderr["t1"]["d0"]


def test_no_task_is_told_a_loss_that_the_decision_s_own_pareto_constraint_excludes():
    """The last round alone would tell one: the gains of a report rest on the average that its decision kept."""
    record, now = paper([FIRST, LAST], pareto=True)
    weights = record.weights
    told = first_order_gains_record(record, now, weights, {"t0": 0.1, "t1": 0.1}, calibration=None)
    moved = np.array(list(weights.values())) - NOW
    assert min((LAST @ moved).tolist()) < -1e-3, "by the last round a task would lose"
    assert min(gain.gain for gain in told.tasks.values()) > -1e-9
    # the prior is the current mixture here, so both gains are over the same
    for task, gain in told.tasks.items():
        assert gain.gain * max(record.effect[task].values()) == pytest.approx(record.expected_gain[task], abs=1e-9)
    assert told.tasks["t0"].unconstrained_gain is not None


def test_with_a_calibration_gains_are_the_decision_s_in_nats():
    record, now = paper([FIRST, LAST])
    told = first_order_gains_record(record, now, record.weights, {"t0": 0.1, "t1": 0.1}, calibration=2.0)
    assert told.unit == "nats"
    assert {task: gain.gain for task, gain in told.tasks.items()} == pytest.approx(
        {task: 2 * gain for task, gain in record.expected_gain.items()}
    )
    assert told.tasks["t0"].stderr == pytest.approx(0.2)


def test_to_second_order_effects_are_the_slopes_of_the_gains_at_the_current_mixture():
    influence, products, prior = random_problem(0, 3, 5)
    record = solve(influence, products, prior, **NO_GUARD).to_record("direct", 1)
    step = 1e-5
    for place, domain in enumerate(names("d", 5)):
        moved = (1 - step) * prior + step * np.eye(5)[place]
        slope = gains(influence, products, moved, prior) / step
        assert [record.effect[task][domain] for task in record.effect] == pytest.approx(slope.tolist(), abs=1e-3)


def test_a_domain_that_is_nearly_all_of_the_mixture_has_an_effect_of_little_error():
    found = deciding_effects(np.zeros((1, 2)), np.array([0.9, 0.1]), stderr_TK=np.ones((1, 2)))
    assert found.stderr_TK is not None
    assert found.stderr_TK[0].tolist() == pytest.approx([0.1 * 2**0.5, 0.9 * 2**0.5])
