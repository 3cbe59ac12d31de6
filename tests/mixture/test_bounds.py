import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.mixture.bounds import Bounds, Limit, mixture_bounds, within_reach
from tikmix_pipeline.mixture.constraints import Supply
from tikmix_pipeline.parameters import OptimizeParameters

CHUNK = 1000
PLENTY = Supply(available=math.inf)


def bounds_of(supplies=None, **parameters):
    supplies = supplies or {"books": PLENTY, "code": PLENTY, "web": PLENTY}
    return mixture_bounds(OptimizeParameters.model_validate(parameters), supplies, CHUNK)


def refusal(supplies=None, **parameters):
    with pytest.raises(TikmixError) as caught:
        bounds_of(supplies, **parameters)
    return str(caught.value)


def test_without_parameters_and_with_text_enough_only_the_simplex_bounds():
    bounds = bounds_of()
    assert {limit.reason for limit in bounds.lower + bounds.upper} == {"simplex"}
    low_K, high_K = bounds.box()
    assert low_K.tolist() == [0, 0, 0]
    assert high_K.tolist() == [1, 1, 1]


def test_the_tightest_bound_wins_and_remembers_its_parameter():
    bounds = bounds_of(
        {"books": Supply(50), "code": PLENTY, "web": PLENTY},
        min_weight=0.05,
        max_weight=0.7,
        bounds={"code": {"min": 0.1, "max": 0.9}, "web": {"max": 0.6}},
        max_epochs=2,
    )
    assert bounds.lower[1] == Limit(0.1, "user", "optimize.bounds.code.min")
    assert bounds.lower[2] == Limit(0.05, "user", "optimize.min_weight")
    assert bounds.upper[0] == Limit(0.1, "repetition", "optimize.max_epochs")
    assert bounds.upper[1] == Limit(0.7, "user", "optimize.max_weight")
    assert bounds.upper[2] == Limit(0.6, "user", "optimize.bounds.web.max")


def test_repetition_counts_what_was_already_read():
    supplies = {"books": Supply(available=200, consumed=300), "code": Supply(100, consumed=500), "web": PLENTY}
    _, high_K = bounds_of(supplies, max_epochs=4).box()
    assert high_K.tolist() == [0.5, 0.0, 1.0]


def test_unknown_domain_in_bounds_is_refused_with_the_nearest_name():
    assert "'cod', which is not there. Did you mean 'code'?" in refusal(bounds={"cod": {"max": 0.5}})


def test_domain_without_text_is_refused():
    assert "The domain 'code' has no training tokens" in refusal({"code": Supply(0), "web": PLENTY})


def test_crossed_user_bounds_are_refused_with_both_names():
    message = refusal(bounds={"code": {"min": 0.5, "max": 0.3}})
    assert "optimize.bounds.code.min = 0.5; optimize.bounds.code.max = 0.3." in message
    assert (
        "lower optimize.bounds.code.min from 0.5 to 0.3, or raise optimize.bounds.code.max from 0.3 to 0.5" in message
    )


def test_minimum_above_what_repetition_allows_is_refused_and_the_advice_works():
    supplies = {"books": PLENTY, "code": Supply(available=70, consumed=41), "web": PLENTY}
    message = refusal(supplies, bounds={"code": {"min": 0.5}}, max_epochs=4)
    assert "optimize.bounds.code.min = 0.5; optimize.max_epochs = 4" in message
    assert "at most 0.239 to 'code' (70 tokens are there, 41 were read)" in message
    assert "raise optimize.max_epochs from 4 to 7.73" in message
    assert bounds_of(supplies, bounds={"code": {"min": 0.5}}, max_epochs=7.73).upper[1].weight >= 0.5


def test_lower_bounds_above_one_are_refused_with_each_of_them():
    message = refusal(bounds={"code": {"min": 0.7}, "web": {"min": 0.6}})
    assert "satisfies all of these: optimize.bounds.code.min = 0.7; optimize.bounds.web.min = 0.6." in message
    assert "optimize.min_weight = 0.4 for 3 domains" in refusal(min_weight=0.4)


def test_user_upper_bounds_below_one_are_refused_without_blaming_repetition():
    message = refusal(max_weight=0.3)
    assert "satisfies this: optimize.max_weight = 0.3 for 3 domains" in message
    assert "raise optimize.max_weight from 0.3 to 0.333334" in message
    assert "max_epochs" not in message


