"""Records are written as they were read, to the last bit, and refuse what they are not."""

import json
import math

import numpy as np
import pytest

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.mixture.records import DecisionRecord, Gains, MixtureRecord, SweepDesign, TokenBudget

THIRDS = {"books": 1 / 3, "code": 2 / 3}
BASELINE = {
    "strategy": "unimax",
    "round": 1,
    "weights": THIRDS,
    "expected_gain": {},
    "binding": [],
    "notes": ["Ümläute"],
    "cost": {"tokens": 0, "flops": 0.0},
    "details": {"capped": [], "loss": {"code": 0.1 + 0.2, "books": 3}},
}
HELD = {
    "name": "code",
    "kind": "upper",
    "reason": "repetition",
    "parameter": "optimize.max_epochs",
    "bound": 0.1 + 0.2,
    "price": 1e-300,
}
DIRECT = {
    "strategy": "direct",
    "round": 2,
    "weights": THIRDS,
    "prior": THIRDS,
    "reference": THIRDS,
    "expected_gain": {"arc": math.nan},
    "normalised_gain": {"arc": -0.0},
    "normaliser": {"arc": 5e-324},
    "objective": -1.5,
    "terms": {"std": 0.0, "gain": 0.9, "entropy": 0.6},
    "optimality_gap": 0.0,
    "binding": [HELD],
    "notes": [],
    "unconstrained": {"weights": THIRDS, "expected_gain": {"arc": 1.0}, "objective": -2.0},
    "anchor": None,
}
SURROGATE = {
    **{key: DIRECT[key] for key in ("round", "weights", "prior", "reference", "expected_gain", "normalised_gain")},
    "strategy": "surrogate",
    "response": "table",
    "objective": -1.0,
    "terms": {"aggregate": -1.0},
    "direct_weights": None,
    "direct_objective": None,
    "searched_weights": THIRDS,
    "searched_objective": -1.0,
    "additive_gain": None,
    "kept": "surrogate",
    "binding": [],
    "notes": [],
}
MIXTURE = {"round": 1, "strategy": "direct", "chunk_tokens": 3, "weights": THIRDS, "tokens": {"books": 1, "code": 2}}
MIXTURE |= {"epochs": {"books": 0.0, "code": 1.25}}
STOCK = {"round": 0, "available": {"books": 10, "code": 8.5}, "consumed": {"books": 1, "gone": 2.0}}
STOCK |= {"chunk_tokens": 3, "in_force": THIRDS, "size_source": {"code": "given"}, "notes": ["A note."]}


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        (DecisionRecord, BASELINE),
        (DecisionRecord, DIRECT),
        (DecisionRecord, SURROGATE),
        (MixtureRecord, MIXTURE),
        (MixtureRecord, MIXTURE | {"expected_gain": {"arc": 1.0}, "binding": [HELD]}),
        (MixtureRecord, MIXTURE | {"expected_gain": {}, "binding": [], "direct_weights": None, "kept": "direct"}),
        (TokenBudget, STOCK),
        (SweepDesign, {"box": {"low": THIRDS, "high": THIRDS}, "acceptance": 0.125, "notes": []}),
        (Gains, {}),
        (
            Gains,
            {"arc": {"gain": 1.0, "stderr": math.inf}, "siqa": {"gain": 1, "stderr": 0, "unconstrained_gain": 2.5}},
        ),
    ],
)
def test_a_record_is_written_as_it_was_read_to_the_last_bit(kind, content):
    assert json.dumps(kind.from_json(content).to_json(), sort_keys=True) == json.dumps(content, sort_keys=True)


def test_what_numpy_computed_is_written_as_plain_numbers():
    budget = TokenBudget(round=0, available={"a": np.float64(0.1)}, consumed={}, chunk_tokens=1, current={"a": 1.0})
    assert budget.to_json()["available"] == {"a": 0.1}
    assert type(budget.to_json()["available"]["a"]) is float


def test_defaults_of_a_budget_are_written():
    content = TokenBudget(round=0, available={}, consumed={}, chunk_tokens=1, current={}).to_json()
    assert content["notes"] == []
    assert content["size_source"] == {}


def test_records_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        TokenBudget.from_json(STOCK).round = 1


@pytest.mark.parametrize(
    ("content", "key"),
    [
        ({**MIXTURE, "weight": {}}, "'weight'"),
        ({**MIXTURE, "tokens": {"code": "many"}}, "'tokens.code'"),
        ({key: value for key, value in MIXTURE.items() if key != "epochs"}, "'epochs'"),
    ],
)
def test_what_is_no_such_record_is_refused_with_the_key_at_fault(content, key):
    with pytest.raises(TikmixError, match=f"This is no MixtureRecord as this version writes it: {key}"):
        MixtureRecord.from_json(content)


def test_keys_on_disk_are_not_the_names_of_attributes():
    with pytest.raises(TikmixError, match="in_force"):
        TokenBudget.from_json({("current" if key == "in_force" else key): value for key, value in STOCK.items()})
