"""Constraints that no mixture satisfies: a minimal set of them is named, with what would make room."""

import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.mixture.constraints import Supply, constraints_of
from tikmix_pipeline.mixture.infeasible import infeasible_subset, refuse_infeasible
from tikmix_pipeline.parameters import OptimizeParameters


def constrained(count, chunk=1000, tokens=math.inf, current=None, **given):
    domains = [f"d{k}" for k in range(count)]
    parameters = OptimizeParameters.model_validate(given)
    return constraints_of(parameters, dict.fromkeys(domains, Supply(tokens)), chunk, current), domains


def refusal(constraints, domains):
    with pytest.raises(TikmixError) as caught:
        refuse_infeasible(constraints, domains)
    return str(caught.value)


def random_constraints(seed, count, number):
    rng = np.random.default_rng(seed)
    domains = [f"d{k}" for k in range(count)]
    given = {"bounds": {}, "pinned": {}, "groups": {}}
    for g in range(number):
        members = rng.choice(domains, size=rng.integers(1, count), replace=False).tolist()
        low, high = sorted(rng.uniform(0, 1, size=2).tolist())
        given["groups"][f"g{g}"] = {"domains": members, "min": low, "max": high}
    for domain in domains[: count // 2]:
        low, high = sorted(rng.uniform(0, 2 / count, size=2).tolist())
        given["bounds"][domain] = {"min": low, "max": high}
    given["pinned"][domains[-1]] = float(rng.uniform(0, 2 / count))
    return constrained(count, tokens=float(rng.uniform(100, 1000)), max_epochs=0.5, **given)


@given(st.integers(0, 2**32 - 1), st.integers(3, 8), st.integers(1, 6))
@settings(deadline=None, max_examples=20)
def test_what_is_named_is_infeasible_and_is_not_without_any_one_of_it(seed, count, number):
    constraints, domains = random_constraints(seed, count, number)
    subset = infeasible_subset(constraints, domains)
    named = [constraints[u] for u in subset]
    if not subset:
        refuse_infeasible(constraints, domains)
        return
    assert infeasible_subset(named, domains) == [*range(len(named))]
    for left_out in range(len(named)):
        assert infeasible_subset([*named[:left_out], *named[left_out + 1 :]], domains) == []
    message = refusal(constraints, domains)
    assert all(constraint.parameter in message for constraint in named)


def test_a_group_that_its_members_bounds_cannot_fill_is_told_with_what_each_would_have_to_be():
    constraints, domains = constrained(
        4,
        bounds={"d0": {"max": 0.1}, "d1": {"max": 0.1}, "d2": {"min": 0.05}},
        groups={"web": {"domains": ["d0", "d1"], "min": 0.3}, "rest": {"domains": ["d2", "d3"], "max": 0.9}},
    )
    message = refusal(constraints, domains)
    assert "optimize.groups.web.min = 0.3 (the sum of 'd0', 'd1')" in message
    assert "lower optimize.groups.web.min from 0.3 to 0.2" in message
    assert "raise optimize.bounds.d0.max from 0.1 to 0.2" in message
    assert "d2" not in message
    assert "rest" not in message


def test_the_advice_makes_room():
    given = {"pinned": {"d0": 0.5, "d1": 0.4}, "groups": {"web": {"domains": ["d2", "d3"], "min": 0.3333333}}}
    message = refusal(*constrained(4, **given))
    lowered = float(re.search(r"lower optimize.pinned.d0 from 0.5 to ([\d.]+)", message)[1])
    refuse_infeasible(*constrained(4, **given | {"pinned": {"d0": lowered, "d1": 0.4}}))


def test_where_others_clash_besides_the_least_change_of_several_is_told():
    constraints, domains = constrained(
        3, bounds={"d0": {"min": 0.6, "max": 0.5}, "d1": {"min": 0.3, "max": 0.2}}, max_weight=0.9
    )
    this, others = refusal(constraints, domains).split(
        " Others clash besides; the least change that ends them all is to "
    )
    assert "To end this clash, " in this
    assert ("optimize.bounds.d0" in this) != ("optimize.bounds.d1" in this)
    assert "optimize.bounds.d0" in others
    assert "optimize.bounds.d1" in others


def test_text_that_was_read_too_often_already_is_told_as_such():
    constraints, domains = constrained(2, tokens=100.0)
    read = Supply(100.0, consumed=900)
    constraints = constraints_of(OptimizeParameters(), dict.fromkeys(domains, read), 1000, None)
    message = refusal(constraints, domains)
    assert "optimize.max_epochs = 4, which leaves of the next 1000 tokens at most" in message
    assert "add text" in message


def over_read(supplies, **given):
    """Return the constraints on a chunk of 1000 tokens with so many tokens of each domain, `(available, consumed)`."""
    domains = [f"d{k}" for k in range(len(supplies))]
    texts = {domain: Supply(*supply) for domain, supply in zip(domains, supplies, strict=True)}
    return constraints_of(OptimizeParameters.model_validate(given), texts, 1000, None), domains


def test_a_domain_that_was_read_too_often_is_told_how_many_epochs_it_needs():
    """`(w·C + consumed) / available = (0.25 · 1000 + 900) / 100`; a shorter chunk leaves nothing of nothing."""
    supplies, least = [(100, 900), (1e9, 0)], {"bounds": {"d0": {"min": 0.25}}}
    message = refusal(*over_read(supplies, **least))
    assert message.endswith(
        "To make room, lower optimize.bounds.d0.min from 0.25 to 0, or raise optimize.max_epochs from 4 to 11.5, "
        "or add text."
    )
    refuse_infeasible(*over_read(supplies, max_epochs=11.5, **least))
    refusal(*over_read(supplies, max_epochs=11.49, **least))


def test_a_shorter_chunk_is_offered_only_where_one_helps():
    assert "shorten the chunk" in refusal(*over_read([(100, 399), (100, 900)]))
    assert "shorten the chunk" not in refusal(*over_read([(100, 400), (100, 900)]))
    assert "shorten the chunk" in refusal(*over_read([(100, 0), (1e9, 0)], bounds={"d0": {"min": 0.5}}))


@given(st.integers(0, 2**32 - 1), st.integers(1, 8))
@settings(deadline=None, max_examples=30)
def test_the_epochs_that_are_advised_are_the_least_that_make_room(seed, count):
    """On the way there one domain after another may be read again, so limits do not rise along one line."""
    rng = np.random.default_rng(seed)
    supplies = [(float(available), float(available * rng.uniform(0, 12))) for available in rng.uniform(20, 120, count)]
    least = {"min_weight": float(rng.uniform(0, 0.9 / count)), "max_epochs": 1.0}
    advised = re.search(r"raise optimize.max_epochs from 1 to ([\d.]+)", refusal(*over_read(supplies, **least)))
    refuse_infeasible(*over_read(supplies, **least | {"max_epochs": float(advised[1])}))
    refusal(*over_read(supplies, **least | {"max_epochs": float(advised[1]) * (1 - 1e-2)}))


def test_epochs_are_among_the_least_changes_of_several_too():
    constraints, domains = over_read([(100, 900), (100, 500)], bounds={"d0": {"min": 0.6, "max": 0.5}})
    others = refusal(constraints, domains).split(" the least change that ends them all is to ")[1]
    assert "optimize.bounds.d0" in others
    assert "raise optimize.max_epochs from 4 to 12" in others


def test_a_pin_to_the_current_mixture_clashes_by_its_weight():
    constraints, domains = constrained(3, current={"d0": 0.8}, pinned={"d0": "current"}, bounds={"d0": {"max": 0.5}})
    assert "optimize.pinned.d0 = 0.8; optimize.bounds.d0.max = 0.5" in refusal(constraints, domains)


def test_fifty_domains_and_twenty_groups_are_refused():
    constraints, domains = random_constraints(0, 50, 20)
    assert "the least change" in refusal(constraints, domains)