def test_too_little_text_is_refused_and_the_advice_works():
    supplies = {"books": Supply(100, consumed=130), "code": Supply(70), "web": Supply(33, consumed=20)}
    message = refusal(supplies, max_epochs=2, bounds={"code": {"max": 0.4}})
    assert (
        "leaves of the next 1000 tokens at most 0.07 to 'books' (100 tokens are there, 130 were read), 0.14" in message
    )
    assert "raise optimize.max_epochs from 2 to 5.67" in message
    _, high_K = bounds_of(supplies, max_epochs=5.67, bounds={"code": {"max": 0.4}}).box()
    assert 1 <= high_K.sum() < 1.01


def test_where_the_user_bounds_alone_fall_short_more_epochs_are_not_advised():
    message = refusal({"books": Supply(10), "web": PLENTY}, bounds={"web": {"max": 0.5}, "books": {"max": 0.4}})
    assert "optimize.bounds.web.max = 0.5" in message
    assert "raise optimize.max_epochs" not in message


def test_bounds_that_leave_one_mixture_are_accepted():
    domains = {f"d{k}": PLENTY for k in range(26)}
    assert bounds_of(domains, max_weight=1 / 26).box()[1].sum() == pytest.approx(1)
    assert bounds_of(domains, min_weight=1 / 26).box()[0].sum() == pytest.approx(1)


def random_bounds(rng, size):
    inside_K = rng.dirichlet(np.ones(size))
    low_K, high_K = inside_K * rng.uniform(0, 1, size), inside_K + (1 - inside_K) * rng.uniform(0, 0.3, size)
    names = tuple(f"d{k}" for k in range(size))
    return Bounds(names, tuple(map(Limit, low_K.tolist())), tuple(map(Limit, high_K.tolist()))), inside_K


@given(st.integers(0, 2**32 - 1), st.integers(1, 30))
@settings(deadline=None)
def test_projection_is_inside_and_nearer_than_any_other_mixture_inside(seed, size):
    rng = np.random.default_rng(seed)
    bounds, inside_K = random_bounds(rng, size)
    outside_K = rng.dirichlet(np.full(size, 0.3))
    projected_K = bounds.project(outside_K)
    low_K, high_K = bounds.box()
    assert projected_K.sum() == pytest.approx(1, abs=1e-12)
    assert np.all((low_K <= projected_K) & (projected_K <= high_K))
    # The projection p of x onto a convex set is the only point with (x − p)·(v − p) ≤ 0 for every v of the set.
    assert (outside_K - projected_K) @ (inside_K - projected_K) <= 1e-12


def test_projection_leaves_a_mixture_inside_as_it_is():
    bounds, inside_K = random_bounds(np.random.default_rng(0), 7)
    assert np.array_equal(bounds.project(inside_K), inside_K)


def bounds_around(available, **parameters):
    return bounds_of({domain: Supply(tokens) for domain, tokens in available.items()}, **parameters)


def test_no_weight_moves_further_than_max_change():
    found = within_reach(bounds_around({"a": math.inf, "b": math.inf}), {"a": 0.7, "b": 0.3}, 0.2)
    low_K, high_K = found.box()
    np.testing.assert_allclose(low_K, [0.5, 0.1])
    np.testing.assert_allclose(high_K, [0.9, 0.5])
    assert {limit.parameter for limit in (*found.lower, *found.upper)} == {"optimize.max_change"}


def test_a_tighter_bound_of_the_user_stays():
    bounds = bounds_around({"a": math.inf, "b": math.inf}, bounds={"a": {"min": 0.6}})
    assert within_reach(bounds, {"a": 0.7, "b": 0.3}, 0.2).lower[0].parameter == "optimize.bounds.a.min"


@given(
    current=st.lists(st.floats(0.01, 1), min_size=3, max_size=3),
    supply=st.lists(st.integers(90, 400), min_size=3, max_size=3),
    max_change=st.floats(0.001, 1),
)
def test_a_mixture_is_always_left(current, supply, max_change):
    """Also where repetition has moved the bounds away from the current mixture."""
    domains = "abc"
    bounds = bounds_around(dict(zip(domains, supply, strict=True)), max_epochs=4)
    weights = dict(zip(domains, (np.array(current) / sum(current)).tolist(), strict=True))
    low_K, high_K = within_reach(bounds, weights, max_change).box()
    assert (low_K <= high_K + 1e-12).all()
    assert low_K.sum() <= 1 + 1e-9 <= high_K.sum() + 2e-9


def test_a_bound_below_the_current_weight_goes_first():
    found = within_reach(bounds_around({"a": 50.0, "b": 1e9}, max_epochs=4), {"a": 0.9, "b": 0.1}, 0.1)
    assert found.upper[0].weight == pytest.approx(0.2)
    assert found.upper[0].reason == "repetition"
