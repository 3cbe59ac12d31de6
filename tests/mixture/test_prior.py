import pytest

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.mixture.prior import prior_mixture

TOKENS = {"code": 300, "web": 600, "books": 100}


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
