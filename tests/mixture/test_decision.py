import numpy as np
import pytest

from tikmix_pipeline.mixture.decision import Decision, in_words, summary_lines
from tikmix_pipeline.mixture.records import BindingRecord


def binding(name, kind, reason, parameter, bound):
    return BindingRecord(name=name, kind=kind, reason=reason, parameter=parameter, bound=bound, multiplier=0.4)


DECISION = Decision(
    domains=("books", "code"),
    tasks=("reading",),
    weights_K=np.array([0.3, 0.7]),
    prior_K=np.array([0.5, 0.5]),
    reference_K=np.array([0.5, 0.5]),
    expected_gain_T=np.array([0.002]),
    gain_scale_T=np.array([0.008]),
    normalised_gain_T=np.array([0.9]),
    normaliser_T=np.array([0.01]),
    objective=-1.5,
    terms={"std": 0.0, "gain": 0.9, "entropy": 0.6},
    optimality_gap=0.0,
    binding=(
        binding("code", "upper", "repetition", "optimize.max_epochs", 0.7),
        binding("reading", "pareto", "prior", "optimize.pareto", 0.8),
    ),
    notes=("A word of warning.",),
    unconstrained_K=np.array([0.1, 0.9]),
    unconstrained_gain_T=np.array([0.004]),
    unconstrained_objective=-1.75,
)


@pytest.mark.parametrize(
    ("one", "words"),
    [
        (binding("code", "lower", "simplex", "", 0.0), "at least 0"),
        (binding("code", "lower", "user", "optimize.min_weight", 0.1), "at least 0.1 (optimize.min_weight)"),
    ],
)
def test_a_binding_constraint_names_its_parameter(one, words):
    assert in_words(one) == words


def test_a_summary_compares_with_the_prior_and_says_what_holds_domains_and_tasks():
    lines = summary_lines(DECISION)
    assert lines[1:3] == [
        "code     0.5000  0.7000 +0.2000  at most 0.7, all its text allows (optimize.max_epochs)",
        "books    0.5000  0.3000 -0.2000",
    ]
    assert lines[3].split(maxsplit=1)[1] == "expected gain over the prior, share of the best possible"
    assert lines[4].split(maxsplit=2)[:2] == ["reading", "+0.250"]
    assert lines[4].endswith("may not do worse than under the prior (optimize.pareto)")


def test_a_summary_ends_with_the_cost_of_constraints():
    last = summary_lines(DECISION)[-1]
    assert last.startswith("The constraints cost 0.25 of the objective, -1.5 instead of -1.75")
    assert "20.0% of the tokens would go elsewhere, most with 'code' at 0.9000" in last


def test_a_record_names_what_the_arrays_hold():
    record = DECISION.to_record("direct", 3)
    assert (record.strategy, record.round, record.weights) == ("direct", 3, {"books": 0.3, "code": 0.7})
    assert record.unconstrained.expected_gain == {"reading": 0.004}
    assert record.gain_scale == {"reading": 0.008}
    content = record.to_json()
    assert content["anchor"] is None
    assert [one["price"] for one in content["binding"]] == [0.4, 0.4]
    assert "direct_weights" not in content
