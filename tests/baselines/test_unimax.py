import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tikmix_pipeline.baselines.unimax import unimax
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.mixture.bounds import mixture_bounds
from tikmix_pipeline.mixture.constraints import Supply
from tikmix_pipeline.parameters import OptimizeParameters
from tikmix_pipeline.parameters.baselines import UnimaxParameters


def decide(available, *, tokens, consumed=None, epochs=1.0, bounds=None):
    read = consumed or {}
    supplies = {domain: Supply(count, read.get(domain, 0)) for domain, count in available.items()}
    return unimax(supplies, tokens=tokens, parameters=UnimaxParameters(epochs=epochs), bounds=bounds)


def test_domains_with_text_enough_have_equal_shares():
    found = decide({"a": 1000, "b": 300, "c": 100}, tokens=300)
    assert found.weights == pytest.approx({"a": 1 / 3, "b": 1 / 3, "c": 1 / 3})
    assert found.notes == ()


def test_what_a_small_domain_leaves_is_shared_by_the_others():
    # 20 of 300 tokens; then 280 / 2 = 140, of which `b` has but 100; `a` takes the other 180
    found = decide({"a": 1000, "b": 50, "c": 10}, tokens=300, epochs=2.0)
    assert found.weights == pytest.approx({"a": 180 / 300, "b": 100 / 300, "c": 20 / 300})
    assert found.details == {"capped": ["b", "c"]}


def test_tokens_read_already_count_against_the_cap():
    found = decide({"a": 1000, "b": 100, "c": 100}, tokens=200, consumed={"b": 60, "c": 120})
    assert found.weights == pytest.approx({"a": 160 / 200, "b": 40 / 200, "c": 0})


def test_too_little_text_is_shared_in_proportion_as_in_the_paper():
    found = decide({"a": 90, "b": 10}, tokens=300)
    assert found.weights == pytest.approx({"a": 0.9, "b": 0.1})
    assert "3 times as much" in found.notes[0]


def test_nothing_left_to_read_is_refused():
    with pytest.raises(TikmixError, match=r"baselines\.unimax\.epochs = 1"):
        decide({"a": 10, "b": 10}, tokens=5, consumed={"a": 10, "b": 12})


@pytest.mark.parametrize(
    "limits",
    [
        {"bounds": {"b": {"max": 0.3}}},
        {"groups": {"rest": {"domains": ["b"], "max": 0.3}}},
        {"pinned": {"b": 0.3}},
    ],
)
def test_bounds_hold_and_are_told(limits):
    available = {"a": 1000, "b": 1000}
    supplies = {domain: Supply(count) for domain, count in available.items()}
    bounds = mixture_bounds(OptimizeParameters.model_validate(limits), supplies, 100)
    found = decide(available, tokens=100, bounds=bounds)
    assert found.weights == pytest.approx({"a": 0.7, "b": 0.3})
    assert "20.0% of the tokens" in found.notes[0]


@given(
    available=st.lists(st.integers(1, 10**6), min_size=1, max_size=8),
    epochs=st.floats(0.5, 8),
    share=st.floats(0.01, 1),
)
def test_no_domain_is_read_beyond_its_cap_and_none_below_it_has_less_than_another(available, epochs, share):
    tokens = math.ceil(share * epochs * sum(available) / 2)
    found = decide({str(k): count for k, count in enumerate(available)}, tokens=tokens, epochs=epochs)
    weights_K = np.array(list(found.weights.values()))
    caps_K = epochs * np.array(available) / tokens
    assert weights_K.sum() == pytest.approx(1)
    if caps_K.sum() >= 1:
        assert (weights_K <= caps_K * (1 + 1e-9)).all()
        below_K = weights_K < caps_K * (1 - 1e-9)
        assert np.allclose(weights_K[below_K], weights_K.max())
