import math
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.mixture.simplex import check_mixture, entropy, prior_mixture, round_to_simplex

DOMAINS = ["books", "code", "web"]
TOKENS = {"code": 300, "web": 600, "books": 100}


@st.composite
def mixtures(draw):
    size = draw(st.integers(1, 30))
    parts = draw(st.lists(st.floats(0, 1), min_size=size, max_size=size).filter(lambda parts: sum(parts) > 1e-3))
    return np.array(parts) / math.fsum(parts)


@given(mixtures(), st.integers(3, 12))
@settings(deadline=None)
def test_rounded_decimals_sum_to_exactly_one(weights_K, decimals):
    rounded_K = round_to_simplex(weights_K, decimals).tolist()
    assert sum(Decimal(repr(weight)) for weight in rounded_K) == 1
    assert all(round(weight, decimals) == weight for weight in rounded_K)
    assert abs(math.fsum(rounded_K) - 1) <= np.finfo(float).eps


@given(mixtures(), st.integers(3, 12))
@settings(deadline=None)
def test_rounding_moves_no_weight_by_a_unit_and_leaves_zeros(weights_K, decimals):
    rounded_K = round_to_simplex(weights_K, decimals)
    float_noise = 1e-15
    assert np.abs(rounded_K - weights_K).max() < 10.0**-decimals + float_noise
    assert np.all(rounded_K[weights_K == 0] == 0)


@given(mixtures(), st.integers(3, 12))
@settings(deadline=None)
def test_rounding_twice_changes_nothing_more(weights_K, decimals):
    once_K = round_to_simplex(weights_K, decimals)
    assert np.array_equal(round_to_simplex(once_K, decimals), once_K)


def test_thirds_round_in_favour_of_the_earlier_domain():
    assert round_to_simplex(np.full(3, 1 / 3), 3).tolist() == [0.334, 0.333, 0.333]


def test_mixture_comes_back_in_the_order_of_the_domains():
    assert check_mixture({"web": 0.5, "books": 0.2, "code": 0.3}, DOMAINS, "w").tolist() == [0.2, 0.3, 0.5]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"books": 0.2, "code": 0.3, "wbe": 0.5}, r"prior names the domain 'wbe', .* Did you mean 'web'\?"),
        ({"books": 0.2, "zzz": 0.8}, r"'zzz', which is not there\. The names are 'books', 'code', 'web'"),
        ({"books": 0.5, "web": 0.5}, r"gives no weight for 'code'"),
        ({"books": -0.5, "code": 1.0, "web": 0.5}, r"prior\.books is -0\.5"),
        ({"books": math.nan, "code": 0.5, "web": 0.5}, r"prior\.books is nan"),
        ({"books": math.inf, "code": 0.5, "web": 0.5}, r"prior\.books is inf"),
        ({"books": 0.3, "code": 0.3, "web": 0.3}, r"sum to 0\.9 instead of 1"),
    ],
)
def test_a_wrong_mixture_is_refused_with_its_fault(weights, message):
    with pytest.raises(TikmixError, match=message):
        check_mixture(weights, DOMAINS, "prior")


def test_entropy_of_uniform_is_log_of_size_and_of_a_vertex_zero():
    assert entropy(np.full(8, 1 / 8)) == pytest.approx(math.log(8), abs=1e-15)
    assert entropy(np.array([0.0, 1.0, 0.0])) == 0


def test_proportional_prior_follows_the_token_counts():
    assert prior_mixture("proportional", TOKENS) == {"code": 0.3, "web": 0.6, "books": 0.1}


def test_uniform_prior_ignores_the_token_counts():
    assert prior_mixture("uniform", TOKENS) == dict.fromkeys(TOKENS, 1 / 3)


def test_given_prior_takes_the_order_of_the_domains():
    prior = prior_mixture({"books": 0.2, "code": 0.5, "web": 0.3}, TOKENS)
    assert list(prior.items()) == [("code", 0.5), ("web", 0.3), ("books", 0.2)]


def test_given_prior_is_checked_under_its_own_name():
    with pytest.raises(TikmixError, match=r"tikmix\.prior names the domain 'book'.* Did you mean 'books'"):
        prior_mixture({"book": 0.2, "code": 0.5, "web": 0.3}, TOKENS)


def test_proportional_prior_of_no_tokens_is_refused():
    with pytest.raises(TikmixError, match="no domain has any"):
        prior_mixture("proportional", {"code": 0, "web": 0})
