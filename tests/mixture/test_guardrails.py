"""Guardrails: what each asks in its unit, that it holds, its price, and what is said of it first."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from response_examples import NO_GUARD, decide, gains, measured, names, random_problem, solve, table
from scipy.optimize import LinearConstraint, NonlinearConstraint, minimize

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.mixture.bounds import Bounds
from tikmix_pipeline.mixture.decision import summary_lines
from tikmix_pipeline.mixture.guardrails import Told, check_guardrails, guarded_texts
from tikmix_pipeline.mixture.records import DecisionRecord
from tikmix_pipeline.mixture.response import response_problem
from tikmix_pipeline.mixture.second_order import DomainProducts
from tikmix_pipeline.parameters import OptimizeParameters
from tikmix_pipeline.parameters.guardrails import Guardrail

SEEDS = st.integers(0, 2**32 - 1)
CONFLICT = np.array([[1.0, 0.0, -0.2], [0.8, 0.1, 0.0]])
HELDOUT = np.array([[0.5, -0.2, -0.2], [-1.0, 1.0, 0.0], [-1.0, 0.0, 1.0]])
STRENGTH = 1.75
ERRORS = np.array([[0.1, 0.2, 0.1], [0.3, 0.1, 0.2], [0.2, 0.2, 0.4]])
PRODUCTS = DomainProducts(HELDOUT, 0.2 * np.eye(3), ERRORS)
EVEN = np.full(3, 1 / 3)
TOLD = {"d0": 4.0, "d1": 6.0, "d2": 5.0, "t0": 2.0, "t1": 3.0}
BYTES = {"d0": 4.0, "d1": 2.0, "d2": 3.0, "t0": 5.0, "t1": 4.0}


def guarded(guardrails, response=None, pareto=False, stderr=None):
    """Decide on the three domains above, with what branches have told."""
    bounds, branches = Bounds.simplex(names("d", 3)), 0 if response is None else 6
    given = {
        "method": "response",
        "anchor": "uniform",
        "heldout_response": "second_order",
        "guardrails": guardrails,
        "pareto": pareto,
        "branches": branches,
    }
    parameters = OptimizeParameters.model_validate({**given, "heldout_strength": STRENGTH})
    return response_problem(
        CONFLICT,
        PRODUCTS,
        EVEN,
        bounds,
        parameters,
        domains=bounds.domains,
        tasks=names("t", 2),
        measured=response,
        stderr_TK=stderr,
    ).decision()


def branched():
    response = measured(**TOLD)
    return type(response)(response.fitted, response.branches, response.losses, BYTES)


@pytest.mark.parametrize("tolerance", [0.0, 0.3, 2.0])
def test_a_guardrail_holds_and_says_what_it_cost(tolerance):
    influence = np.array([[1.0, 0.0, -0.2], [0.8, 0.1, 0.0]])
    heldout = np.array([[0.5, -0.2, -0.2], [-1.0, 1.0, 0.0], [-1.0, 0.0, 1.0]])
    products, prior = DomainProducts(heldout, 0.2 * np.eye(3)), np.full(3, 1 / 3)
    decision = solve(influence, products, prior, guardrails={"heldout": {"tolerance": tolerance}})
    text = gains(heldout.mean(0), products, decision.weights_K, prior)
    mean = gains(influence.mean(0), products, decision.weights_K, prior)
    assert text >= -tolerance * mean - 1e-7
    record = decision.second_order
    assert record.guardrails[0].gain == pytest.approx(text)
    assert record.mean_gain == pytest.approx(mean)
    free = solve(influence, products, prior, **NO_GUARD)
    assert record.unguarded_mean_gain == pytest.approx(free.second_order.mean_gain, rel=1e-4)
    held = [binding for binding in decision.binding if binding.kind == "guardrail"]
    if tolerance < 2:
        assert held
        assert held[0].multiplier > 0
        assert record.guardrails[0].unguarded_gain < record.guardrails[0].gain
        said = "\n".join(summary_lines(decision))
        assert decision.guardrail_notes[0].startswith("Held-out text is expected to lose")
        assert "without guardrails it would lose" in decision.guardrail_notes[0]
        assert "guardrail heldout: may get worse by no more than its tolerance" in said
        assert "(optimize.guardrails.heldout)" in said
    else:
        assert not held
        np.testing.assert_allclose(decision.weights_K, free.weights_K, atol=1e-5)


def test_the_price_of_a_guardrail_is_what_loosening_it_saves():
    influence = np.array([[1.0, 0.0, -0.2], [0.8, 0.1, 0.0]])
    heldout = np.array([[0.5, -0.2, -0.2], [-1.0, 1.0, 0.0], [-1.0, 0.0, 1.0]])
    products, prior = DomainProducts(heldout, 0.2 * np.eye(3)), np.full(3, 1 / 3)
    tight, loose = (
        solve(influence, products, prior, pareto=False, heldout_strength=1, guardrails={"heldout": {"tolerance": t}})
        for t in (0.3, 0.301)
    )
    (held,) = [binding for binding in tight.binding if binding.kind == "guardrail"]
    # in the unit of the largest influence on the mean of the tasks
    unit = np.abs(influence.mean(0) - influence.mean(0) @ prior).max()
    slack = 0.001 * tight.second_order.mean_gain / unit
    assert held.multiplier == pytest.approx((tight.objective - loose.objective) / slack, rel=2e-2)


@pytest.mark.parametrize("scale", [1e-4, 1e8])
def test_prices_and_mixture_do_not_depend_on_the_unit_of_influence(scale):
    influence = np.array([[1.0, 0.0, -0.2], [0.8, 0.1, 0.0]])
    heldout = np.array([[0.5, -0.2, -0.2], [-1.0, 1.0, 0.0], [-1.0, 0.0, 1.0]])
    prior = np.full(3, 1 / 3)
    one, other = (
        solve(unit * influence, DomainProducts(unit * heldout, 0.2 * unit * np.eye(3)), prior) for unit in (1, scale)
    )
    np.testing.assert_allclose(other.weights_K, one.weights_K, atol=1e-5)
    assert [binding.name for binding in other.binding] == [binding.name for binding in one.binding]
    assert other.binding[0].multiplier == pytest.approx(one.binding[0].multiplier, rel=1e-3)


def test_guardrails_are_of_domains_groups_of_them_and_tasks():
    influence, products, prior = random_problem(2, 2, 4)
    guardrails = {"heldout": None, "d1": {"tolerance": 0}, "prose": {"tolerance": 0, "domains": ["d0", "d2"]}}
    decision = solve(influence, products, prior, guardrails=guardrails | {"t1": {"tolerance": 0}}, pareto=False)
    weights, heldout = decision.weights_K, products.heldout_KK
    for row in (heldout[1], heldout[[0, 2]].mean(0), influence[1]):
        assert gains(row, products, weights, prior) >= -1e-6
    assert [one.name for one in decision.second_order.guardrails] == ["d1", "prose", "t1"]


@pytest.mark.parametrize(
    ("guardrails", "message"),
    [
        ({"d7": {"tolerance": 1}}, "optimize.guardrails names 'd7', which is neither a domain nor a task"),
        ({"x": {"tolerance": 1, "domains": ["d9"]}}, "optimize.guardrails.x.domains names the domain 'd9'"),
        ({"each_domain": {"tolerance": 1, "domains": ["d9"]}}, "optimize.guardrails.each_domain.domains names the"),
        ({"heldout": {"tolerance": 1, "unit": "nats"}}, "optimize.branches"),
        ({"d1": {"tolerance": 1, "unit": "stderr"}}, "influence.micro_batches to 3"),
    ],
)
def test_a_guardrail_on_nothing_that_was_measured_is_refused(guardrails, message):
    influence, products, prior = random_problem(2, 2, 4)
    with pytest.raises(TikmixError, match=message):
        solve(influence, products, prior, guardrails=guardrails, branches=6)


def texts(guardrails, response=None, **known):
    told = Told(
        domains=["d0", "d1"],
        tasks=["t0"],
        influence_TK=np.eye(2)[:1],
        heldout_KK=np.eye(2),
        measured=response,
        **known,
    )
    return list(guarded_texts({name: one and Guardrail.model_validate(one) for name, one in guardrails.items()}, told))


def test_a_unit_of_held_out_text_counts_as_many_nats_as_it_is_told_to():
    response = measured(t0=2.0, d0=4.0, d1=6.0)
    for unit in ("nats", "percent"):
        one = {"tolerance": 1.0, "unit": unit}
        assert slack(one, response, "d0", heldout_strength=2.0) == pytest.approx(slack(one, response, "d0") / 2)
        assert slack(one, response, "t0", heldout_strength=2.0) == slack(one, response, "t0")
    share = {"tolerance": 0.7}
    of_text, of_task = texts({"heldout": share, "t0": share}, heldout_strength=1.75)
    assert (of_text.share, of_task.share) == (pytest.approx(0.4), 0.7)


def slack(guardrail, response=None, name="t0", **known):
    (text,) = texts({name: guardrail}, response, **known)
    return text.slack


def test_tolerances_in_nats_and_per_cent_are_of_the_guarded_text_s_own_loss():
    response = measured(t0=2.0, d0=4.0, d1=6.0)
    assert slack({"tolerance": 0.5, "unit": "nats"}, response) == pytest.approx(5.0)
    assert slack({"tolerance": 10, "unit": "percent"}, response) == pytest.approx(2.0)
    assert slack({"tolerance": 10, "unit": "percent"}, response, "d1") == pytest.approx(6.0)
    assert slack({"tolerance": 10, "unit": "percent"}, response, "heldout") == pytest.approx(5.0)


@pytest.mark.parametrize("unit", ["nats", "percent", "bits_per_byte"])
def test_where_branches_do_not_tell_the_scale_nothing_is_held_in_nats(unit):
    with pytest.raises(TikmixError, match="or more of them where they do not tell"):
        slack({"tolerance": 0.5, "unit": unit}, measured(is_told=False, t0=2.0))


@given(SEEDS)
@settings(deadline=None, max_examples=20)
def test_bits_per_byte_are_the_mean_over_domains_of_what_each_loses_in_them(seed):
    """Written out anew: nats per token over bytes per token and ln 2, domain by domain."""
    rng = np.random.default_rng(seed)
    response = measured(d0=4.0, d1=6.0, t0=2.0)
    sizes = dict(zip(("d0", "d1", "t0"), rng.uniform(2, 5, 3).tolist(), strict=True))
    response = type(response)(response.fitted, 6, response.losses, sizes)
    (text,) = texts({"heldout": {"tolerance": 0.05, "unit": "bits_per_byte"}}, response)
    nats_K = 0.1 * (np.eye(2) @ (rng.dirichlet(np.ones(2)) - 0.5))
    bits = np.mean([nats / np.log(2) / sizes[name] for name, nats in zip(("d0", "d1"), nats_K, strict=True)])
    # both sides over their tolerance: what the constraint is made of, and the mean of bits per byte
    ratio = 0.1 * (text.influence_K @ (nats_K / 0.1)) / (0.1 * text.slack)
    assert ratio == pytest.approx(bits / 0.05)
    (of_task,) = texts({"t0": {"tolerance": 0.05, "unit": "bits_per_byte"}}, response)
    assert of_task.slack * 0.1 == pytest.approx(0.05 * np.log(2) * sizes["t0"])


def test_a_standard_error_is_that_of_the_contrast_between_two_mixtures():
    """By drawing anew: errors of the entries are independent, and of a mean over domains the mean of theirs counts."""
    errors, moved = np.array([[0.3, 0.1], [0.2, 0.6]]), np.array([0.4, -0.4])
    known = {"heldout_stderr_KK": errors, "influence_stderr_TK": np.array([[0.5, 0.2]]), "moved_K": moved}
    drawn = np.random.default_rng(0).normal(size=(200_000, 2))
    for name, row in (("d0", errors[0]), ("t0", np.array([0.5, 0.2])), ("heldout", errors.mean(0))):
        found = slack({"tolerance": 2, "unit": "stderr"}, name=name, **known)
        assert found == pytest.approx(2 * (drawn * row @ moved).std(), rel=0.01)


def test_an_error_that_is_not_known_counts_only_where_weight_has_moved():
    errors = np.array([[np.nan, 0.1, 0.2]] * 3)
    known = Told(
        domains=["d0", "d1", "d2"],
        tasks=[],
        influence_TK=np.zeros((0, 3)),
        heldout_KK=np.eye(3),
        heldout_stderr_KK=errors,
        moved_K=np.array([0.0, 0.5, -0.5]),
    )
    guardrail = {"d1": Guardrail(tolerance=1, unit="stderr")}
    (text,) = guarded_texts(guardrail, known)
    assert text.slack == pytest.approx(0.5 * math.hypot(0.1, 0.2))


def by_formula(weights, guardrails, moved):
    """How far each text above is within its tolerance, each unit written out anew."""
    tasks = gains(CONFLICT.mean(0), PRODUCTS, weights, EVEN)
    rows = {"heldout": HELDOUT.mean(0), "d1": HELDOUT[1], "t0": CONFLICT[0]}
    for name, (tolerance, unit) in guardrails.items():
        gain = gains(rows[name], PRODUCTS, weights, EVEN)
        strong = 1.0 if name == "t0" else STRENGTH
        members = ["d0", "d1", "d2"] if name == "heldout" else [name]
        if unit == "bits_per_byte":
            each = [gains(HELDOUT[int(one[1])], PRODUCTS, weights, EVEN) / BYTES[one] for one in members]
            yield 0.1 * strong * np.mean(each) / np.log(2) + tolerance
        elif unit == "percent":
            yield 0.1 * strong * gain / np.mean([TOLD[one] for one in members]) + tolerance / 100
        elif unit == "nats":
            yield 0.1 * strong * gain + tolerance
        elif unit == "stderr":
            error = ERRORS.mean(0) if name == "heldout" else ERRORS[1]
            yield gain + tolerance * np.sqrt(np.square(error * moved).sum())
        else:
            yield strong * gain + tolerance * tasks


@pytest.mark.parametrize(
    "guardrails",
    [
        {"heldout": (0.3, "share")},
        {"heldout": (0.01, "nats")},
        {"heldout": (0.2, "percent")},
        {"heldout": (0.005, "bits_per_byte")},
        {"heldout": (0.5, "stderr")},
        {"d1": (1.0, "stderr"), "heldout": (0.6, "share")},
        {"d1": (0.02, "nats"), "heldout": (0.3, "percent")},
    ],
)
def test_the_mixture_is_what_a_generic_solver_finds_by_the_formulas(guardrails):
    response = branched()
    named = {name: {"tolerance": tolerance, "unit": unit} for name, (tolerance, unit) in guardrails.items()}
    decision = guarded({"heldout": None, **named}, response)
    moved = guarded({"heldout": None}, response).weights_K - EVEN
    scale = decision.gain_scale_T.mean()

    def value(weights):
        return -9 * np.mean(gains(CONFLICT, PRODUCTS, weights, EVEN) / scale)

    found = minimize(
        value,
        EVEN,
        method="trust-constr",
        bounds=[(0, 1)] * 3,
        constraints=[
            LinearConstraint(np.ones((1, 3)), 1, 1),
            NonlinearConstraint(lambda weights: [*by_formula(weights, guardrails, moved)], 0, np.inf),
        ],
        options={"gtol": 1e-9, "xtol": 1e-10, "maxiter": 3000},
    )
    assert min(by_formula(decision.weights_K, guardrails, moved)) >= -1e-7
    assert any(one.kind == "guardrail" for one in decision.binding)
    np.testing.assert_allclose(decision.weights_K, found.x, atol=2e-3)
    assert value(decision.weights_K) <= found.fun + 1e-5
    assert decision.optimality_gap <= 1e-5


@pytest.mark.parametrize(
    ("unit", "tolerance"),
    [("share", 0.3), ("nats", 0.01), ("percent", 0.2), ("bits_per_byte", 0.005), ("stderr", 0.5)],
)
def test_every_guardrail_has_a_price_per_unit_of_its_tolerance(unit, tolerance):
    step = 1e-3 * tolerance
    less, decided, more = (
        guarded({"heldout": {"tolerance": one, "unit": unit}}, branched())
        for one in (tolerance - step, tolerance, tolerance + step)
    )
    (held,) = decided.second_order.guardrails
    assert held.price == pytest.approx((less.objective - more.objective) / (2 * step), rel=1e-2)
    (binding,) = [one for one in decided.binding if one.kind == "guardrail"]
    assert (binding.bound, binding.unit, binding.parameter) == (tolerance, unit, "optimize.guardrails.heldout")
    assert binding.multiplier > 0


def test_each_domain_stands_for_one_guardrail_a_domain_that_has_none_of_its_own():
    found = guarded({"heldout": None, "each_domain": {"tolerance": 0.2}, "d1": {"tolerance": 0.5}, "d2": None})
    assert [(one.name, one.tolerance) for one in found.second_order.guardrails] == [("d0", 0.2), ("d1", 0.5)]
    every = guarded({"each_domain": {"tolerance": 0.2}})
    tasks = gains(CONFLICT.mean(0), PRODUCTS, every.weights_K, EVEN)
    assert len(every.second_order.guardrails) == 3
    assert np.all(gains(HELDOUT, PRODUCTS, every.weights_K, EVEN) + 0.2 * tasks >= -1e-7)
    assert {one.parameter for one in every.binding if one.kind == "guardrail"} == {"optimize.guardrails.each_domain"}
    some = guarded({"heldout": None, "each_domain": {"tolerance": 0.2, "domains": ["d2", "d0"]}})
    assert [one.name for one in some.second_order.guardrails] == ["d2", "d0"]


def test_a_domain_may_be_called_as_the_guardrail_on_each_is():
    told = Told(["each_domain", "d"], [], np.zeros((0, 2)), np.eye(2))
    (text,) = guarded_texts({"each_domain": Guardrail(tolerance=1.0)}, told)
    assert text.influence_K.tolist() == [1.0, 0.0]


def test_names_are_refused_before_anything_is_measured():
    check_guardrails({"heldout": Guardrail(tolerance=1.0), "d0": None, "x": None}, ["d0"], ["t0"])
    with pytest.raises(TikmixError, match=r"optimize\.guardrails names 'tO'.*'t0'"):
        check_guardrails({"tO": Guardrail(tolerance=1.0)}, ["d0"], ["t0"])


def test_errors_of_several_rounds_are_those_of_their_mean():
    """Of two rounds that are the same measurement twice over, the error is smaller by the root of two."""
    influence, products, _ = random_problem(8, 2, 4)
    known = DomainProducts(products.heldout_KK, products.curved_KK, 0.3 * np.abs(products.heldout_KK))
    guardrails = {"heldout": {"tolerance": 0.2, "unit": "stderr"}, "t1": {"tolerance": 1.0, "unit": "stderr"}}
    one = decide([table(influence)], [known], guardrails=guardrails)
    two = decide([table(influence)] * 2, [known] * 2, guardrails=guardrails)
    for single, double in zip(one.second_order.guardrails, two.second_order.guardrails, strict=True):
        assert single.slack == pytest.approx(np.sqrt(2) * double.slack, rel=1e-3)


def digits(share):
    return "1f" if share >= 1 else "2g"


@pytest.mark.parametrize("unit", ["share", "percent"])
def test_what_held_out_text_pays_and_would_pay_is_said_once_beside_the_table(unit):
    decision = guarded({"heldout": {"tolerance": 0.3, "unit": unit}}, branched())
    first, cost = decision.to_record("direct", 1).guardrail_notes
    (held,) = decision.second_order.guardrails
    paid, without = (-100 * 0.1 * STRENGTH * gain / 5.0 for gain in (held.gain, held.unguarded_gain))
    assert f"Held-out text is expected to lose {paid:.{digits(paid)}} % (" in first
    assert f"without guardrails it would lose {without:.{digits(without)}} % (" in first
    assert f"{decision.objective:.4g} instead of {decision.second_order.unguarded_objective:.4g}" in cost
    assert not {first, cost} & set(summary_lines(decision))
    assert first not in decision.notes


def test_what_guardrails_cost_in_the_objective_is_what_it_is_without_them():
    decision, free = guarded({"heldout": {"tolerance": 0.1}}), guarded({"heldout": None})
    assert decision.second_order.unguarded_objective == pytest.approx(free.objective, abs=1e-6)
    assert decision.objective > free.objective
    assert "guardrails" in "\n".join(summary_lines(decision)[-3:])


def test_a_decision_with_guardrails_in_every_unit_reads_back():
    guardrails = {"heldout": {"tolerance": 0.3}, "d0": {"tolerance": 1, "unit": "stderr"}}
    guardrails |= {"t1": {"tolerance": 1, "unit": "percent"}, "d2": {"tolerance": 0.1, "unit": "bits_per_byte"}}
    record = guarded(guardrails, branched()).to_record("direct", 1)
    assert DecisionRecord.from_json(record.to_json()) == record
    assert [one.unit for one in record.second_order.guardrails] == ["share", "stderr", "percent", "bits_per_byte"]
