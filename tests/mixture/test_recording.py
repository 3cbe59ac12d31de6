"""What is recorded of a round's mixture: rounded weights, what they mean in tokens and epochs, and what was decided."""

from tikmix_pipeline.mixture.recording import (
    baseline_record,
    gains_record,
    keep_mixture,
    mixture_table,
    record_decision,
    record_prior,
)
from tikmix_pipeline.mixture.records import BindingRecord, DecisionRecord, Gains, TokenBudget
from tikmix_pipeline.parameters import OptimizeParameters, ReweightParameters, TikmixParameters

ROUNDING = ReweightParameters(decimals=3)
BUDGET = TokenBudget(
    round=0,
    available={"books": 100, "code": 1000},
    consumed={"books": 50, "code": 100},
    chunk_tokens=300,
    current={"books": 0.5, "code": 0.5},
)
HELD = BindingRecord(name="code", kind="upper", reason="user", parameter="p", bound=0.7, multiplier=1.0)
DECISION = DecisionRecord(
    strategy="direct",
    round=1,
    weights={"books": 1 / 3, "code": 2 / 3},
    expected_gain={"arc": 0.5},
    binding=(HELD,),
    notes=(),
)


def prior_of(tokens=None, **prior):
    return record_prior(
        tokens or {"books": 100, "code": 300},
        prior=TikmixParameters.model_validate(prior),
        rounding=ROUNDING,
        chunk_tokens=400,
    )


def test_the_prior_is_recorded_with_what_it_reads():
    record = prior_of()
    assert (record.round, record.strategy, record.weights) == (0, "prior", {"books": 0.25, "code": 0.75})
    assert (record.tokens, record.epochs) == ({"books": 100, "code": 300}, {"books": 1.0, "code": 1.0})
    assert "expected_gain" not in record.to_json()


def test_a_decided_mixture_is_rounded_and_keeps_what_it_gains_and_what_holds_it():
    record = record_decision(DECISION, BUDGET, prior_of(), strategy="direct", rounding=ROUNDING)
    assert record.weights == {"books": 0.333, "code": 0.667}
    assert (record.tokens, record.chunk_tokens) == ({"books": 100, "code": 200}, 300)
    assert record.epochs == {"books": 1.5, "code": 0.3}
    content = record.to_json()
    assert (content["expected_gain"], content["binding"][0]["price"]) == ({"arc": 0.5}, 1.0)
    assert "kept" not in content


def test_where_the_prior_is_the_strategy_it_is_kept_whatever_was_decided():
    record = record_decision(DECISION, BUDGET, prior_of(), strategy="prior", rounding=ROUNDING)
    assert (record.round, record.strategy, record.weights) == (1, "prior", {"books": 0.25, "code": 0.75})
    assert record.expected_gain is None


def test_a_surrogates_mixture_is_recorded_beside_that_of_direct():
    decided = DECISION.model_copy(update={"direct_weights": None, "kept": "surrogate"})
    content = record_decision(decided, BUDGET, prior_of(), strategy="surrogate", rounding=ROUNDING).to_json()
    assert (content["direct_weights"], content["kept"]) == (None, "surrogate")


def test_a_mixture_is_kept_as_far_as_there_is_text_for_it():
    mixture = record_decision(DECISION, BUDGET, prior_of(), strategy="direct", rounding=ROUNDING)
    kept = keep_mixture(mixture, BUDGET, OptimizeParameters(max_epochs=1), ROUNDING)
    assert (kept.round, kept.strategy) == (2, "direct")
    assert kept.weights == {"books": 0.167, "code": 0.833}


def test_rows_of_the_catalog_name_every_domain():
    table = mixture_table(prior_of())
    assert list(table.columns) == ["round", "strategy", "domain", "weight", "epochs", "tokens"]
    assert table.to_dict("list")["domain"] == ["books", "code"]


def test_a_baseline_decides_once_and_says_what_it_took():
    record = baseline_record("unimax", {"a": 1.0}, notes=("A note.",), cost={"tokens": 5, "flops": 2.0}, details={})
    assert (record.round, record.cost.tokens, record.to_json()["details"]) == (1, 5, {})


def test_gains_tell_the_unconstrained_ones_where_they_are_known():
    assert gains_record({"arc": (1.0, 0.5)}).to_json() == {"arc": {"gain": 1.0, "stderr": 0.5, "unit": "share"}}
    with_free = gains_record({"arc": (1.0, 0.5)}, {"arc": (2.0, 0.7)}, unit="nats").to_json()
    assert with_free == {"arc": {"gain": 1.0, "stderr": 0.5, "unit": "nats", "unconstrained_gain": 2.0}}


def test_gains_recorded_before_their_unit_was_are_read_as_what_they_were():
    read = Gains.from_json({"arc": {"gain": 1.0, "stderr": 0.5}})
    assert read.unit == "nats"
    assert read.to_json() == {"arc": {"gain": 1.0, "stderr": 0.5}}
