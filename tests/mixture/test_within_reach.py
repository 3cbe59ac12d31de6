"""The bound on how far a mixture may move from the one in force."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tikmix_pipeline.mixture.bounds import Bounds, Supply, mixture_bounds, within_reach
from tikmix_pipeline.parameters import OptimizeParameters


def bounds_of(available: dict[str, float], **parameters: object) -> Bounds:
    supplies = {domain: Supply(tokens) for domain, tokens in available.items()}
    return mixture_bounds(OptimizeParameters.model_validate(parameters), supplies, 1000)


def test_no_weight_moves_further_than_max_change() -> None:
    found = within_reach(bounds_of({"a": math.inf, "b": math.inf}), {"a": 0.7, "b": 0.3}, 0.2)
    low_K, high_K = found.box()
    np.testing.assert_allclose(low_K, [0.5, 0.1])
    np.testing.assert_allclose(high_K, [0.9, 0.5])
    assert {limit.parameter for limit in (*found.lower, *found.upper)} == {"optimize.max_change"}


def test_a_tighter_bound_of_the_user_stays() -> None:
    bounds = bounds_of({"a": math.inf, "b": math.inf}, bounds={"a": {"min": 0.6}})
    assert within_reach(bounds, {"a": 0.7, "b": 0.3}, 0.2).lower[0].parameter == "optimize.bounds.a.min"


@given(
    current=st.lists(st.floats(0.01, 1), min_size=3, max_size=3),
    supply=st.lists(st.integers(90, 400), min_size=3, max_size=3),
    max_change=st.floats(0.001, 1),
)
def test_a_mixture_is_always_left(current: list[float], supply: list[int], max_change: float) -> None:
    """Also where repetition has moved the bounds away from the mixture in force."""
    domains = "abc"
    bounds = bounds_of(dict(zip(domains, supply, strict=True)), max_epochs=4)
    weights = dict(zip(domains, (np.array(current) / sum(current)).tolist(), strict=True))
    low_K, high_K = within_reach(bounds, weights, max_change).box()
    assert (low_K <= high_K + 1e-12).all()
    assert low_K.sum() <= 1 + 1e-9 <= high_K.sum() + 2e-9


def test_a_bound_below_what_is_in_force_goes_first() -> None:
    found = within_reach(bounds_of({"a": 50.0, "b": 1e9}, max_epochs=4), {"a": 0.9, "b": 0.1}, 0.1)
    assert found.upper[0].weight == pytest.approx(0.2)
    assert found.upper[0].reason == "repetition"
