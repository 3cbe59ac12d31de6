"""What a baseline's decision, and the trainings it keeps, depend on."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tikmix_pipeline.baselines import doremi as doremi_module
from tikmix_pipeline.baselines.baseline import Baseline
from tikmix_pipeline.parameters.check import check_parameters
from tikmix_pipeline.pipelines.cached_node import view_of
from tikmix_pipeline.pipelines.optimize.baselines import decide_by_doremi
from tikmix_pipeline.pipelines.optimize.pipeline import baseline_of_round
from tikmix_pipeline.pipelines.validate.pipeline import validation_of_round
from tikmix_pipeline.pipelines.views import branch_key
from tikmix_pipeline.run import Run
from tikmix_pipeline.store.code import code_of

FILES = {"sources": [{"kind": "files", "path": "texts.jsonl"}]}
GUIDED = ["ngram", "regmix", "mixmin", "dga", "fastmix"]
"""Strategies that look at the targets."""
CORPUS = {"domains": {"code": FILES}, "tasks": {"quiz": FILES}}


def run(strategy: str, **influence: Any) -> Run:
    own = {name: {"items": 8} for name in GUIDED}
    values = {"corpus": CORPUS, "tikmix": {"strategy": strategy}, "influence": influence, "baselines": own}
    return Run(check_parameters(values), {}, Path(), lambda *_: 0)


def recorded(strategy: str, **influence: Any) -> dict[str, Any]:
    (node,) = baseline_of_round(run(strategy, **influence), 0).nodes
    return view_of(node).recorded()


CHANGES = [{"tokens": 64}, {"items_per_task": 7}, {"micro_batches": 2}]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("targets", ["heldout", "all"])
@pytest.mark.parametrize("strategy", GUIDED)
def test_what_says_which_heldout_text_is_scored_makes_a_decision_stale(
    strategy: str, targets: str, change: dict[str, int]
) -> None:
    assert recorded(strategy, targets=targets, **change) != recorded(strategy, targets=targets)
    assert recorded(strategy, targets="tasks", **change) == recorded(strategy, targets="tasks")


@pytest.mark.parametrize("strategy", GUIDED)
def test_baselines_decide_on_as_many_items_as_tikmix_does_in_all_rounds_that_are_trained_on_it(strategy: str) -> None:
    def items(**tikmix: Any) -> int | None:
        values = {"corpus": CORPUS, "tikmix": {"strategy": strategy, **tikmix}, "influence": {"items_per_task": 50}}
        (node,) = baseline_of_round(Run(check_parameters(values), {}, Path(), lambda *_: 0), 0).nodes
        own = view_of(node).recorded()[strategy]
        found: int | None = own["items"]
        return found

    assert items(rounds=3) == 100
    assert items(rounds=1) == 50
    assert items(rounds=5, decisions=1) == 50


@pytest.mark.parametrize("change", [*CHANGES, {"tasks": ["quiz"]}, {"task_loss": "answer"}])
def test_doremi_which_looks_at_no_target_depends_on_none(change: dict[str, Any]) -> None:
    assert recorded("doremi", targets="all", **change) == recorded("doremi", targets="tasks")


def test_baselines_and_branches_are_scored_on_the_same_text() -> None:
    for targets in ("tasks", "heldout"):
        nodes = {node.name: node for node in validation_of_round(run("regmix", targets=targets), 0).nodes}
        of_branches = view_of(nodes["round_0.train_branches"]).recorded()
        assert recorded("regmix", targets=targets)["influence"] == of_branches["influence"]


def test_trainings_of_doremi_are_told_apart_by_the_code_of_doremi(monkeypatch: pytest.MonkeyPatch) -> None:
    """The code of a branch, which has nothing of `baselines`, would let those of an older DoReMi pass."""
    keys = []

    def noting(*_: Any, key: str, **__: Any) -> Baseline:
        keys.append(key)
        return Baseline({"code": 1.0})

    (node,) = baseline_of_round(run("doremi"), 0).nodes
    view: Any = view_of(node)
    real = doremi_module.doremi
    monkeypatch.setattr(doremi_module, "doremi", noting)
    # reading the code of a function that stands in for another one is not what is tested
    monkeypatch.setattr("tikmix_pipeline.pipelines.optimize.baselines.code_of", lambda _: code_of(real))
    nothing: Any = SimpleNamespace(begin=lambda: None, bounds=lambda _: None, weights={})
    decide_by_doremi(view, nothing, nothing, nothing, nothing)
    assert keys == [code_of(real).key]
    assert keys != [branch_key()]
    read = code_of(real).modules
    assert {"baselines.doremi", "baselines.baseline", "lm.trainer", "corpus.stream"} <= read
    assert not {module for module in read if module.startswith("influence")}
