"""What a decision rested on, and what domains that nearly vanish are expected to pay, in sentences."""

import pytest

from tikmix_pipeline.mixture.records import DecisionRecord, SecondOrderRecord
from tikmix_pipeline.report.reasons import decided_on, falling

BEFORE = {"web": 0.6, "books": 0.3, "code": 0.0999, "verse": 0.0001}
AFTER = {"web": 0.971, "books": 0.02, "code": 0.009, "verse": 0.0}


def decision(**second_order) -> DecisionRecord:
    told = {}
    if second_order:
        nothing = {key: {} for key in ("gain_over_current", "unconstrained_gain_over_current", "mean_influence")}
        figures = {"saturation": 0.85, "mean_gain": 2.0, "unguarded_mean_gain": 2.0, "unguarded_objective": 1.0}
        heldout = {"web": 1.0, "books": -0.5, "code": -0.25, "verse": -1.0}
        told["second_order"] = SecondOrderRecord(
            **{"heldout_gain": heldout, "guardrails": (), **nothing, **figures, **second_order}
        )
    return DecisionRecord(
        strategy="direct",
        round=1,
        weights=AFTER,
        expected_gain={},
        binding=(),
        notes=(),
        anchor=BEFORE,
        effect={"piqa": BEFORE},
        **told,
    )


def sentences(record: DecisionRecord, min_weight: float = 0.0) -> list[str]:
    told = falling(record, BEFORE, AFTER, strength=1.75, min_weight=min_weight)
    return [sentence.replace("\u00a0", " ") for sentence in told]


def test_a_domain_below_a_tenth_of_its_weight_is_named_with_its_cost_and_what_would_keep_it():
    books, code = sentences(decision(mean_gain=2.0))
    assert books == (
        "books falls from 30 % to 2.0 %: its own held-out text is expected to lose 0.44 times what the tasks gain on "
        "average. optimize.min_weight is a floor for every domain, optimize.bounds.books.min one for it alone."
    )
    assert code.startswith("code falls from 10 % to 0.9 %: its own held-out text is expected to lose 0.22 times")


def test_a_domain_that_was_next_to_nothing_is_not_missed():
    assert not any("verse" in sentence for sentence in sentences(decision(mean_gain=2.0)))


@pytest.mark.parametrize(
    ("second_order", "cost"),
    [
        ({"scale": 0.01, "branches": 6}, "to lose 0.0088 nats per token"),
        ({"heldout_gain": dict.fromkeys(BEFORE, 0.1)}, "to lose nothing by it"),
        ({"mean_gain": -1.0}, "to lose, and no task gains"),
        ({}, "what its own text pays for it is not known"),
    ],
)
def test_the_cost_is_told_in_the_unit_that_is_known(second_order, cost):
    assert cost in sentences(decision(**second_order))[0]


def test_the_floor_that_is_set_is_told():
    assert "optimize.min_weight is 0.001 now" in sentences(decision(mean_gain=2.0), min_weight=0.001)[0]


def test_what_was_decided_on_is_said_with_the_rounds_and_what_pulls_besides():
    assert decided_on(decision(), 1) == "Decided on this round's measurement alone."
    assert decided_on(decision(mean_gain=2.0), 3, anchor="n-gram models") == (
        "Decided on the mean of the last 3 rounds, to second order: what domains have in common counts once. The "
        "mixture is drawn towards that of n-gram models besides."
    )


def test_of_a_decision_that_says_no_effects_nothing_is_said():
    assert decided_on(decision().model_copy(update={"effect": None}), 2) == ""
