"""What guarded text pays, in sentences: short, the whole first, in per cent where branches have told."""

from tikmix_pipeline.mixture.guardrail_words import guardrail_sentences
from tikmix_pipeline.mixture.records import GuardrailRecord, SecondOrderRecord


def guardrail(name="heldout", gain=-0.4, unguarded=-1.2, price=1.0, **given):
    return GuardrailRecord(
        name=name,
        tolerance=0.4,
        unit="share",
        influence={"a": 0.0},
        share=0.4,
        slack=0.0,
        gain=gain,
        unguarded_gain=unguarded,
        price=price,
        **given,
    )


def record(*guardrails, **given):
    figures = {"mean_gain": 1.0, "unguarded_mean_gain": 1.25, "unguarded_objective": -2.5, **given}
    return SecondOrderRecord(
        saturation=0.85,
        heldout_gain={"a": 0.0},
        gain_over_current={},
        unconstrained_gain_over_current={},
        mean_influence={"a": 0.0},
        guardrails=guardrails,
        **figures,
    )


def test_without_branches_it_is_a_share_of_what_the_tasks_gain():
    assert list(guardrail_sentences(record(guardrail()), -2.25)) == [
        "Held-out text is expected to lose 0.40 of what the tasks gain; without guardrails it would lose 0.96 of what "
        "the tasks gain.",
        "With the guardrails the tasks gain 80% of what they would gain without, and the objective is -2.25 instead of "
        "-2.5, lower being better (optimize.guardrails).",
    ]


def test_with_branches_it_is_per_cent_of_the_loss():
    first, _ = guardrail_sentences(record(guardrail(loss=4.0), scale=0.3), -2.25)
    assert first == (
        "Held-out text is expected to lose 3.0 % (0.12 nats per token); without guardrails it would lose 9.0 % (0.36 "
        "nats per token)."
    )
    small, _ = guardrail_sentences(record(guardrail(loss=4.0), scale=0.0003), -2.25)
    assert "lose 0.003 % (0.00012 nats per token)" in small


def test_where_nothing_binds_that_is_said():
    free = guardrail(gain=0.5, unguarded=0.5, price=0.0)
    assert list(guardrail_sentences(record(free), -2.5)) == [
        "Held-out text is expected to gain 0.50 of what the tasks gain; no guardrail stands in the way."
    ]


def test_of_many_the_whole_and_the_dearest_are_told_and_the_others_counted():
    many = [guardrail(f"d{k}", price=float(k)) for k in range(6)]
    said = list(guardrail_sentences(record(*many, guardrail(price=0.0)), -2.25))
    assert [sentence.split(" is ")[0] for sentence in said[:3]] == ["Held-out text", "'d5'", "'d4'"]
    assert said[3] == "4 more guardrails hold (optimize.guardrails)."
    assert len(said) == 5


def test_where_the_tasks_have_nothing_to_gain_or_nothing_is_guarded_nothing_is_said():
    assert not list(guardrail_sentences(record(guardrail(), unguarded_mean_gain=0.0), 0.0))
    assert not list(guardrail_sentences(record(), 0.0))


def test_of_another_method_s_mixture_no_cost_in_the_objective_is_told():
    assert len(list(guardrail_sentences(record(guardrail())))) == 1
