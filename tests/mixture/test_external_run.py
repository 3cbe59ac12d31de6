"""An external run: its token budget and its current mixture, from what is told and what was recorded."""

import pytest

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.mixture.external_run import EarlierRound, SampledDomain, external_run_budget
from tikmix_pipeline.mixture.records import MixtureRecord, TokenBudget
from tikmix_pipeline.parameters.remix import RemixParameters

SAMPLES = {
    "code": SampledDomain(tokens=1_000, bytes_per_token=3.0),
    "web": SampledDomain(tokens=1_000, bytes_per_token=4.0, total_bytes=40_000.0, is_estimate=True),
}


def at(number=0, samples=SAMPLES, earlier=None, given=None, prior="uniform", **remix):
    parameters = RemixParameters.model_validate(remix)
    return external_run_budget(number, samples, parameters, prior=prior, chunk_tokens=500, given=given, earlier=earlier)


def round_before(decided=(0.25, 0.75), consumed=(100.0, 100.0), names=("code", "web")):
    before = dict(zip(names, consumed, strict=True))
    budget = TokenBudget(round=0, available=dict.fromkeys(names, 1e4), consumed=before, chunk_tokens=400, current={})
    weights = dict(zip(names, decided, strict=True))
    return EarlierRound(
        budget, MixtureRecord(round=1, strategy="direct", chunk_tokens=400, weights=weights, tokens={}, epochs={})
    )


def test_sizes_are_those_given_else_estimated_from_the_sample_else_counted():
    sizes = {"code": {"bytes": 9e9}}
    budget, _ = at(sizes=sizes)
    assert budget.available == {"code": 3e9, "web": 10_000}
    assert budget.size_source == {"code": "given", "web": "estimated"}
    budget, _ = at(sizes={"web": {"tokens": 7}})
    assert budget.available == {"code": 1_000, "web": 7}
    assert budget.size_source == {"code": "counted", "web": "given"}


def test_the_first_round_begins_with_the_prior_and_with_nothing_read():
    budget, record = at()
    assert record.weights == budget.current == {"code": 0.5, "web": 0.5}
    assert budget.consumed == {"code": 0, "web": 0}
    assert (record.strategy, record.chunk_tokens, budget.chunk_tokens) == ("prior", 0, 500)


def test_decisions_look_as_far_as_the_team_says_that_its_run_goes_on():
    assert at()[0].tokens_ahead == 500
    budget, record = at(remaining_tokens=2_000)
    assert (budget.tokens_ahead, budget.chunk_tokens, record.chunk_tokens) == (2_000, 500, 0)
    with pytest.raises(
        TikmixError, match=r"remix\.remaining_tokens is 499, less than the 500 tokens of the coming chunk"
    ):
        at(remaining_tokens=499)


def test_tokens_consumed_in_all_are_dealt_by_the_current_mixture():
    budget, record = at(given={"code": 0.2, "web": 0.8}, consumed=1_000)
    assert budget.consumed == pytest.approx({"code": 200, "web": 800})
    assert record.epochs == pytest.approx({"code": 0.2, "web": 0.08})
    assert record.strategy == "given"


def test_later_rounds_have_read_the_chunk_that_was_decided():
    budget, record = at(1, earlier=round_before())
    assert budget.current == {"code": 0.25, "web": 0.75}
    assert budget.consumed == {"code": 100 + 0.25 * 400, "web": 100 + 0.75 * 400}
    assert (record.tokens, record.strategy) == ({"code": 100, "web": 300}, "direct")


def test_what_a_later_round_is_told_goes_before_what_was_recorded():
    budget, record = at(1, earlier=round_before(), given={"code": 1.0, "web": 0.0}, consumed={"code": 900, "web": 100})
    assert budget.current == {"code": 1.0, "web": 0.0}
    assert budget.consumed == {"code": 900, "web": 100}
    assert record.tokens == {"code": 800, "web": 0}
    budget, _ = at(1, earlier=round_before(), consumed=1_200)
    assert budget.consumed == {"code": 100 + 0.25 * 1_000, "web": 100 + 0.75 * 1_000}


def test_domains_may_come_and_go_and_what_is_gone_was_read_all_the_same():
    before = round_before((0.4, 0.6), names=("code", "books"))
    budget, record = at(1, earlier=before)
    assert budget.current == {"code": 1.0, "web": 0.0}
    assert budget.consumed == {"code": 100 + 0.4 * 400, "web": 0, "books": 100 + 0.6 * 400}
    assert record.chunk_tokens == 400
    assert "'books'" in budget.notes[0]
    assert "'web'" in budget.notes[1]
    budget, _ = at(1, earlier=before, consumed=1_200)
    assert budget.consumed == {"code": 100 + 0.4 * 1_000, "web": 0, "books": 100 + 0.6 * 1_000}


@pytest.mark.parametrize("names", [("books", "mail"), ("books", "code")])
def test_rounds_without_a_domain_in_common_are_refused(names):
    decided = (1.0, 0.0)
    with pytest.raises(TikmixError, match=r"round 1 of this experiment is over 'books'.*now, 'code', 'web'"):
        at(1, earlier=round_before(decided, names=names))


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"sizes": {"cod": {"tokens": 1}}}, r"remix\.sizes names the domain 'cod'.*Did you mean 'code'"),
        ({"consumed": {"wbe": 1}}, r"remix\.consumed names the domain 'wbe'.*Did you mean 'web'"),
        ({"consumed": {"web": 1}}, r"remix\.consumed says nothing of 'code'"),
        ({"given": {"code": 1.0}}, r"remix\.current gives no weight for 'web'"),
        ({"given": {"code": 0.5, "web": 0.6}}, r"remix\.current sum to 1\.1"),
        ({"consumed": {"code": 99, "web": 500}, "earlier": round_before()}, r"99 tokens of 'code'.*began with 100"),
        ({"consumed": 150, "earlier": round_before()}, r"says that 150 tokens were trained on.*began with 200"),
        ({"consumed": 200, "earlier": round_before()}, r"leave remix\.consumed out"),
        ({"consumed": {"code": 100, "web": 100}, "earlier": round_before()}, r"leave remix\.consumed out"),
    ],
)
def test_what_cannot_be_is_refused_by_name(told, message):
    with pytest.raises(TikmixError, match=message):
        at(**told)


@pytest.mark.parametrize("size", [{}, {"tokens": 1, "bytes": 1}, {"tokens": 0}])
def test_a_size_is_tokens_or_bytes(size):
    with pytest.raises(ValueError, match="sizes"):
        RemixParameters.model_validate({"sizes": {"code": size}})
