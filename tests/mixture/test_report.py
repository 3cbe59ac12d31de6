import numpy as np
import pytest

from tikmix_pipeline.mixture.decision import Binding, Decision
from tikmix_pipeline.mixture.report import domain_rows, in_words, summary_lines, task_rows

DECISION = Decision(
    domains=("books", "code"),
    tasks=("reading",),
    weights_K=np.array([0.3, 0.7]),
    prior_K=np.array([0.5, 0.5]),
    reference_K=np.array([0.5, 0.5]),
    expected_gain_T=np.array([0.002]),
    normalised_gain_T=np.array([0.9]),
    normaliser_T=np.array([0.01]),
    objective=-1.5,
    terms={"std": 0.0, "gain": 0.9, "entropy": 0.6},
    optimality_gap=0.0,
    binding=(
        Binding("code", "upper", "repetition", "optimize.max_epochs", 0.7, 0.4),
        Binding("reading", "pareto", "prior", "optimize.pareto", 0.8, 0.1),
    ),
    notes=("A word of warning.",),
    unconstrained_K=np.array([0.1, 0.9]),
    unconstrained_gain_T=np.array([0.004]),
    unconstrained_objective=-1.75,
)


def test_domain_rows_compare_with_the_prior_and_say_what_holds():
    books, code = domain_rows(DECISION)
    assert (books["domain"], books["prior"], books["weight"], books["held_by"]) == ("books", 0.5, 0.3, "")
    assert code["change"] == pytest.approx(0.2)
    assert code["held_by"] == "at most 0.7, all its text allows (optimize.max_epochs)"


def test_task_rows_tell_gain_and_constraint():
    (row,) = task_rows(DECISION)
    assert (row["task"], row["expected_gain"], row["normalised_gain"]) == ("reading", 0.002, 0.9)
    assert "optimize.pareto" in row["held_by"]


@pytest.mark.parametrize(
    ("binding", "words"),
    [
        (Binding("code", "lower", "simplex", "", 0.0, 1.0), "at least 0"),
        (
            Binding("code", "lower", "user", "optimize.min_weight", 0.1, 1.0),
            "at least 0.1 (optimize.min_weight)",
        ),
    ],
)
def test_a_binding_constraint_names_its_parameter(binding, words):
    assert in_words(binding) == words


def test_summary_puts_the_heaviest_domain_first_and_ends_with_the_notes():
    lines = summary_lines(DECISION)
    assert [line.split()[0] for line in lines[1:3]] == ["code", "books"]
    assert lines[-1] == "A word of warning."
    assert lines[-2].startswith("The constraints cost 0.25 of the objective, -1.5 instead of -1.75")
    assert "20.0% of the tokens would go elsewhere, most with 'code' at 0.9000" in lines[-2]
