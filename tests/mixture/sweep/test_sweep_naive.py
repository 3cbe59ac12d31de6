import numpy as np
import pytest

from tikmix_pipeline.mixture.sweep.naive import matching_domains, naive_predictions
from tikmix_pipeline.mixture.sweep.responses import Responses

WEIGHTS = np.array([[0.5, 0.5, 0.0], [1 / 3, 1 / 3, 1 / 3], [0.0, 0.2, 0.8]])


@pytest.fixture
def responses():
    return Responses(("0", "1", "2"), ("books", "code", "web"), ("code", "facts"), WEIGHTS, np.zeros((3, 2)))


def test_the_even_mixture_is_the_best_by_its_rule(responses):
    distance_NT = naive_predictions(responses, {}, None)["uniform distance"]
    assert distance_NT == pytest.approx(np.array([[2 / 3] * 2, [0] * 2, [14 / 15] * 2]))


def test_more_of_the_matching_domain_is_a_lower_loss_and_no_match_is_undefined(responses):
    matching_NT = naive_predictions(responses, {"code": "code"}, None)["matching domain"]
    assert matching_NT[:, 0] == pytest.approx(-np.log(WEIGHTS[:, 1] + 1e-3))
    assert np.isnan(matching_NT[:, 1]).all()


def test_what_additive_influence_predicts_is_a_rule_as_it_is(responses):
    additive_NT = np.array([[-1.5, 0.5], [0.0, 0.0], [1.0, 2.0]])
    assert naive_predictions(responses, {}, additive_NT)["additive influence"] is additive_NT


def test_without_influence_there_is_no_rule_of_it(responses):
    assert [*naive_predictions(responses, {}, None)] == ["uniform distance", "matching domain"]


@pytest.mark.parametrize(
    ("domains", "targets", "pairs"),
    [
        (["books", "code"], ["books", "sums"], {"books": "books"}),
        (
            ["train_the_pile_arxiv", "train_the_pile_pile_cc", "train_the_pile_europarl"],
            ["metric/the_pile_pile_cc_val_loss", "metric/the_pile_arxiv_val_loss"],
            {
                "metric/the_pile_pile_cc_val_loss": "train_the_pile_pile_cc",
                "metric/the_pile_arxiv_val_loss": "train_the_pile_arxiv",
            },
        ),
        (
            ["pubmed_abstracts", "pubmed_central", "web"],
            ["loss/pubmed_abstracts", "loss/pubmed_central"],
            {"loss/pubmed_abstracts": "pubmed_abstracts", "loss/pubmed_central": "pubmed_central"},
        ),
        (["archive", "arxiv"], ["arxiv loss"], {"arxiv loss": "arxiv"}),
        (["books", "code"], ["facts", "sums"], {}),
    ],
)
def test_targets_are_matched_with_the_domain_of_their_name(domains, targets, pairs):
    assert matching_domains(domains, targets) == pairs
