"""What each task asks for is what the very same measurement decides where no other task is there."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from tikmix_pipeline.mixture.asked import asked_mixtures
from tikmix_pipeline.mixture.direct import decide_direct, problem_of
from tikmix_pipeline.mixture.records import MixtureRecord, TokenBudget
from tikmix_pipeline.parameters import OptimizeParameters, TikmixParameters

DOMAINS = ["code", "prose", "verse", "web"]
TASKS = ["quiz", "riddle", "sum"]
PRIOR = {"code": 0.1, "prose": 0.4, "verse": 0.3, "web": 0.2}
BUDGET = TokenBudget(round=1, available=dict.fromkeys(DOMAINS, 2500), consumed={}, chunk_tokens=10_000, current=PRIOR)
NGRAM = {"code": 0.6, "prose": 0.1, "verse": 0.1, "web": 0.2}
START = MixtureRecord(round=0, strategy="prior", chunk_tokens=10_000, weights=PRIOR, tokens={}, epochs=PRIOR)


def rounds() -> list[pd.DataFrame]:
    rng = np.random.default_rng(0)
    rows = [(task, domain) for task in TASKS for domain in DOMAINS]
    columns = {"task": [task for task, _ in rows], "domain": [domain for _, domain in rows]}
    sizes = {"influence": lambda: 1 + rng.normal(size=len(rows)), "stderr": lambda: rng.uniform(0.1, 0.3, len(rows))}
    return [pd.DataFrame(columns | {name: draw() for name, draw in sizes.items()}) for _ in range(2)]


def products() -> list[pd.DataFrame]:
    gradients = np.random.default_rng(1).normal(size=(4, 6)) + 1
    columns = {"text": np.repeat(DOMAINS, 4), "domain": np.tile(DOMAINS, 4)}
    linear, curved = (gradients @ np.diag(by) @ gradients.T for by in (np.ones(6), np.linspace(0.2, 1, 6)))
    errors = np.random.default_rng(2).uniform(0.5, 1.5, 16)
    return [pd.DataFrame(columns | {"influence": linear.ravel(), "curved": curved.ravel(), "stderr": errors})] * 2


def decided_by(task: str, given: dict[str, Any]) -> dict[str, float]:
    """Decide where nothing was measured but one task."""
    optimize = OptimizeParameters.model_validate({"method": "paper", **given})
    alone = [table[table["task"] == task] for table in rounds()]
    averaging = TikmixParameters(memory="mean")
    decision = decide_direct(BUDGET, START, optimize, averaging, alone, products(), ngram=NGRAM)
    return dict(zip(decision.domains, decision.weights_K.tolist(), strict=True))


def asked_by_tasks(given: dict[str, Any]) -> dict[str, Any]:
    optimize = OptimizeParameters.model_validate({"method": "paper", **given})
    averaging = TikmixParameters(memory="mean")
    problem = problem_of(BUDGET, START, optimize, averaging, rounds(), products(), ngram=NGRAM)
    return dict(asked_mixtures(problem, optimize).tasks)


SOLVED = 1e-6
"""How near two solutions of one problem are, in shares: the solver stops where the objective moves by 1e-12, which
leaves the place of a flat optimum to the processor's last bits."""
METHODS = [
    {"max_epochs": 3.0},
    {"pareto": False, "entropy": 0.3, "max_weight": 0.6},
    {"method": "response", "max_epochs": 3.0},
    {"method": "response", "guardrails": {"heldout": None, "code": {"tolerance": 0.1}}},
    {"pareto": False, "entropy": 3.0, "anchor": "ngram"},
    {"method": "response", "entropy": 0.3, "anchor": "ngram", "guardrails": {"heldout": None}},
    {"method": "response", "guardrails": {"each_domain": {"tolerance": 0.3, "unit": "stderr"}, "heldout": None}},
]


@pytest.mark.parametrize("given", METHODS)
def test_a_task_asks_for_what_is_decided_by_it_alone(given: dict[str, Any]) -> None:
    asked = asked_by_tasks(given)
    assert list(asked) == TASKS
    for task in TASKS:
        assert asked[task] == pytest.approx(decided_by(task, given), abs=SOLVED)
    assert max(abs(asked["quiz"][domain] - asked["riddle"][domain]) for domain in DOMAINS) > 0.005, "tasks differ"


@pytest.mark.parametrize("method", ["paper", "response"])
def test_neither_weights_nor_groups_of_tasks_change_what_one_asks_for(method: str) -> None:
    given: dict[str, Any] = {"method": method}
    weighed = given | {"task_weights": {"sum": 5.0, "both": 0.1}, "task_groups": {"both": ["quiz", "riddle"]}}
    expected = asked_by_tasks(given)
    for task, weights in asked_by_tasks(weighed).items():
        assert weights == pytest.approx(expected[task], abs=SOLVED)


def test_a_task_that_does_not_count_asks_for_nothing() -> None:
    assert list(asked_by_tasks({"task_weights": {"riddle": 0}})) == ["quiz", "sum"]


def test_a_guardrail_on_another_task_is_none_of_a_task_s_own_wishes() -> None:
    given: dict[str, Any] = {"method": "response", "guardrails": {"heldout": None, "riddle": {"tolerance": 0.0}}}
    asked = asked_by_tasks(given)
    alone = decided_by("quiz", {"method": "response", "guardrails": {"heldout": None}})
    assert asked["quiz"] == pytest.approx(alone, abs=SOLVED)


def test_a_guardrail_on_the_task_itself_is_told_by_that_task_s_own_errors() -> None:
    given: dict[str, Any] = {
        "method": "response",
        "guardrails": {"heldout": None, "sum": {"tolerance": 0.1, "unit": "stderr"}},
    }
    assert asked_by_tasks(given)["sum"] == pytest.approx(decided_by("sum", given), abs=SOLVED)
